// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! A packet and its connection.

use datapath_common::{CtEntry, CtKey, Reason};

use crate::maps::{self, Insertion, Touch};
use crate::parse::{self, Kind, Packet};
use crate::{Ctx, Drop};

/// Accounts for a packet in its connection, which is opened if there is none.
#[inline(always)]
pub fn track(ctx: &Ctx, packet: &Packet) -> Result<(), Drop> {
    match packet.kind {
        Kind::Flow => flow(ctx, packet),
        Kind::Error => related(ctx, packet),
        Kind::Fragment | Kind::Link => Ok(()),
    }
}

#[inline(always)]
fn flow(ctx: &Ctx, packet: &Packet) -> Result<(), Drop> {
    let (key, side) = packet.tuple.key();
    let touch = Touch {
        side,
        now: ctx.jiffies(),
        tcp_flags: packet.tcp_flags,
        length: ctx.length(),
    };
    if maps::touch(&key, &touch) {
        Ok(())
    } else {
        open(&key, &touch)
    }
}

/// Apart, so that the row does not take room on the stack of every packet.
#[inline(never)]
fn open(key: &CtKey, first: &Touch) -> Result<(), Drop> {
    let Touch {
        side,
        now,
        tcp_flags,
        length,
    } = *first;
    let entry = CtEntry::open(now, side, key.proto, tcp_flags, u64::from(length));
    match maps::open(key, &entry) {
        Insertion::Done | Insertion::Busy => Ok(()),
        Insertion::Full => Err(Drop::new(Reason::CT_MAP_INSERTION_FAILED)),
    }
}

/// An ICMP error passes if it goes to the sender of a packet of a known connection. It opens and refreshes none.
#[inline(never)]
fn related(ctx: &Ctx, packet: &Packet) -> Result<(), Drop> {
    let Some(quoted) = parse::quote(ctx, packet)? else {
        return Ok(());
    };
    let (key, _) = quoted.key();
    if quoted.source == packet.tuple.destination && maps::is_connection(&key) {
        Ok(())
    } else {
        Err(Drop::new(Reason::UNRELATED_ICMP_ERROR))
    }
}
