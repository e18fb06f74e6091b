// SPDX-License-Identifier: Apache-2.0
//! Moves Deployments by way of ReplicaSets; the steps are computed in [`super::rollout`].

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::drive::{Controller, FirstFailure, drive, has_code, unless_going, unless_gone};
use super::replicas::controls;
use super::rollout::{self, REVISION_ANNOTATION, Step};
use super::watched::{Key, Watched};

/// Runs the controller until the shutdown.
pub async fn run(client: Client, shutdown: CancellationToken) {
    let controller = Deployments {
        deployments: Watched::new(Api::all(client.clone()), watcher::Config::default()),
        sets: Watched::new(Api::all(client.clone()), watcher::Config::default()),
        client,
    };
    drive(controller, shutdown).await;
}

struct Deployments {
    client: Client,
    deployments: Watched<Deployment>,
    sets: Watched<ReplicaSet>,
}

impl Controller for Deployments {
    const NAME: &'static str = "deployments";

    async fn changed(&mut self) {
        tokio::select! {
            () = self.deployments.changed() => {}
            () = self.sets.changed() => {}
        }
    }

    fn synced(&self) -> bool {
        self.deployments.synced() && self.sets.synced()
    }

    async fn reconcile(&mut self) -> Result<Option<Duration>, kube::Error> {
        let deployments: Vec<Arc<Deployment>> = self.deployments.values().map(Arc::clone).collect();
        let mut failure = FirstFailure::default();
        for deployment in deployments {
            if deployment.metadata.deletion_timestamp.is_none() {
                for step in rollout::steps(&deployment, &self.sets_of(&deployment)) {
                    failure.note(self.take(&deployment, step).await);
                }
            }
            failure.note(self.write_status(&deployment).await);
        }
        failure.outcome()?;
        Ok(None)
    }
}

impl Deployments {
    fn sets_of(&self, deployment: &Deployment) -> Vec<Arc<ReplicaSet>> {
        self.sets
            .values()
            .filter(|set| controls(deployment, set.as_ref()))
            .map(Arc::clone)
            .collect()
    }

    async fn take(&mut self, deployment: &Deployment, step: Step) -> Result<(), kube::Error> {
        let namespace = deployment.namespace().unwrap_or_default();
        let api: Api<ReplicaSet> = Api::namespaced(self.client.clone(), &namespace);
        let written = match step {
            Step::Create(set) => unless_going(api.create(&PostParams::default(), &set).await)?,
            Step::Scale {
                name,
                replicas,
                revision,
            } => {
                let patch = json!({
                    "metadata": { "annotations": { REVISION_ANNOTATION: revision } }, "spec": { "replicas": replicas },
                });
                unless_gone(
                    api.patch(&name, &PatchParams::default(), &Patch::Merge(patch))
                        .await,
                )?
            }
            Step::Delete { name } => {
                unless_gone(api.delete(&name, &DeleteParams::background()).await)?;
                self.sets.removed(&Key::new(namespace, name));
                None
            }
        };
        if let Some(set) = written {
            self.sets.written(set);
        }
        Ok(())
    }

    async fn write_status(&mut self, deployment: &Deployment) -> Result<(), kube::Error> {
        let sets = self.sets_of(deployment);
        let mut status = rollout::counts(deployment, &sets);
        status.conditions = Some(conditions(deployment, &status));
        let api: Api<Deployment> =
            Api::namespaced(self.client.clone(), &deployment.namespace().unwrap_or_default());
        let (new, _) = rollout::split(deployment, &sets);
        let revision = new.and_then(|set| set.annotations().get(REVISION_ANNOTATION));
        if revision.is_some() && revision != deployment.annotations().get(REVISION_ANNOTATION) {
            let patch = json!({ "metadata": { "annotations": { REVISION_ANNOTATION: revision } } });
            let answer = api
                .patch(
                    &deployment.name_any(),
                    &PatchParams::default(),
                    &Patch::Merge(patch),
                )
                .await;
            if let Some(written) = unless_gone(answer)? {
                self.deployments.written(written);
            }
        }
        if deployment.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let patch = Patch::Merge(json!({ "status": with_nulls(&status) }));
        let answer = api
            .patch_status(&deployment.name_any(), &PatchParams::default(), &patch)
            .await;
        match answer {
            Err(error) if has_code(&error, 409) => Ok(()),
            other => unless_gone(other)
                .map(|written| written.into_iter().for_each(|d| self.deployments.written(d))),
        }
    }
}

/// `kubectl wait --for=condition=Available` and `rollout status` read these.
fn conditions(deployment: &Deployment, status: &DeploymentStatus) -> Vec<DeploymentCondition> {
    let available = rollout::is_available(deployment, status);
    let complete = rollout::is_complete(deployment, status);
    vec![
        condition(
            deployment,
            "Available",
            available,
            if available {
                "MinimumReplicasAvailable"
            } else {
                "MinimumReplicasUnavailable"
            },
            if available {
                "Deployment has minimum availability."
            } else {
                "Deployment does not have minimum availability."
            },
        ),
        condition(
            deployment,
            "Progressing",
            true,
            if complete {
                "NewReplicaSetAvailable"
            } else {
                "ReplicaSetUpdated"
            },
            if complete {
                "The new ReplicaSet has successfully progressed."
            } else {
                "The new ReplicaSet is progressing."
            },
        ),
    ]
}

/// Keeps the times of a condition that did not change.
fn condition(
    deployment: &Deployment,
    type_: &str,
    is: bool,
    reason: &str,
    message: &str,
) -> DeploymentCondition {
    let status = if is { "True" } else { "False" };
    let known = deployment
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let before = known.into_iter().flatten().find(|c| c.type_ == type_);
    let now = || Some(Time(Timestamp::now()));
    let same_status = before.filter(|c| c.status == status);
    let same = same_status.filter(|c| c.reason.as_deref() == Some(reason));
    DeploymentCondition {
        type_: type_.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_transition_time: same_status.map_or_else(now, |c| c.last_transition_time.clone()),
        last_update_time: same.map_or_else(now, |c| c.last_update_time.clone()),
    }
}

/// What is absent becomes null: a merge patch without the field would leave the old value.
fn with_nulls(status: &DeploymentStatus) -> Value {
    json!({
        "replicas": status.replicas, "updatedReplicas": status.updated_replicas, "readyReplicas": status.ready_replicas,
        "availableReplicas": status.available_replicas, "unavailableReplicas": status.unavailable_replicas,
        "observedGeneration": status.observed_generation, "conditions": status.conditions,
    })
}
