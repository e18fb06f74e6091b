// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! On the devices of the node itself: what arrives from the wire, and what the host's stack sends to local pods.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use datapath_common::event::Hook;
use datapath_common::packet::{DETOUR_MARK, DETOUR_MASK, GATEWAY_MAC};
use datapath_common::{Endpoint, NodeConfig, Reason};
use thalweg_ebpf::conntrack::Towards;
use thalweg_ebpf::{
    Ctx, Drop, Verdict, arrive, conntrack, fib, forward, maps, parse, path_mtu, tunnel, wrap,
};

#[classifier]
fn from_wire(ctx: TcContext) -> i32 {
    let ctx = Ctx::new(&ctx);
    match wire(&ctx) {
        Ok(verdict) => verdict.emit(&ctx, Hook::FromWire),
        Err(drop) => drop.emit(&ctx, Hook::FromWire),
    }
}

/// What is not for a local pod, by its own address or by a masqueraded connection, goes on as if nobody had looked.
#[inline(always)]
fn wire(ctx: &Ctx) -> Result<Verdict, Drop> {
    // What is of a VLAN comes by once more on the VLAN's own device, if the node has one.
    if !ctx.is_for_us() || ctx.is_of_vlan() {
        return Ok(Verdict::Pass);
    }
    let ethertype = parse::ethernet(ctx)?.ethertype.get();
    let Some(own) = parse::destination(ctx, ethertype).and_then(|destination| maps::endpoint(&destination))
    else {
        return Ok(Verdict::Pass);
    };
    let own_packet = own.is_host();
    if own_packet {
        if let Some(verdict) = unwrap(ctx, ethertype)? {
            return Ok(verdict);
        }
        if !maps::translates() {
            return Ok(Verdict::Pass);
        }
    }
    if maps::configured(NodeConfig::HOST_ROUTING) {
        return Ok(Verdict::Pass);
    }
    let parsed = conntrack::understand(ctx, ethertype);
    if own_packet || maps::configured(NodeConfig::SERVICES) && own.has(Endpoint::SERVICE) {
        // What is not understood is the stack's to judge.
        return match parsed {
            Ok(packet) => arrive::from_wire(ctx, packet, own),
            Err(_) => Ok(Verdict::Pass),
        };
    }
    let packet = parsed?;
    let source = &packet.tuple.source;
    if maps::endpoint(source).is_some() || tunnel::behind(source).is_some() {
        return Err(Drop::new(Reason::INVALID_SOURCE_IP));
    }
    if own.has(Endpoint::STACK) {
        return Ok(Verdict::Pass);
    }
    conntrack::track(ctx, packet, Towards::Here)?;
    forward::to_pod(ctx, packet, own)
}

/// What is for this node because it is in a tunnel that the programs unwrap.
#[inline(always)]
fn unwrap(ctx: &Ctx, ethertype: u16) -> Result<Option<Verdict>, Drop> {
    if !maps::configured(NodeConfig::TUNNEL) {
        return Ok(None);
    }
    path_mtu::listen(ctx, ethertype);
    if maps::configured(NodeConfig::TUNNEL_DEVICE) {
        return Ok(None);
    }
    match wrap::receive(ctx, ethertype)? {
        Some(sender) => tunnel::deliver(ctx, &sender).map(Some),
        None => Ok(None),
    }
}

#[classifier]
fn from_host(ctx: TcContext) -> i32 {
    let ctx = Ctx::new(&ctx);
    match host(&ctx) {
        Ok(verdict) => verdict.emit(&ctx, Hook::FromHost),
        Err(drop) => drop.emit(&ctx, Hook::FromHost),
    }
}

/// The host's routes lead here to the pods of this node, and to those of others if they are behind the tunnel; an address that
/// no pod has would come back to the host for ever.
#[inline(always)]
fn host(ctx: &Ctx) -> Result<Verdict, Drop> {
    let ethertype = parse::ethernet(ctx)?.ethertype.get();
    let Some(destination) = parse::destination(ctx, ethertype) else {
        return Ok(Verdict::Pass);
    };
    let Some(pod) = pod(&destination) else {
        if maps::configured(NodeConfig::CHAINED) {
            return Ok(Verdict::Pass);
        }
        if maps::configured(NodeConfig::MASQUERADE) && ctx.mark() & DETOUR_MASK == DETOUR_MARK {
            return detour(ctx, ethertype);
        }
        return match tunnel::behind(&destination) {
            Some(prefix) => tunnel::send(ctx, prefix),
            None if destination.is_multicast() => Ok(Verdict::Pass),
            None => Err(Drop::new(Reason::STALE_OR_UNROUTABLE_IP)),
        };
    };
    let packet = conntrack::understand(ctx, ethertype)?;
    conntrack::track(ctx, packet, Towards::HereFromHost)?;
    // The device is the pod's own: another network's route leads there. Pods from before we were behind one have none.
    if maps::configured(NodeConfig::CHAINED) && pod.ifindex == ctx.ifindex() {
        return Ok(Verdict::Stack);
    }
    forward::address(ctx, pod.mac, GATEWAY_MAC)?;
    Ok(Verdict::Redirect(ctx.redirect(pod.ifindex)))
}

/// What a pod sent to the world by way of the stack: out, with the node's address. Its hop is counted, and the connection is
/// known: `from_pod` has opened it.
#[inline(always)]
fn detour(ctx: &Ctx, ethertype: u16) -> Result<Verdict, Drop> {
    ctx.set_mark(ctx.mark() & !DETOUR_MASK);
    let packet = conntrack::understand(ctx, ethertype)?;
    if pod(&packet.tuple.source).is_none() {
        return Err(Drop::new(Reason::INVALID_SOURCE_IP));
    }
    conntrack::recognise(ctx, packet)?;
    fib::leave_at_last(ctx, packet)
}

#[inline(always)]
fn pod(addr: &datapath_common::Addr) -> Option<&'static Endpoint> {
    maps::endpoint(addr).filter(|endpoint| endpoint.is_pod())
}

/// Never attached: user space runs it to read the clock in which connections keep time.
#[classifier]
fn clock(ctx: TcContext) -> i32 {
    Ctx::new(&ctx).jiffies().cast_signed()
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
