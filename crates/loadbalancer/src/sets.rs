// SPDX-License-Identifier: Apache-2.0
//! Sets of backends: which slot is whose, and what numbers sets have.

use std::collections::HashSet;
use std::sync::Arc;

use ipnet::IpNet;
use model::{Family, Transport};

use crate::resolve::WantedGroup;
use crate::{Target, maglev_table};

/// The backends of a port in one family, in their slots.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) port: Arc<str>,
    pub(crate) transport: Transport,
    pub(crate) family: Family,
    /// The service's port on this node, for affinity and sources; never 0. Its sets are numbered twice this, and one more.
    pub(crate) number: u32,
    /// By [`crate::resolve::CLUSTER`] and [`crate::resolve::LOCAL`].
    pub(crate) sets: [Set; 2],
    pub(crate) flags: u16,
    pub(crate) affinity_seconds: u32,
    pub(crate) ranges: Box<[IpNet]>,
}

/// A list of backends as it lies in slots.
#[derive(Clone, Debug, Default)]
pub(crate) struct Set {
    /// In the order of slots; of a lookup table, sorted.
    pub(crate) targets: Box<[Target]>,
    /// Slots of the lookup table; 0: the backends themselves are the slots.
    pub(crate) table: u32,
    /// Slots that may be in the map, those that were not deleted yet among them.
    pub(crate) high: u32,
}

impl Group {
    pub(crate) fn is_of(&self, wanted: &WantedGroup) -> bool {
        (&self.port, self.transport, self.family) == (&wanted.port, wanted.transport, wanted.family)
    }

    /// As it is wanted, with every backend that stays in its slot.
    pub(crate) fn arranged(wanted: WantedGroup, number: u32, before: &[Set; 2]) -> Self {
        let mut before = before.iter();
        let sets = wanted
            .lists
            .map(|list| Set::arranged(before.next(), list, wanted.table));
        Self {
            port: wanted.port,
            transport: wanted.transport,
            family: wanted.family,
            number,
            sets,
            flags: wanted.flags,
            affinity_seconds: wanted.affinity_seconds,
            ranges: wanted.ranges,
        }
    }

    /// The number of the set in a place.
    pub(crate) const fn set_number(&self, place: u8) -> u32 {
        self.number * 2 + place as u32
    }
}

impl Set {
    fn arranged(before: Option<&Self>, wanted: Vec<Target>, table: u32) -> Self {
        let old = before.filter(|old| old.table == 0 && table == 0);
        let targets = match old {
            Some(old) => arrange(&old.targets, &wanted),
            None => wanted,
        };
        let mut set = Self {
            targets: targets.into(),
            table,
            high: 0,
        };
        set.high = set.count().max(before.map_or(0, |old| old.high.max(old.count())));
        set
    }

    /// How many slots it has.
    pub(crate) fn count(&self) -> u32 {
        match (self.targets.len(), self.table) {
            (0, _) => 0,
            (backends, 0) => u32::try_from(backends).unwrap_or(u32::MAX),
            (_, table) => table,
        }
    }

    /// Who is in which slot.
    pub(crate) fn slots(&self) -> Vec<Target> {
        match self.table {
            0 => self.targets.to_vec(),
            size => {
                let places = maglev_table(&self.targets, size);
                places.iter().map(|place| self.targets[*place as usize]).collect()
            }
        }
    }
}

/// `wanted`, each that is in `old` in its slot; holes are filled with who is new, then with the last.
fn arrange(old: &[Target], wanted: &[Target]) -> Vec<Target> {
    let mut missing: Vec<Target> = wanted.to_vec();
    let mut slots: Vec<Option<Target>> = Vec::with_capacity(wanted.len().max(old.len()));
    let mut taken: HashSet<Target> = HashSet::with_capacity(old.len());
    for target in old {
        let stays = wanted.binary_search(target).is_ok() && taken.insert(*target);
        slots.push(stays.then_some(*target));
    }
    missing.retain(|target| !taken.contains(target));
    let mut missing = missing.into_iter();
    for slot in slots.iter_mut().filter(|slot| slot.is_none()) {
        *slot = missing.next();
    }
    slots.extend(missing.map(Some));
    let mut at = 0;
    while at < slots.len() {
        match slots[at] {
            Some(_) => at += 1,
            // A hole at the end is none any more when it is gone.
            None => {
                let last = slots.pop().flatten();
                if let (Some(last), Some(slot)) = (last, slots.get_mut(at)) {
                    *slot = Some(last);
                }
            }
        }
    }
    slots.into_iter().flatten().collect()
}

/// Numbers of groups. One that was given back rests for as long as there are others: clients may still remember it.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    used: HashSet<u32>,
    last: u32,
}

/// Above, twice a number would not be a set's.
const NUMBER_MOST: u32 = u32::MAX / 2 - 1;

impl Numbers {
    /// Takes this one, if it is free.
    pub(crate) fn take(&mut self, number: u32) -> Option<u32> {
        let is_one = (1..=NUMBER_MOST).contains(&number);
        (is_one && self.used.insert(number)).then_some(number)
    }

    /// Takes one that is free.
    pub(crate) fn next(&mut self) -> u32 {
        loop {
            self.last = if self.last >= NUMBER_MOST {
                1
            } else {
                self.last + 1
            };
            if self.used.insert(self.last) {
                return self.last;
            }
        }
    }

    pub(crate) fn give_back(&mut self, number: u32) {
        self.used.remove(&number);
    }

    /// Numbers up to this one are perhaps somebody's.
    pub(crate) fn begin_after(&mut self, number: u32) {
        self.last = self.last.max(number.min(NUMBER_MOST));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_hole_is_filled_with_the_last() {
        let arranged = arrange(&targets(&[1, 2, 3, 4]), &targets(&[1, 3, 4]));
        assert_eq!(arranged, targets(&[1, 4, 3]));
        assert_eq!(arrange(&targets(&[1, 2]), &targets(&[1])), targets(&[1]));
        assert_eq!(
            arrange(&targets(&[2, 1]), &targets(&[1, 2, 9])),
            targets(&[2, 1, 9])
        );
        assert_eq!(arrange(&targets(&[1, 2, 3]), &targets(&[3, 8])), targets(&[8, 3]));
        assert_eq!(arrange(&targets(&[1, 2]), &[]), []);
    }

    #[test]
    fn a_number_that_was_given_back_is_not_the_next() {
        let mut numbers = Numbers::default();
        let first = numbers.next();
        numbers.give_back(first);
        assert_ne!(numbers.next(), first);
        assert_eq!(numbers.take(first), Some(first));
        assert_eq!(numbers.take(first), None, "it is somebody's");
        assert_eq!(numbers.take(0), None);
    }

    proptest! {
        /// Slots that change are no more than the backends that came and went.
        #[test]
        fn slots_change_with_the_change(
            old in proptest::collection::btree_set(0_u16..60, 0..40), new in proptest::collection::btree_set(0_u16..60, 0..40),
        ) {
            let (old, new): (Vec<u16>, Vec<u16>) = (old.into_iter().collect(), new.into_iter().collect());
            let (before, wanted) = (targets(&old), targets(&new));
            let after = arrange(&before, &wanted);
            let mut sorted = after.clone();
            sorted.sort();
            prop_assert_eq!(&sorted, &wanted);
            let written = after.iter().enumerate().filter(|(slot, target)| before.get(*slot) != Some(target)).count();
            let came = new.iter().filter(|id| !old.contains(id)).count();
            let went = old.iter().filter(|id| !new.contains(id)).count();
            prop_assert!(written <= came.max(went), "{written} for {came} and {went}");
        }
    }

    fn targets(ids: &[u16]) -> Vec<Target> {
        let target = |id: &u16| Target {
            addr: [10, 0, 0, 1].into(),
            port: *id,
        };
        ids.iter().map(target).collect()
    }
}
