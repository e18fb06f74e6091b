// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! On the host end of a pod's veth: what the pod sends.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use datapath_common::event::Hook;
use datapath_common::packet::ethertype;
use datapath_common::service::INSIDE;
use datapath_common::{Endpoint, NodeConfig, Reason};
use thalweg_ebpf::conntrack::Towards;
use thalweg_ebpf::parse::{self, Ethernet, Kind, Packet};
use thalweg_ebpf::service::{self, Sent};
use thalweg_ebpf::{Ctx, Drop, Verdict, arp, conntrack, fib, forward, maps, nd, refuse};

#[classifier]
fn from_pod(ctx: TcContext) -> i32 {
    let ctx = Ctx::new(&ctx);
    match run(&ctx) {
        Ok(verdict) => verdict.emit(&ctx, Hook::FromPod),
        Err(drop) => drop.emit(&ctx, Hook::FromPod),
    }
}

#[inline(always)]
fn run(ctx: &Ctx) -> Result<Verdict, Drop> {
    if ctx.is_tagged() {
        return Err(Drop::new(Reason::VLAN_FILTERED));
    }
    let ethernet = parse::ethernet(ctx)?;
    let ethertype = ethernet.ethertype.get();
    match ethertype {
        ethertype::IPV4 if maps::configured(NodeConfig::IPV4) => {}
        ethertype::IPV6 if maps::configured(NodeConfig::IPV6) => {}
        ethertype::IPV4 | ethertype::IPV6 => return Err(Drop::new(Reason::UNSUPPORTED_L3_PROTOCOL)),
        ethertype::ARP if !maps::configured(NodeConfig::CHAINED) => return arp::answer(ctx),
        _ if maps::configured(NodeConfig::CHAINED) => return Ok(Verdict::Pass),
        _ => return Err(Drop::new(Reason::UNSUPPORTED_L2_PROTOCOL)),
    }
    let packet = conntrack::understand(ctx, ethertype)?;
    if packet.kind == Kind::Link {
        return if maps::configured(NodeConfig::CHAINED) {
            Ok(Verdict::Pass)
        } else {
            nd::answer(ctx, packet)
        };
    }
    let own = check_source(ctx, &ethernet, packet)?;
    let mut destination = check_destination(ctx, packet)?;
    if maps::configured(NodeConfig::SERVICES)
        && let Some(to) = destination.filter(|to| to.has(Endpoint::SERVICE))
    {
        match to_service(ctx, packet, to)? {
            Next::To(backend) => destination = backend,
            Next::Done(verdict) => return Ok(verdict),
        }
    }
    let towards = if destination.is_some() {
        Towards::Here
    } else {
        Towards::Elsewhere
    };
    conntrack::track(ctx, packet, towards)?;
    if packet.from_service && destination.is_none() {
        // To itself, which it does not know.
        destination = maps::endpoint(&packet.tuple.destination);
    }
    if maps::configured(NodeConfig::HOST_ROUTING) || packet.through_host {
        return Ok(Verdict::Stack);
    }
    match destination {
        Some(here) if here.has(Endpoint::HOST | Endpoint::STACK) => Ok(Verdict::Stack),
        _ if own.has(Endpoint::STACK) => fib::leave_later(ctx, packet),
        Some(pod) => forward::to_pod(ctx, packet, pod),
        None => forward::away(ctx, packet),
    }
}

/// Where a packet goes on.
enum Next {
    /// To whom of this node, or to somewhere else.
    To(Option<&'static Endpoint>),
    /// Nowhere.
    Done(Verdict),
}

/// What the pod sends to a service goes to a backend.
#[inline(always)]
fn to_service(ctx: &Ctx, packet: &mut Packet, to: &'static Endpoint) -> Result<Next, Drop> {
    match service::send(ctx, packet, to.is_host(), INSIDE)? {
        Sent::ToBackend => {
            let backend = maps::endpoint(&packet.tuple.destination);
            Ok(Next::To(backend.filter(|backend| backend.is_somebody())))
        }
        Sent::ToNobody if to.is_host() => Ok(Next::To(Some(to))),
        // Others may have the rest of an address that somebody leads to the nodes.
        Sent::ToNobody if !to.has(Endpoint::CLUSTER_IP) => Ok(Next::To(None)),
        Sent::ToNobody | Sent::ToNoBackend => refuse::refuse(ctx, packet, Hook::FromPod).map(Next::Done),
        Sent::ToSilence | Sent::ToSocket => Err(Drop::new(Reason::SERVICE_BACKEND_NOT_FOUND)),
    }
}

/// The source must be the pod's own, by address, device and MAC.
#[inline(always)]
fn check_source(ctx: &Ctx, ethernet: &Ethernet, packet: &Packet) -> Result<&'static Endpoint, Drop> {
    match maps::endpoint(&packet.tuple.source) {
        Some(own) if own.ifindex == ctx.ifindex() && own.mac == ethernet.source => Ok(own),
        Some(own) if own.ifindex == ctx.ifindex() => Err(Drop::new(Reason::INVALID_SOURCE_MAC)),
        // Multicast DNS and its like, of every IPv6 stack.
        None if packet.tuple.source.is_v6_link_local() && packet.tuple.destination.is_multicast() => {
            Err(Drop::new(Reason::MULTICAST))
        }
        _ => Err(Drop::new(Reason::INVALID_SOURCE_IP)),
    }
}

/// The packet must be for the gateway to forward, and not for many.
#[inline(always)]
fn check_destination(ctx: &Ctx, packet: &Packet) -> Result<Option<&'static Endpoint>, Drop> {
    let destination = maps::endpoint(&packet.tuple.destination);
    // Where hostPort is open on the node's own loopback address, its stack would take them.
    if destination.is_none() && packet.tuple.destination.is_v4_loopback() {
        return Err(Drop::new(Reason::STALE_OR_UNROUTABLE_IP));
    }
    if destination.is_none() && packet.tuple.destination.is_multicast() {
        if maps::configured(NodeConfig::CHAINED) {
            return Ok(None);
        }
        return Err(Drop::new(Reason::MULTICAST));
    }
    if !ctx.is_for_us() {
        return Err(Drop::new(Reason::INVALID_DESTINATION_MAC));
    }
    Ok(destination)
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
