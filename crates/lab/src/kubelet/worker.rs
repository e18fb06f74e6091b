// SPDX-License-Identifier: Apache-2.0
//! One pod's life on its node.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container as Spec, Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, ResourceExt as _};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::container::{Container, Event, News, Role, Surroundings};
use super::network::NetworkState;
use super::sandbox::{self, Sandbox};
use super::status::{self, View, restart_policy};
use super::{Node, blocking, probe};
use crate::controllers::{Reporter, Severity, has_code, is_newer, pause_after};
use crate::{PodRecord, cgroup};

/// How many pieces of news of a pod's containers may wait.
const NEWS_QUEUE: usize = 64;
/// How long a pod has to end when it does not say.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// Lives a pod's life until it is gone from the node and, if it was deleted there, from the API. A closed channel says that
/// the API does not know it any more.
pub(super) async fn run(client: Client, node: Arc<Node>, pods: watch::Receiver<Arc<Pod>>) {
    let pod = Arc::clone(&pods.borrow());
    let (news, events) = mpsc::channel(NEWS_QUEUE);
    let worker = Worker {
        api: Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default()),
        reporter: Reporter::new(client, "kubelet", Some(&node.handle.name)),
        uid: pod.uid().unwrap_or_default(),
        containers: containers(&pod),
        over: status::is_over(phase(&pod)),
        node,
        pods,
        pod,
        in_api: true,
        sandbox: None,
        attempts: 0,
        try_at: None,
        published: None,
        failures: 0,
        news,
        events,
    };
    worker.run().await;
}

struct Worker {
    api: Api<Pod>,
    node: Arc<Node>,
    reporter: Reporter,
    pods: watch::Receiver<Arc<Pod>>,
    pod: Arc<Pod>,
    uid: String,
    /// Whether the API still has the pod.
    in_api: bool,
    /// Whether the pod has ended for good.
    over: bool,
    sandbox: Option<Sandbox>,
    /// Failed attempts to make the sandbox, in a row.
    attempts: u32,
    /// When to try again.
    try_at: Option<Instant>,
    containers: Vec<Container>,
    published: Option<PodStatus>,
    /// Failed attempts to publish the status, in a row.
    failures: u32,
    news: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
}

impl Worker {
    async fn run(mut self) {
        while !self.is_leaving() {
            self.converge().await;
            self.publish().await;
            self.wait().await;
        }
        self.leave().await;
    }

    fn is_leaving(&self) -> bool {
        !self.in_api || self.pod.metadata.deletion_timestamp.is_some()
    }

    /// Waits until something happened, and takes it in.
    async fn wait(&mut self) {
        let wake = self.wake_at();
        let needs_network = self.sandbox.is_none() && !self.over && self.try_at.is_none();
        let mut network = self.node.network.clone();
        tokio::select! {
            biased;
            changed = self.pods.changed() => self.pod_changed(changed.is_ok()),
            Some(event) = self.events.recv() => self.take(event).await,
            () = lost(&mut self.sandbox) => self.sandbox_lost().await,
            () = network_ready(&mut network), if needs_network => {}
            () = until(wake) => {}
        }
    }

    fn pod_changed(&mut self, in_api: bool) {
        self.in_api = in_api;
        let news = Arc::clone(&self.pods.borrow_and_update());
        if !is_newer(self.pod.as_ref(), news.as_ref()) {
            self.pod = news;
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        let publish = (self.failures > 0).then(|| Instant::now() + pause_after(self.failures));
        if self.over {
            return publish;
        }
        let starts = self
            .containers
            .iter()
            .filter_map(Container::start_at)
            .filter(|at| *at > Instant::now());
        let starts = starts.filter(|_| self.sandbox.is_some());
        starts.chain(self.try_at).chain(publish).min()
    }

    /// Starts what should run and does not.
    async fn converge(&mut self) {
        if self.over {
            return;
        }
        if self.sandbox.is_none() && !self.make_sandbox().await {
            return;
        }
        for index in 0..self.containers.len() {
            self.start_if_due(index).await;
            let container = &self.containers[index];
            let go_on = match container.role {
                Role::Init => container.ended_with() == Some(0),
                Role::Sidecar => container.is_started(),
                Role::Main => true,
            };
            if !go_on {
                break;
            }
        }
        if status::is_over(phase_of(&self.status())) {
            self.end().await;
        }
    }

    async fn start_if_due(&mut self, index: usize) {
        let Some(sandbox) = &self.sandbox else { return };
        let container = &mut self.containers[index];
        if container.start_at().is_none_or(|at| at > Instant::now()) {
            return;
        }
        let around = Surroundings {
            node: &self.node,
            pod: &self.pod,
            uid: &self.uid,
            sandbox,
        };
        let restart = restarts(&self.pod, container.role, 1);
        container.start(index, around, &self.news, restart).await;
    }

    /// False when there is none yet.
    async fn make_sandbox(&mut self) -> bool {
        let host_network = self.pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
        let state = self.node.network.borrow().clone();
        let network = match state {
            NetworkState::Ready(conflist) => conflist,
            NetworkState::NotReady(_) if host_network => Arc::default(),
            NetworkState::NotReady(why) => {
                debug!(why, "waiting for the network");
                return false;
            }
        };
        if self.try_at.is_some_and(|at| at > Instant::now()) {
            return false;
        }
        self.try_at = None;
        let made = {
            let _attaching = self.node.attaching.read().await;
            sandbox::create(&self.node, &self.pod, &network).await
        };
        match made {
            Ok(sandbox) => {
                self.attempts = 0;
                self.sandbox = Some(sandbox);
                true
            }
            Err(error) => {
                warn!(%error, "no sandbox; trying again");
                let message = format!("Failed to create pod sandbox: {error}");
                self.remove_sandbox().await;
                self.attempts += 1;
                self.try_at = Some(Instant::now() + pause_after(self.attempts));
                self.reporter
                    .report(
                        self.pod.as_ref(),
                        Severity::Warning,
                        "FailedCreatePodSandBox",
                        &message,
                    )
                    .await;
                false
            }
        }
    }

    /// Kills what is left in the sandbox and detaches it. False when something stays behind.
    async fn remove_sandbox(&mut self) -> bool {
        if let Some(process) = self.sandbox.take().and_then(|sandbox| sandbox.process) {
            // Gone is what is wanted.
            let _ = process.signal(Signal::SIGKILL);
        }
        let detached = sandbox::detach(&self.node, &self.uid).await;
        let Some(path) = self
            .node
            .handle
            .cgroup
            .as_ref()
            .map(|own| own.join("pods").join(&self.uid))
        else {
            return detached;
        };
        match blocking(move || cgroup::destroy(&path)).await {
            Ok(()) => detached,
            Err(error) => {
                warn!(%error, "processes of the pod not removed");
                false
            }
        }
    }

    async fn sandbox_lost(&mut self) {
        warn!("the sandbox is gone; making it anew");
        let message = "Pod sandbox changed, it will be killed and re-created.";
        self.reporter
            .report(self.pod.as_ref(), Severity::Normal, "SandboxChanged", message)
            .await;
        for container in &self.containers {
            container.kill(&self.node, &self.uid).await;
        }
        self.remove_sandbox().await;
    }

    async fn take(&mut self, event: Event) {
        let Event {
            container: index,
            run,
            news,
        } = event;
        if self.containers[index].run != run {
            return;
        }
        match news {
            News::Exited(code) => self.exited(index, code).await,
            News::Unhealthy {
                probe,
                message,
                restart,
            } => {
                self.reporter
                    .report(self.pod.as_ref(), Severity::Warning, "Unhealthy", &message)
                    .await;
                if restart {
                    info!(
                        container = self.containers[index].spec.name,
                        probe, "restarting an unhealthy container"
                    );
                    self.stop(vec![index], self.grace()).await;
                }
            }
            News::Started | News::Ready(_) => self.containers[index].probed(&news),
        }
    }

    /// What a container's process leaves behind when it ends dies with it.
    async fn exited(&mut self, index: usize, code: std::process::ExitStatus) {
        self.containers[index].kill(&self.node, &self.uid).await;
        let leaving = self.is_leaving();
        let pod = Arc::clone(&self.pod);
        let role = self.containers[index].role;
        self.containers[index].exited(code, |code| !leaving && restarts(&pod, role, code));
    }

    /// Ends containers: their preStop hooks, SIGTERM, and SIGKILL after the grace period or when the pod's deletion is hurried.
    async fn stop(&mut self, which: Vec<usize>, grace: Duration) {
        let running: Vec<usize> = which
            .into_iter()
            .filter(|index| self.containers[*index].is_running())
            .collect();
        let began = Instant::now();
        let mut deadline = began + grace;
        for index in &running {
            self.containers[*index].stop_probes();
        }
        let hooks = running.iter().map(|index| self.pre_stop(*index));
        // A hook may take the whole grace period, not more.
        let _ = tokio::time::timeout_at(deadline, futures::future::join_all(hooks)).await;
        for index in &running {
            self.containers[*index].signal(Signal::SIGTERM);
        }
        while running.iter().any(|index| self.containers[*index].is_running()) {
            tokio::select! {
                biased;
                changed = self.pods.changed(), if self.in_api => {
                    self.pod_changed(changed.is_ok());
                    deadline = deadline.min(began + self.grace());
                }
                Some(event) = self.events.recv() => self.take_exit(event).await,
                () = tokio::time::sleep_until(deadline) => {
                    for index in &running {
                        self.containers[*index].kill(&self.node, &self.uid).await;
                    }
                    deadline = Instant::now() + DEFAULT_GRACE;
                }
            }
        }
    }

    async fn take_exit(&mut self, event: Event) {
        if let News::Exited(code) = event.news
            && self.containers[event.container].run == event.run
        {
            self.exited(event.container, code).await;
        }
    }

    fn pre_stop(&self, index: usize) -> impl Future<Output = ()> + use<> {
        let container = &self.containers[index];
        let hook = container
            .spec
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.pre_stop.clone());
        let target = self.sandbox.as_ref().map(|sandbox| probe::Target {
            node: Arc::clone(&self.node),
            place: sandbox.place(&self.uid, &container.spec.name),
            environment: container.environment.clone(),
            ip: sandbox.ips.first().copied(),
        });
        async move {
            let (Some(hook), Some(target)) = (hook, target) else {
                return;
            };
            if let Some(sleep) = &hook.sleep {
                tokio::time::sleep(Duration::from_secs(
                    u64::try_from(sleep.seconds).unwrap_or_default(),
                ))
                .await;
            }
            if let Some(exec) = &hook.exec
                && let Err(why) = probe::run(exec.command.as_deref().unwrap_or_default(), &target).await
            {
                warn!(why, "preStop hook failed");
            }
        }
    }

    /// How long the pod may take to end: what its deletion says, else what it says itself. None when the API has removed it
    /// already.
    fn grace(&self) -> Duration {
        if !self.in_api {
            return Duration::ZERO;
        }
        let spec = self
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.termination_grace_period_seconds);
        let seconds = self.pod.metadata.deletion_grace_period_seconds.or(spec);
        seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(DEFAULT_GRACE, Duration::from_secs)
    }

    /// Sidecars end after the others, as they began before them.
    async fn stop_all(&mut self) {
        let of = |worker: &Self, sidecars: bool| {
            let all = worker.containers.iter().enumerate();
            all.filter(|(_, c)| (c.role == Role::Sidecar) == sidecars)
                .map(|(index, _)| index)
                .collect::<Vec<_>>()
        };
        let began = Instant::now();
        self.stop(of(self, false), self.grace()).await;
        let left = self.grace().saturating_sub(began.elapsed());
        self.stop(of(self, true), left).await;
    }

    /// The pod has done its work: its network and processes go, its record in the API stays.
    async fn end(&mut self) {
        info!("pod ended");
        self.over = true;
        self.stop_all().await;
        self.remove_sandbox_for_good().await;
    }

    /// The pod is being deleted.
    async fn leave(mut self) {
        self.stop_all().await;
        self.remove_sandbox_for_good().await;
        if let Err(error) = std::fs::remove_dir_all(self.node.log_dir(&self.pod))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            warn!(%error, "logs of the pod not removed");
        }
        if self.in_api {
            self.publish().await;
            self.delete().await;
        }
        debug!("pod is gone");
    }

    async fn remove_sandbox_for_good(&mut self) {
        let mut failures = 0;
        while !self.remove_sandbox().await {
            failures += 1;
            tokio::time::sleep(pause_after(failures)).await;
        }
        let (namespace, name) = (self.pod.namespace().unwrap_or_default(), self.pod.name_any());
        if let Err(error) = PodRecord::remove(&self.node.handle.dir, &namespace, &name) {
            warn!(%error, "record of the pod not removed");
        }
    }

    /// Takes the pod out of the API, now that nothing of it is left.
    async fn delete(&mut self) {
        let only_it = Preconditions {
            uid: Some(self.uid.clone()),
            resource_version: None,
        };
        let at_once = DeleteParams::default().grace_period(0).preconditions(only_it);
        let mut failures = 0;
        loop {
            match self.api.delete(&self.pod.name_any(), &at_once).await {
                Ok(_) => return,
                Err(error) if has_code(&error, 404) || has_code(&error, 409) => return,
                Err(error) => {
                    debug!(%error, "pod not removed from the API; trying again");
                    failures += 1;
                    tokio::time::sleep(pause_after(failures)).await;
                }
            }
        }
    }

    fn status(&self) -> PodStatus {
        let of = |main: bool| {
            let all = self
                .containers
                .iter()
                .filter(move |c| (c.role == Role::Main) == main);
            all.map(Container::status).collect()
        };
        let sidecars = self.containers.iter().filter(|c| c.role == Role::Sidecar);
        let view = View {
            sandbox: self.sandbox.is_some(),
            host_ips: self.node.handle.addresses.clone(),
            pod_ips: self
                .sandbox
                .as_ref()
                .map(|sandbox| sandbox.ips.clone())
                .unwrap_or_default(),
            init: of(false),
            sidecars: sidecars.map(|c| c.spec.name.clone()).collect(),
            containers: of(true),
        };
        status::status(&self.pod, &view, &Time(Timestamp::now()))
    }

    /// Writes the status where it changed: to the API, and to the node's files.
    async fn publish(&mut self) {
        let status = self.status();
        if self.published.as_ref() == Some(&status) {
            return;
        }
        self.record(&status);
        let patch = Patch::Merge(json!({ "metadata": { "uid": self.uid }, "status": with_nulls(&status) }));
        match self
            .api
            .patch_status(&self.pod.name_any(), &PatchParams::default(), &patch)
            .await
        {
            Ok(written) => {
                self.failures = 0;
                self.published = Some(status);
                if !is_newer(self.pod.as_ref(), &written) {
                    self.pod = Arc::new(written);
                }
            }
            // Gone, or another pod by now: the watch is about to say so.
            Err(error) if has_code(&error, 404) || has_code(&error, 409) => self.published = Some(status),
            Err(error) => {
                self.failures += 1;
                debug!(%error, "status not written; trying again");
            }
        }
    }

    fn record(&self, status: &PodStatus) {
        let Some(sandbox) = &self.sandbox else { return };
        let conditions = status.conditions.iter().flatten();
        let record = PodRecord {
            namespace: self.pod.namespace().unwrap_or_default(),
            name: self.pod.name_any(),
            uid: self.uid.clone(),
            node: self.node.handle.name.clone(),
            ips: sandbox.ips.clone(),
            sandbox: sandbox.process,
            ready: conditions
                .into_iter()
                .any(|c| c.type_ == "Ready" && c.status == "True"),
        };
        if let Err(error) = record.save(&self.node.handle.dir) {
            warn!(%error, "record of the pod not written");
        }
    }
}

/// The pod's containers in the order in which they start.
fn containers(pod: &Pod) -> Vec<Container> {
    let spec = pod.spec.clone().unwrap_or_default();
    let role = |spec: &Spec| {
        if spec.restart_policy.as_deref() == Some("Always") {
            Role::Sidecar
        } else {
            Role::Init
        }
    };
    let init = spec
        .init_containers
        .unwrap_or_default()
        .into_iter()
        .map(|spec| (role(&spec), spec));
    let main = spec.containers.into_iter().map(|spec| (Role::Main, spec));
    init.chain(main)
        .map(|(role, spec)| Container::new(spec, role))
        .collect()
}

/// Whether a container that ended with that code is started again.
fn restarts(pod: &Pod, role: Role, code: i32) -> bool {
    match (role, restart_policy(pod)) {
        (Role::Sidecar, _) => true,
        (Role::Init, "Never") => false,
        (Role::Init, _) => code != 0,
        (Role::Main, "Always") => true,
        (Role::Main, "OnFailure") => code != 0,
        (Role::Main, _) => false,
    }
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().map(phase_of).unwrap_or_default()
}

fn phase_of(status: &PodStatus) -> &str {
    status.phase.as_deref().unwrap_or_default()
}

/// A merge patch without a field leaves it; null removes it.
fn with_nulls(status: &PodStatus) -> Value {
    let mut value = json!(status);
    if let Value::Object(fields) = &mut value {
        for name in ["podIP", "podIPs", "containerStatuses", "initContainerStatuses"] {
            fields.entry(name).or_insert(Value::Null);
        }
    }
    value
}

async fn network_ready(network: &mut watch::Receiver<NetworkState>) {
    // A closed channel means that the kubelet is about to stop.
    let _ = network.wait_for(NetworkState::is_ready).await;
}

async fn lost(sandbox: &mut Option<Sandbox>) {
    match sandbox {
        Some(sandbox) => sandbox.lost().await,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
