// SPDX-License-Identifier: Apache-2.0
//! From what we have to what is shown.

use std::net::IpAddr;

use api::agent::{
    AllocationView, ConntrackList, ConntrackSide, ConntrackView, EndpointView, IpamView, MapRowView, MapView,
    NodeView, PoolView, RouteView, RowState,
};
use datapath::common::ct::{ORIGINAL, REPLY};
use datapath::{Connection, MapError, MapInfo, MapRow, Timeouts};
use ipam::PoolUsage;
use model::{Endpoint, Node};
use routing::Way;
use state::{PodKey, Status};

use crate::apply::{RouteStatus, View};
use crate::events::protocol_name;
use crate::observe::Observed;

pub(super) fn endpoints(observed: &Observed) -> Vec<EndpointView> {
    let (view, pods) = (observed.view.borrow().clone(), observed.pods.snapshot());
    let one = |endpoint: &Endpoint| {
        let key = PodKey {
            namespace: endpoint.pod.namespace.clone(),
            name: endpoint.pod.name.clone(),
        };
        EndpointView {
            id: endpoint.id.clone(),
            pod: endpoint.pod.clone(),
            labels: pods.get(&key).map(|pod| pod.labels.clone()).unwrap_or_default(),
            ips: endpoint.ips.clone(),
            host_ifname: endpoint.host_ifname.clone(),
            ifindex: endpoint.ifindex,
            mac: endpoint.mac,
            state: view
                .endpoint_errors
                .get(&endpoint.id)
                .cloned()
                .map_or(RowState::Done, RowState::Error),
        }
    };
    observed.endpoints.snapshot().iter().map(one).collect()
}

pub(super) fn nodes(observed: &Observed) -> Vec<NodeView> {
    let view = observed.view.borrow().clone();
    let one = |node: &Node| NodeView {
        name: node.name.clone(),
        addresses: node.addresses.clone(),
        pod_cidrs: node.pod_cidrs.clone(),
        local: node.name == observed.config.node_name,
        routes: view
            .routes
            .iter()
            .filter(|route| route.row.node == node.name)
            .map(route)
            .collect(),
    };
    observed.nodes.snapshot().iter().map(one).collect()
}

fn route(route: &RouteStatus) -> RouteView {
    let (via, device) = match &route.row.way {
        Way::Local { .. } => (None, Some(crate::apply::HOST_LINK.to_owned())),
        Way::Direct {
            gateway, device_name, ..
        } => (Some(*gateway), Some(device_name.clone())),
        Way::Tunnel { node, .. } => (Some(*node), Some("tunnel".to_owned())),
        Way::Network | Way::Refused(_) => (None, None),
    };
    RouteView {
        destination: route.row.destination,
        via,
        device,
        state: row_state(&route.status),
    }
}

fn row_state(status: &Status) -> RowState {
    match status {
        Status::Pending => RowState::Pending,
        Status::Done => RowState::Done,
        Status::Error(reason) => RowState::Error(reason.clone()),
    }
}

pub(super) fn ipam(observed: &Observed) -> IpamView {
    let mut allocations: Vec<AllocationView> = Vec::new();
    for endpoint in observed.endpoints.snapshot().iter() {
        let allocation = |ip: &IpAddr| AllocationView {
            ip: *ip,
            endpoint: endpoint.id.clone(),
            pod: endpoint.pod.clone(),
        };
        allocations.extend(endpoint.ips.iter().map(allocation));
    }
    allocations.sort_by_key(|allocation| allocation.ip);
    IpamView {
        pools: pools(&observed.view.borrow()),
        allocations,
    }
}

pub(super) fn pools(view: &View) -> Vec<PoolView> {
    let saturate = |count: u128| u64::try_from(count).unwrap_or(u64::MAX);
    let one = |pool: &PoolUsage| PoolView {
        cidr: pool.cidr,
        family: pool.family,
        capacity: saturate(pool.capacity),
        used: pool.used,
        free: saturate(pool.free()),
        quarantined: pool.resting,
    };
    view.pools.iter().map(one).collect()
}

pub(super) fn map(map: &MapInfo) -> MapView {
    MapView {
        name: map.name.to_owned(),
        kind: map.kind.to_owned(),
        key_size: map.key_size,
        value_size: map.value_size,
        max_entries: map.max_entries,
        entries: map.entries,
    }
}

pub(super) fn map_row(row: MapRow) -> MapRowView {
    MapRowView {
        key: row.key.into(),
        value: row.value.into(),
    }
}

pub(super) fn conntrack(
    observed: &Observed,
    ip: Option<IpAddr>,
    limit: usize,
) -> Result<ConntrackList, MapError> {
    let timeouts = observed
        .timeouts
        .under_pressure(observed.view.borrow().conntrack.pressure);
    let mut list = ConntrackList::default();
    observed.conntrack.for_each(|connection| {
        let ends = [
            connection.tuple.source.to_ip(),
            connection.tuple.destination.to_ip(),
        ];
        if ip.is_some_and(|ip| !ends.contains(&ip)) {
            return;
        }
        if list.entries.len() < limit {
            list.entries.push(connection_view(&connection, &timeouts));
        } else {
            list.truncated = true;
        }
    })?;
    Ok(list)
}

fn connection_view(connection: &Connection, timeouts: &Timeouts) -> ConntrackView {
    let Connection {
        tuple,
        entry,
        idle,
        masqueraded,
        ..
    } = connection;
    let (key, _) = tuple.key();
    let side = |leg: u8| {
        let leg = usize::from(leg);
        ConntrackSide {
            packets: entry.packets[leg],
            bytes: entry.bytes[leg],
        }
    };
    ConntrackView {
        protocol: protocol_name(tuple.proto),
        source: tuple.source.to_ip(),
        source_port: tuple.source_port.get(),
        destination: tuple.destination.to_ip(),
        destination_port: tuple.destination_port.get(),
        masqueraded: *masqueraded,
        state: entry.state.name().to_owned(),
        idle_seconds: idle.as_secs(),
        expires_in_seconds: timeouts.of(&key, entry).saturating_sub(*idle).as_secs(),
        forward: side(ORIGINAL),
        reply: side(REPLY),
    }
}
