// SPDX-License-Identifier: Apache-2.0
//! Reads from AWS and from a cluster what their command lines would have recorded. Nothing is written.

use std::path::Path;

use ::platform::Platform;
use ::platform::verify::{State, recordings};
use futures::stream::{self, StreamExt as _};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::{Api, Client};
use serde_json::json;

use crate::cli::cloud::AwsArgs;

/// Questions to AWS under way at once: it throttles accounts, not connections.
const AT_ONCE: usize = 4;

/// What is read: its file, group, version, kind, and the namespace if it is not of all.
const LISTS: [(&str, &str, &str, &str, Option<&str>); 3] = [
    ("nodes", "", "v1", "Node", None),
    ("daemonsets", "apps", "v1", "DaemonSet", None),
    ("services", "", "v1", "Service", Some("default")),
];

/// Adds AWS's answers about its clusters to the state. Where there is none, the reason is told as unknown.
pub(super) async fn ask_aws(
    platform: &Platform,
    cloud: &AwsArgs,
    meant: impl Fn(&str) -> bool,
    state: &mut State,
) -> anyhow::Result<()> {
    let mut questions = Vec::new();
    for recording in recordings(platform).into_iter().filter(|one| meant(&one.cluster)) {
        if let Some(call) = recording.call {
            questions.push((recording.file, call, cloud.client(Some(&recording.region))?));
        }
    }
    let asked = questions
        .into_iter()
        .map(|(file, call, client)| async move { (file, client.ask(&call).await) });
    let mut answers = stream::iter(asked).buffer_unordered(AT_ONCE);
    while let Some((file, answer)) = answers.next().await {
        match answer {
            Ok(value) => state.add_value(&file, value),
            Err(error) => state.add_unknown(&file, error.to_string()),
        }
    }
    Ok(())
}

/// Adds a cluster's lists to the state. One that cannot be read is added as the error, which is then told as unknown.
pub(super) async fn record(kubeconfig: &Path, context: &str, cluster: &str, state: &mut State) {
    let client = ::connectivity::kube::client(kubeconfig, Some(context)).await;
    for (name, group, version, kind, namespace) in LISTS {
        let path = format!("{cluster}/kubernetes/{name}.json");
        let listed = match &client {
            Ok(client) => list(client, &GroupVersionKind::gvk(group, version, kind), namespace).await,
            Err(error) => Err(anyhow::anyhow!(telemetry::log::with_causes(error))),
        };
        match listed {
            Ok(value) => state.add_value(&path, value),
            Err(error) => {
                let reason = format!("cannot list {name} by {}: {error:#}", kubeconfig.display());
                state.add_unknown(&path, reason);
            }
        }
    }
}

async fn list(
    client: &Client,
    kind: &GroupVersionKind,
    namespace: Option<&str>,
) -> anyhow::Result<serde_json::Value> {
    let resource = ApiResource::from_gvk(kind);
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let items = api.list(&ListParams::default()).await?.items;
    Ok(json!({"items": serde_json::to_value(items)?}))
}
