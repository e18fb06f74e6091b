// SPDX-License-Identifier: Apache-2.0
//! Everything about the agent that can be looked at, in one place.

use std::path::Path;
use std::time::Instant;
use std::{fs, io};

use api::config::Config;
use datapath::{Conntrack, Counters, Features, Timeouts};
use k8s::WatchStatus;
use model::{Endpoint, Node, Pod};
use state::Table;
use tokio::sync::watch;

use crate::apply::{Client, View};
use crate::events::EventLog;
use crate::health::Health;
use crate::readiness::Readiness;

/// Handles to whatever can be looked at. Nothing is changed through them.
#[derive(Debug)]
pub struct Observed {
    /// The configuration.
    pub config: Config,
    /// When the agent was started.
    pub started: Instant,
    /// The address of the Kubernetes API.
    pub api_server: String,
    /// The cluster's nodes.
    pub nodes: Table<Node>,
    /// This node's pods, as Kubernetes knows them.
    pub pods: Table<Pod>,
    /// This node's endpoints.
    pub endpoints: Table<Endpoint>,
    /// How the watches are doing.
    pub watches: Vec<watch::Receiver<WatchStatus>>,
    /// What the apply thread publishes.
    pub view: watch::Receiver<View>,
    /// For questions that only the apply thread can answer.
    pub apply: Client,
    /// The connections.
    pub conntrack: Conntrack,
    /// When connections expire.
    pub timeouts: Timeouts,
    /// What was dropped and forwarded.
    pub counters: Counters,
    /// What the kernel offers.
    pub features: Features,
    /// What happened.
    pub events: EventLog,
    /// How this node reaches the others, unless that is off.
    pub health: Option<Health>,
    /// Whether pods can be started.
    pub readiness: watch::Receiver<Readiness>,
}

/// The memory that this process occupies, in bytes.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn resident_bytes() -> io::Result<u64> {
    let status = fs::read_to_string(Path::new("/proc/self/status"))?;
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    Ok(kilobytes
        .and_then(|text| text.trim().parse::<u64>().ok())
        .unwrap_or_default()
        * 1024)
}
