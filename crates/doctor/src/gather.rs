// SPDX-License-Identifier: Apache-2.0
//! Reading the world into facts. Nothing here judges, and nothing here changes anything.

mod agent;
mod aws;
mod cloud;
mod cluster;
mod host;
mod managers;
mod network;
mod tool;

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

pub use self::aws::{Eks, aws};
pub use cloud::of_cluster as cloud;
pub use cluster::cluster;
pub(crate) use network::savers;
pub(crate) use tool::Tool;

use crate::facts::{Gathered, NodeFacts};

/// Where things are on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The node's name.
    pub node: String,
    /// The node's root directory: `/`, or where a container has it mounted.
    pub root: PathBuf,
    /// The container runtime's directory of network configurations, within the root.
    pub cni_conf_dir: PathBuf,
    /// The BPF file system, as this process sees it.
    pub bpffs: PathBuf,
    /// The agent's socket, as this process sees it.
    pub agent_socket: PathBuf,
    /// Where copies of removed parts are kept, within the root.
    pub kept: PathBuf,
}

impl Places {
    /// A path of the node, as this process sees it.
    #[must_use]
    pub fn on_node(&self, path: impl AsRef<std::path::Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// Milliseconds since 1970 by this machine's clock.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// This node, as it sees itself.
#[must_use]
pub fn node(places: &Places) -> NodeFacts {
    let (agent, pid) = agent::ask(&places.agent_socket);
    let agent_silent = agent.get().err().map(str::to_owned);
    let links = network::links();
    NodeFacts {
        name: places.node.clone(),
        clock_ms: Gathered::Known(now_ms()),
        kernel: host::kernel(places),
        os: host::os(places),
        mounts: host::mounts(places),
        modules: host::modules(places),
        sysctls: Gathered::Known(host::sysctls()),
        capabilities: host::capabilities(pid),
        conflists: network::conflists(places),
        iptables: network::iptables(places),
        nft_tables: network::nft_tables(places),
        ipvs: network::ipvs(),
        routes: network::routes(&links),
        rules: network::rules(),
        links,
        bpffs: network::bpffs(&places.bpffs),
        managers: managers::find(places),
        processes: host::processes(places),
        api: agent::reach_api(&agent),
        agent,
        agent_silent,
        nf_conntrack: Gathered::Known(host::nf_conntrack()),
        rollback: crate::conflicts::kept(&places.on_node(&places.kept)),
    }
}
