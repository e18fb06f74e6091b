// SPDX-License-Identifier: Apache-2.0
//! Our own kinds of Kubernetes objects, as they are written there, and what they become.
//!
//! [`PoolSpec`] and [`PoolStatus`] are of a `ThalwegPool`, [`NodeSpec`] and [`NodeStatus`] of a `ThalwegNode`; both are
//! cluster-wide. The operator alone writes a ThalwegNode's specification, its agent alone the status: an agent needs no right to
//! give itself addresses. [`definitions`] are the CustomResourceDefinitions.

mod parse;
mod schema;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use parse::{FaultError, Meta, entries, node_pools, pool};
pub use schema::definitions;

/// The group of our kinds.
pub const GROUP: &str = "thalweg.io";
/// Their version.
pub const VERSION: &str = "v1alpha1";
/// The kind of a pool.
pub const POOL_KIND: &str = "ThalwegPool";
/// Its name in paths.
pub const POOL_PLURAL: &str = "thalwegpools";
/// The kind of a node.
pub const NODE_KIND: &str = "ThalwegNode";
/// Its name in paths.
pub const NODE_PLURAL: &str = "thalwegnodes";
/// On a pod or a namespace: the pool that addresses come from. The pod's own wins.
pub const POOL_ANNOTATION: &str = "ipam.thalweg.io/pool";
/// Keeps a pool while nodes hold blocks of it.
pub const POOL_FINALIZER: &str = "ipam.thalweg.io/blocks";

/// What a pool consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolSpec {
    /// Its IPv4 addresses; pods get none without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<PoolRange>,
    /// Its IPv6 addresses; pods get none without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<PoolRange>,
}

/// One family's part of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolRange {
    /// Networks. One that is added is used at once; of one that is taken out nothing more is handed out.
    pub cidrs: Vec<String>,
    /// The prefix length of the blocks that nodes get.
    pub node_mask_size: u8,
}

/// What the operator says about a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PoolStatus {
    /// The generation that this describes.
    pub observed_generation: i64,
    /// The term of the operator that wrote last.
    pub term: u64,
    /// How often operators have written.
    pub sequence: u64,
    /// The ledger: who holds which block.
    pub blocks: BTreeMap<String, BlockHolder>,
    /// How full it is, per family.
    pub families: Vec<FamilyStatus>,
    /// What is the case.
    pub conditions: Vec<Condition>,
}

/// Who holds a block.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockHolder {
    /// The node.
    pub node: String,
    /// The UID of its ThalwegNode.
    pub uid: String,
}

/// How full one family's part of a pool is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FamilyStatus {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Blocks there are.
    pub blocks: u64,
    /// Blocks that nodes hold.
    pub blocks_held: u64,
    /// Addresses that pods can have.
    pub capacity: u64,
    /// Addresses that pods have.
    pub used: u64,
    /// Addresses that are left.
    pub free: u64,
    /// Seconds until none is left if use goes on growing; absent while that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exhausted_in_seconds: Option<u64>,
}

/// A condition, as Kubernetes has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True` or `False`.
    pub status: String,
    /// Since when.
    pub last_transition_time: String,
    /// Why, in one word.
    pub reason: String,
    /// Why, for people.
    pub message: String,
}

/// What a node has been handed. The operator writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSpec {
    /// The term of the operator that wrote last.
    pub term: u64,
    /// Per pool.
    pub pools: Vec<NodePool>,
}

/// What a node has of one pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodePool {
    /// The pool.
    pub name: String,
    /// The families that a pod of it gets an address of: `ipv4`, `ipv6`.
    pub families: Vec<String>,
    /// The blocks.
    pub cidrs: Vec<NodeCidr>,
    /// Why the node does not get what it asks for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub shortage: String,
}

/// A block at a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeCidr {
    /// The block.
    pub cidr: String,
    /// Whether it is wanted back.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub releasing: bool,
}

/// What a node says. Its agent writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    /// The generation of the specification that the agent acts on.
    pub observed_generation: i64,
    /// Addresses that pods can have, of the first family.
    pub capacity: u64,
    /// Addresses that pods have, of the first family.
    pub used: u64,
    /// Per pool.
    pub pools: Vec<NodePoolStatus>,
}

/// What a node says about a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodePoolStatus {
    /// The pool.
    pub name: String,
    /// How many addresses the node wants to have per family, those in use included.
    pub wanted: u32,
    /// How full its blocks are.
    pub cidrs: Vec<NodeCidrStatus>,
}

/// How full a block is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeCidrStatus {
    /// The block.
    pub cidr: String,
    /// Addresses that pods have.
    pub used: u32,
    /// Addresses that rest until their connections are forgotten.
    pub resting: u32,
    /// Whether the node has done with it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub released: bool,
}
