// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Out of the node: by the kernel's own routing and neighbour tables.

use datapath_common::packet::{DETOUR_MARK, DETOUR_MASK, ETH_LEN, UDP_LEN, proto};
use datapath_common::{Addr, Be16, Mac, Reason, Tuple, Way, checksum};

use crate::parse::{Bytes, Ethernet, Packet};
use crate::{Ctx, Drop, Verdict, forward, maps, nat};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// `BPF_FIB_LKUP_RET_SUCCESS`.
const SUCCESS: i64 = 0;
/// `BPF_FIB_LKUP_RET_NO_NEIGH`: there is a route, but its next hop's address is to be resolved first.
const NO_NEIGHBOUR: i64 = 7;

/// `BPF_FIB_LKUP_RET_FRAG_NEEDED`.
const FRAGMENTATION_NEEDED: i64 = 8;
/// `BPF_FIB_LKUP_RET_BLACKHOLE` and what the routing table refuses likewise.
const BLACKHOLE: i64 = 1;
const UNREACHABLE: i64 = 2;
const PROHIBIT: i64 = 3;
/// `BPF_FIB_LKUP_RET_NOT_FWDED`: no route, or for the host itself.
const NOT_FORWARDED: i64 = 4;

/// The kernel's `struct bpf_fib_lookup`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Lookup {
    family: u8,
    proto: u8,
    ports: [Be16; 2],
    /// In: bytes of the IP packet as it goes out, to be compared with the route's MTU.
    length: u16,
    /// In: the device that received. Out: the one that sends.
    ifindex: u32,
    flow: u32,
    source: [u64; 2],
    /// In: the destination. Out: the next hop.
    destination: [u64; 2],
    vlan: [u16; 2],
    source_mac: Mac,
    destination_mac: Mac,
}

/// The kernel's `struct bpf_redir_neigh`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NextHop {
    family: u32,
    address: [[u32; 2]; 2],
}

const _: () = assert!(size_of::<Lookup>() == 64 && size_of::<NextHop>() == 20);

/// Where to, for a packet that is yet to be made.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    lookup: Lookup,
    neighbour_known: bool,
}

/// The way of a packet that does not exist yet, to another node.
#[inline(always)]
pub fn find(ctx: &Ctx, outer: &Tuple) -> Result<Found, Drop> {
    // Without a length nothing is compared with the route's MTU: that of tunnels is known already.
    let mut lookup = lookup(ctx, &outer.source, outer, 0);
    let neighbour_known = match ctx.fib(&mut lookup) {
        SUCCESS => true,
        NO_NEIGHBOUR => false,
        _ => return Err(Drop::new(Reason::FIB_LOOKUP_FAILED)),
    };
    Ok(Found {
        lookup,
        neighbour_known,
    })
}

impl Found {
    /// Sends the packet, which has this EtherType by now, there.
    #[inline(always)]
    pub fn send(mut self, ctx: &Ctx, ethertype: Be16) -> Result<Verdict, Drop> {
        let lookup = &mut self.lookup;
        ctx.write(
            0,
            Ethernet {
                destination: lookup.destination_mac,
                source: lookup.source_mac,
                ethertype,
            },
        )?;
        let action = if self.neighbour_known {
            ctx.redirect(lookup.ifindex)
        } else {
            ctx.redirect_neighbour(lookup.ifindex, &mut lookup.next_hop())
        };
        Ok(Verdict::Redirect(action))
    }
}

impl Lookup {
    #[inline(always)]
    fn next_hop(&self) -> NextHop {
        NextHop {
            family: u32::from(self.family),
            address: self.destination.map(halves),
        }
    }
}

/// To the next hop past the host's stack. What the tables refuse, or what is too big for the route, is left to the stack,
/// which answers with the right ICMP error.
#[inline(always)]
pub fn leave(ctx: &Ctx, packet: &Packet) -> Result<Verdict, Drop> {
    let action = way_out(ctx, packet)?;
    if action == TO_STACK {
        return Ok(Verdict::Stack);
    }
    nat::depart(ctx, packet)?;
    forward::hop(ctx, packet)?;
    Ok(Verdict::Redirect(action))
}

/// Out of the pod's queue and the host's stack, which has counted the hop, to the next hop: the second half of
/// [`leave_later`].
#[inline(always)]
pub fn leave_at_last(ctx: &Ctx, packet: &Packet) -> Result<Verdict, Drop> {
    let mut action = TO_STACK;
    next_hop(ctx, packet, &mut action)?;
    if action == TO_STACK {
        // The answer was another one when the packet was sent.
        return Err(Drop::new(Reason::FIB_LOOKUP_FAILED));
    }
    nat::depart(ctx, packet)?;
    Ok(Verdict::Redirect(action))
}

/// Into the host's stack and the queue before it. What is to look otherwise outside is marked, so that it comes back to us
/// before it leaves; what the stack is to answer with an error is not.
#[inline(always)]
pub fn leave_later(ctx: &Ctx, packet: &Packet) -> Result<Verdict, Drop> {
    if packet.nat.is_some() && way_out(ctx, packet)? != TO_STACK {
        ctx.set_mark(ctx.mark() & !DETOUR_MASK | DETOUR_MARK);
    }
    Ok(Verdict::Stack)
}

#[inline(always)]
fn way_out(ctx: &Ctx, packet: &Packet) -> Result<i32, Drop> {
    let mut action = TO_STACK;
    if packet.ttl > 1 {
        next_hop(ctx, packet, &mut action)?;
    }
    Ok(action)
}

/// Where the word of flags and fragment offset lies in a frame with IPv4; the next are TTL with protocol, and the checksum.
const FLAGS_V4: usize = ETH_LEN + 6;
const DONT_FRAGMENT: u16 = 0x4000;
/// No action of a redirect.
const TO_STACK: i32 = -1;

/// Addresses the packet to its next hop and finds the action that sends it there; or leaves [`TO_STACK`] alone.
#[inline(never)]
fn next_hop(ctx: &Ctx, packet: &Packet, action: &mut i32) -> Result<(), Drop> {
    let (tuple, length, now) = (&packet.tuple, length_on_wire(ctx, packet), ctx.jiffies());
    let Some(way) = maps::way(tuple) else {
        return Ok(());
    };
    if !way.answers(tuple, ctx.ifindex(), length, now) {
        let source = nat::source(packet).map_or(&tuple.source, |node| &node.address);
        let mut lookup = lookup(ctx, source, tuple, length);
        match ctx.fib(&mut lookup) {
            SUCCESS => {
                *way = Way {
                    source: tuple.source,
                    destination: tuple.destination,
                    ports: [tuple.source_port, tuple.destination_port],
                    proto: tuple.proto,
                    _pad: 0,
                    length,
                    from: ctx.ifindex(),
                    at: now,
                    to: lookup.ifindex,
                    macs: [lookup.destination_mac, lookup.source_mac],
                };
            }
            NO_NEIGHBOUR => {
                *action = ctx.redirect_neighbour(lookup.ifindex, &mut lookup.next_hop());
                return Ok(());
            }
            result => return refused(ctx, packet, result),
        }
    }
    forward::address(ctx, way.macs[0], way.macs[1])?;
    *action = ctx.redirect(way.to);
    Ok(())
}

/// A masqueraded packet is left to the stack only where that answers with an error: it would forward the packet, or cut it in
/// pieces, with the pod's own address.
#[inline(always)]
fn refused(ctx: &Ctx, packet: &Packet, result: i64) -> Result<(), Drop> {
    match result {
        _ if !packet.nat.is_some() => Ok(()),
        BLACKHOLE | UNREACHABLE | PROHIBIT | NOT_FORWARDED => Ok(()),
        FRAGMENTATION_NEEDED if packet.v4 => forbid_to_cut(ctx),
        FRAGMENTATION_NEEDED => Ok(()),
        _ => Err(Drop::new(Reason::FIB_LOOKUP_FAILED)),
    }
}

/// Says *don't fragment*, so that the stack answers with the error and the pod cuts what it sends next.
#[inline(always)]
fn forbid_to_cut(ctx: &Ctx) -> Result<(), Drop> {
    let [old, hops, check]: [Be16; 3] = ctx
        .read(FLAGS_V4)
        .ok_or(Drop::new(Reason::ERROR_WRITING_TO_PACKET))?;
    if old.get() & DONT_FRAGMENT != 0 {
        return Ok(());
    }
    let new = Be16::new(old.get() | DONT_FRAGMENT);
    ctx.write(FLAGS_V4, [new, hops, checksum::update(check, old, new)])
}

#[inline(always)]
const fn halves(word: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
    [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])]
}

#[inline(always)]
fn lookup(ctx: &Ctx, source: &Addr, tuple: &Tuple, length: u16) -> Lookup {
    let v4 = tuple.destination.is_v4();
    Lookup {
        family: if v4 { AF_INET } else { AF_INET6 },
        proto: tuple.proto,
        ports: [tuple.source_port, tuple.destination_port],
        length,
        ifindex: ctx.ifindex(),
        flow: 0,
        source: kernel_address(source, v4),
        destination: kernel_address(&tuple.destination, v4),
        vlan: [0; 2],
        source_mac: Mac([0; 6]),
        destination_mac: Mac([0; 6]),
    }
}

/// Bytes of the IP packet; of a GSO packet, those of each packet that it is cut into.
///
/// (Before 5.12 the kernel compares packets with the MTU of the device, not of the route, and GSO packets with neither.)
#[inline(always)]
#[must_use]
pub fn length_on_wire(ctx: &Ctx, packet: &Packet) -> u16 {
    let size = ctx.gso_size() as u16;
    if size == 0 {
        return (packet.end as usize - ETH_LEN) as u16;
    }
    let header = match packet.tuple.proto {
        proto::TCP => {
            u16::from(
                ctx.read::<u8>(packet.payload() + TCP_DATA_OFFSET)
                    .unwrap_or_default()
                    >> 4,
            ) * 4
        }
        _ => UDP_LEN as u16,
    };
    packet.l4 - ETH_LEN as u16 + header + size
}

/// Where a TCP header says how long it is.
const TCP_DATA_OFFSET: usize = 12;

/// IPv4 in the first four bytes.
#[inline(always)]
fn kernel_address(addr: &Addr, v4: bool) -> [u64; 2] {
    let [a, b, c, d] = addr.v4_octets();
    if v4 {
        [u64::from_ne_bytes([a, b, c, d, 0, 0, 0, 0]), 0]
    } else {
        addr.words()
    }
}
