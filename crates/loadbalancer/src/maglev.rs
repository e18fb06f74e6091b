// SPDX-License-Identifier: Apache-2.0
//! The lookup table of Maglev (Eisenbud et al., NSDI 2016, §3.4).
//!
//! Every backend has its own order of preference of all slots, and they take turns. So each has as many slots as any other, but for
//! one, and when a backend comes or goes, few slots of the others change hands.

use crate::Target;

const FREE: u32 = u32::MAX;
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// Which of `targets` has which slot, by its place in the list. The list must be sorted: the same on all nodes makes the same table.
///
/// Empty when there is nobody, or more targets than slots.
#[must_use]
pub fn table(targets: &[Target], size: u32) -> Vec<u32> {
    let slots = size as usize;
    if targets.is_empty() || targets.len() > slots {
        return Vec::new();
    }
    let inverses = inverses(size);
    let mut turns: Vec<Turn> = targets.iter().map(|target| Turn::of(target, size)).collect();
    let mut table = vec![FREE; slots];
    let mut filled = 0;
    loop {
        for (place, turn) in (0_u32..).zip(&mut turns) {
            let slot = turn.next_free(&table, &inverses);
            table[slot] = place;
            filled += 1;
            if filled == slots {
                return table;
            }
        }
    }
}

/// A backend's way through the slots: `scale / at + shift` modulo the size, for one `at` after the other.
///
/// The paper steps through the slots by a fixed width. Of two backends with the same width, which one pair of a thousand has with a
/// thousand slots, one follows in the other's steps, and when a third goes, a third of all slots changes hands. Quotients have no such steps.
struct Turn {
    at: u32,
    scale: u64,
    shift: u64,
    size: u32,
}

impl Turn {
    fn of(target: &Target, size: u32) -> Self {
        let (first, second) = (hash(target, 1), hash(target, 2));
        let modulus = u64::from(size);
        Self {
            at: u32::try_from((first >> 32) % modulus).unwrap_or_default(),
            scale: second % (modulus - 1) + 1,
            shift: (first & 0xffff_ffff) % modulus,
            size,
        }
    }

    /// Moves on to the first slot that nobody has; there is one.
    fn next_free(&mut self, table: &[u32], inverses: &[u32]) -> usize {
        loop {
            let quotient = self.scale * u64::from(inverses[self.at as usize]);
            let slot = usize::try_from((quotient + self.shift) % u64::from(self.size)).unwrap_or_default();
            self.at = (self.at + 1) % self.size;
            if table[slot] == FREE {
                return slot;
            }
        }
    }
}

/// The inverse of every number modulo a prime; of 0, which has none, 0. By the inverses of smaller ones.
fn inverses(prime: u32) -> Vec<u32> {
    let modulus = u64::from(prime);
    let mut inverses: Vec<u64> = vec![0, 1];
    for number in 2..modulus {
        let smaller = usize::try_from(modulus % number).unwrap_or_default();
        inverses.push((modulus - modulus / number) * inverses[smaller] % modulus);
    }
    inverses
        .iter()
        .map(|inverse| u32::try_from(*inverse).unwrap_or_default())
        .collect()
}

/// FNV-1a with a finish that mixes all bits: the same everywhere and in every release.
fn hash(target: &Target, seed: u64) -> u64 {
    let addr = datapath_common::Addr::from(target.addr).octets();
    let bytes = addr.into_iter().chain(target.port.to_be_bytes());
    let folded = bytes.fold(FNV_OFFSET ^ seed, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME)
    });
    datapath_common::service::mix(folded)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nobody_and_too_many_have_no_table() {
        assert_eq!(table(&[], 251), []);
        assert_eq!(table(&targets(&(0..252).collect()), 251), []);
        assert_eq!(table(&targets(&(0..251).collect()), 251).len(), 251);
    }

    #[test]
    fn a_number_times_its_inverse_is_one() {
        for size in [251, 1021] {
            let inverses = inverses(size);
            assert!((1..size).all(|number| number * inverses[number as usize] % size == 1));
        }
    }

    #[test]
    fn the_table_is_the_same_in_every_release() {
        let table = table(&targets(&[1, 2, 3].into()), 251);
        let start: Vec<u32> = table.iter().take(12).copied().collect();
        assert_eq!(start, START_OF_THREE);
    }

    const START_OF_THREE: [u32; 12] = [0, 0, 1, 1, 1, 2, 0, 1, 0, 0, 0, 1];

    proptest! {
        /// All slots are filled, and nobody has two more than anybody else.
        #[test]
        fn shares_are_equal(ids in proptest::collection::btree_set(0_u32..5000, 1..60)) {
            let shares = shares(&targets(&ids), &table(&targets(&ids), 509));
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            prop_assert_eq!(shares.iter().sum::<usize>(), 509);
            prop_assert!(most - least <= 1, "{}..{}", least, most);
        }

        /// Who goes loses his slots, and of the others' no more change hands than a tenth of the table. (The paper measures some
        /// percent; this bound held for 30,000 lists.)
        #[test]
        fn a_backend_that_goes_moves_few_others(
            ids in proptest::collection::btree_set(0_u32..5000, 2..40), gone in any::<prop::sample::Index>(),
        ) {
            let before = targets(&ids);
            let gone = before[gone.index(before.len())];
            let after: Vec<Target> = before.iter().copied().filter(|one| *one != gone).collect();
            let (old, new) = (table(&before, 1021), table(&after, 1021));
            let owner = |list: &[Target], place: u32| list[place as usize];
            let slots = old.iter().zip(&new);
            let moved = slots.filter(|(old, new)| {
                let old = owner(&before, **old);
                old != gone && old != owner(&after, **new)
            });
            let moved = moved.count();
            prop_assert!(moved <= 1021 / 10, "{moved} of 1021");
        }
    }

    fn shares(targets: &[Target], table: &[u32]) -> Vec<usize> {
        let mut shares = vec![0; targets.len()];
        for place in table {
            shares[*place as usize] += 1;
        }
        shares
    }

    fn targets(ids: &BTreeSet<u32>) -> Vec<Target> {
        let target = |id: &u32| Target {
            addr: Ipv4Addr::from(0x0af4_0000 + id).into(),
            port: 8080,
        };
        ids.iter().map(target).collect()
    }
}
