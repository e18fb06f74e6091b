// SPDX-License-Identifier: Apache-2.0
//! A kubelet: makes of the Pods bound to a node what a container runtime would.
//!
//! A pod is a network and a UTS namespace held by one process, attached by the CNI plugins that the node's configuration
//! names; its containers are processes in them that see the host's files. Images, volumes, resource limits and security
//! contexts are ignored; a container without a command sleeps. Restarts back off from one second, not ten. After a
//! restart of the kubelet pods are made anew. Begin with [`run`].

pub mod cni;
mod container;
mod env;
mod log;
mod log_dirs;
mod network;
mod probe;
mod registration;
mod runtime;
mod sandbox;
mod status;
mod sweep;
mod worker;

pub use runtime::Runtime;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::{RwLock, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info_span};

use crate::controllers::{Key, Watched};
use crate::hold::Hold;
use crate::{Error, NodeHandle, Place};
use network::NetworkState;

/// What a kubelet is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node.
    pub node: NodeHandle,
    /// The command that holds a pod's namespaces, see [`Hold::run`].
    pub hold: fn(&Hold) -> std::process::Command,
}

/// What all workers of a kubelet share.
#[derive(Debug)]
struct Node {
    handle: NodeHandle,
    hold: fn(&Hold) -> std::process::Command,
    network: watch::Receiver<NetworkState>,
    /// Where results of CNI calls are kept.
    cni_cache: PathBuf,
    /// Held (shared) while a pod is being attached: what plugins are told to keep must not change under them.
    attaching: RwLock<()>,
}

impl Node {
    /// Starts a process in the node. Forking and making namespaces takes milliseconds: not on the runtime's thread.
    async fn spawn(
        self: &Arc<Self>,
        command: tokio::process::Command,
        place: Place,
    ) -> Result<tokio::process::Child, Error> {
        let node = Arc::clone(self);
        blocking(move || node.handle.spawn_in(command, &place)).await
    }

    /// Where the logs of a pod's containers are.
    fn log_dir(&self, pod: &Pod) -> PathBuf {
        let uid = pod.uid().unwrap_or_default();
        log_dirs::of(
            &self.handle.dir,
            &pod.namespace().unwrap_or_default(),
            &pod.name_any(),
            &uid,
        )
    }
}

/// Runs the kubelet of one node until the shutdown; its pods then stay as they are.
///
/// # Errors
/// When the node's files or namespaces are not there.
pub async fn run(client: Client, config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let (states, network) = watch::channel(NetworkState::default());
    let cni_cache = config.node.dir.join("cni-cache");
    let attaching = RwLock::new(());
    let node = Arc::new(Node {
        handle: config.node,
        hold: config.hold,
        network,
        cni_cache,
        attaching,
    });
    let span = info_span!("kubelet", node = node.handle.name);
    let work = async {
        sweep::leftovers(&node).await;
        tokio::join!(
            network::observe(&node, states),
            registration::keep(&client, &node),
            sweep::collect(&node),
            Pods::new(&client, &node).run(),
        );
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = work.instrument(span) => {}
    }
    Ok(())
}

/// The pods of a node: one worker each.
struct Pods {
    client: Client,
    node: Arc<Node>,
    pods: Watched<Pod>,
    /// By UID; a closed channel tells the worker that its pod is gone from the API.
    workers: BTreeMap<String, watch::Sender<Arc<Pod>>>,
    tasks: JoinSet<String>,
}

impl Pods {
    fn new(client: &Client, node: &Arc<Node>) -> Self {
        let ours = watcher::Config::default().fields(&format!("spec.nodeName={}", node.handle.name));
        Self {
            client: client.clone(),
            node: Arc::clone(node),
            pods: Watched::new(Api::all(client.clone()), ours),
            workers: BTreeMap::new(),
            tasks: JoinSet::new(),
        }
    }

    async fn run(mut self) {
        loop {
            tokio::select! {
                () = self.pods.changed() => self.dispatch(),
                Some(done) = self.tasks.join_next() => self.finished(done.unwrap_or_default()),
            }
        }
    }

    fn dispatch(&mut self) {
        let mut gone: Vec<String> = self.workers.keys().cloned().collect();
        for pod in self.pods.values() {
            let uid = pod.uid().unwrap_or_default();
            gone.retain(|known| *known != uid);
            match self.workers.get(&uid) {
                Some(worker) => {
                    worker.send_if_modified(|known| {
                        let news = known.resource_version() != pod.resource_version();
                        *known = Arc::clone(pod);
                        news
                    });
                }
                None => {
                    let (sender, receiver) = watch::channel(Arc::clone(pod));
                    self.workers.insert(uid.clone(), sender);
                    let span = info_span!("pod", pod = %Key::of(pod.as_ref()));
                    let work = worker::run(self.client.clone(), Arc::clone(&self.node), receiver);
                    self.tasks.spawn(
                        async move {
                            work.await;
                            uid
                        }
                        .instrument(span),
                    );
                }
            }
        }
        for uid in gone {
            self.workers.remove(&uid);
        }
    }

    /// A worker ends when its pod is gone here; if the API still shows the pod, its watch is about to say otherwise.
    fn finished(&mut self, uid: String) {
        self.workers.remove(&uid);
    }
}

/// Runs what blocks on a thread of the runtime's pool.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down: nobody waits for the value.
            Err(_) => std::future::pending().await,
        },
    }
}
