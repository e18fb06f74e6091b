// SPDX-License-Identifier: Apache-2.0
//! The world as the watches show it, with what we have written ourselves and they do not show yet.

use std::collections::BTreeMap;

use ipam::cluster::{Outcome, World};
use ipnet::IpNet;
use model::{IpPool, Machine, NodePools};
use state::{Row, Snapshot, Table};

/// The tables that the watches fill.
#[derive(Clone, Debug)]
pub(crate) struct Tables {
    pub(crate) pools: Table<IpPool>,
    pub(crate) nodes: Table<NodePools>,
    pub(crate) machines: Table<Machine>,
}

impl Tables {
    pub(crate) fn in_sync(&self) -> bool {
        self.pools.snapshot().in_sync()
            && self.nodes.snapshot().in_sync()
            && self.machines.snapshot().in_sync()
    }
}

/// What we have written and no watch has shown yet.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pools: BTreeMap<String, IpPool>,
    nodes: BTreeMap<String, NodePools>,
}

impl Written {
    /// Keeps the answer to a write.
    pub(crate) fn remember(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Pool(pool) => drop(self.pools.insert(pool.name.clone(), (**pool).clone())),
            Outcome::Node(node) => drop(self.nodes.insert(node.node.clone(), (**node).clone())),
            Outcome::Gone | Outcome::Conflict | Outcome::Refused | Outcome::Unknown => {}
        }
    }

    /// The world; what the watches have caught up with is forgotten.
    pub(crate) fn world(&mut self, tables: &Tables, service_cidrs: &[IpNet]) -> World {
        let machines = tables.machines.snapshot();
        World {
            pools: merged(&tables.pools.snapshot(), &mut self.pools, |pool| &pool.version),
            nodes: merged(&tables.nodes.snapshot(), &mut self.nodes, |node| &node.version),
            machines: machines
                .iter()
                .map(|machine| (machine.name.clone(), machine.clone()))
                .collect(),
            service_cidrs: service_cidrs.to_vec(),
        }
    }
}

/// Of each row the newer version. An object that the watch does not show at all is gone, or so new that it will come.
fn merged<R: Row<Key = String>>(
    watched: &Snapshot<R>,
    written: &mut BTreeMap<String, R>,
    version: impl Fn(&R) -> &String,
) -> BTreeMap<String, R> {
    written.retain(|key, ours| {
        watched
            .get(key)
            .is_some_and(|row| is_newer(version(ours), version(row)))
    });
    let row = |row: &R| {
        let key = row.key();
        let newest = written.get(&key).unwrap_or(row).clone();
        (key, newest)
    };
    watched.iter().map(row).collect()
}

/// Versions of one kind compare as numbers (KEP-5504); where they do not, what the watch says wins.
fn is_newer(ours: &str, theirs: &str) -> bool {
    matches!((ours.parse::<u64>(), theirs.parse::<u64>()), (Ok(ours), Ok(theirs)) if ours > theirs)
}

#[cfg(test)]
mod tests {
    use model::NodeReport;
    use state::table;

    use super::*;

    #[test]
    fn what_we_wrote_counts_until_the_watch_shows_something_newer() {
        let (mut writer, nodes) = table("nodes");
        let tables = Tables {
            pools: table("pools").1,
            nodes,
            machines: table("machines").1,
        };
        let mut written = Written::default();
        let term = |written: &mut Written| written.world(&tables, &[]).nodes["a"].term;
        writer.upsert(node(9, 1));
        written.remember(&Outcome::Node(Box::new(node(10, 2))));
        assert_eq!(term(&mut written), 2, "versions are numbers, not texts");
        writer.upsert(node(11, 3));
        assert_eq!(term(&mut written), 3);
        assert!(written.nodes.is_empty());
    }

    fn node(version: u64, term: u64) -> NodePools {
        NodePools {
            node: "a".into(),
            uid: "u".into(),
            version: version.to_string(),
            generation: 1,
            owner: String::new(),
            term,
            grants: Vec::new(),
            report: NodeReport::default(),
        }
    }
}
