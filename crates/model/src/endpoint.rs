// SPDX-License-Identifier: Apache-2.0
//! Pods and their attachments to the network.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{HostPort, Mac};

/// What the container runtime calls one attachment of a container to the network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EndpointId {
    /// The runtime's name of the sandbox, `CNI_CONTAINERID`.
    pub container_id: String,
    /// The interface inside the sandbox, `CNI_IFNAME`; mostly `eth0`.
    pub ifname: String,
}

/// A text that is not `<container>/<interface>`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an endpoint; <container ID>/<interface> is expected")]
pub struct ParseEndpointIdError(String);

/// A pod by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodRef {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's UID; empty when the runtime does not tell.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// A pod's attachment to this node's network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The runtime's name of it.
    pub id: EndpointId,
    /// Whose it is.
    pub pod: PodRef,
    /// Its addresses: at most one per family.
    pub ips: Vec<IpAddr>,
    /// The host end of its veth pair.
    pub host_ifname: String,
    /// The index of the host end.
    pub ifindex: u32,
    /// The hardware address of the pod's own end.
    pub mac: Mac,
    /// Where somebody limits its rate.
    #[serde(default, skip_serializing_if = "RateLimits::is_none")]
    pub limits: RateLimits,
    /// Another network made its devices and gave it its addresses; only programs and rows are ours.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopted: bool,
}

/// Where a pod's packets wait in a queue that is not ours, on the host end of its veth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimits {
    /// What it receives.
    pub ingress: bool,
    /// What it sends.
    pub egress: bool,
}

impl RateLimits {
    /// Whether nothing is limited.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        !self.ingress && !self.egress
    }

    /// Both together.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self {
            ingress: self.ingress || other.ingress,
            egress: self.egress || other.egress,
        }
    }
}

/// A pod that Kubernetes placed on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Its name.
    pub pod: PodRef,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it lives in the node's own network namespace and so has no endpoint.
    pub host_network: bool,
    /// The pool that its addresses come from, if it says so itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Ports of the node that lead to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<HostPort>,
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.container_id, self.ifname)
    }
}

impl FromStr for EndpointId {
    type Err = ParseEndpointIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((container, ifname))
                if !container.is_empty() && !ifname.is_empty() && !ifname.contains('/') =>
            {
                Ok(Self {
                    container_id: container.to_owned(),
                    ifname: ifname.to_owned(),
                })
            }
            _ => Err(ParseEndpointIdError(text.to_owned())),
        }
    }
}

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
