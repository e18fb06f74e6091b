// SPDX-License-Identifier: Apache-2.0
//! When which node is tried, and what is known of it: pure, with time and randomness as arguments.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use model::{Family, Node};

use super::{Kind, Outcome, PeerHealth, Probe};

/// Nodes that are new are tried within this time, not all at once.
const FIRST_WITHIN: Duration = Duration::from_secs(3);

/// After a failure a node is tried again so soon, then after twice the time, up to the interval: so that the end of a trouble is seen.
const RETRY: Duration = Duration::from_secs(5);

/// A pod that the node's agent named longer ago may be gone without anybody being able to tell us.
const POD_KEPT: Duration = Duration::from_secs(600);

/// One try of a node, to be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) node: String,
    pub(super) began: Instant,
    /// The node's first address of each family.
    pub(super) addresses: Vec<IpAddr>,
    /// Where its pods' addresses come from: nothing else is tried as a pod.
    pub(super) pod_cidrs: Vec<IpNet>,
    /// Its pods that are known from before.
    pub(super) pods: Vec<IpAddr>,
}

/// What came of a try.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) node: String,
    pub(super) began: Instant,
    pub(super) outcomes: Vec<(Kind, IpAddr, Outcome)>,
    /// What the node's agent named as its pods; nothing when it did not answer.
    pub(super) pods: Option<Vec<IpAddr>>,
}

#[derive(Debug)]
struct Peer {
    addresses: Vec<IpAddr>,
    pod_cidrs: Vec<IpNet>,
    pods: Vec<IpAddr>,
    pods_named: Option<Instant>,
    due: Instant,
    running: bool,
    /// Somebody wants to know while a try is under way: another follows.
    again: bool,
    failures: u32,
    tried: Option<Instant>,
    probes: Vec<Probe>,
}

#[derive(Debug)]
pub(super) struct Schedule {
    interval: Duration,
    parallel: usize,
    running: usize,
    random: u64,
    peers: BTreeMap<String, Peer>,
}

impl Schedule {
    pub(super) const fn new(interval: Duration, parallel: usize, seed: u64) -> Self {
        Self {
            interval,
            parallel,
            running: 0,
            random: seed,
            peers: BTreeMap::new(),
        }
    }

    /// These are the other nodes now. One with other addresses is a new one.
    pub(super) fn set_nodes<'a>(&mut self, nodes: impl Iterator<Item = &'a Node>, now: Instant) {
        let mut old = std::mem::take(&mut self.peers);
        for node in nodes {
            let families = [Family::Ipv4, Family::Ipv6];
            let addresses: Vec<_> = families
                .into_iter()
                .filter_map(|family| node.address(family))
                .collect();
            if addresses.is_empty() {
                continue;
            }
            let known = old.remove(&node.name);
            let running = known.as_ref().is_some_and(|peer| peer.running);
            let mut peer = known
                .filter(|peer| peer.addresses == addresses)
                .unwrap_or_else(|| Peer {
                    addresses,
                    pod_cidrs: Vec::new(),
                    pods: Vec::new(),
                    pods_named: None,
                    due: now + self.part_of(FIRST_WITHIN.min(self.interval)),
                    running,
                    again: running,
                    failures: 0,
                    tried: None,
                    probes: Vec::new(),
                });
            peer.pod_cidrs.clone_from(&node.pod_cidrs);
            self.peers.insert(node.name.clone(), peer);
        }
        // What runs for a node that is gone still takes a place until it ends.
    }

    /// All nodes are due.
    pub(super) fn ask(&mut self, now: Instant) {
        for peer in self.peers.values_mut() {
            peer.due = now;
            peer.again = peer.running;
        }
    }

    /// The next try, if one is due and there is room.
    pub(super) fn start(&mut self, now: Instant) -> Option<Job> {
        if self.running >= self.parallel {
            return None;
        }
        let waiting = self.peers.iter_mut().filter(|(_, peer)| !peer.running);
        let (node, peer) = waiting.min_by_key(|(_, peer)| peer.due)?;
        if peer.due > now {
            return None;
        }
        peer.running = true;
        self.running += 1;
        let named = peer
            .pods_named
            .is_some_and(|named| now.saturating_duration_since(named) < POD_KEPT);
        Some(Job {
            node: node.clone(),
            began: now,
            addresses: peer.addresses.clone(),
            pod_cidrs: peer.pod_cidrs.clone(),
            pods: if named { peer.pods.clone() } else { Vec::new() },
        })
    }

    /// When [`Self::start`] has something next; nothing while there is no room.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.running >= self.parallel {
            return None;
        }
        let waiting = self.peers.values().filter(|peer| !peer.running);
        waiting.map(|peer| peer.due).min()
    }

    /// Takes what came of a try; nothing when the node is gone or another one now.
    pub(super) fn finish(&mut self, found: Found, now: Instant) -> Option<PeerHealth> {
        self.running = self.running.saturating_sub(1);
        let regular = self.interval - self.interval / 10 + self.part_of(self.interval / 5);
        let hurry = self.part_of(RETRY / 2);
        let interval = self.interval;
        let peer = self.peers.get_mut(&found.node)?;
        peer.running = false;
        let tried = |address: &IpAddr| found.outcomes.iter().any(|(_, other, _)| other == address);
        if !peer.addresses.iter().all(tried) {
            return None;
        }
        let failed = found.outcomes.iter().any(|(_, _, outcome)| outcome.is_err());
        peer.failures = if failed {
            peer.failures.saturating_add(1)
        } else {
            0
        };
        peer.due = match peer.failures {
            _ if std::mem::take(&mut peer.again) => now,
            0 => now + regular,
            failures => now + (RETRY * (1 << (failures - 1).min(8)) + hurry).min(interval),
        };
        if let Some(pods) = found.pods {
            (peer.pods, peer.pods_named) = (pods, Some(now));
        }
        peer.tried = Some(found.began);
        let outcomes = found.outcomes.into_iter();
        peer.probes = outcomes
            .map(|outcome| probe(outcome, &peer.probes, now))
            .collect();
        peer.probes
            .sort_by_key(|probe| (probe.kind, Family::of(&probe.address)));
        Some(row(&found.node, peer))
    }

    /// What is known of all nodes.
    pub(super) fn rows(&self) -> impl Iterator<Item = PeerHealth> {
        self.peers.iter().map(|(node, peer)| row(node, peer))
    }

    /// From nothing to `all`, by chance (splitmix64).
    fn part_of(&mut self, all: Duration) -> Duration {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.random;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        let nanos = u64::try_from(all.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(bits % nanos.max(1))
    }
}

fn row(node: &str, peer: &Peer) -> PeerHealth {
    PeerHealth {
        node: node.to_owned(),
        tried: peer.tried,
        probes: peer.probes.clone(),
    }
}

/// It is as it was since then, if it was so before.
fn probe((kind, address, outcome): (Kind, IpAddr, Outcome), before: &[Probe], now: Instant) -> Probe {
    let same = |probe: &&Probe| {
        (probe.kind, Family::of(&probe.address)) == (kind, Family::of(&address))
            && probe.outcome.is_ok() == outcome.is_ok()
    };
    let since = before.iter().find(same).map_or(now, |probe| probe.since);
    Probe {
        kind,
        address,
        outcome,
        since,
    }
}

#[cfg(test)]
mod tests;
