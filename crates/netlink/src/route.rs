// SPDX-License-Identifier: Apache-2.0
//! Unicast routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::route::{RouteMessage, RouteProtocol, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::attributes::{Attributes, ip, u32_at};
use crate::error::absent_is_false;
use crate::{Error, Netlink, Request};

/// `RT_TABLE_MAIN`.
pub const TABLE_MAIN: u32 = 254;
/// Marks the routes that are ours ('T').
pub const ROUTE_PROTOCOL: u8 = 84;

const HEADER: usize = 12;
const AF_INET6: u8 = 10;
const SCOPE_LINK: u8 = 253;
const TYPE_UNICAST: u8 = 1;
const FLAG_ONLINK: u32 = 4;
const FLAG_CLONED: u32 = 0x200;
mod rta {
    pub(super) const DST: u16 = 1;
    pub(super) const OIF: u16 = 4;
    pub(super) const GATEWAY: u16 = 5;
    pub(super) const PRIORITY: u16 = 6;
    pub(super) const PREFSRC: u16 = 7;
    pub(super) const METRICS: u16 = 8;
    pub(super) const TABLE: u16 = 15;
    pub(super) const METRIC_MTU: u16 = 2;
}

/// A unicast route with at most one next hop.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Where to.
    pub dst: IpNet,
    /// Through which neighbour.
    pub gateway: Option<IpAddr>,
    /// Through which link.
    pub oif: Option<u32>,
    /// The source address that this host's own packets take.
    pub src: Option<IpAddr>,
    /// Who made it.
    pub protocol: u8,
    /// Whether the destination is on the link itself.
    pub scope_link: bool,
    /// Whether the gateway is reachable on the link although no route says so.
    pub onlink: bool,
    /// The path's MTU.
    pub mtu: Option<u32>,
    /// The table it is in.
    pub table: u32,
    /// Its metric; the kernel gives 1024 to IPv6 routes without.
    pub metric: Option<u32>,
}

impl Route {
    /// A route in the main table with our protocol and nothing but a destination.
    #[must_use]
    pub fn to(dst: IpNet) -> Self {
        Self {
            dst,
            gateway: None,
            oif: None,
            src: None,
            protocol: ROUTE_PROTOCOL,
            scope_link: false,
            onlink: false,
            mtu: None,
            table: TABLE_MAIN,
            metric: None,
        }
    }
}

impl std::fmt::Display for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.dst)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        if let Some(oif) = self.oif {
            write!(f, " on link {oif}")?;
        }
        if self.table != TABLE_MAIN {
            write!(f, " in table {}", self.table)?;
        }
        Ok(())
    }
}

impl Netlink {
    /// Unicast routes of both families in all tables, if given only those of one protocol. The kernel filters.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn routes(&mut self, protocol: Option<u8>) -> Result<Vec<Route>, Error> {
        let mut routes = self.routes_of(AddressFamily::Inet, protocol)?;
        routes.extend(self.routes_of(AddressFamily::Inet6, protocol)?);
        Ok(routes)
    }

    fn routes_of(&mut self, family: AddressFamily, protocol: Option<u8>) -> Result<Vec<Route>, Error> {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.header.kind = RouteType::Unicast;
        message.header.protocol = RouteProtocol::from(protocol.unwrap_or(0));
        let request = Request::new(
            "list routes".to_owned(),
            0,
            RouteNetlinkMessage::GetRoute(message),
        );
        self.dump(request, |payload| {
            decode(payload).filter(|route| protocol.is_none_or(|wanted| route.protocol == wanted))
        })
    }

    /// Adds a route, or replaces the one with the same destination, table and metric.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn replace_route(&mut self, route: &Route) -> Result<(), Error> {
        self.apply(&[Request::replace_route(route)])
    }

    /// Deletes a route; `false` when there was none such.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_route(&mut self, route: &Route) -> Result<bool, Error> {
        absent_is_false(self.apply(&[Request::delete_route(route)]))
    }
}

fn decode(payload: &[u8]) -> Option<Route> {
    let [family, prefix, _source_prefix, _tos, table, protocol, scope, kind] = *payload.first_chunk::<8>()?;
    let flags = u32_at(payload, 8)?;
    if kind != TYPE_UNICAST || flags & FLAG_CLONED != 0 {
        return None;
    }
    let mut dst = match family {
        AF_INET6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    let mut route = Route::to(IpNet::new(dst, prefix).ok()?);
    (route.protocol, route.table) = (protocol, u32::from(table));
    (route.scope_link, route.onlink) = (scope == SCOPE_LINK, flags & FLAG_ONLINK != 0);
    for (kind, value) in Attributes(payload.get(HEADER..)?) {
        match kind {
            rta::DST => dst = ip(value)?,
            rta::OIF => route.oif = u32_at(value, 0),
            rta::GATEWAY => route.gateway = ip(value),
            rta::PRIORITY => route.metric = u32_at(value, 0),
            rta::PREFSRC => route.src = ip(value),
            rta::TABLE => route.table = u32_at(value, 0)?,
            rta::METRICS => {
                let mtu = Attributes(value).find(|(kind, _)| *kind == rta::METRIC_MTU);
                route.mtu = mtu.and_then(|(_, value)| u32_at(value, 0));
            }
            _ => {}
        }
    }
    route.dst = IpNet::new(dst, prefix).ok()?;
    Some(route)
}
