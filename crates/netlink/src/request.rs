// SPDX-License-Identifier: Apache-2.0
//! Requests as values, so that several can go to the kernel together.

use ipnet::IpNet;
use model::Mac;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressFlags as Flags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteProtocol,
    RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::net::IpAddr;

use crate::{AddressFlags, Route};

/// One request to the kernel, with the words that an error about it uses.
#[derive(Debug, Clone)]
pub struct Request {
    pub(crate) message: RouteNetlinkMessage,
    pub(crate) flags: u16,
    pub(crate) operation: String,
}

pub(crate) fn family(ip: IpAddr) -> AddressFamily {
    match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

impl Request {
    pub(crate) fn new(operation: String, flags: u16, message: RouteNetlinkMessage) -> Self {
        Self {
            message,
            flags,
            operation,
        }
    }

    /// A change of the link with this index.
    pub(crate) fn set_link(operation: String, index: u32, attributes: Vec<LinkAttribute>) -> Self {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes = attributes;
        Self::new(operation, 0, RouteNetlinkMessage::SetLink(link))
    }

    fn set_link_flag(operation: String, index: u32, flag: LinkFlags, on: bool) -> Self {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.change_mask = flag;
        if on {
            link.header.flags = flag;
        }
        Self::new(operation, 0, RouteNetlinkMessage::SetLink(link))
    }

    /// Sets a link up.
    #[must_use]
    pub fn set_up(index: u32) -> Self {
        Self::set_link_flag(format!("set link {index} up"), index, LinkFlags::Up, true)
    }

    /// Sets a link down.
    #[must_use]
    pub fn set_down(index: u32) -> Self {
        Self::set_link_flag(format!("set link {index} down"), index, LinkFlags::Up, false)
    }

    /// Switches address resolution off on a link.
    #[must_use]
    pub fn set_noarp(index: u32) -> Self {
        Self::set_link_flag(format!("set link {index} noarp"), index, LinkFlags::Noarp, true)
    }

    /// Sets a link's alias (at most 255 bytes); empty removes it.
    #[must_use]
    pub fn set_alias(index: u32, alias: &str) -> Self {
        let attributes = vec![LinkAttribute::IfAlias(alias.to_owned())];
        Self::set_link(format!("set alias of link {index}"), index, attributes)
    }

    /// Sets a link's MTU.
    #[must_use]
    pub fn set_mtu(index: u32, mtu: u32) -> Self {
        Self::set_link(
            format!("set MTU of link {index} to {mtu}"),
            index,
            vec![LinkAttribute::Mtu(mtu)],
        )
    }

    /// Sets a link's hardware address.
    #[must_use]
    pub fn set_mac(index: u32, mac: Mac) -> Self {
        let attributes = vec![LinkAttribute::Address(mac.0.to_vec())];
        Self::set_link(format!("set address of link {index} to {mac}"), index, attributes)
    }

    /// Makes a link a port of a bridge, or with 0 of none.
    #[must_use]
    pub fn set_master(index: u32, master: u32) -> Self {
        let attributes = vec![LinkAttribute::Controller(master)];
        Self::set_link(
            format!("set master of link {index} to {master}"),
            index,
            attributes,
        )
    }

    /// Renames a link, which must be down on kernels before 6.2.
    #[must_use]
    pub fn rename(index: u32, name: &str) -> Self {
        let attributes = vec![LinkAttribute::IfName(name.to_owned())];
        Self::set_link(format!("rename link {index} to {name}"), index, attributes)
    }

    /// Keeps the kernel from giving a link an IPv6 link-local address.
    #[must_use]
    pub fn no_link_local(index: u32) -> Self {
        let spec = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        let attributes = vec![LinkAttribute::AfSpecUnspec(vec![spec])];
        Self::set_link(
            format!("switch IPv6 link-local off on link {index}"),
            index,
            attributes,
        )
    }

    /// Gives a link an address; that it has it already is success.
    #[must_use]
    pub fn add_address(ifindex: u32, net: IpNet, flags: AddressFlags) -> Self {
        let mut message = address_message(ifindex, net);
        if flags.nodad && net.addr().is_ipv6() {
            message.attributes.push(AddressAttribute::Flags(Flags::Nodad));
        }
        let operation = format!("add address {net} to link {ifindex}");
        Self::new(
            operation,
            NLM_F_CREATE | NLM_F_REPLACE,
            RouteNetlinkMessage::NewAddress(message),
        )
    }

    /// Takes an address from a link.
    #[must_use]
    pub fn delete_address(ifindex: u32, net: IpNet) -> Self {
        let message = address_message(ifindex, net);
        let operation = format!("delete address {net} from link {ifindex}");
        Self::new(operation, 0, RouteNetlinkMessage::DelAddress(message))
    }

    /// Adds a route, or replaces the one with the same destination, table and metric.
    #[must_use]
    pub fn replace_route(route: &Route) -> Self {
        let message = RouteNetlinkMessage::NewRoute(route_message(route));
        Self::new(
            format!("set route {route}"),
            NLM_F_CREATE | NLM_F_REPLACE,
            message,
        )
    }

    /// Deletes a route.
    #[must_use]
    pub fn delete_route(route: &Route) -> Self {
        let message = RouteNetlinkMessage::DelRoute(route_message(route));
        Self::new(format!("delete route {route}"), 0, message)
    }

    /// Adds or replaces a neighbour; a permanent one is never resolved nor aged.
    #[must_use]
    pub fn replace_neighbour(ifindex: u32, ip: IpAddr, mac: Mac, permanent: bool) -> Self {
        let mut message = NeighbourMessage::default();
        message.header.family = family(ip);
        message.header.ifindex = ifindex;
        message.header.state = if permanent {
            NeighbourState::Permanent
        } else {
            NeighbourState::Reachable
        };
        let destination = match ip {
            IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
            IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
        };
        message.attributes = vec![
            NeighbourAttribute::Destination(destination),
            NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()),
        ];
        let operation = format!("set neighbour {ip} {mac} on link {ifindex}");
        Self::new(
            operation,
            NLM_F_CREATE | NLM_F_REPLACE,
            RouteNetlinkMessage::NewNeighbour(message),
        )
    }
}

fn address_message(ifindex: u32, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(net.addr());
    message.header.prefix_len = net.prefix_len();
    message.header.index = ifindex;
    message.header.scope = match net.addr() {
        IpAddr::V6(ip) if ip.is_unicast_link_local() => AddressScope::Link,
        ip if ip.is_loopback() => AddressScope::Host,
        IpAddr::V4(_) | IpAddr::V6(_) => AddressScope::Universe,
    };
    message.attributes = vec![
        AddressAttribute::Local(net.addr()),
        AddressAttribute::Address(net.addr()),
    ];
    message
}

fn route_message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = family(route.dst.addr());
    header.destination_prefix_length = route.dst.prefix_len();
    header.table = u8::try_from(route.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    header.protocol = RouteProtocol::from(route.protocol);
    header.scope = if route.scope_link {
        RouteScope::Link
    } else {
        RouteScope::Universe
    };
    header.kind = RouteType::Unicast;
    if route.onlink {
        header.flags = RouteFlags::Onlink;
    }
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Destination(RouteAddress::from(
        route.dst.network(),
    )));
    attributes.push(RouteAttribute::Table(route.table));
    attributes.extend(
        route
            .gateway
            .map(|ip| RouteAttribute::Gateway(RouteAddress::from(ip))),
    );
    attributes.extend(route.oif.map(RouteAttribute::Oif));
    attributes.extend(
        route
            .src
            .map(|ip| RouteAttribute::PrefSource(RouteAddress::from(ip))),
    );
    attributes.extend(route.metric.map(RouteAttribute::Priority));
    attributes.extend(
        route
            .mtu
            .map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])),
    );
    message
}
