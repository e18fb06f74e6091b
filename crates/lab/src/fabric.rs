// SPDX-License-Identifier: Apache-2.0
//! The underlay's routes to pods: what a real fabric learns by BGP or from its cloud, it takes from the Node objects. The
//! router of a routed lab forwards by them; on a flat one the API server answers pods by them.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use netlink::{Netlink, ROUTE_PROTOCOL, Route};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Keeps the underlay's routes to the nodes' pod CIDRs right until the shutdown.
pub(crate) async fn run(client: Client, mut netlink: Netlink, shutdown: CancellationToken) {
    let mut nodes: BTreeMap<String, Vec<Route>> = BTreeMap::new();
    let events = watcher(Api::<Node>::all(client), watcher::Config::default()).default_backoff();
    let mut events = std::pin::pin!(events);
    loop {
        let event = tokio::select! {
            () = shutdown.cancelled() => return,
            event = events.next() => event,
        };
        match event {
            None => return,
            Some(Err(error)) => {
                warn!(%error, "fabric: cannot watch nodes");
                continue;
            }
            Some(Ok(event)) => {
                if !take(&mut nodes, event) {
                    continue;
                }
            }
        }
        if let Err(error) = bring_about(&mut netlink, &nodes) {
            warn!(%error, "fabric: cannot set routes");
        }
    }
}

/// Takes an event in; returns whether `nodes` is now the whole truth rather than a part of a new list.
fn take(nodes: &mut BTreeMap<String, Vec<Route>>, event: watcher::Event<Node>) -> bool {
    match event {
        watcher::Event::Apply(node) => {
            nodes.insert(node.metadata.name.clone().unwrap_or_default(), routes(&node));
            true
        }
        watcher::Event::Delete(node) => {
            nodes.remove(&node.metadata.name.unwrap_or_default());
            true
        }
        watcher::Event::Init => {
            nodes.clear();
            false
        }
        watcher::Event::InitApply(node) => {
            nodes.insert(node.metadata.name.clone().unwrap_or_default(), routes(&node));
            false
        }
        watcher::Event::InitDone => true,
    }
}

/// Routes to a node's pod CIDRs through its address of the same family.
fn routes(node: &Node) -> Vec<Route> {
    let spec = node.spec.as_ref();
    let cidrs = spec.and_then(|spec| spec.pod_cidrs.clone()).unwrap_or_default();
    let addresses = node
        .status
        .as_ref()
        .and_then(|status| status.addresses.clone())
        .unwrap_or_default();
    let addresses: Vec<std::net::IpAddr> = addresses
        .iter()
        .filter(|address| address.type_ == "InternalIP")
        .filter_map(|address| address.address.parse().ok())
        .collect();
    let route = |cidr: IpNet| {
        let gateway = *addresses
            .iter()
            .find(|address| address.is_ipv4() == cidr.addr().is_ipv4())?;
        Some(Route {
            gateway: Some(gateway),
            ..Route::to(cidr)
        })
    };
    cidrs
        .iter()
        .filter_map(|cidr| route(cidr.parse().ok()?))
        .collect()
}

/// A route that cannot be set, such as one through a node of another lab, keeps no other from being set.
fn bring_about(netlink: &mut Netlink, nodes: &BTreeMap<String, Vec<Route>>) -> Result<(), netlink::Error> {
    let current = netlink.routes(Some(ROUTE_PROTOCOL))?;
    let is = |a: &Route, b: &Route| a.dst == b.dst && a.gateway == b.gateway;
    let wanted = || nodes.values().flatten();
    let mut result = Ok(());
    for stray in current
        .iter()
        .filter(|route| !wanted().any(|wanted| is(wanted, route)))
    {
        let deleted = netlink.delete_route(stray).map(drop);
        result = result.and(deleted);
    }
    for missing in wanted().filter(|wanted| !current.iter().any(|route| is(wanted, route))) {
        let set = netlink.replace_route(missing);
        if set.is_ok() {
            info!(route = %missing, "fabric: learnt a route");
        }
        result = result.and(set);
    }
    result
}
