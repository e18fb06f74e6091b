// SPDX-License-Identifier: Apache-2.0
//! Keeps a table equal to what the API says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ListParams;
use kube::runtime::watcher as start;
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource as _};
use model::{EndpointSlice, IpPool, Machine, Namespace, Node, NodePools, Pod, Service};
use serde::de::DeserializeOwned;
use state::Writer;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::ippools::{NodePoolsObject, PoolObject};
use crate::names::Names;
use crate::objects::{MachineObject, NamespaceObject, NodeObject, Parse, PodObject};
use crate::services::{SELECTOR, ServiceObject, SliceObject};

/// The most objects whose errors are kept for status.
const SKIPPED_MAX: usize = 32;

/// How long a watch lasts.
pub(crate) const WATCH_SECONDS: u32 = 120;

/// How long the API may take to answer whether it is there.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// Watches in a row that the API refuses to begin until everything is listed anew.
const REFUSED_MAX: u32 = 3;

/// What a server that has too much to do asks for, if it does not say (`Retry-After` of kube-apiserver), and what it may ask for.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
const BUSY_PAUSE_MOST: Duration = Duration::from_secs(60);

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

/// Keeps `services` equal to the cluster's, those of other proxies excepted. Runs until it is dropped.
pub async fn watch_services(
    client: Client,
    services: Writer<Arc<Service>>,
    status: watch::Sender<WatchStatus>,
) {
    let api = kube::Api::<ServiceObject>::all(client);
    let config = watcher::Config::default().labels(SELECTOR);
    run(api, config, Sink::new(services, status)).await;
}

/// Keeps `slices` equal to the lists of services' backends. Runs until it is dropped.
pub async fn watch_endpoint_slices(
    client: Client,
    slices: Writer<Arc<EndpointSlice>>,
    status: watch::Sender<WatchStatus>,
) {
    let api = kube::Api::<SliceObject>::all(client);
    let config = watcher::Config::default().labels(SELECTOR);
    run(api, config, Sink::new(slices, status)).await;
}

/// How long the API may be silent.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// The API ends a watch after so many seconds, and it is taken up again where it was: one that hangs ends a little later.
    watch_seconds: u32,
    /// Between two objects of a list.
    list: Duration,
}

const PATIENCE: Patience = Patience {
    watch_seconds: WATCH_SECONDS,
    list: Duration::from_secs(30),
};

async fn run<R>(api: kube::Api<R::Object>, config: watcher::Config, sink: Sink<R>)
where
    R: Parse,
    R::Object: Clone + DeserializeOwned + Debug + Send + 'static,
{
    run_with(api, config, sink, PATIENCE).await;
}

async fn run_with<R>(
    api: kube::Api<R::Object>,
    config: watcher::Config,
    mut sink: Sink<R>,
    patience: Patience,
) where
    R: Parse,
    R::Object: Clone + DeserializeOwned + Debug + Send + 'static,
{
    let probe = ListParams {
        field_selector: config.field_selector.clone(),
        label_selector: config.label_selector.clone(),
        limit: Some(1),
        ..ListParams::default()
    };
    let config = config.page_size(R::PAGE_SIZE).timeout(patience.watch_seconds);
    let mut answer = Box::pin(answers(&api, &probe));
    let mut pauses = Doubling::default();
    loop {
        // One list, and what follows it.
        let mut stream = pin!(start(api.clone(), config.clone()));
        let mut progress = Progress::default();
        loop {
            let down = !sink.status.borrow().connected;
            let limit = if progress.listed {
                Duration::MAX
            } else {
                patience.list
            };
            tokio::select! {
                event = tokio::time::timeout(limit, stream.next()) => match event {
                    Ok(Some(Ok(event))) => {
                        // That a list begins says nothing of the API.
                        if !matches!(event, Event::Init) {
                            pauses.reset();
                        }
                        progress.take(&event);
                        sink.take(event);
                    }
                    Ok(Some(Err(error))) => {
                        sink.failed(telemetry::log::with_causes(&error));
                        let again = progress.failed(&error);
                        tokio::time::sleep(pauses.after(&error)).await;
                        if again {
                            break;
                        }
                    }
                    Ok(None) => return,
                    Err(_) => {
                        let seconds = patience.list.as_secs_f32();
                        sink.failed(format!("the API has not gone on with a list for {seconds} s"));
                        break;
                    }
                },
                // A watch that was taken up again says nothing until an object changes: somebody has to ask.
                () = &mut answer, if down => {
                    sink.connected();
                    answer = Box::pin(answers(&api, &probe));
                }
            }
        }
    }
}

/// How far a list and the watches after it have come.
#[derive(Debug, Default)]
struct Progress {
    listed: bool,
    /// Watches in a row that the API refused to begin, though it answered.
    refused: u32,
}

impl Progress {
    fn take<K>(&mut self, event: &Event<K>) {
        self.refused = 0;
        match event {
            Event::Init => self.listed = false,
            Event::InitDone => self.listed = true,
            Event::InitApply(_) | Event::Apply(_) | Event::Delete(_) => {}
        }
    }

    /// Whether to begin anew with a list, where the watcher itself would go on as if nothing were missing.
    fn failed(&mut self, error: &watcher::Error) -> bool {
        match error {
            watcher::Error::WatchStartFailed(kube::Error::Api(status)) => {
                self.refused += u32::from(!matches!(status.code, 429 | 503));
                // Gone: where we were is too long ago. The same refusal again and again: it may be in the future, when the API's own
                // store was set back (504, "Too large resource version").
                status.code == 410 || self.refused >= REFUSED_MAX
            }
            // What could not be read is lost, unless it is the connection that broke.
            watcher::Error::WatchFailed(error) => !matches!(
                error,
                kube::Error::ReadEvents(_) | kube::Error::HyperError(_) | kube::Error::Service(_)
            ),
            watcher::Error::InitialListFailed(_)
            | watcher::Error::WatchStartFailed(_)
            | watcher::Error::WatchError(_)
            | watcher::Error::NoResourceVersion => false,
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
        let answer = tokio::time::timeout(ANSWER_PATIENCE, api.list_metadata(probe)).await;
        if matches!(answer, Ok(Ok(_))) {
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
    names: Names,
}

impl<R: Parse> Sink<R> {
    fn new(writer: Writer<R>, status: watch::Sender<WatchStatus>) -> Self {
        Self {
            writer,
            status,
            staged: Vec::new(),
            broken: BTreeSet::new(),
            names: Names::default(),
        }
    }

    fn take(&mut self, event: Event<R::Object>) {
        match event {
            // Nothing was heard of the API yet.
            Event::Init => return self.begin(),
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
        let result = R::parse(object, &mut self.names);
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

    fn failed(&self, text: String) {
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

impl Doubling {
    fn reset(&mut self) {
        *self = Self::default();
    }

    /// The pause after an error: not shorter than what the API asks for.
    fn after(&mut self, error: &watcher::Error) -> Duration {
        let pause = self.next().unwrap_or(BACKOFF_MOST);
        pause.max(asked_for(error).unwrap_or_default())
    }
}

fn asked_for(error: &watcher::Error) -> Option<Duration> {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status,
        watcher::Error::InitialListFailed(_)
        | watcher::Error::WatchStartFailed(_)
        | watcher::Error::WatchFailed(_)
        | watcher::Error::NoResourceVersion => return None,
    };
    let said = status
        .details
        .as_ref()
        .map_or(0, |details| details.retry_after_seconds);
    match (said, status.code) {
        (0, 429) => Some(BUSY_PAUSE),
        (0, _) => None,
        (seconds, _) => Some(Duration::from_secs(seconds.into()).min(BUSY_PAUSE_MOST)),
    }
}

/// A factor from 0.75 to 1.25, so that nodes do not move in step.
fn spread() -> f64 {
    use std::hash::{BuildHasher as _, RandomState};
    let random = RandomState::new().hash_one(0_u8) & 0xffff;
    0.75 + f64::from(u16::try_from(random).unwrap_or_default()) / 131_072.0
}

#[cfg(test)]
mod faults;
#[cfg(test)]
mod tests;
