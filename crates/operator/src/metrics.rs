// SPDX-License-Identifier: Apache-2.0
//! What `/metrics` says.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ipam::cluster::{ACCEPTED, Outcome, Write};
use k8s::{Standing, WatchStatus};
use model::{IpPool, PoolUse};
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::elect::leads;
use crate::reconcile::Shown;

/// 1 ms to 16 s.
const FIRST_BUCKET: f64 = 1e-3;
const BUCKETS: u16 = 15;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabel {
    kind: &'static str,
    result: &'static str,
}

/// Writes by kind and result, and how long passes take.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    writes: Family<WriteLabel, Counter>,
    passes: Histogram,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            writes: Family::default(),
            passes: Histogram::new(exponential_buckets(FIRST_BUCKET, 2.0, BUCKETS)),
        }
    }
}

impl Counts {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let help = "Writes to the API";
        registry.register("thalweg_operator_writes", help, self.writes.clone());
        let help = "Time of a look at the world and the writes that followed";
        registry.register("thalweg_operator_pass_seconds", help, self.passes.clone());
    }

    pub(crate) fn wrote(&self, write: &Write, outcome: &Outcome) {
        let label = WriteLabel {
            kind: match write {
                Write::Create { .. } => "create",
                Write::Delete { .. } => "delete",
                Write::Ask { .. } => "ask",
                Write::Guard { .. } => "guard",
                Write::Pool(_) => "ledger",
                Write::Grants { .. } => "grants",
            },
            result: match outcome {
                Outcome::Pool(_) | Outcome::Node(_) => "ok",
                Outcome::Gone => "gone",
                Outcome::Conflict => "conflict",
                Outcome::Refused => "refused",
                Outcome::Unknown => "unknown",
            },
        };
        self.writes.get_or_create(&label).inc();
    }

    pub(crate) fn passed(&self, time: Duration) {
        self.passes.observe(time.as_secs_f64());
    }
}

/// Reads what is kept elsewhere.
pub(crate) struct Scrape {
    pub(crate) standing: watch::Receiver<Standing>,
    pub(crate) shown: Arc<Mutex<Shown>>,
    pub(crate) watches: Vec<watch::Receiver<WatchStatus>>,
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrape").finish_non_exhaustive()
    }
}

type Labels = Vec<(&'static str, String)>;

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let out = &mut encoder;
        let build: Labels = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        gauges(
            out,
            ("thalweg_operator_build_info", "The operator's version"),
            [(build, 1)],
        )?;
        let term = leads(&self.standing.borrow().clone());
        let help = "Whether this replica leads";
        let leading = u64::from(term.is_some());
        gauges(out, ("thalweg_operator_leader", help), [(vec![], leading)])?;
        let help = "The term in which it leads";
        let term = term.unwrap_or_default();
        gauges(out, ("thalweg_operator_term", help), [(vec![], term)])?;
        self.watches(out)?;
        self.pools(out)
    }
}

impl Scrape {
    fn watches(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let watches: Vec<WatchStatus> = self.watches.iter().map(|watch| watch.borrow().clone()).collect();
        let label = |watch: &WatchStatus| -> Labels { vec![("resource", watch.resource.to_owned())] };
        let connected = watches.iter().map(|one| (label(one), u64::from(one.connected)));
        let help = "Whether the API answered last time";
        gauges(out, ("thalweg_k8s_watch_connected", help), connected)?;
        let skipped = watches.iter().map(|one| (label(one), one.skipped.len() as u64));
        let help = "Objects that cannot be understood";
        gauges(out, ("thalweg_k8s_skipped_objects", help), skipped)
    }

    fn pools(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let world = self.shown.lock().world.clone();
        let pools = || world.pools.values();
        let name = |pool: &IpPool| -> Labels { vec![("pool", pool.name.clone())] };
        let accepted = |pool: &IpPool| pool.condition(ACCEPTED).is_some_and(|one| one.ok);
        let help = "Whether a pool may be used";
        let values = pools().map(|pool| (name(pool), u64::from(accepted(pool))));
        gauges(out, ("thalweg_pool_accepted", help), values)?;
        type Read = fn(&PoolUse) -> Option<u64>;
        let numbers: [(&str, &str, Read); 5] = [
            ("thalweg_pool_blocks", "Blocks of a pool", |one| Some(one.blocks)),
            ("thalweg_pool_blocks_held", "Blocks that nodes hold", |one| {
                Some(one.blocks_held)
            }),
            (
                "thalweg_pool_capacity",
                "Addresses of a pool that pods can have",
                |one| Some(one.capacity),
            ),
            ("thalweg_pool_used", "Addresses of a pool that pods have", |one| {
                Some(one.used)
            }),
            (
                "thalweg_pool_exhausted_in_seconds",
                "When a pool will be full if use goes on growing; absent while that is not known",
                |one| one.exhausted_in,
            ),
        ];
        for (metric, help, read) in numbers {
            let values = pools().flat_map(|pool| {
                let families = pool.state.families.iter();
                families.filter_map(move |one| {
                    let mut labels = name(pool);
                    labels.push(("family", one.family.to_string()));
                    Some((labels, read(one)?))
                })
            });
            gauges(out, (metric, help), values)?;
        }
        let help = "Nodes that do not get the addresses that they ask for";
        let nodes = world.nodes.values();
        let short = nodes.filter(|node| node.grants.iter().any(|grant| !grant.shortage.is_empty()));
        let short = short.count() as u64;
        gauges(out, ("thalweg_pool_short_nodes", help), [(vec![], short)])
    }
}

fn gauges(
    out: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    values: impl IntoIterator<Item = (Labels, u64)>,
) -> fmt::Result {
    let mut family = out.encode_descriptor(name, help, None, MetricType::Gauge)?;
    values
        .into_iter()
        .try_for_each(|(labels, value)| ConstGauge::new(value).encode(family.encode_family(&labels)?))
}
