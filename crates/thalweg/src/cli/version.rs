// SPDX-License-Identifier: Apache-2.0
//! `thalweg version`

use std::process::ExitCode;

use api::agent::Status;
use serde_json::json;

use super::agents::{AgentArgs, Answer};
use super::output::{self, Format};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `thalweg version`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    agents: AgentArgs,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Args {
    /// Prints this program's version, and those of the agents when it is said which.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let answers: Vec<Answer<Status>> = if self.agents.is_given() {
            self.agents.agents().await?.get("/v1/status").await
        } else {
            Vec::new()
        };
        let agents: Vec<_> = answers
            .iter()
            .map(|Answer { node, result }| match result {
                Ok(status) => json!({ "node": node, "version": status.version }),
                Err(error) => json!({ "node": node, "error": error }),
            })
            .collect();
        match self.output {
            Format::Json => output::json(&json!({ "version": VERSION, "agents": agents }))?,
            Format::Text => output::print(&text(&answers))?,
        }
        let all = answers.iter().all(|answer| answer.result.is_ok());
        Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn text(answers: &[Answer<Status>]) -> String {
    let agents: String = answers
        .iter()
        .map(|Answer { node, result }| match result {
            Ok(status) => format!("agent of {node}: {}\n", status.version),
            Err(error) => format!("agent of {node}: {error}\n"),
        })
        .collect();
    format!("thalweg {VERSION}\n{agents}")
}
