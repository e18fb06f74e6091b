// SPDX-License-Identifier: Apache-2.0
//! The rows that are in the maps already: an agent that starts, or looks again, leaves alone what is right.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use datapath_common::service::{Backend, BackendKey, MemberKey, Service, ServiceKey, SourceKey};

use crate::sets::Set;
use crate::{Batch, Frontend, Target};

/// What the maps hold. Rows that are wanted are struck off; what is left belongs to nobody.
#[derive(Clone, Debug, Default)]
pub struct Former {
    frontends: HashMap<Frontend, Service>,
    backends: HashMap<(u32, u32), Target>,
    members: HashMap<(u32, Target), u32>,
    sources: HashSet<(u32, u32, [u32; 4])>,
    /// Whether each is wanted: services may share one.
    addresses: HashMap<IpAddr, bool>,
    /// Rows that nobody here would write.
    strange: Vec<ServiceKey>,
    /// Numbers of groups up to this one are in use.
    pub(crate) highest: u32,
    /// Whether numbers and slots are taken from the rows: not where they are known.
    pub(crate) adopt: bool,
}

impl Former {
    /// A frontend's row.
    pub fn frontend(&mut self, key: &ServiceKey, row: &Service) {
        self.highest = self.highest.max(row.id).max(row.sets[0] / 2).max(row.sets[1] / 2);
        match Frontend::of(key) {
            Some(frontend) => drop(self.frontends.insert(frontend, *row)),
            None => self.strange.push(*key),
        }
    }

    /// A slot.
    pub fn backend(&mut self, key: &BackendKey, row: &Backend) {
        self.highest = self.highest.max(key.set / 2);
        self.backends
            .insert((key.set, key.slot), Target::of(row.addr, row.port));
    }

    /// A member of a set.
    pub fn member(&mut self, key: &MemberKey, slot: u32) {
        self.members
            .insert((key.set, Target::of(key.addr, key.port)), slot);
    }

    /// A network of clients.
    pub fn source(&mut self, key: &SourceKey) {
        self.sources.insert(tuple(key));
    }

    /// An address that services have and nobody else.
    pub fn address(&mut self, addr: IpAddr) {
        self.addresses.insert(addr, false);
    }

    /// The number that a group had, by the row of one of its frontends.
    pub(crate) fn number(&self, frontend: &Frontend) -> Option<u32> {
        let row = self.frontends.get(frontend).filter(|_| self.adopt)?;
        let own = |set: u32| set / 2 == row.id;
        (own(row.sets[0]) && own(row.sets[1])).then_some(row.id)
    }

    /// What is in the slots of a group.
    pub(crate) fn sets(&self, number: u32) -> [Set; 2] {
        [0, 1].map(|place| {
            let slot = |slot| self.backends.get(&(number * 2 + place, slot)).copied();
            let targets: Vec<Target> = (0..).map_while(slot).collect();
            Set {
                targets: targets.into(),
                table: 0,
                high: 0,
            }
        })
    }

    /// Takes out of a batch what is so already, and strikes off what is wanted.
    pub(crate) fn filter(&mut self, batch: &mut Batch) {
        batch.backends.retain(|(key, row)| {
            let target = Target::of(row.addr, row.port);
            self.backends.remove(&(key.set, key.slot)) != Some(target)
        });
        batch.members.retain(|(key, slot)| {
            let target = Target::of(key.addr, key.port);
            self.members.remove(&(key.set, target)) != Some(*slot)
        });
        batch.sources.retain(|key| !self.sources.remove(&tuple(key)));
        batch.frontends.retain(|(key, row)| {
            let frontend = Frontend::of(key);
            frontend.and_then(|frontend| self.frontends.remove(&frontend)) != Some(*row)
        });
        batch.addresses.retain(|addr| match self.addresses.get_mut(addr) {
            Some(wanted) => {
                *wanted = true;
                false
            }
            None => true,
        });
        // What is deleted anyhow need not be deleted twice.
        for key in &batch.gone_backends {
            self.backends.remove(&(key.set, key.slot));
        }
        for key in &batch.gone_members {
            self.members.remove(&(key.set, Target::of(key.addr, key.port)));
        }
    }

    /// Deletes what nobody wants.
    pub(crate) fn leftovers(self) -> Batch {
        let frontends = self.frontends.keys().map(Frontend::key);
        let addresses = self.addresses.into_iter().filter(|(_, wanted)| !wanted);
        Batch {
            gone_addresses: addresses.map(|(addr, _)| addr).collect(),
            gone_frontends: frontends.chain(self.strange).collect(),
            gone_sources: self.sources.into_iter().map(key).collect(),
            gone_members: self
                .members
                .keys()
                .map(|(set, target)| target.member(*set))
                .collect(),
            gone_backends: self
                .backends
                .keys()
                .map(|(set, slot)| BackendKey {
                    set: *set,
                    slot: *slot,
                })
                .collect(),
            ..Batch::default()
        }
    }
}

fn tuple(key: &SourceKey) -> (u32, u32, [u32; 4]) {
    (key.length, key.service, key.addr)
}

fn key((length, service, addr): (u32, u32, [u32; 4])) -> SourceKey {
    SourceKey {
        length,
        service,
        addr,
    }
}
