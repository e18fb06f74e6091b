// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! What comes from outside for the node itself, or for an address that only services have: for a service, for a pod that is masqueraded, or
//! for the node.

use datapath_common::event::Hook;
use datapath_common::service::{OUTSIDE, mirror};
use datapath_common::{Endpoint, NodeConfig, Reason};

use crate::conntrack::Towards;
use crate::parse::Packet;
use crate::service::{self, Sent};
use crate::{Ctx, Drop, Verdict, conntrack, forward, maps, nat, refuse};

/// Over the wire. Who sends to a service must not have an address of this node's pods, or its own: answers would go to them.
#[inline(always)]
pub fn from_wire(ctx: &Ctx, packet: &mut Packet, own: &Endpoint) -> Result<Verdict, Drop> {
    if !(maps::configured(NodeConfig::SERVICES) && own.has(Endpoint::SERVICE)) {
        return nat::answer(ctx, packet);
    }
    let source = &packet.tuple.source;
    if maps::endpoint(source).is_some() || *source == mirror(packet.v4) {
        return Err(Drop::new(Reason::INVALID_SOURCE_IP));
    }
    let sent = service::send(ctx, packet, own.is_host(), OUTSIDE)?;
    if sent == Sent::ToNoBackend {
        return refuse::refuse(ctx, packet, Hook::FromWire);
    }
    goes_on(ctx, packet, own, sent)
}

/// Through a tunnel, from where another node vouches for the source. Nobody is told that there is no backend: what goes back would have
/// to be wrapped.
#[inline(always)]
pub fn from_tunnel(ctx: &Ctx, packet: &mut Packet, own: &Endpoint) -> Result<Verdict, Drop> {
    if !own.has(Endpoint::SERVICE) {
        return nat::answer(ctx, packet);
    }
    let sent = service::send(ctx, packet, own.is_host(), OUTSIDE)?;
    goes_on(ctx, packet, own, sent)
}

#[inline(always)]
fn goes_on(ctx: &Ctx, packet: &mut Packet, own: &Endpoint, sent: Sent) -> Result<Verdict, Drop> {
    match sent {
        Sent::ToBackend => to_backend(ctx, packet),
        Sent::ToSocket => service::hand_over(ctx),
        Sent::ToNobody if own.is_host() => nat::answer(ctx, packet),
        // Others may have the rest of an address that somebody leads to the nodes.
        Sent::ToNobody if !own.has(Endpoint::CLUSTER_IP) => Ok(Verdict::Pass),
        Sent::ToNobody | Sent::ToNoBackend | Sent::ToSilence => {
            Err(Drop::new(Reason::SERVICE_BACKEND_NOT_FOUND))
        }
    }
}

/// To a local pod with the client's own address; to another node's with this node's, so that answers come by here.
#[inline(always)]
fn to_backend(ctx: &Ctx, packet: &mut Packet) -> Result<Verdict, Drop> {
    match maps::endpoint(&packet.tuple.destination) {
        Some(pod) if pod.is_pod() => {
            conntrack::track(ctx, packet, Towards::Here)?;
            if pod.has(Endpoint::STACK) {
                return Ok(Verdict::Stack);
            }
            forward::to_pod(ctx, packet, pod)
        }
        Some(_) => Err(Drop::new(Reason::SERVICE_BACKEND_NOT_FOUND)),
        None => {
            conntrack::track(ctx, packet, Towards::Onwards)?;
            forward::away(ctx, packet)
        }
    }
}
