// SPDX-License-Identifier: Apache-2.0
//! Who has frontends, and how many there are.

use std::net::IpAddr;

use model::{HostPort, ObjectName};

/// Who has frontends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// A service.
    Service(ObjectName),
    /// A pod of this node, with ports of the node.
    Pod(ObjectName),
}

impl Owner {
    pub(crate) const fn is_pod(&self) -> bool {
        matches!(self, Self::Pod(_))
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &ObjectName {
        match self {
            Self::Service(name) | Self::Pod(name) => name,
        }
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Service(name) => write!(f, "service {name}"),
            Self::Pod(name) => write!(f, "pod {name}"),
        }
    }
}

/// A pod's addresses and the ports of the node that lead there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodPorts {
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// The ports.
    pub ports: Vec<HostPort>,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Services and pods with a frontend.
    pub owners: usize,
    /// Frontends.
    pub frontends: usize,
    /// Slots.
    pub backends: usize,
    /// Services and pods of whose frontends not all are in force.
    pub refused: usize,
    /// Those whose rows could not be written.
    pub failed: usize,
}
