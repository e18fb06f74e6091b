// SPDX-License-Identifier: Apache-2.0
//! What is known about nodes, the cluster and the cloud, as plain data that can be recorded and examined again elsewhere.
//!
//! Every fact that can fail to be found out is a [`Gathered`]: the value, or the reason why there is none. A record may leave
//! facts out; they are then unknown as well.

mod cloud;
mod cluster;
mod node;

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use cloud::{Addon, CloudFacts, IamFacts, Peering, PodSlots, PolicyFacts, Provider, Rollback};
pub use cluster::{
    Budget, ClusterFacts, DaemonSetFacts, DeprecatedUse, NodeObject, PodFacts, ServiceFacts, Skew,
    WebhookFacts,
};
pub use node::{
    AgentFacts, ApiReach, Chain, Condition, Conflist, ConflistDir, Drop, Kernel, Limit, Link, Manager,
    Managers, Module, Mounts, NfConntrack, NodeFacts, Os, Pool, Route, RuleFacts, Stuck,
};

/// The version of the record's form.
pub const SCHEMA: u32 = 1;

/// A value, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Gathered<T> {
    /// It could not be found out.
    Unknown {
        /// Why not.
        unknown: String,
    },
    /// It is known.
    Known(T),
}

impl<T> Default for Gathered<T> {
    fn default() -> Self {
        Self::unknown("the record does not say")
    }
}

impl<T> Gathered<T> {
    /// A value that could not be found out, for this reason.
    #[must_use]
    pub fn unknown(reason: impl Into<String>) -> Self {
        Self::Unknown {
            unknown: reason.into(),
        }
    }

    /// The value, or the reason.
    ///
    /// # Errors
    /// The reason, when there is no value.
    pub fn get(&self) -> Result<&T, &str> {
        match self {
            Self::Known(value) => Ok(value),
            Self::Unknown { unknown } => Err(unknown),
        }
    }

    /// This value, or another one where it is not known.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        match self {
            Self::Known(_) => self,
            Self::Unknown { .. } => other,
        }
    }

    /// The value, if there is one.
    #[must_use]
    pub fn known(&self) -> Option<&T> {
        self.get().ok()
    }
}

impl<T, E: std::fmt::Display> From<Result<T, E>> for Gathered<T> {
    fn from(result: Result<T, E>) -> Self {
        match result {
            Ok(value) => Self::Known(value),
            Err(error) => Self::unknown(error.to_string()),
        }
    }
}

/// Everything that the checks look at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// [`SCHEMA`] at the time of recording.
    pub schema: u32,
    /// What was looked at, for headings: `lab demo`.
    #[serde(default)]
    pub title: String,
    /// Milliseconds since 1970 when gathering began, by the clock of the machine that gathered.
    #[serde(default)]
    pub began_ms: u64,
    /// The same when it ended.
    #[serde(default)]
    pub ended_ms: u64,
    /// Each node, by its own view.
    #[serde(default)]
    pub nodes: Vec<NodeFacts>,
    /// Why there are none, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes_unknown: Option<String>,
    /// The node that was to be looked at, where not all were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only_node: Option<String>,
    /// The cluster by its API's view.
    #[serde(default)]
    pub cluster: ClusterFacts,
    /// The cloud below.
    #[serde(default)]
    pub cloud: CloudFacts,
}

impl Facts {
    /// The networks of each node's pods: the pools of its agent, else what the API's object of the node says. Where the operator hands
    /// pools out, the object says nothing.
    #[must_use]
    pub fn pod_networks(&self) -> Vec<(&str, IpNet)> {
        let mut networks: BTreeMap<&str, Vec<IpNet>> = BTreeMap::new();
        for node in self.cluster.nodes.known().into_iter().flatten() {
            networks.insert(&node.name, node.pod_cidrs.clone());
        }
        for node in &self.nodes {
            let pools = node.agent.known().map_or(&[][..], |agent| &agent.pools);
            if !pools.is_empty() {
                networks.insert(&node.name, pools.iter().map(|pool| pool.cidr).collect());
            }
        }
        let each = networks.into_iter();
        each.flat_map(|(node, nets)| nets.into_iter().map(move |net| (node, net)))
            .collect()
    }

    /// The API's object of a node, where both are known.
    #[must_use]
    pub fn node_object(&self, name: &str) -> Option<&NodeObject> {
        self.cluster.nodes.known()?.iter().find(|node| node.name == name)
    }
}
