// SPDX-License-Identifier: Apache-2.0
//! The agent's state on one screen.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{HealthSummary, PoolView, ServiceSummary};

/// The agent's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The agent's version.
    pub version: String,
    /// The node's name.
    pub node: String,
    /// The lab that the node belongs to, if any.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub lab: String,
    /// The agent's process ID.
    pub pid: u32,
    /// How long the agent has been running.
    pub uptime_seconds: u64,
    /// The agent's resident memory in bytes.
    pub resident_bytes: u64,
    /// How long it took from the start of the process until everything was ready, once it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_after_milliseconds: Option<u64>,
    /// Whether pods can be started.
    pub ready: bool,
    /// What readiness depends on.
    pub conditions: Vec<Condition>,
    /// The release of the running kernel.
    pub kernel: String,
    /// What the kernel can do that matters, such as `tcx`.
    pub features: Vec<String>,
    /// `native`.
    pub routing_mode: String,
    /// The packet size of pods.
    pub mtu: u32,
    /// The connection to the Kubernetes API.
    pub kubernetes: KubernetesView,
    /// The eBPF programs.
    pub datapath: DatapathView,
    /// The endpoints in short.
    pub endpoints: EndpointSummary,
    /// The address pools.
    pub ipam: Vec<PoolView>,
    /// Connection tracking in short.
    pub conntrack: ConntrackSummary,
    /// Pods and the world, if they are masqueraded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masquerade: Option<MasqueradeSummary>,
    /// Services, if they are the agent's to serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<ServiceSummary>,
    /// How the node reaches the others, unless that is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthSummary>,
    /// What was dropped, by reason and direction.
    pub drops: Vec<DropView>,
    /// The events that tell of drops.
    #[serde(default)]
    pub events: EventSummary,
    /// What was forwarded, by direction; the reason is `FORWARDED`.
    pub forwarded: Vec<DropView>,
    /// Everything that can be full.
    pub limits: Vec<LimitView>,
    /// The tables.
    pub tables: Vec<TableView>,
}

/// Something that readiness depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// What it is about, such as `datapath`.
    pub name: String,
    /// Whether it is fulfilled.
    pub ok: bool,
    /// What is the case, and if it is not fulfilled, what to do.
    pub message: String,
}

/// The connection to the Kubernetes API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesView {
    /// Whether all watches run.
    pub connected: bool,
    /// Where the API is.
    pub server: String,
    /// The last error, kept after the connection is back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// How long ago that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error_seconds_ago: Option<u64>,
    /// Objects that could not be understood and were skipped: what and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped_objects: Vec<String>,
}

/// The eBPF programs and where they are attached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatapathView {
    /// The programs.
    pub programs: Vec<ProgramView>,
    /// The devices towards other nodes.
    pub devices: Vec<String>,
    /// How programs are attached: `tcx` or `clsact`.
    pub attach: String,
}

/// A loaded eBPF program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramView {
    /// Its name.
    pub name: String,
    /// The kernel's number for it.
    pub id: u32,
    /// The digest of its instructions.
    pub tag: String,
    /// How often it ran; zero unless `kernel.bpf_stats_enabled` is set.
    pub run_count: u64,
    /// The time it took in all; zero unless `kernel.bpf_stats_enabled` is set.
    pub run_time_ns: u64,
    /// How many instructions it has after verification.
    pub instructions: u32,
}

/// The endpoints in short.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSummary {
    /// How many there are.
    pub total: usize,
    /// How many of them are in error.
    pub errors: usize,
}

/// Connection tracking in short.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConntrackSummary {
    /// Connections known.
    pub entries: u64,
    /// Connections that fit.
    pub max: u64,
    /// How full it is, in percent.
    pub pressure: u8,
}

/// Masquerading in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasqueradeSummary {
    /// The addresses of the node that new connections have outside.
    pub addresses: Vec<IpAddr>,
    /// The ports that they may have, such as `49152-65535`.
    pub ports: String,
    /// How many ports that are.
    pub ports_max: u64,
    /// Ports in use towards that remote end, address and port, to which most are; without those of closed connections, which
    /// new ones take.
    pub ports_busiest: u64,
    /// Masqueraded connections.
    pub connections: u64,
    /// Packets dropped because no port was free.
    pub refused: u64,
}

/// Packets of one fate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropView {
    /// The reason's name.
    pub reason: String,
    /// `ingress` or `egress`.
    pub direction: String,
    /// How many packets.
    pub packets: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// The events that tell of drops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventSummary {
    /// Events seen since the agent started.
    pub seen: u64,
    /// Events that found the kernel's ring full, since the maps were made.
    pub lost: u64,
}

/// Something that can be full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitView {
    /// What it is.
    pub name: String,
    /// How much is used.
    pub used: u64,
    /// How much there is.
    pub max: u64,
}

/// A table of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableView {
    /// Its name.
    pub name: String,
    /// How many rows it has.
    pub rows: usize,
    /// How often it changed.
    pub revision: u64,
    /// Whether the first full content of its source is in it.
    pub in_sync: bool,
    /// How many of its rows are in error.
    pub errors: usize,
}
