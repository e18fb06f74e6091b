// SPDX-License-Identifier: Apache-2.0
//! Kubernetes Events, as `kubectl describe` and `kubectl get events` show them.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt as _};
use serde_json::json;
use tracing::debug;

use super::drive::has_code;

/// The longest message that the API takes.
const MESSAGE_MAX: usize = 1024;
/// How many different events a reporter counts; beyond that it forgets all counts and starts again at one.
const COUNTED_MAX: usize = 1024;

/// Whether an event is good or bad news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Severity {
    /// Something happened as it should.
    Normal,
    /// Somebody should look.
    Warning,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Writes events; the same event again raises a count.
pub(crate) struct Reporter {
    client: Client,
    source: EventSource,
    counts: BTreeMap<String, i32>,
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reporter")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl Reporter {
    /// A reporter that signs as `component`, on `host` when it is a node's.
    pub(crate) fn new(client: Client, component: &str, host: Option<&str>) -> Self {
        let source = EventSource {
            component: Some(component.into()),
            host: host.map(Into::into),
        };
        Self {
            client,
            source,
            counts: BTreeMap::new(),
        }
    }

    /// Reports one event about `object`. A failure is logged only: an event is news, not state.
    pub(crate) async fn report<K>(&mut self, object: &K, severity: Severity, reason: &str, message: &str)
    where
        K: Resource<DynamicType = ()>,
    {
        let message: String = message.chars().take(MESSAGE_MAX).collect();
        let subject = reference(object);
        let namespace = subject.namespace.clone().unwrap_or_else(|| "default".into());
        let name = event_name(&subject, reason, &message);
        if self.counts.len() >= COUNTED_MAX {
            self.counts.clear();
        }
        let count = self
            .counts
            .entry(name.clone())
            .and_modify(|n| *n += 1)
            .or_insert(1);
        let now = Time(Timestamp::now());
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(namespace),
                ..ObjectMeta::default()
            },
            involved_object: subject,
            reason: Some(reason.into()),
            message: Some(message),
            type_: Some(severity.as_str().into()),
            source: Some(self.source.clone()),
            reporting_component: self.source.component.clone(),
            reporting_instance: self.source.host.clone(),
            first_timestamp: Some(now.clone()),
            last_timestamp: Some(now),
            count: Some(*count),
            ..Event::default()
        };
        if let Err(error) = write(&self.client, &event).await {
            debug!(reason, %error, "event not written");
        }
    }
}

async fn write(client: &Client, event: &Event) -> Result<(), kube::Error> {
    let api: Api<Event> = Api::namespaced(
        client.clone(),
        event.metadata.namespace.as_deref().unwrap_or("default"),
    );
    match api.create(&PostParams::default(), event).await {
        Err(error) if has_code(&error, 409) => {
            let again = json!({ "count": event.count, "lastTimestamp": event.last_timestamp });
            api.patch(&event.name_any(), &PatchParams::default(), &Patch::Merge(again))
                .await
                .map(drop)
        }
        other => other.map(drop),
    }
}

fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: object.meta().name.clone(),
        namespace: object.meta().namespace.clone(),
        uid: object.meta().uid.clone(),
        ..ObjectReference::default()
    }
}

/// The same event has the same name, so a repetition finds it.
fn event_name(subject: &ObjectReference, reason: &str, message: &str) -> String {
    let mut hasher = DefaultHasher::new();
    (&subject.uid, reason, message).hash(&mut hasher);
    format!(
        "{}.{:016x}",
        subject.name.as_deref().unwrap_or_default(),
        hasher.finish()
    )
}
