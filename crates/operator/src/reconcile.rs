// SPDX-License-Identifier: Apache-2.0
//! The loop: looks at the world when something changes, and carries out what a pass says, as long as we lead.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream;
use ipam::cluster::{Deposed, History, Memory, Outcome, Pass, World, Write};
use ipnet::IpNet;
use k8s::{IpPools, Reporter, Standing};
use model::Family;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::elect::leads;
use crate::metrics::Counts;
use crate::news::News;
use crate::seen::{Tables, Written};

/// Changes that come this soon one after another are looked at together.
const SETTLE: Duration = Duration::from_millis(20);
/// The world is looked at at least this often: surpluses come of age, numbers are written.
const IDLE: Duration = Duration::from_secs(5);
/// The pause after a pass that did not get through, which doubles up to [`IDLE`].
const AGAIN: Duration = Duration::from_millis(50);
/// Writes under way at a time.
const CONCURRENT: usize = 16;

/// What is shown of the operator.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown {
    /// The world at the end of the last pass, if we lead.
    pub(crate) world: World,
    /// Whether a pass has come to its end since we lead.
    pub(crate) passed: bool,
}

/// All that the loop works with.
pub(crate) struct Worker {
    pub(crate) tables: Tables,
    pub(crate) api: IpPools,
    pub(crate) reporter: Reporter,
    pub(crate) standing: watch::Receiver<Standing>,
    pub(crate) deposed: watch::Sender<u64>,
    pub(crate) service_cidrs: watch::Receiver<Vec<IpNet>>,
    pub(crate) release_after: Duration,
    pub(crate) counts: Counts,
    pub(crate) shown: Arc<Mutex<Shown>>,
}

/// What is kept from pass to pass.
#[derive(Debug)]
struct Reign {
    term: u64,
    begin: Instant,
    memory: Memory,
    written: Written,
    news: News,
    histories: BTreeMap<(String, Family), History>,
}

impl Reign {
    fn new(term: u64) -> Self {
        Self {
            term,
            begin: Instant::now(),
            memory: Memory::default(),
            written: Written::default(),
            news: News::default(),
            histories: BTreeMap::new(),
        }
    }

    fn now(&self) -> u64 {
        self.begin.elapsed().as_secs()
    }

    /// When each pool will be full, by what was seen in this term.
    fn forecasts(&mut self, world: &World) -> BTreeMap<String, BTreeMap<Family, u64>> {
        let now = self.now();
        let mut forecasts: BTreeMap<String, BTreeMap<Family, u64>> = BTreeMap::new();
        for pool in world.pools.values() {
            for family in &pool.state.families {
                let key = (pool.name.clone(), family.family);
                let history = self.histories.entry(key).or_default();
                history.sample(now, family.used);
                if let Some(seconds) = history.exhausted_in(family.capacity) {
                    forecasts
                        .entry(pool.name.clone())
                        .or_default()
                        .insert(family.family, seconds);
                }
            }
        }
        let there = |(pool, _): &(String, Family)| world.pools.contains_key(pool);
        self.histories.retain(|key, _| there(key));
        forecasts
    }
}

impl Worker {
    /// Runs until it is dropped.
    pub(crate) async fn run(mut self) {
        let mut reign: Option<Reign> = None;
        let (mut pools, mut nodes, mut machines) = (
            self.tables.pools.reader(),
            self.tables.nodes.reader(),
            self.tables.machines.reader(),
        );
        let (mut pause, mut numbers) = (IDLE, Instant::now());
        loop {
            tokio::select! {
                changed = pools.changed() => if changed.is_none() { return },
                changed = nodes.changed() => if changed.is_none() { return },
                changed = machines.changed() => if changed.is_none() { return },
                changed = self.standing.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(pause) => {}
            }
            tokio::time::sleep(SETTLE).await;
            let Some(term) = leads(&self.standing.borrow().clone()).filter(|_| self.tables.in_sync()) else {
                (reign, pause) = (None, IDLE);
                *self.shown.lock() = Shown::default();
                continue;
            };
            let current = match reign.take() {
                Some(current) if current.term == term => reign.insert(current),
                _ => reign.insert(Reign::new(term)),
            };
            let due = numbers.elapsed() >= IDLE;
            if due {
                numbers = Instant::now();
            }
            pause = match self.pass(current, due).await {
                Ok(true) => IDLE,
                Ok(false) => (pause * 2).clamp(AGAIN, IDLE).min(AGAIN * 16),
                Err(deposed) => {
                    warn!("{deposed}");
                    self.deposed.send_replace(deposed.found);
                    reign = None;
                    IDLE
                }
            };
        }
    }

    /// One pass; whether it came to its end with nothing left over.
    async fn pass(&self, reign: &mut Reign, numbers: bool) -> Result<bool, Deposed> {
        let begin = Instant::now();
        let world = reign
            .written
            .world(&self.tables, &self.service_cidrs.borrow().clone());
        let times = (reign.now(), self.release_after.as_secs());
        let forecasts = numbers.then(|| reign.forecasts(&world));
        let memory = std::mem::take(&mut reign.memory);
        let mut pass = Pass::new(world, memory, reign.term, times)?;
        if let Some(forecasts) = forecasts {
            pass = pass.with_numbers(forecasts);
        }
        let mut led = true;
        loop {
            let batch = pass.batch();
            if batch.is_empty() || !led {
                break;
            }
            let mut answers = stream::iter(batch)
                .map(|write| self.write(reign.term, write))
                .buffer_unordered(CONCURRENT);
            while let Some((write, outcome)) = answers.next().await {
                let Some(outcome) = outcome else {
                    led = false;
                    continue;
                };
                reign.written.remember(&outcome);
                pass.done(&write, outcome);
            }
        }
        let finished = led && !pass.is_unfinished();
        reign.news.tell(pass.world(), &self.reporter).await;
        *self.shown.lock() = Shown {
            world: pass.world().clone(),
            passed: finished || self.shown.lock().passed,
        };
        reign.memory = pass.finish();
        self.counts.passed(begin.elapsed());
        Ok(finished)
    }

    /// Makes a write if we still lead in this term; nothing otherwise.
    async fn write(&self, term: u64, write: Write) -> (Write, Option<Outcome>) {
        if leads(&self.standing.borrow().clone()) != Some(term) {
            return (write, None);
        }
        let outcome = self.api.write(&write).await;
        self.counts.wrote(&write, &outcome);
        describe(&write, &outcome);
        (write, Some(outcome))
    }
}

/// What people want to read in a log: who got what.
fn describe(write: &Write, outcome: &Outcome) {
    let done = matches!(outcome, Outcome::Pool(_) | Outcome::Node(_) | Outcome::Gone);
    if !done {
        debug!(?write, ?outcome, "not written");
        return;
    }
    match write {
        Write::Grants { node, grants, .. } => {
            let blocks = grants.iter().flat_map(|grant| &grant.blocks);
            let list = |releasing: bool| -> Vec<String> {
                let some = blocks.clone().filter(|block| block.releasing == releasing);
                some.map(|block| block.cidr.to_string()).collect()
            };
            info!(node, blocks = ?list(false), asked_back = ?list(true), "granted");
        }
        Write::Delete { node, .. } => info!(node, "the node is gone; its blocks are free"),
        Write::Pool(write) if !write.add.is_empty() || !write.remove.is_empty() => {
            info!(pool = write.pool, reserved = write.add.len(), freed = ?write.remove, "ledger written");
        }
        Write::Create { .. } | Write::Ask { .. } | Write::Guard { .. } | Write::Pool(_) => {}
    }
}

/// Keeps the networks of ClusterIPs right: those of the configuration and those that the API knows. Runs until it is dropped.
pub(crate) async fn watch_services(client: k8s::Api, configured: Vec<IpNet>, all: watch::Sender<Vec<IpNet>>) {
    const PERIOD: Duration = Duration::from_secs(60);
    loop {
        if let Ok(Ok(found)) = timeout(PERIOD, k8s::service_cidrs(&client.client)).await {
            let mut now = configured.clone();
            now.extend(found);
            now.sort_unstable();
            now.dedup();
            all.send_if_modified(|before| {
                let changed = *before != now;
                *before = now;
                changed
            });
        }
        tokio::time::sleep(PERIOD).await;
    }
}
