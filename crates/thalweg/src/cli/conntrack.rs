// SPDX-License-Identifier: Apache-2.0
//! `thalweg conntrack`

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use api::agent::{CONNTRACK_LIMIT, ConntrackList, ConntrackSide, ConntrackView};
use comfy_table::Cell;

use super::agents::{self, Answer};
use super::output::{self, Format, Row, Text};

/// `thalweg conntrack`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List connections
    List {
        /// Only those from or to this address
        #[arg(long, value_name = "ADDRESS")]
        ip: Option<IpAddr>,
        /// At most so many per node
        #[arg(long, value_name = "NUMBER", default_value_t = CONNTRACK_LIMIT)]
        limit: usize,
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
        let Verb::List {
            ip,
            limit,
            agents,
            output,
        } = self.verb;
        let mut path = format!("/v1/conntrack?limit={limit}");
        if let Some(ip) = ip {
            write!(path, "&ip={ip}")?;
        }
        let answers = agents.agents().await?.get::<ConntrackList>(&path).await;
        let truncated: Vec<_> = answers
            .iter()
            .filter(|answer| answer.result.as_ref().is_ok_and(|list| list.truncated))
            .map(|answer| answer.node.clone())
            .collect();
        let answers = answers
            .into_iter()
            .map(|Answer { node, result }| Answer {
                node,
                result: result.map(|list| list.entries),
            })
            .collect();
        let (rows, unreachable) = output::merge(answers);
        output::list(output, &rows, &unreachable, || list(&rows, &truncated, limit))
    }
}

fn list(rows: &[Row<ConntrackView>], truncated: &[String], limit: usize) -> Text {
    let columns = [
        "NODE",
        "PROTOCOL",
        "FROM",
        "TO",
        "OUTSIDE AS",
        "STATE",
        ">IDLE",
        ">EXPIRES",
        ">SENT",
        ">RECEIVED",
    ];
    let mut table = output::table(&columns);
    for Row { node, view } in rows {
        table.add_row(vec![
            Cell::new(node),
            Cell::new(&view.protocol),
            Cell::new(SocketAddr::new(view.source, view.source_port)),
            Cell::new(SocketAddr::new(view.destination, view.destination_port)),
            Cell::new(
                view.masqueraded
                    .map(|outside| outside.to_string())
                    .unwrap_or_default(),
            ),
            Cell::new(&view.state),
            Cell::new(output::duration(view.idle_seconds)),
            Cell::new(output::duration(view.expires_in_seconds)),
            Cell::new(traffic(view.forward)),
            Cell::new(traffic(view.reply)),
        ]);
    }
    let mut text = Text::from(&table);
    if !truncated.is_empty() {
        text.line(format!(
            "There are more than {limit} on {}: --limit NUMBER shows more.",
            output::join(truncated)
        ));
    }
    text
}

fn traffic(side: ConntrackSide) -> String {
    format!("{} / {}", side.packets, output::bytes(side.bytes))
}
