// SPDX-License-Identifier: Apache-2.0
//! What the doctor says, for people.

use std::collections::BTreeMap;
use std::process::ExitCode;

use comfy_table::Cell;
use doctor::checks::{self, TRAPS};
use doctor::facts::Facts;
use doctor::finding::{Finding, Report, Severity, Unknown};
use serde_json::json;

use crate::cli::output::{self, Format, Text};

/// `--list`.
pub(super) fn list(format: Format) -> anyhow::Result<ExitCode> {
    match format {
        Format::Json => {
            let items: Vec<_> = checks::all()
                .map(|check| json!({"id": check.id, "trap": check.trap, "title": check.title, "why": check.why}))
                .collect();
            output::json(&json!({ "items": items, "traps": TRAPS }))?;
        }
        Format::Text => {
            let mut table = output::table(&["CHECK", ">TRAP", "WHAT IT FINDS"]);
            for check in checks::all() {
                let trap = check.trap.map_or_else(|| "-".to_owned(), |trap| trap.to_string());
                table.add_row(vec![Cell::new(check.id), Cell::new(trap), Cell::new(check.title)]);
            }
            output::print(&Text::from(&table).0)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The findings, then what is not known, then one line.
pub(super) fn screen(facts: &Facts, report: &Report) -> Text {
    let mut text = Text::default();
    for finding in &report.findings {
        show(&mut text, finding);
    }
    if !report.unknown.is_empty() {
        text.line("Not known:");
        for line in unknown(&report.unknown) {
            text.line(line);
        }
        text.line("");
    }
    text.line(summary(facts, report));
    text
}

fn show(text: &mut Text, finding: &Finding) {
    let severity = finding.severity.as_str().to_uppercase();
    let head = match finding.severity {
        Severity::Error => output::paint(&severity, output::Paint::Red),
        Severity::Warning => output::paint(&severity, output::Paint::Yellow),
        Severity::Note => severity,
    };
    let trap = finding
        .trap
        .map(|trap| format!(" (trap {trap})"))
        .unwrap_or_default();
    text.line(format!("{head} {} on {}{trap}", finding.check, finding.place));
    text.line(format!("  what  {}", finding.evidence));
    text.line(format!("  why   {}", finding.why));
    for (number, line) in finding.mend.lines().enumerate() {
        text.line(format!("  {}  {line}", if number == 0 { "mend" } else { "    " }));
    }
    text.line("");
}

/// One line for each reason, with the places and checks that it concerns.
fn unknown(unknown: &[Unknown]) -> Vec<String> {
    let mut reasons: BTreeMap<&str, (Vec<&str>, Vec<&str>)> = BTreeMap::new();
    for one in unknown {
        let (places, checks) = reasons.entry(&one.reason).or_default();
        if !places.contains(&one.place.as_str()) {
            places.push(&one.place);
        }
        if !checks.contains(&one.check) {
            checks.push(one.check);
        }
    }
    let lines = reasons.into_iter().map(|(reason, (places, checks))| {
        format!("  {}: {reason} (for {})", shortened(&places), shortened(&checks))
    });
    lines.collect()
}

fn shortened(names: &[&str]) -> String {
    const SHOWN: usize = 4;
    let shown = names.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn summary(facts: &Facts, report: &Report) -> String {
    let count = |severity| {
        report
            .findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    };
    let (errors, warnings, notes) = (
        count(Severity::Error),
        count(Severity::Warning),
        count(Severity::Note),
    );
    let found = match errors + warnings + notes {
        0 => "nothing found".to_owned(),
        _ => format!("{errors} errors, {warnings} warnings, {notes} notes"),
    };
    let ran = checks::all().count() - report.skipped.len();
    let nodes = facts.nodes.len();
    format!(
        "{}: {found} by {ran} checks on {nodes} node{}; {} passed, {} could not find out everything ({} ms)",
        report.title,
        if nodes == 1 { "" } else { "s" },
        report.passed.len(),
        unknown_checks(report),
        facts.ended_ms.saturating_sub(facts.began_ms)
    )
}

fn unknown_checks(report: &Report) -> usize {
    let mut checks: Vec<&str> = report.unknown.iter().map(|one| one.check).collect();
    checks.dedup();
    checks.len()
}
