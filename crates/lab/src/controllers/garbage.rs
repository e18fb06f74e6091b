// SPDX-License-Identifier: Apache-2.0
//! Deletes what is owned by something that is gone, and serves foreground and orphan deletion.
//!
//! It knows the kinds whose objects the lab's controllers own or make (pods, ReplicaSets, EndpointSlices, Endpoints; their owners
//! Deployments, DaemonSets and Services). Owners of other kinds are taken as present.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::runtime::watcher;
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::drive::{Controller, drive, has_code, unless_gone};
use super::watched::{Key, Watched};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// Runs the controller until the shutdown.
pub async fn run(client: Client, shutdown: CancellationToken) {
    let all = watcher::Config::default;
    let controller = Garbage {
        deployments: Watched::new(Api::all(client.clone()), all()),
        daemon_sets: Watched::new(Api::all(client.clone()), all()),
        services: Watched::new(Api::all(client.clone()), all()),
        sets: Watched::new(Api::all(client.clone()), all()),
        pods: Watched::new(Api::all(client.clone()), all()),
        slices: Watched::new(Api::all(client.clone()), all()),
        endpoints: Watched::new(Api::all(client.clone()), all()),
        client,
    };
    drive(controller, shutdown).await;
}

struct Garbage {
    client: Client,
    deployments: Watched<Deployment>,
    daemon_sets: Watched<DaemonSet>,
    services: Watched<Service>,
    sets: Watched<ReplicaSet>,
    pods: Watched<Pod>,
    slices: Watched<EndpointSlice>,
    endpoints: Watched<Endpoints>,
}

impl Controller for Garbage {
    const NAME: &'static str = "garbage";

    async fn changed(&mut self) {
        tokio::select! {
            () = self.deployments.changed() => {}
            () = self.daemon_sets.changed() => {}
            () = self.services.changed() => {}
            () = self.sets.changed() => {}
            () = self.pods.changed() => {}
            () = self.slices.changed() => {}
            () = self.endpoints.changed() => {}
        }
    }

    fn synced(&self) -> bool {
        let owners = self.deployments.synced() && self.daemon_sets.synced() && self.services.synced();
        let owned = self.pods.synced() && self.slices.synced() && self.endpoints.synced();
        owners && owned && self.sets.synced()
    }

    async fn reconcile(&mut self) -> Result<Option<Duration>, kube::Error> {
        let census = self.census();
        sweep(&self.client, &mut self.sets, &census).await?;
        sweep(&self.client, &mut self.pods, &census).await?;
        sweep(&self.client, &mut self.slices, &census).await?;
        sweep(&self.client, &mut self.endpoints, &census).await?;
        release(&self.client, &mut self.deployments, &census).await?;
        release(&self.client, &mut self.daemon_sets, &census).await?;
        release(&self.client, &mut self.services, &census).await?;
        release(&self.client, &mut self.sets, &census).await?;
        // They own nothing, but were deleted in the foreground with their owners.
        release(&self.client, &mut self.pods, &census).await?;
        release(&self.client, &mut self.slices, &census).await?;
        release(&self.client, &mut self.endpoints, &census).await?;
        Ok(None)
    }
}

/// Who lives, who is about to go and how, and who is owned: UIDs.
#[derive(Debug, Default)]
struct Census {
    alive: BTreeSet<String>,
    /// Owners that wait for their dependents to go.
    foreground: BTreeSet<String>,
    /// Owners that let their dependents live.
    orphaning: BTreeSet<String>,
    /// Owners of at least one object.
    owning: BTreeSet<String>,
}

impl Census {
    fn count<'a, K: Resource + 'a>(&mut self, objects: impl Iterator<Item = &'a std::sync::Arc<K>>) {
        for object in objects {
            let uid = object.uid().unwrap_or_default();
            let going = |finalizer: &str| {
                object.meta().deletion_timestamp.is_some()
                    && object.finalizers().iter().any(|f| f == finalizer)
            };
            if going(FOREGROUND) {
                self.foreground.insert(uid.clone());
            }
            if going(ORPHAN) {
                self.orphaning.insert(uid.clone());
            }
            self.alive.insert(uid);
            self.owning
                .extend(object.owner_references().iter().map(|owner| owner.uid.clone()));
        }
    }

    fn verdict(&self, owners: &[OwnerReference]) -> Verdict {
        if owners.is_empty() {
            return Verdict::Keep;
        }
        if owners.iter().any(|owner| self.orphaning.contains(&owner.uid)) {
            return Verdict::Orphan;
        }
        let absent = |owner: &OwnerReference| is_known(owner) && !self.alive.contains(&owner.uid);
        if owners.iter().all(absent) {
            return Verdict::Delete;
        }
        let leaving = |owner: &OwnerReference| absent(owner) || self.foreground.contains(&owner.uid);
        if owners.iter().all(leaving) {
            Verdict::DeleteInForeground
        } else {
            Verdict::Keep
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Keep,
    Orphan,
    Delete,
    DeleteInForeground,
}

impl Garbage {
    fn census(&self) -> Census {
        let mut census = Census::default();
        census.count(self.deployments.values());
        census.count(self.daemon_sets.values());
        census.count(self.services.values());
        census.count(self.sets.values());
        census.count(self.pods.values());
        census.count(self.slices.values());
        census.count(self.endpoints.values());
        census
    }
}

/// Kinds whose absence we can tell.
fn is_known(owner: &OwnerReference) -> bool {
    let (group, kind) = (owner.api_version.as_str(), owner.kind.as_str());
    matches!(
        (group, kind),
        ("apps/v1", "Deployment" | "DaemonSet" | "ReplicaSet") | ("v1", "Service" | "Pod")
    )
}

async fn sweep<K>(client: &Client, dependents: &mut Watched<K>, census: &Census) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static,
{
    let doomed: Vec<(Key, Verdict)> = dependents
        .values()
        .filter(|object| object.meta().deletion_timestamp.is_none())
        .map(|object| {
            (
                Key::of(object.as_ref()),
                census.verdict(object.owner_references()),
            )
        })
        .filter(|(_, verdict)| *verdict != Verdict::Keep)
        .collect();
    for (key, verdict) in doomed {
        let Some(object) = dependents.get(&key).map(std::sync::Arc::clone) else {
            continue;
        };
        let api: Api<K> = Api::namespaced(client.clone(), &key.namespace);
        let orphan = || orphaned(object.as_ref(), census);
        let outcome = match verdict {
            Verdict::Keep => None,
            Verdict::Orphan => unless_gone(api.patch(&key.name, &PatchParams::default(), &orphan()).await)?,
            Verdict::Delete => delete(&api, object.as_ref(), client, DeleteParams::background()).await?,
            Verdict::DeleteInForeground => {
                delete(&api, object.as_ref(), client, DeleteParams::foreground()).await?
            }
        };
        match outcome {
            Some(written) => dependents.written(written),
            None => debug!(%key, "owner is gone"),
        }
    }
    Ok(())
}

/// The object without references to owners that give it up. With its version, so that nobody else's reference is lost.
fn orphaned<K: Resource>(object: &K, census: &Census) -> Patch<serde_json::Value> {
    let kept: Vec<_> = object
        .owner_references()
        .iter()
        .filter(|owner| !census.orphaning.contains(&owner.uid))
        .collect();
    Patch::Merge(json!({
        "metadata": { "ownerReferences": kept, "resourceVersion": object.meta().resource_version },
    }))
}

/// Deletes after a last look: our watches of owner and dependent need not be equally far.
async fn delete<K>(
    api: &Api<K>,
    object: &K,
    client: &Client,
    how: DeleteParams,
) -> Result<Option<K>, kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    for owner in object.owner_references() {
        if is_alive(client, &object.namespace().unwrap_or_default(), owner).await? {
            return Ok(None);
        }
    }
    // The very version that was judged: one that was orphaned meanwhile stays. What changed comes back by its watch.
    let only_it = Preconditions {
        uid: object.uid(),
        resource_version: object.resource_version(),
    };
    match api.delete(&object.name_any(), &how.preconditions(only_it)).await {
        Ok(answer) => Ok(answer.left()),
        Err(error) if has_code(&error, 409) => Ok(None),
        Err(error) => unless_gone(Err(error)),
    }
}

/// Whether an owner is there and not about to be deleted in the foreground.
async fn is_alive(client: &Client, namespace: &str, owner: &OwnerReference) -> Result<bool, kube::Error> {
    let gvk = kube::core::GroupVersionKind::try_from(kube::core::TypeMeta {
        api_version: owner.api_version.clone(),
        kind: owner.kind.clone(),
    });
    let Ok(gvk) = gvk else { return Ok(true) };
    let kind = kube::core::ApiResource::from_gvk(&gvk);
    let api: Api<kube::core::DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind);
    let found = unless_gone(api.get(&owner.name).await)?;
    Ok(found.is_some_and(|found| {
        let foreground =
            found.metadata.deletion_timestamp.is_some() && found.finalizers().iter().any(|f| f == FOREGROUND);
        found.uid().as_ref() == Some(&owner.uid) && !foreground
    }))
}

/// Lets owners go whose dependents are gone (foreground) or set free (orphan).
async fn release<K>(client: &Client, owners: &mut Watched<K>, census: &Census) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static,
{
    let waiting: Vec<_> = owners
        .values()
        .filter(|owner| {
            let uid = owner.uid().unwrap_or_default();
            let waits = census.foreground.contains(&uid) || census.orphaning.contains(&uid);
            waits && !census.owning.contains(&uid)
        })
        .map(std::sync::Arc::clone)
        .collect();
    for owner in waiting {
        let key = Key::of(owner.as_ref());
        let kept: Vec<_> = owner
            .finalizers()
            .iter()
            .filter(|f| *f != FOREGROUND && *f != ORPHAN)
            .collect();
        let patch = Patch::Merge(json!({
            "metadata": { "finalizers": kept, "resourceVersion": owner.meta().resource_version },
        }));
        let api: Api<K> = Api::namespaced(client.clone(), &key.namespace);
        unless_gone(api.patch(&key.name, &PatchParams::default(), &patch).await)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(kind: &str, uid: &str) -> OwnerReference {
        OwnerReference {
            api_version: "apps/v1".into(),
            kind: kind.into(),
            uid: uid.into(),
            ..OwnerReference::default()
        }
    }

    fn census() -> Census {
        let set = |uids: &[&str]| uids.iter().map(|&uid| uid.to_owned()).collect();
        Census {
            alive: set(&["here", "going", "freeing"]),
            foreground: set(&["going"]),
            orphaning: set(&["freeing"]),
            owning: BTreeSet::new(),
        }
    }

    #[test]
    fn an_object_lives_as_long_as_one_owner_does() {
        assert_eq!(census().verdict(&[]), Verdict::Keep);
        assert_eq!(census().verdict(&[owner("ReplicaSet", "here")]), Verdict::Keep);
        assert_eq!(census().verdict(&[owner("ReplicaSet", "gone")]), Verdict::Delete);
        assert_eq!(
            census().verdict(&[owner("ReplicaSet", "gone"), owner("ReplicaSet", "here")]),
            Verdict::Keep
        );
    }

    #[test]
    fn an_owner_of_an_unknown_kind_counts_as_present() {
        assert_eq!(census().verdict(&[owner("Widget", "gone")]), Verdict::Keep);
    }

    #[test]
    fn foreground_and_orphan_deletion_are_told_apart() {
        assert_eq!(
            census().verdict(&[owner("Deployment", "going")]),
            Verdict::DeleteInForeground
        );
        assert_eq!(
            census().verdict(&[owner("Deployment", "freeing")]),
            Verdict::Orphan
        );
    }
}
