// SPDX-License-Identifier: Apache-2.0
//! What agent and operator have in common: settings from flags, environment and file.

use std::ffi::OsString;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use anyhow::Context as _;
use api::config::{File, KEYS, Key, LogFormat, LogLevel, OPERATOR_KEYS};
use clap::{Arg, ArgMatches, Command};

/// The variable that names the configuration file.
const FILE_VARIABLE: &str = "THALWEG_CONFIG";

/// A list of settings.
pub(crate) trait Settings {
    /// The settings.
    const KEYS: &'static [Key];
}

/// The agent's settings.
#[derive(Debug, Clone)]
pub(crate) struct Agent;

/// The operator's settings.
#[derive(Debug, Clone)]
pub(crate) struct Operator;

impl Settings for Agent {
    const KEYS: &'static [Key] = KEYS;
}

impl Settings for Operator {
    const KEYS: &'static [Key] = OPERATOR_KEYS;
}

/// One flag for every setting.
#[derive(Debug, Clone)]
pub(crate) struct Flags<S>(Vec<(&'static str, String)>, PhantomData<S>);

impl<S> Flags<S> {
    /// Keys and values of the flags that were given.
    pub(crate) fn given(&self) -> &[(&'static str, String)] {
        &self.0
    }
}

impl<S: Settings> clap::Args for Flags<S> {
    fn augment_args(command: Command) -> Command {
        // clap wants names that live as long as the program; a command is built once per process.
        command.args(S::KEYS.iter().map(|key| {
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

impl<S: Settings> clap::FromArgMatches for Flags<S> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let value = |path| matches.get_one::<String>(path).cloned();
        let given = S::KEYS
            .iter()
            .filter_map(|key| Some((key.path, value(key.path)?)));
        Ok(Self(given.collect(), PhantomData))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Reads the configuration file: the one that is named, or the usual one if it is there.
pub(crate) fn read(named: Option<&Path>, usual: &str) -> anyhow::Result<Option<(PathBuf, Vec<u8>)>> {
    let path = named.unwrap_or_else(|| Path::new(usual));
    match fs::read(path) {
        Ok(content) => Ok(Some((path.to_owned(), content))),
        Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => Ok(None),
        Err(error) => {
            let remedy = "name another with --config, or leave --config away to go without";
            Err(error).with_context(|| {
                format!(
                    "the configuration file {} cannot be read; {remedy}",
                    path.display()
                )
            })
        }
    }
}

/// The file as the configuration takes it.
pub(crate) fn file(read: &Option<(PathBuf, Vec<u8>)>) -> Option<File<'_>> {
    read.as_ref().map(|(path, content)| File { path, content })
}

/// The environment without what names the file.
pub(crate) fn environment() -> Vec<(OsString, OsString)> {
    env::vars_os().filter(|(name, _)| name != FILE_VARIABLE).collect()
}

/// Level and format as the logger takes them.
pub(crate) fn log(level: LogLevel, format: LogFormat) -> (tracing::Level, telemetry::log::Format) {
    let level = match level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    };
    let format = match format {
        LogFormat::Text => telemetry::log::Format::Text,
        LogFormat::Json => telemetry::log::Format::Json,
    };
    (level, format)
}
