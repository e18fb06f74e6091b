// SPDX-License-Identifier: Apache-2.0
//! Pods made from a template for an owner: what ReplicaSets and DaemonSets share. Pure but for the random name suffix.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt as _};

use super::slices::is_ready;

/// The alphabet of Kubernetes' generated names: no vowels, so no words.
const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;

/// Names and values of labels.
pub(crate) type Labels = BTreeMap<String, String>;

/// A reference that makes `owner` the controller of what carries it.
pub(crate) fn controller_ref<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        block_owner_deletion: Some(true),
        ..owner.controller_owner_ref(&()).unwrap_or_default()
    }
}

/// Whether `owner` is the controller of `child`.
pub(crate) fn controls<O: Resource, C: Resource>(owner: &O, child: &C) -> bool {
    let uid = owner.meta().uid.as_deref();
    uid.is_some()
        && child
            .owner_references()
            .iter()
            .any(|r| r.controller == Some(true) && Some(r.uid.as_str()) == uid)
}

/// The pods of an owner that are neither finished nor going.
pub(crate) fn active_pods<'a, O: Resource>(
    owner: &O,
    pods: impl Iterator<Item = &'a Arc<Pod>>,
) -> Vec<Arc<Pod>> {
    let active = |pod: &&Arc<Pod>| pod.metadata.deletion_timestamp.is_none() && !is_finished(pod);
    pods.filter(|pod| controls(owner, pod.as_ref()))
        .filter(active)
        .map(Arc::clone)
        .collect()
}

/// Whether the pod has ended for good.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    matches!(
        pod.status.as_ref().and_then(|s| s.phase.as_deref()),
        Some("Succeeded" | "Failed")
    )
}

/// A pod as the template says, owned by `owner`.
pub(crate) fn pod_of(template: &PodTemplateSpec, owner: OwnerReference, namespace: Option<String>) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    let name = format!("{}-{}", owner.name, random_suffix());
    Pod {
        metadata: ObjectMeta {
            name: Some(name),
            namespace,
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Five random characters.
pub(crate) fn random_suffix() -> String {
    let mut random = RandomState::new().build_hasher().finish();
    let letters = SUFFIX_ALPHABET.len() as u64;
    let mut suffix = String::with_capacity(SUFFIX_LENGTH);
    for _ in 0..SUFFIX_LENGTH {
        let index = usize::try_from(random % letters).unwrap_or_default();
        suffix.push(char::from(SUFFIX_ALPHABET[index]));
        random /= letters;
    }
    suffix
}

/// Pods that may go first: those without a node, then the not ready ones, then the youngest.
pub(crate) fn most_dispensable_first(pods: &mut [Arc<Pod>]) {
    pods.sort_by_key(|pod| {
        let bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        let age = std::cmp::Reverse(pod.metadata.creation_timestamp.clone());
        (bound, is_ready(pod), age, pod.name_any())
    });
}

/// `usize` as the API counts.
pub(crate) fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// A count as the API stores it: zero is left out.
pub(crate) fn nonzero(n: i32) -> Option<i32> {
    (n != 0).then_some(n)
}
