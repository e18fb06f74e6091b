// SPDX-License-Identifier: Apache-2.0
//! The small part of a Kubernetes control plane that a lab needs beside its API server: what kube-controller-manager
//! and kube-scheduler do for pods, services and namespaces.
//!
//! Every controller is level-triggered: it watches, computes from what the watches hold what should be written, and
//! writes it; a pure function decides, the loop around it is [`drive`]. They speak kube-rs to any API server.

use kube::Client;
use tokio_util::sync::CancellationToken;

pub mod daemon_sets;
pub mod deployments;
mod drive;
pub mod endpoint_slices;
mod endpoints;
mod events;
pub mod garbage;
pub mod namespaces;
mod placement;
pub mod pod_cidrs;
pub mod replica_sets;
mod replicas;
mod rollout;
pub mod scheduler;
mod slices;
mod watched;

pub(crate) use drive::{has_code, pause_after};
pub(crate) use events::{Reporter, Severity};
pub(crate) use watched::{Key, Watched, is_newer};

/// What the controllers are started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// The cluster's pod CIDRs, the primary family first; none where somebody else gives nodes their addresses.
    pub pools: Vec<pod_cidrs::Pool>,
    /// The nodes that are to come, in the order in which they get their parts of the pools.
    pub nodes: Vec<String>,
    /// The CA certificate of the API server (PEM), published to pods as `kube-root-ca.crt`.
    pub root_ca: Option<String>,
}

/// Runs all controllers until the shutdown.
pub async fn run(client: Client, config: Config, shutdown: CancellationToken) {
    let pod_cidrs = async {
        if !config.pools.is_empty() {
            pod_cidrs::run(client.clone(), config.pools, config.nodes, shutdown.clone()).await;
        }
    };
    tokio::join!(
        pod_cidrs,
        scheduler::run(client.clone(), shutdown.clone()),
        replica_sets::run(client.clone(), shutdown.clone()),
        deployments::run(client.clone(), shutdown.clone()),
        daemon_sets::run(client.clone(), shutdown.clone()),
        endpoint_slices::run(client.clone(), shutdown.clone()),
        namespaces::run(client.clone(), config.root_ca, shutdown.clone()),
        garbage::run(client.clone(), shutdown.clone()),
    );
}
