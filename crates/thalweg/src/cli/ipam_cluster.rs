// SPDX-License-Identifier: Apache-2.0
//! The cluster's pools in `thalweg ipam status`: from the API's objects, so that it works without any operator.

use std::collections::BTreeMap;

use api::crd::FamilyStatus;
use comfy_table::Cell;
use ipnet::IpNet;
use model::{Family, IpPool, NodePools};
use serde::Serialize;

use super::agents::AgentArgs;
use super::ipam::capacity;
use super::output::{self, Text, bad, duration, good, join, plain_or_bad};

/// Pools and nodes; empty where the cluster has none.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cluster {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cluster_pools: Vec<PoolView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cluster_nodes: Vec<NodeView>,
}

/// One family of a pool.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct PoolView {
    pool: String,
    networks: Vec<IpNet>,
    node_mask_size: u8,
    /// How full it is; the forecast is `exhaustedInSeconds`, absent while it is not known.
    #[serde(flatten)]
    state: FamilyStatus,
    accepted: bool,
    /// What is wrong with it; empty when nothing is.
    problem: String,
}

/// What a node has of a pool.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeView {
    node: String,
    pool: String,
    blocks: Vec<IpNet>,
    releasing: Vec<IpNet>,
    capacity: u64,
    used: u64,
    wanted: u32,
    shortage: String,
}

impl Cluster {
    /// Asks the API of the lab or cluster that is meant.
    pub(super) async fn ask(args: &AgentArgs) -> anyhow::Result<Self> {
        let Some(client) = args.api().await? else {
            return Ok(Self::default());
        };
        let Some((pools, nodes)) = k8s::IpPools::new(client).list().await? else {
            return Ok(Self::default());
        };
        Ok(Self {
            cluster_pools: pools.iter().flat_map(pool_views).collect(),
            cluster_nodes: nodes.iter().flat_map(node_views).collect(),
        })
    }

    /// The tables.
    pub(super) fn text(&self) -> Text {
        let mut pools = output::table(&[
            "POOL",
            "NETWORKS",
            "BLOCKS",
            ">HELD",
            ">CAPACITY",
            ">USED",
            ">FREE",
            "FULL IN",
            "STATE",
        ]);
        for pool in &self.cluster_pools {
            pools.add_row(pool_cells(pool));
        }
        let mut nodes = output::table(&[
            "NODE",
            "POOL",
            ">BLOCKS",
            ">CAPACITY",
            ">USED",
            ">WANTED",
            "STATE",
        ]);
        for node in &self.cluster_nodes {
            nodes.add_row(vec![
                Cell::new(&node.node),
                Cell::new(&node.pool),
                Cell::new(node.blocks.len()),
                Cell::new(capacity(node.capacity)),
                Cell::new(node.used),
                plain_or_bad(node.wanted, u64::from(node.wanted) > node.capacity),
                state(&node.shortage),
            ]);
        }
        let mut text = Text::default();
        text.section("Pools of the cluster", &pools);
        text.section("What nodes have of them", &nodes);
        text
    }
}

fn pool_cells(pool: &PoolView) -> Vec<Cell> {
    let full_in = pool.state.exhausted_in_seconds.map_or_else(
        || {
            if pool.state.free == 0 {
                "full".to_owned()
            } else {
                "unknown".to_owned()
            }
        },
        duration,
    );
    vec![
        Cell::new(&pool.pool),
        Cell::new(join(&pool.networks)),
        Cell::new(format!("/{}", pool.node_mask_size)),
        Cell::new(format!("{} of {}", pool.state.blocks_held, pool.state.blocks)),
        Cell::new(capacity(pool.state.capacity)),
        Cell::new(pool.state.used),
        plain_or_bad(capacity(pool.state.free), pool.state.free == 0),
        Cell::new(full_in),
        state(&pool.problem),
    ]
}

fn state(problem: &str) -> Cell {
    if problem.is_empty() {
        good("ok")
    } else {
        bad(problem)
    }
}

fn pool_views(pool: &IpPool) -> Vec<PoolView> {
    let accepted = pool.condition("Accepted");
    let exhausted = pool.condition("Exhausted").filter(|one| one.ok);
    let problem = match accepted {
        None => "no operator has looked at it yet; see whether thalweg-operator runs".to_owned(),
        Some(accepted) if !accepted.ok => accepted.message.clone(),
        Some(_) if pool.deleting => "is being deleted, waits for nodes to give its blocks back".to_owned(),
        Some(_) => exhausted.map(|one| one.message.clone()).unwrap_or_default(),
    };
    let ranges = pool.ranges.iter().map(|range| {
        let state = pool.state.families.iter();
        let state = state.copied().find(|one| one.family == range.family());
        PoolView {
            pool: pool.name.clone(),
            networks: range.cidrs.clone(),
            node_mask_size: range.block_len,
            state: state.map(FamilyStatus::from).unwrap_or_default(),
            accepted: accepted.is_some_and(|one| one.ok),
            problem: problem.clone(),
        }
    });
    ranges.collect()
}

fn node_views(node: &NodePools) -> Vec<NodeView> {
    let view = |grant: &model::Grant| {
        let blocks = |releasing: bool| -> Vec<IpNet> {
            let some = grant.blocks.iter().filter(|block| block.releasing == releasing);
            some.map(|block| block.cidr).collect()
        };
        let report = node.report.pools.iter().find(|report| report.pool == grant.pool);
        let mut by_family: BTreeMap<Family, (u128, u64)> = BTreeMap::new();
        for block in blocks(false) {
            let (capacity, used) = by_family.entry(Family::of_net(&block)).or_default();
            *capacity = capacity.saturating_add(model::usable_addresses(&block));
            *used += u64::from(node.reported(&block).map_or(0, |report| report.used));
        }
        // The family that has least left decides.
        let tight = by_family
            .into_values()
            .min_by_key(|(capacity, used)| capacity.saturating_sub(u128::from(*used)));
        let (capacity, used) = tight.unwrap_or_default();
        NodeView {
            node: node.node.clone(),
            pool: grant.pool.clone(),
            blocks: blocks(false),
            releasing: blocks(true),
            capacity: u64::try_from(capacity).unwrap_or(u64::MAX),
            used,
            wanted: report.map_or(0, |report| report.wanted),
            shortage: grant.shortage.clone(),
        }
    };
    node.grants.iter().map(view).collect()
}
