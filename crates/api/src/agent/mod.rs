// SPDX-License-Identifier: Apache-2.0
//! What the agent answers on its Unix socket. Client and server use the same types.
//!
//! | request | answer |
//! |---|---|
//! | `GET /healthz`, `GET /readyz` | text; 503 when not |
//! | `GET /metrics` | OpenMetrics text |
//! | `GET /v1/status` | [`Status`] |
//! | `GET /v1/endpoints` | a list of [`EndpointView`] |
//! | `GET /v1/endpoints/{container}/{interface}` or `/{namespace}/{pod}` | one [`EndpointView`] |
//! | `GET /v1/nodes` | a list of [`NodeView`] |
//! | `GET /v1/services`, `GET /v1/services/{namespace}/{name}` | a list of [`ServiceView`]: the service, the pod of that name |
//! | `GET /v1/ipam` | [`IpamView`] |
//! | `GET /v1/maps`, `GET /v1/maps/{name}` | a list of [`MapView`], a list of [`MapRowView`] |
//! | `GET /v1/conntrack?limit=&ip=` | [`ConntrackList`] |
//! | `GET /v1/events?follow=1&last=&reason=&pod=&ip=` | [`EventLine`], one per line |
//! | `GET /v1/health?probe=` | [`HealthView`]; with `probe=1` all nodes are tried first |
//! | anything that fails | [`ErrorView`] with a 4xx or 5xx status |

mod events;
mod health;
mod services;
mod status;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use model::{EndpointId, Family, Mac, PodRef};
use serde::{Deserialize, Serialize};

pub use events::{ConntrackList, ConntrackSide, ConntrackView, EventLine, EventView, LostPlace, LostView};
pub use health::{FailureView, HEALTH_FAILURES_MAX, HealthSummary, HealthView, PeerView, ProbeView};
pub use services::{BackendView, FrontendView, RemarkView, ServiceSummary, ServiceView};
pub use status::{
    Condition, ConntrackSummary, DatapathView, DropView, EndpointSummary, EventSummary, KubernetesView,
    LimitView, MasqueradeSummary, ProgramView, Status, TableView,
};

/// The agent socket's name inside the run directory.
pub const SOCKET_NAME: &str = "agent.sock";

/// The most connections in one answer unless the request asks for another number.
pub const CONNTRACK_LIMIT: usize = 1000;

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorView {
    /// A sentence for people.
    pub error: String,
}

/// How far a row is from being in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state", content = "reason")]
pub enum RowState {
    /// It has not been tried yet.
    Pending,
    /// It is in force.
    Done,
    /// It failed for this reason and will be tried again.
    Error(String),
}

/// A pod's attachment to this node's network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointView {
    /// The container runtime's name of it.
    pub id: EndpointId,
    /// Whose it is.
    pub pod: PodRef,
    /// The pod's labels, when the API has told them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// The host end of its veth pair.
    pub host_ifname: String,
    /// The index of the host end.
    pub ifindex: u32,
    /// The hardware address of the pod's own end.
    pub mac: Mac,
    /// Whether it can send and receive.
    pub state: RowState,
}

/// A node, and the routes that this node has to its pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// The node's name.
    pub name: String,
    /// Its addresses on the underlay.
    pub addresses: Vec<IpAddr>,
    /// Where its pods' addresses come from.
    pub pod_cidrs: Vec<IpNet>,
    /// Whether it is the node that answers.
    pub local: bool,
    /// The way to each of its pod networks.
    pub routes: Vec<RouteView>,
}

/// The way to one pod network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteView {
    /// The pod network.
    pub destination: IpNet,
    /// The next hop; nothing for the node's own pods and where the network behind the router knows the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
    /// The device; nothing where the node's other routes lead there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Whether it is in force.
    pub state: RowState,
}

/// The address pools and who has which address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamView {
    /// The pools, one per pod CIDR.
    pub pools: Vec<PoolView>,
    /// The addresses in use.
    pub allocations: Vec<AllocationView>,
}

/// An address pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolView {
    /// The network that addresses are taken from.
    pub cidr: IpNet,
    /// Its family.
    pub family: Family,
    /// How many addresses pods can have; saturates for large IPv6 networks.
    pub capacity: u64,
    /// How many are in use.
    pub used: u64,
    /// How many can be given out now.
    pub free: u64,
    /// How many were released so recently that they are not given out yet.
    pub quarantined: u64,
}

/// An address in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocationView {
    /// The address.
    pub ip: IpAddr,
    /// Who has it.
    pub endpoint: EndpointId,
    /// The pod.
    pub pod: PodRef,
}

/// A BPF map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapView {
    /// Its name.
    pub name: String,
    /// Its type, such as `hash`.
    pub kind: String,
    /// The size of a key in bytes.
    pub key_size: u32,
    /// The size of a row in bytes.
    pub value_size: u32,
    /// How many rows fit.
    pub max_entries: u32,
    /// How many rows there are; nothing where that makes no sense.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<u64>,
}

/// A row of a BPF map, decoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapRowView {
    /// The key.
    pub key: serde_json::Value,
    /// The row.
    pub value: serde_json::Value,
}
