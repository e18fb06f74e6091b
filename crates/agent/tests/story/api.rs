// SPDX-License-Identifier: Apache-2.0
//! A Kubernetes API that knows two resources, to list and to watch.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::stream;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

/// The API, as those see it who change objects.
#[derive(Clone)]
pub(crate) struct FakeApi {
    shared: Arc<Mutex<Shared>>,
    revision: watch::Sender<u64>,
}

#[derive(Default)]
struct Shared {
    revision: u64,
    objects: BTreeMap<(String, String), Value>,
    /// Revision, resource and watch event.
    log: Vec<(u64, String, Value)>,
}

impl FakeApi {
    pub(crate) fn new() -> Self {
        Self {
            shared: Arc::default(),
            revision: watch::Sender::new(0),
        }
    }

    pub(crate) fn client(&self) -> kube::Client {
        let router = Router::new()
            .route("/api/v1/{resource}", get(answer))
            .with_state(self.clone());
        kube::Client::new(router, "default")
    }

    /// Makes or changes an object; returns its resource.
    pub(crate) fn apply(&self, mut object: Value) -> String {
        let resource = format!("{}s", object["kind"].as_str().unwrap().to_lowercase());
        let mut shared = self.shared.lock();
        shared.revision += 1;
        object["metadata"]["resourceVersion"] = shared.revision.to_string().into();
        let known = shared
            .objects
            .insert((resource.clone(), key(&object)), object.clone());
        let kind = if known.is_some() { "MODIFIED" } else { "ADDED" };
        self.publish(shared, &resource, kind, object);
        resource
    }

    /// Deletes an object by `resource/name` or `resource/namespace/name`; returns its resource.
    pub(crate) fn delete(&self, path: &str) -> String {
        let (resource, name) = path.split_once('/').unwrap();
        let mut shared = self.shared.lock();
        shared.revision += 1;
        let object = shared
            .objects
            .remove(&(resource.to_owned(), name.to_owned()))
            .unwrap();
        self.publish(shared, resource, "DELETED", object);
        resource.to_owned()
    }

    fn publish(
        &self,
        mut shared: parking_lot::MutexGuard<'_, Shared>,
        resource: &str,
        kind: &str,
        object: Value,
    ) {
        let revision = shared.revision;
        shared.log.push((
            revision,
            resource.to_owned(),
            json!({"type": kind, "object": object}),
        ));
        drop(shared);
        self.revision.send_replace(revision);
    }

    fn next(&self, resource: &str, after: u64) -> Option<(u64, Value)> {
        let shared = self.shared.lock();
        let mut later = shared
            .log
            .iter()
            .filter(|(revision, of, _)| *revision > after && of == resource);
        later
            .next()
            .map(|(revision, _, event)| (*revision, event.clone()))
    }
}

fn key(object: &Value) -> String {
    let name = object["metadata"]["name"].as_str().unwrap();
    object["metadata"]["namespace"]
        .as_str()
        .map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"))
}

async fn answer(
    State(api): State<FakeApi>,
    Path(resource): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    if query.get("watch").is_some_and(|watch| watch == "true") {
        let after = query["resourceVersion"].parse().unwrap();
        return Body::from_stream(watch_from(api, resource, after)).into_response();
    }
    let shared = api.shared.lock();
    let items: Vec<&Value> = shared
        .objects
        .iter()
        .filter(|((of, _), _)| *of == resource)
        .map(|(_, object)| object)
        .collect();
    let metadata = json!({"resourceVersion": shared.revision.to_string()});
    axum::Json(json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items}))
        .into_response()
}

fn watch_from(
    api: FakeApi,
    resource: String,
    after: u64,
) -> impl stream::Stream<Item = Result<Bytes, Infallible>> {
    let changes = api.revision.subscribe();
    stream::unfold(
        (api, resource, after, changes),
        |(api, resource, after, mut changes)| async move {
            loop {
                changes.borrow_and_update();
                if let Some((revision, event)) = api.next(&resource, after) {
                    return Some((
                        Ok(Bytes::from(format!("{event}\n"))),
                        (api, resource, revision, changes),
                    ));
                }
                changes.changed().await.ok()?;
            }
        },
    )
}
