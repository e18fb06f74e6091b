// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! To and from other nodes through a tunnel: VXLAN (RFC 7348) or Geneve (RFC 8926), wrapped and unwrapped by the
//! kernel's device, or where there is none by [`wrap`].

use datapath_common::packet::{GATEWAY_MAC, TUNNEL_MAC};
use datapath_common::{Addr, Endpoint, NodeConfig, Prefix, Reason};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::conntrack::Towards;
use crate::parse::Packet;
use crate::{Ctx, Drop, Verdict, arrive, conntrack, fib, forward, maps, nat, parse, wrap};

/// `BPF_F_TUNINFO_IPV6`: the outer packet is IPv6.
const OUTER_V6: u64 = 1;
/// `BPF_F_ZERO_CSUM_TX`: no UDP checksum. Over IPv4 it is optional and costs both ends; over IPv6 receivers insist on it.
const NO_CHECKSUM: u64 = 2;
/// `BPF_F_DONT_FRAGMENT`: a router on the way says so instead of cutting the outer packet.
const DONT_FRAGMENT: u64 = 4;
/// TTL of outer packets.
const TTL: u8 = 64;

/// The kernel's `struct bpf_tunnel_key` up to `tunnel_label`, where that of 5.10 ends.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
pub struct Key {
    id: u32,
    /// Of IPv4 the first word, in the machine's byte order; of IPv6 the 16 bytes.
    remote: [u32; 4],
    tos: u8,
    ttl: u8,
    extension: u16,
    label: u32,
}

const _: () = assert!(size_of::<Key>() == 28);

/// What lies behind the tunnel at this address.
#[inline(always)]
#[must_use]
pub fn behind(addr: &Addr) -> Option<&'static Prefix> {
    if !maps::configured(NodeConfig::TUNNEL) {
        return None;
    }
    maps::prefix(addr).filter(|prefix| prefix.has(Prefix::TUNNEL))
}

/// A pod's packet to another node, one hop less. One on its last hop, or too big for the tunnel, is left to the stack, which
/// answers with the right ICMP error: its routes have the same MTU.
#[inline(always)]
pub fn forward(ctx: &Ctx, packet: &Packet, prefix: &Prefix) -> Result<Verdict, Drop> {
    if packet.ttl <= 1 || fib::length_on_wire(ctx, packet) > prefix.mtu {
        return Ok(Verdict::Stack);
    }
    nat::depart(ctx, packet)?;
    forward::hop(ctx, packet)?;
    send(ctx, prefix)
}

/// Through the tunnel to the node of `prefix`.
#[inline(always)]
pub fn send(ctx: &Ctx, prefix: &Prefix) -> Result<Verdict, Drop> {
    let refused = Drop::new(Reason::ENCAPSULATION_TRAFFIC_IS_PROHIBITED);
    let node = maps::node().ok_or(refused)?;
    if !maps::configured(NodeConfig::TUNNEL_DEVICE) {
        return wrap::send(ctx, prefix, node);
    }
    forward::address(ctx, TUNNEL_MAC, GATEWAY_MAC)?;
    let mut key = Key {
        id: maps::tunnel().0,
        remote: [0; 4],
        tos: 0,
        ttl: TTL,
        extension: 0,
        label: 0,
    };
    let flags = if prefix.node.is_v4() {
        key.remote[0] = u32::from_be_bytes(prefix.node.v4_octets());
        NO_CHECKSUM | DONT_FRAGMENT
    } else {
        key.remote = prefix.node.quarters();
        OUTER_V6 | DONT_FRAGMENT
    };
    if node.tunnel_ifindex == 0 || !ctx.set_tunnel_key(&mut key, flags) {
        return Err(refused);
    }
    Ok(Verdict::Redirect(ctx.redirect(node.tunnel_ifindex)))
}

/// The machine that sent what the tunnel device has unwrapped.
#[inline(always)]
pub fn sender(ctx: &Ctx) -> Result<Addr, Drop> {
    let (key, sender) = if let Some(key) = ctx.tunnel_key(0) {
        (key, Addr::v4(key.remote[0].to_be_bytes()))
    } else {
        let key = ctx
            .tunnel_key(OUTER_V6)
            .ok_or(Drop::new(Reason::ERROR_RETRIEVING_TUNNEL_KEY))?;
        (key, Addr::from_quarters(key.remote))
    };
    if key.id != maps::tunnel().0 {
        return Err(Drop::new(Reason::INVALID_VNI));
    }
    Ok(sender)
}

/// What `sender` sent through the tunnel: to a local pod past the host's stack, or to the stack if it is for the node.
#[inline(always)]
pub fn deliver(ctx: &Ctx, sender: &Addr) -> Result<Verdict, Drop> {
    let ethertype = parse::ethernet(ctx)?.ethertype.get();
    let packet = conntrack::understand(ctx, ethertype)?;
    check_sender(&packet.tuple.source, sender)?;
    let Some(own) = maps::endpoint(&packet.tuple.destination) else {
        return Err(Drop::new(Reason::STALE_OR_UNROUTABLE_IP));
    };
    if maps::configured(NodeConfig::SERVICES) && !own.is_pod() {
        return arrive::from_tunnel(ctx, packet, own);
    }
    if own.has(Endpoint::HOST | Endpoint::STACK) || maps::configured(NodeConfig::HOST_ROUTING) {
        return Ok(Verdict::Stack);
    }
    if !own.is_somebody() {
        return Err(Drop::new(Reason::STALE_OR_UNROUTABLE_IP));
    }
    conntrack::track(ctx, packet, Towards::Here)?;
    forward::to_pod(ctx, packet, own)
}

/// The source must lie behind the machine that sent it through the tunnel.
#[inline(always)]
fn check_sender(source: &Addr, sender: &Addr) -> Result<(), Drop> {
    match behind(source) {
        Some(prefix) if prefix.node == *sender => Ok(()),
        _ => Err(Drop::new(Reason::UNKNOWN_SENDER)),
    }
}
