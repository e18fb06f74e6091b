// SPDX-License-Identifier: Apache-2.0
//! Reading attributes straight from the answer's bytes. Parsing whole messages into the packet crate's types would
//! cost more than the request itself (a link carries hundreds of statistics), and a layout that a future kernel
//! adds to an attribute nobody reads must not make a dump fail.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const HEADER: usize = 4;
const ALIGN: usize = 4;
/// The two upper bits of a type are flags (nested, network byte order).
const TYPE_MASK: u16 = 0x3fff;

/// Iterates over `(type, value)`; stops at the first malformed attribute.
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)? & TYPE_MASK;
        let value = self.0.get(HEADER..length)?;
        self.0 = self.0.get(length.next_multiple_of(ALIGN)..).unwrap_or_default();
        Some((kind, value))
    }
}

pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

pub(crate) fn string(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

pub(crate) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::V4(Ipv4Addr::from(*bytes.first_chunk::<4>()?))),
        16 => Some(IpAddr::V6(Ipv6Addr::from(*bytes.first_chunk::<16>()?))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_split_at_their_aligned_lengths() {
        let bytes = [5, 0, 1, 0, b'x', 0, 0, 0, 8, 0, 2, 0x80, 1, 2, 3, 4];
        let all: Vec<_> = Attributes(&bytes).collect();
        assert_eq!(all, [(1, &b"x"[..]), (2, &[1, 2, 3, 4][..])]);
    }

    #[test]
    fn a_truncated_or_zero_length_attribute_ends_the_iteration() {
        assert_eq!(Attributes(&[9, 0, 1, 0, 1]).count(), 0);
        assert_eq!(Attributes(&[0, 0, 1, 0, 1, 1, 1, 1]).count(), 0);
        assert_eq!(Attributes(&[4]).count(), 0);
    }
}
