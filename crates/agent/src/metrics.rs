// SPDX-License-Identifier: Apache-2.0
//! What `/metrics` says. Most of it is read where it is kept at the moment of asking; there is no second bookkeeping.

use std::fmt;
use std::sync::Arc;

use datapath::common::{Reason, maps};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use state::Status;

use crate::apply::{ServicesView, View};
use crate::health::Kind;
use crate::observe::{Observed, resident_bytes};

/// Reads everything that is kept elsewhere.
#[derive(Debug)]
pub struct Scrape(pub Arc<Observed>);

type Labels = Vec<(&'static str, String)>;

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let out = &mut Out(&mut encoder);
        let view = self.0.view.borrow().clone();
        self.agent(out)?;
        self.packets(out)?;
        self.conntrack(out, &view)?;
        self.endpoints(out, &view)?;
        self.kubernetes(out)?;
        self.health(out)?;
        services(out, &view)?;
        apply(out, &view)
    }
}

impl Scrape {
    fn agent(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let readiness = self.0.readiness.borrow().clone();
        let build = vec![
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("kernel", self.0.features.kernel.clone()),
        ];
        out.gauges(
            "thalweg_build_info",
            "The agent's version and the running kernel",
            [(build, 1_u64)],
        )?;
        out.gauge(
            "thalweg_ready",
            "Whether pods can be started",
            u64::from(readiness.is_ready()),
        )?;
        let conditions = readiness.conditions.iter();
        let conditions = conditions.map(|one| (vec![("condition", one.name.clone())], u64::from(one.ok)));
        out.gauges(
            "thalweg_condition",
            "What readiness depends on, 1 where it is fulfilled",
            conditions,
        )?;
        for (name, help, files) in [
            (
                "thalweg_cni_rivals",
                "Other networks' configurations that the container runtime prefers to ours",
                readiness.others.rivals().len(),
            ),
            (
                "thalweg_cni_configurations_aside",
                "Other networks' configurations that lie aside",
                readiness.others.aside.len(),
            ),
        ] {
            out.gauge(name, help, u64::try_from(files).unwrap_or(u64::MAX))?;
        }
        out.counter(
            "thalweg_cni_configurations_set_aside",
            "Other networks' configurations that were set aside, each as often as it came again",
            readiness.set_aside,
        )?;
        let after = readiness.after.unwrap_or_default().as_secs_f64();
        out.gauge(
            "thalweg_ready_after_seconds",
            "Time from the agent's start until it was ready",
            after,
        )?;
        let uptime = self.0.started.elapsed().as_secs_f64();
        out.gauge("thalweg_uptime_seconds", "Time since the agent's start", uptime)?;
        out.gauge(
            "thalweg_resident_bytes",
            "The agent's memory",
            resident_bytes().unwrap_or_default(),
        )
    }

    fn packets(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let rows = self.0.counters.rows().unwrap_or_else(|error| {
            tracing::warn!(%error, "counters cannot be read");
            Vec::new()
        });
        let drops = || rows.iter().filter(|row| row.reason.is_drop());
        let labels = |row: &datapath::CounterRow| -> Labels {
            vec![
                ("reason", row.reason.to_string()),
                ("direction", row.direction.to_string()),
            ]
        };
        let help = "Packets dropped";
        out.counters(
            "thalweg_drops",
            help,
            drops().map(|row| (labels(row), row.packets)),
        )?;
        let help = "Bytes of packets dropped";
        out.counters(
            "thalweg_drop_bytes",
            help,
            drops().map(|row| (labels(row), row.bytes)),
        )?;
        let forwarded = || rows.iter().filter(|row| row.reason == Reason::FORWARDED);
        let direction =
            |row: &datapath::CounterRow| -> Labels { vec![("direction", row.direction.to_string())] };
        let help = "Packets forwarded";
        out.counters(
            "thalweg_forwarded_packets",
            help,
            forwarded().map(|row| (direction(row), row.packets)),
        )?;
        let help = "Bytes of packets forwarded";
        out.counters(
            "thalweg_forwarded_bytes",
            help,
            forwarded().map(|row| (direction(row), row.bytes)),
        )?;
        let lost = self.0.counters.events_lost().unwrap_or_default();
        out.counter("thalweg_events_lost", "Events that found the ring full", lost)?;
        out.counter(
            "thalweg_events",
            "Events read from the ring",
            self.0.events.seen(),
        )
    }

    fn conntrack(&self, out: &mut Out<'_, '_>, view: &View) -> fmt::Result {
        let entries = u64::try_from(view.conntrack.entries).unwrap_or(u64::MAX);
        out.gauge(
            "thalweg_conntrack_entries",
            "Connections at the last collection",
            entries,
        )?;
        out.gauge(
            "thalweg_conntrack_max",
            "Connections that fit",
            u64::from(self.0.conntrack.max_entries()),
        )?;
        let help = "Share of the connection table in use at the last collection, 0 to 1";
        out.gauge("thalweg_conntrack_pressure", help, view.conntrack.pressure)?;
        let removed = u64::try_from(view.conntrack.removed).unwrap_or(u64::MAX);
        out.gauge(
            "thalweg_conntrack_collected",
            "Connections removed by the last collection",
            removed,
        )?;
        self.masquerade(out, view)?;
        self.maps(out, entries)
    }

    fn masquerade(&self, out: &mut Out<'_, '_>, view: &View) -> fmt::Result {
        let Some(on) = view.masquerade else {
            return Ok(());
        };
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        out.gauge(
            "thalweg_nat_connections",
            "Masqueraded connections at the last collection",
            count(view.conntrack.nat.entries),
        )?;
        out.gauge(
            "thalweg_nat_ports_busiest",
            "Ports in use towards the remote end to which most are, but for those of closed connections, at the last collection",
            count(view.conntrack.nat.busiest),
        )?;
        out.gauge(
            "thalweg_nat_ports_max",
            "Ports for connections to one remote end",
            u64::from(on.ports.count()),
        )
    }

    fn maps(&self, out: &mut Out<'_, '_>, connections: u64) -> fmt::Result {
        let addresses: usize = self
            .0
            .endpoints
            .snapshot()
            .iter()
            .map(|endpoint| endpoint.ips.len())
            .sum();
        let addresses = u64::try_from(addresses).unwrap_or(u64::MAX);
        let label = |map: &str| -> Labels { vec![("map", map.to_owned())] };
        let entries = [
            (label(maps::ENDPOINTS.name), addresses),
            (label(maps::CONNTRACK.name), connections),
        ];
        out.gauges(
            "thalweg_map_entries",
            "Rows of a BPF map that are pods' or were last counted",
            entries,
        )?;
        let endpoints_max = u64::from(maps::ENDPOINTS.max_entries);
        let conntrack_max = u64::from(self.0.conntrack.max_entries());
        let max = [
            (label(maps::ENDPOINTS.name), endpoints_max),
            (label(maps::CONNTRACK.name), conntrack_max),
        ];
        out.gauges("thalweg_map_max_entries", "Rows that fit into a BPF map", max)
    }

    fn endpoints(&self, out: &mut Out<'_, '_>, view: &View) -> fmt::Result {
        let count = u64::try_from(self.0.endpoints.snapshot().len()).unwrap_or(u64::MAX);
        out.gauge("thalweg_endpoints", "Endpoints on this node", count)?;
        let errors = u64::try_from(view.endpoint_errors.len()).unwrap_or(u64::MAX);
        out.gauge(
            "thalweg_endpoint_errors",
            "Endpoints that are not in force",
            errors,
        )?;
        let pool = |pool: &ipam::PoolUsage| -> Labels { vec![("pool", pool.cidr.to_string())] };
        let capacity = |pool: &ipam::PoolUsage| u64::try_from(pool.capacity).unwrap_or(u64::MAX);
        let pools = || view.pools.iter();
        out.gauges(
            "thalweg_ipam_capacity",
            "Addresses of a pool",
            pools().map(|one| (pool(one), capacity(one))),
        )?;
        out.gauges(
            "thalweg_ipam_used",
            "Addresses in use",
            pools().map(|one| (pool(one), one.used)),
        )?;
        let help = "Addresses that rest after their release";
        out.gauges(
            "thalweg_ipam_resting",
            help,
            pools().map(|one| (pool(one), one.resting)),
        )
    }

    /// Of the families the worse one counts.
    fn health(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let Some(health) = &self.0.health else {
            return Ok(());
        };
        let (mut up, mut latency) = (Vec::new(), Vec::new());
        for peer in health.peers.snapshot().iter() {
            for kind in Kind::ALL {
                let labels = || -> Labels { vec![("peer", peer.node.clone()), ("kind", kind.to_string())] };
                let probes = || peer.probes.iter().filter(|probe| probe.kind == kind);
                if probes().next().is_none() {
                    continue;
                }
                up.push((labels(), u64::from(probes().all(|probe| probe.outcome.is_ok()))));
                let slowest = probes().filter_map(|probe| probe.outcome.as_ref().ok()).max();
                latency.extend(slowest.map(|time| (labels(), time.as_secs_f64())));
            }
        }
        let help = "Whether another node or a pod of it answered when it was last tried";
        out.gauges("thalweg_health_up", help, up)?;
        let help = "How long the answer took";
        out.gauges("thalweg_health_latency_seconds", help, latency)
    }

    fn kubernetes(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let watches: Vec<_> = self
            .0
            .watches
            .iter()
            .map(|watch| watch.borrow().clone())
            .collect();
        let label = |watch: &k8s::WatchStatus| -> Labels { vec![("resource", watch.resource.to_owned())] };
        let each = || watches.iter();
        let help = "Objects received";
        out.counters(
            "thalweg_k8s_watch_events",
            help,
            each().map(|one| (label(one), one.events)),
        )?;
        let help = "Failed requests and broken watches";
        out.counters(
            "thalweg_k8s_watch_errors",
            help,
            each().map(|one| (label(one), one.errors)),
        )?;
        let connected = each().map(|one| (label(one), u64::from(one.connected)));
        out.gauges(
            "thalweg_k8s_watch_connected",
            "Whether the API answered last time",
            connected,
        )?;
        let in_sync = each().map(|one| (label(one), u64::from(one.in_sync)));
        out.gauges(
            "thalweg_k8s_watch_in_sync",
            "Whether the first full list has arrived",
            in_sync,
        )?;
        let skipped = each().map(|one| (label(one), u64::try_from(one.skipped.len()).unwrap_or(u64::MAX)));
        out.gauges(
            "thalweg_k8s_skipped_objects",
            "Objects that cannot be understood",
            skipped,
        )
    }
}

fn services(out: &mut Out<'_, '_>, view: &View) -> fmt::Result {
    let Some(view) = &view.services else { return Ok(()) };
    let totals = view.totals;
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let gauges: [(&str, &str, usize); 5] = [
        (
            "thalweg_services",
            "Services and pods with ports of the node that have a frontend",
            totals.owners,
        ),
        (
            "thalweg_service_frontends",
            "Frontends of services",
            totals.frontends,
        ),
        (
            "thalweg_service_backends",
            "Slots of backends of services",
            totals.backends,
        ),
        (
            "thalweg_services_refused",
            "Services of which something is refused",
            totals.refused,
        ),
        (
            "thalweg_services_failed",
            "Services that could not be written",
            totals.failed,
        ),
    ];
    for (name, help, value) in gauges {
        out.gauge(name, help, count(value))?;
    }
    let [frontends_max, backends_max] = view.limits;
    let pressure = |used: usize, max: u32| used as f64 / f64::from(max.max(1));
    let maps = [
        (
            vec![("map", "services".to_owned())],
            pressure(totals.frontends, frontends_max),
        ),
        (
            vec![("map", "backends".to_owned())],
            pressure(totals.backends, backends_max),
        ),
    ];
    out.gauges(
        "thalweg_service_map_pressure",
        "How full a map of services is, 0 to 1",
        maps,
    )?;
    service_counters(out, view)
}

fn service_counters(out: &mut Out<'_, '_>, view: &ServicesView) -> fmt::Result {
    let [written, deleted] = view.rows;
    let counters: [(&str, &str, u64); 4] = [
        (
            "thalweg_service_rows_written",
            "Rows of services written",
            written,
        ),
        (
            "thalweg_service_rows_deleted",
            "Rows of services deleted",
            deleted,
        ),
        (
            "thalweg_service_maps_full",
            "Writes of services that found a map full",
            view.full,
        ),
        (
            "thalweg_service_events_lost",
            "Events about services that could not be queued",
            view.news_lost,
        ),
    ];
    for (name, help, value) in counters {
        out.counter(name, help, value)?;
    }
    Ok(())
}

fn apply(out: &mut Out<'_, '_>, view: &View) -> fmt::Result {
    let state = |status: &Status| match status {
        Status::Pending => "pending",
        Status::Done => "done",
        Status::Error(_) => "error",
    };
    let count = |wanted: &str| {
        view.routes
            .iter()
            .filter(|route| state(&route.status) == wanted)
            .count()
    };
    let routes = ["pending", "done", "error"];
    let routes = routes.map(|name| {
        (
            vec![("state", name.to_owned())],
            u64::try_from(count(name)).unwrap_or(u64::MAX),
        )
    });
    out.gauges(
        "thalweg_apply_routes",
        "Pod networks by the state of their route",
        routes,
    )?;
    let queued = u64::try_from(view.queued_deletes).unwrap_or(u64::MAX);
    let help = "DELs that the plugin queued and that failed so far";
    out.gauge("thalweg_cni_deletes_queued", help, queued)?;
    let problems = u64::try_from(view.problems.len()).unwrap_or(u64::MAX);
    out.gauge(
        "thalweg_apply_problems",
        "What is wrong with the node and is tried again",
        problems,
    )
}

/// Writes metrics in few words.
struct Out<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Out<'_, '_> {
    fn gauge<V: EncodeGaugeValue + Copy + fmt::Debug>(
        &mut self,
        name: &str,
        help: &str,
        value: V,
    ) -> fmt::Result
    where
        ConstGauge<V>: prometheus_client::encoding::EncodeMetric,
    {
        ConstGauge::new(value).encode(self.0.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstCounter::new(value).encode(self.0.encode_descriptor(name, help, None, MetricType::Counter)?)
    }

    fn gauges<V: EncodeGaugeValue + Copy + fmt::Debug>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, V)>,
    ) -> fmt::Result
    where
        ConstGauge<V>: prometheus_client::encoding::EncodeMetric,
    {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        values
            .into_iter()
            .try_for_each(|(labels, value)| ConstGauge::new(value).encode(family.encode_family(&labels)?))
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        values
            .into_iter()
            .try_for_each(|(labels, value)| ConstCounter::new(value).encode(family.encode_family(&labels)?))
    }
}
