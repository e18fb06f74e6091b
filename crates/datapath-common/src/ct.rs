// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Connection tracking: one row per connection, whatever its direction, and the state machine over it.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::nat::Mapping;
use crate::packet::{proto, tcp};
use crate::service::Sight;
use crate::{Addr, Be16};

/// The 5-tuple of a packet, as it lies in it. ICMP echo has its identifier as both ports, protocols without ports have 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// Source address.
    pub source: Addr,
    /// Destination address.
    pub destination: Addr,
    /// Source port.
    pub source_port: Be16,
    /// Destination port.
    pub destination_port: Be16,
    /// IP protocol.
    pub proto: u8,
}

row! {
    /// The key of `conntrack`: the 5-tuple with the lower end first, so that both directions find one row.
    ///
    /// "Lower" is the order of [`Addr::words`], then of the ports; any order would do that both directions share.
    pub struct CtKey: 40 {
        /// Lower and upper address.
        pub addr: [Addr; 2],
        /// Their ports.
        pub port: [Be16; 2],
        /// IP protocol.
        pub proto: u8,
        /// Zero in `conntrack`; in `nat`, what the row says: see [`service`](crate::service) for what is not zero.
        pub kind: u8,
        /// Zero.
        pub _pad: [u8; 2],
    }
}

/// Which of a key's two ends: 0 the lower, 1 the upper. Also indexes a row's counters after
/// [`CtEntry::leg`].
pub type Side = u8;

impl Tuple {
    /// To be filled in.
    pub const EMPTY: Self = Self {
        source: Addr::UNSPECIFIED,
        destination: Addr::UNSPECIFIED,
        source_port: Be16::new(0),
        destination_port: Be16::new(0),
        proto: 0,
    };

    /// The key, and which of its ends sent the packet.
    #[inline(always)]
    #[must_use]
    pub fn key(&self) -> (CtKey, Side) {
        let (s, d) = (self.source.words(), self.destination.words());
        let upper = if s[1] != d[1] {
            s[1] > d[1]
        } else if s[0] != d[0] {
            s[0] > d[0]
        } else {
            self.source_port.raw() > self.destination_port.raw()
        };
        let (lo, hi) = (
            (self.source, self.source_port),
            (self.destination, self.destination_port),
        );
        let (lo, hi) = if upper { (hi, lo) } else { (lo, hi) };
        let key = CtKey {
            addr: [lo.0, hi.0],
            port: [lo.1, hi.1],
            proto: self.proto,
            kind: 0,
            _pad: [0; 2],
        };
        (key, u8::from(upper))
    }

    /// The key of a row of `nat` of a connection to a service, of which this is a packet of the client.
    #[inline(always)]
    #[must_use]
    pub fn sight(&self, sight: Sight) -> CtKey {
        let (mut key, client) = self.key();
        key.kind = sight as u8 | client;
        key
    }

    /// As the other end sends it.
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            proto: self.proto,
        }
    }
}

impl CtKey {
    /// Of a row of `nat`: how a connection to a service is looked at, and a packet of its client; `None`: it is of another kind.
    #[must_use]
    pub const fn sight(&self) -> Option<(Sight, Tuple)> {
        let sight = match self.kind & !1 {
            2 => Sight::Client,
            4 => Sight::Backend,
            _ => return None,
        };
        Some((sight, self.tuple(self.kind & 1)))
    }

    /// The tuple of a packet that `side` sends.
    #[must_use]
    pub const fn tuple(&self, side: Side) -> Tuple {
        let (from, to) = if side == 0 { (0, 1) } else { (1, 0) };
        Tuple {
            source: self.addr[from],
            destination: self.addr[to],
            source_port: self.port[from],
            destination_port: self.port[to],
            proto: self.proto,
        }
    }
}

row! {
    /// A row of `conntrack`: 64 bytes. Arrays of two are indexed by [`leg`](CtEntry::leg).
    ///
    /// `identity`, `rule`, `service` and `revision` are reserved for policy and services, so that a connection is decided
    /// once and its later packets need no other lookup.
    pub struct CtEntry: 64 {
        /// The low half of jiffies at the last packet.
        pub last_seen: u32,
        /// The same at the first.
        pub created: u32,
        /// Packets of the opener, packets to the opener.
        pub packets: [u64; 2],
        /// Bytes, with the Ethernet header.
        pub bytes: [u64; 2],
        /// The remote end's identity when the connection was decided.
        pub identity: u64,
        /// The policy rule that allowed it.
        pub rule: u32,
        /// Zero.
        pub service: u16,
        /// The node's port that a masqueraded connection has outside.
        pub nat_port: Be16,
        /// Where the connection stands.
        pub state: State,
        /// Which end opened it.
        pub opener: Side,
        /// All TCP flags seen.
        pub tcp_flags: [u8; 2],
        /// Of [`MASQUERADED`](CtEntry::MASQUERADED) and the constants below it; the topmost four bits are the slot of the node's
        /// address.
        pub flags: u16,
        /// The revision of the policy that decided.
        pub revision: u16,
    }
}

/// The leg of the opener's packets.
pub const ORIGINAL: u8 = 0;
/// The leg of the packets to the opener.
pub const REPLY: u8 = 1;

impl CtEntry {
    /// The row of a connection whose first packet is sent by `side`.
    #[inline(always)]
    #[must_use]
    pub const fn open(now: u32, side: Side, proto: u8, tcp_flags: u8, length: u64) -> Self {
        let (state, sender_opens) = first_state(proto, tcp_flags);
        let (packets, bytes, flags) = if sender_opens {
            ([1, 0], [length, 0], [tcp_flags, 0])
        } else {
            ([0, 1], [0, length], [0, tcp_flags])
        };
        Self {
            last_seen: now,
            created: now,
            packets,
            bytes,
            identity: 0,
            rule: 0,
            service: 0,
            nat_port: Be16::new(0),
            state,
            opener: if sender_opens { side } else { side ^ 1 },
            tcp_flags: flags,
            flags: 0,
            revision: 0,
        }
    }

    /// The opener is a pod that has the node's address outside.
    pub const MASQUERADED: u16 = 1;
    /// The opener's packets come through the host's stack, which may have given them another address or port (`hostPort`, a
    /// NodePort of kube-proxy): answers must go back through it to be changed back.
    pub const THROUGH_HOST: u16 = 2;
    /// The opener believes to talk to a service: answers get its address back.
    pub const SERVICE: u16 = 4;
    const SLOT_SHIFT: u16 = 12;

    /// With a mapping.
    #[inline(always)]
    #[must_use]
    pub const fn masqueraded(mut self, mapping: Mapping) -> Self {
        self.masquerade(mapping);
        self
    }

    /// Gives a new row a mapping.
    #[inline(always)]
    pub const fn masquerade(&mut self, mapping: Mapping) {
        if mapping.is_some() {
            self.flags |= Self::MASQUERADED | (mapping.slot() as u16) << Self::SLOT_SHIFT;
            self.nat_port = mapping.port();
        }
    }

    /// The row after a packet has opened the connection anew, see [`reopens`]. A pod that uses its port again keeps its
    /// mapping, whose row in `nat` is still there.
    #[inline(always)]
    #[must_use]
    pub const fn reopened(&self, now: u32, side: Side, proto: u8, tcp_flags: u8, length: u64) -> Self {
        let mapping = if side == self.opener {
            self.mapping()
        } else {
            Mapping::NONE
        };
        Self::open(now, side, proto, tcp_flags, length).masqueraded(mapping)
    }

    /// How the connection looks outside.
    #[inline(always)]
    #[must_use]
    pub const fn mapping(&self) -> Mapping {
        if self.flags & Self::MASQUERADED == 0 {
            return Mapping::NONE;
        }
        Mapping::new((self.flags >> Self::SLOT_SHIFT) as u8, self.nat_port)
    }

    /// Whether a packet of `leg` belongs to the host's stack, because what it answers came through there.
    #[inline(always)]
    #[must_use]
    pub const fn answers_through_host(&self, leg: u8) -> bool {
        (self.flags & Self::THROUGH_HOST) >> 1 & leg as u16 != 0
    }

    /// Whether a packet of `leg` is to look as if the service had sent it.
    #[inline(always)]
    #[must_use]
    pub const fn answers_for_service(&self, leg: u8) -> bool {
        (self.flags & Self::SERVICE) >> 2 & leg as u16 != 0
    }

    /// Whether the port of this mapping, which `opener` has, may become another's: TCP that is over, and silent for so many
    /// ticks. (A RST is believed whatever its sequence number; a connection that goes on all the same is not silent.)
    #[inline(always)]
    #[must_use]
    pub const fn gives_way(&self, opener: Side, mapping: Mapping, now: u32, quiet: u32) -> bool {
        let silent = now.wrapping_sub(self.last_seen).cast_signed();
        self.state.0 == State::CLOSED.0
            && self.opener == opener
            && self.mapping().word() == mapping.word()
            && silent >= quiet.cast_signed()
    }

    /// [`ORIGINAL`] for a packet that the opener sent, else [`REPLY`].
    #[inline(always)]
    #[must_use]
    pub const fn leg(&self, side: Side) -> u8 {
        (side ^ self.opener) & 1
    }
}

/// Where a connection stands.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct State(pub u8);

impl State {
    /// TCP: the opener sent a SYN.
    pub const SYN_SENT: Self = Self(1);
    /// TCP: the other end answered with one. Only the opener's acknowledgment makes it established: a flood of forged
    /// SYNs stays in the two half-open states.
    pub const SYN_RECEIVED: Self = Self(2);
    /// TCP: open, or picked up in mid-stream.
    pub const ESTABLISHED: Self = Self(3);
    /// TCP: one end has sent its FIN.
    pub const HALF_CLOSED: Self = Self(4);
    /// TCP: both ends have, or one sent a RST.
    pub const CLOSED: Self = Self(5);
    /// Not TCP: one end only has sent.
    pub const UNREPLIED: Self = Self(6);
    /// Not TCP: both have.
    pub const REPLIED: Self = Self(7);

    /// The name, for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SYN_SENT => "syn-sent",
            Self::SYN_RECEIVED => "syn-received",
            Self::ESTABLISHED => "established",
            Self::HALF_CLOSED => "half-closed",
            Self::CLOSED => "closed",
            Self::UNREPLIED => "unreplied",
            Self::REPLIED => "replied",
            _ => "unknown",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The state after a connection's first packet, and whether its sender opened it.
#[inline(always)]
const fn first_state(proto: u8, tcp_flags: u8) -> (State, bool) {
    if proto != proto::TCP {
        return (State::UNREPLIED, true);
    }
    if tcp_flags & tcp::RST != 0 {
        return (State::CLOSED, true);
    }
    match tcp_flags & (tcp::SYN | tcp::ACK) {
        tcp::SYN => (State::SYN_SENT, true),
        // Its SYN went another way, or before us.
        SYN_ACK => (State::SYN_RECEIVED, false),
        _ if tcp_flags & tcp::FIN != 0 => (State::HALF_CLOSED, true),
        _ => (State::ESTABLISHED, true),
    }
}

const SYN_ACK: u8 = tcp::SYN | tcp::ACK;

/// The state after a packet of `leg`, where `seen` are all TCP flags of either leg, this packet's among them.
#[inline(always)]
#[must_use]
pub const fn next_state(state: State, leg: u8, tcp_flags: u8, seen: [u8; 2]) -> State {
    match state {
        State::UNREPLIED if leg == REPLY => return State::REPLIED,
        State::UNREPLIED | State::REPLIED | State::CLOSED => return state,
        _ => {}
    }
    if tcp_flags & tcp::RST != 0 {
        return State::CLOSED;
    }
    match state {
        State::SYN_SENT if leg == REPLY && tcp_flags & tcp::SYN != 0 => State::SYN_RECEIVED,
        State::SYN_SENT => State::SYN_SENT,
        State::SYN_RECEIVED if leg == REPLY || tcp_flags & tcp::ACK == 0 => State::SYN_RECEIVED,
        _ if seen[0] & seen[1] & tcp::FIN != 0 => State::CLOSED,
        _ if (seen[0] | seen[1]) & tcp::FIN != 0 => State::HALF_CLOSED,
        _ => State::ESTABLISHED,
    }
}

/// Whether a TCP packet opens a new connection on the row of an old one that is closing: a client that uses its port
/// again.
#[inline(always)]
#[must_use]
pub const fn reopens(state: State, tcp_flags: u8) -> bool {
    tcp_flags & SYN_ACK == tcp::SYN && matches!(state, State::HALF_CLOSED | State::CLOSED)
}

/// Which timeout a row falls under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lifetime {
    /// TCP before the handshake is done.
    TcpHalfOpen,
    /// TCP while both ends may send.
    TcpEstablished,
    /// TCP when one end has closed.
    TcpHalfClosed,
    /// TCP after its end.
    TcpClosed,
    /// UDP and unknown protocols without an answer.
    Unreplied,
    /// The same with one.
    Replied,
    /// ICMP and ICMPv6 echo.
    Icmp,
}

/// The timeout that a row falls under.
#[must_use]
pub const fn lifetime(proto: u8, state: State) -> Lifetime {
    match (state, proto) {
        (State::SYN_SENT | State::SYN_RECEIVED, _) => Lifetime::TcpHalfOpen,
        (State::ESTABLISHED, _) => Lifetime::TcpEstablished,
        (State::HALF_CLOSED, _) => Lifetime::TcpHalfClosed,
        (State::CLOSED, _) => Lifetime::TcpClosed,
        (_, proto::ICMP | proto::ICMPV6) => Lifetime::Icmp,
        (State::REPLIED, _) => Lifetime::Replied,
        _ => Lifetime::Unreplied,
    }
}

#[cfg(test)]
#[path = "ct_test.rs"]
mod tests;
