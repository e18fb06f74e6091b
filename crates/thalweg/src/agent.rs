// SPDX-License-Identifier: Apache-2.0
//! `thalweg agent`: the node agent.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use api::config::{Config, DEFAULT_FILE, Inputs};

use crate::settings::{self, Agent, Flags};

/// `thalweg agent`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The configuration file; by default /etc/thalweg/config.yaml if there is one
    #[arg(long, value_name = "FILE", env = "THALWEG_CONFIG")]
    config: Option<PathBuf>,
    /// Show the settings in force, each with where it came from, and exit
    #[arg(long)]
    print_config: bool,
    #[command(flatten)]
    flags: Flags<Agent>,
}

impl Args {
    /// Runs the agent until it is told to stop.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let config = self.load()?;
        if self.print_config {
            return crate::print(&config.to_yaml());
        }
        let (level, format) = settings::log(config.log_level, config.log_format);
        telemetry::log::init(level, format)?;
        agent::run::run(config)?;
        Ok(ExitCode::SUCCESS)
    }

    fn load(&self) -> anyhow::Result<Config> {
        let file = settings::read(self.config.as_deref(), DEFAULT_FILE)?;
        let hostname = fs::read_to_string("/proc/sys/kernel/hostname").ok();
        let inputs = Inputs {
            file: settings::file(&file),
            environment: settings::environment(),
            flags: self.flags.given().to_vec(),
            hostname: hostname.as_deref().map(str::trim),
        };
        Ok(Config::load(inputs)?)
    }
}
