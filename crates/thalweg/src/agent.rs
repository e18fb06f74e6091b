// SPDX-License-Identifier: Apache-2.0
//! `thalweg agent`: the node agent.

use std::process::ExitCode;

/// `thalweg agent`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

impl Args {
    /// Runs the agent until it is told to stop.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        anyhow::bail!("this build has no agent")
    }
}
