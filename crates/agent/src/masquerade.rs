// SPDX-License-Identifier: Apache-2.0
//! Masquerading: which address of the node pods' connections to the world have, and keeping its ports free for them.

use std::net::IpAddr;

use datapath::Masquerade as Wanted;
use datapath::common::nat::Ports;
use ipnet::IpNet;
use model::{Family, Node};
use netlink::sysctl;
use routing::Device;

/// Ports that the kernel gives to no socket by itself.
const RESERVED_PORTS: &str = "net/ipv4/ip_local_reserved_ports";
/// Ports that it gives.
const LOCAL_PORTS: &str = "net/ipv4/ip_local_port_range";

/// What is masqueraded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masquerade {
    /// IPv4 is.
    pub ipv4: bool,
    /// IPv6 is.
    pub ipv6: bool,
    /// Whether services are served, of either family: what goes on to another node's backend has the node's address.
    pub services: bool,
    /// Destinations that are not.
    pub excluded: Vec<IpNet>,
    /// The ports of the node that connections get.
    pub ports: Ports,
}

/// The ports could not be reserved.
#[derive(Debug, thiserror::Error)]
#[error(
    "{source}; ports {first}-{last} are for masqueraded connections, and the node's own might get them too: mount /proc/sys writable, \
     or set net.ipv4.ip_local_reserved_ports={first}-{last} on the node, or a range outside of net.ipv4.ip_local_port_range in \
     masquerade.portRange"
)]
pub struct ReserveError {
    first: u16,
    last: u16,
    source: netlink::Error,
}

impl Masquerade {
    /// Whether pods' connections to the world have the node's address, of any family.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.ipv4 || self.ipv6
    }

    /// The addresses to masquerade to: the node's own as Kubernetes knows them, else the first of an underlay device.
    ///
    /// Of a family that the node does not have, there is none; what lacks is named if `pods`, the families of the node's pools,
    /// need it.
    #[must_use]
    pub fn wanted(&self, node: Option<&Node>, underlay: &[Device], pods: &[Family]) -> (Wanted, Vec<String>) {
        let mut problems = Vec::new();
        let mut address = |on: bool, family: Family| {
            let found = (on || self.services).then(|| own_address(family, node, underlay))?;
            if found.is_none() && on && family == Family::Ipv4 && pods.contains(&family) {
                problems.push(
                    "the node has no IPv4 address to masquerade to: what pods send to the world has their own; see Node.status.addresses \
                     and the setting devices, or set enableIPv4Masquerade to false"
                        .to_owned(),
                );
            }
            found
        };
        let addresses = [address(self.ipv4, Family::Ipv4), address(self.ipv6, Family::Ipv6)];
        let wanted = Wanted {
            addresses,
            ports: self.ports,
            world: [self.ipv4, self.ipv6],
        };
        (wanted, problems)
    }
}

fn own_address(family: Family, node: Option<&Node>, underlay: &[Device]) -> Option<IpAddr> {
    let here = || {
        let nets = underlay.iter().flat_map(|device| &device.addresses);
        nets.map(IpNet::addr).filter(move |ip| Family::of(ip) == family)
    };
    let named = node.and_then(|node| node.address(family));
    // An address that a load balancer or a gateway has for the node is not one that answers come to.
    named
        .filter(|ip| here().any(|own| own == *ip))
        .or_else(|| here().next())
}

/// Keeps the kernel from giving the ports to the node's own sockets. What is reserved already stays so.
///
/// # Errors
/// When the setting cannot be made, and the kernel would give some of them.
pub fn reserve(ports: Ports) -> Result<(), ReserveError> {
    let failed = |source| ReserveError {
        first: ports.first,
        last: ports.last,
        source,
    };
    let local = sysctl::read(LOCAL_PORTS).map_err(failed)?;
    let reserved = sysctl::read(RESERVED_PORTS).map_err(failed)?;
    match with_reserved(&local, &reserved, ports) {
        Some(wanted) => sysctl::write(RESERVED_PORTS, &wanted).map_err(failed),
        None => Ok(()),
    }
}

/// The list of reserved ports with these; nothing if it may stay as it is.
fn with_reserved(local: &str, reserved: &str, ports: Ports) -> Option<String> {
    let bounds: Vec<u16> = local
        .split_whitespace()
        .filter_map(|port| port.parse().ok())
        .collect();
    let given = |port: &u16| match bounds.as_slice() {
        [first, last] => (first..=last).contains(&port),
        _ => true,
    };
    let ranges: Vec<(u16, u16)> = reserved.split(',').filter_map(range).collect();
    let kept = |port: &u16| ranges.iter().any(|(first, last)| (first..=last).contains(&port));
    if (ports.first..=ports.last).all(|port| kept(&port) || !given(&port)) {
        return None;
    }
    let new = format!("{}-{}", ports.first, ports.last);
    Some(if reserved.is_empty() {
        new
    } else {
        format!("{reserved},{new}")
    })
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: Ports = Ports::DEFAULT;
    const BOTH: [Family; 2] = [Family::Ipv4, Family::Ipv6];

    #[test]
    fn ports_are_reserved_once_and_beside_others() {
        let local = "32768\t60999";
        assert_eq!(with_reserved(local, "", PORTS).unwrap(), "49152-65535");
        assert_eq!(
            with_reserved(local, "8080,9000-9100", PORTS).unwrap(),
            "8080,9000-9100,49152-65535"
        );
        assert_eq!(with_reserved(local, "8080,49000-65535", PORTS), None);
        assert_eq!(
            with_reserved("1024\t49151", "", PORTS),
            None,
            "the kernel gives none of them"
        );
    }

    #[test]
    fn the_nodes_own_address_is_taken_where_the_node_has_it() {
        let device = |addresses: &[&str]| Device {
            index: 2,
            name: "eth0".into(),
            addresses: addresses.iter().map(|net| net.parse().unwrap()).collect(),
        };
        let node = |addresses: &[&str]| Node {
            name: "a".into(),
            addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
            pod_cidrs: Vec::new(),
            zone: None,
        };
        let masquerade = Masquerade {
            ipv4: true,
            ipv6: true,
            services: false,
            excluded: Vec::new(),
            ports: PORTS,
        };
        let underlay = [device(&["192.0.2.1/24", "192.0.2.2/24"])];
        let (wanted, problems) = masquerade.wanted(Some(&node(&["192.0.2.2"])), &underlay, &BOTH);
        assert_eq!(wanted.addresses, [Some("192.0.2.2".parse().unwrap()), None]);
        assert!(problems.is_empty(), "a node without IPv6 is none");
        let (wanted, _) = masquerade.wanted(Some(&node(&["203.0.113.9"])), &underlay, &BOTH);
        assert_eq!(
            wanted.addresses[0],
            Some("192.0.2.1".parse().unwrap()),
            "that one is elsewhere"
        );
        let (wanted, problems) = masquerade.wanted(None, &[], &BOTH);
        assert_eq!((wanted.addresses, problems.len()), ([None, None], 1));
        let (_, problems) = masquerade.wanted(None, &[], &[Family::Ipv6]);
        assert!(problems.is_empty(), "nobody needs one");
    }
}
