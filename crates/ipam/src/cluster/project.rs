// SPDX-License-Identifier: Apache-2.0
//! From ledgers and reports to reservations, and to what each node is granted.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use model::{Block, DEFAULT_POOL, Family, Grant, Holder, IpPool, NodePools, PoolRange, usable_addresses};

use super::blocks::Taken;
use super::summary::{full_text, taken};
use super::{Refusal, WANTED_MAX, World};

/// How long a block must have been more than a node needs before it is asked back, in seconds.
pub const HOLD: u64 = 60;
/// How long a block that was given back is the last choice, in seconds: connections to its old pods may still be on their way.
pub const QUIET: u64 = 600;
/// The most blocks that a node gets of one pool.
pub const NODE_BLOCKS_MAX: usize = 256;

/// What an operator remembers from pass to pass. Nothing in it is needed for correctness: a new operator starts without.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Pools, by UID, of whose ledger the last write by this operator in this term has succeeded.
    pub confirmed: BTreeSet<String>,
    /// Since when a holder (by UID) has had a block too many.
    pub surplus: BTreeMap<(String, IpNet), u64>,
    /// When a block was given back.
    pub freed: BTreeMap<IpNet, u64>,
}

/// One look at the world.
pub(super) struct View<'a> {
    pub(super) world: &'a World,
    pub(super) refused: &'a BTreeMap<String, Refusal>,
    pub(super) now: u64,
    /// How long a surplus must last.
    pub(super) hold: u64,
    /// Blocks of the ledgers by holder's UID and pool.
    held: BTreeMap<&'a str, BTreeMap<&'a str, Vec<IpNet>>>,
}

impl<'a> View<'a> {
    pub(super) fn new(world: &'a World, refused: &'a BTreeMap<String, Refusal>, now: u64, hold: u64) -> Self {
        let mut held: BTreeMap<&str, BTreeMap<&str, Vec<IpNet>>> = BTreeMap::new();
        for pool in world.pools.values() {
            for (block, holder) in &pool.blocks {
                let of_holder = held.entry(&holder.uid).or_default();
                of_holder.entry(&pool.name).or_default().push(*block);
            }
        }
        Self {
            world,
            refused,
            now,
            hold,
            held,
        }
    }

    fn held(&self, node: &NodePools, pool: &str) -> &[IpNet] {
        let of_node = self.held.get(node.uid.as_str());
        of_node
            .and_then(|pools| pools.get(pool))
            .map_or(&[], Vec::as_slice)
    }

    /// New blocks, pool by pool: for those who have least left first, one block for everybody before a second one for anybody.
    pub(super) fn reservations(
        &self,
        usable: &BTreeSet<String>,
        freed: &BTreeMap<IpNet, u64>,
    ) -> BTreeMap<String, BTreeMap<IpNet, Holder>> {
        let mut taken = taken(self.world);
        let avoid: BTreeSet<IpNet> = freed
            .iter()
            .filter(|(_, when)| self.now < **when + QUIET)
            .map(|(block, _)| *block)
            .collect();
        let mut needs = self.needs(usable);
        let mut result: BTreeMap<String, BTreeMap<IpNet, Holder>> = BTreeMap::new();
        while !needs.is_empty() {
            needs.sort_by_key(|need| (need.left, need.node.node.clone()));
            needs.retain_mut(|need| {
                let Some(block) = taken.first_free(need.range, &avoid) else {
                    return false;
                };
                taken.add(block);
                let holder = Holder {
                    node: need.node.node.clone(),
                    uid: need.node.uid.clone(),
                };
                result
                    .entry(need.pool.name.clone())
                    .or_default()
                    .insert(block, holder);
                need.add(block)
            });
        }
        result
    }

    fn needs(&self, usable: &BTreeSet<String>) -> Vec<Need<'a>> {
        let mut needs = Vec::new();
        let machine = |node: &&NodePools| {
            let machine = self.world.machines.get(&node.node);
            machine.is_some_and(|machine| machine.uid == node.owner)
        };
        for node in self.world.nodes.values().filter(machine) {
            for (name, wanted) in asks(node) {
                let Some(pool) = self.world.pools.get(name).filter(|_| usable.contains(name)) else {
                    continue;
                };
                let held = self.held(node, name);
                for range in &pool.ranges {
                    let have = capacity(held.iter().filter(|block| range.has(block)));
                    if have < wanted && held.len() < NODE_BLOCKS_MAX {
                        needs.push(Need {
                            node,
                            pool,
                            range,
                            wanted,
                            have,
                            blocks: held.len(),
                            left: have.saturating_sub(in_use(node, name, range.family())),
                        });
                    }
                }
            }
        }
        needs
    }

    /// What a node is to have of every pool, after what it has. Pools that are not in `known` stay as they are: their ledger is not
    /// known for certain.
    pub(super) fn grants(
        &self,
        node: &NodePools,
        known: &BTreeSet<String>,
        taken: &Taken,
        memory: &mut Memory,
    ) -> Vec<Grant> {
        let asked: BTreeMap<&str, u128> = asks(node).collect();
        let held = self.held.get(node.uid.as_str()).into_iter().flatten();
        let mut names: BTreeSet<&str> = held.map(|(pool, _)| *pool).collect();
        names.extend(asked.keys());
        names.extend(node.grants.iter().map(|grant| grant.pool.as_str()));
        let mut grants = Vec::new();
        for name in names {
            let wanted = asked.get(name).copied().unwrap_or_default();
            let grant = match self.world.pools.get(name) {
                Some(pool) if known.contains(name) => Some(self.grant(node, pool, wanted, taken, memory)),
                Some(_) => node.grant(name).cloned(),
                None => Some(without_pool(node, name)),
            };
            grants.extend(grant.filter(|grant| wanted > 0 || !grant.blocks.is_empty()));
        }
        grants
    }

    fn grant(
        &self,
        node: &NodePools,
        pool: &IpPool,
        wanted: u128,
        taken: &Taken,
        memory: &mut Memory,
    ) -> Grant {
        let mut blocks = self.blocks(node, pool);
        for range in &pool.ranges {
            self.take_back(&mut blocks, range, wanted);
        }
        self.ask_back(&mut blocks, node, pool, wanted, memory);
        blocks.sort_unstable();
        let shortages: Vec<String> = pool
            .ranges
            .iter()
            .filter(|range| capacity(kept(&blocks, range)) < wanted)
            .filter_map(|range| self.shortage(pool, range, blocks.len(), taken))
            .collect();
        let before = node.grant(&pool.name).map(|grant| grant.families.clone());
        let mut families: Vec<Family> = pool.ranges.iter().map(PoolRange::family).collect();
        families.sort_unstable();
        let families = match &pool.fault {
            Some(_) => before.unwrap_or_default(),
            None => families,
        };
        Grant {
            pool: pool.name.clone(),
            families,
            blocks,
            shortage: shortages.join("; "),
        }
    }

    /// What the ledger says the node holds, and what it was granted, without what it has given back.
    fn blocks(&self, node: &NodePools, pool: &IpPool) -> Vec<Block> {
        let granted = node.grant(&pool.name).map_or(&[][..], |grant| &grant.blocks);
        let mut blocks: BTreeMap<IpNet, bool> = self
            .held(node, &pool.name)
            .iter()
            .map(|cidr| (*cidr, false))
            .collect();
        for block in granted {
            let done = block.releasing
                && node.report_is_current()
                && node.reported(&block.cidr).is_some_and(|report| report.released);
            if done {
                blocks.remove(&block.cidr);
            } else {
                blocks.insert(block.cidr, block.releasing);
            }
        }
        let block = |(cidr, releasing)| Block { cidr, releasing };
        blocks.into_iter().map(block).collect()
    }

    /// The node needs more again: what it has not yet given back stays with it.
    fn take_back(&self, blocks: &mut [Block], range: &PoolRange, wanted: u128) {
        let mut have = capacity(kept(blocks, range));
        for block in blocks.iter_mut() {
            if have < wanted && block.releasing && range.has(&block.cidr) {
                block.releasing = false;
                have += usable_addresses(&block.cidr);
            }
        }
    }

    /// Empty blocks that are more than the node needs, for some time already, and those that no longer belong to the pool. What is left
    /// must exceed the need by half a block, so that nothing swings.
    fn ask_back(
        &self,
        blocks: &mut [Block],
        node: &NodePools,
        pool: &IpPool,
        wanted: u128,
        memory: &mut Memory,
    ) {
        for index in (0..blocks.len()).rev() {
            let cidr = blocks[index].cidr;
            let key = (node.uid.clone(), cidr);
            let empty = node
                .reported(&cidr)
                .is_some_and(|report| report.used == 0 && report.resting == 0);
            let range = pool.range(Family::of_net(&cidr)).filter(|range| range.has(&cidr));
            let spare = match range {
                Some(range) if !pool.deleting => {
                    let size = usable_addresses(&cidr);
                    let left = capacity(kept(blocks, range)).saturating_sub(size);
                    wanted == 0 || left >= wanted + size / 2
                }
                // With a specification that nobody understands, nothing is taken from anybody.
                _ => pool.fault.is_none(),
            };
            if blocks[index].releasing || !empty || !spare {
                memory.surplus.remove(&key);
                continue;
            }
            let since = *memory.surplus.entry(key).or_insert(self.now);
            blocks[index].releasing = range.is_none() || self.now >= since + self.hold;
        }
    }

    /// Why a range gives no more; nothing when it will.
    fn shortage(&self, pool: &IpPool, range: &PoolRange, blocks: usize, taken: &Taken) -> Option<String> {
        let name = &pool.name;
        if pool.deleting {
            return Some(format!(
                "pool {name} is being deleted; use another pool or make it anew"
            ));
        }
        if let Some(refusal) = self.refused.get(name) {
            return Some(format!("pool {name} is refused: {refusal}"));
        }
        if blocks >= NODE_BLOCKS_MAX {
            return Some(format!(
                "the node has {blocks} blocks of pool {name}, which is the limit; give the pool larger blocks"
            ));
        }
        let none_free = taken.first_free(range, &BTreeSet::new()).is_none();
        none_free.then(|| full_text(pool, range))
    }
}

/// What a node asks for: pool and number of addresses. A node that has not said anything yet starts with the default pool.
fn asks(node: &NodePools) -> impl Iterator<Item = (&str, u128)> {
    let silent = node.report == model::NodeReport::default();
    let first = silent.then_some((DEFAULT_POOL, 1));
    let reported = node.report.pools.iter();
    let reported = reported.map(|report| (report.pool.as_str(), u128::from(report.wanted.min(WANTED_MAX))));
    first.into_iter().chain(reported)
}

fn without_pool(node: &NodePools, name: &str) -> Grant {
    let before = node.grant(name);
    Grant {
        pool: name.to_owned(),
        families: before.map(|grant| grant.families.clone()).unwrap_or_default(),
        blocks: before.map(|grant| grant.blocks.clone()).unwrap_or_default(),
        shortage: format!("there is no ThalwegPool {name}; make it, or name another in the annotation"),
    }
}

fn kept<'b>(blocks: &'b [Block], range: &'b PoolRange) -> impl Iterator<Item = &'b IpNet> {
    let kept = blocks
        .iter()
        .filter(|block| !block.releasing && range.has(&block.cidr));
    kept.map(|block| &block.cidr)
}

fn capacity<'b>(blocks: impl Iterator<Item = &'b IpNet>) -> u128 {
    blocks.map(usable_addresses).fold(0, u128::saturating_add)
}

fn in_use(node: &NodePools, pool: &str, family: Family) -> u128 {
    let reports = node.report.pools.iter().filter(|report| report.pool == pool);
    let blocks = reports.flat_map(|report| &report.blocks);
    let of_family = blocks.filter(|block| Family::of_net(&block.cidr) == family);
    of_family
        .map(|block| u128::from(block.used) + u128::from(block.resting))
        .sum()
}

/// A node that has less than it wants.
struct Need<'a> {
    node: &'a NodePools,
    pool: &'a IpPool,
    range: &'a PoolRange,
    wanted: u128,
    have: u128,
    blocks: usize,
    /// Addresses that are left to it.
    left: u128,
}

impl Need<'_> {
    /// Takes one more block in; whether that is still not enough.
    fn add(&mut self, block: IpNet) -> bool {
        let size = usable_addresses(&block);
        self.have = self.have.saturating_add(size);
        self.left = self.left.saturating_add(size);
        self.blocks += 1;
        self.have < self.wanted && self.blocks < NODE_BLOCKS_MAX
    }
}
