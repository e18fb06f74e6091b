// SPDX-License-Identifier: Apache-2.0
//! Services as an agent serves them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A service, or a pod with ports of its node, as a node serves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceView {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `Service`, or `Pod` of one with ports of the node.
    pub kind: String,
    /// What clients connect to.
    pub frontends: Vec<FrontendView>,
    /// Who is behind it; only where one service was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<BackendView>,
    /// What there is to say about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<RemarkView>,
    /// Why the node could not write all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl ServiceView {
    /// What is refused of it.
    pub fn refused(&self) -> impl Iterator<Item = &RemarkView> {
        self.remarks.iter().filter(|remark| remark.refused)
    }
}

/// What clients connect to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontendView {
    /// The address.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// `ClusterIP`, `LoadBalancer`, `ExternalIP`, `NodePort` or `HostPort`.
    pub kind: String,
    /// The name of the service's port.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub port_name: String,
    /// How many backends clients of this node have.
    pub backends: usize,
    /// How many those from outside have; nothing where they may not come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backends_outside: Option<usize>,
}

/// A backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendView {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// The name of the service's port.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub port_name: String,
    /// `ready`, `terminating` or `not ready`.
    pub state: String,
    /// Its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Its zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Whether it is among those for clients that may have any of the cluster.
    pub chosen: bool,
    /// Whether it is among those for clients that may have this node's only.
    pub chosen_local: bool,
    /// Whether its address is in no network that the node knows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub foreign: bool,
}

/// What there is to say about a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemarkView {
    /// Whether something of what the service asks for is not done.
    pub refused: bool,
    /// In one word.
    pub reason: String,
    /// In a sentence.
    pub message: String,
}

/// Services in short.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSummary {
    /// Whether all are in force since the agent's start.
    pub in_sync: bool,
    /// Whether sockets of the node and its pods talk to backends themselves; else only what pods and the world send is led to them.
    #[serde(default)]
    pub sockets: bool,
    /// Services and pods with a frontend.
    pub services: u64,
    /// Frontends.
    pub frontends: u64,
    /// Frontends that fit.
    pub frontends_max: u64,
    /// Slots of backends.
    pub backends: u64,
    /// Slots that fit.
    pub backends_max: u64,
    /// Services of which something is refused.
    pub refused: u64,
    /// Services that could not be written.
    pub failed: u64,
    /// How often a map was found full.
    pub full: u64,
    /// What is wrong with the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}
