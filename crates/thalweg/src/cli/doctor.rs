// SPDX-License-Identifier: Apache-2.0
//! `thalweg doctor`

mod gather;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;

use doctor::checks::{self, Selection};
use doctor::facts::Facts;
use doctor::finding::{Report, Severity};
use doctor::record;

pub(crate) use gather::{NodeArgs, run_in_lab, scope_facts};

use super::agents::AgentArgs;
use super::output::{self, Format};

/// Warnings were found, nothing worse.
pub(crate) const EXIT_WARNINGS: u8 = 3;
/// Errors were found.
pub(crate) const EXIT_ERRORS: u8 = 4;
/// Nothing was found, but something could not be found out (with `--strict`).
pub(crate) const EXIT_UNKNOWN: u8 = 5;

/// `thalweg doctor`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit code: 0 nothing found (notes at most), 3 warnings, 4 errors, 5 something could not be found out (with \
                        --strict), 1 the doctor could not run."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    agents: AgentArgs,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// List the checks and run none
    #[arg(long)]
    list: bool,
    /// Run only this check or group (repeatable)
    #[arg(long, value_name = "NAME")]
    check: Vec<String>,
    /// Leave this check or group out (repeatable)
    #[arg(long, value_name = "NAME")]
    skip: Vec<String>,
    /// Examine what was recorded in this file
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Record the facts in this file
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    record: Option<PathBuf>,
    /// What the cloud says, where that is not gathered: the part `cloud` of a record
    #[arg(long, value_name = "FILE")]
    cloud: Option<PathBuf>,
    /// Fail too when something could not be found out
    #[arg(long)]
    strict: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Print this node's own facts as JSON: what `doctor` runs on each node
    Gather(NodeArgs),
}

impl Args {
    /// Runs the verb.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        if let Some(Verb::Gather(places)) = &self.verb {
            output::json(&doctor::gather::node(&places.places()))?;
            return Ok(ExitCode::SUCCESS);
        }
        if self.list {
            return report::list(self.output);
        }
        let selection = Selection {
            only: self.check.clone(),
            skip: self.skip.clone(),
        };
        selection.validate()?;
        let mut facts = self.facts().await?;
        if let Some(file) = &self.cloud {
            facts.cloud = record::load_cloud(file)?;
        }
        if let Some(file) = &self.record {
            record::save(file, &facts)?;
        }
        let report = checks::examine(&facts, &selection);
        match self.output {
            Format::Json => output::json(&report)?,
            Format::Text => output::print(&report::screen(&facts, &report).0)?,
        }
        Ok(ExitCode::from(exit_code(&report, self.strict)))
    }

    async fn facts(&self) -> anyhow::Result<Facts> {
        match &self.from {
            Some(file) => Ok(record::load(file)?),
            None => scope_facts(&self.agents).await,
        }
    }
}

fn exit_code(report: &Report, strict: bool) -> u8 {
    match report.worst() {
        Some(Severity::Error) => EXIT_ERRORS,
        Some(Severity::Warning) => EXIT_WARNINGS,
        _ if strict && !report.unknown.is_empty() => EXIT_UNKNOWN,
        _ => 0,
    }
}
