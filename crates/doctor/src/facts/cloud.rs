// SPDX-License-Identifier: Apache-2.0
//! The cloud below the cluster.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Gathered;

/// Whose machines these are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// Amazon.
    Aws,
    /// Microsoft.
    Azure,
    /// Google.
    Gcp,
    /// Somebody's own, or a lab.
    #[default]
    Own,
}

/// The cloud below the cluster. What is not gathered can be given in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CloudFacts {
    /// Whose machines these are.
    pub provider: Gathered<Provider>,
    /// The managed add-ons of the cluster.
    pub addons: Gathered<Vec<Addon>>,
    /// The virtual network's addresses.
    pub vpc_cidrs: Gathered<Vec<IpNet>>,
    /// The policies of the operator's role.
    pub iam: Gathered<IamFacts>,
    /// Pods with addresses of their own that fit on each instance type in the mode that is in use.
    pub pod_slots: Gathered<BTreeMap<String, PodSlots>>,
    /// Connections to the networks of other clusters of a mesh; empty without a mesh.
    pub peerings: Gathered<Vec<Peering>>,
}

impl CloudFacts {
    /// These facts, and of what is not known here the others.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            provider: self.provider.or(others.provider),
            addons: self.addons.or(others.addons),
            vpc_cidrs: self.vpc_cidrs.or(others.vpc_cidrs),
            iam: self.iam.or(others.iam),
            pod_slots: self.pod_slots.or(others.pod_slots),
            peerings: self.peerings.or(others.peerings),
        }
    }
}

/// A managed add-on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Addon {
    /// Its name, such as `vpc-cni`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its status, such as `ACTIVE`.
    pub status: String,
}

/// The policies of the operator's role, and what they are to suffice for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IamFacts {
    /// The role.
    pub role: String,
    /// How pods get addresses: `eni`, `overlay` and so on, as `thalweg iam` knows them.
    pub mode: String,
    /// The cluster's name, as in tags.
    pub cluster: String,
    /// Its region; where nobody says, any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Its account; where nobody says, any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Its VPC; where nobody says, any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vpc: Option<String>,
    /// The role's policies.
    pub policies: Vec<PolicyFacts>,
}

/// A policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyFacts {
    /// Its name.
    pub name: String,
    /// Its document, bare or as the command line of AWS wraps it.
    pub document: serde_json::Value,
}

/// How many pods fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodSlots {
    /// Pods with an address of their own.
    pub slots: u32,
    /// How that was computed, in words.
    pub how: String,
}

/// A connection to another cluster's network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Peering {
    /// The other cluster.
    pub cluster: String,
    /// Whether the connection stands.
    pub active: bool,
    /// The state's name.
    pub state: String,
    /// The other cluster's pod and node addresses.
    pub cidrs: Vec<IpNet>,
    /// Those for which there is a route from here.
    pub routed: Vec<IpNet>,
}

/// What there is for the way back to another network, on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rollback {
    /// Copies of removed parts.
    pub backups: Vec<String>,
    /// Seconds since 1970 of the last rehearsal that went well.
    pub rehearsed: Option<u64>,
}
