// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! What routers between nodes say of tunnel packets that are too large for them. The kernel's device wants to see more of the
//! packet than the eight bytes behind its IP header that a router need quote (RFC 792, RFC 1812 §4.3.2.3), so it is heard here.

use datapath_common::packet::{ETH_LEN, ICMP_LEN, IPV4_LEN, IPV6_LEN, ethertype, icmp, icmpv6, proto};
use datapath_common::{Addr, Be16, PathMtu, Prefix, event};
use zerocopy::{FromBytes, IntoBytes};

use crate::parse::Bytes;
use crate::{Ctx, maps, parse};

/// ICMP "fragmentation needed and DF set" (RFC 1191 §4).
const FRAGMENTATION_NEEDED: u8 = 4;
const VERSION_IHL: u8 = 0x45;

/// The beginning of an ICMP or ICMPv6 message that packets are too large; `mtu` in its last two bytes.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes)]
struct TooBig {
    kind: u8,
    code: u8,
    check: Be16,
    unused: Be16,
    mtu: Be16,
}

/// What is quoted of a packet in a tunnel.
struct Quote {
    source: Addr,
    destination: Addr,
    proto: u8,
    ports_at: usize,
}

/// Tells user space if this is such a message about a packet of our tunnel to a node. The packet goes on either way: it may be
/// about others', too.
#[inline(always)]
pub fn listen(ctx: &Ctx, ethertype: u16) {
    let is_icmp = match ethertype {
        ethertype::IPV4 => ctx.read::<u8>(ETH_LEN + 9) == Some(proto::ICMP),
        _ => ctx.read::<u8>(ETH_LEN + 6) == Some(proto::ICMPV6),
    };
    if is_icmp {
        hear(ctx, ethertype == ethertype::IPV4);
    }
}

/// Rare enough for a call of its own.
#[inline(never)]
fn hear(ctx: &Ctx, v4: bool) -> Option<()> {
    let at = ETH_LEN + if v4 { IPV4_LEN } else { IPV6_LEN };
    let too_big: TooBig = ctx.copy(at)?;
    let is_it = if v4 {
        ctx.copy::<u8>(ETH_LEN)? == VERSION_IHL
            && (too_big.kind, too_big.code) == (icmp::UNREACHABLE, FRAGMENTATION_NEEDED)
    } else {
        too_big.kind == icmpv6::PACKET_TOO_BIG
    };
    if !is_it {
        return None;
    }
    let quote = quote(ctx, v4, at + ICMP_LEN)?;
    let ports: [Be16; 2] = ctx.copy(quote.ports_at)?;
    let ethertype = if v4 { ethertype::IPV4 } else { ethertype::IPV6 };
    // Whoever wants to forge this must know our address, a node's, and the port: no more than an attacker on the way knows.
    let ours = quote.proto == proto::UDP
        && ports[1] == maps::tunnel().1
        && parse::destination(ctx, ethertype)? == quote.source
        && maps::prefix(&quote.destination).is_some_and(|prefix| prefix.has(Prefix::TUNNEL));
    let told = ours
        && maps::tell(|told: &mut PathMtu| {
            told.version = event::VERSION;
            told.kind = event::KIND_PATH_MTU;
            told.mtu = too_big.mtu.get();
            told.node = quote.destination;
        });
    told.then_some(())
}

/// Addresses, protocol, and where the ports are. Packets of the tunnel have neither options nor extension headers.
#[inline(always)]
fn quote(ctx: &Ctx, v4: bool, at: usize) -> Option<Quote> {
    let l4 = at + if v4 { IPV4_LEN } else { IPV6_LEN };
    Some(if v4 {
        Quote {
            source: Addr::v4(ctx.copy(at + 12)?),
            destination: Addr::v4(ctx.copy(at + 16)?),
            proto: ctx.copy(at + 9)?,
            ports_at: l4,
        }
    } else {
        Quote {
            source: ctx.copy(at + 8)?,
            destination: ctx.copy(at + 24)?,
            proto: ctx.copy(at + 6)?,
            ports_at: l4,
        }
    })
}
