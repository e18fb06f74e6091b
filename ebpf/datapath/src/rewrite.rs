// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Gives an end of a packet another address and port, and renews the checksums; in ICMP errors, of the packet that they quote too.

use datapath_common::packet::{ETH_LEN, proto};
use datapath_common::{Addr, Be16, Reason, checksum};

use crate::parse::{Bytes, Kind, Packet};
use crate::{Ctx, Drop};

/// Which end of a packet is rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The sender.
    Source,
    /// The receiver.
    Destination,
}

/// What an end becomes.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// Which end it is.
    pub end: End,
    /// What it was.
    pub from: &'a Addr,
    /// Its port.
    pub from_port: Be16,
    /// What it is to be.
    pub to: &'a Addr,
    /// Its port.
    pub to_port: Be16,
}

/// Whether a protocol has identifiers of echoes for ports.
#[inline(always)]
#[must_use]
pub const fn is_echo(protocol: u8) -> bool {
    matches!(protocol, proto::ICMP | proto::ICMPV6)
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
pub fn flow(ctx: &Ctx, packet: &Packet, change: &Change<'_>) -> Result<(), Drop> {
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

/// Rewrites an ICMP error and the packet that it quotes, whose other end is the one that changes. Who sent the error may be
/// another than that end: a router on the way.
#[inline(never)]
pub fn error(ctx: &Ctx, packet: &Packet, change: &Change<'_>) -> Result<(), Drop> {
    let end = match change.end {
        End::Source => &packet.tuple.source,
        End::Destination => &packet.tuple.destination,
    };
    let difference = checksum::difference(change.from.sum(), change.to.sum());
    let outer = if end == change.from {
        address(ctx, packet, change)?
    } else {
        0
    };
    let quoted = Change {
        end: match change.end {
            End::Source => End::Destination,
            End::Destination => End::Source,
        },
        ..*change
    };
    let mut inner = quoted_transport(ctx, packet, &quoted, difference)?;
    inner = fold(inner, quoted_address(ctx, packet, &quoted, difference)?);
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
