// SPDX-License-Identifier: Apache-2.0
//! CNI as a container runtime sees it: which network the configuration directory names, and its chain of plugins run for
//! ADD, DEL, CHECK, GC and STATUS (specification 1.1.0 and the habits of libcni).
//!
//! How a plugin process is started is the caller's ([`Launch`]): the kubelet starts it in its node, tests start it here.
//! Begin with [`Conflist::first_in`] and [`Network`].

mod cache;
mod conflist;
mod network;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

pub use conflist::Conflist;
pub use network::{Attachment, CachedAttachment, Launch, Network};

/// How long a plugin may take; then it is killed, and the call has failed.
pub const PLUGIN_LIMIT: Duration = Duration::from_secs(30);
/// The most that a plugin's output is read of.
pub const OUTPUT_MAX: u64 = 1 << 20;

/// What can go wrong with a network or a plugin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory cannot be used.
    #[error("cannot {operation} {}: {source}", path.display())]
    File {
        /// `read`, `write`, …
        operation: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A configuration makes no sense.
    #[error("CNI configuration {}: {reason}", path.display())]
    Config {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No directory has the program.
    #[error("failed to find plugin {plugin:?} in path {directories:?}; install it there")]
    Missing {
        /// The plugin's `type`.
        plugin: String,
        /// Where it was looked for.
        directories: Vec<PathBuf>,
    },
    /// The program could not be run, or its output could not be read.
    #[error("plugin type={plugin:?} could not be run ({verb}): {source}")]
    Run {
        /// The plugin's `type`.
        plugin: String,
        /// `add`, `del`, …
        verb: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The plugin took too long and was killed.
    #[error("plugin type={plugin:?} did not answer within {} s ({verb}) and was killed", PLUGIN_LIMIT.as_secs())]
    Timeout {
        /// The plugin's `type`.
        plugin: String,
        /// `add`, `del`, …
        verb: &'static str,
    },
    /// The plugin said no.
    #[error("plugin type={plugin:?} failed ({verb}): {message}")]
    Plugin {
        /// The plugin's `type`.
        plugin: String,
        /// `add`, `del`, …
        verb: &'static str,
        /// The specification's error code, when the plugin printed one.
        code: Option<u32>,
        /// Its message, details and standard error.
        message: String,
    },
    /// The plugin printed something else than a result.
    #[error("plugin type={plugin:?} printed no result ({verb}): {reason}")]
    Output {
        /// The plugin's `type`.
        plugin: String,
        /// `add`, `del`, …
        verb: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    fn file(operation: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::File {
            operation,
            path: path.into(),
            source,
        }
    }
}
