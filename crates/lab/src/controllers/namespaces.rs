// SPDX-License-Identifier: Apache-2.0
//! Empties namespaces that are being deleted, and gives the others their `default` ServiceAccount and `kube-root-ca.crt`.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::discovery::{Discovery, Scope, verbs};
use kube::runtime::watcher;
use kube::{Client, ResourceExt as _};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::drive::{Controller, FirstFailure, drive, has_code, unless_going, unless_gone};
use super::watched::Watched;

/// How long to wait before looking again at a namespace that is not empty yet: its pods may be taking their time, and a
/// watch on every kind there is would cost more than a look.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
const FINALIZER: &str = "kubernetes";
const ROOT_CA: &str = "kube-root-ca.crt";

/// Runs the controller until the shutdown. `root_ca` is the PEM certificate to publish.
pub async fn run(client: Client, root_ca: Option<String>, shutdown: CancellationToken) {
    let namespaces = Watched::new(Api::all(client.clone()), watcher::Config::default());
    drive(
        Namespaces {
            client,
            namespaces,
            furnished: Vec::new(),
            root_ca,
        },
        shutdown,
    )
    .await;
}

struct Namespaces {
    client: Client,
    namespaces: Watched<Namespace>,
    /// UIDs of namespaces that have their default objects.
    furnished: Vec<String>,
    root_ca: Option<String>,
}

impl Controller for Namespaces {
    const NAME: &'static str = "namespaces";

    async fn changed(&mut self) {
        self.namespaces.changed().await;
    }

    fn synced(&self) -> bool {
        self.namespaces.synced()
    }

    async fn reconcile(&mut self) -> Result<Option<Duration>, kube::Error> {
        let all: Vec<Arc<Namespace>> = self.namespaces.values().map(Arc::clone).collect();
        self.furnished
            .retain(|uid| all.iter().any(|ns| ns.uid().as_ref() == Some(uid)));
        let (going, staying): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|ns| ns.metadata.deletion_timestamp.is_some());
        let mut failure = FirstFailure::default();
        for namespace in staying {
            failure.note(self.furnish(&namespace).await);
        }
        let mut again = None;
        for namespace in going.iter().filter(|ns| has_finalizer(ns)) {
            match empty(&self.client, &namespace.name_any()).await {
                Ok(true) => failure.note(self.finalize(namespace).await),
                Ok(false) => again = Some(LOOK_AGAIN),
                Err(error) => failure.note(Err(error)),
            }
        }
        failure.outcome()?;
        Ok(again)
    }
}

impl Namespaces {
    async fn furnish(&mut self, namespace: &Namespace) -> Result<(), kube::Error> {
        let uid = namespace.uid().unwrap_or_default();
        if self.furnished.contains(&uid) {
            return Ok(());
        }
        let name = namespace.name_any();
        let named = |name: &str| ObjectMeta {
            name: Some(name.into()),
            ..ObjectMeta::default()
        };
        let account = ServiceAccount {
            metadata: named("default"),
            ..ServiceAccount::default()
        };
        create(Api::namespaced(self.client.clone(), &name), &account).await?;
        if let Some(ca) = &self.root_ca {
            let data = Some([("ca.crt".to_owned(), ca.clone())].into());
            let map = ConfigMap {
                metadata: named(ROOT_CA),
                data,
                ..ConfigMap::default()
            };
            create(Api::namespaced(self.client.clone(), &name), &map).await?;
        }
        self.furnished.push(uid);
        Ok(())
    }

    async fn finalize(&mut self, namespace: &Namespace) -> Result<(), kube::Error> {
        let mut next = namespace.clone();
        if let Some(spec) = &mut next.spec {
            spec.finalizers
                .get_or_insert_default()
                .retain(|finalizer| finalizer != FINALIZER);
        }
        let api: Api<Namespace> = Api::all(self.client.clone());
        let answer: Result<Namespace, _> = api
            .replace_subresource("finalize", &namespace.name_any(), &PostParams::default(), &next)
            .await;
        debug!(namespace = namespace.name_any(), "namespace is empty");
        unless_gone(answer).map(drop)
    }
}

fn has_finalizer(namespace: &Namespace) -> bool {
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref());
    finalizers.is_some_and(|all| all.iter().any(|finalizer| finalizer == FINALIZER))
}

async fn create<K>(api: Api<K>, object: &K) -> Result<(), kube::Error>
where
    K: kube::Resource + Clone + serde::Serialize + serde::de::DeserializeOwned + std::fmt::Debug,
{
    match api.create(&PostParams::default(), object).await {
        // It is there already, or the namespace began to go.
        Err(error) if has_code(&error, 409) => Ok(()),
        other => unless_going(other).map(drop),
    }
}

/// Asks for the deletion of everything in the namespace. True when nothing was left.
async fn empty(client: &Client, namespace: &str) -> Result<bool, kube::Error> {
    let discovery = Discovery::new(client.clone()).run().await?;
    let mut is_empty = true;
    for group in discovery.groups() {
        for (kind, capabilities) in group.recommended_resources() {
            let usable = capabilities.supports_operation(verbs::LIST)
                && capabilities.supports_operation(verbs::DELETE);
            if capabilities.scope == Scope::Namespaced && usable {
                is_empty &= empty_of(client, namespace, &kind).await?;
            }
        }
    }
    Ok(is_empty)
}

async fn empty_of(client: &Client, namespace: &str, kind: &ApiResource) -> Result<bool, kube::Error> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, kind);
    let Some(objects) = unless_unlisted(api.list(&ListParams::default()).await)? else {
        return Ok(true);
    };
    for object in &objects.items {
        if object.metadata.deletion_timestamp.is_none() {
            unless_gone(api.delete(&object.name_any(), &DeleteParams::background()).await)?;
        }
    }
    Ok(objects.items.is_empty())
}

/// Some kinds are announced but cannot be listed; they hold nothing to delete.
fn unless_unlisted<T>(answer: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match answer {
        Err(error) if has_code(&error, 405) => Ok(None),
        other => unless_gone(other),
    }
}
