// SPDX-License-Identifier: Apache-2.0
//! What the operator sees.

use std::collections::BTreeMap;

use ipnet::IpNet;
use model::{IpPool, Machine, NodePools};

/// The cluster, as the operator's watches show it. It may be old: every write checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    /// The pools by name.
    pub pools: BTreeMap<String, IpPool>,
    /// What nodes have, by the node's name.
    pub nodes: BTreeMap<String, NodePools>,
    /// The Nodes by name.
    pub machines: BTreeMap<String, Machine>,
    /// Networks of ClusterIPs, which no pool may share addresses with.
    pub service_cidrs: Vec<IpNet>,
}
