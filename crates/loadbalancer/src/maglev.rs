// SPDX-License-Identifier: Apache-2.0
//! The lookup table of Maglev (Eisenbud et al., NSDI 2016, §3.4).
//!
//! Every backend has its own order of preference of all slots, and they take turns. So each has as many slots as any other, but for
//! one, and when a backend comes or goes, few slots of the others change hands.

use crate::Target;

/// Sizes that a table may have: primes, so that every step visits all slots.
pub const SIZES: [u32; 10] = [251, 509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_521, 131_071];

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
    let mut turns: Vec<Turn> = targets.iter().map(|target| Turn::of(target, size)).collect();
    let mut table = vec![FREE; slots];
    let mut filled = 0;
    loop {
        for (place, turn) in (0_u32..).zip(&mut turns) {
            let slot = turn.next_free(&table);
            table[slot] = place;
            filled += 1;
            if filled == slots {
                return table;
            }
        }
    }
}

/// A backend's way through the slots.
struct Turn {
    at: u32,
    step: u32,
    size: u32,
}

impl Turn {
    fn of(target: &Target, size: u32) -> Self {
        let narrow = |hash: u64, modulus: u32| u32::try_from(hash % u64::from(modulus)).unwrap_or_default();
        Self {
            at: narrow(hash(target, 1), size),
            step: narrow(hash(target, 2), size - 1) + 1,
            size,
        }
    }

    /// Moves on to the first slot that nobody has; there is one.
    fn next_free(&mut self, table: &[u32]) -> usize {
        loop {
            let slot = self.at as usize;
            self.at = (self.at + self.step) % self.size;
            if table[slot] == FREE {
                return slot;
            }
        }
    }
}

/// FNV-1a with a finish that mixes all bits: the same everywhere and in every release.
fn hash(target: &Target, seed: u64) -> u64 {
    let addr = datapath_common::Addr::from(target.addr).octets();
    let bytes = addr.into_iter().chain(target.port.to_be_bytes());
    let folded = bytes.fold(FNV_OFFSET ^ seed, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME)
    });
    // The finish of MurmurHash3.
    let mixed = (folded ^ folded >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ mixed >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ mixed >> 33
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
    fn the_table_is_the_same_in_every_release() {
        let table = table(&targets(&[1, 2, 3].into()), 251);
        let start: Vec<u32> = table.iter().take(12).copied().collect();
        assert_eq!(start, START_OF_THREE);
    }

    const START_OF_THREE: [u32; 12] = [0, 1, 0, 1, 2, 0, 2, 2, 0, 2, 0, 0];

    proptest! {
        /// All slots are filled, and nobody has two more than anybody else.
        #[test]
        fn shares_are_equal(ids in proptest::collection::btree_set(0_u32..5000, 1..60)) {
            let shares = shares(&targets(&ids), &table(&targets(&ids), 509));
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            prop_assert_eq!(shares.iter().sum::<usize>(), 509);
            prop_assert!(most - least <= 1, "{}..{}", least, most);
        }

        /// Who goes loses his slots, and of the others' no more change hands than a quarter of the table. (The paper measures some
        /// percent; this is the bound that holds for every list here.)
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
            prop_assert!(moved <= 1021 / 4, "{moved} of 1021");
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
