// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! A packet and its connection.

use datapath_common::ct::CtKey;
use datapath_common::{CtEntry, NodeConfig, Reason};

use crate::maps::{self, Insertion, Known, Touch};
use crate::parse::{self, Kind, Packet};
use crate::{Ctx, Drop, fragment, nat, service};

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Towards {
    /// To a pod of this node, or to the node itself.
    Here,
    /// To a pod of this node out of the host's stack.
    HereFromHost,
    /// From a pod to somewhere else: perhaps the world, which is to see the node's address.
    Elsewhere,
    /// From outside to a backend on another node, which is to see this node's address, or answers would not come by here.
    Onwards,
}

impl Towards {
    /// Whether new connections may have to be masqueraded.
    #[inline(always)]
    fn may_be_world(self) -> bool {
        match self {
            Self::Here | Self::HereFromHost => false,
            Self::Elsewhere => maps::configured(NodeConfig::MASQUERADE),
            Self::Onwards => true,
        }
    }

    /// What that means for the opener's packets, see [`Touch::way`].
    #[inline(always)]
    fn way(self, packet: &Packet) -> u16 {
        let service = if packet.to_service { CtEntry::SERVICE } else { 0 };
        service
            | match self {
                Self::Here | Self::Elsewhere | Self::Onwards => 0,
                Self::HereFromHost => CtEntry::THROUGH_HOST,
            }
    }
}

/// What the packet at hand is.
#[inline(always)]
pub fn understand(ctx: &Ctx, ethertype: u16) -> Result<&'static mut Packet, Drop> {
    let packet = maps::packet().ok_or(Drop::new(Reason::CT_TRUNCATED_OR_INVALID_HEADER))?;
    packet.forget();
    parse::packet(ctx, ethertype, packet)?;
    Ok(packet)
}

/// Accounts for a packet in its connection, which is opened if there is none, and finds out how that looks outside and whether the
/// packet must take the host's stack.
#[inline(always)]
pub fn track(ctx: &Ctx, packet: &mut Packet, towards: Towards) -> Result<(), Drop> {
    match packet.kind {
        Kind::Flow => {
            flow(ctx, packet, towards)?;
            if packet.fragment != 0 {
                fragment::remember(ctx, packet);
            }
        }
        Kind::Error => related(ctx, packet, towards)?,
        Kind::Fragment => later_fragment(ctx, packet, towards)?,
        Kind::Link => {}
    }
    if maps::configured(NodeConfig::SERVICES) && packet.from_service {
        service::restore(ctx, packet)?;
    }
    Ok(())
}

#[inline(always)]
fn flow(ctx: &Ctx, packet: &mut Packet, towards: Towards) -> Result<(), Drop> {
    let (key, side) = packet.tuple.key();
    let touch = touch(ctx, packet, side, towards.way(packet));
    if let Some(known) = maps::touch(&key, &touch) {
        learn(packet, known);
        Ok(())
    } else if towards.may_be_world() {
        packet.nat = nat::open(ctx, touch.way, towards == Towards::Onwards)?;
        Ok(())
    } else {
        open(&key, &touch)
    }
}

/// Finds out how a packet looks outside whose connection is known and has been accounted for. One that nobody knows must not
/// leave as it is.
#[inline(always)]
pub fn recognise(ctx: &Ctx, packet: &mut Packet) -> Result<(), Drop> {
    let known = match packet.kind {
        Kind::Flow => true,
        Kind::Fragment => fragment::recall(ctx, packet),
        Kind::Error => {
            related(ctx, packet, Towards::Elsewhere)?;
            false
        }
        Kind::Link => false,
    };
    if known {
        let (key, side) = packet.tuple.key();
        if let Some(known) = maps::connection(&key, side) {
            learn(packet, known);
        }
    }
    if packet.nat.is_some() {
        Ok(())
    } else {
        Err(Drop::new(Reason::NO_MAPPING_FOR_NAT_MASQUERADE))
    }
}

/// Notes what the row says.
#[inline(always)]
pub fn learn(packet: &mut Packet, known: Known) {
    (packet.nat, packet.through_host) = (known.mapping, known.through_host);
    packet.from_service = known.from_service;
}

/// What a packet of this end, which came this [way](Touch::way), does to its connection.
#[inline(always)]
#[must_use]
pub fn touch(ctx: &Ctx, packet: &Packet, side: u8, way: u16) -> Touch {
    Touch {
        side,
        way,
        now: ctx.jiffies(),
        tcp_flags: packet.tcp_flags,
        length: ctx.length(),
    }
}

/// Apart, so that the row does not take room on the stack of every packet.
#[inline(never)]
fn open(key: &CtKey, first: &Touch) -> Result<(), Drop> {
    match maps::open(key, &entry(key, first)) {
        Insertion::Done | Insertion::Busy => Ok(()),
        Insertion::Full => Err(Drop::new(Reason::CT_MAP_INSERTION_FAILED)),
    }
}

/// The row that a connection begins with.
#[inline(always)]
#[must_use]
pub fn entry(key: &CtKey, first: &Touch) -> CtEntry {
    let Touch {
        side,
        now,
        tcp_flags,
        length,
        way,
    } = *first;
    let mut entry = CtEntry::open(now, side, key.proto, tcp_flags, u64::from(length));
    entry.flags = way;
    entry
}

/// A fragment without ports gets those of the first one. Without a first it goes by its address, as a router would do it, but
/// not to the world: nobody knows how it is to look there.
#[inline(never)]
fn later_fragment(ctx: &Ctx, packet: &mut Packet, towards: Towards) -> Result<(), Drop> {
    if fragment::recall(ctx, packet) {
        let (key, side) = packet.tuple.key();
        if let Some(known) = maps::touch(&key, &touch(ctx, packet, side, towards.way(packet))) {
            learn(packet, known);
            return Ok(());
        }
    }
    if towards.may_be_world() && nat::is_world(packet) {
        return Err(Drop::new(Reason::FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND));
    }
    Ok(())
}

/// An ICMP error passes if it goes to the sender of a packet of a known connection. It opens and refreshes none.
#[inline(never)]
fn related(ctx: &Ctx, packet: &mut Packet, towards: Towards) -> Result<(), Drop> {
    let unrelated = Drop::new(Reason::UNRELATED_ICMP_ERROR);
    let Some(quoted) = parse::quote(ctx, packet)? else {
        let nameless = towards.may_be_world() && nat::is_world(packet);
        return if nameless { Err(unrelated) } else { Ok(()) };
    };
    let (key, quoted_side) = quoted.key();
    // The error goes the other way than the packet that it is about.
    match maps::connection(&key, quoted_side ^ 1) {
        Some(known) if quoted.source == packet.tuple.destination => {
            learn(packet, known);
            Ok(())
        }
        _ => Err(unrelated),
    }
}
