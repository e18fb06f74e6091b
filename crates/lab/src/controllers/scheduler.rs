// SPDX-License-Identifier: Apache-2.0
//! Binds pods to nodes; the decision is in [`super::placement`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{Binding, Node, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::drive::{Controller, drive, has_code, unless_gone};
use super::events::{Reporter, Severity};
use super::placement::{Load, place};
use super::watched::{Key, Watched};

/// How many bindings are under way at once.
const PARALLEL_BINDINGS: usize = 16;
/// The scheduler that pods name when they name none.
const SCHEDULER_NAME: &str = "default-scheduler";

/// Runs the scheduler until the shutdown.
pub async fn run(client: Client, shutdown: CancellationToken) {
    let scheduler = Scheduler {
        nodes: Watched::new(Api::all(client.clone()), watcher::Config::default()),
        pods: Watched::new(Api::all(client.clone()), watcher::Config::default()),
        reporter: Reporter::new(client.clone(), SCHEDULER_NAME, None),
        client,
    };
    drive(scheduler, shutdown).await;
}

struct Scheduler {
    client: Client,
    nodes: Watched<Node>,
    pods: Watched<Pod>,
    reporter: Reporter,
}

impl Controller for Scheduler {
    const NAME: &'static str = "scheduler";

    async fn changed(&mut self) {
        tokio::select! {
            () = self.nodes.changed() => {}
            () = self.pods.changed() => {}
        }
    }

    fn synced(&self) -> bool {
        self.nodes.synced() && self.pods.synced()
    }

    async fn reconcile(&mut self) -> Result<Option<Duration>, kube::Error> {
        let nodes: Vec<Arc<Node>> = self.nodes.values().map(Arc::clone).collect();
        let mut loads = loads(self.pods.values());
        let mut bindings = Vec::new();
        let mut refused = Vec::new();
        for pod in self.pods.values().filter(|pod| is_waiting(pod)) {
            match place(pod, &nodes, &loads) {
                Ok(node) => {
                    loads.entry(node.clone()).or_default().add(pod);
                    bindings.push((Arc::clone(pod), node));
                }
                Err(why) => refused.push((Arc::clone(pod), why)),
            }
        }
        self.bind(bindings).await?;
        for (pod, why) in refused {
            self.refuse(&pod, &why).await?;
        }
        Ok(None)
    }
}

impl Scheduler {
    async fn bind(&mut self, bindings: Vec<(Arc<Pod>, String)>) -> Result<(), kube::Error> {
        let client = &self.client;
        let bound: Vec<Pod> = stream::iter(bindings)
            .map(|(pod, node)| async move {
                bind(client, &pod, &node)
                    .await
                    .map(|bound| bound.then(|| as_bound(&pod, node)))
            })
            .buffer_unordered(PARALLEL_BINDINGS)
            .try_filter_map(|pod| std::future::ready(Ok(pod)))
            .try_collect()
            .await?;
        for pod in &bound {
            let node = pod
                .spec
                .as_ref()
                .and_then(|spec| spec.node_name.as_deref())
                .unwrap_or_default();
            let message = format!("Successfully assigned {} to {node}", Key::of(pod));
            self.reporter
                .report(pod, Severity::Normal, "Scheduled", &message)
                .await;
        }
        for pod in bound {
            self.pods.written(pod);
        }
        Ok(())
    }

    /// Tells the pod why it waits, once per reason.
    async fn refuse(&mut self, pod: &Pod, why: &str) -> Result<(), kube::Error> {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        let said = conditions
            .into_iter()
            .flatten()
            .any(|c| c.type_ == "PodScheduled" && c.status == "False" && c.message.as_deref() == Some(why));
        if said {
            return Ok(());
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let condition = json!({
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why,
            "lastTransitionTime": Time(Timestamp::now()),
        });
        // Strategic: the list is merged by type, so conditions of others stay.
        let patch = Patch::Strategic(json!({ "status": { "phase": "Pending", "conditions": [condition] } }));
        let answer = api
            .patch_status(&pod.name_any(), &PatchParams::default(), &patch)
            .await;
        if let Some(pod) = unless_gone(answer)? {
            self.pods.written(pod);
        }
        self.reporter
            .report(pod, Severity::Warning, "FailedScheduling", why)
            .await;
        Ok(())
    }
}

/// False when the pod is gone, or bound by somebody else: its watch tells.
async fn bind(client: &Client, pod: &Pod, node: &str) -> Result<bool, kube::Error> {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let binding = Binding {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace.clone()),
            uid: pod.uid(),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        },
    };
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let answer: Result<serde_json::Value, _> = api
        .create_subresource("binding", &name, &PostParams::default(), &binding)
        .await;
    match answer {
        Ok(_) => {
            debug!(pod = %Key::new(namespace, name), node, "bound");
            Ok(true)
        }
        Err(error) if has_code(&error, 404) || has_code(&error, 409) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The pod as the server has it after the binding, as far as the next round needs it.
fn as_bound(pod: &Pod, node: String) -> Pod {
    let mut pod = pod.clone();
    pod.spec.get_or_insert_default().node_name = Some(node);
    // Whatever the watch brings next is newer.
    pod.metadata.resource_version = None;
    pod
}

fn loads<'a>(pods: impl Iterator<Item = &'a Arc<Pod>>) -> BTreeMap<String, Load> {
    let mut loads: BTreeMap<String, Load> = BTreeMap::new();
    for pod in pods.filter(|pod| !is_finished(pod)) {
        if let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) {
            loads.entry(node.clone()).or_default().add(pod);
        }
    }
    loads
}

fn is_waiting(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let ours = spec
        .scheduler_name
        .as_deref()
        .is_none_or(|name| name.is_empty() || name == SCHEDULER_NAME);
    let gated = spec
        .scheduling_gates
        .as_ref()
        .is_some_and(|gates| !gates.is_empty());
    let unbound = spec.node_name.as_deref().unwrap_or_default().is_empty();
    ours && !gated && unbound && !is_finished(pod) && pod.metadata.deletion_timestamp.is_none()
}

fn is_finished(pod: &Pod) -> bool {
    matches!(
        pod.status.as_ref().and_then(|s| s.phase.as_deref()),
        Some("Succeeded" | "Failed")
    )
}
