// SPDX-License-Identifier: Apache-2.0
//! Services and who is behind them.
//!
//! A cluster has tens of thousands of them, and each agent keeps all: names are shared, lists are boxed, and what few services have is
//! behind a pointer.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::Family;

/// The name of an object in its namespace. Copies share the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(Arc<str>);

impl ObjectName {
    /// Of its two parts.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self(format!("{namespace}/{name}").into())
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// The name within it.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or(&*self.0, |(_, name)| name)
    }

    /// Both, as `namespace/name`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What carries a service's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Transport {
    /// As Kubernetes writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }

    /// The number of the IP protocol.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// From how Kubernetes writes it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Sctp]
            .into_iter()
            .find(|one| one.name() == text)
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How a backend is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// At random.
    #[default]
    Random,
    /// By a hash of the connection, in a way that a change of backends moves few connections.
    Maglev,
}

/// Sizes that a lookup table of Maglev may have, as people write them and as numbers: primes, modulo which every number can be divided by.
pub const MAGLEV_SIZES: [(&str, u32); 10] = [
    ("251", 251),
    ("509", 509),
    ("1021", 1021),
    ("2039", 2039),
    ("4093", 4093),
    ("8191", 8191),
    ("16381", 16_381),
    ("32749", 32_749),
    ("65521", 65_521),
    ("131071", 131_071),
];

/// Which backends a service prefers (`trafficDistribution`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Distribution {
    /// None.
    #[default]
    Any,
    /// Those of the client's zone.
    SameZone,
    /// Those of the client's node, else those of its zone.
    SameNode,
}

/// A Service of Kubernetes as far as packets care. One without addresses of its own (headless, `ExternalName`) has none here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: ObjectName,
    /// Its UID.
    pub uid: Box<str>,
    /// When it was made: seconds since 1970.
    pub created: i64,
    /// Its addresses in the cluster: at most one per family.
    pub cluster_ips: Box<[IpAddr]>,
    /// Its ports.
    pub ports: Box<[ServicePort]>,
    /// How clients reach it from outside; most cannot.
    pub exposure: Option<Box<Exposure>>,
    /// For how many seconds a client keeps its backend; 0 if it does not.
    pub affinity_seconds: u32,
    /// Whether clients in the cluster get backends of their own node only (`internalTrafficPolicy: Local`).
    pub internal_local: bool,
    /// Whether backends count that are not ready.
    pub publish_not_ready: bool,
    /// Which backends it prefers.
    pub distribution: Distribution,
    /// How a backend is chosen, if the service says so itself.
    pub algorithm: Option<Algorithm>,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; empty where there is only one.
    pub name: Arc<str>,
    /// What it carries.
    pub transport: Transport,
    /// Its number; never 0.
    pub port: u16,
    /// The port on every node; 0 if there is none.
    pub node_port: u16,
}

/// How clients reach a service from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exposure {
    /// Addresses of load balancers.
    pub load_balancer_ips: Box<[IpAddr]>,
    /// Addresses that somebody else leads to the nodes.
    pub external_ips: Box<[IpAddr]>,
    /// Networks of clients that may use the load balancer; all, if there are none.
    pub source_ranges: Box<[IpNet]>,
    /// Whether they get backends of the node that they come to only (`externalTrafficPolicy: Local`).
    pub local: bool,
    /// Where the node answers whether it has a backend; 0 if it does not.
    pub health_check_port: u16,
}

/// A list of backends of a service; it may have several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Its name.
    pub name: ObjectName,
    /// Whose backends they are.
    pub service: ObjectName,
    /// The family of their addresses.
    pub family: Family,
    /// Where they listen.
    pub ports: Box<[SlicePort]>,
    /// Who they are.
    pub endpoints: Box<[SliceEndpoint]>,
}

/// Where the backends of a slice listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// The name of the service's port.
    pub name: Arc<str>,
    /// What it carries.
    pub transport: Transport,
    /// Their port; never 0.
    pub port: u16,
}

/// A backend in a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Its address.
    pub addr: IpAddr,
    /// Whether it serves.
    pub state: EndpointState,
    /// The node that it is on.
    pub node: Option<Arc<str>>,
    /// The zone that it is in.
    pub zone: Option<Arc<str>>,
    /// For whom it is meant.
    pub hints: Option<Box<Hints>>,
}

/// Whether a backend serves; the better, the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndpointState {
    /// It does not.
    NotReady,
    /// It ends, and serves until then if nobody else does.
    Terminating,
    /// It does.
    Ready,
}

impl EndpointState {
    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotReady => "not ready",
            Self::Terminating => "terminating",
            Self::Ready => "ready",
        }
    }
}

/// For whom a backend is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// Clients in these zones.
    pub zones: Box<[Arc<str>]>,
    /// Clients on these nodes.
    pub nodes: Box<[Arc<str>]>,
}

/// A port of a pod that is led to from its node's addresses.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HostPort {
    /// The node's address; nothing for all of them.
    pub addr: Option<IpAddr>,
    /// The node's port; never 0.
    pub port: u16,
    /// The pod's port; never 0.
    pub to: u16,
    /// The number of the IP protocol.
    pub proto: u8,
}
