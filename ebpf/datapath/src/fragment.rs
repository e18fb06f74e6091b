// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Fragments: what the first one says, the later ones get.

use datapath_common::packet::proto;
use datapath_common::{Be16, FragmentEntry, FragmentKey};

use crate::parse::{Bytes, Packet};
use crate::{Ctx, maps};

/// The first fragment of a datagram has passed.
#[inline(never)]
pub fn remember(ctx: &Ctx, packet: &Packet) {
    let Some(key) = key(ctx, packet) else { return };
    let tuple = &packet.tuple;
    let entry = FragmentEntry {
        ports: [tuple.source_port, tuple.destination_port],
        proto: tuple.proto,
        _pad: [0; 3],
    };
    maps::remember_fragment(&key, &entry);
}

/// Gives a later fragment its ports; `false`: no first one has passed.
#[inline(never)]
pub fn recall(ctx: &Ctx, packet: &mut Packet) -> bool {
    let Some(key) = key(ctx, packet) else {
        return false;
    };
    let Some(first) = maps::fragment(&key) else {
        return false;
    };
    let FragmentEntry {
        ports: [source, destination],
        proto,
        ..
    } = *first;
    (packet.tuple.source_port, packet.tuple.destination_port) = (source, destination);
    packet.tuple.proto = proto;
    true
}

#[inline(always)]
fn key(ctx: &Ctx, packet: &Packet) -> Option<FragmentKey> {
    let at = usize::from(packet.fragment);
    let (id, proto) = if packet.v4 {
        (u32::from(ctx.copy::<Be16>(at)?.raw()), packet.tuple.proto)
    } else {
        (ctx.copy::<u32>(at)?, proto::FRAGMENT)
    };
    Some(FragmentKey {
        source: packet.tuple.source,
        destination: packet.tuple.destination,
        id,
        proto,
        _pad: [0; 3],
    })
}
