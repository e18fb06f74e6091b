// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Addresses and ports as they lie in a packet.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An IP address of either family: 16 bytes in network order, IPv4 as `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2).
///
/// It is two words, so that the programs keep, copy and compare it in registers.
#[repr(transparent)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Addr([u64; 2]);

impl Addr {
    /// `::`, which no packet of a pod may carry as its source.
    pub const UNSPECIFIED: Self = Self([0; 2]);

    /// From 16 bytes.
    #[inline(always)]
    #[must_use]
    pub const fn v6(octets: [u8; 16]) -> Self {
        Self::from_bits(u128::from_be_bytes(octets))
    }

    /// The v4-mapped form of an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn v4(octets: [u8; 4]) -> Self {
        Self([0, (0xffff << 32 | u32::from_be_bytes(octets) as u64).to_be()])
    }

    /// The 16 bytes.
    #[must_use]
    pub const fn octets(self) -> [u8; 16] {
        self.to_bits().to_be_bytes()
    }

    #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
    const fn from_bits(bits: u128) -> Self {
        Self([((bits >> 64) as u64).to_be(), (bits as u64).to_be()])
    }

    const fn to_bits(self) -> u128 {
        (u64::from_be(self.0[0]) as u128) << 64 | u64::from_be(self.0[1]) as u128
    }

    /// The two halves in the machine's byte order: equal if and only if the addresses are, and ordered in a way
    /// that is the same for kernel and user space, though not numerically.
    #[inline(always)]
    #[must_use]
    pub const fn words(&self) -> [u64; 2] {
        self.0
    }

    /// The 16 bytes as four words, as they lie in memory: for the kernel's structures.
    #[inline(always)]
    #[must_use]
    pub const fn quarters(&self) -> [u32; 4] {
        let [a, b, c, d, e, f, g, h] = self.0[0].to_ne_bytes();
        let [i, j, k, l, m, n, o, p] = self.0[1].to_ne_bytes();
        [
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
            u32::from_ne_bytes([i, j, k, l]),
            u32::from_ne_bytes([m, n, o, p]),
        ]
    }

    /// The inverse of [`quarters`](Self::quarters).
    #[inline(always)]
    #[must_use]
    pub const fn from_quarters(quarters: [u32; 4]) -> Self {
        let [a, b, c, d] = quarters;
        Self([joined(a, b), joined(c, d)])
    }

    /// What is no address of anybody, for a network namespace: of the prefix `100::/64`, to which nothing is sent (RFC 6666).
    #[inline(always)]
    #[must_use]
    pub const fn of_namespace(cookie: u64) -> Self {
        Self([u64::from_ne_bytes([1, 0, 0, 0, 0, 0, 0, 0]), cookie])
    }

    /// The unfolded sum of the address's 16-bit words, for checksums.
    #[inline(always)]
    #[must_use]
    pub const fn sum(&self) -> u32 {
        halves_sum(self.0[0]) + halves_sum(self.0[1])
    }

    /// The last four bytes as they lie in memory: of a v4-mapped address, the IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn v4_octets(&self) -> [u8; 4] {
        ((u64::from_be(self.0[1]) & 0xffff_ffff) as u32).to_be_bytes()
    }

    /// Whether this is a v4-mapped address.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        self.0[0] == 0 && u64::from_be(self.0[1]) >> 32 == 0xffff
    }

    /// Multicast of either family, or the IPv4 limited broadcast.
    #[inline(always)]
    #[must_use]
    pub const fn is_multicast(&self) -> bool {
        if self.is_v4() {
            let [first, ..] = self.v4_octets();
            first >= 224 && (first < 240 || first == 255)
        } else {
            u64::from_be(self.0[0]) >> 56 == 0xff
        }
    }

    /// `127.0.0.0/8`, which no packet on a link has.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4_loopback(&self) -> bool {
        u64::from_be(self.0[1]) >> 24 == 0x00ff_ff7f && self.0[0] == 0
    }

    /// `fe80::/10`. (IPv4 link-local addresses get no special treatment from the datapath.)
    #[inline(always)]
    #[must_use]
    pub const fn is_v6_link_local(&self) -> bool {
        u64::from_be(self.0[0]) >> 54 == 0xfe80 >> 6
    }

    /// The address in the standard library's type.
    #[must_use]
    pub const fn to_ip(self) -> IpAddr {
        Ipv6Addr::from_octets(self.octets()).to_canonical()
    }
}

/// The sum of the 16-bit words of a word.
const fn halves_sum(word: u64) -> u32 {
    (word & 0xffff) as u32 + (word >> 16 & 0xffff) as u32 + (word >> 32 & 0xffff) as u32 + (word >> 48) as u32
}

/// Two halves of a word as they lie in memory.
const fn joined(first: u32, second: u32) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

impl PartialEq for Addr {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        self.words() == other.words()
    }
}

impl Eq for Addr {}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => ip.into(),
            IpAddr::V6(ip) => ip.into(),
        }
    }
}

impl From<Ipv4Addr> for Addr {
    fn from(ip: Ipv4Addr) -> Self {
        Self::v4(ip.octets())
    }
}

impl From<Ipv6Addr> for Addr {
    fn from(ip: Ipv6Addr) -> Self {
        Self::v6(ip.octets())
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_ip().fmt(f)
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A 16-bit number in network byte order.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Be16(u16);

impl Be16 {
    /// From the machine's byte order.
    #[inline(always)]
    #[must_use]
    pub const fn new(value: u16) -> Self {
        Self(value.to_be())
    }

    /// In the machine's byte order.
    #[inline(always)]
    #[must_use]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }

    /// The bytes as they lie in memory, read as a number of the machine: what one's-complement sums add up.
    #[inline(always)]
    #[must_use]
    pub const fn raw(self) -> u16 {
        self.0
    }

    /// The inverse of [`raw`](Self::raw).
    #[inline(always)]
    #[must_use]
    pub const fn from_raw(raw: u16) -> Self {
        Self(raw)
    }
}

impl fmt::Display for Be16 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

impl fmt::Debug for Be16 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// An Ethernet address. It lies at even offsets everywhere.
#[repr(C, align(2))]
#[derive(Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_survive_the_round_trip() {
        for ip in ["10.244.1.7", "255.255.255.255", "fd74:7710::a", "fe80::1", "::"] {
            let ip: IpAddr = ip.parse().unwrap();
            assert_eq!(Addr::from(ip).to_ip(), ip);
            assert_eq!(Addr::from(ip).is_v4(), ip.is_ipv4());
            assert_eq!(Addr::from_quarters(Addr::from(ip).quarters()).to_ip(), ip);
        }
    }

    #[test]
    fn multicast_is_told_in_both_families() {
        let multicast = |ip: &str| Addr::from(ip.parse::<IpAddr>().unwrap()).is_multicast();
        assert!(multicast("224.0.0.1") && multicast("239.255.255.250") && multicast("255.255.255.255"));
        assert!(multicast("ff02::1"));
        assert!(!multicast("223.255.255.255") && !multicast("240.0.0.1") && !multicast("fe80::1"));
    }

    #[test]
    fn link_local_is_fe80_to_febf() {
        let link_local = |ip: &str| Addr::from(ip.parse::<IpAddr>().unwrap()).is_v6_link_local();
        assert!(link_local("fe80::1") && link_local("febf::1"));
        assert!(!link_local("fec0::1") && !link_local("169.254.1.1"));
    }
}
