// SPDX-License-Identifier: Apache-2.0
//! Reads from a cluster what `kubectl get -o json` would have recorded. Three lists, nothing is written.

use std::path::Path;

use ::platform::verify::State;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::{Api, Client};
use serde_json::json;

/// What is read: its file, group, version, kind, and the namespace if it is not of all.
const LISTS: [(&str, &str, &str, &str, Option<&str>); 3] = [
    ("nodes", "", "v1", "Node", None),
    ("daemonsets", "apps", "v1", "DaemonSet", None),
    ("services", "", "v1", "Service", Some("default")),
];

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
            Err(error) => state.add(&path, &format!("{error:#}")),
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
