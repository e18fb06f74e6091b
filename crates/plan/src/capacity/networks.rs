// SPDX-License-Identifier: Apache-2.0
//! Which network has which mode, and what each takes of a node's addresses for itself.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Mode;

/// A network for pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// This one.
    Thalweg,
    /// The Amazon VPC CNI.
    VpcCni,
    /// Cilium, installed by oneself.
    Cilium,
    /// Azure CNI, with or without Microsoft's Cilium.
    Azure,
    /// GKE's own network.
    Gke,
}

/// Addresses that a network keeps for itself, out of those for pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Taken {
    /// How many.
    pub addresses: u32,
    /// What for.
    pub what: &'static str,
    /// How it is known.
    pub source: &'static str,
}

/// Cilium waits for two addresses before a node is ready.
const CILIUM: [Taken; 2] = [
    Taken {
        addresses: 1,
        what: "cilium_host, the router",
        source: "cilium#17280: the agent requires 2 addresses; inferred from its log",
    },
    Taken {
        addresses: 1,
        what: "the node's health endpoint",
        source: "cilium#17280; not taken when endpoint health checking is off",
    },
];

impl Network {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Thalweg, Self::VpcCni, Self::Cilium, Self::Azure, Self::Gke];

    /// The name on the command line and in files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Thalweg => "thalweg",
            Self::VpcCni => "vpc-cni",
            Self::Cilium => "cilium",
            Self::Azure => "azure",
            Self::Gke => "gke",
        }
    }

    /// The modes it has.
    #[must_use]
    pub fn modes(self) -> Vec<Mode> {
        Mode::ALL.into_iter().filter(|mode| self.has(*mode)).collect()
    }

    /// Whether it has a mode.
    #[must_use]
    pub fn has(self, mode: Mode) -> bool {
        match self {
            Self::Thalweg => true,
            Self::VpcCni => matches!(mode, Mode::Eni | Mode::EniPrefix),
            Self::Cilium => !matches!(mode, Mode::EniOverflow | Mode::AzureNodeSubnet),
            Self::Azure => matches!(
                mode,
                Mode::AzureOverlay | Mode::AzurePodSubnet | Mode::AzureNodeSubnet
            ),
            Self::Gke => mode == Mode::Gke,
        }
    }

    /// What it takes of a node's addresses for itself. Thalweg takes none: a pod's gateway is a link-local address, and
    /// health is asked at the node's own address. Where IPAM is a cloud's, nothing is taken either.
    #[must_use]
    pub fn takes(self, mode: Mode) -> Vec<Taken> {
        let own_addresses = matches!(
            mode,
            Mode::Eni | Mode::EniPrefix | Mode::EniOverflow | Mode::Overlay | Mode::PodCidr | Mode::Gke
        );
        if self == Self::Cilium && own_addresses {
            CILIUM.to_vec()
        } else {
            Vec::new()
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no network has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no network is called `{0}`; there are thalweg, vpc-cni, cilium, azure, gke")]
pub struct UnknownNetwork(pub String);

impl FromStr for Network {
    type Err = UnknownNetwork;

    fn from_str(name: &str) -> Result<Self, UnknownNetwork> {
        let found = Self::ALL.into_iter().find(|network| network.name() == name);
        found.ok_or_else(|| UnknownNetwork(name.to_owned()))
    }
}
