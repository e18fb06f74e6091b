// SPDX-License-Identifier: Apache-2.0
//! `thalweg operator`: the cluster's operator.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use api::config::{Inputs, OPERATOR_FILE, OperatorConfig};

use crate::settings::{self, Flags, Operator};

/// `thalweg operator`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The configuration file; by default /etc/thalweg/operator.yaml if there is one
    #[arg(long, value_name = "FILE", env = "THALWEG_CONFIG")]
    config: Option<PathBuf>,
    /// Show the settings in force, each with where it came from, and exit
    #[arg(long)]
    print_config: bool,
    /// Print our CustomResourceDefinitions, to be applied by somebody who may, and exit
    #[arg(long)]
    print_crds: bool,
    #[command(flatten)]
    flags: Flags<Operator>,
}

impl Args {
    /// Runs the operator until it is told to stop.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        if self.print_crds {
            return crate::print(&definitions()?);
        }
        let file = settings::read(self.config.as_deref(), OPERATOR_FILE)?;
        let hostname = fs::read_to_string("/proc/sys/kernel/hostname").ok();
        let config = OperatorConfig::load(Inputs {
            file: settings::file(&file),
            environment: settings::environment(),
            flags: self.flags.given().to_vec(),
            hostname: hostname.as_deref().map(str::trim),
        })?;
        if self.print_config {
            return crate::print(&config.to_yaml());
        }
        let (level, format) = settings::log(config.log_level, config.log_format);
        telemetry::log::init(level, format)?;
        operator::run::run(config)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// JSON is YAML, and kubectl takes several documents.
fn definitions() -> anyhow::Result<String> {
    let mut text = String::new();
    for definition in api::crd::definitions() {
        text.push_str(&format!("---\n{}\n", serde_json::to_string_pretty(&definition)?));
    }
    Ok(text)
}
