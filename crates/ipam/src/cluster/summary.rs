// SPDX-License-Identifier: Apache-2.0
//! How a pool is, for people.

use std::collections::BTreeMap;

use model::{Family, IpPool, PoolCondition, PoolRange, PoolState, PoolUse, usable_addresses};

use super::blocks::{self, Taken};
use super::{Refusal, World};

/// The condition that says whether a pool may be used.
pub const ACCEPTED: &str = "Accepted";
/// The condition that says whether a pool has no block left.
pub const EXHAUSTED: &str = "Exhausted";

/// The largest number that an `int64` of the API holds.
const MOST: u64 = i64::MAX as u64;

/// The state of a pool as it is to be written. `exhausted_in` tells the forecast by family.
#[must_use]
pub fn summarise(
    world: &World,
    pool: &IpPool,
    refusal: Option<&Refusal>,
    exhausted_in: &BTreeMap<Family, u64>,
) -> PoolState {
    let used = used(world, pool);
    let families = pool.ranges.iter().map(|range| {
        let family = range.family();
        let blocks = blocks::count(range);
        let of_family = pool.blocks.keys().filter(|block| Family::of_net(block) == family);
        PoolUse {
            family,
            blocks: blocks.min(MOST),
            blocks_held: of_family.count() as u64,
            capacity: capacity(range, blocks),
            used: used.get(&family).copied().unwrap_or_default(),
            exhausted_in: exhausted_in.get(&family).copied(),
        }
    });
    PoolState {
        generation: pool.generation,
        families: families.collect(),
        conditions: vec![accepted(pool, refusal), exhausted(world, pool)],
    }
}

fn capacity(range: &PoolRange, blocks: u64) -> u64 {
    let each = range.cidrs.first().map_or(0, |cidr| {
        let block = ipnet::IpNet::new(cidr.network(), range.block_len).ok();
        block.map_or(0, |block| usable_addresses(&block))
    });
    let all = each.saturating_mul(u128::from(blocks));
    u64::try_from(all).unwrap_or(MOST).min(MOST)
}

fn used(world: &World, pool: &IpPool) -> BTreeMap<Family, u64> {
    let mut used = BTreeMap::new();
    let reports = world.nodes.values().flat_map(|node| &node.report.pools);
    let blocks = reports
        .filter(|report| report.pool == pool.name)
        .flat_map(|report| &report.blocks);
    for block in blocks {
        *used.entry(Family::of_net(&block.cidr)).or_default() += u64::from(block.used);
    }
    used
}

fn accepted(pool: &IpPool, refusal: Option<&Refusal>) -> PoolCondition {
    match refusal {
        Some(refusal) => condition(pool, ACCEPTED, false, refusal.reason(), refusal.to_string()),
        None => condition(
            pool,
            ACCEPTED,
            true,
            "Accepted",
            "it shares no address with nodes, services and other pools".to_owned(),
        ),
    }
}

fn exhausted(world: &World, pool: &IpPool) -> PoolCondition {
    let taken = taken(world);
    let full = |range: &&PoolRange| taken.first_free(range, &Default::default()).is_none();
    let full: Vec<String> = pool
        .ranges
        .iter()
        .filter(full)
        .map(|range| full_text(pool, range))
        .collect();
    match full.as_slice() {
        [] => condition(
            pool,
            EXHAUSTED,
            false,
            "BlocksFree",
            "there are free blocks".to_owned(),
        ),
        some => condition(pool, EXHAUSTED, true, "NoBlockFree", some.join("; ")),
    }
}

/// Says that a range has no free block, and what to do.
pub(super) fn full_text(pool: &IpPool, range: &PoolRange) -> String {
    let family = range.family();
    let held = pool.blocks.keys().filter(|block| Family::of_net(block) == family);
    format!(
        "pool {} has no free /{} of {family} left ({} of {} handed out); add a network to ThalwegPool {} (spec.{family}.cidrs)",
        pool.name,
        range.block_len,
        held.count(),
        blocks::count(range),
        pool.name,
    )
}

/// Every block that somebody has or is to have.
pub(super) fn taken(world: &World) -> Taken {
    let mut taken = Taken::default();
    let ledgers = world.pools.values().flat_map(|pool| pool.blocks.keys());
    let granted = world.nodes.values().flat_map(|node| node.blocks());
    for cidr in ledgers.chain(granted.map(|block| &block.cidr)) {
        taken.add(*cidr);
    }
    taken
}

/// A condition that keeps its time while what it says stays true or false.
fn condition(pool: &IpPool, kind: &str, ok: bool, reason: &str, message: String) -> PoolCondition {
    let before = pool.condition(kind).filter(|before| before.ok == ok);
    PoolCondition {
        kind: kind.to_owned(),
        ok,
        reason: reason.to_owned(),
        message,
        since: before.map(|before| before.since.clone()).unwrap_or_default(),
    }
}
