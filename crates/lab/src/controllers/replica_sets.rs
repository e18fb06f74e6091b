// SPDX-License-Identifier: Apache-2.0
//! Keeps as many pods of each ReplicaSet as it asks for. `minReadySeconds` is not waited for: ready is available.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::watcher;
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::drive::{Controller, FirstFailure, drive, has_code, unless_going, unless_gone};
use super::replicas::{active_pods, controller_ref, count, most_dispensable_first, nonzero, pod_of};
use super::slices::is_ready;
use super::watched::{Key, Watched};

/// How many pods of one set are created or deleted at once.
const PARALLEL_WRITES: usize = 16;

/// Runs the controller until the shutdown.
pub async fn run(client: Client, shutdown: CancellationToken) {
    let controller = ReplicaSets {
        sets: Watched::new(Api::all(client.clone()), watcher::Config::default()),
        pods: Watched::new(Api::all(client.clone()), watcher::Config::default()),
        client,
    };
    drive(controller, shutdown).await;
}

struct ReplicaSets {
    client: Client,
    sets: Watched<ReplicaSet>,
    pods: Watched<Pod>,
}

impl Controller for ReplicaSets {
    const NAME: &'static str = "replica-sets";

    async fn changed(&mut self) {
        tokio::select! {
            () = self.sets.changed() => {}
            () = self.pods.changed() => {}
        }
    }

    fn synced(&self) -> bool {
        self.sets.synced() && self.pods.synced()
    }

    async fn reconcile(&mut self) -> Result<Option<Duration>, kube::Error> {
        let sets: Vec<Arc<ReplicaSet>> = self.sets.values().map(Arc::clone).collect();
        let mut failure = FirstFailure::default();
        for set in sets {
            let pods = active_pods(set.as_ref(), self.pods.values());
            if set.metadata.deletion_timestamp.is_none() {
                failure.note(self.scale(&set, pods).await);
            }
            // The status tells the truth also when pods could not be written.
            failure.note(self.write_status(&set).await);
        }
        failure.outcome()?;
        Ok(None)
    }
}

impl ReplicaSets {
    async fn scale(&mut self, set: &ReplicaSet, pods: Vec<Arc<Pod>>) -> Result<(), kube::Error> {
        let Plan { create, delete } = plan(set, pods);
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &set.namespace().unwrap_or_default());
        let created: Vec<Option<Pod>> = stream::iter(create)
            .map(|pod| {
                let api = api.clone();
                async move { unless_going(api.create(&PostParams::default(), &pod).await) }
            })
            .buffer_unordered(PARALLEL_WRITES)
            .try_collect()
            .await?;
        for pod in created.into_iter().flatten() {
            self.pods.written(pod);
        }
        for pod in delete {
            if let Some(pod) = delete_pod(&api, &pod).await? {
                self.pods.written(pod);
            } else {
                self.pods.removed(&Key::of(pod.as_ref()));
            }
        }
        Ok(())
    }

    async fn write_status(&mut self, set: &ReplicaSet) -> Result<(), kube::Error> {
        let status = status(set, &active_pods(set, self.pods.values()));
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let api: Api<ReplicaSet> = Api::namespaced(self.client.clone(), &set.namespace().unwrap_or_default());
        let patch = Patch::Merge(json!({ "status": {
            "replicas": status.replicas, "fullyLabeledReplicas": status.fully_labeled_replicas,
            "readyReplicas": status.ready_replicas, "availableReplicas": status.available_replicas,
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

/// Asks for the pod's deletion; the answer is the pod on its way out, or nothing when it is gone.
pub(super) async fn delete_pod(api: &Api<Pod>, pod: &Pod) -> Result<Option<Pod>, kube::Error> {
    let only_it = Preconditions {
        uid: pod.uid(),
        resource_version: None,
    };
    match api
        .delete(&pod.name_any(), &DeleteParams::default().preconditions(only_it))
        .await
    {
        Ok(answer) => Ok(answer.left()),
        // Another pod has the name by now.
        Err(error) if has_code(&error, 409) => Ok(None),
        Err(error) => unless_gone(Err(error)),
    }
}

#[derive(Debug, Default)]
struct Plan {
    create: Vec<Pod>,
    delete: Vec<Arc<Pod>>,
}

fn plan(set: &ReplicaSet, mut pods: Vec<Arc<Pod>>) -> Plan {
    let wanted = usize::try_from(wanted(set)).unwrap_or_default();
    let empty = PodTemplateSpec::default();
    let template = set
        .spec
        .as_ref()
        .and_then(|spec| spec.template.as_ref())
        .unwrap_or(&empty);
    let missing = wanted.saturating_sub(pods.len());
    let surplus = pods.len().saturating_sub(wanted);
    most_dispensable_first(&mut pods);
    pods.truncate(surplus);
    let pod = || pod_of(template, controller_ref(set), set.namespace());
    Plan {
        create: std::iter::repeat_with(pod).take(missing).collect(),
        delete: pods,
    }
}

fn wanted(set: &ReplicaSet) -> i32 {
    set.spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1)
        .max(0)
}

fn status(set: &ReplicaSet, pods: &[Arc<Pod>]) -> ReplicaSetStatus {
    let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
    let labels = template
        .and_then(|t| t.metadata.as_ref())
        .and_then(|meta| meta.labels.clone())
        .unwrap_or_default();
    let labelled = pods
        .iter()
        .filter(|pod| labels.iter().all(|(k, v)| pod.labels().get(k) == Some(v)));
    let ready = nonzero(count(pods.iter().filter(|pod| is_ready(pod)).count()));
    ReplicaSetStatus {
        replicas: count(pods.len()),
        fully_labeled_replicas: nonzero(count(labelled.count())),
        ready_replicas: ready,
        available_replicas: ready,
        observed_generation: set.metadata.generation,
        conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
        ..ReplicaSetStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(replicas: i32) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": { "name": "web", "namespace": "default", "uid": "rs", "generation": 3 },
            "spec": { "replicas": replicas, "selector": { "matchLabels": { "app": "web" } },
                "template": { "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [] } } },
        }))
        .unwrap()
    }

    fn pod(name: &str, ready: bool) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(json!({
                "metadata": { "name": name, "labels": { "app": "web" } }, "spec": { "nodeName": "n", "containers": [] },
                "status": { "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }] },
            }))
            .unwrap(),
        )
    }

    #[test]
    fn missing_pods_are_made_from_the_template_and_owned() {
        let plan = plan(&set(3), vec![pod("a", true)]);
        assert_eq!((plan.create.len(), plan.delete.len()), (2, 0));
        let made = &plan.create[0];
        assert!(made.name_any().starts_with("web-"));
        assert_eq!(made.labels()["app"], "web");
        assert_eq!(made.owner_references()[0].uid, "rs");
        assert_ne!(made.name_any(), plan.create[1].name_any());
    }

    #[test]
    fn surplus_pods_go_unready_ones_first() {
        let plan = plan(&set(1), vec![pod("a", true), pod("b", false), pod("c", true)]);
        let gone: Vec<_> = plan.delete.iter().map(|pod| pod.name_any()).collect();
        assert_eq!(gone, ["b", "a"]);
    }

    #[test]
    fn the_status_counts_pods_and_names_the_generation() {
        let status = status(&set(2), &[pod("a", true), pod("b", false)]);
        assert_eq!(
            (status.replicas, status.ready_replicas, status.observed_generation),
            (2, Some(1), Some(3))
        );
    }
}
