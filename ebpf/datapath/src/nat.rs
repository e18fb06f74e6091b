// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Masquerading: pods' connections to the world have the node's address there, and answers find their way back.
//!
//! A connection is decided on when it is opened ([`open`]); later packets find the decision in their row of `conntrack`. What
//! leaves is rewritten as the last step ([`depart`]), so that whatever is left to the host's stack still is the pod's own;
//! what arrives is the first thing that is ([`arrive`]).

use aya_ebpf::bindings::__sk_buff;
use datapath_common::ct::{CtKey, State, Tuple};
use datapath_common::nat::{
    CURRENT_V4, CURRENT_V6, PROBES_MAX, Ports, Probe, Rewrite, TAKE_OVER_FROM, follows, quiet_ticks, rewrite,
};
use datapath_common::packet::{ETH_LEN, icmp, icmpv6, proto, tcp};
use datapath_common::{Addr, Be16, CtEntry, Mapping, NatAddress, NatEntry, Prefix, Reason, checksum};

use crate::ctx::Answer;
use crate::maps::{self, Insertion};
use crate::parse::{self, Bytes, Kind, Packet};
use crate::{Ctx, Drop, conntrack, fragment};

/// Which end of a packet is rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Source,
    Destination,
}

/// What an end becomes.
#[derive(Clone, Copy)]
struct Change<'a> {
    end: End,
    from: &'a Addr,
    from_port: Be16,
    to: &'a Addr,
    to_port: Be16,
}

/// Whether a packet's destination is the world.
#[inline(always)]
#[must_use]
pub fn is_world(packet: &Packet) -> bool {
    !maps::prefix(&packet.tuple.destination).is_some_and(|prefix| prefix.has(Prefix::CLUSTER))
}

/// Opens a connection of a pod to somewhere else, which gets a port of the node if that is the world.
///
/// To the verifier this is a function on its own: it walks through it once, and not for each kind of packet that leads here.
/// In return nothing but the context comes in, and a number goes out.
#[inline(always)]
pub fn open(ctx: &Ctx) -> Result<Mapping, Drop> {
    let result = open_to_world(ctx.raw());
    let mapping = Mapping::from_word(result);
    if mapping.is_some() || result == 0 {
        Ok(mapping)
    } else {
        Err(Drop::new(Reason(result as u8)))
    }
}

/// A mapping's word; or 0 for none; or the reason to drop the packet.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn open_to_world(skb: *mut __sk_buff) -> u32 {
    let ctx = Ctx::from_raw(skb);
    match opened(&ctx) {
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
fn opened(ctx: &Ctx) -> Result<Mapping, Drop> {
    let refused = Drop::new(Reason::CT_MAP_INSERTION_FAILED);
    let slot = prepare(ctx, refused)?;
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
fn prepare(ctx: &Ctx, refused: Drop) -> Result<u32, Drop> {
    let opening = maps::opening().ok_or(refused)?;
    let ethertype = parse::ethernet(ctx)?.ethertype.get();
    opening.packet = Packet::EMPTY;
    parse::packet(ctx, ethertype, &mut opening.packet)?;
    let pod_opens = begin(ctx, opening);
    if pod_opens && is_world(&opening.packet) {
        ask(ctx, opening)
    } else {
        Ok(NO_SLOT)
    }
}

/// Fills in key and row; says whether the pod opens the connection. (Functions of their own for the sake of the stack, here and
/// below.)
#[inline(never)]
fn begin(ctx: &Ctx, opening: &mut Opening) -> bool {
    let side;
    (opening.key, side) = opening.packet.tuple.key();
    let first = conntrack::touch(ctx, &opening.packet, side, 0);
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

#[inline(always)]
const fn is_echo(protocol: u8) -> bool {
    matches!(protocol, proto::ICMP | proto::ICMPV6)
}

/// Fills in what is asked for: a port of the node towards the packet's destination. Returns the slot of the node's address, or
/// [`NO_SLOT`].
#[inline(never)]
fn ask(ctx: &Ctx, opening: &mut Opening) -> Result<u32, Drop> {
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
    let protocol = packet.tuple.proto;
    let ports = match rewrite(protocol, packet.v4) {
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
        let taken = maps::take_port(&opening.request.key, &opening.request.entry) == Insertion::Done
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
        && maps::replace_port(&request.key, &request.entry)
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
        return error(ctx, packet, &change);
    }
    if packet.tcp_flags & (tcp::FIN | tcp::RST) != 0 {
        remember_end(ctx, packet, &node.address);
    }
    rewrite_flow(ctx, packet, &change)
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

/// Makes the pod to which a packet for the node really goes its destination, if there is one; else leaves it alone.
#[inline(always)]
pub fn arrive(ctx: &Ctx, packet: &mut Packet) -> Result<(), Drop> {
    match packet.kind {
        // One after the other and not one in the other, for the sake of the stack. What they find is in `Opening`.
        Kind::Error => {
            if quoted(ctx, packet) && is_about_a_pod(packet) {
                error_arrives(ctx, packet)
            } else {
                Ok(())
            }
        }
        Kind::Flow if opens(packet) => Ok(()),
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
    if maps::touch(&key, &touch).is_none() {
        return Ok(());
    }
    deliver(ctx, packet, &entry, rewrite_flow)
}

/// A connection that the other end opens is no answer, whatever was on these ports before.
#[inline(always)]
const fn opens(packet: &Packet) -> bool {
    packet.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN
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
    entry.map_or(Ok(()), |entry| deliver(ctx, packet, entry, error))
}

/// Makes the pod the destination by one of the ways to rewrite a packet. On its last hop, a packet that is left to the stack
/// would be taken for the node's.
#[inline(always)]
fn deliver(
    ctx: &Ctx,
    packet: &mut Packet,
    entry: &NatEntry,
    rewrite: impl FnOnce(&Ctx, &Packet, &Change<'_>) -> Result<(), Drop>,
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
    rewrite(ctx, packet, &change)?;
    packet.tuple.destination = entry.pod;
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
fn is_about_a_pod(packet: &Packet) -> bool {
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
    maps::connection(&key, side).is_some()
}

/// Where addresses lie in an IP header.
const SOURCE_V4: usize = 12;
const DESTINATION_V4: usize = 16;
const SOURCE_V6: usize = 8;
const DESTINATION_V6: usize = 24;
/// Where IPv4 has its checksum.
const CHECK_V4: usize = 10;
/// Where ICMP has its own.
const CHECK_ICMP: usize = 2;

/// Rewrites a packet of a connection.
#[inline(always)]
fn rewrite_flow(ctx: &Ctx, packet: &Packet, change: &Change<'_>) -> Result<(), Drop> {
    let difference = address(ctx, packet, change)?;
    if packet.kind == Kind::Fragment {
        return Ok(());
    }
    transport(ctx, packet, change, difference)
}

/// Rewrites the address in the IP header; returns what that does to a checksum over it.
#[inline(always)]
fn address(ctx: &Ctx, packet: &Packet, change: &Change<'_>) -> Result<u32, Drop> {
    let difference = checksum::difference(change.from.sum(), change.to.sum());
    if packet.v4 {
        let at = match change.end {
            End::Source => SOURCE_V4,
            End::Destination => DESTINATION_V4,
        };
        let check: Be16 = ctx.read(ETH_LEN + CHECK_V4).ok_or_else(unwritten)?;
        ctx.write(ETH_LEN + CHECK_V4, checksum::apply(check, difference))?;
        ctx.write(ETH_LEN + at, u32::from_ne_bytes(change.to.v4_octets()))?;
    } else {
        let at = match change.end {
            End::Source => SOURCE_V6,
            End::Destination => DESTINATION_V6,
        };
        ctx.write(ETH_LEN + at, change.to.words())?;
        // IPv6 has no checksum that would make up for it in the sum of the packet.
        ctx.adjust_sum(difference);
    }
    Ok(difference)
}

#[inline(always)]
fn unwritten() -> Drop {
    Drop::new(Reason::ERROR_WRITING_TO_PACKET)
}

/// Where a transport header has its checksum, and whether that covers the addresses.
#[inline(always)]
const fn check(protocol: u8) -> Option<(u32, bool)> {
    match protocol {
        proto::TCP => Some((16, true)),
        proto::UDP => Some((6, true)),
        proto::ICMP => Some((CHECK_ICMP as u32, false)),
        proto::ICMPV6 => Some((CHECK_ICMP as u32, true)),
        _ => None,
    }
}

/// Where a transport header has the port of an end.
#[inline(always)]
const fn port(protocol: u8, end: End) -> usize {
    match end {
        // The identifier of an echo.
        _ if is_echo(protocol) => 4,
        End::Source => 0,
        End::Destination => 2,
    }
}

/// Rewrites the port, and the checksum for the new address and port. The kernel's helpers know whether the checksum is still to
/// be computed, by the device or when a GSO packet is cut.
#[inline(always)]
fn transport(ctx: &Ctx, packet: &Packet, change: &Change<'_>, difference: u32) -> Result<(), Drop> {
    let (protocol, l4) = (packet.tuple.proto, packet.payload());
    let Some((at, over_addresses)) = check(protocol) else {
        return Ok(());
    };
    let at = l4 as u32 + at;
    if over_addresses {
        ctx.replace_pseudo(at, difference)?;
    }
    if change.from_port != change.to_port {
        ctx.replace_word(at, change.from_port, change.to_port)?;
        ctx.write(l4 + port(protocol, change.end), change.to_port)?;
    }
    Ok(())
}

/// Rewrites an ICMP error and the packet that it quotes, whose other end is the one that changes.
#[inline(never)]
fn error(ctx: &Ctx, packet: &Packet, change: &Change<'_>) -> Result<(), Drop> {
    let outer = address(ctx, packet, change)?;
    let quoted = Change {
        end: match change.end {
            End::Source => End::Destination,
            End::Destination => End::Source,
        },
        ..*change
    };
    let mut inner = quoted_transport(ctx, packet, &quoted, outer)?;
    inner = fold(inner, quoted_address(ctx, packet, &quoted, outer)?);
    let at = packet.payload() + CHECK_ICMP;
    let check: Be16 = ctx.copy(at).ok_or_else(unwritten)?;
    if packet.v4 {
        return ctx.store(at as u32, &checksum::apply(check, inner));
    }
    // What is written here is even: address, quote and checksum together leave the sum of the packet as it was.
    ctx.adjust_sum(checksum::difference(outer, 0));
    ctx.store(at as u32, &checksum::apply(check, fold(inner, outer)))
}

/// The sum of two differences, which are less than 2^17 each.
#[inline(always)]
const fn fold(a: u32, b: u32) -> u32 {
    let sum = a + b;
    (sum & 0xffff) + (sum >> 16)
}

/// Rewrites the address in the header that an ICMP error quotes. The header of IPv4 has a checksum, whose change makes up for
/// that of the address.
#[inline(always)]
fn quoted_address(ctx: &Ctx, packet: &Packet, change: &Change<'_>, difference: u32) -> Result<u32, Drop> {
    let header = packet.payload() + datapath_common::packet::ICMP_LEN;
    if packet.v4 {
        let at = match change.end {
            End::Source => SOURCE_V4,
            End::Destination => DESTINATION_V4,
        };
        let check: Be16 = ctx.copy(header + CHECK_V4).ok_or_else(unwritten)?;
        ctx.store((header + CHECK_V4) as u32, &checksum::apply(check, difference))?;
        ctx.store((header + at) as u32, &change.to.v4_octets())?;
        return Ok(0);
    }
    let at = match change.end {
        End::Source => SOURCE_V6,
        End::Destination => DESTINATION_V6,
    };
    ctx.store((header + at) as u32, &change.to.words())?;
    Ok(difference)
}

/// Rewrites the port of a quoted packet, and its checksum if the quote reaches so far; returns what that does to a checksum
/// over it.
#[inline(always)]
fn quoted_transport(ctx: &Ctx, packet: &Packet, change: &Change<'_>, difference: u32) -> Result<u32, Drop> {
    let (protocol, l4) = (packet.quoted_proto, usize::from(packet.quoted));
    let Some((check_at, over_addresses)) = check(protocol) else {
        return Ok(0);
    };
    let at = l4 + port(protocol, change.end);
    let from: Be16 = ctx.copy(at).ok_or_else(unwritten)?;
    let of_port = checksum::difference(from.raw().into(), change.to_port.raw().into());
    ctx.store(at as u32, &change.to_port)?;
    let check_at = l4 + check_at as usize;
    let Some(check) = ctx
        .copy::<Be16>(check_at)
        .filter(|_| check_at + 2 <= packet.end as usize)
    else {
        return Ok(of_port);
    };
    // UDP without a checksum has none afterwards.
    if protocol == proto::UDP && check.raw() == 0 {
        return Ok(of_port);
    }
    let covered = if over_addresses {
        fold(of_port, difference)
    } else {
        of_port
    };
    let renewed = checksum::apply(check, covered);
    ctx.store(check_at as u32, &renewed)?;
    Ok(fold(
        of_port,
        checksum::difference(check.raw().into(), renewed.raw().into()),
    ))
}
