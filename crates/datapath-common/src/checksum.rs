// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! Sums add 16-bit words as they lie in memory, so no byte is ever swapped (RFC 1071 §2 B).

use crate::Be16;

/// The unfolded sum of the words of `bytes`, of which there may be up to 128 KiB.
#[inline(always)]
#[must_use]
pub fn sum(bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<2>();
    let mut sum = 0;
    for word in words {
        sum += u32::from(u16::from_ne_bytes(*word));
    }
    match rest {
        [last] => sum + u32::from(u16::from_ne_bytes([*last, 0])),
        _ => sum,
    }
}

/// The checksum field for an unfolded sum.
#[inline(always)]
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "two folds leave 16 bits")]
pub const fn finish(mut sum: u32) -> Be16 {
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    Be16::from_raw(!(sum as u16))
}

/// The checksum field after one word under it changes from `old` to `new` (RFC 1624 equation 3).
#[inline(always)]
#[must_use]
pub const fn update(check: Be16, old: Be16, new: Be16) -> Be16 {
    finish((!check.raw()) as u32 + (!old.raw()) as u32 + new.raw() as u32)
}

/// What a change does to a sum: to be added to it. `old` and `new` are the unfolded sums of the words that change.
#[inline(always)]
#[must_use]
pub const fn difference(old: u32, new: u32) -> u32 {
    // The complement of a sum is its negative.
    finish(old).raw() as u32 + (!finish(new).raw()) as u32
}

/// The checksum field after what lies under it has changed by this [`difference`].
#[inline(always)]
#[must_use]
pub const fn apply(check: Be16, difference: u32) -> Be16 {
    finish((!check.raw()) as u32 + difference)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_rfc_1071_holds() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(finish(sum(&bytes)), Be16::new(!0xddf2));
    }

    proptest! {
        #[test]
        fn an_update_equals_the_full_sum(mut bytes in prop::collection::vec(any::<u8>(), 20..60), at in 0..9usize, new: u16) {
            // A header is never all zeroes: there -0 and +0 would differ.
            bytes[19] |= 1;
            let old = Be16::from_raw(u16::from_ne_bytes([bytes[2 * at], bytes[2 * at + 1]]));
            let before = finish(sum(&bytes));
            let new = Be16::from_raw(new);
            bytes[2 * at..2 * at + 2].copy_from_slice(&new.raw().to_ne_bytes());
            prop_assert_eq!(update(before, old, new), finish(sum(&bytes)));
        }

        #[test]
        fn a_difference_of_addresses_and_ports_equals_the_full_sum(
            mut bytes in prop::collection::vec(any::<u8>(), 40..80), new: [u8; 18],
        ) {
            bytes[39] |= 1;
            let before = finish(sum(&bytes));
            let old = sum(&bytes[8..26]);
            bytes[8..26].copy_from_slice(&new);
            prop_assert_eq!(apply(before, difference(old, sum(&new))), finish(sum(&bytes)));
        }

        #[test]
        fn the_sum_of_an_address_is_that_of_its_bytes(octets: [u8; 16]) {
            prop_assert_eq!(finish(crate::Addr::v6(octets).sum()), finish(sum(&octets)));
        }

        #[test]
        fn a_packet_with_its_checksum_sums_to_zero(mut bytes in prop::collection::vec(any::<u8>(), 8..200)) {
            bytes[2..4].fill(0);
            let check = finish(sum(&bytes));
            bytes[2..4].copy_from_slice(&check.raw().to_ne_bytes());
            prop_assert_eq!(finish(sum(&bytes)).raw(), 0);
        }
    }
}
