// SPDX-License-Identifier: Apache-2.0
//! What is asked.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::AdviseError;
use crate::cloud::Cloud;
use crate::data;

/// A question with yes or no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Question {
    /// Windows nodes.
    WindowsNodes,
    /// The cloud has to answer for the network.
    VendorSupport,
    /// Fargate.
    Fargate,
    /// EKS Auto Mode.
    AutoMode,
    /// EKS Hybrid Nodes.
    HybridNodes,
    /// Security groups of single pods.
    SecurityGroupsPerPod,
    /// GKE Autopilot.
    Autopilot,
    /// Addresses of the network around.
    RoutablePods,
    /// Too few of them.
    ScarceAddresses,
    /// More pods than ENI addresses.
    ManyPodsPerNode,
    /// Thalweg gives the addresses on AKS, too.
    OwnAddresses,
    /// BGP or cluster mesh.
    BgpOrMesh,
    /// The network around knows the way to pods.
    FabricRoutes,
}

const AWS: &[Cloud] = &[Cloud::Aws];
const AZURE: &[Cloud] = &[Cloud::Azure];
const EVERY: &[Cloud] = &[Cloud::Aws, Cloud::Azure, Cloud::Gcp, Cloud::Other];

impl Question {
    /// In the order in which they are asked.
    pub const ALL: [Self; 13] = [
        Self::WindowsNodes,
        Self::VendorSupport,
        Self::Fargate,
        Self::AutoMode,
        Self::HybridNodes,
        Self::SecurityGroupsPerPod,
        Self::Autopilot,
        Self::RoutablePods,
        Self::ScarceAddresses,
        Self::ManyPodsPerNode,
        Self::OwnAddresses,
        Self::BgpOrMesh,
        Self::FabricRoutes,
    ];

    /// The name in files and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::WindowsNodes => "windows-nodes",
            Self::VendorSupport => "vendor-support",
            Self::Fargate => "fargate",
            Self::AutoMode => "auto-mode",
            Self::HybridNodes => "hybrid-nodes",
            Self::SecurityGroupsPerPod => "security-groups-per-pod",
            Self::Autopilot => "autopilot",
            Self::RoutablePods => "routable-pods",
            Self::ScarceAddresses => "scarce-addresses",
            Self::ManyPodsPerNode => "many-pods-per-node",
            Self::OwnAddresses => "own-addresses",
            Self::BgpOrMesh => "bgp-or-mesh",
            Self::FabricRoutes => "fabric-routes",
        }
    }

    /// The question itself.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::WindowsNodes => "Does the cluster have Windows nodes?",
            Self::VendorSupport => "Does your contract ask that the cloud itself supports the network?",
            Self::Fargate => "Do pods run on Fargate?",
            Self::AutoMode => "Is it EKS Auto Mode?",
            Self::HybridNodes => "Does it have EKS Hybrid Nodes, machines outside of AWS?",
            Self::SecurityGroupsPerPod => {
                "Do single pods need VPC security groups of their own (SecurityGroupPolicy)?"
            }
            Self::Autopilot => "Is it GKE Autopilot?",
            Self::RoutablePods => {
                "Must machines outside of the cluster reach pods by the pods' own addresses?"
            }
            Self::ScarceAddresses => "Are free addresses in the nodes' subnets scarce, or split up?",
            Self::ManyPodsPerNode => {
                "Do nodes run more pods than their ENIs have addresses (see `thalweg capacity`)?"
            }
            Self::OwnAddresses => "Shall Thalweg give the addresses, too, instead of Azure CNI?",
            Self::BgpOrMesh => "Do you need BGP or a mesh of clusters?",
            Self::FabricRoutes => {
                "Are the nodes in one layer-2 network, or does the fabric learn routes to pods?"
            }
        }
    }

    /// What is assumed when nobody answers.
    #[must_use]
    pub const fn assumed(self) -> bool {
        false
    }

    /// Whether it makes sense for a cloud.
    #[must_use]
    pub fn is_about(self, cloud: Cloud) -> bool {
        let clouds = match self {
            Self::WindowsNodes => EVERY,
            Self::VendorSupport => &[Cloud::Aws, Cloud::Azure, Cloud::Gcp],
            Self::Fargate
            | Self::AutoMode
            | Self::HybridNodes
            | Self::SecurityGroupsPerPod
            | Self::ManyPodsPerNode => AWS,
            Self::Autopilot => &[Cloud::Gcp],
            Self::RoutablePods | Self::ScarceAddresses => &[Cloud::Aws, Cloud::Azure],
            Self::OwnAddresses | Self::BgpOrMesh => AZURE,
            Self::FabricRoutes => &[Cloud::Other],
        };
        clouds.contains(&cloud)
    }
}

impl FromStr for Question {
    type Err = AdviseError;

    fn from_str(name: &str) -> Result<Self, AdviseError> {
        let found = Self::ALL.into_iter().find(|question| question.name() == name);
        found.ok_or_else(|| AdviseError::UnknownQuestion {
            name: name.to_owned(),
            nearest: data::nearest(name, Self::ALL.into_iter().map(Self::name)),
        })
    }
}
