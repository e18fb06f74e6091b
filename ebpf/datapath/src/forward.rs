// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! The last step: to a local pod, or away from the node.

use datapath_common::packet::{ETH_LEN, GATEWAY_MAC};
use datapath_common::{Be16, Endpoint, Mac, Reason, checksum};

use crate::parse::{Bytes, Packet};
use crate::{Ctx, Drop, Verdict, fib, tunnel};

/// Where TTL, protocol and checksum lie in a frame with IPv4.
const TTL_V4: usize = ETH_LEN + 8;
/// Where the hop limit lies in a frame with IPv6.
const TTL_V6: usize = ETH_LEN + 7;

/// As a router does: into the pod past the host's stack, one hop less. A packet on its last hop is left to the stack, which
/// answers that time is exceeded.
#[inline(always)]
pub fn to_pod(ctx: &Ctx, packet: &Packet, pod: &Endpoint) -> Result<Verdict, Drop> {
    if packet.ttl <= 1 {
        return Ok(Verdict::Stack);
    }
    hop(ctx, packet)?;
    address(ctx, pod.mac, GATEWAY_MAC)?;
    // The pod's end is reached at once, its host end by way of the queue there.
    let action = if pod.has(Endpoint::QUEUED) {
        ctx.redirect(pod.ifindex)
    } else {
        ctx.redirect_peer(pod.ifindex)
    };
    Ok(Verdict::Redirect(action))
}

/// Out of the node: through the tunnel if another node has the destination, else by the node's own routes.
#[inline(always)]
pub fn away(ctx: &Ctx, packet: &Packet) -> Result<Verdict, Drop> {
    match tunnel::behind(&packet.tuple.destination) {
        Some(prefix) => tunnel::forward(ctx, packet, prefix),
        None => fib::leave(ctx, packet),
    }
}

/// Sets the Ethernet addresses.
#[inline(always)]
pub fn address(ctx: &Ctx, destination: Mac, source: Mac) -> Result<(), Drop> {
    ctx.write(0, [destination, source])
}

/// Takes one from the TTL or hop limit, which is more than 1.
#[inline(always)]
pub fn hop(ctx: &Ctx, packet: &Packet) -> Result<(), Drop> {
    if !packet.v4 {
        ctx.adjust_sum(!u32::from(HOP_V6.raw()));
        return ctx.write(TTL_V6, packet.ttl - 1);
    }
    let [old, check]: [Be16; 2] = ctx
        .read(TTL_V4)
        .ok_or(Drop::new(Reason::ERROR_WRITING_TO_PACKET))?;
    let new = Be16::new(old.get() - HOP_V4);
    ctx.write(TTL_V4, [new, checksum::update(check, old, new)])
}

/// One hop in the word of TTL and protocol.
const HOP_V4: u16 = 0x0100;
/// One hop in the word of next header and hop limit.
const HOP_V6: Be16 = Be16::new(0x0001);
