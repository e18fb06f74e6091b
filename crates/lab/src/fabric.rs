// SPDX-License-Identifier: Apache-2.0
//! The underlay's routes to pods: what a real fabric learns by BGP or from its cloud, it takes from the Node objects, or with
//! cluster pools from the ThalwegNodes. The router of a routed lab forwards by them; on a flat one the API server answers pods by them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::crd;
use futures::StreamExt as _;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::api::DynamicObject;
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource};
use netlink::{Netlink, ROUTE_PROTOCOL, Route};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::spec::Ipam;

/// What is known of a node.
#[derive(Debug, Default)]
struct Known {
    addresses: Vec<IpAddr>,
    /// Its pod networks, from its Node or its ThalwegNode.
    cidrs: Vec<IpNet>,
}

/// Keeps the underlay's routes to the nodes' pods right until the shutdown.
pub(crate) async fn run(client: Client, ipam: Ipam, mut netlink: Netlink, shutdown: CancellationToken) {
    let mut nodes: BTreeMap<String, Known> = BTreeMap::new();
    let events = watcher(Api::<Node>::all(client.clone()), watcher::Config::default()).default_backoff();
    let mut events = std::pin::pin!(events);
    let kind = GroupVersionKind::gvk(crd::GROUP, crd::VERSION, crd::NODE_KIND);
    let resource = ApiResource::from_gvk_with_plural(&kind, crd::NODE_PLURAL);
    let blocks: Api<DynamicObject> = Api::all_with(client, &resource);
    let blocks = watcher(blocks, watcher::Config::default()).default_backoff();
    let mut blocks = std::pin::pin!(blocks);
    loop {
        let whole = tokio::select! {
            () = shutdown.cancelled() => return,
            event = events.next() => match event {
                None => return,
                Some(Ok(event)) => take(&mut nodes, event, |node, known| {
                    known.addresses = addresses(node);
                    if ipam == Ipam::Kubernetes {
                        known.cidrs = pod_cidrs(node);
                    }
                }),
                Some(Err(error)) => {
                    warn!(%error, "fabric: cannot watch nodes");
                    false
                }
            },
            event = blocks.next(), if ipam == Ipam::ClusterPool => match event {
                None => return,
                Some(Ok(event)) => take(&mut nodes, event, |node, known| known.cidrs = granted(node)),
                // The definition comes a little later than the lab.
                Some(Err(error)) => {
                    debug!(%error, "fabric: cannot watch blocks");
                    false
                }
            },
        };
        if whole && let Err(error) = bring_about(&mut netlink, &nodes) {
            warn!(%error, "fabric: cannot set routes");
        }
    }
}

/// Takes an event in; returns whether `nodes` is now worth acting on rather than a part of a new list.
fn take<K>(
    nodes: &mut BTreeMap<String, Known>,
    event: watcher::Event<K>,
    learn: impl Fn(&K, &mut Known),
) -> bool
where
    K: Resource,
{
    let name = |node: &K| node.meta().name.clone().unwrap_or_default();
    match event {
        watcher::Event::Apply(node) => learn(&node, nodes.entry(name(&node)).or_default()),
        watcher::Event::InitApply(node) => {
            learn(&node, nodes.entry(name(&node)).or_default());
            return false;
        }
        watcher::Event::Delete(node) => drop(nodes.remove(&name(&node))),
        watcher::Event::Init => return false,
        watcher::Event::InitDone => {}
    }
    true
}

fn addresses(node: &Node) -> Vec<IpAddr> {
    let status = node.status.as_ref();
    let addresses = status.and_then(|status| status.addresses.as_ref());
    let internal = addresses.into_iter().flatten();
    internal
        .filter(|address| address.type_ == "InternalIP")
        .filter_map(|address| address.address.parse().ok())
        .collect()
}

fn pod_cidrs(node: &Node) -> Vec<IpNet> {
    let cidrs = node.spec.as_ref().and_then(|spec| spec.pod_cidrs.as_ref());
    cidrs
        .into_iter()
        .flatten()
        .filter_map(|cidr| cidr.parse().ok())
        .collect()
}

fn granted(node: &DynamicObject) -> Vec<IpNet> {
    let spec: crd::NodeSpec = serde_json::from_value(node.data["spec"].clone()).unwrap_or_default();
    let blocks = spec.pools.iter().flat_map(|pool| &pool.cidrs);
    blocks.filter_map(|block| block.cidr.parse().ok()).collect()
}

/// Routes to a node's pods through its address of the same family.
fn routes(known: &Known) -> impl Iterator<Item = Route> {
    known.cidrs.iter().filter_map(|cidr| {
        let gateway = known
            .addresses
            .iter()
            .find(|address| address.is_ipv4() == cidr.addr().is_ipv4())?;
        Some(Route {
            gateway: Some(*gateway),
            ..Route::to(*cidr)
        })
    })
}

/// A route that cannot be set, such as one through a node of another lab, keeps no other from being set.
fn bring_about(netlink: &mut Netlink, nodes: &BTreeMap<String, Known>) -> Result<(), netlink::Error> {
    let current = netlink.routes(Some(ROUTE_PROTOCOL))?;
    let is = |a: &Route, b: &Route| a.dst == b.dst && a.gateway == b.gateway;
    let wanted: Vec<Route> = nodes.values().flat_map(routes).collect();
    let wanted = || wanted.iter();
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
