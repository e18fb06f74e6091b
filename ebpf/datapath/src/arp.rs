// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! ARP of a pod: the gateway answers for itself, and for nobody else.

use datapath_common::packet::{ARP_LEN, ETH_LEN, GATEWAY_MAC, GATEWAY_V4};
use datapath_common::{Be16, Mac, Reason};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::parse::{Bytes, Ethernet};
use crate::{Ctx, Drop, Verdict};

/// An ARP packet with its Ethernet header.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Arp {
    ethernet: Ethernet,
    /// Ethernet, IPv4, and the sizes of their addresses.
    kind: [u8; 6],
    operation: Be16,
    sender_mac: Mac,
    sender: [u8; 4],
    target_mac: Mac,
    target: [u8; 4],
}

const _: () = assert!(size_of::<Arp>() == ETH_LEN + ARP_LEN);

const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: Be16 = Be16::new(1);
const REPLY: Be16 = Be16::new(2);

/// Answers in place.
#[inline(never)]
pub fn answer(ctx: &Ctx) -> Result<Verdict, Drop> {
    let request = ctx
        .read::<Arp>(0)
        .ok_or(Drop::new(Reason::CT_TRUNCATED_OR_INVALID_HEADER))?;
    ctx.store(0, &reply(&request)?)?;
    Ok(Verdict::Answer(ctx.redirect(ctx.ifindex())))
}

/// The gateway's answer to a request.
#[inline(always)]
pub fn reply(request: &Arp) -> Result<Arp, Drop> {
    if request.kind != ETHERNET_IPV4 {
        return Err(Drop::new(Reason::CT_TRUNCATED_OR_INVALID_HEADER));
    }
    if request.operation == REQUEST && request.target == GATEWAY_V4 {
        return Ok(Arp {
            ethernet: Ethernet {
                destination: request.ethernet.source,
                source: GATEWAY_MAC,
                ..request.ethernet
            },
            operation: REPLY,
            sender_mac: GATEWAY_MAC,
            sender: GATEWAY_V4,
            target_mac: request.sender_mac,
            target: request.sender,
            ..*request
        });
    }
    // Probes and announcements of its own address.
    let of_itself =
        request.sender == [0; 4] || request.sender == request.target || request.operation == REPLY;
    Err(Drop::new(if of_itself {
        Reason::LINK_LOCAL_CHATTER
    } else {
        Reason::UNKNOWN_L3_TARGET_ADDRESS
    }))
}
