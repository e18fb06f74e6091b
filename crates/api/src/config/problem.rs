// SPDX-License-Identifier: Apache-2.0
//! What can be wrong with a configuration.

use std::fmt;

use super::Source;
use super::keys::flag_of;

/// Everything that is wrong with a configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The problems in the order of their discovery.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A value is not acceptable.
    Value {
        /// The setting.
        key: &'static str,
        /// Its value.
        value: String,
        /// Where the value came from.
        source: Source,
        /// What the setting takes.
        expected: String,
    },
    /// There is no such setting.
    UnknownKey {
        /// What was written.
        key: String,
        /// Where.
        source: Source,
        /// What was probably meant.
        nearest: Option<&'static str>,
    },
    /// A setting occurs twice.
    Twice {
        /// The setting.
        key: &'static str,
        /// Where.
        source: Source,
    },
    /// The file as a whole cannot be understood.
    File {
        /// The file.
        source: Source,
        /// Why.
        reason: String,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value {
                key,
                value,
                source,
                expected,
            } => {
                write!(
                    f,
                    "{key}: {value:?} (from {source}) is not {expected}; {}",
                    remedy(key, source)
                )
            }
            Self::UnknownKey {
                key,
                source,
                nearest: Some(nearest),
            } => {
                write!(
                    f,
                    "{key} (from {source}): there is no such setting; did you mean {nearest}?"
                )
            }
            Self::UnknownKey {
                key,
                source,
                nearest: None,
            } => write!(
                f,
                "{key} (from {source}): there is no such setting; `thalweg agent --print-config` shows those that there are"
            ),
            Self::Twice { key, source } => write!(f, "{key} is set twice in {source}; remove one"),
            Self::File { source, reason } => write!(f, "{source} cannot be understood: {reason}"),
        }
    }
}

fn remedy(key: &str, source: &Source) -> String {
    match source {
        Source::Default => {
            let flag = flag_of(key);
            format!("set it with --{flag} or in the configuration file")
        }
        Source::File(path) => format!("change it in {}", path.display()),
        Source::Environment(name) => format!("change or unset {name}"),
        Source::Flag(name) => format!("change --{name}"),
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [problem] => write!(f, "the configuration is wrong: {problem}"),
            problems => {
                write!(f, "the configuration is wrong in {} places:", problems.len())?;
                problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

impl std::error::Error for ConfigError {}
