// SPDX-License-Identifier: Apache-2.0
//! The table of the matrix: for the terminal and for the book.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use super::vm::{Outcome, Step};
use crate::run;

const FILE: &str = "docs/kernels.md";

/// For the terminal: one line per kernel, its steps below it.
pub(super) fn table(outcomes: &[Outcome]) -> String {
    let mut text = format!(
        "\n{:<7}{:<13}{:<17}{:>9}{:>9}  result\n",
        "kernel", "Debian", "version", "programs", "seconds"
    );
    for outcome in outcomes {
        let result = if outcome.passed() { "passed" } else { "FAILED" };
        let _ = writeln!(
            text,
            "{:<7}{:<13}{:<17}{:>9}{:>9.1}  {result}",
            outcome.series,
            outcome.debian,
            outcome.version,
            programs(outcome),
            outcome.seconds
        );
        let steps: Vec<String> = outcome.steps.iter().map(step).collect();
        let _ = writeln!(text, "       {}", steps.join(" · "));
    }
    text
}

fn programs(outcome: &Outcome) -> String {
    outcome
        .programs
        .map_or_else(|| "-".to_owned(), |count| count.to_string())
}

fn step(step: &Step) -> String {
    let verdict = if step.passed { "" } else { " FAILED" };
    format!("{} {:.1} s{verdict}", step.name, step.seconds)
}

/// Writes the page.
pub(super) fn write(outcomes: &[Outcome]) -> Result<()> {
    let date = run::output(Command::new("date").args(["-u", "+%F"]))?;
    let qemu = run::output(Command::new("qemu-system-x86_64").arg("--version"))?;
    let page = page(outcomes, date.trim(), qemu.lines().next().unwrap_or_default());
    fs::write(crate::root().join(FILE), page).with_context(|| format!("cannot write {FILE}"))?;
    println!("wrote {FILE}");
    Ok(())
}

fn page(outcomes: &[Outcome], date: &str, qemu: &str) -> String {
    let mut page = format!(
        "# Kernels\n\n\
         The shipped `thalweg` and `thalweg-cni` on Debian's cloud kernels: a lab of two nodes, pods made by the plugin,\n\
         traffic between them, the agent killed and back. Run by `./dev kernels`, and in every `./dev test`.\n\n\
         This table: {date}, {qemu}, emulated (TCG), so the times say only that nothing hangs.\n\n\
         | kernel | Debian | version | programs loaded | result |\n|---|---|---|---:|---|\n"
    );
    for outcome in outcomes {
        let result = if outcome.passed() { "passed" } else { "**failed**" };
        let (series, debian, version) = (outcome.series, outcome.debian, &outcome.version);
        let _ = writeln!(
            page,
            "| {series} | {debian} | {version} | {} | {result} |",
            programs(outcome)
        );
    }
    page.push_str("\nSeconds for each step:\n\n");
    page.push_str(&steps_table(outcomes));
    page
}

fn steps_table(outcomes: &[Outcome]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for step in outcomes.iter().flat_map(|outcome| &outcome.steps) {
        if !names.contains(&step.name.as_str()) {
            names.push(&step.name);
        }
    }
    let series: Vec<&str> = outcomes.iter().map(|outcome| outcome.series).collect();
    let mut text = format!(
        "| step | {} |\n|---|{}\n",
        series.join(" | "),
        "---:|".repeat(series.len())
    );
    for name in names {
        let cells: Vec<String> = outcomes.iter().map(|outcome| cell(outcome, name)).collect();
        let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
    }
    text
}

fn cell(outcome: &Outcome, name: &str) -> String {
    match outcome.steps.iter().find(|step| step.name == name) {
        Some(step) if step.passed => format!("{:.1}", step.seconds),
        Some(_) => "failed".to_owned(),
        None => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_a_row_per_kernel_and_per_step() {
        let step = Step {
            name: "ping".into(),
            passed: true,
            seconds: 0.51,
        };
        let outcome = Outcome {
            series: "6.1",
            debian: "12 bookworm",
            version: "6.1.192-1".into(),
            programs: Some(4),
            steps: vec![step],
            ended: true,
            seconds: 9.0,
        };
        let page = page(&[outcome], "2026-01-01", "QEMU");
        assert!(
            page.contains("| 6.1 | 12 bookworm | 6.1.192-1 | 4 | passed |"),
            "{page}"
        );
        assert!(page.contains("| ping | 0.5 |"), "{page}");
    }
}
