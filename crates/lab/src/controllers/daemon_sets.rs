// SPDX-License-Identifier: Apache-2.0
//! One pod of each DaemonSet on every node that takes it. A changed template replaces pods one node at a time.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod, Toleration};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::drive::{Controller, FirstFailure, drive, unless_going, unless_gone};
use super::placement::{matches_node, tolerated};
use super::replica_sets::delete_pod;
use super::replicas::{active_pods, controller_ref, count, nonzero, pod_of};
use super::slices::is_ready;
use super::watched::{Key, Watched};

/// The label that says which template a pod was made from.
const REVISION_LABEL: &str = "controller-revision-hash";

/// Runs the controller until the shutdown.
pub async fn run(client: Client, shutdown: CancellationToken) {
    let controller = DaemonSets {
        sets: Watched::new(Api::all(client.clone()), watcher::Config::default()),
        pods: Watched::new(Api::all(client.clone()), watcher::Config::default()),
        nodes: Watched::new(Api::all(client.clone()), watcher::Config::default()),
        client,
    };
    drive(controller, shutdown).await;
}

struct DaemonSets {
    client: Client,
    sets: Watched<DaemonSet>,
    pods: Watched<Pod>,
    nodes: Watched<Node>,
}

impl Controller for DaemonSets {
    const NAME: &'static str = "daemon-sets";

    async fn changed(&mut self) {
        tokio::select! {
            () = self.sets.changed() => {}
            () = self.pods.changed() => {}
            () = self.nodes.changed() => {}
        }
    }

    fn synced(&self) -> bool {
        self.sets.synced() && self.pods.synced() && self.nodes.synced()
    }

    async fn reconcile(&mut self) -> Result<Option<Duration>, kube::Error> {
        let nodes: Vec<Arc<Node>> = self.nodes.values().map(Arc::clone).collect();
        let sets: Vec<Arc<DaemonSet>> = self.sets.values().map(Arc::clone).collect();
        let mut failure = FirstFailure::default();
        for set in sets {
            if set.metadata.deletion_timestamp.is_none() {
                let pods = active_pods(set.as_ref(), self.pods.values());
                failure.note(self.write_pods(&set, plan(&set, &nodes, &pods)).await);
            }
            failure.note(self.write_status(&set, &nodes).await);
        }
        failure.outcome()?;
        Ok(None)
    }
}

impl DaemonSets {
    async fn write_pods(&mut self, set: &DaemonSet, plan: Plan) -> Result<(), kube::Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &set.namespace().unwrap_or_default());
        for pod in plan.create {
            if let Some(pod) = unless_going(api.create(&PostParams::default(), &pod).await)? {
                self.pods.written(pod);
            }
        }
        for pod in plan.delete {
            match delete_pod(&api, &pod).await? {
                Some(going) => self.pods.written(going),
                None => self.pods.removed(&Key::of(pod.as_ref())),
            }
        }
        Ok(())
    }

    async fn write_status(&mut self, set: &DaemonSet, nodes: &[Arc<Node>]) -> Result<(), kube::Error> {
        let status = status(set, nodes, &active_pods(set, self.pods.values()));
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let api: Api<DaemonSet> = Api::namespaced(self.client.clone(), &set.namespace().unwrap_or_default());
        let patch = Patch::Merge(json!({ "status": {
            "currentNumberScheduled": status.current_number_scheduled,
            "desiredNumberScheduled": status.desired_number_scheduled,
            "numberMisscheduled": status.number_misscheduled, "numberReady": status.number_ready,
            "numberAvailable": status.number_available, "numberUnavailable": status.number_unavailable,
            "updatedNumberScheduled": status.updated_number_scheduled,
            "observedGeneration": status.observed_generation,
        } }));
        if let Some(set) = unless_gone(
            api.patch_status(&set.name_any(), &PatchParams::default(), &patch)
                .await,
        )? {
            self.sets.written(set);
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Plan {
    create: Vec<Pod>,
    delete: Vec<Arc<Pod>>,
}

/// Missing pods are made and strays removed at once; of the outdated ones, the unready all and of the ready one, when all
/// others are ready.
fn plan(set: &DaemonSet, nodes: &[Arc<Node>], pods: &[Arc<Pod>]) -> Plan {
    let mut plan = Plan::default();
    let mut by_node: BTreeMap<&str, Vec<&Arc<Pod>>> = BTreeMap::new();
    for pod in pods {
        by_node.entry(node_of(pod)).or_default().push(pod);
    }
    for node in nodes.iter().filter(|node| takes(set, node)) {
        match by_node.remove(node.name_any().as_str()) {
            None => plan.create.push(new_pod(set, &node.name_any())),
            Some(here) => plan.delete.extend(here.into_iter().skip(1).map(Arc::clone)),
        }
    }
    plan.delete
        .extend(by_node.into_values().flatten().map(Arc::clone));
    let on_delete = set
        .spec
        .as_ref()
        .and_then(|s| s.update_strategy.as_ref())
        .and_then(|s| s.type_.as_deref());
    if plan.delete.is_empty() && on_delete != Some("OnDelete") {
        let outdated = || pods.iter().filter(|pod| !is_updated(set, pod));
        plan.delete
            .extend(outdated().filter(|pod| !is_ready(pod)).map(Arc::clone));
        if plan.create.is_empty() && plan.delete.is_empty() && pods.iter().all(|pod| is_ready(pod)) {
            plan.delete.extend(outdated().take(1).map(Arc::clone));
        }
    }
    plan
}

fn status(set: &DaemonSet, nodes: &[Arc<Node>], pods: &[Arc<Pod>]) -> DaemonSetStatus {
    let desired: Vec<String> = nodes
        .iter()
        .filter(|node| takes(set, node))
        .map(|node| node.name_any())
        .collect();
    let (placed, stray): (Vec<_>, Vec<_>) = pods
        .iter()
        .partition(|pod| desired.iter().any(|name| name == node_of(pod)));
    let ready = count(placed.iter().filter(|pod| is_ready(pod)).count());
    let updated = count(placed.iter().filter(|pod| is_updated(set, pod)).count());
    DaemonSetStatus {
        current_number_scheduled: count(placed.len()),
        desired_number_scheduled: count(desired.len()),
        number_misscheduled: count(stray.len()),
        number_ready: ready,
        number_available: nonzero(ready),
        number_unavailable: nonzero(count(desired.len()) - ready),
        updated_number_scheduled: nonzero(updated),
        observed_generation: set.metadata.generation,
        ..DaemonSetStatus::default()
    }
}

/// A daemon runs wherever its selectors and tolerations let it, also on nodes that are not ready or cordoned.
fn takes(set: &DaemonSet, node: &Node) -> bool {
    let pod = new_pod(set, &node.name_any());
    let Some(spec) = &pod.spec else { return false };
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    node.metadata.deletion_timestamp.is_none()
        && matches_node(spec, node)
        && taints.into_iter().flatten().all(|taint| tolerated(spec, taint))
}

fn new_pod(set: &DaemonSet, node: &str) -> Pod {
    let template = set
        .spec
        .as_ref()
        .map(|spec| spec.template.clone())
        .unwrap_or_default();
    let mut pod = pod_of(&template, controller_ref(set), set.namespace());
    pod.labels_mut().insert(REVISION_LABEL.into(), revision(set));
    let spec = pod.spec.get_or_insert_default();
    spec.node_name = Some(node.to_owned());
    let tolerations = spec.tolerations.get_or_insert_default();
    for key in [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
        "node.kubernetes.io/unschedulable",
    ] {
        let operator = Some("Exists".into());
        tolerations.push(Toleration {
            key: Some(key.into()),
            operator,
            ..Toleration::default()
        });
    }
    pod
}

fn node_of(pod: &Pod) -> &str {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref())
        .unwrap_or_default()
}

fn is_updated(set: &DaemonSet, pod: &Pod) -> bool {
    pod.labels().get(REVISION_LABEL) == Some(&revision(set))
}

fn revision(set: &DaemonSet) -> String {
    let mut hasher = DefaultHasher::new();
    let template = set.spec.as_ref().map(|spec| &spec.template);
    serde_json::to_string(&template)
        .unwrap_or_default()
        .hash(&mut hasher);
    format!("{:x}", hasher.finish() & 0xff_ffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(image: &str) -> DaemonSet {
        serde_json::from_value(json!({
            "metadata": { "name": "d", "namespace": "default", "uid": "ds" },
            "spec": { "selector": { "matchLabels": { "app": "d" } }, "template": {
                "metadata": { "labels": { "app": "d" } },
                "spec": { "containers": [{ "name": "c", "image": image }], "nodeSelector": { "pool": "a" } } } },
        }))
        .unwrap()
    }

    fn node(name: &str, pool: &str) -> Arc<Node> {
        Arc::new(
            serde_json::from_value(json!({ "metadata": { "name": name, "labels": { "pool": pool } } }))
                .unwrap(),
        )
    }

    fn ready(mut pod: Pod) -> Arc<Pod> {
        pod.status =
            serde_json::from_value(json!({ "conditions": [{ "type": "Ready", "status": "True" }] })).unwrap();
        Arc::new(pod)
    }

    #[test]
    fn every_selected_node_gets_one_pod_and_strays_go() {
        let nodes = [node("n1", "a"), node("n2", "a"), node("n3", "b")];
        let pods = [ready(new_pod(&set("i"), "n1")), ready(new_pod(&set("i"), "n3"))];
        let plan = plan(&set("i"), &nodes, &pods);
        assert_eq!(plan.create.iter().map(node_of).collect::<Vec<_>>(), ["n2"]);
        assert_eq!(
            plan.delete.iter().map(|pod| node_of(pod)).collect::<Vec<_>>(),
            ["n3"]
        );
    }

    #[test]
    fn a_changed_template_replaces_one_ready_pod_at_a_time() {
        let nodes = [node("n1", "a"), node("n2", "a")];
        let pods = [
            ready(new_pod(&set("old"), "n1")),
            ready(new_pod(&set("old"), "n2")),
        ];
        assert_eq!(plan(&set("new"), &nodes, &pods).delete.len(), 1);
        assert_eq!(plan(&set("old"), &nodes, &pods).delete.len(), 0);
    }
}
