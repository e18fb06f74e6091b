// SPDX-License-Identifier: Apache-2.0
//! Gives every node its part of the cluster's pod CIDRs.

use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::watcher;
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::drive::{Controller, drive, unless_gone};
use super::events::{Reporter, Severity};
use super::watched::Watched;

/// The usual size of a node's IPv4 part.
pub const NODE_PREFIX_V4: u8 = 24;
/// The usual size of a node's IPv6 part.
pub const NODE_PREFIX_V6: u8 = 64;

/// One pod CIDR of the cluster, and how large a node's part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// The cluster's CIDR.
    pub cidr: IpNet,
    /// The prefix length of each node's part.
    pub node_prefix: u8,
}

impl Pool {
    /// A pool with the usual size of a node's part: /24 or /64, or the whole pool when that is smaller.
    pub fn new(cidr: IpNet) -> Self {
        let usual = match cidr {
            IpNet::V4(_) => NODE_PREFIX_V4,
            IpNet::V6(_) => NODE_PREFIX_V6,
        };
        Self {
            cidr,
            node_prefix: usual.max(cidr.prefix_len()),
        }
    }

    /// For how many nodes there is a part.
    #[must_use]
    pub fn parts(&self) -> u128 {
        1u128
            .checked_shl(u32::from(self.node_prefix.saturating_sub(self.cidr.prefix_len())))
            .unwrap_or(u128::MAX)
    }

    /// The prefix length with which the pool had a part for so many nodes.
    #[must_use]
    pub fn prefix_for(&self, nodes: usize) -> u8 {
        let bits = nodes.max(1).next_power_of_two().ilog2();
        self.node_prefix
            .saturating_sub(u8::try_from(bits).unwrap_or(u8::MAX))
    }
}

/// Runs the controller until the shutdown. The order of `pools` is the order of a node's `podCIDRs`. The `expected` nodes get
/// the first parts in this order, whichever of them registers first; others get what comes after.
pub async fn run(client: Client, pools: Vec<Pool>, expected: Vec<String>, shutdown: CancellationToken) {
    let nodes = Watched::new(Api::all(client.clone()), watcher::Config::default());
    let reporter = Reporter::new(client.clone(), "pod-cidrs", None);
    drive(
        PodCidrs {
            api: Api::all(client),
            nodes,
            pools,
            expected,
            reporter,
        },
        shutdown,
    )
    .await;
}

#[derive(Debug)]
struct PodCidrs {
    api: Api<Node>,
    nodes: Watched<Node>,
    pools: Vec<Pool>,
    expected: Vec<String>,
    reporter: Reporter,
}

impl Controller for PodCidrs {
    const NAME: &'static str = "pod-cidrs";

    async fn changed(&mut self) {
        self.nodes.changed().await;
    }

    fn synced(&self) -> bool {
        self.nodes.synced()
    }

    async fn reconcile(&mut self) -> Result<Option<Duration>, kube::Error> {
        let mut taken: Vec<IpNet> = self.nodes.values().flat_map(|node| pod_cidrs(node)).collect();
        let waiting: Vec<_> = self
            .nodes
            .values()
            .filter(|node| pod_cidrs(node).is_empty())
            .map(std::sync::Arc::clone)
            .collect();
        for node in waiting {
            let Some(cidrs) = assign(&self.pools, &taken, self.place(&node.name_any())) else {
                warn!(
                    node = node.name_any(),
                    "no pod CIDR left; use a larger cluster CIDR or smaller node parts"
                );
                let message = "no pod CIDR of the cluster is free for this node";
                self.reporter
                    .report(node.as_ref(), Severity::Warning, "CIDRNotAvailable", message)
                    .await;
                continue;
            };
            let patch = json!({ "spec": { "podCIDR": cidrs[0], "podCIDRs": cidrs } });
            let name = node.name_any();
            let answer = self
                .api
                .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
                .await;
            if let Some(node) = unless_gone(answer)? {
                info!(node = name, ?cidrs, "pod CIDRs assigned");
                self.nodes.written(node);
                taken.extend(cidrs);
            }
        }
        Ok(None)
    }
}

impl PodCidrs {
    fn place(&self, node: &str) -> Place {
        let position = self.expected.iter().position(|expected| expected == node);
        position.map_or(Place::After(self.expected.len()), Place::At)
    }
}

/// Which part of a pool a node should have, counted from zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// This one, kept for it.
    At(usize),
    /// The first free one after these, which are kept for others.
    After(usize),
}

/// The CIDRs that a node has; those that do not parse occupy nothing.
fn pod_cidrs(node: &Node) -> Vec<IpNet> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let many = spec.pod_cidrs.iter().flatten();
    many.chain(&spec.pod_cidr)
        .filter_map(|cidr| cidr.parse().ok())
        .collect()
}

/// A free part of each pool, or `None` when one of them is full (or there is none).
fn assign(pools: &[Pool], taken: &[IpNet], place: Place) -> Option<Vec<IpNet>> {
    if pools.is_empty() {
        return None;
    }
    pools.iter().map(|pool| free_part(pool, taken, place)).collect()
}

/// The part at this place, or when somebody has that, the first free one after it, or at last any.
fn free_part(pool: &Pool, taken: &[IpNet], place: Place) -> Option<IpNet> {
    let (Place::At(skipped) | Place::After(skipped)) = place;
    let parts = pool.cidr.subnets(pool.node_prefix).ok()?;
    let mut wanted = parts.skip(skipped).chain(parts);
    wanted.find(|part| !taken.iter().any(|other| overlap(part, other)))
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn dual() -> Vec<Pool> {
        vec![Pool::new(net("10.244.0.0/16")), Pool::new(net("fd74:7710::/48"))]
    }

    #[test]
    fn the_first_node_gets_the_first_part_of_each_family() {
        assert_eq!(
            assign(&dual(), &[], Place::After(0)),
            Some(vec![net("10.244.0.0/24"), net("fd74:7710::/64")])
        );
    }

    #[test]
    fn parts_do_not_overlap_what_is_taken_in_any_size() {
        let taken = [
            net("10.244.0.0/24"),
            net("10.244.1.128/25"),
            net("10.244.2.0/23"),
            net("fd74:7710::/63"),
        ];
        assert_eq!(
            assign(&dual(), &taken, Place::After(0)),
            Some(vec![net("10.244.4.0/24"), net("fd74:7710:0:2::/64")])
        );
    }

    #[test]
    fn a_released_part_is_used_again() {
        let taken = [net("10.244.0.0/24"), net("10.244.2.0/24"), net("fd74:7710::/64")];
        assert_eq!(
            assign(&dual(), &taken, Place::After(0)).unwrap()[0],
            net("10.244.1.0/24")
        );
    }

    #[test]
    fn a_full_pool_gives_nothing_of_either_family() {
        let pools = [
            Pool {
                cidr: net("10.0.0.0/23"),
                node_prefix: 24,
            },
            Pool::new(net("fd00::/48")),
        ];
        assert_eq!(
            assign(&pools, &[net("10.0.0.0/24"), net("10.0.1.0/24")], Place::After(0)),
            None
        );
    }

    #[test]
    fn a_pool_smaller_than_a_usual_part_is_one_part() {
        let pool = Pool::new(net("10.0.0.0/26"));
        assert_eq!(free_part(&pool, &[], Place::After(0)), Some(net("10.0.0.0/26")));
    }

    #[test]
    fn each_place_is_a_part_whoever_comes_first() {
        assert_eq!(
            assign(&dual(), &[], Place::At(2)),
            Some(vec![net("10.244.2.0/24"), net("fd74:7710:0:2::/64")])
        );
        // A node that nobody expected takes none that is kept for another, until nothing else is left.
        assert_eq!(
            assign(&dual(), &[], Place::After(3)).unwrap()[0],
            net("10.244.3.0/24")
        );
        let two = [Pool {
            cidr: net("10.0.0.0/23"),
            node_prefix: 24,
        }];
        assert_eq!(assign(&two, &[], Place::After(2)), Some(vec![net("10.0.0.0/24")]));
        // A place that is taken does not keep a node from starting.
        assert_eq!(
            assign(&two, &[net("10.0.1.0/24")], Place::At(1)),
            Some(vec![net("10.0.0.0/24")])
        );
    }

    #[test]
    fn a_pool_knows_for_how_many_nodes_it_is() {
        let pool = Pool::new(net("10.0.0.0/22"));
        assert_eq!(
            (pool.parts(), pool.prefix_for(4), pool.prefix_for(5)),
            (4, 22, 21)
        );
        assert_eq!(Pool::new(net("10.0.0.0/26")).parts(), 1);
    }
}
