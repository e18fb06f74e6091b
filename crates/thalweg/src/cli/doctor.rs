// SPDX-License-Identifier: Apache-2.0
//! `thalweg doctor`

mod gather;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;

use doctor::checks::{self, Selection};
use doctor::facts::{CloudFacts, Facts};
use doctor::finding::{Report, Severity};
use doctor::record;

pub(crate) use gather::{NodeArgs, run_in_lab, scope_facts};

use super::agents::AgentArgs;
use super::cloud::AwsArgs;
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
    #[arg(long, value_name = "FILE", conflicts_with_all = ["lab", "kubeconfig", "socket", "node"])]
    from: Option<PathBuf>,
    /// Record the facts in this file
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    record: Option<PathBuf>,
    /// What the cloud says, where that is not gathered: the part `cloud` of a record
    #[arg(long, value_name = "FILE")]
    cloud: Option<PathBuf>,
    #[command(flatten)]
    eks: EksArgs,
    /// Fail too when something could not be found out
    #[arg(long)]
    strict: bool,
}

/// What AWS is asked.
#[derive(Debug, clap::Args)]
struct EksArgs {
    /// Ask AWS about this EKS cluster: add-ons, network, peerings, the operator's role; nothing is changed
    #[arg(help_heading = "AWS", long, value_name = "NAME", conflicts_with = "cloud")]
    eks: Option<String>,
    /// Its region [default: the environment's or the profile's]
    #[arg(help_heading = "AWS", long, value_name = "NAME", requires = "eks")]
    region: Option<String>,
    /// The operator's role [default: that of its Pod Identity association]
    #[arg(help_heading = "AWS", long, value_name = "NAME", requires = "eks")]
    operator_role: Option<String>,
    /// How pods get addresses, as in `thalweg iam`: what the operator's role has to suffice for
    #[arg(help_heading = "AWS", long, value_name = "MODE", requires = "eks")]
    operator_mode: Option<plan::Mode>,
    #[command(flatten)]
    aws: AwsArgs,
}

impl EksArgs {
    /// Puts what AWS says in the place of what the cluster betrays of it.
    async fn ask(&self, facts: &mut Facts) -> anyhow::Result<()> {
        let Some(cluster) = &self.eks else { return Ok(()) };
        let client = self.aws.client(self.region.as_deref())?;
        let eks = doctor::gather::Eks {
            cluster: cluster.clone(),
            role: self.operator_role.clone(),
            mode: self.operator_mode.map(|mode| mode.to_string()),
        };
        let asked = doctor::gather::aws(&client, &eks).await;
        facts.cloud = CloudFacts {
            pod_slots: std::mem::take(&mut facts.cloud.pod_slots),
            ..asked
        };
        Ok(())
    }
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
            facts.cloud = record::load_cloud(file)?.or(facts.cloud);
        }
        self.eks.ask(&mut facts).await?;
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
