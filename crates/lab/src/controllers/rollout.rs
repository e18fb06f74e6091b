// SPDX-License-Identifier: Apache-2.0
//! How a Deployment moves from its old ReplicaSets to the new one: pure.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;

use super::replicas::{Labels, controller_ref, nonzero};

/// The label that tells the pods of one revision from those of another.
pub(crate) const TEMPLATE_HASH_LABEL: &str = "pod-template-hash";
/// The annotation that numbers revisions.
pub(crate) const REVISION_ANNOTATION: &str = "deployment.kubernetes.io/revision";
/// Old ReplicaSets kept for `kubectl rollout undo`, unless the Deployment says otherwise.
const HISTORY_LIMIT: i32 = 10;

/// What should be written in one step.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// Make the ReplicaSet of the current template.
    Create(Box<ReplicaSet>),
    /// Set a ReplicaSet's size and revision.
    Scale {
        name: String,
        replicas: i32,
        revision: String,
    },
    /// Remove an old ReplicaSet without pods.
    Delete { name: String },
}

/// The steps that are possible now; their effect makes the next ones possible.
pub(crate) fn steps(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> Vec<Step> {
    let (new, old) = split(deployment, sets);
    let wanted = replicas(deployment);
    let paused = deployment.spec.as_ref().and_then(|spec| spec.paused) == Some(true);
    let Some(new) = new else {
        if paused {
            return Vec::new();
        }
        let size = new_size(deployment, 0, &old);
        return vec![Step::Create(Box::new(new_set(
            deployment,
            size,
            next_revision(sets, None),
        )))];
    };
    let revision = current_revision(new, sets);
    let size = if paused {
        size_of(new)
    } else {
        new_size(deployment, size_of(new), &old)
    };
    let mut steps = Vec::new();
    if size != size_of(new) || revision_of(new) != revision.parse().ok() {
        steps.push(Step::Scale {
            name: new.name_any(),
            replicas: size,
            revision,
        });
    }
    if !paused {
        steps.extend(shrink(deployment, new, &old, wanted));
    }
    steps.extend(forget(deployment, &old));
    steps
}

/// The ReplicaSet of the current template, and all others.
pub(crate) fn split<'a>(
    deployment: &Deployment,
    sets: &'a [Arc<ReplicaSet>],
) -> (Option<&'a Arc<ReplicaSet>>, Vec<&'a Arc<ReplicaSet>>) {
    let hash = template_hash(deployment);
    let is_new = |set: &&Arc<ReplicaSet>| set.labels().get(TEMPLATE_HASH_LABEL) == Some(&hash);
    let new = sets.iter().find(is_new);
    (new, sets.iter().filter(|set| !is_new(set)).collect())
}

/// Recreate starts the new pods when the old ones are gone; a rolling update adds what maxSurge allows.
fn new_size(deployment: &Deployment, now: i32, old: &[&Arc<ReplicaSet>]) -> i32 {
    let wanted = replicas(deployment);
    let remaining: i32 = old.iter().map(|set| size_of(set).max(pods_of(set))).sum();
    if is_recreate(deployment) {
        return if remaining == 0 { wanted } else { now };
    }
    let (surge, _) = limits(deployment);
    let asked: i32 = old.iter().map(|set| size_of(set)).sum();
    let room = (wanted + surge - asked - now).max(0);
    if now >= wanted {
        wanted
    } else {
        (now + room).min(wanted)
    }
}

/// Takes pods from old sets: first those that are not ready anyway, then as many as maxUnavailable allows.
fn shrink(deployment: &Deployment, new: &ReplicaSet, old: &[&Arc<ReplicaSet>], wanted: i32) -> Vec<Step> {
    let mut steps = Vec::new();
    if is_recreate(deployment) {
        let with_pods = old.iter().filter(|set| size_of(set) > 0);
        return with_pods.map(|set| scale(set, 0)).collect();
    }
    let (_, unavailable) = limits(deployment);
    let available: i32 = available_of(new) + old.iter().map(|set| available_of(set)).sum::<i32>();
    let mut dispensable = (available - (wanted - unavailable)).max(0);
    for set in old.iter().filter(|set| size_of(set) > 0) {
        let broken = (size_of(set) - available_of(set)).max(0);
        let ready = dispensable.min(size_of(set) - broken);
        dispensable -= ready;
        if broken + ready > 0 {
            steps.push(scale(set, size_of(set) - broken - ready));
        }
    }
    steps
}

fn scale(set: &ReplicaSet, replicas: i32) -> Step {
    let revision = set
        .annotations()
        .get(REVISION_ANNOTATION)
        .cloned()
        .unwrap_or_default();
    Step::Scale {
        name: set.name_any(),
        replicas,
        revision,
    }
}

fn forget(deployment: &Deployment, old: &[&Arc<ReplicaSet>]) -> Vec<Step> {
    let limit = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.revision_history_limit)
        .unwrap_or(HISTORY_LIMIT);
    let mut empty: Vec<_> = old
        .iter()
        .filter(|set| size_of(set) == 0 && pods_of(set) == 0)
        .collect();
    empty.sort_by_key(|set| revision_of(set));
    let surplus = empty
        .len()
        .saturating_sub(usize::try_from(limit).unwrap_or_default());
    empty
        .iter()
        .take(surplus)
        .map(|set| Step::Delete { name: set.name_any() })
        .collect()
}

/// (maxSurge, maxUnavailable) in pods; never both zero.
fn limits(deployment: &Deployment) -> (i32, i32) {
    let wanted = replicas(deployment);
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let quarter = IntOrString::String("25%".into());
    let surge = rolling.and_then(|r| r.max_surge.as_ref()).unwrap_or(&quarter);
    let unavailable = rolling
        .and_then(|r| r.max_unavailable.as_ref())
        .unwrap_or(&quarter);
    let (surge, unavailable) = (share(surge, wanted, 99), share(unavailable, wanted, 0));
    if surge == 0 && unavailable == 0 {
        (0, 1)
    } else {
        (surge, unavailable)
    }
}

/// A number, or a percentage of `total`, rounded up with `round` 99 and down with 0.
fn share(value: &IntOrString, total: i32, round: i32) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let percent: i32 = text.trim_end_matches('%').parse().unwrap_or_default();
            (total * percent + round) / 100
        }
    }
}

fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

/// How many pods the Deployment asks for.
pub(crate) fn replicas(deployment: &Deployment) -> i32 {
    deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1)
        .max(0)
}

fn size_of(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

fn pods_of(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |status| status.replicas)
}

fn ready_of(set: &ReplicaSet) -> i32 {
    set.status
        .as_ref()
        .and_then(|status| status.ready_replicas)
        .unwrap_or(0)
}

fn available_of(set: &ReplicaSet) -> i32 {
    set.status
        .as_ref()
        .and_then(|status| status.available_replicas)
        .unwrap_or(0)
        .min(size_of(set))
}

fn revision_of(set: &ReplicaSet) -> Option<i64> {
    set.annotations()
        .get(REVISION_ANNOTATION)
        .and_then(|text| text.parse().ok())
}

/// The new set always has the highest number, so an old template that comes back is renumbered.
fn current_revision(new: &ReplicaSet, sets: &[Arc<ReplicaSet>]) -> String {
    let highest_other = sets
        .iter()
        .filter(|set| set.name_any() != new.name_any())
        .filter_map(|set| revision_of(set))
        .max();
    match (revision_of(new), highest_other) {
        (Some(own), other) if other.is_none_or(|other| own > other) => own.to_string(),
        _ => next_revision(sets, Some(new)),
    }
}

fn next_revision(sets: &[Arc<ReplicaSet>], except: Option<&ReplicaSet>) -> String {
    let others = sets
        .iter()
        .filter(|set| except.is_none_or(|new| new.name_any() != set.name_any()));
    (others.filter_map(|set| revision_of(set)).max().unwrap_or(0) + 1).to_string()
}

fn template_hash(deployment: &Deployment) -> String {
    let template = deployment.spec.as_ref().map(|spec| &spec.template);
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(&template)
        .unwrap_or_default()
        .hash(&mut hasher);
    format!("{:x}", hasher.finish() & 0xff_ffff_ffff)
}

fn new_set(deployment: &Deployment, replicas: i32, revision: String) -> ReplicaSet {
    let hash = template_hash(deployment);
    let spec = deployment.spec.clone().unwrap_or_default();
    let with_hash = |labels: Option<Labels>| {
        let mut labels = labels.unwrap_or_default();
        labels.insert(TEMPLATE_HASH_LABEL.into(), hash.clone());
        Some(labels)
    };
    let meta = spec.template.metadata.unwrap_or_default();
    let labels = with_hash(meta.labels);
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.name_any())),
            namespace: deployment.namespace(),
            labels: labels.clone(),
            annotations: Some(Labels::from([(REVISION_ANNOTATION.into(), revision)])),
            owner_references: Some(vec![controller_ref(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            min_ready_seconds: spec.min_ready_seconds,
            replicas: Some(replicas),
            selector: LabelSelector {
                match_labels: with_hash(spec.selector.match_labels),
                ..spec.selector
            },
            template: Some(PodTemplateSpec {
                metadata: Some(ObjectMeta { labels, ..meta }),
                spec: spec.template.spec,
            }),
        }),
        status: None,
    }
}

/// The counts of the Deployment's status, without zeros as the API leaves them out; conditions are the caller's.
pub(crate) fn counts(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> DeploymentStatus {
    let (new, _) = split(deployment, sets);
    let total = |of: fn(&ReplicaSet) -> i32| sets.iter().map(|set| of(set)).sum::<i32>();
    let available = sets.iter().map(|set| available_of(set)).sum::<i32>();
    DeploymentStatus {
        replicas: nonzero(total(pods_of)),
        updated_replicas: nonzero(new.map_or(0, |set| pods_of(set))),
        ready_replicas: nonzero(total(ready_of)),
        available_replicas: nonzero(available),
        unavailable_replicas: nonzero((replicas(deployment) - available).max(0)),
        observed_generation: deployment.metadata.generation,
        ..DeploymentStatus::default()
    }
}

/// Whether enough pods are available for the condition of that name.
pub(crate) fn is_available(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let (_, unavailable) = limits(deployment);
    status.available_replicas.unwrap_or(0) >= replicas(deployment) - unavailable
}

/// Whether all pods are new and available.
pub(crate) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = nonzero(replicas(deployment));
    status.updated_replicas == wanted && status.replicas == wanted && status.available_replicas == wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment(replicas: i32, image: &str, strategy: serde_json::Value) -> Deployment {
        serde_json::from_value(json!({
            "metadata": { "name": "web", "namespace": "default", "uid": "d", "generation": 1 },
            "spec": { "replicas": replicas, "selector": { "matchLabels": { "app": "web" } }, "strategy": strategy,
                "template": { "metadata": { "labels": { "app": "web" } },
                    "spec": { "containers": [{ "name": "c", "image": image }] } } },
        }))
        .unwrap()
    }

    /// A cluster in which every pod is ready at once.
    fn settle(deployment: &Deployment, sets: &mut Vec<Arc<ReplicaSet>>) -> Vec<(i32, i32)> {
        let mut history = Vec::new();
        for _ in 0..50 {
            let steps = steps(deployment, sets);
            if steps.is_empty() {
                return history;
            }
            for step in steps {
                apply(step, sets);
            }
            let (new, old) = split(deployment, sets);
            history.push((
                old.iter().map(|s| size_of(s)).sum(),
                new.map_or(0, |s| size_of(s)),
            ));
        }
        panic!("the rollout does not end: {history:?}");
    }

    fn apply(step: Step, sets: &mut Vec<Arc<ReplicaSet>>) {
        match step {
            Step::Create(set) => sets.push(Arc::from(set)),
            Step::Delete { name } => sets.retain(|set| set.name_any() != name),
            Step::Scale {
                name,
                replicas,
                revision,
            } => {
                let set = sets.iter_mut().find(|set| set.name_any() == name).unwrap();
                let set = Arc::make_mut(set);
                set.spec.as_mut().unwrap().replicas = Some(replicas);
                set.annotations_mut().insert(REVISION_ANNOTATION.into(), revision);
            }
        }
        for set in sets {
            let size = size_of(set);
            let status = json!({ "replicas": size, "readyReplicas": size, "availableReplicas": size });
            Arc::make_mut(set).status = serde_json::from_value(status).unwrap();
        }
    }

    #[test]
    fn a_new_deployment_gets_one_full_set_with_revision_one() {
        let mut sets = Vec::new();
        assert_eq!(settle(&deployment(3, "a", json!({})), &mut sets), [(0, 3)]);
        assert_eq!(revision_of(&sets[0]), Some(1));
        assert!(sets[0].labels().contains_key(TEMPLATE_HASH_LABEL));
    }

    #[test]
    fn a_template_change_rolls_within_surge_and_unavailable() {
        let mut sets = Vec::new();
        settle(&deployment(4, "a", json!({})), &mut sets);
        let history = settle(&deployment(4, "b", json!({})), &mut sets);
        assert!(
            history.iter().all(|(old, new)| (3..=5).contains(&(old + new))),
            "{history:?}"
        );
        assert_eq!(history.last(), Some(&(0, 4)));
        assert_eq!(sets.len(), 2, "the old set stays for undo");
    }

    #[test]
    fn recreate_stops_the_old_pods_before_it_starts_new_ones() {
        let recreate = json!({ "type": "Recreate" });
        let mut sets = Vec::new();
        settle(&deployment(2, "a", recreate.clone()), &mut sets);
        let history = settle(&deployment(2, "b", recreate), &mut sets);
        assert!(
            history.iter().all(|(old, new)| *old == 0 || *new == 0),
            "{history:?}"
        );
        assert_eq!(history.last(), Some(&(0, 2)));
    }

    #[test]
    fn undo_brings_the_old_set_back_with_a_new_number() {
        let mut sets = Vec::new();
        settle(&deployment(1, "a", json!({})), &mut sets);
        settle(&deployment(1, "b", json!({})), &mut sets);
        settle(&deployment(1, "a", json!({})), &mut sets);
        assert_eq!(
            sets.iter()
                .map(|s| (size_of(s), revision_of(s)))
                .collect::<Vec<_>>(),
            [(1, Some(3)), (0, Some(2))]
        );
    }

    #[test]
    fn scaling_touches_only_the_current_set_and_zero_is_a_size() {
        let mut sets = Vec::new();
        settle(&deployment(2, "a", json!({})), &mut sets);
        assert_eq!(
            settle(&deployment(5, "a", json!({})), &mut sets).last(),
            Some(&(0, 5))
        );
        assert_eq!(
            settle(&deployment(0, "a", json!({})), &mut sets).last(),
            Some(&(0, 0))
        );
    }

    #[test]
    fn old_sets_beyond_the_history_limit_go() {
        let mut sets = Vec::new();
        for image in ["a", "b", "c", "d"] {
            let mut deployment = deployment(1, image, json!({}));
            deployment.spec.as_mut().unwrap().revision_history_limit = Some(1);
            settle(&deployment, &mut sets);
        }
        assert_eq!(sets.len(), 2);
    }
}
