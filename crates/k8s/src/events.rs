// SPDX-License-Identifier: Apache-2.0
//! Kubernetes Events, as `kubectl describe` and `kubectl get events` show them.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tracing::debug;

/// The longest message that the API takes.
const MESSAGE_MAX: usize = 1024;
/// Where events about cluster-wide objects are.
const NAMESPACE: &str = "default";

/// Whether an event is good or bad news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Something happened as it should.
    Normal,
    /// Somebody should look.
    Warning,
}

/// Writes events.
#[derive(Clone)]
pub struct Reporter {
    client: Client,
    component: &'static str,
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reporter")
            .field("component", &self.component)
            .finish_non_exhaustive()
    }
}

impl Reporter {
    /// A reporter that signs as `component`.
    #[must_use]
    pub fn new(client: Client, component: &'static str) -> Self {
        Self { client, component }
    }

    /// Reports about the object of one of our kinds. The same event again moves its time. A failure is logged only: an event
    /// is news, not state.
    pub async fn report(
        &self,
        (kind, name, uid): (&str, &str, &str),
        severity: Severity,
        reason: &str,
        message: &str,
    ) {
        let object = ObjectReference {
            api_version: Some(format!("{}/{}", api::crd::GROUP, api::crd::VERSION)),
            kind: Some(kind.to_owned()),
            name: Some(name.to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        self.report_on(object, severity, reason, message).await;
    }

    /// The same about an object of Kubernetes' own that is in a namespace.
    pub async fn report_about(
        &self,
        (kind, namespace, name, uid): (&str, &str, &str, &str),
        severity: Severity,
        reason: &str,
        message: &str,
    ) {
        let object = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some(kind.to_owned()),
            namespace: Some(namespace.to_owned()),
            name: Some(name.to_owned()),
            uid: Some(uid.to_owned()).filter(|uid| !uid.is_empty()),
            ..ObjectReference::default()
        };
        self.report_on(object, severity, reason, message).await;
    }

    async fn report_on(&self, object: ObjectReference, severity: Severity, reason: &str, message: &str) {
        let message: String = message.chars().take(MESSAGE_MAX).collect();
        let mut hasher = DefaultHasher::new();
        (&object.uid, reason, &message).hash(&mut hasher);
        let now = Time(Timestamp::now());
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!(
                    "{}.{:016x}",
                    object.name.as_deref().unwrap_or_default(),
                    hasher.finish()
                )),
                namespace: Some(object.namespace.as_deref().unwrap_or(NAMESPACE).to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: object,
            reason: Some(reason.to_owned()),
            message: Some(message),
            type_: Some(
                match severity {
                    Severity::Normal => "Normal",
                    Severity::Warning => "Warning",
                }
                .to_owned(),
            ),
            source: Some(EventSource {
                component: Some(self.component.to_owned()),
                host: None,
            }),
            reporting_component: Some(self.component.to_owned()),
            first_timestamp: Some(now.clone()),
            last_timestamp: Some(now),
            count: Some(1),
            ..Event::default()
        };
        if let Err(error) = self.write(&event).await {
            debug!(reason, %error, "event not written");
        }
    }

    async fn write(&self, event: &Event) -> Result<(), kube::Error> {
        let namespace = event.metadata.namespace.as_deref().unwrap_or(NAMESPACE);
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        match api.create(&PostParams::default(), event).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let name = event.metadata.name.as_deref().unwrap_or_default();
                let again = json!({ "lastTimestamp": event.last_timestamp });
                api.patch(name, &PatchParams::default(), &Patch::Merge(again))
                    .await
                    .map(drop)
            }
            other => other.map(drop),
        }
    }
}
