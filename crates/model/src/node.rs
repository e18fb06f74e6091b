// SPDX-License-Identifier: Apache-2.0
//! Nodes.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::Family;

/// A node of the cluster as far as the network cares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name in Kubernetes.
    pub name: String,
    /// Its addresses on the underlay (`InternalIP`), in the order that Kubernetes gives.
    pub addresses: Vec<IpAddr>,
    /// Where its pods' addresses come from; network addresses, without host bits.
    pub pod_cidrs: Vec<IpNet>,
    /// The zone that it is in, if its labels say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// A Node of Kubernetes as the one that it is: deleted and made anew it is another machine, whatever its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// All its addresses, of whatever kind.
    pub addresses: Vec<IpAddr>,
}

impl Node {
    /// The node's first underlay address of a family.
    #[must_use]
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses
            .iter()
            .copied()
            .find(|addr| Family::of(addr) == family)
    }
}
