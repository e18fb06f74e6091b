// SPDX-License-Identifier: Apache-2.0
//! Where we are, and what is decided once.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use model::Algorithm;

/// What is decided once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How backends are chosen where the service does not say.
    pub algorithm: Algorithm,
    /// Slots of a lookup table: one of [`model::MAGLEV_SIZES`].
    pub maglev_size: u32,
    /// Whether packets vanish where there is no backend.
    pub silent: bool,
    /// The ports on every node, both ends included.
    pub node_ports: (u16, u16),
    /// The node's addresses that these are at: those in one of the networks; all, if there are none.
    pub node_port_networks: Vec<IpNet>,
    /// Ticks of the kernel's clock in a second.
    pub hz: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::Random,
            maglev_size: model::MAGLEV_SIZES[0].1,
            silent: false,
            node_ports: (30_000, 32_767),
            node_port_networks: Vec::new(),
            hz: 1000,
        }
    }
}

/// Where we are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// This node's name.
    pub name: String,
    /// Its zone.
    pub zone: Option<String>,
    /// All its addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Addresses of all nodes.
    pub nodes: BTreeSet<IpAddr>,
    /// Networks of pods.
    pub pod_networks: Networks,
}

/// Networks of which none is within another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(pub(crate) BTreeSet<IpNet>);

impl FromIterator<IpNet> for Networks {
    fn from_iter<I: IntoIterator<Item = IpNet>>(nets: I) -> Self {
        Self(nets.into_iter().collect())
    }
}

impl Networks {
    /// The one that an address is in.
    #[must_use]
    pub fn containing(&self, addr: IpAddr) -> Option<IpNet> {
        let last = self.0.range(..=IpNet::from(addr)).next_back()?;
        last.contains(&addr).then_some(*last)
    }
}
