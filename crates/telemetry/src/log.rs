// SPDX-License-Identifier: Apache-2.0
//! Logging set-up, and errors as text.

use std::error::Error;
use std::io::{self, IsTerminal as _};

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::SetGlobalDefaultError;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people; in colour on a terminal.
    Text,
    /// For programs, one object per line.
    Json,
}

/// What the names of our crates begin with.
const OURS: &str = "thalweg";

/// Writes log lines to standard error from now on: our own from `level` upwards, those of libraries from *warn*.
///
/// # Errors
/// When logging has been set up before.
pub fn init(level: Level, format: Format) -> Result<(), SetGlobalDefaultError> {
    let registry = tracing_subscriber::registry().with(filter(level));
    let lines = fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    match format {
        Format::Text => tracing::subscriber::set_global_default(registry.with(lines)),
        Format::Json => {
            tracing::subscriber::set_global_default(registry.with(lines.json().flatten_event(true)))
        }
    }
}

/// Libraries log every request at *debug*: that is wanted only by those who ask for everything.
fn filter(level: Level) -> Targets {
    let libraries = if level == Level::TRACE {
        Level::DEBUG
    } else {
        level.min(Level::WARN)
    };
    Targets::new()
        .with_default(LevelFilter::from_level(libraries))
        .with_target(OURS, level)
}

/// An error with its causes on one line. A cause that the text has already is not repeated: some errors show theirs,
/// others leave it to the reader.
#[must_use]
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let quiet = Wrapped {
            text: "cannot read a",
            cause: io::Error::other("no such file"),
        };
        assert_eq!(with_causes(&quiet), "cannot read a: no such file");
        let talkative = Wrapped {
            text: "cannot read a: no such file; make it",
            cause: io::Error::other("no such file"),
        };
        assert_eq!(with_causes(&talkative), talkative.text);
    }

    #[derive(Debug)]
    struct Wrapped {
        text: &'static str,
        cause: io::Error,
    }

    impl fmt::Display for Wrapped {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.text)
        }
    }

    impl Error for Wrapped {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.cause)
        }
    }

    #[test]
    fn libraries_are_quieter_than_we_are() {
        let filter = filter(Level::DEBUG);
        assert!(filter.would_enable("thalweg_agent::run", &Level::DEBUG));
        assert!(!filter.would_enable("hyper::client", &Level::INFO));
        assert!(filter.would_enable("hyper::client", &Level::WARN));
        assert!(!self::filter(Level::ERROR).would_enable("hyper::client", &Level::WARN));
    }
}
