// SPDX-License-Identifier: Apache-2.0
//! The ways in which pods get addresses.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::cloud::Cloud;

/// How pods get addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Secondary addresses of the node's ENIs.
    Eni,
    /// /28 prefixes on the node's ENIs.
    EniPrefix,
    /// Secondary addresses first, overlay addresses when they run out.
    EniOverflow,
    /// A pool of one's own, encapsulated between nodes.
    Overlay,
    /// AKS: a /24 per node that Azure's fabric routes.
    AzureOverlay,
    /// AKS: a subnet of the pods' own, shared out on demand.
    AzurePodSubnet,
    /// AKS: the nodes' subnet, taken when the node is made (legacy).
    AzureNodeSubnet,
    /// GKE: the node's alias range.
    Gke,
    /// Kubernetes' podCIDR of the node, routed natively.
    PodCidr,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Eni,
        Self::EniPrefix,
        Self::EniOverflow,
        Self::Overlay,
        Self::AzureOverlay,
        Self::AzurePodSubnet,
        Self::AzureNodeSubnet,
        Self::Gke,
        Self::PodCidr,
    ];

    /// The name on the command line and in files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Eni => "eni",
            Self::EniPrefix => "eni-prefix",
            Self::EniOverflow => "eni-overflow",
            Self::Overlay => "overlay",
            Self::AzureOverlay => "azure-overlay",
            Self::AzurePodSubnet => "azure-pod-subnet",
            Self::AzureNodeSubnet => "azure-node-subnet",
            Self::Gke => "gke",
            Self::PodCidr => "pod-cidr",
        }
    }

    /// The only cloud that has it, if there is one.
    #[must_use]
    pub const fn cloud(self) -> Option<Cloud> {
        match self {
            Self::Eni | Self::EniPrefix | Self::EniOverflow => Some(Cloud::Aws),
            Self::AzureOverlay | Self::AzurePodSubnet | Self::AzureNodeSubnet => Some(Cloud::Azure),
            Self::Gke => Some(Cloud::Gcp),
            Self::Overlay | Self::PodCidr => None,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no mode has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no mode is called `{0}`; there are eni, eni-prefix, eni-overflow, overlay, azure-overlay, azure-pod-subnet, azure-node-subnet, gke, pod-cidr"
)]
pub struct UnknownMode(pub String);

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(name: &str) -> Result<Self, UnknownMode> {
        let found = Self::ALL.into_iter().find(|mode| mode.name() == name);
        found.ok_or_else(|| UnknownMode(name.to_owned()))
    }
}
