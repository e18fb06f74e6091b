// SPDX-License-Identifier: Apache-2.0
//! A cluster in miniature: an API with versions, late and lost writes, several operators that may all believe to lead, agents
//! that crash and see old news, nodes that come and go. Whatever happens in whatever order, no two nodes may have one block and
//! no two pods one address; and when things calm down, nothing may be lost.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "most kinds of events concern others"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use model::{
    BlockReport, DEFAULT_POOL, EndpointId, Family, Holder, IpPool, Machine, NodePools, NodeReport, PoolRange,
    PoolReport, PoolState,
};
use proptest::prelude::*;

use super::*;
use crate::{Allocator, PoolSpec};

const NODES: [&str; 3] = ["a", "b", "c"];
const OPERATORS: usize = 3;
const SPARE: u32 = 1;
/// A surplus is asked back at once: the more often blocks change hands, the more can go wrong.
const AT_ONCE: u64 = 0;

/// What becomes of a write on its way.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Answered,
    /// It happened, but the answer was lost.
    Unheard,
    /// It never arrived.
    Lost,
    /// It arrives later.
    Late,
}

#[derive(Debug, Clone)]
enum Event {
    Elect(usize),
    Observe(usize, u8),
    Step(usize, Fate),
    /// A whole pass, in which one write has a fate.
    Pass(usize, usize, Fate),
    CrashOperator(usize),
    Land(usize),
    Add(usize),
    Burst(usize, u8),
    Del(usize, usize),
    Empty(usize),
    Rested(usize),
    Sync(usize),
    /// All that a healthy agent does in a while.
    Tidy(usize),
    Report(usize, bool),
    CrashAgent(usize, bool),
    Join(usize),
    Leave(usize),
    Widen,
    Rival,
    RivalGoes,
    LedgerLost,
    Wait(u8),
}

fn event() -> impl Strategy<Value = Event> {
    let node = 0..NODES.len();
    let operator = 0..OPERATORS;
    let fate = prop_oneof![
        8 => Just(Fate::Answered),
        1 => Just(Fate::Unheard),
        1 => Just(Fate::Lost),
        1 => Just(Fate::Late),
    ];
    prop_oneof![
        3 => operator.clone().prop_map(Event::Elect),
        10 => (operator.clone(), any::<u8>()).prop_map(|(o, what)| Event::Observe(o, what)),
        12 => (operator.clone(), fate.clone()).prop_map(|(o, fate)| Event::Step(o, fate)),
        14 => (operator.clone(), 0..6_usize, fate).prop_map(|(o, which, fate)| Event::Pass(o, which, fate)),
        1 => operator.prop_map(Event::CrashOperator),
        5 => any::<usize>().prop_map(Event::Land),
        4 => node.clone().prop_map(Event::Add),
        5 => (node.clone(), 1..6_u8).prop_map(|(n, count)| Event::Burst(n, count)),
        4 => (node.clone(), any::<usize>()).prop_map(|(n, pod)| Event::Del(n, pod)),
        4 => node.clone().prop_map(Event::Empty),
        2 => node.clone().prop_map(Event::Rested),
        6 => node.clone().prop_map(Event::Sync),
        14 => node.clone().prop_map(Event::Tidy),
        5 => (node.clone(), any::<bool>()).prop_map(|(n, late)| Event::Report(n, late)),
        2 => (node.clone(), any::<bool>()).prop_map(|(n, online)| Event::CrashAgent(n, online)),
        3 => node.clone().prop_map(Event::Join),
        2 => node.prop_map(Event::Leave),
        1 => Just(Event::Widen),
        1 => Just(Event::Rival),
        1 => Just(Event::RivalGoes),
        1 => Just(Event::LedgerLost),
        2 => (0..90_u8).prop_map(Event::Wait),
    ]
}

/// The API, as it truly is.
#[derive(Debug, Default)]
struct Store {
    world: World,
    last: u64,
    late: Vec<Late>,
}

#[derive(Debug)]
enum Late {
    Write(Write),
    Report(String, String, NodeReport),
}

impl Store {
    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn version(&mut self) -> String {
        self.number().to_string()
    }

    fn add_pool(&mut self, name: &str, cidr: &str) {
        let (uid, version) = (self.version(), self.version());
        let created = i64::try_from(self.last).unwrap();
        let pool = IpPool {
            name: name.into(),
            uid,
            version,
            created,
            generation: 1,
            ranges: vec![PoolRange {
                cidrs: vec![net(cidr)],
                block_len: 30,
            }],
            fault: None,
            blocks: BTreeMap::new(),
            term: 0,
            sequence: 0,
            deleting: false,
            guarded: false,
            state: PoolState::default(),
        };
        self.world.pools.insert(name.into(), pool);
    }

    fn write(&mut self, write: &Write) -> Outcome {
        match write {
            Write::Create { node, owner } => self.create(node, owner),
            Write::Delete {
                node,
                uid,
                version,
                owner,
            } => self.delete(node, uid, version, owner),
            Write::Ask { node, .. } => match self.world.nodes.get(node) {
                Some(node) => Outcome::Node(Box::new(node.clone())),
                None => Outcome::Gone,
            },
            Write::Guard { pool, version, on } => {
                let next = self.version();
                let Some(found) = self.world.pools.get_mut(pool) else {
                    return Outcome::Gone;
                };
                if found.version != *version {
                    return Outcome::Conflict;
                }
                (found.guarded, found.version) = (*on, next);
                let found = found.clone();
                if found.deleting && !on {
                    self.world.pools.remove(pool);
                }
                Outcome::Pool(Box::new(found))
            }
            Write::Pool(write) => self.write_pool(write),
            Write::Grants {
                node,
                uid,
                version,
                term,
                grants,
            } => {
                let next = self.version();
                let found = self.world.nodes.get_mut(node).filter(|node| node.uid == *uid);
                let Some(found) = found else { return Outcome::Gone };
                if found.version != *version {
                    return Outcome::Conflict;
                }
                found.grants.clone_from(grants);
                (found.term, found.version, found.generation) = (*term, next, found.generation + 1);
                Outcome::Node(Box::new(found.clone()))
            }
        }
    }

    fn create(&mut self, node: &str, owner: &str) -> Outcome {
        if self.world.nodes.contains_key(node) {
            return Outcome::Conflict;
        }
        let object = NodePools {
            node: node.into(),
            uid: self.version(),
            version: self.version(),
            generation: 1,
            owner: owner.into(),
            term: 0,
            grants: Vec::new(),
            report: NodeReport::default(),
        };
        self.world.nodes.insert(node.into(), object.clone());
        Outcome::Node(Box::new(object))
    }

    fn delete(&mut self, node: &str, uid: &str, version: &str, owner: &str) -> Outcome {
        if self
            .world
            .machines
            .get(node)
            .is_some_and(|machine| machine.uid == owner)
        {
            return Outcome::Conflict;
        }
        match self.world.nodes.get(node) {
            Some(found) if found.uid == uid && found.version == version => {
                self.world.nodes.remove(node);
                Outcome::Gone
            }
            Some(found) if found.uid == uid => Outcome::Conflict,
            _ => Outcome::Gone,
        }
    }

    fn write_pool(&mut self, write: &PoolWrite) -> Outcome {
        let next = self.version();
        let Some(pool) = self.world.pools.get_mut(&write.pool) else {
            return Outcome::Gone;
        };
        if pool.version != write.version {
            return Outcome::Conflict;
        }
        for (block, holder) in &write.add {
            assert!(
                pool.blocks.insert(*block, holder.clone()).is_none(),
                "{block} entered twice"
            );
        }
        for block in &write.remove {
            assert!(pool.blocks.remove(block).is_some(), "{block} struck out twice");
        }
        pool.state = write.state.clone();
        (pool.term, pool.sequence, pool.version) = (write.term, write.sequence, next);
        Outcome::Pool(Box::new(pool.clone()))
    }

    fn report(&mut self, node: &str, uid: &str, report: NodeReport) {
        let next = self.version();
        if let Some(found) = self.world.nodes.get_mut(node).filter(|node| node.uid == uid) {
            (found.report, found.version) = (report, next);
        }
    }

    fn land(&mut self, which: usize) {
        if self.late.is_empty() {
            return;
        }
        let which = which % self.late.len();
        match self.late.remove(which) {
            Late::Write(write) => drop(self.write(&write)),
            Late::Report(node, uid, report) => self.report(&node, &uid, report),
        }
    }
}

/// An operator and what it sees.
#[derive(Debug, Default)]
struct Operator {
    term: u64,
    seen: World,
    memory: Memory,
    pass: Option<Pass>,
    batch: Vec<Write>,
}

impl Operator {
    /// Its watches catch up, each for itself; never back behind what it has written.
    fn observe(&mut self, truth: &World, what: u8) {
        if what & 1 != 0 {
            self.seen.pools = truth.pools.clone();
        }
        if what & 2 != 0 {
            self.seen.nodes = truth.nodes.clone();
        }
        if what & 4 != 0 {
            self.seen.machines = truth.machines.clone();
        }
    }

    fn crash(&mut self) {
        *self = Self::default();
    }

    /// One write; `true` while there is something to do.
    fn step(&mut self, store: &mut Store, fate: Fate, now: u64) -> bool {
        if self.term == 0 {
            return false;
        }
        let mut pass = match self.pass.take() {
            Some(pass) => pass,
            None => {
                let memory = std::mem::take(&mut self.memory);
                match Pass::new(self.seen.clone(), memory, self.term, (now, AT_ONCE)) {
                    Ok(pass) => pass,
                    Err(_) => {
                        self.crash();
                        return false;
                    }
                }
            }
        };
        if self.batch.is_empty() {
            self.batch = pass.batch();
        }
        let Some(write) = self.batch.pop() else {
            self.memory = pass.finish();
            return false;
        };
        let outcome = match fate {
            Fate::Answered => store.write(&write),
            Fate::Unheard => {
                store.write(&write);
                Outcome::Unknown
            }
            Fate::Lost => Outcome::Unknown,
            Fate::Late => {
                store.late.push(Late::Write(write.clone()));
                Outcome::Unknown
            }
        };
        self.remember(&outcome);
        pass.done(&write, outcome);
        self.pass = Some(pass);
        true
    }

    /// What it has written itself it knows at once.
    fn remember(&mut self, outcome: &Outcome) {
        let newer = |known: &str, now: &str| known.parse::<u64>().unwrap() < now.parse::<u64>().unwrap();
        match outcome {
            Outcome::Pool(pool) => {
                let known = self.seen.pools.get(&pool.name);
                if known.is_none_or(|known| newer(&known.version, &pool.version)) {
                    self.seen.pools.insert(pool.name.clone(), (**pool).clone());
                }
            }
            Outcome::Node(node) => {
                let known = self.seen.nodes.get(&node.node);
                if known.is_none_or(|known| newer(&known.version, &node.version)) {
                    self.seen.nodes.insert(node.node.clone(), (**node).clone());
                }
            }
            Outcome::Gone | Outcome::Conflict | Outcome::Refused | Outcome::Unknown => {}
        }
    }
}

/// A node: what its kernel keeps over a crash of the agent, and the agent.
#[derive(Debug, Default)]
struct Node {
    alive: bool,
    machine: String,
    pods: BTreeMap<EndpointId, IpAddr>,
    routes: BTreeSet<IpNet>,
    agent: Agent,
    waiting: u64,
}

#[derive(Debug, Default)]
struct Agent {
    allocator: Allocator,
    resting: Vec<IpAddr>,
    uid: String,
    generation: i64,
    blocks: Vec<PoolSpec>,
}

impl Node {
    /// The agent acts on what its watch says: an object of this very Node, and no older one than before.
    fn sync(&mut self, object: Option<&NodePools>) {
        let object = object.filter(|object| object.owner == self.machine);
        let Some(object) = object else {
            self.agent.uid.clear();
            self.apply(Vec::new());
            return;
        };
        if object.uid == self.agent.uid && object.generation < self.agent.generation {
            return;
        }
        (self.agent.uid, self.agent.generation) = (object.uid.clone(), object.generation);
        let blocks = object.grants.iter().flat_map(|grant| {
            let spec = |block: &model::Block| PoolSpec {
                pool: grant.pool.clone(),
                draining: block.releasing,
                ..block.cidr.into()
            };
            grant.blocks.iter().map(spec)
        });
        self.apply(blocks.collect());
    }

    fn apply(&mut self, blocks: Vec<PoolSpec>) {
        self.agent.allocator.set_pools(&blocks).unwrap();
        self.agent.blocks = blocks;
        self.routes = self
            .agent
            .allocator
            .usage()
            .iter()
            .filter(|one| !one.draining || one.used + one.resting > 0)
            .map(|one| one.cidr)
            .collect();
    }

    fn report(&mut self) -> NodeReport {
        self.apply(self.agent.blocks.clone());
        let usage = self.agent.allocator.usage();
        let (used, resting): (u64, u64) = usage.iter().fold((0, 0), |(used, resting), one| {
            (used + one.used, resting + one.resting)
        });
        let block = |one: &crate::PoolUsage| BlockReport {
            cidr: one.cidr,
            used: u32::try_from(one.used).unwrap(),
            resting: u32::try_from(one.resting).unwrap(),
            released: one.draining && one.used + one.resting == 0 && !self.routes.contains(&one.cidr),
        };
        NodeReport {
            generation: self.agent.generation,
            pools: vec![PoolReport {
                pool: DEFAULT_POOL.into(),
                wanted: wanted(used, resting, self.waiting, SPARE),
                blocks: usage.iter().map(block).collect(),
            }],
        }
    }

    fn add(&mut self, id: EndpointId) {
        match self
            .agent
            .allocator
            .allocate_from(&id, DEFAULT_POOL, &[Family::Ipv4])
        {
            Ok(ips) => {
                self.pods.insert(id, ips[0]);
                self.waiting = self.waiting.saturating_sub(1);
            }
            Err(_) => self.waiting = 1,
        }
    }

    fn del(&mut self, which: usize) {
        let id = self.pods.keys().nth(which % self.pods.len().max(1)).cloned();
        if let Some(id) = id {
            self.pods.remove(&id);
            let ips = self.agent.allocator.release(&id);
            self.agent.resting.extend(ips);
        }
    }

    fn rested(&mut self) {
        for ip in std::mem::take(&mut self.agent.resting) {
            self.agent.allocator.rested(ip);
        }
    }

    /// A new agent: pods and routes are in the kernel; the rest comes from the API, now or when it answers again.
    fn restart(&mut self) {
        self.agent = Agent::default();
        let routes: Vec<PoolSpec> = self
            .routes
            .iter()
            .map(|cidr| PoolSpec {
                pool: DEFAULT_POOL.into(),
                ..(*cidr).into()
            })
            .collect();
        for (id, ip) in &self.pods {
            self.agent.allocator.restore(id, *ip).unwrap();
        }
        self.apply(routes);
    }
}

#[derive(Debug)]
struct Sim {
    store: Store,
    operators: [Operator; OPERATORS],
    nodes: Vec<Node>,
    terms: u64,
    now: u64,
    pods: u64,
}

impl Sim {
    fn new() -> Self {
        let mut store = Store::default();
        store.add_pool(DEFAULT_POOL, "10.0.0.0/27");
        let mut sim = Self {
            store,
            operators: Default::default(),
            nodes: NODES.iter().map(|_| Node::default()).collect(),
            terms: 0,
            now: 1000,
            pods: 0,
        };
        for node in 0..NODES.len() {
            sim.join(node);
        }
        sim
    }

    fn join(&mut self, node: usize) {
        if self.nodes[node].alive {
            return;
        }
        let uid = self.store.version();
        let machine = Machine {
            name: NODES[node].into(),
            uid: uid.clone(),
            addresses: vec![],
        };
        self.store.world.machines.insert(NODES[node].into(), machine);
        self.nodes[node] = Node {
            alive: true,
            machine: uid,
            ..Node::default()
        };
    }

    fn elect(&mut self, which: usize) {
        self.terms += 1;
        let operator = &mut self.operators[which];
        operator.crash();
        operator.term = self.terms;
        operator.observe(&self.store.world, 7);
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Elect(which) => self.elect(which),
            Event::Observe(which, what) => self.operators[which].observe(&self.store.world, what),
            Event::Step(which, fate) => {
                self.operators[which].step(&mut self.store, fate, self.now);
            }
            Event::Pass(which, number, fate) => {
                self.operators[which].observe(&self.store.world, 7);
                for step in 0..100 {
                    let fate = if step == number { fate } else { Fate::Answered };
                    if !self.operators[which].step(&mut self.store, fate, self.now) {
                        break;
                    }
                    self.check();
                }
            }
            Event::CrashOperator(which) => self.operators[which].crash(),
            Event::Land(which) => self.store.land(which),
            Event::Wait(seconds) => self.now += u64::from(seconds),
            Event::Join(node) => self.join(node),
            Event::Leave(node) => {
                self.nodes[node] = Node::default();
                self.store.world.machines.remove(NODES[node]);
            }
            Event::Widen => self.widen(),
            Event::Rival => {
                if !self.store.world.pools.contains_key("rival") {
                    self.store.add_pool("rival", "10.0.0.16/28");
                }
            }
            Event::RivalGoes => self.rival_goes(),
            // As after a restore from a backup, which leaves status out.
            Event::LedgerLost => self.lose_ledger(),
            Event::Add(node)
            | Event::Burst(node, _)
            | Event::Del(node, _)
            | Event::Empty(node)
            | Event::Rested(node)
            | Event::Sync(node)
            | Event::Tidy(node)
            | Event::Report(node, _)
            | Event::CrashAgent(node, _) => {
                if self.nodes[node].alive {
                    self.at_node(node, event);
                }
            }
        }
    }

    fn at_node(&mut self, number: usize, event: &Event) {
        let parts: &[Event] = match *event {
            Event::Burst(node, count) => &vec![Event::Add(node); count.into()],
            Event::Empty(node) => &vec![Event::Del(node, 0); self.nodes[node].pods.len()],
            Event::Tidy(node) => &[Event::Rested(node), Event::Sync(node), Event::Report(node, false)],
            _ => &[],
        };
        for part in parts {
            self.at_node(number, part);
        }
        let (name, node) = (NODES[number], &mut self.nodes[number]);
        match *event {
            Event::Add(_) => {
                self.pods += 1;
                node.add(EndpointId {
                    container_id: self.pods.to_string(),
                    ifname: "eth0".into(),
                });
            }
            Event::Del(_, pod) => node.del(pod),
            Event::Rested(_) => node.rested(),
            Event::Sync(_) => node.sync(self.store.world.nodes.get(name)),
            Event::Report(_, late) => {
                let (uid, report) = (node.agent.uid.clone(), node.report());
                if late {
                    self.store.late.push(Late::Report(name.into(), uid, report));
                } else {
                    self.store.report(name, &uid, report);
                }
            }
            Event::CrashAgent(_, online) => {
                node.restart();
                if online {
                    node.sync(self.store.world.nodes.get(name));
                }
            }
            _ => {}
        }
    }

    fn widen(&mut self) {
        let version = self.store.version();
        let pool = self.store.world.pools.get_mut(DEFAULT_POOL).unwrap();
        if pool.ranges[0].cidrs.len() == 1 {
            pool.ranges[0].cidrs.push(net("10.0.1.0/29"));
            (pool.generation, pool.version) = (pool.generation + 1, version);
        }
    }

    fn rival_goes(&mut self) {
        let version = self.store.version();
        if let Some(pool) = self.store.world.pools.get_mut("rival") {
            (pool.deleting, pool.version) = (true, version);
            if !pool.guarded {
                self.store.world.pools.remove("rival");
            }
        }
    }

    /// A restore is made with the operators stopped and when nothing is under way.
    fn lose_ledger(&mut self) {
        self.operators.iter_mut().for_each(Operator::crash);
        while !self.store.late.is_empty() {
            self.store.land(0);
            self.check();
        }
        let granted = |block: &IpNet, holder: &Holder| {
            let node = self.store.world.nodes.get(&holder.node);
            node.is_some_and(|node| node.uid == holder.uid && node.blocks().any(|one| one.cidr == *block))
        };
        // What is reserved and not yet granted nobody can use: it may be forgotten.
        let pools = self.store.world.pools.values();
        let all = pools.flat_map(|pool| &pool.blocks);
        let uses = all.filter(|(block, holder)| granted(block, holder)).count();
        let version = self.store.version();
        let pool = self.store.world.pools.get_mut(DEFAULT_POOL).unwrap();
        if uses > 0 {
            pool.blocks.clear();
            (pool.state, pool.version) = (PoolState::default(), version);
        }
    }

    fn check(&self) {
        let mut granted = super::blocks::Taken::default();
        for node in self.store.world.nodes.values() {
            for block in node.blocks() {
                assert_eq!(
                    granted.overlapping(&block.cidr),
                    None,
                    "{} is at two nodes",
                    block.cidr
                );
                granted.add(block.cidr);
            }
        }
        let mut addresses = BTreeSet::new();
        for ip in self.nodes.iter().flat_map(|node| node.pods.values()) {
            assert!(addresses.insert(*ip), "{ip} is given twice");
        }
    }

    /// Nothing goes wrong any more: everything must become right.
    fn calm_down(&mut self) {
        while !self.store.late.is_empty() {
            self.store.land(0);
            self.check();
        }
        self.elect(0);
        for _ in 0..25 {
            self.operators[0].observe(&self.store.world, 7);
            while self.operators[0].step(&mut self.store, Fate::Answered, self.now) {
                self.check();
            }
            for node in 0..NODES.len() {
                for event in [
                    Event::Rested(node),
                    Event::Sync(node),
                    Event::Add(node),
                    Event::Del(node, usize::MAX),
                    Event::Rested(node),
                    Event::Report(node, false),
                ] {
                    self.happen(&event);
                    self.check();
                }
            }
            self.now += 60;
        }
        self.check_calm();
    }

    fn check_calm(&self) {
        let world = &self.store.world;
        let mut ledger: BTreeMap<IpNet, &Holder> = BTreeMap::new();
        for pool in world.pools.values() {
            ledger.extend(pool.blocks.iter().map(|(block, holder)| (*block, holder)));
        }
        let mut granted: BTreeMap<IpNet, &str> = BTreeMap::new();
        for node in world.nodes.values() {
            granted.extend(node.blocks().map(|block| (block.cidr, node.uid.as_str())));
        }
        let held: BTreeMap<IpNet, &str> = ledger.iter().map(|(b, holder)| (*b, &*holder.uid)).collect();
        assert_eq!(held, granted, "ledger and grants differ");
        let machines: Vec<&String> = world.machines.keys().collect();
        let nodes: Vec<&String> = world.nodes.keys().collect();
        assert_eq!(machines, nodes);
        let pool = &world.pools[DEFAULT_POOL];
        for (number, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.alive) {
            let object = &world.nodes[NODES[number]];
            let wanted = object.report.pools[0].wanted;
            let has: u128 = object
                .blocks()
                .filter(|block| !block.releasing)
                .map(|block| model::usable_addresses(&block.cidr))
                .sum();
            let grant = object.grant(DEFAULT_POOL).unwrap();
            assert!(
                has >= wanted.into() || grant.shortage.contains("no free"),
                "{} wants {wanted}, has {has}: {grant:?}, {:?}",
                NODES[number],
                pool.state
            );
            for ip in node.pods.values() {
                assert!(
                    object.blocks().any(|block| block.cidr.contains(ip)),
                    "{ip} is lost"
                );
            }
            // Nobody keeps what it does not need.
            assert!(
                has <= u128::from(wanted) + 4,
                "{} wants {wanted} and keeps {has}",
                NODES[number]
            );
        }
    }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn no_block_at_two_nodes_no_address_twice_and_none_lost(events in proptest::collection::vec(event(), 20..200)) {
        let mut sim = Sim::new();
        sim.elect(0);
        for event in &events {
            sim.happen(event);
            sim.check();
        }
        sim.calm_down();
    }
}
