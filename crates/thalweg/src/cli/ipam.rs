// SPDX-License-Identifier: Apache-2.0
//! `thalweg ipam`

use std::process::ExitCode;

use api::agent::{IpamView, PoolView};
use comfy_table::Cell;

use super::agents::{self, Answer};
use super::ipam_cluster::Cluster;
use super::output::{self, Format, Row, Text, plain_or_bad};

/// `thalweg ipam`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Show the cluster's pools, what nodes have of them, the forecast, and the addresses in use
    Status {
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
        let Verb::Status { agents, output } = self.verb;
        let cluster = Cluster::ask(&agents).await?;
        let answers = agents.agents().await?.get::<IpamView>("/v1/ipam").await;
        let answers = answers
            .into_iter()
            .map(|Answer { node, result }| Answer {
                node,
                result: result.map(|view| vec![view]),
            })
            .collect();
        let (rows, unreachable) = output::merge(answers);
        output::list_with(output, (&rows, &cluster), &unreachable, || {
            let mut text = cluster.text();
            node_sections(&mut text, &rows);
            text
        })
    }
}

fn node_sections(text: &mut Text, rows: &[Row<IpamView>]) {
    let mut pools = output::table(&["NODE", "NETWORK", ">CAPACITY", ">USED", ">FREE", ">RESTING"]);
    let mut allocations = output::table(&["NODE", "ADDRESS", "POD", "ENDPOINT"]);
    for Row { node, view } in rows {
        for pool in &view.pools {
            pools.add_row(pool_cells(node, pool));
        }
        for allocation in &view.allocations {
            allocations.add_row(vec![
                Cell::new(node),
                Cell::new(allocation.ip),
                Cell::new(&allocation.pod),
                Cell::new(&allocation.endpoint),
            ]);
        }
    }
    text.section("Networks of the nodes", &pools);
    text.section("Addresses in use", &allocations);
}

fn pool_cells(node: &str, pool: &PoolView) -> Vec<Cell> {
    vec![
        Cell::new(node),
        Cell::new(pool.cidr),
        Cell::new(capacity(pool.capacity)),
        Cell::new(pool.used),
        plain_or_bad(capacity(pool.free), pool.free == 0),
        Cell::new(pool.quarantined),
    ]
}

/// Pools larger than anybody can count to are shown as that.
pub(super) fn capacity(number: u64) -> String {
    if number > u64::from(u32::MAX) {
        "practically endless".into()
    } else {
        number.to_string()
    }
}
