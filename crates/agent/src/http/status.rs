// SPDX-License-Identifier: Apache-2.0
//! `GET /v1/status`: the agent's state on one screen.

use std::time::{Instant, SystemTime};

use api::agent::{
    ConntrackSummary, DatapathView, DropView, EndpointSummary, EventSummary, KubernetesView, LimitView,
    MasqueradeSummary, ProgramView, Status, TableView,
};
use api::config::{RoutingMode, TunnelProtocol};
use axum::Json;
use axum::extract::State;
use datapath::common::{Reason, maps};
use datapath::{CounterRow, Masquerade, ProgramInfo};
use state::{Row, Table};

use super::{Answer, Failure, Site, ask, health, services, views};
use crate::apply::View;
use crate::observe::{Observed, resident_bytes};

pub(super) async fn get(State(site): State<Site>) -> Answer<Status> {
    let observed = &site.observed;
    let programs = ask(observed, datapath::Datapath::programs).await?;
    let view = observed.view.borrow().clone();
    let counters = observed
        .counters
        .rows()
        .map_err(|error| Failure::internal(&error))?;
    Ok(Json(status(observed, &view, &counters, programs)))
}

fn status(observed: &Observed, view: &View, counters: &[CounterRow], programs: Vec<ProgramInfo>) -> Status {
    let (config, readiness) = (&observed.config, observed.readiness.borrow().clone());
    let milliseconds = |after: std::time::Duration| u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node: config.node_name.clone(),
        lab: config.lab.clone(),
        pid: std::process::id(),
        uptime_seconds: observed.started.elapsed().as_secs(),
        resident_bytes: resident_bytes().unwrap_or_default(),
        ready_after_milliseconds: readiness.after.map(milliseconds),
        ready: readiness.is_ready(),
        conditions: readiness.conditions,
        kernel: observed.features.kernel.clone(),
        features: if observed.features.tcx {
            vec!["tcx".to_owned()]
        } else {
            Vec::new()
        },
        routing_mode: match config.routing_mode {
            RoutingMode::Native => "native".to_owned(),
            RoutingMode::Tunnel => match config.tunnel.protocol {
                TunnelProtocol::Vxlan => "vxlan".to_owned(),
                TunnelProtocol::Geneve => "geneve".to_owned(),
            },
        },
        mtu: view.mtu,
        kubernetes: kubernetes(observed),
        datapath: datapath_view(observed, view, programs),
        endpoints: EndpointSummary {
            total: observed.endpoints.snapshot().len(),
            errors: view.endpoint_errors.len(),
        },
        ipam: views::pools(view),
        conntrack: conntrack(observed, view),
        masquerade: view.masquerade.map(|on| masquerade(&on, view, counters)),
        services: view.services.as_ref().map(services::summary),
        health: observed
            .health
            .as_ref()
            .map(|health| health::summary(health, Instant::now())),
        drops: packets(
            counters
                .iter()
                .filter(|row| row.reason.is_drop() && row.packets > 0),
        ),
        events: EventSummary {
            seen: observed.events.seen(),
            lost: observed.counters.events_lost().unwrap_or_default(),
        },
        forwarded: packets(counters.iter().filter(|row| row.reason == Reason::FORWARDED)),
        limits: limits(observed, view),
        tables: tables(observed, view),
    }
}

fn kubernetes(observed: &Observed) -> KubernetesView {
    let watches: Vec<_> = observed
        .watches
        .iter()
        .map(|watch| watch.borrow().clone())
        .collect();
    let last_error = watches
        .iter()
        .filter_map(|watch| watch.last_error.as_ref())
        .max_by_key(|(when, _)| *when);
    let ago = |when: SystemTime| {
        SystemTime::now()
            .duration_since(when)
            .unwrap_or_default()
            .as_secs()
    };
    let skipped = watches.iter().flat_map(|watch| {
        watch
            .skipped
            .iter()
            .map(|(name, reason)| format!("{} {name}: {reason}", watch.resource))
    });
    KubernetesView {
        connected: watches.iter().all(|watch| watch.connected),
        server: observed.api_server.clone(),
        last_error: last_error.map(|(_, text)| text.clone()),
        last_error_seconds_ago: last_error.map(|(when, _)| ago(*when)),
        skipped_objects: skipped.collect(),
    }
}

fn datapath_view(observed: &Observed, view: &View, programs: Vec<ProgramInfo>) -> DatapathView {
    let program = |program: ProgramInfo| ProgramView {
        name: program.name,
        id: program.id,
        tag: program.tag,
        run_count: program.run_count,
        run_time_ns: program.run_time_ns,
        instructions: program.instructions,
    };
    DatapathView {
        programs: programs.into_iter().map(program).collect(),
        devices: view.devices.clone(),
        attach: if observed.features.tcx { "tcx" } else { "clsact" }.to_owned(),
    }
}

fn conntrack(observed: &Observed, view: &View) -> ConntrackSummary {
    let (entries, max) = (
        count(view.conntrack.entries),
        u64::from(observed.conntrack.max_entries()),
    );
    let pressure = (entries.saturating_mul(100) / max.max(1)).min(100);
    ConntrackSummary {
        entries,
        max,
        pressure: u8::try_from(pressure).unwrap_or(100),
    }
}

fn masquerade(on: &Masquerade, view: &View, counters: &[CounterRow]) -> MasqueradeSummary {
    let refused = |row: &&CounterRow| row.reason == Reason::NO_MAPPING_FOR_NAT_MASQUERADE;
    MasqueradeSummary {
        addresses: on.addresses.into_iter().flatten().collect(),
        ports: format!("{}-{}", on.ports.first, on.ports.last),
        ports_max: on.ports.count().into(),
        ports_busiest: count(view.conntrack.nat.busiest),
        connections: count(view.conntrack.nat.entries),
        refused: counters.iter().filter(refused).map(|row| row.packets).sum(),
    }
}

fn packets<'a>(rows: impl Iterator<Item = &'a CounterRow>) -> Vec<DropView> {
    let one = |row: &CounterRow| DropView {
        reason: row.reason.to_string(),
        direction: row.direction.to_string(),
        packets: row.packets,
        bytes: row.bytes,
    };
    rows.map(one).collect()
}

fn limits(observed: &Observed, view: &View) -> Vec<LimitView> {
    let limit = |name: &str, used: u64, max: u64| LimitView {
        name: name.to_owned(),
        used,
        max,
    };
    let addresses: usize = observed
        .endpoints
        .snapshot()
        .iter()
        .map(|endpoint| endpoint.ips.len())
        .sum();
    let mut limits = vec![
        limit(
            "conntrack",
            count(view.conntrack.entries),
            observed.conntrack.max_entries().into(),
        ),
        limit(
            "map endpoints",
            count(addresses),
            maps::ENDPOINTS.max_entries.into(),
        ),
    ];
    if let Some(on) = view.masquerade {
        let (used, max) = (count(view.conntrack.nat.busiest), on.ports.count().into());
        limits.push(limit("ports to one remote", used, max));
    }
    if let Some(services) = view.services.as_ref().map(services::summary) {
        limits.push(limit("map services", services.frontends, services.frontends_max));
        limits.push(limit("map backends", services.backends, services.backends_max));
    }
    let pools = views::pools(view).into_iter();
    limits.extend(pools.map(|pool| limit(&format!("pool {}", pool.cidr), pool.used, pool.capacity)));
    limits
}

fn tables(observed: &Observed, view: &View) -> Vec<TableView> {
    let failed = view
        .routes
        .iter()
        .filter(|route| matches!(route.status, state::Status::Error(_)))
        .count();
    let mut tables = vec![
        table(&observed.nodes, failed),
        table(&observed.pods, 0),
        table(&observed.endpoints, view.endpoint_errors.len()),
    ];
    tables.extend(observed.health.as_ref().map(|health| table(&health.peers, 0)));
    tables
}

fn table<R: Row>(table: &Table<R>, errors: usize) -> TableView {
    let snapshot = table.snapshot();
    TableView {
        name: table.name().to_owned(),
        rows: snapshot.len(),
        revision: snapshot.revision(),
        in_sync: snapshot.in_sync(),
        errors,
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
