// SPDX-License-Identifier: Apache-2.0
//! Whose a frontend is, where several want it: his whose own it is by its kind, then the oldest's.

use std::collections::{BTreeSet, HashMap};

use crate::frontend::Kind;
use crate::{Frontend, Owner};

/// Who has which frontend, and who would have it next.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    holders: HashMap<Frontend, Claimant>,
    /// Few frontends are wanted twice.
    waiting: HashMap<Frontend, BTreeSet<Claimant>>,
}

/// Who wants a frontend; the first of them has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Claimant {
    /// See [`Kind::rank`].
    rank: u8,
    /// Services come before pods.
    is_pod: bool,
    /// The older before the younger.
    created: i64,
    /// Of equal age, by name.
    owner: Owner,
}

impl Claimant {
    pub(crate) fn new(owner: &Owner, created: i64) -> Self {
        Self {
            rank: 0,
            is_pod: owner.is_pod(),
            created,
            owner: owner.clone(),
        }
    }

    /// The same for a frontend that is wanted so.
    pub(crate) fn wanting(&self, kind: Kind) -> Self {
        Self {
            rank: kind.rank(),
            ..self.clone()
        }
    }

    pub(crate) fn into_owner(self) -> Owner {
        self.owner
    }
}

impl Claims {
    pub(crate) fn owner(&self, frontend: &Frontend) -> Option<&Owner> {
        self.holders.get(frontend).map(|holder| &holder.owner)
    }

    /// Wants a frontend. Returns who loses it.
    pub(crate) fn claim(&mut self, frontend: Frontend, claimant: &Claimant) -> Option<Owner> {
        let Some(holder) = self.holders.get_mut(&frontend) else {
            self.holders.insert(frontend, claimant.clone());
            return None;
        };
        if holder.owner == claimant.owner {
            return None;
        }
        let loser = if claimant < holder {
            Some(std::mem::replace(holder, claimant.clone()))
        } else {
            None
        };
        let waiting = self.waiting.entry(frontend).or_default();
        match &loser {
            Some(loser) => {
                waiting.remove(claimant);
                waiting.insert(loser.clone());
            }
            None => drop(waiting.insert(claimant.clone())),
        }
        loser.map(|loser| loser.owner)
    }

    /// Wants a frontend no longer. Returns who gets it.
    pub(crate) fn release(&mut self, frontend: &Frontend, claimant: &Claimant) -> Option<Owner> {
        let mut waiting = self.waiting.remove(frontend).unwrap_or_default();
        let mut next = None;
        if self.holders.get(frontend) == Some(claimant) {
            next = waiting.pop_first();
            match &next {
                Some(next) => drop(self.holders.insert(*frontend, next.clone())),
                None => drop(self.holders.remove(frontend)),
            }
        } else {
            waiting.remove(claimant);
        }
        if !waiting.is_empty() {
            self.waiting.insert(*frontend, waiting);
        }
        next.map(|next| next.owner)
    }

    /// Those who have a frontend that is so.
    pub(crate) fn holders(&self, is_so: impl Fn(&Frontend) -> bool) -> BTreeSet<Owner> {
        let holders = self.holders.iter().filter(|(frontend, _)| is_so(frontend));
        holders.map(|(_, holder)| holder.owner.clone()).collect()
    }
}
