// SPDX-License-Identifier: Apache-2.0
//! Which routes a node needs: pure.
//!
//! [`plan`] looks at the nodes of the cluster and at this node's devices and decides, for every pod network of every
//! node, which [`Way`] leads there, or why none may.
//!
//! Nothing here reads or writes a routing table; what a plan says is carried out elsewhere.

mod overlap;

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use model::{Family, Node};

use overlap::Claims;

/// A network device of this node, not counting those of pods and our own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The kernel's number for it.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its addresses, each with the prefix length of its subnet.
    pub addresses: Vec<IpNet>,
}

/// What a plan depends on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// This node's name.
    pub own_name: &'a str,
    /// This node's devices towards the world.
    pub devices: &'a [Device],
    /// How pods' packets get to other nodes.
    pub mode: Mode,
}

/// How pods' packets get to other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The network between the nodes carries pod addresses.
    Native {
        /// Whether nodes on a segment with this one get a direct route.
        direct: bool,
    },
    /// From node to node in packets of the nodes' own.
    Tunnel {
        /// The family of these packets; nothing for that of each node's first address that this node has too.
        underlay: Option<Family>,
    },
}

/// The way to a node's pod network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// The pods are on this node.
    Local {
        /// The address that this host uses towards its pods.
        source: Option<IpAddr>,
    },
    /// The node is on a segment with this one.
    Direct {
        /// The node's address there.
        gateway: IpAddr,
        /// The index of the device to that segment.
        device: u32,
        /// That device's name.
        device_name: String,
    },
    /// Through the tunnel to a node.
    Tunnel {
        /// The node's underlay address.
        node: IpAddr,
        /// The address that this host uses towards pods there.
        source: Option<IpAddr>,
    },
    /// This node's other routes lead there, mostly the default route: the network knows the way.
    Network,
    /// There must not be a route.
    Refused(Refusal),
}

/// Why a pod network gets no route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Two nodes claim the same addresses.
    OverlapsNode {
        /// The other node's name.
        node: String,
        /// What it claims.
        network: IpNet,
    },
    /// A device of this node is in the same network.
    OverlapsDevice {
        /// The device.
        device: String,
        /// Its network.
        network: IpNet,
    },
    /// A node's own address is inside.
    ContainsNode {
        /// The node's name.
        node: String,
        /// Its address.
        address: IpAddr,
    },
    /// Node and this node have no family in common that a tunnel could be of.
    NoTunnel {
        /// The node's name.
        node: String,
        /// The family that is asked for, if any.
        underlay: Option<Family>,
    },
}

/// What a plan says about one pod network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Whose pods.
    pub node: String,
    /// The pod network.
    pub destination: IpNet,
    /// The way there.
    pub way: Way,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OverlapsNode { node, network } => write!(
                f,
                "overlaps {network} of node {node}; change spec.podCIDRs of one of the two (delete and re-create the node)"
            ),
            Self::OverlapsDevice { device, network } => {
                write!(
                    f,
                    "overlaps {network} on device {device}; choose another cluster CIDR or renumber the device"
                )
            }
            Self::ContainsNode { node, address } => {
                write!(
                    f,
                    "contains {address}, the address of node {node}; choose another cluster CIDR"
                )
            }
            Self::NoTunnel {
                node,
                underlay: Some(family),
            } => write!(
                f,
                "node {node} and this one do not both have an {family} address for the tunnel; change underlayProtocol or \
                 give them one (status.addresses, InternalIP)"
            ),
            Self::NoTunnel { node, underlay: None } => write!(
                f,
                "node {node} has no address of a family that this node has too; see status.addresses (InternalIP) of both"
            ),
        }
    }
}

/// Decides the way to every pod network. Where two overlap, this node's own wins, then the first by the node's name,
/// so that all nodes agree and a newcomer does not take over the traffic of its elders on this one.
///
/// The result is in the order of the nodes given.
#[must_use]
pub fn plan<'a>(input: &Input<'_>, nodes: impl Iterator<Item = &'a Node> + Clone) -> Vec<Row> {
    let mut claims = Claims::new(input.devices, nodes.clone());
    let own = nodes.clone().find(|node| node.name == input.own_name);
    let own_rows: Vec<Row> = own.map_or_else(Vec::new, |node| rows(input, own, node, &mut claims));
    let mut result = Vec::new();
    for node in nodes {
        if node.name == input.own_name {
            result.extend_from_slice(&own_rows);
        } else {
            result.extend(rows(input, own, node, &mut claims));
        }
    }
    result
}

fn rows(input: &Input<'_>, own: Option<&Node>, node: &Node, claims: &mut Claims) -> Vec<Row> {
    let row = |destination: &IpNet| {
        let way = match claims.claim(&node.name, *destination) {
            Err(refusal) => Way::Refused(refusal),
            Ok(()) if node.name == input.own_name => local(input, node, *destination),
            Ok(()) => remote(input, own, node, *destination),
        };
        Row {
            node: node.name.clone(),
            destination: *destination,
            way,
        }
    };
    node.pod_cidrs.iter().map(row).collect()
}

fn local(input: &Input<'_>, node: &Node, destination: IpNet) -> Way {
    Way::Local {
        source: source(input, node, Family::of_net(&destination)),
    }
}

/// The node's own address, unless this machine does not hold it, as behind some clouds' address translation: the kernel
/// refuses such a source.
fn source(input: &Input<'_>, own: &Node, family: Family) -> Option<IpAddr> {
    let mut held = input.devices.iter().flat_map(|device| &device.addresses);
    own.address(family)
        .filter(|addr| held.any(|net| net.addr() == *addr))
}

fn remote(input: &Input<'_>, own: Option<&Node>, node: &Node, destination: IpNet) -> Way {
    match input.mode {
        Mode::Native { direct } => native(input, direct, node, destination),
        Mode::Tunnel { underlay } => match tunnel_end(input.devices, underlay, node) {
            Some(end) => Way::Tunnel {
                node: end,
                source: own.and_then(|own| source(input, own, Family::of_net(&destination))),
            },
            None => Way::Refused(Refusal::NoTunnel {
                node: node.name.clone(),
                underlay,
            }),
        },
    }
}

/// The address of a node that tunnels to it end at.
#[must_use]
pub fn tunnel_end(devices: &[Device], underlay: Option<Family>, node: &Node) -> Option<IpAddr> {
    let has = |family| {
        let mut nets = devices.iter().flat_map(|device| &device.addresses);
        nets.any(|net| Family::of_net(net) == family)
    };
    let wanted = |family| underlay.is_none_or(|underlay| underlay == family) && has(family);
    node.addresses
        .iter()
        .copied()
        .find(|addr| wanted(Family::of(addr)))
}

fn native(input: &Input<'_>, direct: bool, node: &Node, destination: IpNet) -> Way {
    let family = Family::of_net(&destination);
    let candidates = node
        .addresses
        .iter()
        .filter(|addr| direct && Family::of(addr) == family);
    let direct = candidates
        .copied()
        .find_map(|gateway| Some((gateway, segment(input.devices, gateway)?)));
    direct.map_or(Way::Network, |(gateway, device)| Way::Direct {
        gateway,
        device: device.index,
        device_name: device.name.clone(),
    })
}

/// The device whose subnet an address is in; the narrowest subnet wins.
fn segment(devices: &[Device], addr: IpAddr) -> Option<&Device> {
    let prefix = |device: &Device| {
        let on_link = device.addresses.iter().filter(|net| {
            net.prefix_len() < net.max_prefix_len() && net.contains(&addr) && net.addr() != addr
        });
        on_link.map(IpNet::prefix_len).max()
    };
    devices
        .iter()
        .filter_map(|device| Some((prefix(device)?, device)))
        .max_by_key(|(prefix, device)| (*prefix, std::cmp::Reverse(device.index)))
        .map(|(_, device)| device)
}

#[cfg(test)]
mod tests;
