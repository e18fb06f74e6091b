// SPDX-License-Identifier: Apache-2.0
//! Pools of addresses that the operator hands out to nodes, block by block.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::Family;

/// The pool of pods that name none.
pub const DEFAULT_POOL: &str = "default";

/// A pool of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpPool {
    /// Its name.
    pub name: String,
    /// What the API calls this very object; another of the same name has another.
    pub uid: String,
    /// The object's version, for writes that must not meet another state.
    pub version: String,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// How often its specification has changed.
    pub generation: i64,
    /// What it consists of, at most one range per family, IPv4 first.
    pub ranges: Vec<PoolRange>,
    /// What is wrong with its specification, if it cannot be understood; it has no ranges then.
    pub fault: Option<String>,
    /// Which node holds which block: the one place that decides it.
    pub blocks: BTreeMap<IpNet, Holder>,
    /// The term of the operator that wrote last.
    pub term: u64,
    /// How often operators have written the ledger; every write changes it, so that none is a write of the same.
    pub sequence: u64,
    /// Whether somebody wants it deleted: no block of it is handed out any more.
    pub deleting: bool,
    /// Whether the API keeps it while nodes hold blocks of it.
    pub guarded: bool,
    /// How it is, as the operator last wrote.
    pub state: PoolState,
}

/// One family's part of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolRange {
    /// Networks without host bits, at least one, of one family.
    pub cidrs: Vec<IpNet>,
    /// The prefix length of the blocks that nodes get.
    pub block_len: u8,
}

/// Who holds a block.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// The node's name.
    pub node: String,
    /// The UID of its [`NodePools`]: a node that was deleted and came again is another holder.
    pub uid: String,
}

/// How a pool is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolState {
    /// The generation that this describes.
    pub generation: i64,
    /// Per family of the pool.
    pub families: Vec<PoolUse>,
    /// What is the case, by kind.
    pub conditions: Vec<PoolCondition>,
}

/// How full one family's part of a pool is. Counts stop at the largest 63-bit number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolUse {
    /// The family.
    pub family: Family,
    /// Blocks there are.
    pub blocks: u64,
    /// Blocks that nodes hold.
    pub blocks_held: u64,
    /// Addresses that pods can have, over all blocks.
    pub capacity: u64,
    /// Addresses that pods have, as the nodes last said.
    pub used: u64,
    /// Seconds until the last address is used if use grows as it did lately; nothing while that is not known.
    pub exhausted_in: Option<u64>,
}

/// Something that is, or is not, the case with a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolCondition {
    /// What it is about, such as `Accepted`.
    pub kind: String,
    /// Whether it is the case.
    pub ok: bool,
    /// Why, in one word.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// Since when; text of the API. Empty for one that has not been written yet.
    pub since: String,
}

/// What a node has of the pools, and what it says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePools {
    /// The node.
    pub node: String,
    /// What the API calls this very object.
    pub uid: String,
    /// The object's version.
    pub version: String,
    /// How often its specification has changed.
    pub generation: i64,
    /// The UID of the Node that it belongs to.
    pub owner: String,
    /// The term of the operator that wrote last.
    pub term: u64,
    /// What the operator has handed to the node.
    pub grants: Vec<Grant>,
    /// What the node's agent says.
    pub report: NodeReport,
}

/// What a node has of one pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The pool.
    pub pool: String,
    /// The families that a pod of this pool gets an address of, IPv4 first.
    pub families: Vec<Family>,
    /// The blocks, in the order of their addresses.
    pub blocks: Vec<Block>,
    /// Why the node does not get what it asked for; empty when it does.
    pub shortage: String,
}

/// A block of addresses at a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Block {
    /// The addresses.
    pub cidr: IpNet,
    /// Whether the operator wants it back: the node gives no new addresses from it.
    pub releasing: bool,
}

/// What a node's agent says about its blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// The generation of the specification that the agent acts on.
    pub generation: i64,
    /// Per pool.
    pub pools: Vec<PoolReport>,
}

/// What a node's agent says about one pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolReport {
    /// The pool.
    pub pool: String,
    /// How many addresses the node wants to have per family, those in use included.
    pub wanted: u32,
    /// The blocks that the agent knows.
    pub blocks: Vec<BlockReport>,
}

/// How full a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockReport {
    /// The block.
    pub cidr: IpNet,
    /// Addresses that pods have.
    pub used: u32,
    /// Addresses that rest until their connections are forgotten.
    pub resting: u32,
    /// Whether the node has done with it: no address of it is in use, none will be, and no route leads to it.
    pub released: bool,
}

/// A namespace of Kubernetes as far as the network cares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// The pool that its pods' addresses come from, if it says so.
    pub pool: Option<String>,
}

impl PoolRange {
    /// The family.
    #[must_use]
    pub fn family(&self) -> Family {
        self.cidrs.first().map_or(Family::Ipv4, Family::of_net)
    }

    /// Whether a block is one of this range as it is now.
    #[must_use]
    pub fn has(&self, block: &IpNet) -> bool {
        block.prefix_len() == self.block_len && self.cidrs.iter().any(|cidr| cidr.contains(block))
    }
}

impl IpPool {
    /// The range of a family.
    #[must_use]
    pub fn range(&self, family: Family) -> Option<&PoolRange> {
        self.ranges.iter().find(|range| range.family() == family)
    }

    /// All its networks.
    pub fn cidrs(&self) -> impl Iterator<Item = &IpNet> {
        self.ranges.iter().flat_map(|range| &range.cidrs)
    }

    /// A condition of its last state.
    #[must_use]
    pub fn condition(&self, kind: &str) -> Option<&PoolCondition> {
        self.state.conditions.iter().find(|one| one.kind == kind)
    }
}

impl NodePools {
    /// All its blocks.
    pub fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.grants.iter().flat_map(|grant| &grant.blocks)
    }

    /// What it has of a pool.
    #[must_use]
    pub fn grant(&self, pool: &str) -> Option<&Grant> {
        self.grants.iter().find(|grant| grant.pool == pool)
    }

    /// What its agent says about a block.
    #[must_use]
    pub fn reported(&self, cidr: &IpNet) -> Option<&BlockReport> {
        let blocks = self.report.pools.iter().flat_map(|pool| &pool.blocks);
        blocks.into_iter().find(|block| block.cidr == *cidr)
    }

    /// Whether what the agent says is about the specification as it is now. What it said about an older one may no longer hold.
    #[must_use]
    pub fn report_is_current(&self) -> bool {
        self.report.generation == self.generation
    }
}

/// How many addresses of a network pods can have: of an IPv4 network all but the first and the last, of an IPv6 one all but
/// the first (every router's, RFC 4291 §2.6.1), of a pair or a single one all.
#[must_use]
pub fn usable_addresses(cidr: &IpNet) -> u128 {
    let host_bits = cidr.max_prefix_len() - cidr.prefix_len();
    let all = 1_u128.checked_shl(host_bits.into()).unwrap_or(u128::MAX);
    match cidr {
        _ if host_bits <= 1 => all,
        IpNet::V4(_) => all - 2,
        IpNet::V6(_) => all - 1,
    }
}

/// Whether two networks share addresses.
#[must_use]
pub fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}
