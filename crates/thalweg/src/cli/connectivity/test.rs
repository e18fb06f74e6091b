// SPDX-License-Identifier: Apache-2.0
//! `thalweg connectivity test`

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Instant;

use ::connectivity::bed::Bed;
use ::connectivity::report::{Outcome, Report, TestResult};
use ::connectivity::run;
use ::connectivity::scenarios::{self, Test};
use anyhow::bail;
use comfy_table::Cell;
use indicatif::{ProgressBar, ProgressStyle};

use super::BedArgs;
use crate::cli::output::{self, Text};

/// `thalweg connectivity test`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only tests whose name contains this; may be given several times
    #[arg(long, value_name = "TEXT")]
    filter: Vec<String>,
    /// Say which tests there are, and what they prove
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    bed: BedArgs,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// How the report is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
    /// For build servers
    Junit,
}

impl Args {
    /// Runs the verb. The exit code is 1 when a test fails.
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let tests = self.chosen()?;
        if self.list {
            return list(&tests);
        }
        let begin = Instant::now();
        let report = self
            .bed
            .with_bed(async |bed| Ok(self.run_on(bed, &tests).await))
            .await?;
        match self.output {
            Format::Text => output::print(&summary(&report, begin))?,
            Format::Json => output::json(&report)?,
            Format::Junit => output::print(&report.junit("connectivity"))?,
        }
        Ok(if report.failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    fn chosen(&self) -> anyhow::Result<Vec<Test>> {
        let is_chosen =
            |name: &str| self.filter.is_empty() || self.filter.iter().any(|text| name.contains(text));
        let tests: Vec<_> = scenarios::catalogue()
            .into_iter()
            .filter(|test| is_chosen(&test.name()))
            .collect();
        if tests.is_empty() {
            bail!(
                "no test's name contains {}; --list shows them",
                output::join(&self.filter)
            );
        }
        Ok(tests)
    }

    async fn run_on(&self, bed: &Bed, tests: &[Test]) -> Report {
        let text = self.output == Format::Text;
        if text {
            // A result that nobody reads is no reason to stop.
            let _ = output::print(&format!(
                "{}: {} nodes, {} tests\n",
                bed.title(),
                bed.nodes.len(),
                tests.len()
            ));
        }
        let bar = progress(tests.len());
        let report = run::run(bed, tests, |result| {
            bar.inc(1);
            if text {
                bar.suspend(|| drop(output::print(&line(result))));
            }
        });
        let report = report.await;
        bar.finish_and_clear();
        report
    }
}

/// A bar on a terminal; otherwise nothing.
fn progress(length: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(length as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed}") {
        bar.set_style(style);
    }
    bar
}

fn line(result: &TestResult) -> String {
    let TestResult {
        name,
        duration_ms,
        message,
        ..
    } = result;
    format!(
        "{} {name:<52} {duration_ms:>6} ms  {message}\n",
        mark(result.result)
    )
}

fn mark(outcome: Outcome) -> &'static str {
    match (outcome, output::colour()) {
        (Outcome::Passed, false) => "pass",
        (Outcome::Failed, false) => "FAIL",
        (Outcome::Skipped, _) => "skip",
        (Outcome::Passed, true) => "\x1b[32mpass\x1b[0m",
        (Outcome::Failed, true) => "\x1b[31mFAIL\x1b[0m",
    }
}

fn summary(report: &Report, begin: Instant) -> String {
    let failed: String = report
        .tests
        .iter()
        .filter(|test| test.result == Outcome::Failed)
        .map(|test| {
            format!(
                "  {}\n    should prove: {}\n    but: {}\n",
                test.name, test.proves, test.message
            )
        })
        .collect();
    let heading = if failed.is_empty() { "" } else { "\nFailed\n" };
    format!(
        "{heading}{failed}\n{} passed, {} failed, {} skipped in {:.1} s\n",
        report.passed,
        report.failed,
        report.skipped,
        begin.elapsed().as_secs_f64()
    )
}

fn list(tests: &[Test]) -> anyhow::Result<ExitCode> {
    let mut table = output::table(&["TEST", "PROVES THAT"]);
    for test in tests {
        table.add_row(vec![Cell::new(test.name()), Cell::new(test.proves())]);
    }
    output::print(&Text::from(&table).0)?;
    Ok(ExitCode::SUCCESS)
}
