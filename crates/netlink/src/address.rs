// SPDX-License-Identifier: Apache-2.0
//! Addresses of links.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;

use crate::attributes::{Attributes, ip, u32_at};
use crate::error::absent_is_false;
use crate::{Error, Netlink, Request};

const HEADER: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const TENTATIVE: u32 = 0x40;
/// `RT_SCOPE_LINK`.
const SCOPE_LINK: u8 = 253;
/// `RT_SCOPE_UNIVERSE`.
const SCOPE_GLOBAL: u8 = 0;

/// An address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The link.
    pub ifindex: u32,
    /// The address with its prefix length.
    pub net: IpNet,
    /// Whether it is meaningful beyond its link.
    pub global: bool,
    /// Whether it is meaningful on its link only.
    pub link_local: bool,
    /// Whether duplicate address detection has not finished, so that it cannot be used yet.
    pub tentative: bool,
}

/// How to add an address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AddressFlags {
    /// Usable at once: no duplicate address detection (IPv6).
    pub nodad: bool,
}

impl Netlink {
    /// All addresses of the namespace, both families.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn addresses(&mut self) -> Result<Vec<Address>, Error> {
        let message = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.dump(Request::new("list addresses".to_owned(), 0, message), decode)
    }

    /// Gives a link an address; that it has it already is success.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add_address(&mut self, ifindex: u32, net: IpNet, flags: AddressFlags) -> Result<(), Error> {
        self.apply(&[Request::add_address(ifindex, net, flags)])
    }

    /// Takes an address from a link; `false` when it had none such.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_address(&mut self, ifindex: u32, net: IpNet) -> Result<bool, Error> {
        absent_is_false(self.apply(&[Request::delete_address(ifindex, net)]))
    }
}

fn decode(payload: &[u8]) -> Option<Address> {
    let [_family, prefix, flags, scope] = *payload.first_chunk::<4>()?;
    let (mut local, mut address, mut flags): (Option<IpAddr>, Option<IpAddr>, u32) =
        (None, None, u32::from(flags));
    for (kind, value) in Attributes(payload.get(HEADER..)?) {
        match kind {
            IFA_LOCAL => local = ip(value),
            IFA_ADDRESS => address = ip(value),
            IFA_FLAGS => flags = u32_at(value, 0)?,
            _ => {}
        }
    }
    Some(Address {
        ifindex: u32_at(payload, 4)?,
        // On a point-to-point link IFA_ADDRESS is the other end.
        net: IpNet::new(local.or(address)?, prefix).ok()?,
        global: scope == SCOPE_GLOBAL,
        link_local: scope == SCOPE_LINK,
        tentative: flags & TENTATIVE != 0,
    })
}
