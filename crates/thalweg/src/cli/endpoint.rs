// SPDX-License-Identifier: Apache-2.0
//! `thalweg endpoint`

use std::process::ExitCode;

use anyhow::bail;
use api::agent::{EndpointView, RowState};
use comfy_table::Cell;

use super::agents;
use super::output::{self, Format, Row, Text, bad, good};

/// `thalweg endpoint`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the pods that are attached
    List {
        #[command(flatten)]
        agents: agents::AgentArgs,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Show everything about one
    Get {
        /// NAMESPACE/POD, POD, CONTAINER/INTERFACE or an address
        endpoint: String,
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
        let (agents, output, wanted) = match self.verb {
            Verb::List { agents, output } => (agents, output, None),
            Verb::Get {
                endpoint,
                agents,
                output,
            } => (agents, output, Some(endpoint)),
        };
        let answers = agents
            .agents()
            .await?
            .get::<Vec<EndpointView>>("/v1/endpoints")
            .await;
        let (mut rows, unreachable) = output::merge(answers);
        let Some(wanted) = wanted else {
            return output::list(output, &rows, &unreachable, || list(&rows));
        };
        rows.retain(|row| is_called(&row.view, &wanted));
        if rows.is_empty() && unreachable.is_empty() {
            bail!("no endpoint is called {wanted}; `thalweg endpoint list` shows which there are");
        }
        output::list(output, &rows, &unreachable, || details(&rows))
    }
}

fn is_called(view: &EndpointView, name: &str) -> bool {
    view.pod.to_string() == name
        || view.pod.name == name
        || view.id.to_string() == name
        || view.ips.iter().any(|ip| ip.to_string() == name)
}

fn list(rows: &[Row<EndpointView>]) -> Text {
    let mut table = output::table(&["NODE", "POD", "ADDRESSES", "INTERFACE", "STATE"]);
    for Row { node, view } in rows {
        table.add_row(vec![
            Cell::new(node),
            Cell::new(&view.pod),
            Cell::new(output::join(&view.ips)),
            Cell::new(&view.host_ifname),
            state(&view.state),
        ]);
    }
    Text::from(&table)
}

fn details(rows: &[Row<EndpointView>]) -> Text {
    let mut text = Text::default();
    for Row { node, view } in rows {
        let mut table = output::table(&["POD", &view.pod.to_string()]);
        let labels = view.labels.iter().map(|(key, value)| format!("{key}={value}"));
        for (name, value) in [
            ("NODE", node.clone()),
            ("UID", view.pod.uid.clone()),
            ("CONTAINER", view.id.container_id.clone()),
            ("INTERFACE IN POD", view.id.ifname.clone()),
            ("MAC", view.mac.to_string()),
            ("ADDRESSES", output::join(&view.ips)),
            (
                "HOST INTERFACE",
                format!("{} ({})", view.host_ifname, view.ifindex),
            ),
            ("LABELS", output::join(labels)),
        ] {
            table.add_row([name, &value]);
        }
        table.add_row(vec![Cell::new("STATE"), state(&view.state)]);
        text.0.push_str(&Text::from(&table).0);
    }
    text
}

/// How far a row is, in one cell.
pub(crate) fn state(state: &RowState) -> Cell {
    match state {
        RowState::Pending => Cell::new("pending"),
        RowState::Done => good("ok"),
        RowState::Error(reason) => bad(format!("error: {reason}")),
    }
}
