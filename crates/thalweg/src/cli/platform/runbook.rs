// SPDX-License-Identifier: Apache-2.0
//! `thalweg platform migrate` and `rehearse`: steps for people and programs.

use std::path::PathBuf;
use std::process::ExitCode;

use ::platform::migrate::{self, Duration, Facts, Kind, Runbook};
use ::platform::rehearse;
use anyhow::bail;

use super::Loaded;
use crate::cli::output;

/// How a runbook is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// The steps in short
    #[default]
    Text,
    /// For programs
    Json,
    /// The whole runbook
    Markdown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Way {
    /// From an AKS cluster to an EKS cluster, beside each other
    AksToEks,
    /// On one EKS cluster from the VPC CNI to Thalweg
    VpcCni,
}

/// `thalweg platform migrate`
#[derive(Debug, clap::Args)]
pub(super) struct MigrateArgs {
    /// The platform file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Which migration
    #[arg(long, value_enum)]
    kind: Way,
    /// The cluster that is left, or changed
    #[arg(long, value_name = "CLUSTER")]
    from: String,
    /// The cluster that takes over
    #[arg(long, value_name = "CLUSTER")]
    to: Option<String>,
    /// The DNS name that users go to
    #[arg(long, value_name = "NAME")]
    host: String,
    /// The lifetime of its record
    #[arg(long, value_name = "SECONDS")]
    dns_ttl: u32,
    /// The bucket for Velero's backups
    #[arg(long, value_name = "NAME")]
    bucket: String,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// `thalweg platform rehearse`
#[derive(Debug, clap::Args)]
pub(super) struct RehearseArgs {
    /// The platform file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The cluster whose mode is rehearsed
    #[arg(long, value_name = "NAME")]
    cluster: String,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

impl MigrateArgs {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let loaded = Loaded::read(&self.file)?;
        let kind = match (self.kind, &self.to) {
            (Way::AksToEks, Some(to)) => Kind::AksToEks { from: &self.from, to },
            (Way::AksToEks, None) => bail!("nobody said where to; name the EKS cluster with --to"),
            (Way::VpcCni, None) => Kind::VpcCni { cluster: &self.from },
            (Way::VpcCni, Some(_)) => bail!("the cluster is changed in place; leave --to out"),
        };
        let facts = Facts {
            host: &self.host,
            dns_ttl: self.dns_ttl,
            bucket: &self.bucket,
        };
        let runbook = migrate::migrate(
            &loaded.platform,
            &loaded.addresses,
            &loaded.catalogue,
            &kind,
            &facts,
        )?;
        print(&runbook, self.output)
    }
}

impl RehearseArgs {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let loaded = Loaded::read(&self.file)?;
        let runbook = rehearse::rehearse(
            &loaded.platform,
            &loaded.addresses,
            &loaded.catalogue,
            &self.cluster,
        )?;
        print(&runbook, self.output)
    }
}

fn print(runbook: &Runbook, form: Form) -> anyhow::Result<ExitCode> {
    match form {
        Form::Json => output::json(runbook)?,
        Form::Markdown => output::print(&migrate::markdown(runbook))?,
        Form::Text => output::print(&short(runbook))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn short(runbook: &Runbook) -> String {
    let mut table = output::table(&[">STEP", "WHAT", "TAKES", "USERS NOTICE"]);
    for step in &runbook.steps {
        let takes = match &step.duration {
            Duration::Known { seconds, .. } => output::duration(u64::from(*seconds)),
            Duration::Unknown { .. } => "unknown".to_owned(),
        };
        let title = if step.point_of_no_return {
            format!("{} (rollback point)", step.title)
        } else {
            step.title.clone()
        };
        table.add_row([step.number.to_string(), title, takes, step.impact.clone()]);
    }
    let mut text = output::Text::default();
    text.line(&runbook.title);
    for (heading, lines) in [
        ("Before", &runbook.before),
        ("What does not come along", &runbook.lost),
    ] {
        text.line(format!("\n{heading}"));
        for line in lines {
            text.line(format!("  {line}"));
        }
    }
    text.section("Steps", &table);
    text.line("\n-o markdown prints the commands, checks and undos");
    text.0
}
