// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Masquerading: how a pod's connection to the world looks outside of the node, and which ports it may look like.
//!
//! A mapping depends on the remote address and port, as that of most routers does: two pods may share a port of the node as
//! long as they talk to different ends.

use core::num::NonZeroU32;

use crate::packet::proto;
use crate::{Addr, Be16};

row! {
    /// A row of `nat`: to whom what arrives for an address and port of the node really goes. The key is the connection as the
    /// wire sees it, a [`CtKey`](crate::CtKey) of the remote end and the node's.
    ///
    /// It lives as long as the pod's own row in `conntrack`, which says the same the other way round.
    pub struct NatEntry: 24 {
        /// The pod.
        pub pod: Addr,
        /// The low half of jiffies when it was made.
        pub created: u32,
        /// The pod's port, or identifier of an echo.
        pub port: Be16,
        /// TCP: the upper half of a sequence number behind all that the pod has sent, once it has ended the connection; until
        /// then, of the first. Of other protocols, and in rows of earlier versions, zero.
        pub sequence: u16,
    }
}

row! {
    /// A row of `nat_addresses`: an address of the node that pods' connections to the world have as their source.
    pub struct NatAddress: 24 {
        /// Unspecified: none, and nothing is masqueraded.
        pub address: Addr,
        /// The ports that connections may have, both ends included.
        pub first_port: u16,
        /// See `first_port`.
        pub last_port: u16,
        /// Where the same address is among the slots that connections remember.
        pub slot: u8,
        /// [`SERVICES_ONLY`](NatAddress::SERVICES_ONLY) or nothing.
        pub flags: u8,
        /// Zero.
        pub _pad: [u8; 2],
    }
}

impl NatAddress {
    /// Pods' connections to the world keep their own address; only what goes on to another node's backend of a service does not.
    pub const SERVICES_ONLY: u8 = 1;
}

/// Rows of `nat_addresses`. The first two say what new connections get, of IPv4 and of IPv6; the others are slots, which
/// connections remember: so a node may change its address, and those that are open keep theirs.
pub const ADDRESSES: u32 = 16;
/// The row for new connections of IPv4.
pub const CURRENT_V4: u32 = 0;
/// The row for new connections of IPv6.
pub const CURRENT_V6: u32 = 1;
/// The first slot.
pub const FIRST_SLOT: u8 = 2;

/// How many ports are tried for a connection before its first packet is dropped; the next one is another try. With so many, one
/// of thirty is dropped when nine of ten ports towards that remote end are taken.
pub const PROBES_MAX: u32 = 32;
/// With this attempt begins, for a new connection of TCP, that the port of one that is over is as good as a free one.
pub const TAKE_OVER_FROM: u32 = 4;
/// How many ticks of the kernel's clock (100 to 1,000 a second) a connection must be over for its port to be taken at once.
const QUIET_TICKS: u32 = 512;

/// For how many ticks a connection must be over and silent before its port may be taken in this attempt: the longer, the surer
/// that nothing of it is on its way any more. The more attempts have failed the less: 256 of them, then half for each four.
#[inline(always)]
#[must_use]
pub const fn quiet_ticks(attempt: u32) -> u32 {
    QUIET_TICKS >> (attempt / TAKE_OVER_FROM)
}

/// Whether a connection that begins with this sequence number (see [`NatEntry::sequence`]) may follow one that ended with that.
///
/// Then neither end takes a segment of the old one for one of the new, and a remote end that still remembers the old one
/// (TIME-WAIT) accepts the new (RFC 1122, 4.2.2.13; RFC 6191). The kernel's own NAT asks for the same.
#[inline(always)]
#[must_use]
pub const fn follows(new: u16, old: u16) -> bool {
    new.wrapping_sub(old).cast_signed() > 0
}

/// What a row of `conntrack` remembers of its connection's mapping: a slot and a port, in one word; or that there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mapping(u32);

impl Mapping {
    /// Not masqueraded.
    pub const NONE: Self = Self(0);
    const SOME: u32 = 1 << 31;

    /// To the port of the address in a slot.
    #[inline(always)]
    #[must_use]
    pub const fn new(slot: u8, port: Be16) -> Self {
        Self(Self::SOME | ((slot & 0xf) as u32) << 16 | port.raw() as u32)
    }

    /// As one word, with the topmost bit set; 0 for [`NONE`](Self::NONE).
    #[inline(always)]
    #[must_use]
    pub const fn word(self) -> u32 {
        self.0
    }

    /// The inverse of [`word`](Self::word); of any other word, [`NONE`](Self::NONE).
    #[inline(always)]
    #[must_use]
    pub const fn from_word(word: u32) -> Self {
        if word & Self::SOME == 0 {
            Self::NONE
        } else {
            Self(word)
        }
    }

    /// Whether there is one.
    #[inline(always)]
    #[must_use]
    pub const fn is_some(self) -> bool {
        self.0 != 0
    }

    /// The slot of the address.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "four bits")]
    pub const fn slot(self) -> u8 {
        (self.0 >> 16) as u8 & 0xf
    }

    /// The port.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the low half")]
    pub const fn port(self) -> Be16 {
        Be16::from_raw(self.0 as u16)
    }
}

/// A range of ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The lowest.
    pub first: u16,
    /// The highest, which is not below the lowest.
    pub last: u16,
}

impl Ports {
    /// The upper half of what Linux gives out by itself (`net.ipv4.ip_local_port_range`), and the dynamic ports of RFC 6335.
    /// The agent reserves them, so that the node's own sockets get the lower half.
    pub const DEFAULT: Self = Self {
        first: 49_152,
        last: 65_535,
    };

    /// One port.
    #[inline(always)]
    #[must_use]
    pub const fn only(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }

    /// How many there are.
    #[inline(always)]
    #[must_use]
    pub const fn count(self) -> u32 {
        self.last.wrapping_sub(self.first) as u32 + 1
    }

    /// Whether it is one of them.
    #[inline(always)]
    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

/// Which ports are tried for a connection, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    first: u16,
    /// Not zero: so no remainder panics, which the programs could not.
    count: NonZeroU32,
    start: u32,
    seed: u32,
    /// All ones if the ports are tried in a row, else zero.
    in_a_row: u32,
}

impl Probe {
    /// Begins with the port that the pod uses, if it may be kept, else where `seed` says.
    #[inline(always)]
    #[must_use]
    pub const fn new(ports: Ports, wanted: u16, seed: u32) -> Self {
        let count = ports.count();
        Self {
            first: ports.first,
            count: NonZeroU32::MIN.saturating_add(count - 1),
            start: if ports.contains(wanted) {
                (wanted - ports.first) as u32
            } else {
                seed % count
            },
            seed,
            // Few ports are tried whole; of many, any.
            in_a_row: if count <= PROBES_MAX { u32::MAX } else { 0 },
        }
    }

    /// The port to try in this attempt, of which the first is 0. (Without branches on what the verifier does
    /// not know: it walks through each attempt.)
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "less than the count of ports")]
    pub fn port(&self, attempt: u32) -> u16 {
        let next = self.start.wrapping_add(attempt);
        let any = mix(self.seed.wrapping_add(attempt));
        let chosen = if attempt == 0 {
            self.start
        } else {
            next & self.in_a_row | any & !self.in_a_row
        };
        let offset = chosen % self.count;
        self.first.wrapping_add(offset as u16)
    }
}

/// Spreads near numbers far apart (the finaliser of MurmurHash3).
#[inline(always)]
const fn mix(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b);
    x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35);
    x ^ (x >> 16)
}

/// What may be done to the port of a protocol's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewrite {
    /// It may be another one.
    Port,
    /// It must be the pod's own: the checksum of SCTP covers the whole packet and is no sum.
    Keep,
    /// The protocol cannot be masqueraded: nothing tells whose an answer is.
    Refuse,
}

/// What may be done to the port of a protocol's packets; `v4` is the family.
#[inline(always)]
#[must_use]
pub const fn rewrite(protocol: u8, v4: bool) -> Rewrite {
    match protocol {
        proto::TCP | proto::UDP => Rewrite::Port,
        proto::ICMP if v4 => Rewrite::Port,
        proto::ICMPV6 if !v4 => Rewrite::Port,
        proto::SCTP => Rewrite::Keep,
        _ => Rewrite::Refuse,
    }
}

#[cfg(test)]
#[path = "nat_test.rs"]
mod tests;
