// SPDX-License-Identifier: Apache-2.0
//! Keeps a table equal to what the API says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::pin::pin;
use std::time::{Duration, SystemTime};

use futures::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ListParams;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as start};
use kube::{Client, Resource as _};
use model::{IpPool, Machine, Namespace, Node, NodePools, Pod};
use serde::de::DeserializeOwned;
use state::Writer;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::ippools::{NodePoolsObject, PoolObject};
use crate::objects::{MachineObject, NamespaceObject, NodeObject, Parse, PodObject};

/// Objects per answer while listing: a Node has some twenty kilobytes, and a whole answer is in memory at once.
const PAGE_SIZE: u32 = 100;

/// The most objects whose errors are kept for status.
const SKIPPED_MAX: usize = 32;

const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MOST: Duration = Duration::from_secs(15);

/// How a watch is doing.
#[derive(Clone, Debug)]
pub struct WatchStatus {
    /// What is watched, such as `nodes`.
    pub resource: &'static str,
    /// Whether the API answered last time.
    pub connected: bool,
    /// Whether the first full list has arrived.
    pub in_sync: bool,
    /// The last error and when it was.
    pub last_error: Option<(SystemTime, String)>,
    /// Objects received.
    pub events: u64,
    /// Failed requests and broken watches.
    pub errors: u64,
    /// Objects that could not be understood, and why; at most 32 of them.
    pub skipped: BTreeMap<String, String>,
}

impl WatchStatus {
    /// The status of a watch that has not begun.
    #[must_use]
    pub const fn new(resource: &'static str) -> Self {
        Self {
            resource,
            connected: false,
            in_sync: false,
            last_error: None,
            events: 0,
            errors: 0,
            skipped: BTreeMap::new(),
        }
    }
}

/// Keeps `nodes` equal to the cluster's nodes. Runs until it is dropped.
pub async fn watch_nodes(client: Client, nodes: Writer<Node>, status: watch::Sender<WatchStatus>) {
    let api = kube::Api::<NodeObject>::all(client);
    run(api, watcher::Config::default(), Sink::new(nodes, status)).await;
}

/// Keeps `pods` equal to the pods that Kubernetes placed on a node. Runs until it is dropped.
pub async fn watch_pods(client: Client, node: &str, pods: Writer<Pod>, status: watch::Sender<WatchStatus>) {
    let api = kube::Api::<PodObject>::all(client);
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    run(api, config, Sink::new(pods, status)).await;
}

/// Keeps `pools` equal to the cluster's pools of addresses. Runs until it is dropped.
pub async fn watch_pools(client: Client, pools: Writer<IpPool>, status: watch::Sender<WatchStatus>) {
    let api = kube::Api::<PoolObject>::all(client);
    run(api, watcher::Config::default(), Sink::new(pools, status)).await;
}

/// Keeps `nodes` equal to what nodes have of the pools. Runs until it is dropped.
pub async fn watch_node_pools(client: Client, nodes: Writer<NodePools>, status: watch::Sender<WatchStatus>) {
    let api = kube::Api::<NodePoolsObject>::all(client);
    run(api, watcher::Config::default(), Sink::new(nodes, status)).await;
}

/// Keeps `machines` equal to the cluster's nodes, or the one of that name. Runs until it is dropped.
pub async fn watch_machines(
    client: Client,
    name: Option<&str>,
    machines: Writer<Machine>,
    status: watch::Sender<WatchStatus>,
) {
    let api = kube::Api::<MachineObject>::all(client);
    let config = match name {
        Some(name) => watcher::Config::default().fields(&format!("metadata.name={name}")),
        None => watcher::Config::default(),
    };
    run(api, config, Sink::new(machines, status)).await;
}

/// Keeps `namespaces` equal to the cluster's. Runs until it is dropped.
pub async fn watch_namespaces(
    client: Client,
    namespaces: Writer<Namespace>,
    status: watch::Sender<WatchStatus>,
) {
    let api = kube::Api::<NamespaceObject>::all(client);
    run(api, watcher::Config::default(), Sink::new(namespaces, status)).await;
}

async fn run<R>(api: kube::Api<R::Object>, config: watcher::Config, mut sink: Sink<R>)
where
    R: Parse,
    R::Object: Clone + DeserializeOwned + Debug + Send + 'static,
{
    let probe = ListParams {
        field_selector: config.field_selector.clone(),
        limit: Some(1),
        ..ListParams::default()
    };
    let stream = start(api.clone(), config.page_size(PAGE_SIZE)).backoff(Doubling::default());
    let mut stream = pin!(stream);
    let mut answer = Box::pin(answers(&api, &probe));
    loop {
        let down = !sink.status.borrow().connected;
        tokio::select! {
            event = stream.next() => match event {
                Some(Ok(event)) => sink.take(event),
                Some(Err(error)) => sink.failed(&error),
                None => return,
            },
            // A watch that was taken up again says nothing until an object changes: somebody has to ask.
            () = &mut answer, if down => {
                sink.connected();
                answer = Box::pin(answers(&api, &probe));
            }
        }
    }
}

/// Returns when the API answers.
async fn answers<K>(api: &kube::Api<K>, probe: &ListParams)
where
    K: Clone + DeserializeOwned + Debug,
{
    for pause in Doubling::default() {
        tokio::time::sleep(pause).await;
        if api.list_metadata(probe).await.is_ok() {
            return;
        }
    }
}

/// Where the events of a watch go.
struct Sink<R: Parse> {
    writer: Writer<R>,
    status: watch::Sender<WatchStatus>,
    staged: Vec<R>,
    /// Rows whose objects cannot be understood at present.
    broken: BTreeSet<R::Key>,
}

impl<R: Parse> Sink<R> {
    const fn new(writer: Writer<R>, status: watch::Sender<WatchStatus>) -> Self {
        Self {
            writer,
            status,
            staged: Vec::new(),
            broken: BTreeSet::new(),
        }
    }

    fn take(&mut self, event: Event<R::Object>) {
        match event {
            Event::Init => self.begin(),
            Event::InitApply(object) => {
                if let Some(row) = self.parse(object) {
                    self.staged.push(row);
                }
            }
            Event::InitDone => self.listed(),
            Event::Apply(object) => {
                if let Some(row) = self.parse(object) {
                    self.writer.upsert(row);
                }
            }
            Event::Delete(object) => self.delete(&object),
        }
        self.connected();
    }

    fn begin(&mut self) {
        self.staged.clear();
        self.broken.clear();
        self.status.send_modify(|status| status.skipped.clear());
    }

    fn listed(&mut self) {
        let known = self.writer.snapshot().clone();
        let kept = self.broken.iter().filter_map(|key| known.get(key).cloned());
        let rows: Vec<R> = kept.chain(self.staged.drain(..)).collect();
        let count = rows.len();
        self.writer.replace(rows);
        self.writer.set_in_sync();
        self.staged.shrink_to_fit();
        self.status.send_modify(|status| status.in_sync = true);
        info!(
            resource = self.status.borrow().resource,
            count, "in sync with Kubernetes"
        );
    }

    fn delete(&mut self, object: &R::Object) {
        let key = R::key_of(object.meta());
        self.broken.remove(&key);
        self.writer.remove(&key);
        self.status.send_modify(|status| {
            status.events += 1;
            status.skipped.remove(&describe(object.meta()));
        });
    }

    fn parse(&mut self, object: R::Object) -> Option<R> {
        let (key, name) = (R::key_of(object.meta()), describe(object.meta()));
        let result = R::parse(object);
        match &result {
            Ok(_) => self.broken.remove(&key),
            Err(_) => self.broken.insert(key),
        };
        self.status.send_modify(|status| {
            status.events += 1;
            match &result {
                Ok(_) => drop(status.skipped.remove(&name)),
                Err(error) => {
                    warn!(resource = status.resource, object = name, %error, "skipped an object that cannot be understood");
                    if status.skipped.len() < SKIPPED_MAX {
                        status.skipped.insert(name, error.to_string());
                    }
                }
            }
        });
        result.ok()
    }

    fn failed(&self, error: &watcher::Error) {
        let text = telemetry::log::with_causes(error);
        self.status.send_modify(|status| {
            // One line per outage; the rest is in the counter.
            if status.connected || status.errors == 0 {
                warn!(
                    resource = status.resource,
                    error = text,
                    "Kubernetes does not answer; trying on"
                );
            } else {
                debug!(
                    resource = status.resource,
                    error = text,
                    "Kubernetes still does not answer"
                );
            }
            status.connected = false;
            status.errors += 1;
            status.last_error = Some((SystemTime::now(), text));
        });
    }

    fn connected(&self) {
        self.status.send_if_modified(|status| {
            if !status.connected && status.errors > 0 {
                info!(resource = status.resource, "Kubernetes answers again");
            }
            !std::mem::replace(&mut status.connected, true)
        });
    }
}

fn describe(meta: &ObjectMeta) -> String {
    let name = meta.name.as_deref().unwrap_or("(without a name)");
    meta.namespace
        .as_ref()
        .map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"))
}

/// Pauses that double from 200 ms to 15 s: a node must notice soon that its API is back, and thousands of nodes must
/// not overrun one that has just come back.
#[derive(Clone, Copy)]
struct Doubling {
    next: Duration,
}

impl Default for Doubling {
    fn default() -> Self {
        Self { next: BACKOFF_FIRST }
    }
}

impl Iterator for Doubling {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.next;
        self.next = (pause * 2).min(BACKOFF_MOST);
        Some(pause.mul_f64(spread()))
    }
}

impl Backoff for Doubling {
    fn reset(&mut self) {
        *self = Self::default();
    }
}

/// A factor from 0.75 to 1.25, so that nodes do not move in step.
fn spread() -> f64 {
    use std::hash::{BuildHasher as _, RandomState};
    let random = RandomState::new().hash_one(0_u8) & 0xffff;
    0.75 + f64::from(u16::try_from(random).unwrap_or_default()) / 131_072.0
}

#[cfg(test)]
mod tests;
