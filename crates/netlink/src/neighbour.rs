// SPDX-License-Identifier: Apache-2.0
//! Neighbours (ARP and neighbour discovery entries).

use std::net::IpAddr;

use model::Mac;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::NeighbourMessage;

use crate::attributes::{Attributes, ip, u16_at, u32_at};
use crate::{Error, Netlink, Request};

const HEADER: usize = 12;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;

/// A neighbour on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// The link.
    pub ifindex: u32,
    /// Its address.
    pub ip: IpAddr,
    /// Its hardware address, once resolved.
    pub mac: Option<Mac>,
    /// Whether it was set by hand and is never resolved nor aged.
    pub permanent: bool,
}

impl Netlink {
    /// All neighbours of the namespace, both families.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn neighbours(&mut self) -> Result<Vec<Neighbour>, Error> {
        let message = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        self.dump(Request::new("list neighbours".to_owned(), 0, message), decode)
    }

    /// Adds or replaces a neighbour.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn replace_neighbour(
        &mut self,
        ifindex: u32,
        ip: IpAddr,
        mac: Mac,
        permanent: bool,
    ) -> Result<(), Error> {
        self.apply(&[Request::replace_neighbour(ifindex, ip, mac, permanent)])
    }
}

fn decode(payload: &[u8]) -> Option<Neighbour> {
    let (mut address, mut mac) = (None, None);
    for (kind, value) in Attributes(payload.get(HEADER..)?) {
        match kind {
            NDA_DST => address = ip(value),
            NDA_LLADDR => mac = <[u8; 6]>::try_from(value).ok().map(Mac),
            _ => {}
        }
    }
    Some(Neighbour {
        ifindex: u32_at(payload, 4)?,
        ip: address?,
        mac,
        permanent: u16_at(payload, 8)? & NUD_PERMANENT != 0,
    })
}
