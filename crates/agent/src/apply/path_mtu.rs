// SPDX-License-Identifier: Apache-2.0
//! What routers on the way to other nodes have said about the size of packets: pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// After this the larger packets are tried again (RFC 1191 §6.3, RFC 8201 §4: ten minutes).
const KEPT: Duration = Duration::from_secs(600);
/// Less is not believed: no link of IPv4 that carries a cluster is smaller, and IPv6 knows none below 1,280 (RFC 8200 §5).
/// The kernel's floor for IPv4 is the same (`net.ipv4.route.min_pmtu`).
const LEAST: [u32; 2] = [552, 1280];
/// Nodes that are remembered. More than a cluster has means that somebody makes them up.
const NODES_MAX: usize = 8192;

/// The path MTU to each node that a router has told one of, and since when.
#[derive(Debug, Default)]
pub(super) struct PathMtus(BTreeMap<IpAddr, (u32, Instant)>);

impl PathMtus {
    /// Bytes of the largest packet to a node, if a router has told.
    pub(super) fn of(&self, node: IpAddr) -> Option<u32> {
        self.0.get(&node).map(|(mtu, _)| *mtu)
    }

    /// Takes in what a router says; whether it is news.
    pub(super) fn learn(&mut self, node: IpAddr, mtu: u16, underlay: u32, now: Instant) -> bool {
        let least = LEAST[usize::from(node.is_ipv6())];
        let mtu = u32::from(mtu).max(least);
        let known = self.of(node);
        if mtu >= underlay || known.is_some_and(|known| known < mtu) {
            return false;
        }
        if known.is_none() && self.0.len() >= NODES_MAX {
            return false;
        }
        self.0.insert(node, (mtu, now));
        known != Some(mtu)
    }

    /// Forgets what is old.
    pub(super) fn forget(&mut self, now: Instant) {
        self.0
            .retain(|_, (_, since)| now.saturating_duration_since(*since) < KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_smaller_mtu_is_news_and_a_larger_one_is_not() {
        let (mut known, node, now) = (PathMtus::default(), ip("172.30.0.12"), Instant::now());
        assert!(known.learn(node, 1400, 1500, now));
        assert!(!known.learn(node, 1400, 1500, now), "known already");
        assert!(!known.learn(node, 1450, 1500, now), "an old packet's");
        assert!(known.learn(node, 1300, 1500, now));
        assert!(
            !known.learn(ip("172.30.0.13"), 1500, 1500, now),
            "no limit at all"
        );
        assert_eq!(known.of(node), Some(1300));
    }

    #[test]
    fn nobody_can_make_packets_tiny() {
        let mut known = PathMtus::default();
        for (node, least) in [("172.30.0.12", 552), ("fd74:77::12", 1280)] {
            known.learn(ip(node), 68, 1500, Instant::now());
            assert_eq!(known.of(ip(node)), Some(least));
        }
    }

    #[test]
    fn after_ten_minutes_it_is_tried_again() {
        let (mut known, node, now) = (PathMtus::default(), ip("172.30.0.12"), Instant::now());
        known.learn(node, 1400, 1500, now);
        known.forget(now + KEPT - Duration::from_secs(1));
        assert_eq!(known.of(node), Some(1400));
        known.forget(now + KEPT);
        assert_eq!(known.of(node), None);
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }
}
