// SPDX-License-Identifier: Apache-2.0
//! Results as tables, for the terminal and for the document.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};

use crate::results::{Comparison, Figure, ProgramCost, Results};

/// A program that costs this much more than in the committed figures is pointed out.
const REGRESSION: f64 = 1.15;

/// Aligned columns without borders, for terminals.
pub(crate) fn terminal(results: &Results, committed: Option<&Results>) -> String {
    render(results, committed, |heading, table| {
        let mut table = table;
        table.load_style(presets::NOTHING);
        let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
        format!("{heading}\n{}\n\n", lines.join("\n"))
    })
}

/// The same tables in Markdown.
pub(crate) fn markdown(results: &Results, committed: Option<&Results>) -> String {
    render(results, committed, |heading, table| {
        let mut table = table;
        table.load_style(presets::ASCII_MARKDOWN);
        format!("### {heading}\n\n{table}\n\n")
    })
}

fn render(results: &Results, committed: Option<&Results>, section: impl Fn(&str, Table) -> String) -> String {
    let mut text = String::new();
    let groups = [
        (
            "Both ends on one CPU: the whole cost of a transaction",
            rates(results, 1),
        ),
        ("Each end on a CPU of its own", rates(results, 2)),
        ("CNI plugins", cni(results)),
        ("Agent, lab, doctor and planner", figures(&results.figures)),
        ("Programs during TCP_RR", programs(&results.programs, committed)),
    ];
    for (heading, table) in groups {
        if !table.is_empty() {
            // Writing to a string cannot fail.
            let _ = write!(text, "{}", section(heading, table));
        }
    }
    text
}

fn rates(results: &Results, cpus: u8) -> Table {
    comparisons(
        results
            .comparisons
            .iter()
            .filter(|row| row.scope != "CNI" && row.cpus == cpus),
    )
}

fn cni(results: &Results) -> Table {
    comparisons(results.comparisons.iter().filter(|row| row.scope == "CNI"))
}

fn comparisons<'a>(rows: impl Iterator<Item = &'a Comparison>) -> Table {
    let mut table = table(&[
        "where",
        "what",
        "against",
        ">Thalweg",
        ">reference",
        "unit",
        ">ratio",
        ">min",
        ">max",
        ">goal",
        "reached",
    ]);
    for row in rows {
        table.add_row([
            row.scope.clone(),
            row.work.clone(),
            row.reference.clone(),
            quantity(row.subject),
            quantity(row.reference_rate),
            row.unit.clone(),
            format!("{:.2}x", row.ratio.median),
            format!("{:.2}", row.ratio.min),
            format!("{:.2}", row.ratio.max),
            row.goal.map_or_else(String::new, |goal| format!("≥ {goal:.2}x")),
            verdict(row.reached()).into(),
        ]);
    }
    table
}

fn figures(rows: &[Figure]) -> Table {
    let mut table = table(&["what", ">figure", "unit", ">goal", "reached", "how"]);
    for row in rows {
        table.add_row([
            row.name.clone(),
            quantity(row.value),
            row.unit.clone(),
            row.goal.map_or_else(String::new, |goal| format!("≤ {goal:.0}")),
            verdict(row.reached()).into(),
            row.detail.clone(),
        ]);
    }
    table
}

fn programs(rows: &[ProgramCost], committed: Option<&Results>) -> Table {
    let mut table = table(&[
        "program",
        "where",
        ">ns per run",
        ">committed",
        "",
        ">instructions",
    ]);
    for row in rows {
        let before = committed.and_then(|committed| {
            committed
                .programs
                .iter()
                .find(|other| (&other.program, &other.scope) == (&row.program, &row.scope))
        });
        let worse = before.is_some_and(|before| row.nanoseconds > before.nanoseconds * REGRESSION);
        table.add_row([
            row.program.clone(),
            row.scope.clone(),
            format!("{:.0}", row.nanoseconds),
            before.map_or_else(String::new, |before| format!("{:.0}", before.nanoseconds)),
            if worse {
                "slower than committed".into()
            } else {
                String::new()
            },
            row.instructions.to_string(),
        ]);
    }
    table
}

fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.set_header(columns.iter().map(|name| name.trim_start_matches('>')));
    for (index, name) in columns.iter().enumerate() {
        if let Some(column) = table.column_mut(index)
            && name.starts_with('>')
        {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn verdict(reached: Option<bool>) -> &'static str {
    match reached {
        Some(true) => "yes",
        Some(false) => "NO",
        None => "",
    }
}

/// As many digits as mean something; thousands apart.
fn quantity(value: f64) -> String {
    if value < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_grouped_and_small_ones_keep_a_decimal() {
        assert_eq!(
            [quantity(17.25), quantity(950.0), quantity(66_512.4)],
            ["17.2", "950", "66,512"]
        );
    }
}
