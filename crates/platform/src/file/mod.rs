// SPDX-License-Identifier: Apache-2.0
//! `platform.yaml`: what the user says about the clusters.
//!
//! [`Platform::parse`] refuses what cannot be meant, with everything that is wrong at once; what it returns is valid
//! in itself. Whether it fits together as addresses is [`crate::address`]'s matter.

mod check;
mod limits;
mod parse;
mod read;
#[cfg(test)]
mod tests;

use std::fmt;

use ipnet::Ipv4Net;
use serde::Serialize;

pub use read::Problem;
pub(crate) use read::{Problems, nearest};

/// The largest platform file, in bytes.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// The most clusters of one file.
pub const CLUSTERS_MAX: usize = 1000;

/// Everything that is wrong with a platform file; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The problems in the order of their discovery.
    pub problems: Vec<Problem>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [problem] => write!(f, "the platform file is wrong: {problem}"),
            problems => {
                write!(f, "the platform file is wrong in {} places:", problems.len())?;
                problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

impl std::error::Error for Refused {}

/// A valid platform file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Platform {
    /// Its name; a prefix of what is made in the clouds.
    pub name: String,
    /// Where addresses come from.
    pub pools: Pools,
    /// Networks in use elsewhere, which nothing may overlap.
    pub reserved: Vec<Ipv4Net>,
    /// How clusters' networks reach each other.
    pub mesh: Connect,
    /// Where the tree for Argo CD will be.
    pub gitops: Option<GitOps>,
    /// The clusters in the order of the file.
    pub clusters: Vec<Cluster>,
}

/// Where addresses come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pools {
    /// Of VPCs, VNets and machines.
    pub networks: Vec<Ipv4Net>,
    /// Of pods that do not have addresses of their network.
    pub pods: Vec<Ipv4Net>,
    /// Of services.
    pub services: Vec<Ipv4Net>,
}

/// How clusters' networks reach each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Connect {
    /// Not at all.
    #[default]
    None,
    /// A peering of each pair; within one cloud.
    Peering,
    /// A transit gateway per region, peered with each other; AWS.
    TransitGateway,
}

/// Where the tree for Argo CD will be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GitOps {
    /// The Git repository that holds the rendered tree.
    pub repository: String,
    /// Its branch, tag or commit.
    pub revision: String,
    /// Where our chart is: an OCI or Helm repository.
    pub chart_repository: String,
    /// The chart's version.
    pub chart_version: String,
}

/// Who the machines are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cloud {
    /// EKS.
    Aws,
    /// AKS.
    Azure,
    /// GKE.
    Gcp,
    /// Machines that are there already; kubeadm.
    Machines,
}

/// Who owns pod addresses and how packets travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// AWS: pods have addresses of ENIs.
    Eni,
    /// AWS: the same by /28 prefixes.
    EniPrefix,
    /// Pods have addresses of a pool of their own, tunnels between nodes.
    Overlay,
    /// Azure: Azure CNI Overlay owns addresses, Thalweg forwards. The fabric routes the pod CIDR; nothing is encapsulated.
    Delegated,
    /// The network below routes each node's pod CIDR: GKE's alias ranges, or machines on one segment.
    PodCidr,
}

/// How packets leave the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Egress {
    /// A NAT gateway in each zone.
    NatPerZone,
    /// One NAT gateway; its zone is a single point of failure.
    Nat,
    /// The cloud's firewall, by routes; Azure.
    Firewall,
    /// The cluster's load balancer; Azure's default.
    LoadBalancer,
    /// What the machines have.
    Existing,
}

/// Availability zones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Zones {
    /// The first so many that the account has.
    Count(u32),
    /// These.
    Named(Vec<String>),
}

impl Zones {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        match self {
            Self::Count(count) => *count,
            Self::Named(names) => u32::try_from(names.len()).unwrap_or(u32::MAX),
        }
    }
}

/// Where a cluster's workloads get cloud permissions from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Identity {
    /// EKS Pod Identity.
    #[default]
    PodIdentity,
    /// IAM roles for service accounts, by the cluster's OIDC issuer.
    Irsa,
}

/// What is switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Features {
    /// Services without kube-proxy.
    pub kube_proxy_replacement: bool,
    /// Flows by the Hubble API.
    pub hubble: bool,
    /// What tunnels speak, in overlay mode.
    pub tunnel: Tunnel,
    /// BGP to the fabric.
    pub bgp: bool,
}

/// What tunnels speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tunnel {
    /// VXLAN, UDP port 8472.
    #[default]
    Vxlan,
    /// Geneve, UDP port 6081.
    Geneve,
}

/// A Kubernetes minor version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u32, pub u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    /// Its name, unique in the file.
    pub name: String,
    /// Who the machines are from.
    pub cloud: Cloud,
    /// The cloud's region.
    pub region: String,
    /// Who owns pod addresses.
    pub mode: Mode,
    /// Kubernetes' minor version.
    pub kubernetes: Version,
    /// Availability zones.
    pub zones: Zones,
    /// The VPC or VNet, where the user fixed it.
    pub network: Option<Ipv4Net>,
    /// The size of the VPC or VNet, where the user fixed that only.
    pub network_prefix: Option<u8>,
    /// The pods' network, where the user fixed it.
    pub pods: Option<Ipv4Net>,
    /// The services' network, where the user fixed it.
    pub services: Option<Ipv4Net>,
    /// The length of a node's part of the pods' network.
    pub node_mask: u8,
    /// The most pods of a node.
    pub pods_per_node: Option<u32>,
    /// Whether the API is reachable from inside only.
    pub private: bool,
    /// How packets leave.
    pub egress: Egress,
    /// Where permissions come from.
    pub identity: Identity,
    /// What is switched on.
    pub features: Features,
    /// Groups of nodes.
    pub node_groups: Vec<NodeGroup>,
    /// The API's address, of machines.
    pub endpoint: Option<String>,
}

impl Cluster {
    /// The most nodes that all groups together may have.
    #[must_use]
    pub fn nodes_max(&self) -> u32 {
        self.node_groups.iter().map(|group| group.max).sum()
    }

    /// Whether pods have addresses of the cluster's own network.
    #[must_use]
    pub fn pods_in_network(&self) -> bool {
        matches!(self.mode, Mode::Eni | Mode::EniPrefix)
    }
}

/// Nodes of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeGroup {
    /// Its name, unique in the cluster.
    pub name: String,
    /// Instance types, VM sizes or machine types.
    pub instance_types: Vec<String>,
    /// The fewest nodes.
    pub min: u32,
    /// The most nodes.
    pub max: u32,
    /// Nodes to begin with.
    pub desired: u32,
    /// Whether they may be taken away at any time.
    pub spot: bool,
}

macro_rules! words {
    ($type:ty { $($variant:ident => $word:literal),+ $(,)? }) => {
        impl $type {
            /// All, by the word that the file has for it.
            pub(crate) const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$variant)),+];
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $(Self::$variant => $word),+ })
            }
        }
    };
}

words!(Cloud { Aws => "aws", Azure => "azure", Gcp => "gcp", Machines => "machines" });
words!(Mode {
    Eni => "eni",
    EniPrefix => "eni-prefix",
    Overlay => "overlay",
    Delegated => "delegated",
    PodCidr => "pod-cidr",
});
words!(Egress {
    NatPerZone => "nat-per-zone",
    Nat => "nat",
    Firewall => "firewall",
    LoadBalancer => "load-balancer",
    Existing => "existing",
});
words!(Connect { None => "none", Peering => "peering", TransitGateway => "transit-gateway" });
words!(Identity { PodIdentity => "pod-identity", Irsa => "irsa" });
words!(Tunnel { Vxlan => "vxlan", Geneve => "geneve" });
