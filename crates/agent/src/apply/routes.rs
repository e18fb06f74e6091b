// SPDX-License-Identifier: Apache-2.0
//! Routes to pod networks: from a plan into the kernel. The kernel is read each time and never remembered.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink::{Netlink, ROUTE_PROTOCOL, Route, TABLE_MAIN};
use routing::{Row, Way};
use state::Status;
use tracing::info;

use super::RouteStatus;

/// What a pass is given.
pub(super) struct Wanted<'a> {
    /// The plan.
    pub(super) rows: Vec<Row>,
    /// The MTU of routes through the tunnel to a node, where it is less than the device's.
    pub(super) mtu_to: &'a dyn Fn(IpAddr) -> Option<u32>,
    /// The index of the device that leads to the node's own pods.
    pub(super) host_link: u32,
    /// Whether the plan is complete, so that other routes of ours may go.
    pub(super) complete: bool,
    /// Addresses of the node's pods: a route to them stays even when the node's pod CIDR is another one by now.
    pub(super) in_use: &'a dyn Fn(&IpNet) -> bool,
}

/// The node's own pod networks as the routing table remembers them, for the time while the API is away.
pub(super) fn local_networks(netlink: &mut Netlink, host_link: u32) -> Result<Vec<IpNet>, netlink::Error> {
    let routes = netlink.routes(Some(ROUTE_PROTOCOL))?;
    Ok(routes
        .into_iter()
        .filter(|route| route.oif == Some(host_link) && route.table == TABLE_MAIN)
        .map(|route| route.dst)
        .collect())
}

/// Brings the kernel in line with the plan: removals first, each row for itself.
pub(super) fn reconcile(netlink: &mut Netlink, wanted: Wanted<'_>) -> Vec<RouteStatus> {
    let host_link = wanted.host_link;
    let routes: BTreeMap<IpNet, Route> = wanted
        .rows
        .iter()
        .filter_map(|row| route(row, host_link, wanted.mtu_to))
        .map(|route| (route.dst, route))
        .collect();
    let mut current = match netlink.routes(Some(ROUTE_PROTOCOL)) {
        Ok(current) => current,
        Err(error) => return failed(wanted.rows, &error),
    };
    // Those of other tables are not ways to pods.
    current.retain(|route| route.table == TABLE_MAIN);
    let stale = |route: &&Route| {
        let local_in_use = route.oif == Some(host_link) && (wanted.in_use)(&route.dst);
        !routes.contains_key(&route.dst) && wanted.complete && !local_in_use
    };
    let mut errors = BTreeMap::new();
    for route in current.iter().filter(stale) {
        match netlink.delete_route(route) {
            Ok(_) => info!(%route, "route removed"),
            Err(error) => drop(errors.insert(route.dst, error.to_string())),
        }
    }
    for route in routes
        .values()
        .filter(|route| !current.iter().any(|found| same(found, route)))
    {
        match netlink.replace_route(route) {
            Ok(()) => info!(%route, "route set"),
            Err(error) => drop(errors.insert(route.dst, error.to_string())),
        }
    }
    wanted.rows.into_iter().map(|row| status(row, &errors)).collect()
}

fn route(row: &Row, host_link: u32, mtu_to: &dyn Fn(IpAddr) -> Option<u32>) -> Option<Route> {
    let route = Route::to(row.destination);
    match &row.way {
        Way::Local { source } => Some(Route {
            oif: Some(host_link),
            src: *source,
            // IPv6 routes have no scope.
            scope_link: row.destination.addr().is_ipv4(),
            ..route
        }),
        Way::Tunnel { source, node } => Some(Route {
            oif: Some(host_link),
            src: *source,
            mtu: mtu_to(*node),
            scope_link: row.destination.addr().is_ipv4(),
            ..route
        }),
        Way::Direct { gateway, device, .. } => Some(Route {
            gateway: Some(*gateway),
            oif: Some(*device),
            ..route
        }),
        Way::Network | Way::Refused(_) => None,
    }
}

/// The kernel fills in metrics and scopes by itself.
fn same(found: &Route, wanted: &Route) -> bool {
    type Essence = (IpNet, Option<IpAddr>, Option<u32>, Option<IpAddr>, Option<u32>);
    let essence = |route: &Route| -> Essence { (route.dst, route.gateway, route.oif, route.src, route.mtu) };
    essence(found) == essence(wanted)
}

fn status(row: Row, errors: &BTreeMap<IpNet, String>) -> RouteStatus {
    let status = match (&row.way, errors.get(&row.destination)) {
        (Way::Refused(reason), _) => Status::Error(reason.to_string()),
        (_, Some(error)) => Status::Error(error.clone()),
        (_, None) => Status::Done,
    };
    RouteStatus { row, status }
}

fn failed(rows: Vec<Row>, error: &netlink::Error) -> Vec<RouteStatus> {
    let status = Status::Error(error.to_string());
    rows.into_iter()
        .map(|row| RouteStatus {
            row,
            status: status.clone(),
        })
        .collect()
}
