// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Masquerading: pods' connections to the world have the node's address there, and answers find their way back.
//!
//! A connection is decided on when it is opened ([`open`]); later packets find the decision in their row of `conntrack`. What
//! leaves is rewritten as the last step ([`depart`]), so that whatever is left to the host's stack still is the pod's own;
//! what arrives is the first thing that is ([`arrive`]).

use aya_ebpf::bindings::__sk_buff;
use datapath_common::ct::{CtKey, State, Tuple};
use datapath_common::nat::{
    CURRENT_V4, CURRENT_V6, PROBES_MAX, Ports, Probe, Rewrite, TAKE_OVER_FROM, follows, quiet_ticks,
};
use datapath_common::packet::{icmp, icmpv6, proto, tcp};
use datapath_common::{Addr, Be16, CtEntry, Endpoint, Mapping, NatAddress, NatEntry, Prefix, Reason};

use crate::ctx::Answer;
use crate::maps::{self, Insertion};
use crate::parse::{self, Bytes, Kind, Packet};
use crate::rewrite::{self, Change, End, is_echo};
use crate::{Ctx, Drop, Verdict, conntrack, forward, fragment, service};

/// Whether a packet's destination is the world.
#[inline(always)]
#[must_use]
pub fn is_world(packet: &Packet) -> bool {
    !maps::prefix(&packet.tuple.destination).is_some_and(|prefix| prefix.has(Prefix::CLUSTER))
}

/// Opens a connection of a pod, which came this [way](maps::Touch::way), to somewhere else. It gets a port of the node if that is the
/// world, or `always`: a client from outside whose backend is on another node.
///
/// To the verifier this is a function on its own: it walks through it once, and not for each kind of packet that leads here.
/// In return nothing but the context comes in, and a number goes out.
#[inline(always)]
pub fn open(ctx: &Ctx, way: u16, always: bool) -> Result<Mapping, Drop> {
    let result = open_to_world(ctx.raw(), u32::from(way) | u32::from(always) << ALWAYS_SHIFT);
    let mapping = Mapping::from_word(result);
    if mapping.is_some() || result == 0 {
        Ok(mapping)
    } else {
        Err(Drop::new(Reason(result as u8)))
    }
}

/// Of the second argument of [`open_to_world`]: the flags of the row are below.
const ALWAYS_SHIFT: u32 = 16;

/// A mapping's word; or 0 for none; or the reason to drop the packet.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn open_to_world(skb: *mut __sk_buff, how: u32) -> u32 {
    let ctx = Ctx::from_raw(skb);
    match opened(&ctx, how) {
        Ok(mapping) => mapping.word(),
        Err(drop) => drop.reason().0.into(),
    }
}

/// What opening a connection works on. The stack has no room for it.
#[derive(Debug)]
pub struct Opening {
    packet: Packet,
    key: CtKey,
    entry: CtEntry,
    request: Request,
}

#[inline(always)]
fn opened(ctx: &Ctx, how: u32) -> Result<Mapping, Drop> {
    let refused = Drop::new(Reason::CT_MAP_INSERTION_FAILED);
    let slot = prepare(ctx, how, refused)?;
    let mapping = if slot == NO_SLOT {
        Mapping::NONE
    } else {
        assign(ctx, slot)?
    };
    let opening = maps::opening().ok_or(refused)?;
    opening.entry.masquerade(mapping);
    match maps::open(&opening.key, &opening.entry) {
        Insertion::Done => return Ok(mapping),
        Insertion::Busy if !mapping.is_some() => return Ok(mapping),
        Insertion::Full | Insertion::Busy => {}
    }
    if mapping.is_some() {
        maps::release_port(&opening.request.key);
    }
    // Another CPU was faster with a packet of the same connection: its row counts.
    let known = maps::connection(&opening.key, opening.entry.opener);
    known.map(|known| known.mapping).ok_or(refused)
}

/// No slot of an address: the connection is not masqueraded.
const NO_SLOT: u32 = 0;

/// Fills in everything that [`Opening`] has; returns the slot of the node's address, or [`NO_SLOT`].
#[inline(always)]
fn prepare(ctx: &Ctx, how: u32, refused: Drop) -> Result<u32, Drop> {
    let opening = maps::opening().ok_or(refused)?;
    let ethertype = parse::ethernet(ctx)?.ethertype.get();
    opening.packet = Packet::EMPTY;
    parse::packet(ctx, ethertype, &mut opening.packet)?;
    let sender_opens = begin(ctx, opening, how as u16);
    if sender_opens && (how >> ALWAYS_SHIFT != 0 || is_world(&opening.packet)) {
        ask(ctx, opening, how)
    } else {
        Ok(NO_SLOT)
    }
}

/// Fills in key and row; says whether the packet's sender opens the connection. (Functions of their own for the sake of the stack,
/// here and below.)
#[inline(never)]
fn begin(ctx: &Ctx, opening: &mut Opening, way: u16) -> bool {
    let side;
    (opening.key, side) = opening.packet.tuple.key();
    let first = conntrack::touch(ctx, &opening.packet, side, way);
    opening.entry = conntrack::entry(&opening.key, &first);
    opening.entry.opener == side
}

/// The tuple of a pod's packet as the wire sees it. Echo has its identifier as both ports.
#[inline(always)]
fn outside(tuple: &Tuple, address: &Addr, port: Be16) -> Tuple {
    Tuple {
        source: *address,
        source_port: port,
        destination_port: if is_echo(tuple.proto) {
            port
        } else {
            tuple.destination_port
        },
        ..*tuple
    }
}

/// Fills in what is asked for: a port of the node towards the packet's destination. Returns the slot of the node's address, or
/// [`NO_SLOT`].
#[inline(never)]
fn ask(ctx: &Ctx, opening: &mut Opening, how: u32) -> Result<u32, Drop> {
    let Opening {
        packet,
        entry,
        request,
        ..
    } = opening;
    let index = if packet.v4 { CURRENT_V4 } else { CURRENT_V6 };
    // Without an address the node's routes decide, which lead nowhere in a family that the node does not have.
    let Some(node) = maps::nat_address(index).filter(|node| node.address != Addr::UNSPECIFIED) else {
        return Ok(NO_SLOT);
    };
    if how >> ALWAYS_SHIFT == 0 && node.flags & NatAddress::SERVICES_ONLY != 0 {
        return Ok(NO_SLOT);
    }
    let protocol = packet.tuple.proto;
    let ports = match datapath_common::nat::rewrite(protocol, packet.v4) {
        Rewrite::Port if is_echo(protocol) && !is_request(ctx, packet) => return Err(refused_protocol()),
        Rewrite::Port => Ports {
            first: node.first_port,
            last: node.last_port,
        },
        Rewrite::Keep => Ports::only(packet.tuple.source_port.get()),
        Rewrite::Refuse => return Err(refused_protocol()),
    };
    // Ports are not to be foreseen by those who would forge answers (RFC 6056).
    request.probe = Probe::new(ports, packet.tuple.source_port.get(), ctx.random());
    request.slot = node.slot;
    request.prepare(&packet.tuple, &node.address, entry.created);
    if protocol == proto::TCP {
        request.entry.sequence = sequence_behind(ctx, packet);
    }
    Ok(node.slot.into())
}

/// A port of the node for what is asked; the row that holds it is in the request.
#[inline(never)]
fn assign(ctx: &Ctx, slot: u32) -> Result<Mapping, Drop> {
    let none = Drop::new(Reason::NO_MAPPING_FOR_NAT_MASQUERADE);
    let port = take().ok_or(none)?;
    if !is_nodes_own(ctx, port) {
        return Ok(Mapping::new(slot as u8, port));
    }
    // What was taken is held until another is found.
    let other = take();
    release(port);
    let port = other.ok_or(none)?;
    if is_nodes_own(ctx, port) {
        release(port);
        return Err(none);
    }
    Ok(Mapping::new(slot as u8, port))
}

/// Whether a socket of the node would get the answers.
#[inline(never)]
fn is_nodes_own(ctx: &Ctx, port: Be16) -> bool {
    let Some(opening) = maps::opening() else {
        return false;
    };
    let Some(node) = maps::nat_address(opening.request.slot.into()) else {
        return false;
    };
    let tuple = &opening.packet.tuple;
    let answer = Answer {
        from: (&tuple.destination, tuple.destination_port),
        to: (&node.address, port),
    };
    ctx.has_socket(tuple.proto, opening.packet.v4, &answer)
}

#[inline(always)]
fn refused_protocol() -> Drop {
    Drop::new(Reason::UNSUPPORTED_PROTOCOL_FOR_NAT_MASQUERADE)
}

#[inline(always)]
fn is_request(ctx: &Ctx, packet: &Packet) -> bool {
    let request = if packet.v4 { icmp::ECHO } else { icmpv6::ECHO };
    ctx.copy::<u8>(packet.payload()) == Some(request)
}

/// Of the sequence number behind a segment of TCP, at least: the upper half.
#[inline(always)]
fn sequence_behind(ctx: &Ctx, packet: &Packet) -> u16 {
    let [upper, lower] = ctx
        .copy::<[Be16; 2]>(packet.payload() + SEQUENCE)
        .unwrap_or([Be16::new(0); 2]);
    let first = u32::from(upper.get()) << 16 | u32::from(lower.get());
    let length = packet.end.wrapping_sub(u32::from(packet.l4));
    (first.wrapping_add(length) >> 16) as u16
}

/// Where a TCP header has the sequence number.
const SEQUENCE: usize = 4;

/// What is asked for: a key whose port is free.
#[derive(Debug)]
struct Request {
    key: CtKey,
    entry: NatEntry,
    probe: Probe,
    /// The bits of the key's ports that are the node's port.
    masks: [u16; 2],
    /// Of the node's address.
    slot: u8,
    /// The connection that has the port: its key in `conntrack`.
    occupant: CtKey,
}

impl Request {
    #[inline(never)]
    fn prepare(&mut self, tuple: &Tuple, address: &Addr, now: u32) {
        // The ends have different addresses, so that the order in the key does not depend on the port.
        let side;
        (self.key, side) = outside(tuple, address, tuple.source_port).key();
        self.masks = match side {
            _ if is_echo(tuple.proto) => [u16::MAX; 2],
            0 => [u16::MAX, 0],
            _ => [0, u16::MAX],
        };
        self.entry = NatEntry {
            pod: tuple.source,
            created: now,
            port: tuple.source_port,
            sequence: 0,
        };
    }

    /// Makes it the node's port.
    #[inline(always)]
    fn set_port(&mut self, port: Be16) {
        let [lower, upper] = self.key.port.map(Be16::raw);
        let ([in_lower, in_upper], port) = (self.masks, port.raw());
        self.key.port = [
            Be16::from_raw(lower & !in_lower | port & in_lower),
            Be16::from_raw(upper & !in_upper | port & in_upper),
        ];
    }
}

/// Gives a port back; what is in the key stays.
#[inline(never)]
fn release(port: Be16) {
    let Some(opening) = maps::opening() else {
        return;
    };
    let request = &mut opening.request;
    let key = request.key;
    request.set_port(port);
    maps::release_port(&request.key);
    request.key = key;
}

/// Takes a port that no other connection to this remote end has, or needs any more; it is in the key then. A number that says
/// which, or 0.
///
/// On its own for the verifier, as [`open_to_world`] is: it walks through each attempt, but once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn take_port() -> u32 {
    let Some(opening) = maps::opening() else {
        return 0;
    };
    for attempt in 0..PROBES_MAX {
        let port = Be16::new(opening.request.probe.port(attempt));
        opening.request.set_port(port);
        let taken = maps::add_nat(&opening.request.key, &opening.request.entry) == Insertion::Done
            || attempt >= TAKE_OVER_FROM && take_over(opening, port, quiet_ticks(attempt));
        if taken {
            return FOUND | u32::from(port.raw());
        }
    }
    0
}

/// Of the result of [`take_port`].
const FOUND: u32 = 1 << 16;

#[inline(always)]
fn take() -> Option<Be16> {
    match take_port() {
        0 => None,
        found => Some(Be16::from_raw(found as u16)),
    }
}

/// Takes the port of a connection of TCP that is over, for another that begins, if its sequence numbers allow that.
///
/// Whoever deletes the old connection's row of `conntrack` owns its row of `nat` from then on: no other CPU and no collector
/// touches that.
#[inline(never)]
fn take_over(opening: &mut Opening, port: Be16, quiet: u32) -> bool {
    if opening.entry.state != State::SYN_SENT {
        return false;
    }
    let request = &mut opening.request;
    let Some(old) = maps::nat(&request.key) else {
        return false;
    };
    if !follows(request.entry.sequence, old.sequence) {
        return false;
    }
    let tuple = Tuple {
        source: old.pod,
        source_port: old.port,
        ..opening.packet.tuple
    };
    let side;
    (request.occupant, side) = tuple.key();
    let mapping = Mapping::new(request.slot, port);
    maps::end(&request.occupant, side, mapping, request.entry.created, quiet)
        && maps::set_nat(&request.key, &request.entry)
}

/// Gives a packet that leaves its connection's address and port.
#[inline(always)]
pub fn depart(ctx: &Ctx, packet: &Packet) -> Result<(), Drop> {
    if packet.nat.is_some() {
        masquerade(ctx, packet)
    } else {
        Ok(())
    }
}

#[inline(never)]
fn masquerade(ctx: &Ctx, packet: &Packet) -> Result<(), Drop> {
    let Some(node) = source(packet) else {
        return Err(Drop::new(Reason::NO_MAPPING_FOR_NAT_MASQUERADE));
    };
    let change = Change {
        end: End::Source,
        from: &packet.tuple.source,
        from_port: packet.tuple.source_port,
        to: &node.address,
        to_port: packet.nat.port(),
    };
    if packet.kind == Kind::Error {
        return rewrite::error(ctx, packet, &change);
    }
    if packet.tcp_flags & (tcp::FIN | tcp::RST) != 0 {
        remember_end(ctx, packet, &node.address);
    }
    rewrite::flow(ctx, packet, &change)
}

/// Notes how far the sequence numbers of a connection went that the pod ends.
#[inline(never)]
fn remember_end(ctx: &Ctx, packet: &Packet, address: &Addr) {
    let (key, _) = outside(&packet.tuple, address, packet.nat.port()).key();
    maps::note_sequence(&key, sequence_behind(ctx, packet));
}

/// The address that a masqueraded packet has outside; `None` for any other packet.
#[inline(always)]
#[must_use]
pub fn source(packet: &Packet) -> Option<&'static NatAddress> {
    if packet.nat.is_some() {
        maps::nat_address(packet.nat.slot().into())
    } else {
        None
    }
}

/// What is for this node because one of its pods is masqueraded, or a client of a service that another node's pods answer for.
#[inline(always)]
pub fn answer(ctx: &Ctx, packet: &mut Packet) -> Result<Verdict, Drop> {
    arrive(ctx, packet)?;
    if packet.from_service {
        service::restore(ctx, packet)?;
    }
    match maps::endpoint(&packet.tuple.destination) {
        Some(node) if node.is_host() => Ok(Verdict::Pass),
        Some(pod) if pod.has(Endpoint::STACK) => Ok(Verdict::Stack),
        Some(pod) => forward::to_pod(ctx, packet, pod),
        None if packet.from_service => forward::away(ctx, packet),
        None => Err(Drop::new(Reason::STALE_OR_UNROUTABLE_IP)),
    }
}

/// Makes the pod to which a packet for the node really goes its destination, if there is one; else leaves it alone.
#[inline(always)]
fn arrive(ctx: &Ctx, packet: &mut Packet) -> Result<(), Drop> {
    match packet.kind {
        // One after the other and not one in the other, for the sake of the stack. What they find is in `Opening`.
        Kind::Error => {
            if quoted(ctx, packet) && is_about_a_pod(packet) {
                error_arrives(ctx, packet)
            } else {
                Ok(())
            }
        }
        // A connection that the other end opens is no answer, whatever was on these ports before.
        Kind::Flow if packet.opens() => Ok(()),
        Kind::Flow => {
            if packet.fragment != 0 {
                fragment::remember(ctx, packet);
            }
            answer_arrives(ctx, packet)
        }
        Kind::Fragment => {
            // Without its first the fragment may as well be the node's own.
            if fragment::recall(ctx, packet) {
                answer_arrives(ctx, packet)
            } else {
                Ok(())
            }
        }
        Kind::Link => Ok(()),
    }
}

#[inline(never)]
fn answer_arrives(ctx: &Ctx, packet: &mut Packet) -> Result<(), Drop> {
    let (wire, _) = packet.tuple.key();
    // A copy: the row may become another connection's meanwhile.
    let Some(entry) = maps::nat(&wire).copied() else {
        return Ok(());
    };
    let (key, side) = inside(&packet.tuple, &entry).key();
    let touch = conntrack::touch(ctx, packet, side, 0);
    let Some(known) = maps::touch(&key, &touch) else {
        return Ok(());
    };
    packet.from_service = known.from_service;
    deliver(ctx, packet, &entry, rewrite::flow)
}

/// The tuple of a packet for the node as its pod is to see it.
#[inline(always)]
fn inside(tuple: &Tuple, entry: &NatEntry) -> Tuple {
    Tuple {
        destination: entry.pod,
        destination_port: entry.port,
        source_port: if is_echo(tuple.proto) {
            entry.port
        } else {
            tuple.source_port
        },
        ..*tuple
    }
}

/// An ICMP error about a packet of a pod. It refreshes nothing.
#[inline(never)]
fn error_arrives(ctx: &Ctx, packet: &mut Packet) -> Result<(), Drop> {
    let entry = maps::opening().and_then(|found| maps::nat(&found.key));
    entry.map_or(Ok(()), |entry| deliver(ctx, packet, entry, rewrite::error))
}

/// Makes the pod the destination by one of the ways to rewrite a packet. On its last hop, a packet that is left to the stack
/// would be taken for the node's.
#[inline(always)]
fn deliver(
    ctx: &Ctx,
    packet: &mut Packet,
    entry: &NatEntry,
    change_by: impl FnOnce(&Ctx, &Packet, &Change<'_>) -> Result<(), Drop>,
) -> Result<(), Drop> {
    if packet.ttl <= 1 {
        return Err(Drop::new(Reason::TTL_EXCEEDED));
    }
    let change = Change {
        end: End::Destination,
        from: &packet.tuple.destination,
        from_port: packet.tuple.destination_port,
        to: &entry.pod,
        to_port: entry.port,
    };
    change_by(ctx, packet, &change)?;
    (packet.tuple.destination, packet.tuple.destination_port) = (entry.pod, entry.port);
    Ok(())
}

/// Finds the packet that an ICMP error quotes.
#[inline(never)]
fn quoted(ctx: &Ctx, packet: &mut Packet) -> bool {
    let Some(found) = maps::opening() else {
        return false;
    };
    match parse::quote(ctx, packet) {
        Ok(Some(tuple)) => {
            found.packet.tuple = tuple;
            true
        }
        _ => false,
    }
}

/// Whether an ICMP error to the node is about a connection of a pod: then its key of `nat` is found.
#[inline(never)]
fn is_about_a_pod(packet: &mut Packet) -> bool {
    let Some(found) = maps::opening() else {
        return false;
    };
    let quoted = &found.packet.tuple;
    if quoted.source != packet.tuple.destination {
        return false;
    }
    found.key = quoted.key().0;
    let Some(entry) = maps::nat(&found.key) else {
        return false;
    };
    // As the pod sent it: seen from the answers, the other way round.
    let (key, side) = inside(&quoted.reversed(), entry).key();
    let Some(known) = maps::connection(&key, side) else {
        return false;
    };
    packet.from_service = known.from_service;
    true
}
