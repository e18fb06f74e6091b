// SPDX-License-Identifier: Apache-2.0
//! `thalweg agent`: the node agent.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs, io};

use anyhow::Context as _;
use api::config::{Config, DEFAULT_FILE, File, Inputs, KEYS, LogFormat, LogLevel};
use clap::{Arg, ArgMatches, Command};

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
    flags: Flags,
}

/// One flag for every setting of the configuration.
#[derive(Debug)]
struct Flags(Vec<(&'static str, String)>);

impl Args {
    /// Runs the agent until it is told to stop.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let config = self.load()?;
        if self.print_config {
            return crate::print(&config.to_yaml());
        }
        let (level, format) = log_settings(&config);
        telemetry::log::init(level, format)?;
        agent::run::run(config)?;
        Ok(ExitCode::SUCCESS)
    }

    fn load(&self) -> anyhow::Result<Config> {
        let path = self.config.as_deref().unwrap_or_else(|| Path::new(DEFAULT_FILE));
        let content = match fs::read(path) {
            Ok(content) => Some(content),
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.config.is_none() => None,
            Err(error) => {
                let remedy = "name another with --config, or leave --config away to go without";
                return Err(error).with_context(|| {
                    format!(
                        "the configuration file {} cannot be read; {remedy}",
                        path.display()
                    )
                });
            }
        };
        let hostname = fs::read_to_string("/proc/sys/kernel/hostname").ok();
        let inputs = Inputs {
            file: content.as_deref().map(|content| File { path, content }),
            environment: env::vars_os()
                .filter(|(name, _)| name != "THALWEG_CONFIG")
                .collect(),
            flags: self.flags.0.clone(),
            hostname: hostname.as_deref().map(str::trim),
        };
        Ok(Config::load(inputs)?)
    }
}

fn log_settings(config: &Config) -> (tracing::Level, telemetry::log::Format) {
    let level = match config.log_level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    };
    let format = match config.log_format {
        LogFormat::Text => telemetry::log::Format::Text,
        LogFormat::Json => telemetry::log::Format::Json,
    };
    (level, format)
}

impl clap::Args for Flags {
    fn augment_args(command: Command) -> Command {
        // clap wants names that live as long as the program; a command is built once per process.
        command.args(KEYS.iter().map(|key| {
            let default = if key.default.is_empty() {
                String::new()
            } else {
                format!(" [default: {}]", key.default)
            };
            Arg::new(key.path)
                .long(&*key.flag().leak())
                .value_name(key.value)
                .help(format!("{}{default}", key.meaning))
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let value = |path| matches.get_one::<String>(path).cloned();
        Ok(Self(
            KEYS.iter()
                .filter_map(|key| Some((key.path, value(key.path)?)))
                .collect(),
        ))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
