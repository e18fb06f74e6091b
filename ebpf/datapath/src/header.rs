// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Headers of packets that the programs make themselves.

use datapath_common::packet::{ICMP_LEN, IPV4_LEN, IPV6_LEN, TCP_LEN};
use datapath_common::{Addr, Be16, checksum};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// TTL or hop limit.
pub const TTL: u8 = 64;
/// The flag "don't fragment" of IPv4: a router on the way says so instead of cutting the packet.
pub const DONT_FRAGMENT: Be16 = Be16::new(0x4000);
/// Version 4, five words.
pub const VERSION_IHL: u8 = 0x45;
/// Version 6 in the first of the four bytes of version, class and label.
pub const VERSION_6: [u8; 4] = [0x60, 0, 0, 0];

/// Of IPv4, without options.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[expect(missing_docs, reason = "the names of RFC 791")]
pub struct Ipv4 {
    pub version_ihl: u8,
    pub tos: u8,
    pub total_length: Be16,
    pub id: Be16,
    pub fragment: Be16,
    pub ttl: u8,
    pub proto: u8,
    pub check: Be16,
    pub source: [u8; 4],
    pub destination: [u8; 4],
}

/// Of IPv6.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[expect(missing_docs, reason = "the names of RFC 8200")]
pub struct Ipv6 {
    pub version: [u8; 4],
    pub payload_length: Be16,
    pub next: u8,
    pub hop_limit: u8,
    pub source: [u32; 4],
    pub destination: [u32; 4],
}

/// Of TCP, without options.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[expect(missing_docs, reason = "the names of RFC 9293")]
pub struct Tcp {
    pub ports: [Be16; 2],
    pub sequence: [u8; 4],
    pub acknowledgment: [u8; 4],
    pub data_offset: u8,
    pub flags: u8,
    pub window: Be16,
    pub check: Be16,
    pub urgent: Be16,
}

/// Of ICMP and ICMPv6.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[expect(missing_docs, reason = "the names of RFC 792")]
pub struct Icmp {
    pub kind: u8,
    pub code: u8,
    pub check: Be16,
    pub rest: [u8; 4],
}

const _: () = assert!(size_of::<Ipv4>() == IPV4_LEN && size_of::<Ipv6>() == IPV6_LEN);
const _: () = assert!(size_of::<Tcp>() == TCP_LEN && size_of::<Icmp>() == ICMP_LEN);

/// A length of 16 bits; that of a packet that is cut later may not fit, and whoever cuts it writes another.
#[inline(always)]
#[must_use]
pub const fn length(bytes: u32) -> Be16 {
    Be16::new(if bytes > u16::MAX as u32 { 0 } else { bytes as u16 })
}

impl Ipv4 {
    /// With its checksum, for so many bytes of payload.
    #[inline(always)]
    #[must_use]
    pub fn new(proto: u8, source: &Addr, destination: &Addr, payload: u32) -> Self {
        let mut header = Self {
            version_ihl: VERSION_IHL,
            tos: 0,
            total_length: length(IPV4_LEN as u32 + payload),
            id: Be16::new(0),
            fragment: DONT_FRAGMENT,
            ttl: TTL,
            proto,
            check: Be16::new(0),
            source: source.v4_octets(),
            destination: destination.v4_octets(),
        };
        header.check = checksum::finish(checksum::sum(header.as_bytes()));
        header
    }
}

impl Ipv6 {
    /// For so many bytes of payload.
    #[inline(always)]
    #[must_use]
    pub const fn new(next: u8, source: &Addr, destination: &Addr, payload: u32) -> Self {
        Self {
            version: VERSION_6,
            payload_length: length(payload),
            next,
            hop_limit: TTL,
            source: source.quarters(),
            destination: destination.quarters(),
        }
    }
}

/// The sum of a pseudo-header, whose order does not matter: RFC 9293 §3.1, RFC 8200 §8.1.
#[inline(always)]
#[must_use]
pub const fn pseudo(proto: u8, ends: [&Addr; 2], length: u16) -> u32 {
    // What an IPv4 address has in front of it adds up to zero.
    ends[0].sum() + ends[1].sum() + Be16::new(length).raw() as u32 + Be16::new(proto as u16).raw() as u32
}
