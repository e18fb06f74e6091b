// SPDX-License-Identifier: Apache-2.0
//! Nodes with the blocks that they hold, and what this node may act on.

use ipnet::IpNet;
use model::{Machine, Node, NodePools};
use state::{Snapshot, Table, Writer};
use tracing::debug;

/// Joins the tables that the watches fill into those that the agent works with.
pub(super) struct Join {
    pub(super) own: String,
    pub(super) nodes: Table<Node>,
    pub(super) pools: Table<NodePools>,
    pub(super) machine: Table<Machine>,
    pub(super) joined: Writer<Node>,
    pub(super) granted: Writer<NodePools>,
}

impl Join {
    /// Runs until a watch is gone.
    pub(super) async fn run(mut self) {
        let (mut nodes, mut pools, mut machine) =
            (self.nodes.reader(), self.pools.reader(), self.machine.reader());
        loop {
            let more = tokio::select! {
                changed = nodes.changed() => changed.is_some(),
                changed = pools.changed() => changed.is_some(),
                changed = machine.changed() => changed.is_some(),
            };
            if !more {
                return;
            }
            self.update();
        }
    }

    fn update(&mut self) {
        let (nodes, pools, machine) = (
            self.nodes.snapshot(),
            self.pools.snapshot(),
            self.machine.snapshot(),
        );
        // What is not known yet must not look like what is gone.
        if !(nodes.in_sync() && pools.in_sync() && machine.in_sync()) {
            return;
        }
        let before = self.granted.snapshot().get(&self.own).cloned();
        let granted = granted(&self.own, &pools, &machine, before);
        self.granted.replace(granted.clone());
        self.joined
            .replace(joined(&nodes, &pools, granted.as_ref(), &self.own));
        self.granted.set_in_sync();
        self.joined.set_in_sync();
    }
}

/// What this node may act on: the object of this very Node (that of a predecessor of the same name is about to be deleted, and
/// its blocks with it), and never an older state of it than before: a block that was given back under the newer one would be
/// used again.
fn granted(
    own: &str,
    pools: &Snapshot<NodePools>,
    machine: &Snapshot<Machine>,
    before: Option<NodePools>,
) -> Option<NodePools> {
    let own = own.to_owned();
    let now = pools.get(&own)?;
    if machine.get(&own)?.uid != now.owner {
        debug!(
            node = own,
            "the ThalwegNode is of a Node that is gone; it is not used"
        );
        return None;
    }
    // Versions and reports change all the time and are nobody's business here.
    let essence = NodePools {
        version: String::new(),
        report: model::NodeReport::default(),
        ..now.clone()
    };
    match before {
        Some(before) if before.uid == now.uid && before.generation > now.generation => Some(before),
        _ => Some(essence),
    }
}

/// Every node with its blocks. This node's own leave out what is asked back: their route goes as soon as nobody uses it.
fn joined(
    nodes: &Snapshot<Node>,
    pools: &Snapshot<NodePools>,
    granted: Option<&NodePools>,
    own: &str,
) -> Vec<Node> {
    let blocks = |node: &Node| -> Vec<IpNet> {
        if node.name == own {
            let blocks = granted.into_iter().flat_map(NodePools::blocks);
            blocks
                .filter(|block| !block.releasing)
                .map(|block| block.cidr)
                .collect()
        } else {
            let blocks = pools.get(&node.name).into_iter().flat_map(NodePools::blocks);
            blocks.map(|block| block.cidr).collect()
        }
    };
    nodes
        .iter()
        .map(|node| Node {
            pod_cidrs: blocks(node),
            ..node.clone()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use model::{Block, Grant, NodeReport};

    use super::*;

    #[test]
    fn own_blocks_are_those_of_this_very_node_and_never_older_ones() {
        let machine: Snapshot<Machine> = [Machine {
            name: "a".into(),
            uid: "m2".into(),
            addresses: vec![],
        }]
        .into_iter()
        .collect();
        let seen = |generation, owner: &str, before| {
            let pools = [pools("a", generation, owner, false)].into_iter().collect();
            granted("a", &pools, &machine, before)
        };
        assert_eq!(seen(3, "m1", None), None, "of a predecessor of the same name");
        let now = seen(3, "m2", None);
        assert_eq!(now.as_ref().unwrap().generation, 3);
        assert_eq!(seen(2, "m2", now.clone()).unwrap().generation, 3);
        assert_eq!(seen(4, "m2", now).unwrap().generation, 4);
    }

    #[test]
    fn others_keep_a_block_until_it_is_taken_and_we_do_not() {
        let node = |name: &str| Node {
            name: name.into(),
            addresses: vec![],
            pod_cidrs: vec!["10.244.0.0/24".parse().unwrap()],
            zone: None,
        };
        let nodes = [node("a"), node("b"), node("c")].into_iter().collect();
        let both: Snapshot<NodePools> = [pools("a", 1, "m", true), pools("b", 1, "m", true)]
            .into_iter()
            .collect();
        let own = both.get(&"a".to_owned()).cloned();
        let joined = joined(&nodes, &both, own.as_ref(), "a");
        let counts: Vec<usize> = joined.iter().map(|node| node.pod_cidrs.len()).collect();
        assert_eq!(counts, [1, 2, 0], "the Node's own podCIDRs do not count");
    }

    fn pools(node: &str, generation: i64, owner: &str, releasing: bool) -> NodePools {
        let block = |text: &str, releasing| Block {
            cidr: text.parse().unwrap(),
            releasing,
        };
        NodePools {
            node: node.into(),
            uid: format!("u-{node}"),
            version: "1".into(),
            generation,
            owner: owner.into(),
            term: 1,
            grants: vec![Grant {
                pool: "default".into(),
                families: vec![],
                blocks: vec![block("10.0.0.0/24", false), block("10.0.1.0/24", releasing)],
                shortage: String::new(),
            }],
            report: NodeReport::default(),
        }
    }
}
