// SPDX-License-Identifier: Apache-2.0
//! `thalweg platform verify`

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ::platform::verify::{self, ANSWER_BYTES_MAX, Report, Severity, State};
use anyhow::{Context, bail};
use comfy_table::Cell;

use super::{Loaded, live};
use crate::cli::cloud::AwsArgs;
use crate::cli::output::{self, Format, Text, bad};

/// `thalweg platform verify`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The platform file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The folder with recorded answers of the clouds' tools; --commands says which
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Print the commands that record the answers, as a shell script, and do nothing
    #[arg(long)]
    commands: bool,
    /// Ask AWS itself about its clusters, by the same questions as --commands; nothing is changed
    #[arg(long)]
    aws: bool,
    #[command(flatten)]
    cloud: AwsArgs,
    /// Read nodes, DaemonSets and services of the clusters that this file leads to
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Only this cluster; its context in the kubeconfig has the same name
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// The context of that cluster, where it has another name
    #[arg(long, value_name = "NAME", requires_all = ["cluster", "kubeconfig"])]
    context: Option<String>,
    /// Exit code 0 even if something could not be looked at
    #[arg(long)]
    allow_unknown: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let loaded = Loaded::read(&self.file)?;
        let names: Vec<&str> = loaded
            .platform
            .clusters
            .iter()
            .map(|cluster| cluster.name.as_str())
            .collect();
        if let Some(name) = self.cluster.as_deref().filter(|name| !names.contains(name)) {
            bail!(
                "the platform file has no cluster `{name}`; it has {}",
                names.join(", ")
            );
        }
        if self.commands {
            output::print(&script(&loaded))?;
            return Ok(ExitCode::SUCCESS);
        }
        if self.state.is_none() && self.kubeconfig.is_none() && !self.aws {
            bail!(
                "nobody said what to compare with; give --state DIR (--commands prints how to record one), --aws, --kubeconfig FILE, or several"
            );
        }
        let mut state = State::default();
        if let Some(directory) = &self.state {
            read(directory, directory, &mut state)?;
        }
        let meant = |name: &str| self.cluster.as_deref().is_none_or(|only| only == name);
        if self.aws {
            live::ask_aws(&loaded.platform, &self.cloud, meant, &mut state).await?;
        }
        if let Some(kubeconfig) = &self.kubeconfig {
            for name in names.iter().filter(|name| meant(name)) {
                let context = self.context.as_deref().unwrap_or(name);
                live::record(kubeconfig, context, name, &mut state).await;
            }
        }
        let mut report = verify::verify(&loaded.platform, &loaded.addresses, &loaded.catalogue, &state);
        if let Some(only) = &self.cluster {
            report.deviations.retain(|one| one.cluster == *only);
            report.unknown.retain(|one| one.cluster == *only);
        }
        match self.output {
            Format::Json => output::json(&report)?,
            Format::Text => output::print(&text(&report).0)?,
        }
        let well = report.deviations.is_empty() && (self.allow_unknown || report.unknown.is_empty());
        Ok(if well {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

/// Nothing stops at the first error: what a denied command says is kept, and told as unknown.
fn script(loaded: &Loaded) -> String {
    let mut script = String::from(
        "#!/bin/sh\n# Records what `thalweg platform verify --state DIR` compares. All of it only reads.\n\
         # usage: sh record.sh DIR\ncd \"${1:?where to}\" || exit 1\n",
    );
    for recording in verify::recordings(&loaded.platform) {
        let folder = Path::new(&recording.file)
            .parent()
            .map(|path| path.display().to_string())
            .unwrap_or_default();
        script.push_str(&format!(
            "mkdir -p {folder}\n{} >{} 2>&1\n",
            recording.command, recording.file
        ));
    }
    script
}

fn read(root: &Path, directory: &Path, state: &mut State) -> anyhow::Result<()> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", directory.display()))?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            read(root, &path, state)?;
        } else if path.extension().is_some_and(|extension| extension == "json") {
            let name = path
                .strip_prefix(root)
                .unwrap_or(&path)
                .to_string_lossy()
                .replace('\\', "/");
            let size = entry.metadata()?.len();
            if size > u64::try_from(ANSWER_BYTES_MAX).unwrap_or(u64::MAX) {
                bail!(
                    "{} has {size} bytes, {ANSWER_BYTES_MAX} are the limit",
                    path.display()
                );
            }
            let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            state.add(&name, &String::from_utf8_lossy(&bytes));
        }
    }
    Ok(())
}

fn text(report: &Report) -> Text {
    let mut deviations = output::table(&[
        "SEVERITY", "CLUSTER", "WHAT", "PLANNED", "FOUND", "EVIDENCE", ">TRAP", "REMEDY",
    ]);
    for one in &report.deviations {
        let severity = match one.severity {
            Severity::Critical => bad("critical"),
            Severity::Warning => Cell::new("warning"),
            Severity::Note => Cell::new("note"),
        };
        deviations.add_row(vec![
            severity,
            Cell::new(&one.cluster),
            Cell::new(&one.subject),
            Cell::new(&one.planned),
            Cell::new(&one.found),
            Cell::new(&one.evidence),
            Cell::new(one.trap.map_or_else(|| "-".to_owned(), |trap| trap.to_string())),
            Cell::new(&one.remedy),
        ]);
    }
    let mut unknown = output::table(&["CLUSTER", "FILE", "WHY"]);
    for one in &report.unknown {
        unknown.add_row([&one.cluster, &one.file, &one.reason]);
    }
    let mut text = Text::default();
    text.section("Deviations", &deviations);
    text.section("Not looked at", &unknown);
    if report.deviations.is_empty() {
        text.line(format!("{} comparisons, no deviation.", report.compared));
    } else {
        text.line(format!(
            "\n{} comparisons, {} deviations.",
            report.compared,
            report.deviations.len()
        ));
    }
    text
}
