// SPDX-License-Identifier: Apache-2.0
//! `thalweg node`

use std::process::ExitCode;

use api::agent::{NodeView, RouteView};
use comfy_table::Cell;

use super::agents;
use super::endpoint::state;
use super::output::{self, Format, Row, Text};

/// `thalweg node`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List what each node knows about the nodes, and its routes to their pods
    List {
        #[command(flatten)]
        agents: agents::AgentArgs,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

impl Args {
    /// Runs the verb.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let Verb::List { agents, output } = self.verb;
        let answers = agents.agents().await?.get::<Vec<NodeView>>("/v1/nodes").await;
        let (rows, unreachable) = output::merge(answers);
        output::list(output, &rows, &unreachable, || list(&rows))
    }
}

fn list(rows: &[Row<NodeView>]) -> Text {
    let mut table = output::table(&["NODE", "TO", "ADDRESSES", "POD NETWORK", "VIA", "STATE"]);
    for Row { node, view } in rows {
        let name = if view.local { "itself" } else { view.name.as_str() };
        let start = [
            Cell::new(node),
            Cell::new(name),
            Cell::new(output::join(&view.addresses)),
        ];
        if view.routes.is_empty() {
            let end = [
                Cell::new(output::join(&view.pod_cidrs)),
                Cell::new("-"),
                Cell::new("no route"),
            ];
            table.add_row(start.iter().cloned().chain(end));
        }
        for route in &view.routes {
            let end = [
                Cell::new(route.destination),
                Cell::new(via(route)),
                state(&route.state),
            ];
            table.add_row(start.iter().cloned().chain(end));
        }
    }
    Text::from(&table)
}

fn via(route: &RouteView) -> String {
    match (&route.via, &route.device) {
        (Some(via), Some(device)) => format!("{via} dev {device}"),
        (Some(via), None) => via.to_string(),
        (None, Some(device)) => format!("dev {device}"),
        (None, None) => "the node's other routes".into(),
    }
}
