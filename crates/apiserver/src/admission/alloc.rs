// SPDX-License-Identifier: Apache-2.0
//! ClusterIPs and NodePorts: who has which, and which comes next.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use serde_json::Value;

use crate::config::ServiceCidrs;
use crate::store::Key;
use crate::value::Json;

/// An address family, as `ipFamilies` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    pub(crate) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// How much of an IPv6 service network is used; more is never needed and makes no sense to count.
const V6_ADDRESSES: u32 = 1 << 20;

/// What services have been given. It follows the store: a write of a service claims, its removal releases.
#[derive(Debug)]
pub(crate) struct Allocator {
    cidrs: ServiceCidrs,
    node_ports: RangeInclusive<u16>,
    addresses: BTreeMap<IpAddr, Key>,
    ports: BTreeMap<u16, Key>,
    owned: BTreeMap<Key, (Vec<IpAddr>, Vec<u16>)>,
    /// Where the last address of each family and the last port were found: what has just been released is not given out at
    /// once, so a client with an old answer does not reach a new service.
    last: (u32, u32, u16),
}

impl Allocator {
    pub(crate) fn new(cidrs: ServiceCidrs, node_ports: RangeInclusive<u16>) -> Self {
        let last_port = node_ports.start().wrapping_sub(1);
        Self {
            cidrs,
            node_ports,
            addresses: BTreeMap::new(),
            ports: BTreeMap::new(),
            owned: BTreeMap::new(),
            last: (0, 0, last_port),
        }
    }

    /// The cluster's families, the primary one first.
    pub(crate) fn families(&self) -> &'static [Family] {
        match self.cidrs {
            ServiceCidrs::V4(_) => &[Family::V4],
            ServiceCidrs::V6(_) => &[Family::V6],
            ServiceCidrs::Dual(..) => &[Family::V4, Family::V6],
        }
    }

    /// Whether an address is in one of the service networks and can be given to a service.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match (self.cidrs, address) {
            (ServiceCidrs::V4(net) | ServiceCidrs::Dual(net, _), IpAddr::V4(a)) => {
                net.contains(&a) && a != net.network() && a != net.broadcast()
            }
            (ServiceCidrs::V6(net) | ServiceCidrs::Dual(_, net), IpAddr::V6(a)) => {
                net.contains(&a) && a != net.network()
            }
            (ServiceCidrs::V4(_), IpAddr::V6(_)) | (ServiceCidrs::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// The network of a family, as text for messages.
    pub(crate) fn network(&self, family: Family) -> String {
        match (self.cidrs, family) {
            (ServiceCidrs::V4(net) | ServiceCidrs::Dual(net, _), Family::V4) => net.to_string(),
            (ServiceCidrs::V6(net) | ServiceCidrs::Dual(_, net), Family::V6) => net.to_string(),
            (ServiceCidrs::V4(_), Family::V6) | (ServiceCidrs::V6(_), Family::V4) => String::new(),
        }
    }

    pub(crate) fn port_range(&self) -> &RangeInclusive<u16> {
        &self.node_ports
    }

    /// Whether somebody else than `key` has this address.
    pub(crate) fn address_taken(&self, address: IpAddr, key: &Key) -> bool {
        self.addresses.get(&address).is_some_and(|owner| owner != key)
    }

    /// Whether somebody else than `key` has this port.
    pub(crate) fn port_taken(&self, port: u16, key: &Key) -> bool {
        self.ports.get(&port).is_some_and(|owner| owner != key)
    }

    /// A free address; `None` when the family is not the cluster's or its network is full.
    pub(crate) fn next_address(&mut self, family: Family) -> Option<IpAddr> {
        let (count, nth): (u32, Box<dyn Fn(u32) -> IpAddr>) = match (self.cidrs, family) {
            (ServiceCidrs::V4(net) | ServiceCidrs::Dual(net, _), Family::V4) => {
                let base = u32::from(net.network());
                let count = u32::from(net.broadcast()).saturating_sub(base).saturating_sub(1);
                (
                    count,
                    Box::new(move |i| Ipv4Addr::from(base.wrapping_add(i)).into()),
                )
            }
            (ServiceCidrs::V6(net) | ServiceCidrs::Dual(_, net), Family::V6) => {
                let base = u128::from(net.network());
                let size = 1_u128
                    .checked_shl(128 - u32::from(net.prefix_len()))
                    .unwrap_or(u128::MAX);
                let count = u32::try_from(size - 1).unwrap_or(V6_ADDRESSES).min(V6_ADDRESSES);
                (
                    count,
                    Box::new(move |i| Ipv6Addr::from(base + u128::from(i)).into()),
                )
            }
            (ServiceCidrs::V4(_), Family::V6) | (ServiceCidrs::V6(_), Family::V4) => return None,
        };
        let last = if family == Family::V4 {
            &mut self.last.0
        } else {
            &mut self.last.1
        };
        let start = *last;
        let free = (0..count)
            .map(|i| (start + i) % count + 1)
            .find(|i| !self.addresses.contains_key(&nth(*i)))?;
        *last = free;
        Some(nth(free))
    }

    /// A free port that is not in `but` either.
    pub(crate) fn next_port(&mut self, but: &[u16]) -> Option<u16> {
        let (first, last) = (
            u32::from(*self.node_ports.start()),
            u32::from(*self.node_ports.end()),
        );
        let count = last.checked_sub(first)? + 1;
        let start = u32::from(self.last.2).wrapping_add(1).wrapping_sub(first) % count;
        let mut candidates = (0..count).filter_map(|i| u16::try_from(first + (start + i) % count).ok());
        let port = candidates.find(|p| !self.ports.contains_key(p) && !but.contains(p))?;
        self.last.2 = port;
        Some(port)
    }

    /// Makes what a service has its own.
    pub(crate) fn claim(&mut self, key: &Key, service: &Value) {
        self.release(key);
        let addresses: Vec<IpAddr> = service
            .list_at("/spec/clusterIPs")
            .iter()
            .filter_map(|v| v.as_str()?.parse().ok())
            .collect();
        let number = |v: &Value| v.as_u64().and_then(|n| u16::try_from(n).ok()).filter(|p| *p != 0);
        let mut ports: Vec<u16> = service
            .list_at("/spec/ports")
            .iter()
            .filter_map(|p| number(p.get("nodePort")?))
            .collect();
        ports.extend(number(service.at("/spec/healthCheckNodePort")));
        for address in &addresses {
            self.addresses.insert(*address, key.clone());
        }
        for port in &ports {
            self.ports.insert(*port, key.clone());
        }
        if !(addresses.is_empty() && ports.is_empty()) {
            self.owned.insert(key.clone(), (addresses, ports));
        }
    }

    /// Gives back what a service had.
    pub(crate) fn release(&mut self, key: &Key) {
        if let Some((addresses, ports)) = self.owned.remove(key) {
            addresses.iter().for_each(|a| drop(self.addresses.remove(a)));
            ports.iter().for_each(|p| drop(self.ports.remove(p)));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    pub(crate) fn allocator() -> Allocator {
        let cidrs = ServiceCidrs::Dual("10.96.0.0/29".parse().unwrap(), "fd00::/112".parse().unwrap());
        Allocator::new(cidrs, 30_000..=30_002)
    }

    #[test]
    fn addresses_run_out_and_come_back() {
        let mut a = allocator();
        for i in 0..6 {
            let address = a.next_address(Family::V4).unwrap();
            assert_eq!(address, IpAddr::from([10, 96, 0, i + 1]));
            a.claim(
                &Key::new("n", &i.to_string()),
                &json!({ "spec": { "clusterIPs": [address.to_string()] } }),
            );
        }
        assert_eq!(a.next_address(Family::V4), None);
        a.release(&Key::new("n", "3"));
        assert_eq!(a.next_address(Family::V4), Some([10, 96, 0, 4].into()));
        assert_eq!(a.next_address(Family::V6), Some("fd00::1".parse().unwrap()));
    }

    #[test]
    fn what_was_released_is_not_the_next_to_be_given() {
        let mut a = allocator();
        let first = a.next_port(&[]).unwrap();
        assert_eq!(
            (first, a.next_port(&[]), a.next_port(&[])),
            (30_000, Some(30_001), Some(30_002))
        );
        assert_eq!(a.next_port(&[30_000]), Some(30_001));
    }

    #[test]
    fn ports_are_known_by_their_owner() {
        let mut a = allocator();
        let (mine, other) = (Key::new("n", "a"), Key::new("n", "b"));
        a.claim(
            &mine,
            &json!({ "spec": { "ports": [{ "nodePort": 30_001 }], "healthCheckNodePort": 30_002 } }),
        );
        assert!(a.port_taken(30_001, &other) && a.port_taken(30_002, &other) && !a.port_taken(30_001, &mine));
        a.claim(&mine, &json!({ "spec": {} }));
        assert!(!a.port_taken(30_001, &other));
    }

    #[test]
    fn only_usable_addresses_of_the_networks_are_contained() {
        let a = allocator();
        let is = |s: &str| a.contains(s.parse().unwrap());
        assert!(is("10.96.0.1") && is("fd00::1"));
        assert!(!is("10.96.0.0") && !is("10.96.0.7") && !is("10.97.0.1") && !is("fd01::1"));
    }
}
