// SPDX-License-Identifier: Apache-2.0
//! `thalweg lab`: cluster networks on this machine.

use std::process::ExitCode;

/// `thalweg lab`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {}

impl Args {
    /// Runs the verb; the error, if any, says what to do.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self.verb {}
    }
}
