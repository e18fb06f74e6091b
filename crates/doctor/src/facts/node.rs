// SPDX-License-Identifier: Apache-2.0
//! One node, as it sees itself.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Gathered;
use crate::owner::Owner;

/// One node, as it sees itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Milliseconds since 1970 by its own clock.
    pub clock_ms: Gathered<u64>,
    /// The kernel.
    pub kernel: Gathered<Kernel>,
    /// The operating system.
    pub os: Gathered<Os>,
    /// File systems.
    pub mounts: Gathered<Mounts>,
    /// Kernel modules that matter, by name.
    pub modules: Gathered<BTreeMap<String, Module>>,
    /// Kernel settings that matter, by name as in `net.ipv4.ip_forward`; those that the kernel does not have are absent.
    pub sysctls: Gathered<BTreeMap<String, String>>,
    /// The effective capabilities of the agent (or of who gathered), as the mask of `/proc/PID/status`.
    pub capabilities: Gathered<u64>,
    /// The container runtime's network configurations.
    pub conflists: Gathered<ConflistDir>,
    /// Chains of iptables, the built-in ones included.
    pub iptables: Gathered<Vec<Chain>>,
    /// Tables of nftables, as `ip kube-proxy`.
    pub nft_tables: Gathered<Vec<String>>,
    /// Virtual servers of IPVS, as the kernel writes them.
    pub ipvs: Gathered<Vec<String>>,
    /// Network devices.
    pub links: Gathered<Vec<Link>>,
    /// Routes of all tables.
    pub routes: Gathered<Vec<Route>>,
    /// Routing rules but those that every namespace has.
    pub rules: Gathered<Vec<RuleFacts>>,
    /// Files on the BPF file system, relative to its root.
    pub bpffs: Gathered<Vec<String>>,
    /// Other programs that manage devices.
    pub managers: Gathered<Managers>,
    /// Names of processes that belong to networks.
    pub processes: Gathered<Vec<String>>,
    /// The agent.
    pub agent: Gathered<AgentFacts>,
    /// That the agent was asked and did not answer, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_silent: Option<String>,
    /// Whether the Kubernetes API can be reached from here.
    pub api: Gathered<ApiReach>,
    /// The kernel's own connection tracking; nothing where it is not in use.
    pub nf_conntrack: Gathered<Option<NfConntrack>>,
    /// Copies of removed parts of other networks, and rehearsals of the way back.
    pub rollback: Gathered<super::Rollback>,
}

impl NodeFacts {
    /// A node of which nothing is known, for one reason.
    #[must_use]
    pub fn unknown(name: &str, reason: &str) -> Self {
        fn no<T>(reason: &str) -> Gathered<T> {
            Gathered::unknown(reason)
        }
        Self {
            name: name.to_owned(),
            clock_ms: no(reason),
            kernel: no(reason),
            os: no(reason),
            mounts: no(reason),
            modules: no(reason),
            sysctls: no(reason),
            capabilities: no(reason),
            conflists: no(reason),
            iptables: no(reason),
            nft_tables: no(reason),
            ipvs: no(reason),
            links: no(reason),
            routes: no(reason),
            rules: no(reason),
            bpffs: no(reason),
            managers: no(reason),
            processes: no(reason),
            agent: no(reason),
            agent_silent: None,
            api: no(reason),
            nf_conntrack: no(reason),
            rollback: no(reason),
        }
    }
}

/// The kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// As `uname -r` says.
    pub release: String,
    /// As `uname -m` says.
    #[serde(default)]
    pub machine: String,
    /// Whether it carries its own type information (`/sys/kernel/btf/vmlinux`).
    pub btf: bool,
    /// Releases in `/lib/modules` and `/boot`: what the node may boot next.
    #[serde(default)]
    pub installed: Vec<String>,
}

/// The operating system, by `/etc/os-release`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Os {
    /// `ID`, such as `amzn`.
    pub id: String,
    /// `VERSION_ID`.
    #[serde(default)]
    pub version: String,
    /// `PRETTY_NAME`.
    #[serde(default)]
    pub name: String,
}

/// File systems that matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mounts {
    /// Whether a BPF file system is where the agent wants it.
    pub bpffs: bool,
    /// Where it wants it.
    pub bpffs_path: String,
    /// Where cgroup2 is mounted.
    #[serde(default)]
    pub cgroup2: Option<String>,
    /// Whether `/proc/sys` is mounted read-only.
    #[serde(default)]
    pub sysctl_read_only: bool,
}

/// What is the case with a kernel module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Module {
    /// Loaded, or part of the kernel.
    Present,
    /// Not loaded, but there is a file.
    Loadable,
    /// Neither.
    Absent,
}

/// The container runtime's directory of network configurations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflistDir {
    /// The directory.
    pub dir: String,
    /// The files that a runtime would read, in the order of their names.
    pub files: Vec<Conflist>,
}

/// A network configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflist {
    /// The file's name.
    pub file: String,
    /// The network's name.
    #[serde(default)]
    pub network: String,
    /// The types of its plugins and, with `ipam:` before, of their address managers.
    #[serde(default)]
    pub plugins: Vec<String>,
    /// Why it cannot be understood, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A chain of iptables.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Chain {
    /// The program that shows it: `iptables`, `ip6tables`, `iptables-legacy`, `ip6tables-legacy`.
    pub tool: String,
    /// The table.
    pub table: String,
    /// The chain's name.
    pub name: String,
    /// How many rules it has.
    pub rules: usize,
    /// For rules that a network put into a chain which is not its own: whose they are, by their comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stray_of: Option<Owner>,
}

/// A network device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its kind, none for hardware.
    #[serde(default)]
    pub kind: Option<String>,
    /// The largest packet.
    pub mtu: u32,
    /// Whether it was set up.
    pub up: bool,
    /// Whether it is a veth whose other end is in another namespace and up: most likely a running pod's.
    #[serde(default)]
    pub leads_to_pod: bool,
    /// The bridge that it is a port of, by index.
    #[serde(default)]
    pub master: Option<u32>,
    /// Its addresses.
    #[serde(default)]
    pub addresses: Vec<IpNet>,
}

/// A unicast route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// Through which neighbour.
    #[serde(default)]
    pub via: Option<IpAddr>,
    /// Through which device.
    #[serde(default)]
    pub device: Option<String>,
    /// Who made it, as the kernel's number.
    pub protocol: u8,
    /// The table.
    pub table: u32,
}

/// A routing rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleFacts {
    /// Its priority.
    pub priority: u32,
    /// In the words of `ip rule`.
    pub text: String,
}

/// Programs that manage devices and may take ours for theirs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Managers {
    /// systemd-networkd, where it runs.
    #[serde(default)]
    pub networkd: Option<Manager>,
    /// NetworkManager, where it runs.
    #[serde(default)]
    pub network_manager: Option<Manager>,
}

/// A program that manages devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manager {
    /// Whether its files tell it to leave our devices alone.
    pub leaves_ours: bool,
    /// The files that say so, or the ones that were looked at.
    #[serde(default)]
    pub files: Vec<String>,
    /// Whether it may remove routes and rules that it did not make (`ManageForeignRoutes=` and its like).
    #[serde(default)]
    pub manages_foreign: bool,
}

/// What the agent says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentFacts {
    /// Its version.
    pub version: String,
    /// Whether pods can be started.
    pub ready: bool,
    /// What readiness depends on.
    pub conditions: Vec<Condition>,
    /// How pods' packets get to other nodes.
    pub routing_mode: String,
    /// The packet size of pods.
    pub mtu: u32,
    /// How programs are attached.
    pub attach: String,
    /// The loaded programs.
    pub programs: Vec<String>,
    /// Devices towards other nodes.
    pub devices: Vec<String>,
    /// Pods attached.
    pub endpoints: usize,
    /// Those that are not in force.
    pub stuck: Vec<Stuck>,
    /// Address pools.
    pub pools: Vec<Pool>,
    /// Everything that can be full, connection tracking included.
    pub limits: Vec<Limit>,
    /// Packets dropped, by reason.
    pub drops: Vec<Drop>,
    /// Whether all watches run.
    pub api_connected: bool,
    /// Where the API is.
    pub api_server: String,
    /// Tables with rows in error: name and how many.
    pub tables_in_error: BTreeMap<String, usize>,
}

/// Something that readiness depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// What it is about.
    pub name: String,
    /// Whether it is fulfilled.
    pub ok: bool,
    /// What is the case.
    pub message: String,
}

/// A pod whose network is not in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stuck {
    /// As `namespace/name`.
    pub pod: String,
    /// Why, as far as the agent knows.
    pub reason: String,
}

/// An address pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Its addresses.
    pub cidr: IpNet,
    /// Addresses in use.
    pub used: u64,
    /// Addresses in all.
    pub total: u64,
}

/// Something that can be full.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// What it is.
    pub name: String,
    /// How much is used.
    pub used: u64,
    /// How much there is.
    pub max: u64,
}

/// Dropped packets of one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drop {
    /// The reason's name.
    pub reason: String,
    /// How many packets.
    pub packets: u64,
}

/// An attempt to reach the Kubernetes API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiReach {
    /// Its address.
    pub server: String,
    /// How long a TCP connection took, or why there was none.
    #[serde(default)]
    pub connect_ms: Option<u64>,
    /// Why there was none.
    #[serde(default)]
    pub error: Option<String>,
}

/// The kernel's own connection tracking.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NfConntrack {
    /// Connections known.
    pub count: u64,
    /// Connections that fit.
    pub max: u64,
}
