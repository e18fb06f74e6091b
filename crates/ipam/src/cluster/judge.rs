// SPDX-License-Identifier: Apache-2.0
//! Which pools may be used: those that share no address with nodes, services or other pools.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use model::{IpPool, overlap};

use super::World;
use super::summary::ACCEPTED;

/// Why a pool may not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its specification cannot be understood.
    Fault(String),
    /// Another pool has some of its addresses.
    Pool {
        /// Ours.
        cidr: IpNet,
        /// The other pool.
        other: String,
        /// Its network.
        other_cidr: IpNet,
    },
    /// Two of its own networks overlap.
    Itself {
        /// One.
        cidr: IpNet,
        /// The other.
        other_cidr: IpNet,
    },
    /// A node's own address is inside.
    Node {
        /// Ours.
        cidr: IpNet,
        /// The node.
        node: String,
        /// Its address.
        address: IpAddr,
    },
    /// ClusterIPs are inside.
    Service {
        /// Ours.
        cidr: IpNet,
        /// Their network.
        service: IpNet,
    },
}

impl Refusal {
    /// The condition's reason.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Fault(_) => "Invalid",
            Self::Pool { .. } => "OverlapsPool",
            Self::Itself { .. } => "OverlapsItself",
            Self::Node { .. } => "ContainsNode",
            Self::Service { .. } => "OverlapsServices",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(fault) => f.write_str(fault),
            Self::Pool {
                cidr,
                other,
                other_cidr,
            } => write!(
                f,
                "{cidr} overlaps {other_cidr} of ThalwegPool {other}; choose networks that are apart"
            ),
            Self::Itself { cidr, other_cidr } => {
                write!(
                    f,
                    "its own networks {cidr} and {other_cidr} overlap; leave one of them out"
                )
            }
            Self::Node { cidr, node, address } => write!(
                f,
                "{cidr} contains {address}, the address of node {node}; choose a network that no node is in"
            ),
            Self::Service { cidr, service } => write!(
                f,
                "{cidr} overlaps {service}, where ClusterIPs come from; choose networks that are apart"
            ),
        }
    }
}

/// Which pools are refused, and why. Of two pools that overlap, the one stays whose blocks nodes hold, else the one that was
/// accepted before, else the older one, else the first by name: whoever judges, and whenever, the answer is the same.
#[must_use]
pub fn judge(world: &World) -> BTreeMap<String, Refusal> {
    let mut refused: BTreeMap<String, Refusal> = BTreeMap::new();
    let mut admitted: Vec<&IpPool> = Vec::new();
    for pool in in_order_of_precedence(world) {
        let refusal = unfit(world, pool).or_else(|| admitted.iter().find_map(|other| between(pool, other)));
        match refusal {
            Some(refusal) => drop(refused.insert(pool.name.clone(), refusal)),
            None => admitted.push(pool),
        }
    }
    refused
}

fn in_order_of_precedence(world: &World) -> Vec<&IpPool> {
    let mut pools: Vec<&IpPool> = world.pools.values().collect();
    pools.sort_by_key(|pool| {
        let accepted = pool.condition(ACCEPTED).is_some_and(|one| one.ok);
        (pool.blocks.is_empty(), !accepted, pool.created, pool.name.clone())
    });
    pools
}

fn between(pool: &IpPool, other: &IpPool) -> Option<Refusal> {
    let mut pairs = pool
        .cidrs()
        .flat_map(|cidr| other.cidrs().map(move |other_cidr| (cidr, other_cidr)));
    let (cidr, other_cidr) = pairs.find(|(one, two)| overlap(one, two))?;
    Some(Refusal::Pool {
        cidr: *cidr,
        other: other.name.clone(),
        other_cidr: *other_cidr,
    })
}

/// What is wrong with a pool whatever other pools there are.
fn unfit(world: &World, pool: &IpPool) -> Option<Refusal> {
    if let Some(fault) = &pool.fault {
        return Some(Refusal::Fault(fault.clone()));
    }
    let mut seen: BTreeSet<IpNet> = BTreeSet::new();
    for cidr in pool.cidrs() {
        if let Some(other) = seen.iter().find(|other| overlap(other, cidr)) {
            return Some(Refusal::Itself {
                cidr: *cidr,
                other_cidr: *other,
            });
        }
        if let Some(service) = world.service_cidrs.iter().find(|other| overlap(other, cidr)) {
            return Some(Refusal::Service {
                cidr: *cidr,
                service: *service,
            });
        }
        let mut machines = world.machines.iter();
        let inside = machines.find_map(|(name, machine)| {
            let address = machine.addresses.iter().find(|ip| cidr.contains(*ip))?;
            Some((name, address))
        });
        if let Some((node, address)) = inside {
            return Some(Refusal::Node {
                cidr: *cidr,
                node: node.clone(),
                address: *address,
            });
        }
        seen.insert(*cidr);
    }
    None
}
