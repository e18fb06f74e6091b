// SPDX-License-Identifier: Apache-2.0
//! Addresses from pools of the cluster: the agent's side of what the operator does.
//!
//! The node's [`ThalwegNode`](api::crd) says which blocks it has. The agent takes them up, tells how full they are and how many
//! it wants, gives back what is asked back, and chooses a pod's pool by annotation. Begin at [`start`].

mod choose;
mod join;
mod report;

use std::sync::Arc;

use api::config::Config;
use k8s::{Api, IpPools, WatchStatus};
use model::{Machine, Namespace, Node, NodePools, Pod};
use state::{Table, table};
use tokio::sync::watch;

use crate::apply::View;

pub use choose::{Chooser, Waiting};
pub use report::Counts;

/// What the rest of the agent works with.
#[derive(Debug)]
pub struct ClusterPool {
    /// The cluster's nodes, with the blocks that they hold as their pod networks.
    pub nodes: Table<Node>,
    /// What this node has been granted: one row, of this very Node and never older than before.
    pub granted: Table<NodePools>,
    /// Finds a pod's pool.
    pub chooser: Arc<Chooser>,
    /// How the watches are doing.
    pub watches: Vec<watch::Receiver<WatchStatus>>,
    /// Reports written, by result.
    pub counts: Counts,
    reporter: report::Reporter,
}

/// Begins to watch, and to keep tables right.
#[must_use]
pub fn start(config: &Config, api: &Api, nodes: Table<Node>, pods: Table<Pod>) -> ClusterPool {
    let (pools_writer, pools) = table::<NodePools>("thalwegnodes");
    let (machine_writer, machine) = table::<Machine>("own node");
    let (namespaces_writer, namespaces) = table::<Namespace>("namespaces");
    let (joined_writer, joined) = table::<Node>("nodes with their blocks");
    let (granted_writer, granted) = table::<NodePools>("granted");
    let [
        (pools_status, pools_watch),
        (machine_status, machine_watch),
        (namespaces_status, namespaces_watch),
    ] = ["thalwegnodes", "own node", "namespaces"].map(|name| watch::channel(WatchStatus::new(name)));
    tokio::spawn(k8s::watch_node_pools(
        api.client.clone(),
        pools_writer,
        pools_status,
    ));
    tokio::spawn(k8s::watch_namespaces(
        api.client.clone(),
        namespaces_writer,
        namespaces_status,
    ));
    let (client, name) = (api.client.clone(), config.node_name.clone());
    tokio::spawn(async move {
        k8s::watch_machines(client, Some(&name), machine_writer, machine_status).await;
    });
    let join = join::Join {
        own: config.node_name.clone(),
        nodes,
        pools,
        machine,
        joined: joined_writer,
        granted: granted_writer,
    };
    tokio::spawn(join.run());
    let waiting = Arc::new(Waiting::default());
    let counts = Counts::default();
    let chooser = Chooser {
        own: config.node_name.clone(),
        pods,
        namespaces,
        granted: granted.clone(),
        waiting: waiting.clone(),
    };
    let reporter = report::Reporter {
        node: config.node_name.clone(),
        spare: config.ipam_spare,
        api: IpPools::new(api.client.clone()),
        waiting,
        counts: counts.clone(),
    };
    ClusterPool {
        nodes: joined,
        granted,
        chooser: Arc::new(chooser),
        watches: vec![pools_watch, machine_watch, namespaces_watch],
        counts,
        reporter,
    }
}

impl ClusterPool {
    /// Begins to tell the operator what the apply thread shows.
    pub fn report(&self, view: watch::Receiver<View>) {
        tokio::spawn(self.reporter.clone().run(view));
    }
}
