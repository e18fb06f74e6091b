// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Neighbour discovery of a pod (RFC 4861): the gateway answers for itself, and for nobody else.

use datapath_common::packet::{ETH_LEN, GATEWAY_MAC, GATEWAY_V6, IPV6_LEN, icmpv6, proto};
use datapath_common::{Addr, Be16, Mac, Reason, checksum};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::parse::{Bytes, Ethernet, Packet};
use crate::{Ctx, Drop, Verdict};

/// A solicitation without its options.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes)]
struct Solicitation {
    kind: u8,
    code: u8,
    check: Be16,
    reserved: [u8; 4],
    target: Addr,
}

/// The header of IPv6 where it lies behind one of Ethernet: aligned to two bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Ipv6 {
    version: [u8; 4],
    payload_length: Be16,
    next: u8,
    hop_limit: u8,
    source: [u8; 16],
    destination: [u8; 16],
}

/// An advertisement with the target's link-layer address, and all its headers.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Advertisement {
    ethernet: Ethernet,
    ip: Ipv6,
    kind: u8,
    code: u8,
    check: Be16,
    flags: [u8; 4],
    target: [u8; 16],
    option: [u8; 2],
    mac: Mac,
}

const PAYLOAD: u16 = 32;
const LENGTH: u32 = 86;
const _: () = assert!(size_of::<Advertisement>() == LENGTH as usize);

/// Of a router, asked for, to be believed over what is cached.
const ROUTER_SOLICITED_OVERRIDE: u8 = 0xe0;
/// Of neighbour discovery messages, which proves that no router has forwarded them.
const HOP_LIMIT: u8 = 255;
/// The target's link-layer address, of one unit of eight bytes.
const TARGET_ADDRESS: [u8; 2] = [2, 1];

/// Answers in place, or says why not.
#[inline(never)]
pub fn answer(ctx: &Ctx, packet: &Packet) -> Result<Verdict, Drop> {
    let message: Solicitation = ctx
        .read(packet.payload())
        .ok_or(Drop::new(Reason::LINK_LOCAL_CHATTER))?;
    judge(message.kind, message.target, packet)?;
    let ethernet = crate::parse::ethernet(ctx)?;
    ctx.resize(LENGTH)?;
    ctx.store(0, &advertisement(&ethernet, &packet.tuple.source))?;
    Ok(Verdict::Answer(ctx.redirect(ctx.ifindex())))
}

/// Passes a solicitation for the gateway.
#[inline(always)]
fn judge(kind: u8, target: Addr, packet: &Packet) -> Result<(), Drop> {
    let reason = match kind {
        icmpv6::NEIGHBOUR_SOLICITATION if packet.tuple.source == Addr::UNSPECIFIED => {
            Reason::LINK_LOCAL_CHATTER
        }
        icmpv6::NEIGHBOUR_SOLICITATION if target != Addr::v6(GATEWAY_V6) => Reason::UNKNOWN_L3_TARGET_ADDRESS,
        icmpv6::NEIGHBOUR_SOLICITATION if packet.ttl != HOP_LIMIT || packet.tuple.source.is_multicast() => {
            Reason::FORBIDDEN_ICMPV6_MESSAGE
        }
        icmpv6::NEIGHBOUR_SOLICITATION => return Ok(()),
        icmpv6::ROUTER_ADVERTISEMENT | icmpv6::REDIRECT => Reason::FORBIDDEN_ICMPV6_MESSAGE,
        _ => Reason::LINK_LOCAL_CHATTER,
    };
    Err(Drop::new(reason))
}

/// The gateway's answer to the sender of a solicitation.
#[inline(always)]
fn advertisement(solicitation: &Ethernet, asker: &Addr) -> Advertisement {
    let mut answer = Advertisement {
        ethernet: Ethernet {
            destination: solicitation.source,
            source: GATEWAY_MAC,
            ..*solicitation
        },
        ip: Ipv6 {
            version: [0x60, 0, 0, 0],
            payload_length: Be16::new(PAYLOAD),
            next: proto::ICMPV6,
            hop_limit: HOP_LIMIT,
            source: GATEWAY_V6,
            destination: asker.octets(),
        },
        kind: icmpv6::NEIGHBOUR_ADVERTISEMENT,
        code: 0,
        check: Be16::new(0),
        flags: [ROUTER_SOLICITED_OVERRIDE, 0, 0, 0],
        target: GATEWAY_V6,
        option: TARGET_ADDRESS,
        mac: GATEWAY_MAC,
    };
    // Addresses and payload lie side by side; the rest of the pseudo-header is the length and the protocol.
    let summed = &answer.as_bytes()[ETH_LEN + IPV6_LEN - 32..];
    let pseudo_header =
        u32::from(Be16::new(PAYLOAD).raw()) + u32::from(Be16::new(proto::ICMPV6 as u16).raw());
    answer.check = checksum::finish(checksum::sum(summed) + pseudo_header);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_has_a_checksum_that_holds() {
        let asker = Addr::v6([0xfd, 0x74, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
        let ethernet = Ethernet {
            destination: Mac([0x33; 6]),
            source: Mac([2; 6]),
            ethertype: Be16::new(0x86dd),
        };
        let answer = advertisement(&ethernet, &asker);
        let bytes = answer.as_bytes();
        let pseudo_header = [
            bytes[22..54].to_vec(),
            vec![0, 0, 0, 32, 0, 0, 0, 58],
            bytes[54..].to_vec(),
        ]
        .concat();
        assert_eq!(checksum::finish(checksum::sum(&pseudo_header)).raw(), 0);
        assert_eq!(answer.ethernet.destination, Mac([2; 6]));
    }
}
