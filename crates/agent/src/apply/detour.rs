// SPDX-License-Identifier: Apache-2.0
//! The way back to our programs for packets that take the host's stack and are to be masqueraded: by their mark, a rule leads
//! them to the device where we see them once more.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink::{Netlink, ROUTE_PROTOCOL, Route, Rule};
use nix::errno::Errno;

use datapath::common::packet::{DETOUR_MARK, DETOUR_MASK};

/// Before the rules of other networks, which begin at 100 or later, and behind that of local addresses.
const PRIORITY: u32 = 77;
/// The table that the rule leads to.
const DETOUR_TABLE: u32 = 0x7477;

/// Whether a rule is ours.
#[must_use]
pub fn is_detour(rule: &Rule) -> bool {
    rule.table == DETOUR_TABLE && rule.mark == Some((DETOUR_MARK, DETOUR_MASK))
}

/// Makes rules and routes through `host_link` for both families, where they are missing.
pub(super) fn make(netlink: &mut Netlink, host_link: u32) -> Result<(), netlink::Error> {
    let (rules, routes) = (netlink.rules()?, netlink.routes(Some(ROUTE_PROTOCOL))?);
    for ipv6 in [false, true] {
        // The route first: without one the packets would go on to the main table.
        let wanted = route(ipv6, host_link);
        let is_there =
            |found: &Route| (found.dst, found.table, found.oif) == (wanted.dst, wanted.table, wanted.oif);
        if !routes.iter().any(is_there) {
            absent_family_is_well(ipv6, netlink.replace_route(&wanted))?;
        }
        if !rules.iter().any(|rule| is_detour(rule) && rule.ipv6 == ipv6) {
            absent_family_is_well(ipv6, netlink.add_rule(&rule(ipv6)))?;
        }
    }
    Ok(())
}

/// Removes what [`make`] has made.
pub(super) fn remove(netlink: &mut Netlink) -> Result<(), netlink::Error> {
    for rule in netlink.rules()?.iter().filter(|rule| is_detour(rule)) {
        netlink.delete_rule(rule)?;
    }
    let routes = netlink.routes(Some(ROUTE_PROTOCOL))?;
    for route in routes.iter().filter(|route| route.table == DETOUR_TABLE) {
        netlink.delete_route(route)?;
    }
    Ok(())
}

fn rule(ipv6: bool) -> Rule {
    Rule {
        ipv6,
        priority: PRIORITY,
        src: None,
        dst: None,
        mark: Some((DETOUR_MARK, DETOUR_MASK)),
        iif: None,
        oif: None,
        table: DETOUR_TABLE,
    }
}

fn route(ipv6: bool, host_link: u32) -> Route {
    let everywhere = if ipv6 {
        IpNet::V6(Ipv6Net::default())
    } else {
        IpNet::V4(Ipv4Net::default())
    };
    Route {
        oif: Some(host_link),
        scope_link: !ipv6,
        table: DETOUR_TABLE,
        ..Route::to(everywhere)
    }
}

/// Where the kernel has no IPv6, no packet of it is to be led anywhere.
fn absent_family_is_well(ipv6: bool, result: Result<(), netlink::Error>) -> Result<(), netlink::Error> {
    const ABSENT: [Errno; 3] = [Errno::EAFNOSUPPORT, Errno::EOPNOTSUPP, Errno::EACCES];
    match result {
        Err(error) if ipv6 && error.errno().is_some_and(|errno| ABSENT.contains(&errno)) => Ok(()),
        other => other,
    }
}
