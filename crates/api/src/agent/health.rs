// SPDX-License-Identifier: Apache-2.0
//! Whether nodes reach each other.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// How a node reaches the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthView {
    /// The node that tries.
    pub node: String,
    /// Whether it does (`health.enabled`).
    pub enabled: bool,
    /// The other nodes.
    pub peers: Vec<PeerView>,
}

/// How a node reaches another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerView {
    /// The other node.
    pub peer: String,
    /// How long ago it was tried; nothing before the first try has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried_seconds_ago: Option<u64>,
    /// What was tried. Of pods there is nothing while the node has none, or its agent has never been heard.
    pub probes: Vec<ProbeView>,
}

/// The last try of one kind at one address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeView {
    /// `node-icmp`, `node-tcp`, `pod-icmp` or `pod-tcp`.
    pub kind: String,
    /// What was tried.
    pub address: IpAddr,
    /// Whether it answered.
    pub ok: bool,
    /// How long the answer took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_microseconds: Option<u64>,
    /// Why there was no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// For how long it has answered, or not answered.
    pub since_seconds: u64,
}

/// How a node reaches the others, in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthSummary {
    /// How many other nodes there are.
    pub peers: usize,
    /// How many of them fail in some way.
    pub failing: usize,
    /// The first [`HEALTH_FAILURES_MAX`] of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<FailureView>,
}

/// The most nodes that a summary names.
pub const HEALTH_FAILURES_MAX: usize = 8;

/// A node that is not reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureView {
    /// The other node.
    pub peer: String,
    /// The kinds of tries that fail.
    pub kinds: Vec<String>,
    /// What the first of them met.
    pub error: String,
    /// For how long that one has failed.
    pub since_seconds: u64,
}
