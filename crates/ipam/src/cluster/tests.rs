// SPDX-License-Identifier: Apache-2.0
//! The rules one by one. That they suffice together is what the simulation shows.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test makes some kinds of writes fail"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use model::{
    Block, BlockReport, Family, Grant, Holder, IpPool, Machine, NodePools, NodeReport, PoolRange, PoolReport,
    PoolState,
};

use super::*;

const TERM: u64 = 7;

#[test]
fn a_new_node_gets_a_block_of_each_family_and_one_that_wants_more_gets_more() {
    let mut api = Api::new(&["a"]);
    api.pass();
    assert_eq!(
        api.blocks("a"),
        ["10.0.0.0/29", "fd00::/64"],
        "before it has said a word"
    );
    api.report("a", 8, &[]);
    api.pass();
    assert_eq!(api.blocks("a"), ["10.0.0.0/29", "10.0.0.8/29", "fd00::/64"]);
    assert_eq!(api.world.pools["default"].blocks.len(), 3);
}

#[test]
fn of_a_dry_pool_those_get_most_who_have_least_and_the_others_are_told_why() {
    let mut api = Api::new(&["a", "b"]);
    api.pass();
    // 10.0.0.0/27 has four blocks; two are given.
    api.report("a", 30, &[("10.0.0.0/29", 6, false)]);
    api.report("b", 30, &[("10.0.0.8/29", 1, false)]);
    api.pass();
    assert_eq!(api.blocks("a")[1], "10.0.0.16/29", "one each before a second one");
    assert_eq!(api.blocks("b")[1], "10.0.0.24/29");
    for node in ["a", "b"] {
        let shortage = &api.world.nodes[node].grants[0].shortage;
        assert!(
            shortage.contains("no free /29 of ipv4 left (4 of 4 handed out)"),
            "{shortage}"
        );
    }
    api.pass();
    assert!(is_exhausted(&api.world.pools["default"]), "said a pass later");
    let pool = api.world.pools.get_mut("default").unwrap();
    pool.ranges[0].cidrs.push(net("10.1.0.0/24"));
    api.pass();
    assert_eq!(
        api.world.nodes["a"].grants[0].shortage, "",
        "widened, and all is well"
    );
    api.pass();
    assert!(!is_exhausted(&api.world.pools["default"]));
}

#[test]
fn a_block_goes_back_only_by_a_report_about_this_very_generation() {
    let mut api = Api::new(&["a"]);
    api.pass();
    api.report("a", 8, &[]);
    api.pass();
    api.report("a", 2, &[("10.0.0.0/29", 1, false), ("10.0.0.8/29", 0, false)]);
    api.pass();
    assert!(api.releasing("a").is_empty(), "a surplus must last");
    api.now += HOLD;
    api.pass();
    assert_eq!(api.releasing("a"), ["10.0.0.8/29"]);

    // Released, but under an older specification: it may be in use again since.
    let generation = api.world.nodes["a"].generation;
    let released = [("10.0.0.0/29", 1, false), ("10.0.0.8/29", 0, true)];
    api.report("a", 2, &released);
    api.node("a").report.generation = generation - 1;
    api.pass();
    assert_eq!(api.releasing("a"), ["10.0.0.8/29"]);
    api.node("a").report.generation = generation;
    api.pass();
    assert_eq!(api.blocks("a"), ["10.0.0.0/29", "fd00::/64"]);
    assert!(
        !api.world.pools["default"]
            .blocks
            .contains_key(&net("10.0.0.8/29"))
    );

    // What was just given back is another node's last choice.
    api.join("b");
    api.pass();
    assert_eq!(api.blocks("b")[0], "10.0.0.16/29");
}

#[test]
fn a_node_that_needs_its_block_again_keeps_it() {
    let mut api = Api::new(&["a"]);
    api.pass();
    api.report("a", 8, &[]);
    api.pass();
    api.report("a", 2, &[("10.0.0.8/29", 0, false)]);
    api.pass();
    api.now += HOLD;
    api.pass();
    assert_eq!(api.releasing("a").len(), 1);
    api.report("a", 9, &[]);
    api.pass();
    assert!(api.releasing("a").is_empty());
    assert_eq!(
        api.world.pools["default"].blocks.len(),
        3,
        "and no further one was handed out"
    );
}

#[test]
fn nothing_is_granted_by_a_ledger_that_is_not_known_for_certain() {
    let mut api = Api::new(&["a"]);
    api.fate = |write| match write {
        Write::Pool(_) => Some(Outcome::Unknown),
        _ => None,
    };
    let writes = api.pass();
    assert!(
        writes.iter().all(|write| !matches!(write, Write::Grants { .. })),
        "{writes:?}"
    );
    // An entry of an earlier term is completed, but only once the ledger is ours.
    let holder = api.holder("a");
    let pool = api.world.pools.get_mut("default").unwrap();
    pool.blocks.insert(net("10.0.0.24/29"), holder);
    (pool.term, pool.guarded) = (TERM, true);
    let writes = api.pass();
    assert!(
        writes.iter().all(|write| !matches!(write, Write::Grants { .. })),
        "its term alone is not enough: a write of ours may be under way"
    );
    api.fate = |_| None;
    let writes = api.pass();
    assert!(
        matches!(writes[0], Write::Pool(_)),
        "first it is made certain: {writes:?}"
    );
    assert!(api.blocks("a").contains(&"10.0.0.24/29".to_owned()));
}

#[test]
fn who_finds_a_later_term_stops() {
    let mut api = Api::new(&["a"]);
    api.pass();
    api.world.pools.get_mut("default").unwrap().term = TERM + 1;
    let error = Pass::new(api.world.clone(), Memory::default(), TERM, (0, HOLD)).unwrap_err();
    assert_eq!(
        error,
        Deposed {
            own: TERM,
            found: TERM + 1
        }
    );
}

#[test]
fn a_holder_that_the_watch_does_not_show_is_asked_for_before_its_blocks_are_free() {
    for (answer, left) in [(true, 3), (false, 2)] {
        let mut api = Api::new(&["a"]);
        api.pass();
        api.join("b");
        let late = api.object("b");
        let holder = Holder {
            node: "b".into(),
            uid: late.uid.clone(),
        };
        api.world
            .pools
            .get_mut("default")
            .unwrap()
            .blocks
            .insert(net("10.0.0.24/29"), holder);
        api.world.machines.remove("b");
        api.unseen = answer.then_some(late);
        let writes = api.pass();
        assert!(
            writes
                .iter()
                .any(|write| matches!(write, Write::Ask { node, .. } if node == "b"))
        );
        assert_eq!(api.world.pools["default"].blocks.len(), left);
    }
}

#[test]
fn a_block_that_a_node_has_and_no_ledger_knows_is_entered_again() {
    let mut api = Api::new(&["a", "b"]);
    api.pass();
    let before = api.world.pools["default"].blocks.clone();
    api.world.pools.get_mut("default").unwrap().blocks.clear();
    api.report("b", 8, &[]);
    api.pass();
    api.pass();
    let after = &api.world.pools["default"].blocks;
    assert!(
        before
            .iter()
            .all(|(block, holder)| after.get(block) == Some(holder)),
        "{after:?}"
    );
    let more = api.blocks("b");
    assert_eq!(
        more,
        ["10.0.0.8/29", "10.0.0.16/29", "fd00:0:0:1::/64"],
        "and none of them went to another node"
    );
}

#[test]
fn a_pool_beside_one_whose_refusal_could_not_be_written_waits() {
    let mut api = Api::new(&["a"]);
    api.world
        .pools
        .insert("late".into(), pool("late", "10.0.0.0/28", 9));
    api.fate = |write| match write {
        Write::Pool(write) if write.pool == "late" => Some(Outcome::Conflict),
        Write::Guard { pool, .. } if pool == "late" => Some(Outcome::Conflict),
        _ => None,
    };
    api.pass();
    api.pass();
    assert!(
        api.world.pools["default"].blocks.is_empty(),
        "the other may have been accepted by an operator before us, and have handed out blocks"
    );
    api.fate = |_| None;
    api.pass();
    api.pass();
    assert_eq!(api.blocks("a").len(), 2);
}

#[test]
fn the_first_of_two_pools_that_overlap_stays_and_both_are_named() {
    let mut world = Api::new(&["a"]).world;
    world.pools.insert("aaa".into(), pool("aaa", "10.0.0.16/28", 9));
    let said = |world: &World| judge(world)["aaa"].to_string();
    assert_eq!(
        said(&world),
        "10.0.0.16/28 overlaps 10.0.0.0/27 of ThalwegPool default; choose networks that are apart"
    );
    let holder = Holder {
        node: "a".into(),
        uid: "u".into(),
    };
    let blocks = &mut world.pools.get_mut("aaa").unwrap().blocks;
    blocks.insert(net("10.0.0.16/29"), holder);
    assert!(
        judge(&world).contains_key("default"),
        "the one that nodes hold blocks of stays"
    );
}

#[test]
fn pools_with_addresses_of_nodes_or_services_are_refused() {
    let mut world = Api::new(&["a"]).world;
    world.service_cidrs = vec![net("10.0.0.0/16")];
    assert_eq!(judge(&world)["default"].reason(), "OverlapsServices");
    world.service_cidrs.clear();
    let address: IpAddr = "10.0.0.7".parse().unwrap();
    world.machines.get_mut("a").unwrap().addresses = vec![address];
    let refusal = &judge(&world)["default"];
    assert_eq!(refusal.reason(), "ContainsNode");
    assert!(refusal.to_string().contains("10.0.0.7, the address of node a"));
    world.pools.get_mut("default").unwrap().fault = Some("spec: nonsense".into());
    assert_eq!(judge(&world)["default"].reason(), "Invalid");
}

#[test]
fn a_pool_that_is_being_deleted_goes_when_its_last_block_is_back() {
    let mut api = Api::new(&["a"]);
    api.pass();
    assert!(api.world.pools["default"].guarded);
    api.world.pools.get_mut("default").unwrap().deleting = true;
    api.report("a", 2, &[("10.0.0.0/29", 0, false), ("fd00::/64", 0, false)]);
    api.pass();
    api.now += HOLD;
    api.pass();
    assert_eq!(api.releasing("a").len(), 2);
    api.report("a", 2, &[("10.0.0.0/29", 0, true), ("fd00::/64", 0, true)]);
    api.pass();
    api.pass();
    assert!(!api.world.pools["default"].guarded, "nothing keeps it any more");
    assert!(
        api.world.nodes["a"].grants[0]
            .shortage
            .contains("is being deleted")
    );
}

#[test]
fn a_forecast_needs_growth_and_time() {
    let mut history = History::default();
    history.sample(0, 10);
    history.sample(10, 11);
    assert_eq!(history.exhausted_in(100), None, "ten seconds say nothing");
    for second in (20..=120).step_by(10) {
        history.sample(second, 10 + second / 10);
    }
    assert_eq!(
        history.exhausted_in(100),
        Some(780),
        "78 are left, one every ten seconds"
    );
    let mut flat = History::default();
    for second in (0..=600).step_by(10) {
        flat.sample(second, 50);
    }
    assert_eq!(flat.exhausted_in(100), None);
}

/// An API whose writes can be made to fail.
struct Api {
    world: World,
    memory: Memory,
    now: u64,
    version: u64,
    fate: fn(&Write) -> Option<Outcome>,
    /// An object that exists although the watch does not show it.
    unseen: Option<NodePools>,
}

impl Api {
    fn new(nodes: &[&str]) -> Self {
        let mut api = Self {
            world: World::default(),
            memory: Memory::default(),
            now: 0,
            version: 100,
            fate: |_| None,
            unseen: None,
        };
        let mut default = pool("default", "10.0.0.0/27", 1);
        default.ranges.push(PoolRange {
            cidrs: vec![net("fd00::/48")],
            block_len: 64,
        });
        api.world.pools.insert("default".into(), default);
        for node in nodes {
            api.join(node);
        }
        api
    }

    fn join(&mut self, node: &str) {
        let machine = Machine {
            name: node.into(),
            uid: format!("machine-{node}"),
            addresses: vec![],
        };
        self.world.machines.insert(node.into(), machine);
    }

    fn object(&self, node: &str) -> NodePools {
        NodePools {
            node: node.into(),
            uid: format!("uid-{node}"),
            version: "1".into(),
            generation: 1,
            owner: format!("machine-{node}"),
            term: 0,
            grants: vec![],
            report: NodeReport::default(),
        }
    }

    fn node(&mut self, node: &str) -> &mut NodePools {
        self.world.nodes.get_mut(node).unwrap()
    }

    fn holder(&self, node: &str) -> Holder {
        Holder {
            node: node.into(),
            uid: self.world.nodes[node].uid.clone(),
        }
    }

    fn blocks(&self, node: &str) -> Vec<String> {
        let blocks = self.world.nodes[node].blocks();
        blocks.map(|block| block.cidr.to_string()).collect()
    }

    fn releasing(&self, node: &str) -> Vec<String> {
        let blocks = self.world.nodes[node].blocks();
        let some = blocks.filter(|block| block.releasing);
        some.map(|block| block.cidr.to_string()).collect()
    }

    fn report(&mut self, node: &str, wanted: u32, blocks: &[(&str, u32, bool)]) {
        let block = |(cidr, used, released): &(&str, u32, bool)| BlockReport {
            cidr: net(cidr),
            used: *used,
            resting: 0,
            released: *released,
        };
        let node = self.node(node);
        node.report = NodeReport {
            generation: node.generation,
            pools: vec![PoolReport {
                pool: "default".into(),
                wanted,
                blocks: blocks.iter().map(block).collect(),
            }],
        };
    }

    /// One pass; all that it wanted to write.
    fn pass(&mut self) -> Vec<Write> {
        let memory = std::mem::take(&mut self.memory);
        let mut pass = Pass::new(self.world.clone(), memory, TERM, (self.now, HOLD)).unwrap();
        let mut all = Vec::new();
        loop {
            let batch = pass.batch();
            if batch.is_empty() {
                break;
            }
            for write in batch {
                let outcome = (self.fate)(&write).unwrap_or_else(|| self.write(&write));
                pass.done(&write, outcome);
                all.push(write);
            }
        }
        self.memory = pass.finish();
        all
    }

    fn write(&mut self, write: &Write) -> Outcome {
        self.version += 1;
        let version = self.version.to_string();
        match write {
            Write::Create { node, .. } => {
                let object = self.object(node);
                self.world.nodes.insert(node.clone(), object.clone());
                Outcome::Node(Box::new(object))
            }
            Write::Delete { node, .. } => {
                self.world.nodes.remove(node);
                Outcome::Gone
            }
            Write::Ask { .. } => match &self.unseen {
                Some(object) => Outcome::Node(Box::new(object.clone())),
                None => Outcome::Gone,
            },
            Write::Guard { pool, on, .. } => {
                let pool = self.world.pools.get_mut(pool).unwrap();
                (pool.guarded, pool.version) = (*on, version);
                Outcome::Pool(Box::new(pool.clone()))
            }
            Write::Pool(write) => {
                let pool = self.world.pools.get_mut(&write.pool).unwrap();
                assert_eq!(pool.version, write.version);
                pool.blocks.extend(write.add.clone());
                pool.blocks.retain(|block, _| !write.remove.contains(block));
                (pool.term, pool.version) = (write.term, version);
                pool.state.clone_from(&write.state);
                Outcome::Pool(Box::new(pool.clone()))
            }
            Write::Grants {
                node, grants, term, ..
            } => {
                let known: BTreeSet<IpNet> = self
                    .world
                    .pools
                    .values()
                    .flat_map(|pool| pool.blocks.keys().copied())
                    .collect();
                let blocks = grants.iter().flat_map(|grant: &Grant| &grant.blocks);
                for Block { cidr, .. } in blocks {
                    assert!(known.contains(cidr), "{cidr} is granted and in no ledger");
                }
                let node = self.world.nodes.get_mut(node).unwrap();
                (node.version, node.generation, node.term) = (version, node.generation + 1, *term);
                node.grants.clone_from(grants);
                Outcome::Node(Box::new(node.clone()))
            }
        }
    }
}

fn pool(name: &str, cidr: &str, created: i64) -> IpPool {
    IpPool {
        name: name.into(),
        uid: format!("pool-{name}"),
        version: "1".into(),
        created,
        generation: 1,
        ranges: vec![PoolRange {
            cidrs: vec![net(cidr)],
            block_len: 29,
        }],
        fault: None,
        blocks: BTreeMap::new(),
        term: 0,
        sequence: 0,
        deleting: false,
        guarded: false,
        state: PoolState::default(),
    }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[test]
fn the_smallest_ranges_and_odd_neighbours_are_searched_right() {
    use super::blocks::{Taken, count};
    let range = |cidrs: &[&str], block_len| PoolRange {
        cidrs: cidrs.iter().map(|cidr| net(cidr)).collect(),
        block_len,
    };
    let mut taken = Taken::default();
    for cidr in ["10.0.0.0/30", "10.0.0.8/32", "10.0.0.128/25", "10.0.0.130/31"] {
        taken.add(net(cidr));
    }
    let free = |range: &PoolRange| {
        taken
            .first_free(range, &BTreeSet::new())
            .map(|net| net.to_string())
    };
    assert_eq!(free(&range(&["10.0.0.0/24"], 30)).as_deref(), Some("10.0.0.4/30"));
    assert_eq!(
        free(&range(&["10.0.0.0/24"], 29)).as_deref(),
        Some("10.0.0.16/29")
    );
    assert_eq!(free(&range(&["10.0.0.0/24"], 25)), None);
    assert_eq!(free(&range(&["10.0.0.192/26"], 28)), None, "inside what is taken");
    assert_eq!(
        free(&range(&["255.255.255.254/31"], 32)).as_deref(),
        Some("255.255.255.254/32")
    );
    assert_eq!(
        free(&range(&["10.0.0.0/30", "fd00::/64"], 30)).as_deref(),
        None,
        "of /30 in /64 there are none to speak of"
    );
    assert_eq!(count(&range(&["10.0.0.0/24", "10.0.1.0/28"], 28)), 17);
    let last = range(&["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00/120"], 128);
    assert_eq!(
        free(&last).as_deref(),
        Some("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00/128")
    );
    assert_eq!(last.family(), Family::Ipv6);
}
