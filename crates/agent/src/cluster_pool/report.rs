// SPDX-License-Identifier: Apache-2.0
//! What this node tells the operator: how full its blocks are, how many addresses it wants, with which it has done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipam::PoolUsage;
use ipam::cluster::wanted;
use k8s::IpPools;
use model::{BlockReport, DEFAULT_POOL, Family, NodeReport, PoolReport};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tracing::{debug, warn};

use super::Waiting;
use crate::apply::{Applied, View};

/// The least time between two reports, unless one is urgent.
const PERIOD: Duration = Duration::from_secs(15);
/// Urgent reports that come this soon one after another are one.
const SETTLE: Duration = Duration::from_millis(50);
/// The first pause after a failure; it doubles up to [`PERIOD`].
const RETRY: Duration = Duration::from_millis(200);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    result: &'static str,
}

/// Reports written, by result.
#[derive(Clone, Debug, Default)]
pub struct Counts(prometheus_client::metrics::family::Family<Label, Counter>);

impl Counts {
    /// Adds the counter to a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("thalweg_ipam_reports", "Reports to the operator", self.0.clone());
    }

    fn count(&self, result: &'static str) {
        self.0.get_or_create(&Label { result }).inc();
    }
}

/// Tells the operator.
#[derive(Clone, Debug)]
pub(super) struct Reporter {
    pub(super) node: String,
    pub(super) spare: u32,
    pub(super) api: IpPools,
    pub(super) waiting: Arc<Waiting>,
    pub(super) counts: Counts,
}

/// What was told last, to which object.
#[derive(Debug, Default)]
struct Told {
    uid: String,
    report: NodeReport,
    at: Option<Instant>,
}

impl Reporter {
    /// Runs until the apply thread is gone.
    pub(super) async fn run(self, mut view: watch::Receiver<View>) {
        let (mut told, mut pause) = (Told::default(), RETRY);
        loop {
            let (applied, report) = self.now(&view.borrow_and_update().clone());
            let due = due(&told, &applied, &report);
            let changed = async {
                tokio::select! {
                    changed = view.changed() => changed.is_ok(),
                    () = self.waiting.changed.notified() => true,
                }
            };
            let Some(left) = due else {
                if !changed.await {
                    return;
                }
                continue;
            };
            if !left.is_zero() {
                // Until it is due something urgent may happen.
                match tokio::time::timeout(left, changed).await {
                    Ok(false) => return,
                    Ok(true) => tokio::time::sleep(SETTLE).await,
                    Err(_) => {}
                }
                continue;
            }
            pause = match self.api.report(&self.node, &applied.uid, &report).await {
                Ok(()) => {
                    self.counts.count("ok");
                    told = Told {
                        uid: applied.uid,
                        report,
                        at: Some(Instant::now()),
                    };
                    RETRY
                }
                Err(error) => {
                    self.counts.count("error");
                    if pause == RETRY {
                        warn!(%error, "the node's use of addresses cannot be reported; trying on");
                    } else {
                        debug!(%error, "still not reported");
                    }
                    tokio::time::sleep(pause).await;
                    (pause * 2).min(PERIOD)
                }
            };
        }
    }

    fn now(&self, view: &View) -> (Applied, NodeReport) {
        let report = report(&view.pools, &view.applied, &self.waiting.counts(), self.spare);
        (view.applied.clone(), report)
    }
}

/// When this is to be told: nothing while there is nothing new, zero for at once.
fn due(told: &Told, applied: &Applied, report: &NodeReport) -> Option<Duration> {
    if applied.uid.is_empty() || (told.uid == applied.uid && told.report == *report) {
        return None;
    }
    let urgent =
        told.uid != applied.uid || wants_more(&told.report, report) || gives_back(&told.report, report);
    let waited = told.at.map_or(PERIOD, |at| at.elapsed());
    Some(if urgent {
        Duration::ZERO
    } else {
        PERIOD.saturating_sub(waited)
    })
}

/// Whether a pool's blocks no longer suffice, and the operator does not know by how much.
fn wants_more(told: &NodeReport, now: &NodeReport) -> bool {
    now.pools.iter().any(|pool| {
        let before = told.pools.iter().find(|before| before.pool == pool.pool);
        let grown = before.is_none_or(|before| before.wanted < pool.wanted);
        grown && pool.wanted > 0 && capacity(pool) < u128::from(pool.wanted)
    })
}

/// What a pod of this pool can have: the family that has least decides.
fn capacity(pool: &PoolReport) -> u128 {
    let mut by_family: BTreeMap<Family, u128> = BTreeMap::new();
    for block in &pool.blocks {
        let sum = by_family.entry(Family::of_net(&block.cidr)).or_default();
        *sum = sum.saturating_add(model::usable_addresses(&block.cidr));
    }
    by_family.into_values().min().unwrap_or_default()
}

/// Whether the operator waits to hear that a block is free.
fn gives_back(told: &NodeReport, now: &NodeReport) -> bool {
    let released = |report: &NodeReport| -> Vec<ipnet::IpNet> {
        let blocks = report.pools.iter().flat_map(|pool| &pool.blocks);
        blocks
            .filter(|block| block.released)
            .map(|block| block.cidr)
            .collect()
    };
    let now_released = released(now);
    !now_released.is_empty() && (now_released != released(told) || told.generation != now.generation)
}

fn report(usage: &[PoolUsage], applied: &Applied, waiting: &BTreeMap<String, u64>, spare: u32) -> NodeReport {
    let mut pools: BTreeMap<&str, Vec<&PoolUsage>> = BTreeMap::new();
    pools.entry(DEFAULT_POOL).or_default();
    for pool in waiting.keys() {
        pools.entry(pool).or_default();
    }
    for one in usage {
        pools.entry(&one.pool).or_default().push(one);
    }
    NodeReport {
        generation: applied.generation,
        pools: pools
            .into_iter()
            .map(|(pool, blocks)| {
                let waiting = waiting.get(pool).copied().unwrap_or_default();
                pool_report(pool, &blocks, applied, (waiting, spare))
            })
            .collect(),
    }
}

/// Only the default pool is kept ready where no pod uses it.
fn pool_report(
    pool: &str,
    blocks: &[&PoolUsage],
    applied: &Applied,
    (waiting, spare): (u64, u32),
) -> PoolReport {
    let mut busy: BTreeMap<Family, (u64, u64)> = BTreeMap::new();
    for block in blocks {
        let (used, resting) = busy.entry(block.family).or_default();
        (*used, *resting) = (*used + block.used, *resting + block.resting);
    }
    let (used, resting) = busy.into_values().max_by_key(|(a, b)| a + b).unwrap_or_default();
    let idle = pool != DEFAULT_POOL && used == 0 && waiting == 0;
    let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    let block = |one: &&PoolUsage| BlockReport {
        cidr: one.cidr,
        used: small(one.used),
        resting: small(one.resting),
        released: applied.released.contains(&one.cidr),
    };
    PoolReport {
        pool: pool.to_owned(),
        wanted: if idle {
            0
        } else {
            wanted(used, resting, waiting, spare)
        },
        blocks: blocks.iter().map(block).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_at_once_when_addresses_run_short_or_a_block_is_free_and_else_now_and_then() {
        let applied = |generation, released: &[&str]| Applied {
            uid: "u".into(),
            generation,
            released: released.iter().map(|cidr| cidr.parse().unwrap()).collect(),
        };
        let usage = |used, draining| PoolUsage {
            pool: "default".into(),
            cidr: "10.0.0.0/29".parse().unwrap(),
            family: Family::Ipv4,
            capacity: 6,
            used,
            resting: 0,
            draining,
        };
        let none = BTreeMap::new();
        let say = |used, applied: &Applied, spare| report(&[usage(used, false)], applied, &none, spare);
        let told = |report: NodeReport| Told {
            uid: "u".into(),
            report,
            at: Some(Instant::now()),
        };
        let first = applied(1, &[]);
        assert_eq!(
            due(&Told::default(), &Applied::default(), &say(0, &first, 2)),
            None
        );
        assert_eq!(
            due(&Told::default(), &first, &say(0, &first, 2)),
            Some(Duration::ZERO)
        );
        let before = told(say(1, &first, 2));
        assert_eq!(due(&before, &first, &say(1, &first, 2)), None, "nothing new");
        let calm = due(&before, &first, &say(4, &first, 2)).unwrap();
        assert!(calm > PERIOD / 2, "six of six wanted: no hurry, {calm:?}");
        assert_eq!(due(&before, &first, &say(5, &first, 2)), Some(Duration::ZERO));
        let short = told(say(5, &first, 2));
        assert!(
            due(&short, &first, &say(4, &first, 2)).unwrap() > PERIOD / 2,
            "less than what is known already"
        );
        let free = applied(2, &["10.0.0.0/29"]);
        assert_eq!(due(&before, &free, &say(0, &free, 2)), Some(Duration::ZERO));
        let same = told(say(0, &free, 2));
        let later = applied(3, &["10.0.0.0/29"]);
        assert_eq!(
            due(&same, &later, &say(0, &later, 2)),
            Some(Duration::ZERO),
            "under another generation it must be said again"
        );
    }

    #[test]
    fn a_pool_that_nobody_uses_is_not_kept_ready_unless_it_is_the_default() {
        let waiting = [("blue".to_owned(), 2)].into();
        let report = report(&[], &Applied::default(), &waiting, 8);
        let wanted: Vec<_> = report
            .pools
            .iter()
            .map(|pool| (pool.pool.as_str(), pool.wanted))
            .collect();
        assert_eq!(wanted, [("blue", 10), ("default", 8)]);
        let blue = PoolUsage {
            pool: "blue".into(),
            cidr: "10.0.0.0/29".parse().unwrap(),
            family: Family::Ipv4,
            capacity: 6,
            used: 0,
            resting: 0,
            draining: false,
        };
        let report = super::report(&[blue], &Applied::default(), &BTreeMap::new(), 8);
        assert_eq!(report.pools[0].wanted, 0);
    }
}
