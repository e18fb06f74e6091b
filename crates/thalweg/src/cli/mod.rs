// SPDX-License-Identifier: Apache-2.0
//! The verbs that ask a running agent.

use std::process::ExitCode;

/// The verbs.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {}

impl Verb {
    /// Runs the verb; the error, if any, says what to do.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self {}
    }
}
