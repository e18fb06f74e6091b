// SPDX-License-Identifier: Apache-2.0
//! `thalweg platform`: clusters from one file. The logic is in the crate `platform`; here files are read and written, and
//! what came out is printed.

mod live;
mod plan;
mod runbook;
mod verify;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ::platform::address::{self, Addresses};
use ::platform::catalogue::Catalogue;
use ::platform::render::File;
use ::platform::{FILE_BYTES_MAX, Platform, render};
use anyhow::{Context, bail};
use serde::Serialize;

use super::output::{self, Format};

/// `thalweg platform`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Show addresses, pods that fit, traps, cost, and what is not comparable
    Plan(plan::Args),
    /// Write Terraform JSON, Pulumi YAML, kubeadm files and a tree for Argo CD
    Render(RenderArgs),
    /// Compare what is there with the plan; exit code 1 for a deviation and for what could not be looked at
    Verify(verify::Args),
    /// Write a migration as steps with check and undo
    Migrate(runbook::MigrateArgs),
    /// Write alert rules for Prometheus
    Alerts(AlertsArgs),
    /// Write a rehearsal on a cluster that is thrown away
    Rehearse(runbook::RehearseArgs),
}

#[derive(Debug, clap::Args)]
struct RenderArgs {
    /// The platform file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The directory to write into; it is made
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Write over files that are there
    #[arg(long, conflicts_with = "check")]
    force: bool,
    /// Write nothing; exit code 1 if DIR is not what would be written
    #[arg(long)]
    check: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, clap::Args)]
struct AlertsArgs {
    /// The platform file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The directory to write a rule file per cluster into; without it they are printed
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Write over files that are there
    #[arg(long, requires = "to")]
    force: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Args {
    /// Runs the verb.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        match self.verb {
            Verb::Plan(args) => args.run(),
            Verb::Render(args) => args.run(),
            Verb::Verify(args) => args.run().await,
            Verb::Migrate(args) => args.run(),
            Verb::Alerts(args) => args.run(),
            Verb::Rehearse(args) => args.run(),
        }
    }
}

/// A platform file that was read and planned.
struct Loaded {
    platform: Platform,
    addresses: Addresses,
    catalogue: Catalogue,
}

impl Loaded {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let size = fs::metadata(path)
            .with_context(|| format!("cannot read {}", path.display()))?
            .len();
        if size > u64::try_from(FILE_BYTES_MAX).unwrap_or(u64::MAX) {
            bail!(
                "{} has {size} bytes, {FILE_BYTES_MAX} are the limit; split it",
                path.display()
            );
        }
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let catalogue = Catalogue::shipped().context("this program is damaged; install it again")?;
        let platform = Platform::parse(&text, &catalogue).with_context(|| path.display().to_string())?;
        let addresses = address::plan(&platform, &catalogue).with_context(|| path.display().to_string())?;
        Ok(Self {
            platform,
            addresses,
            catalogue,
        })
    }
}

/// What happened to a file.
#[derive(Debug, Serialize)]
struct Written {
    path: String,
    state: &'static str,
}

impl RenderArgs {
    fn run(self) -> anyhow::Result<ExitCode> {
        let loaded = Loaded::read(&self.file)?;
        let files = render::render(&loaded.platform, &loaded.addresses, &loaded.catalogue);
        let written = if self.check {
            compare(&self.to, &files)?
        } else {
            write(&self.to, &files, self.force)?
        };
        let differs = self.check && !written.is_empty();
        match self.output {
            Format::Json => output::json(&written)?,
            Format::Text if self.check && !differs => {
                output::print("Everything is as it would be written.\n")?
            }
            Format::Text => {
                let mut table = output::table(&["FILE", "STATE"]);
                for one in &written {
                    table.add_row([one.path.as_str(), one.state]);
                }
                output::print(&output::Text::from(&table).0)?;
            }
        }
        Ok(if differs {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }
}

impl AlertsArgs {
    fn run(self) -> anyhow::Result<ExitCode> {
        let loaded = Loaded::read(&self.file)?;
        let files: Vec<File> = ::platform::alerts::alerts(&loaded.platform)
            .into_iter()
            .map(|(path, content)| File { path, content })
            .collect();
        match (&self.to, self.output) {
            (Some(to), format) => {
                let written = write(to, &files, self.force)?;
                match format {
                    Format::Json => output::json(&written)?,
                    Format::Text => {
                        for one in &written {
                            output::print(&format!("{} {}\n", one.path, one.state))?;
                        }
                    }
                }
            }
            (None, Format::Json) => {
                let pairs = files
                    .iter()
                    .map(|file| (file.path.as_str(), file.content.as_str()));
                output::json(&pairs.collect::<std::collections::BTreeMap<_, _>>())?;
            }
            (None, Format::Text) => {
                for file in &files {
                    output::print(&format!("---\n# {}\n{}", file.path, file.content))?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Writes files; refuses before the first if one is there with another content, unless forced.
fn write(directory: &Path, files: &[File], force: bool) -> anyhow::Result<Vec<Written>> {
    let mut written = Vec::new();
    for file in files {
        let path = directory.join(&file.path);
        let state = match fs::read(&path) {
            Ok(old) if old == file.content.as_bytes() => "unchanged",
            Ok(_) if force => "changed",
            Ok(_) => bail!(
                "{} is there and different; look at it, then say --force, or another directory",
                path.display()
            ),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => "written",
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        written.push(Written {
            path: file.path.clone(),
            state,
        });
    }
    for (file, _) in files
        .iter()
        .zip(&written)
        .filter(|(_, one)| one.state != "unchanged")
    {
        let path = directory.join(&file.path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        }
        fs::write(&path, &file.content).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(written)
}

/// The files that are missing or different.
fn compare(directory: &Path, files: &[File]) -> anyhow::Result<Vec<Written>> {
    let mut different = Vec::new();
    for file in files {
        let path = directory.join(&file.path);
        let state = match fs::read(&path) {
            Ok(old) if old == file.content.as_bytes() => continue,
            Ok(_) => "different",
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => "missing",
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        different.push(Written {
            path: file.path.clone(),
            state,
        });
    }
    Ok(different)
}
