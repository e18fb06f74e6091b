// SPDX-License-Identifier: Apache-2.0
//! From objects to values of the model, and back.

use std::collections::BTreeMap;

use ipnet::IpNet;
use model::{
    Block, BlockReport, Family, Grant, Holder, IpPool, NodePools, NodeReport, PoolCondition, PoolReport,
    PoolState, PoolUse,
};

use super::{
    BlockHolder, Condition, FamilyStatus, NodeCidr, NodeCidrStatus, NodePool, NodePoolStatus, NodeSpec,
    NodeStatus, PoolRange, PoolSpec, PoolStatus,
};

/// A network of a pool has at most this many blocks more than one, as a power of two: more than any cluster has nodes.
const BLOCK_BITS_MAX: u8 = 24;

/// Something in an object that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {value:?} is not {expected}")]
pub struct FaultError {
    /// Where.
    pub field: String,
    /// What is there.
    pub value: String,
    /// What should be.
    pub expected: &'static str,
}

/// What every object has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its version.
    pub version: String,
    /// How often its specification has changed.
    pub generation: i64,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// What keeps it.
    pub finalizers: Vec<String>,
    /// The UID of the Node that owns it.
    pub owner: String,
}

/// A ThalwegPool. What is wrong with its specification is said in the result, so that its status can say it too.
///
/// # Errors
/// When its ledger cannot be understood: nothing may be handed out of it then.
pub fn pool(meta: Meta, spec: &PoolSpec, status: PoolStatus) -> Result<IpPool, FaultError> {
    let blocks = status.blocks.into_iter().map(|(cidr, holder)| {
        let holder = Holder {
            node: holder.node,
            uid: holder.uid,
        };
        Ok((network("status.blocks", &cidr)?, holder))
    });
    let ranges = ranges(spec);
    Ok(IpPool {
        guarded: meta.finalizers.iter().any(|one| one == super::POOL_FINALIZER),
        name: meta.name,
        uid: meta.uid,
        version: meta.version,
        created: meta.created,
        generation: meta.generation,
        deleting: meta.deleting,
        fault: ranges.as_ref().err().map(ToString::to_string),
        ranges: ranges.unwrap_or_default(),
        blocks: blocks.collect::<Result<_, _>>()?,
        term: status.term,
        sequence: status.sequence,
        state: PoolState {
            generation: status.observed_generation,
            families: status.families.iter().filter_map(pool_use).collect(),
            conditions: status.conditions.into_iter().map(Into::into).collect(),
        },
    })
}

fn ranges(spec: &PoolSpec) -> Result<Vec<model::PoolRange>, FaultError> {
    let given = [
        ("spec.ipv4", Family::Ipv4, &spec.ipv4),
        ("spec.ipv6", Family::Ipv6, &spec.ipv6),
    ];
    let ranges = given
        .into_iter()
        .filter_map(|(field, family, range)| Some((field, family, range.as_ref()?)))
        .map(|(field, family, given)| range(field, family, given));
    let ranges: Vec<_> = ranges.collect::<Result<_, _>>()?;
    if ranges.is_empty() {
        return Err(fault("spec", "", "a pool with ipv4 or ipv6"));
    }
    Ok(ranges)
}

fn range(field: &str, family: Family, range: &PoolRange) -> Result<model::PoolRange, FaultError> {
    let (list, mask) = (format!("{field}.cidrs"), range.node_mask_size);
    if range.cidrs.is_empty() {
        return Err(fault(&list, "", "a list with a network"));
    }
    let cidrs: Vec<IpNet> = range
        .cidrs
        .iter()
        .map(|cidr| network(&list, cidr))
        .collect::<Result<_, _>>()?;
    for cidr in &cidrs {
        if Family::of_net(cidr) != family {
            return Err(fault(&list, &cidr.to_string(), "a network of that family"));
        }
        if mask < cidr.prefix_len() || mask - cidr.prefix_len() > BLOCK_BITS_MAX || mask > family.bits() {
            return Err(fault(
                &format!("{field}.nodeMaskSize"),
                &mask.to_string(),
                "a prefix length from the networks' own to 24 more (and at most the family's bits)",
            ));
        }
    }
    Ok(model::PoolRange {
        cidrs,
        block_len: mask,
    })
}

/// A ThalwegNode.
///
/// # Errors
/// When a network in it cannot be understood.
pub fn node_pools(meta: Meta, spec: NodeSpec, status: NodeStatus) -> Result<NodePools, FaultError> {
    Ok(NodePools {
        node: meta.name,
        uid: meta.uid,
        version: meta.version,
        generation: meta.generation,
        owner: meta.owner,
        term: spec.term,
        grants: spec.pools.into_iter().map(grant).collect::<Result<_, _>>()?,
        report: NodeReport {
            generation: status.observed_generation,
            pools: status.pools.into_iter().map(report).collect::<Result<_, _>>()?,
        },
    })
}

fn grant(pool: NodePool) -> Result<Grant, FaultError> {
    let block = |one: &NodeCidr| {
        Ok(Block {
            cidr: network("spec.pools.cidrs", &one.cidr)?,
            releasing: one.releasing,
        })
    };
    let families = pool
        .families
        .iter()
        .map(|text| family("spec.pools.families", text));
    Ok(Grant {
        blocks: pool.cidrs.iter().map(block).collect::<Result<_, _>>()?,
        families: families.collect::<Result<_, _>>()?,
        pool: pool.name,
        shortage: pool.shortage,
    })
}

fn report(pool: NodePoolStatus) -> Result<PoolReport, FaultError> {
    let block = |one: &NodeCidrStatus| {
        Ok(BlockReport {
            cidr: network("status.pools.cidrs", &one.cidr)?,
            used: one.used,
            resting: one.resting,
            released: one.released,
        })
    };
    Ok(PoolReport {
        blocks: pool.cidrs.iter().map(block).collect::<Result<_, _>>()?,
        pool: pool.name,
        wanted: pool.wanted,
    })
}

fn network(field: &str, text: &str) -> Result<IpNet, FaultError> {
    let expected = "a network without host bits, such as 10.32.0.0/13";
    let parsed = text.parse::<IpNet>().ok();
    parsed
        .filter(|net| *net == net.trunc() && net.prefix_len() > 0 && !net.addr().is_multicast())
        .ok_or_else(|| fault(field, text, expected))
}

fn family(field: &str, text: &str) -> Result<Family, FaultError> {
    match text {
        "ipv4" => Ok(Family::Ipv4),
        "ipv6" => Ok(Family::Ipv6),
        _ => Err(fault(field, text, "ipv4 or ipv6")),
    }
}

fn fault(field: &str, value: &str, expected: &'static str) -> FaultError {
    FaultError {
        field: field.to_owned(),
        value: value.to_owned(),
        expected,
    }
}

fn pool_use(status: &FamilyStatus) -> Option<PoolUse> {
    Some(PoolUse {
        family: family("", &status.family).ok()?,
        blocks: status.blocks,
        blocks_held: status.blocks_held,
        capacity: status.capacity,
        used: status.used,
        exhausted_in: status.exhausted_in_seconds,
    })
}

impl From<Condition> for PoolCondition {
    fn from(condition: Condition) -> Self {
        Self {
            ok: condition.status == "True",
            kind: condition.kind,
            reason: condition.reason,
            message: condition.message,
            since: condition.last_transition_time,
        }
    }
}

impl From<PoolCondition> for Condition {
    fn from(condition: PoolCondition) -> Self {
        Self {
            kind: condition.kind,
            status: if condition.ok { "True" } else { "False" }.to_owned(),
            last_transition_time: condition.since,
            reason: condition.reason,
            message: condition.message,
        }
    }
}

impl From<PoolUse> for FamilyStatus {
    fn from(one: PoolUse) -> Self {
        Self {
            family: one.family.to_string(),
            blocks: one.blocks,
            blocks_held: one.blocks_held,
            capacity: one.capacity,
            used: one.used,
            free: one.capacity.saturating_sub(one.used),
            exhausted_in_seconds: one.exhausted_in,
        }
    }
}

impl From<Holder> for BlockHolder {
    fn from(holder: Holder) -> Self {
        Self {
            node: holder.node,
            uid: holder.uid,
        }
    }
}

impl From<Grant> for NodePool {
    fn from(grant: Grant) -> Self {
        let cidr = |block: Block| NodeCidr {
            cidr: block.cidr.to_string(),
            releasing: block.releasing,
        };
        Self {
            name: grant.pool,
            families: grant.families.iter().map(ToString::to_string).collect(),
            cidrs: grant.blocks.into_iter().map(cidr).collect(),
            shortage: grant.shortage,
        }
    }
}

impl From<&NodeReport> for NodeStatus {
    fn from(report: &NodeReport) -> Self {
        let blocks = || report.pools.iter().flat_map(|pool| &pool.blocks);
        let first = blocks().map(|block| Family::of_net(&block.cidr)).min();
        let of_first = || blocks().filter(|block| Some(Family::of_net(&block.cidr)) == first);
        let sizes = of_first().map(|block| model::usable_addresses(&block.cidr));
        let capacity = sizes.fold(0, u128::saturating_add).min(i64::MAX as u128);
        Self {
            observed_generation: report.generation,
            capacity: u64::try_from(capacity).unwrap_or_default(),
            used: of_first().map(|block| u64::from(block.used)).sum(),
            pools: report.pools.iter().map(pool_status).collect(),
        }
    }
}

fn pool_status(report: &PoolReport) -> NodePoolStatus {
    let cidr = |block: &BlockReport| NodeCidrStatus {
        cidr: block.cidr.to_string(),
        used: block.used,
        resting: block.resting,
        released: block.released,
    };
    NodePoolStatus {
        name: report.pool.clone(),
        wanted: report.wanted,
        cidrs: report.blocks.iter().map(cidr).collect(),
    }
}

/// A ledger's entries as they are written.
#[must_use]
pub fn entries(blocks: &BTreeMap<IpNet, Holder>) -> BTreeMap<String, BlockHolder> {
    let entry = |(cidr, holder): (&IpNet, &Holder)| (cidr.to_string(), holder.clone().into());
    blocks.iter().map(entry).collect()
}
