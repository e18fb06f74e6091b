// SPDX-License-Identifier: Apache-2.0
//! Tables and charts of capacity.

use std::fmt::Display;

use comfy_table::Cell;
use plan::capacity::Limit;
use plan::chart::{self, Bar};
use plan::price::Price;
use plan::refresh::Newer;
use plan::subnet::{Fragmentation, Short};

use super::space::{Case, Of, Outlook};
use super::{Dated, Format, Report, Row};
use crate::cli::output::{self, Text};

/// Columns of a chart where nobody knows the terminal.
const CHART_WIDTH: usize = 100;

/// Prints what was found.
pub(super) fn print(format: Format, report: &Report) -> anyhow::Result<()> {
    match format {
        Format::Json => output::json(report),
        Format::Table => output::print(&text(report, table(report)).0),
        Format::Chart => output::print(&text(report, Text(chart::text(&bars(report), CHART_WIDTH))).0),
    }
}

/// The chart as a document.
pub(super) fn svg(report: &Report) -> String {
    let footer: Vec<String> = report.data.iter().map(source).collect();
    chart::svg("Pods per node", &footer.join(" · "), &bars(report))
}

fn bars(report: &Report) -> Vec<Bar> {
    let bar = |row: &Row| Bar {
        label: format!(
            "{} {} {}",
            row.machine.as_deref().unwrap_or("any"),
            row.capacity.mode,
            row.capacity.network
        ),
        value: row.capacity.pods,
        of: row.capacity.usable,
    };
    report.capacity.iter().map(bar).collect()
}

fn text(report: &Report, body: Text) -> Text {
    let mut text = Text::default();
    if let Some(comparison) = &report.refresh {
        refreshed(&mut text, comparison);
    }
    if !text.0.is_empty() && !body.0.is_empty() {
        text.0.push('\n');
    }
    text.0.push_str(&body.0);
    for refused in &report.refused {
        let machine = refused.machine.as_deref().unwrap_or("any machine");
        text.line(format!(
            "{machine}, {}, {}: {}",
            refused.network, refused.mode, refused.reason
        ));
    }
    for outlook in &report.space {
        space(&mut text, outlook);
    }
    closing(&mut text, report);
    text
}

fn table(report: &Report) -> Text {
    let priced = report.capacity.iter().any(|row| row.price.is_some());
    let mut columns = vec![
        "TYPE",
        "CNI",
        "MODE",
        ">SLOTS",
        ">TAKEN",
        ">USABLE",
        ">OFFICIAL",
        ">MAX-PODS",
        ">PODS",
        "LIMIT",
    ];
    if priced {
        columns.extend([">USD/HOUR", ">USD/POD-MONTH"]);
    }
    let mut table = output::table(&columns);
    for row in &report.capacity {
        let capacity = &row.capacity;
        let taken: u32 = capacity.taken.iter().map(|taken| taken.addresses).sum();
        let mut cells = vec![
            Cell::new(row.machine.as_deref().unwrap_or("any")),
            Cell::new(capacity.network),
            Cell::new(capacity.mode),
            Cell::new(capacity.slots),
            Cell::new(taken),
            Cell::new(capacity.usable),
            Cell::new(or_dash(capacity.official_max_pods)),
            known(capacity.max_pods),
            known(capacity.pods),
            Cell::new(match capacity.limit {
                Some(Limit::Addresses) => "addresses",
                Some(Limit::MaxPods) => "max-pods",
                None => "unknown",
            }),
        ];
        if priced {
            let hour = row.price.as_ref().and_then(Price::usd_per_hour);
            cells.push(known(hour.map(|usd| format!("{usd:.4}"))));
            cells.push(known(row.usd_per_pod_month.map(|usd| format!("{usd:.2}"))));
        }
        table.add_row(cells);
    }
    Text::from(&table)
}

fn or_dash(value: Option<impl Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn known(value: Option<impl Display>) -> Cell {
    match value {
        Some(value) => Cell::new(value),
        None => output::bad("unknown"),
    }
}

fn refreshed(text: &mut Text, comparison: &plan::refresh::Comparison) {
    let newer = match comparison.newer {
        Newer::Answer => "the answer is newer and counts",
        Newer::Table => "the table is newer; only types that it lacks are taken from the answer",
    };
    text.line(format!(
        "EC2's answer of {} against limits of {}: {newer}.",
        comparison.answer_date, comparison.table_date
    ));
    text.line(format!(
        "{} equal, {} changed, {} new, {} only in the table{}",
        comparison.equal,
        comparison.changed.len(),
        comparison.added.len(),
        comparison.only_table,
        if comparison.partial {
            "; the answer is one page of several"
        } else {
            ""
        }
    ));
    for change in &comparison.changed {
        let side = |row: &plan::Instance| {
            format!(
                "{} interfaces x {} addresses, {} vCPUs, {}{}",
                row.interfaces,
                row.ipv4_per_interface,
                or_dash(row.vcpus),
                format!("{:?}", row.hypervisor).to_lowercase(),
                if row.bare_metal { ", metal" } else { "" }
            )
        };
        text.line(format!(
            "changed: {}: {} -> {}",
            change.name,
            side(&change.table),
            side(&change.answer)
        ));
    }
    if !comparison.added.is_empty() {
        text.line(format!("new: {}", comparison.added.join(", ")));
    }
    for skipped in &comparison.skipped {
        text.line(format!("left out: {}: {}", skipped.name, skipped.reason));
    }
}

fn space(text: &mut Text, outlook: &Outlook) {
    let machine = outlook.machine.as_deref().unwrap_or("any machine");
    let who = format!("{machine}, {}, {}", outlook.network, outlook.mode);
    match &outlook.of {
        Of::PodCidr(ranges) => {
            let end = match ranges.exhausted_month {
                Some(0) => "too small for the nodes of now".to_owned(),
                Some(month) => format!("no range for the next node in month {month}"),
                None => "lasts as far as was looked".to_owned(),
            };
            text.line(format!(
                "\nPod CIDR {} in /{} for {who}: {} nodes at most; {end}",
                ranges.cidr, ranges.node_mask, ranges.most_nodes
            ));
        }
        Of::Subnet {
            pods_per_node,
            used,
            free,
            cases,
            ..
        } => {
            let Some(first) = cases.first() else { return };
            let node = first.forecast.node;
            let heading = format!(
                "Subnet {}: {used} used, {free} free. {who}: a node with {pods_per_node} pods takes {} addresses and {} prefixes",
                first.forecast.cidr, node.addresses, node.prefixes
            );
            let columns = [
                "ADDRESSES LIE",
                ">/28 NOW",
                ">STRANDED",
                ">NODES AT MOST",
                "RUNS OUT",
                "SHORT OF",
                ">FREE THEN",
            ];
            let mut table = output::table(&columns);
            for case in cases {
                table.add_row(case_cells(case));
            }
            text.section(&heading, &table);
        }
    }
}

fn case_cells(case: &Case) -> Vec<Cell> {
    let lie = match case.fragmentation {
        Fragmentation::Packed => "packed (best)".to_owned(),
        Fragmentation::Random { seed } => format!("random ({seed})"),
        Fragmentation::Spread => "spread (worst)".to_owned(),
    };
    let lie = if case.exact {
        format!("as given, new {lie}")
    } else {
        lie
    };
    let (month, short, free) = match case.forecast.exhausted {
        None => (Cell::new("not in this time"), "-", "-".to_owned()),
        Some(end) => {
            let short = match end.short_of {
                Short::Addresses => "addresses",
                Short::Prefixes => "prefixes",
            };
            (
                output::bad(format!("month {}, node {}", end.month, end.node)),
                short,
                end.free.to_string(),
            )
        }
    };
    vec![
        Cell::new(lie),
        Cell::new(case.prefixes_now),
        Cell::new(case.stranded_now),
        Cell::new(case.forecast.most_nodes),
        month,
        Cell::new(short),
        Cell::new(free),
    ]
}

fn source(dated: &Dated) -> String {
    let age = dated.age;
    let stale = if age.stale { ", STALE" } else { "" };
    format!(
        "{} of {} ({} months old{stale})",
        dated.what, dated.provenance.date, age.months
    )
}

/// Notes once each, what is taken, and how old the data are.
fn closing(text: &mut Text, report: &Report) {
    let mut notes: Vec<String> = report.notes.clone();
    for row in &report.capacity {
        let capacity = &row.capacity;
        notes.extend(
            capacity
                .notes
                .iter()
                .map(|note| format!("{}: {note}", capacity.mode)),
        );
        let taken = capacity.taken.iter();
        notes.extend(taken.map(|taken| {
            format!(
                "{} takes {}: {} ({})",
                capacity.network, taken.addresses, taken.what, taken.source
            )
        }));
        if let Some(Price::Unknown { reason }) = &row.price {
            notes.push(format!("price unknown: {reason}"));
        }
    }
    if report
        .space
        .iter()
        .any(|outlook| matches!(outlook.of, Of::Subnet { .. }))
    {
        notes.push("the clouds do not say which free address they take next: packed and spread are the bounds; a subnet CIDR reservation of type prefix keeps blocks of sixteen together".to_owned());
    }
    let mut seen = Vec::new();
    for note in notes {
        if !seen.contains(&note) {
            seen.push(note);
        }
    }
    if !seen.is_empty() && !text.0.is_empty() {
        text.0.push('\n');
    }
    for note in seen {
        text.line(format!("- {note}"));
    }
    for dated in &report.data {
        text.line(format!("- {}", source(dated)));
        if dated.age.stale {
            text.line("  refresh them: thalweg capacity --refresh-from-aws --region NAME --save FILE, then --data FILE");
        }
    }
}
