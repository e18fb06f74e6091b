// SPDX-License-Identifier: Apache-2.0
//! Who claims which addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use model::Node;

use crate::{Device, Refusal};

/// Pod networks that do not overlap, and what they must not contain. A claim costs a few look-ups however many nodes
/// there are.
pub(crate) struct Claims {
    /// Disjoint networks by their first address.
    granted: BTreeMap<IpAddr, (IpNet, String)>,
    devices: Vec<(IpNet, String)>,
    nodes: BTreeMap<IpAddr, String>,
}

impl Claims {
    pub(crate) fn new<'a>(devices: &[Device], nodes: impl Iterator<Item = &'a Node>) -> Self {
        let networks = devices.iter().flat_map(|device| {
            let routed = device.addresses.iter().filter(|net| !is_local(net.addr()));
            routed.map(|net| (net.trunc(), device.name.clone()))
        });
        Self {
            granted: BTreeMap::new(),
            devices: networks.collect(),
            nodes: nodes
                .flat_map(|node| node.addresses.iter().map(|addr| (*addr, node.name.clone())))
                .collect(),
        }
    }

    /// Grants a network to a node unless somebody has it.
    pub(crate) fn claim(&mut self, node: &str, network: IpNet) -> Result<(), Refusal> {
        if let Some((device_network, device)) =
            self.devices.iter().find(|(other, _)| overlaps(other, &network))
        {
            return Err(Refusal::OverlapsDevice {
                device: device.clone(),
                network: *device_network,
            });
        }
        if let Some((address, node)) = self.nodes.range(network.network()..=network.broadcast()).next() {
            return Err(Refusal::ContainsNode {
                node: node.clone(),
                address: *address,
            });
        }
        if let Some((network, node)) = self.granted_overlap(&network) {
            return Err(Refusal::OverlapsNode {
                node: node.clone(),
                network: *network,
            });
        }
        self.granted.insert(network.network(), (network, node.to_owned()));
        Ok(())
    }

    /// Granted networks are disjoint, so only the last one that begins no later than `network` ends can overlap it.
    fn granted_overlap(&self, network: &IpNet) -> Option<&(IpNet, String)> {
        let (_, candidate) = self.granted.range(..=network.broadcast()).next_back()?;
        overlaps(&candidate.0, network).then_some(candidate)
    }
}

fn overlaps(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

fn is_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => addr.is_loopback() || addr.is_link_local(),
        IpAddr::V6(addr) => addr.is_loopback() || addr.is_unicast_link_local(),
    }
}
