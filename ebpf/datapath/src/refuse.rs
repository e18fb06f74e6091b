// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Refusals: who sends to a service that has no backend is told so at once, as a host tells it that has no such service.

use datapath_common::event::Hook;
use datapath_common::packet::{ETH_LEN, ICMP_LEN, IPV4_LEN, IPV6_LEN, TCP_LEN, icmp, icmpv6, proto, tcp};
use datapath_common::{Be16, Reason, checksum};
use zerocopy::IntoBytes as _;

use crate::ctx::Room;
use crate::header::{Icmp, Ipv4, Ipv6, Tcp, pseudo};
use crate::parse::{Bytes as _, Ethernet, Kind, Packet, ethernet};
use crate::{Ctx, Drop, Verdict};

/// Port unreachable: RFC 792, RFC 4443 §3.1.
const PORT_V4: u8 = 3;
const PORT_V6: u8 = 4;
/// What is quoted of the packet: its header and the ports.
const QUOTE_V4: usize = IPV4_LEN + 8;
const QUOTE_V6: usize = IPV6_LEN + 8;
/// Without options, in the upper half of a byte.
const DATA_OFFSET: u8 = (TCP_LEN as u8 / 4) << 4;
/// Where TCP has both numbers, and its data offset behind them.
const NUMBERS: usize = 4;

/// Answers that nobody is there: by RST, else by ICMP. The packet counts as dropped. Nothing is answered to what is itself an
/// answer of this kind, or no whole datagram (RFC 1122 §3.2.2).
#[inline(never)]
pub fn refuse(ctx: &Ctx, packet: &Packet, hook: Hook) -> Result<Verdict, Drop> {
    let drop = Drop::new(Reason::SERVICE_BACKEND_NOT_FOUND);
    if packet.kind != Kind::Flow || packet.tcp_flags & tcp::RST != 0 {
        return Err(drop);
    }
    drop.note(ctx, hook);
    let Ethernet {
        destination: source,
        source: destination,
        ethertype,
    } = ethernet(ctx)?;
    let back = Ethernet {
        destination,
        source,
        ethertype,
    };
    if packet.tuple.proto == proto::TCP {
        reset(ctx, packet)?;
    } else if packet.v4 {
        unreachable_v4(ctx, packet)?;
    } else {
        unreachable_v6(ctx, packet)?;
    }
    ctx.store(0, &back)?;
    Ok(Verdict::Answer(ctx.redirect(ctx.ifindex())))
}

/// RFC 9293 §3.5.2.
#[inline(never)]
fn reset(ctx: &Ctx, packet: &Packet) -> Result<(), Drop> {
    let [sequence, acknowledgment]: [[u8; 4]; 2] = ctx.copy(packet.payload() + NUMBERS).ok_or_else(short)?;
    let offset: u8 = ctx.copy(packet.payload() + NUMBERS + 8).ok_or_else(short)?;
    let flags = packet.tcp_flags;
    let data = packet.end - u32::from(packet.l4) - u32::from(offset >> 4) * 4;
    let length = data + u32::from(flags & tcp::SYN != 0) + u32::from(flags & tcp::FIN != 0);
    let ports = [packet.tuple.destination_port, packet.tuple.source_port];
    let mut header = Tcp {
        ports,
        sequence: acknowledgment,
        acknowledgment: [0; 4],
        data_offset: DATA_OFFSET,
        flags: tcp::RST,
        window: Be16::new(0),
        check: Be16::new(0),
        urgent: Be16::new(0),
    };
    if flags & tcp::ACK == 0 {
        header.sequence = [0; 4];
        header.acknowledgment = u32::from_be_bytes(sequence).wrapping_add(length).to_be_bytes();
        header.flags |= tcp::ACK;
    }
    let ends = [&packet.tuple.source, &packet.tuple.destination];
    let sum = pseudo(proto::TCP, ends, TCP_LEN as u16) + checksum::sum(header.as_bytes());
    header.check = checksum::finish(sum);
    let at = ip(ctx, packet, proto::TCP, TCP_LEN as u16)?;
    ctx.store(at, &header)
}

/// Cuts the packet to an IP header and so much behind it, and writes the header of an answer; returns where it ends.
#[inline(always)]
fn ip(ctx: &Ctx, packet: &Packet, protocol: u8, length: u16) -> Result<u32, Drop> {
    let header = if packet.v4 { IPV4_LEN } else { IPV6_LEN };
    let end = (ETH_LEN + header) as u32;
    ctx.resize(end + u32::from(length))?;
    let (source, destination) = (&packet.tuple.destination, &packet.tuple.source);
    if packet.v4 {
        ctx.store(
            ETH_LEN as u32,
            &Ipv4::new(protocol, source, destination, length.into()),
        )?;
    } else {
        ctx.store(
            ETH_LEN as u32,
            &Ipv6::new(protocol, source, destination, length.into()),
        )?;
    }
    Ok(end)
}

#[inline(never)]
fn unreachable_v4(ctx: &Ctx, packet: &Packet) -> Result<(), Drop> {
    let quote: [u8; QUOTE_V4] = ctx.copy(ETH_LEN).ok_or_else(short)?;
    let mut header = icmp(icmp::UNREACHABLE, PORT_V4);
    header.check = checksum::finish(checksum::sum(header.as_bytes()) + checksum::sum(&quote));
    ctx.make_room((IPV4_LEN + ICMP_LEN) as i32, Room::SAME)?;
    let at = ip(ctx, packet, proto::ICMP, (ICMP_LEN + QUOTE_V4) as u16)?;
    ctx.store(at, &header)
}

#[inline(never)]
fn unreachable_v6(ctx: &Ctx, packet: &Packet) -> Result<(), Drop> {
    let quote: [u8; QUOTE_V6] = ctx.copy(ETH_LEN).ok_or_else(short)?;
    let length = (ICMP_LEN + QUOTE_V6) as u16;
    let mut header = icmp(icmpv6::UNREACHABLE, PORT_V6);
    let ends = [&packet.tuple.source, &packet.tuple.destination];
    let sum = pseudo(proto::ICMPV6, ends, length) + checksum::sum(header.as_bytes()) + checksum::sum(&quote);
    header.check = checksum::finish(sum);
    ctx.make_room((IPV6_LEN + ICMP_LEN) as i32, Room::SAME)?;
    let at = ip(ctx, packet, proto::ICMPV6, length)?;
    ctx.store(at, &header)
}

#[inline(always)]
fn short() -> Drop {
    Drop::new(Reason::CT_TRUNCATED_OR_INVALID_HEADER)
}

#[inline(always)]
const fn icmp(kind: u8, code: u8) -> Icmp {
    Icmp {
        kind,
        code,
        check: Be16::new(0),
        rest: [0; 4],
    }
}
