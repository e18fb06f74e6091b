// SPDX-License-Identifier: Apache-2.0
//! What clients connect to, and who answers.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use datapath_common::service::{Backend, MemberKey, ServiceKey};
use datapath_common::{Addr, Be16};
use model::Transport;

/// What clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// The address.
    pub addr: IpAddr,
    /// The port.
    pub port: u16,
    /// What it carries.
    pub transport: Transport,
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The address.
    pub addr: IpAddr,
    /// The port.
    pub port: u16,
}

/// Why a service answers at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Its own in the cluster.
    ClusterIp,
    /// That of a load balancer.
    LoadBalancer,
    /// One that somebody else leads to the nodes.
    ExternalIp,
    /// This node's, at the service's port on every node.
    NodePort,
    /// This node's, at a port that a pod asks for.
    HostPort,
}

impl Kind {
    /// Who has a frontend that several want, before their age counts: what the API server gives out comes before what anybody may write
    /// into a Service.
    pub(crate) const fn rank(self) -> u8 {
        match self {
            Self::ClusterIp => 0,
            Self::NodePort => 1,
            Self::LoadBalancer => 2,
            Self::ExternalIp => 3,
            Self::HostPort => 4,
        }
    }

    /// As Kubernetes calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClusterIp => "ClusterIP",
            Self::LoadBalancer => "LoadBalancer",
            Self::ExternalIp => "ExternalIP",
            Self::NodePort => "NodePort",
            Self::HostPort => "HostPort",
        }
    }
}

impl Frontend {
    /// Of a row; nothing if nobody here would write such a one.
    #[must_use]
    pub fn of(key: &ServiceKey) -> Option<Self> {
        let all = [Transport::Tcp, Transport::Udp, Transport::Sctp];
        let transport = all.into_iter().find(|one| one.number() == key.proto)?;
        Some(Self {
            addr: key.addr.to_ip(),
            port: key.port.get(),
            transport,
        })
    }

    /// The row's key.
    #[must_use]
    pub fn key(&self) -> ServiceKey {
        ServiceKey {
            addr: self.addr.into(),
            port: Be16::new(self.port),
            proto: self.transport.number(),
            _pad: [0; 5],
        }
    }
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}/{}", SocketAddr::new(self.addr, self.port), self.transport);
        f.pad(&text)
    }
}

impl Target {
    pub(crate) fn row(&self) -> Backend {
        Backend {
            addr: self.addr.into(),
            port: Be16::new(self.port),
            _pad: [0; 6],
        }
    }

    pub(crate) fn member(&self, set: u32) -> MemberKey {
        MemberKey {
            addr: self.addr.into(),
            set,
            port: Be16::new(self.port),
            _pad: 0,
        }
    }

    pub(crate) fn of(addr: Addr, port: Be16) -> Self {
        Self {
            addr: addr.to_ip(),
            port: port.get(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&SocketAddr::new(self.addr, self.port).to_string())
    }
}
