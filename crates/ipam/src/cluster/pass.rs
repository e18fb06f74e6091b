// SPDX-License-Identifier: Apache-2.0
//! One pass of the operator, without any input or output: it says what is to be written and is told what became of it.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use model::{Block, Family, Grant, Holder, IpPool, NodePools, PoolState, overlap};

use super::project::View;
use super::summary::{ACCEPTED, EXHAUSTED, summarise, taken};
use super::{Memory, Refusal, World, judge};

/// Something that is to be written, or asked for certain. Versions are those that the write replaces: where the object has
/// another one by now, nothing may be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Make the object of a node, empty.
    Create {
        /// The node.
        node: String,
        /// The UID of its Node.
        owner: String,
    },
    /// Delete the object of a node that is gone; if, asked anew, there really is no Node of this UID any more.
    Delete {
        /// The node.
        node: String,
        /// The object's UID.
        uid: String,
        /// The object's version.
        version: String,
        /// The UID of the Node that must be gone.
        owner: String,
    },
    /// Ask for the object of a node, past every cache: whether it is still the one of this UID.
    Ask {
        /// The node.
        node: String,
        /// The UID.
        uid: String,
    },
    /// Have the API keep a pool while nodes hold blocks of it, or let it go.
    Guard {
        /// The pool.
        pool: String,
        /// The object's version.
        version: String,
        /// Whether to keep it.
        on: bool,
    },
    /// A pool's ledger and state.
    Pool(PoolWrite),
    /// What a node is granted.
    Grants {
        /// The node.
        node: String,
        /// The object's UID.
        uid: String,
        /// The object's version.
        version: String,
        /// The writer's term.
        term: u64,
        /// All of it.
        grants: Vec<Grant>,
    },
}

/// A write to a pool's ledger and state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolWrite {
    /// The pool.
    pub pool: String,
    /// The object's version.
    pub version: String,
    /// The writer's term.
    pub term: u64,
    /// The number of this write.
    pub sequence: u64,
    /// Entries of the ledger to add.
    pub add: BTreeMap<IpNet, Holder>,
    /// Entries to strike out.
    pub remove: BTreeSet<IpNet>,
    /// The state, whole.
    pub state: PoolState,
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done; the pool as it is now.
    Pool(Box<IpPool>),
    /// It is done, or it was asked for; the node's object as it is now.
    Node(Box<NodePools>),
    /// There is no such object (any more), or it is another one of that name.
    Gone,
    /// The object has another version: nothing was written.
    Conflict,
    /// The write was refused for good: nothing was written.
    Refused,
    /// Nobody knows: no answer came. The write may have happened, or happen still.
    Unknown,
}

/// An operator of a later term is at work: this one must stop at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an operator of term {found} is at work, ours is {own}: this one steps back")]
pub struct Deposed {
    /// Our term.
    pub own: u64,
    /// The later one.
    pub found: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Guard,
    Stamp,
    Ask,
    Reserve,
    Grant,
    StrikeOut,
    End,
}

/// A pass. Take batches of writes until one is empty; report each write before the next batch.
#[derive(Debug)]
pub struct Pass {
    world: World,
    memory: Memory,
    refused: BTreeMap<String, Refusal>,
    term: u64,
    now: u64,
    hold: u64,
    /// Whether states are written although only their numbers have changed.
    refresh: bool,
    forecasts: BTreeMap<String, BTreeMap<Family, u64>>,
    stage: Stage,
    /// Pools that a write of this pass did not get through to: no more of them now.
    skipped: BTreeSet<String>,
    /// Whether another pass has more to do.
    again: bool,
    /// Holders, by UID, that are gone for certain.
    gone: BTreeSet<String>,
    /// By pool: blocks, and by UID the holders that are known not to have them any more.
    given_back: BTreeMap<String, BTreeMap<IpNet, String>>,
}

impl Pass {
    /// A pass over the world as it is seen. `now` is in seconds of any clock that goes forward; a surplus must last `hold` seconds.
    ///
    /// # Errors
    /// When an operator of a later term has written something.
    pub fn new(world: World, memory: Memory, term: u64, (now, hold): (u64, u64)) -> Result<Self, Deposed> {
        let terms = world.pools.values().map(|pool| pool.term);
        let terms = terms.chain(world.nodes.values().map(|node| node.term));
        if let Some(found) = terms.max().filter(|found| *found > term) {
            return Err(Deposed { own: term, found });
        }
        let refused = judge(&world);
        Ok(Self {
            world,
            memory,
            refused,
            term,
            now,
            hold,
            refresh: false,
            forecasts: BTreeMap::new(),
            stage: Stage::Guard,
            skipped: BTreeSet::new(),
            again: false,
            gone: BTreeSet::new(),
            given_back: BTreeMap::new(),
        })
    }

    /// Also writes states of which only numbers have changed, with these forecasts by pool and family.
    #[must_use]
    pub fn with_numbers(mut self, forecasts: BTreeMap<String, BTreeMap<Family, u64>>) -> Self {
        (self.refresh, self.forecasts) = (true, forecasts);
        self
    }

    /// The next writes, which may be made in any order or at once; empty at the end.
    pub fn batch(&mut self) -> Vec<Write> {
        loop {
            let (writes, next) = match self.stage {
                Stage::Guard => (self.guards(), Stage::Stamp),
                Stage::Stamp => (self.stamps(), Stage::Ask),
                Stage::Ask => (self.questions(), Stage::Reserve),
                Stage::Reserve => (self.reservations(), Stage::Grant),
                Stage::Grant => (self.grants(), Stage::StrikeOut),
                Stage::StrikeOut => (self.struck_out(), Stage::End),
                Stage::End => return Vec::new(),
            };
            self.stage = next;
            if !writes.is_empty() {
                return writes;
            }
        }
    }

    /// Takes in what became of a write.
    pub fn done(&mut self, write: &Write, outcome: Outcome) {
        match (write, outcome) {
            (Write::Pool(PoolWrite { pool, .. }) | Write::Guard { pool, .. }, outcome) => {
                self.pool_done(pool, write, outcome);
            }
            (Write::Grants { node, uid, .. }, Outcome::Node(now)) => self.granted(node, uid, *now),
            (Write::Create { node, .. }, Outcome::Node(now)) => {
                self.world.nodes.insert(node.clone(), *now);
            }
            (Write::Ask { node, uid }, Outcome::Node(now)) => {
                if now.uid != *uid {
                    self.gone.insert(uid.clone());
                }
                self.world.nodes.insert(node.clone(), *now);
            }
            (Write::Ask { uid, .. }, Outcome::Gone) => {
                self.gone.insert(uid.clone());
            }
            (Write::Delete { node, .. }, Outcome::Gone) => {
                self.world.nodes.remove(node);
            }
            // The watch will show what is the case, and the next pass acts on it.
            _ => {}
        }
    }

    /// What is remembered for the next pass.
    #[must_use]
    pub fn finish(self) -> Memory {
        self.memory
    }

    /// The world as it is known by now.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Why pools are refused.
    #[must_use]
    pub fn refused(&self) -> &BTreeMap<String, Refusal> {
        &self.refused
    }

    /// Whether something was not written because the world was another one: soon again.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        self.again || !self.skipped.is_empty()
    }

    fn pool_done(&mut self, name: &str, write: &Write, outcome: Outcome) {
        let uid = self.world.pools.get(name).map(|pool| pool.uid.clone());
        let uid = uid.unwrap_or_default();
        match outcome {
            Outcome::Pool(pool) => {
                self.memory.confirmed.insert(pool.uid.clone());
                if let Write::Pool(write) = write {
                    let freed = write.remove.iter().map(|block| (*block, self.now));
                    self.memory.freed.extend(freed);
                }
                self.world.pools.insert(name.to_owned(), *pool);
            }
            Outcome::Gone => {
                self.world.pools.remove(name);
                self.memory.confirmed.remove(&uid);
            }
            Outcome::Conflict | Outcome::Unknown | Outcome::Refused | Outcome::Node(_) => {
                self.memory.confirmed.remove(&uid);
                self.skipped.insert(name.to_owned());
            }
        }
    }

    fn granted(&mut self, name: &str, uid: &str, now: NodePools) {
        let before = self.world.nodes.get(name).filter(|before| before.uid == uid);
        let kept: BTreeSet<IpNet> = now.blocks().map(|block| block.cidr).collect();
        for grant in before.into_iter().flat_map(|before| &before.grants) {
            let gone = grant.blocks.iter().map(|block| block.cidr);
            let gone = gone.filter(|cidr| !kept.contains(cidr));
            self.given_back
                .entry(grant.pool.clone())
                .or_default()
                .extend(gone.map(|cidr| (cidr, uid.to_owned())));
        }
        self.world.nodes.insert(name.to_owned(), now);
    }

    /// Pools of whose ledger we know for certain what it says.
    fn known(&self) -> BTreeSet<String> {
        let known = self.world.pools.values().filter(|pool| {
            pool.term == self.term
                && self.memory.confirmed.contains(&pool.uid)
                && !self.skipped.contains(&pool.name)
        });
        known.map(|pool| pool.name.clone()).collect()
    }

    fn is_certain(&self, pool: &IpPool) -> bool {
        pool.term == self.term && self.memory.confirmed.contains(&pool.uid)
    }

    /// Nodes that came and went, and pools that are to be kept or let go.
    fn guards(&mut self) -> Vec<Write> {
        let mut writes = self.comings_and_goings();
        for pool in self.world.pools.values() {
            let done = pool.deleting && pool.guarded && pool.blocks.is_empty() && self.is_certain(pool);
            if done || (!pool.deleting && !pool.guarded) {
                writes.push(Write::Guard {
                    pool: pool.name.clone(),
                    version: pool.version.clone(),
                    on: !done,
                });
            }
        }
        writes
    }

    /// Every pool that is not ours yet, or does not say what is the case.
    fn stamps(&mut self) -> Vec<Write> {
        let mut writes = Vec::new();
        for pool in self.world.pools.values() {
            let state = self.state(pool);
            let wanted = !self.is_certain(pool) || differs(&pool.state, &state, self.refresh);
            if wanted && !self.skipped.contains(&pool.name) {
                writes.push(self.pool_write(pool, state, BTreeMap::new(), BTreeSet::new()));
            }
        }
        writes
    }

    fn comings_and_goings(&self) -> Vec<Write> {
        let mut writes = Vec::new();
        for (name, machine) in &self.world.machines {
            if !self.world.nodes.contains_key(name) {
                writes.push(Write::Create {
                    node: name.clone(),
                    owner: machine.uid.clone(),
                });
            }
        }
        for (name, node) in &self.world.nodes {
            let machine = self.world.machines.get(name);
            if machine.is_none_or(|machine| machine.uid != node.owner) {
                writes.push(Write::Delete {
                    node: name.clone(),
                    uid: node.uid.clone(),
                    version: node.version.clone(),
                    owner: node.owner.clone(),
                });
            }
        }
        writes
    }

    /// Holders that our watch does not show: they may be gone, or the watch is late.
    fn questions(&mut self) -> Vec<Write> {
        let here: BTreeSet<&str> = self.world.nodes.values().map(|node| node.uid.as_str()).collect();
        let holders = self.world.pools.values().flat_map(|pool| pool.blocks.values());
        let missing: BTreeSet<&Holder> = holders.filter(|holder| !here.contains(&*holder.uid)).collect();
        let ask = |holder: &Holder| Write::Ask {
            node: holder.node.clone(),
            uid: holder.uid.clone(),
        };
        missing.into_iter().map(ask).collect()
    }

    /// What is reserved, what of nodes that are gone is struck out, and blocks that a node has and no ledger knows: of a pool that
    /// was lost and made anew.
    fn reservations(&mut self) -> Vec<Write> {
        let known = self.known();
        let mut orphans = self.orphans(&known);
        let mut usable = self.usable(&known);
        // First all that nodes have, then what they still need: by another pass.
        usable.retain(|pool| !orphans.contains_key(pool));
        self.again = !orphans.is_empty();
        let view = View::new(&self.world, &self.refused, self.now, self.hold);
        let mut reserved = view.reservations(&usable, &self.memory.freed);
        self.memory
            .freed
            .retain(|_, when| self.now < *when + super::QUIET);
        reserved.append(&mut orphans);
        let mut writes = Vec::new();
        for name in &known {
            let Some(pool) = self.world.pools.get(name) else {
                continue;
            };
            let gone = |holder: &Holder| self.gone.contains(&holder.uid);
            let struck = pool.blocks.iter().filter(|(_, holder)| gone(holder));
            let struck: BTreeSet<IpNet> = struck.map(|(block, _)| *block).collect();
            let add = reserved.remove(name).unwrap_or_default();
            if !add.is_empty() || !struck.is_empty() {
                writes.push(self.pool_write(pool, self.state(pool), add, struck));
            }
        }
        writes
    }

    /// Pools that blocks may be handed out of. Where another pool shares addresses with one, its refusal must have been written first:
    /// an operator before us may have handed out blocks of that one.
    fn usable(&self, known: &BTreeSet<String>) -> BTreeSet<String> {
        let settled = |pool: &IpPool| {
            known.contains(&pool.name)
                && pool
                    .condition(ACCEPTED)
                    .is_some_and(|one| one.ok != self.refused.contains_key(&pool.name))
        };
        let unsettled: Vec<&IpPool> = self.world.pools.values().filter(|pool| !settled(pool)).collect();
        let touches = |one: &IpPool, other: &IpPool| {
            one.cidrs()
                .any(|cidr| other.cidrs().any(|theirs| overlap(cidr, theirs)))
        };
        let usable = self.world.pools.values().filter(|pool| {
            settled(pool)
                && pool.guarded
                && !pool.deleting
                && !self.refused.contains_key(&pool.name)
                && !unsettled.iter().any(|other| touches(pool, other))
        });
        usable.map(|pool| pool.name.clone()).collect()
    }

    fn orphans(&self, known: &BTreeSet<String>) -> BTreeMap<String, BTreeMap<IpNet, Holder>> {
        let mut orphans: BTreeMap<String, BTreeMap<IpNet, Holder>> = BTreeMap::new();
        let mut ledgers = super::blocks::Taken::default();
        for block in self.world.pools.values().flat_map(|pool| pool.blocks.keys()) {
            ledgers.add(*block);
        }
        for node in self.world.nodes.values() {
            for grant in node.grants.iter().filter(|grant| known.contains(&grant.pool)) {
                for Block { cidr, .. } in &grant.blocks {
                    if ledgers.overlapping(cidr).is_none() {
                        ledgers.add(*cidr);
                        let holder = Holder {
                            node: node.node.clone(),
                            uid: node.uid.clone(),
                        };
                        orphans
                            .entry(grant.pool.clone())
                            .or_default()
                            .insert(*cidr, holder);
                    }
                }
            }
        }
        orphans
    }

    fn grants(&mut self) -> Vec<Write> {
        let known = self.known();
        let view = View::new(&self.world, &self.refused, self.now, self.hold);
        let taken = taken(&self.world);
        let mut writes = Vec::new();
        for node in self.world.nodes.values() {
            let machine = self.world.machines.get(&node.node);
            if machine.is_none_or(|machine| machine.uid != node.owner) {
                continue;
            }
            let grants = view.grants(node, &known, &taken, &mut self.memory);
            if grants != node.grants {
                writes.push(Write::Grants {
                    node: node.node.clone(),
                    uid: node.uid.clone(),
                    version: node.version.clone(),
                    term: self.term,
                    grants,
                });
            }
        }
        writes
    }

    /// What nodes have given back, now that their objects are known not to have it.
    fn struck_out(&mut self) -> Vec<Write> {
        let known = self.known();
        let mut writes = Vec::new();
        for (name, blocks) in std::mem::take(&mut self.given_back) {
            let Some(pool) = self.world.pools.get(&name).filter(|_| known.contains(&name)) else {
                continue;
            };
            let still_his = |(block, uid): &(IpNet, String)| {
                pool.blocks.get(block).is_some_and(|holder| holder.uid == *uid)
            };
            let struck = blocks.into_iter().filter(still_his);
            let struck: BTreeSet<IpNet> = struck.map(|(block, _)| block).collect();
            if !struck.is_empty() {
                writes.push(self.pool_write(pool, self.state(pool), BTreeMap::new(), struck));
            }
        }
        writes
    }

    fn state(&self, pool: &IpPool) -> PoolState {
        let none = BTreeMap::new();
        let forecast = self.forecasts.get(&pool.name).unwrap_or(&none);
        summarise(&self.world, pool, self.refused.get(&pool.name), forecast)
    }

    fn pool_write(
        &self,
        pool: &IpPool,
        mut state: PoolState,
        add: BTreeMap<IpNet, Holder>,
        remove: BTreeSet<IpNet>,
    ) -> Write {
        for family in &mut state.families {
            let of = |block: &IpNet| Family::of_net(block) == family.family;
            let more = add.keys().filter(|block| of(block)).count() as u64;
            let fewer = remove.iter().filter(|block| of(block)).count() as u64;
            family.blocks_held = (family.blocks_held + more).saturating_sub(fewer);
        }
        Write::Pool(PoolWrite {
            pool: pool.name.clone(),
            version: pool.version.clone(),
            term: self.term,
            sequence: pool.sequence + 1,
            add,
            remove,
            state,
        })
    }
}

/// Whether a state is worth a write. Times differ from write to write and do not count.
fn differs(before: &PoolState, now: &PoolState, numbers: bool) -> bool {
    let essence = |state: &PoolState| {
        let conditions = state.conditions.iter();
        let essence =
            conditions.map(|one| (one.kind.clone(), one.ok, one.reason.clone(), one.message.clone()));
        essence.collect::<Vec<_>>()
    };
    let held = |state: &PoolState| -> Vec<_> {
        let families = state.families.iter();
        families
            .map(|one| (one.family, one.blocks, one.blocks_held))
            .collect()
    };
    essence(before) != essence(now)
        || held(before) != held(now)
        || before.generation != now.generation
        || (numbers && before.families != now.families)
}

/// Whether the pool says of itself that it is full.
#[must_use]
pub fn is_exhausted(pool: &IpPool) -> bool {
    pool.condition(EXHAUSTED).is_some_and(|one| one.ok)
}
