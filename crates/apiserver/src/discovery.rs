// SPDX-License-Identifier: Apache-2.0
//! What clients ask first: versions, groups and their resources.

use serde_json::{Value, json};

use crate::resources::{Registry, Resource, api_version};

/// The Kubernetes version that the server claims to be.
const MINOR: &str = "32";

pub(crate) fn version() -> Value {
    json!({
        "major": "1", "minor": MINOR, "gitVersion": format!("v1.{MINOR}.0-thalweg"), "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none", "compiler": "rustc",
        "platform": format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }),
    })
}

pub(crate) fn api_versions() -> Value {
    json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] })
}

pub(crate) fn api_groups(registry: &Registry) -> Value {
    let groups: Vec<Value> = registry
        .groups()
        .into_iter()
        .map(|(group, versions)| group_value(group, &versions))
        .collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

pub(crate) fn api_group(registry: &Registry, group: &str) -> Option<Value> {
    let mut value = group_value(group, registry.groups().get(group)?);
    value["kind"] = "APIGroup".into();
    value["apiVersion"] = "v1".into();
    Some(value)
}

fn group_value(group: &str, versions: &[&str]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|v| json!({ "groupVersion": api_version(group, v), "version": v }))
        .collect();
    json!({ "name": group, "versions": versions, "preferredVersion": versions.first() })
}

pub(crate) fn api_resources(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let resources: Vec<Value> = registry
        .of_version(group, version)
        .flat_map(|r| entries(r))
        .collect();
    if resources.is_empty() {
        return None;
    }
    let group_version = api_version(group, version);
    Some(
        json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources }),
    )
}

/// A resource and its subresources.
fn entries(resource: &Resource) -> Vec<Value> {
    let verbs: &[&str] = if resource.review {
        &["create"]
    } else {
        &[
            "create",
            "delete",
            "deletecollection",
            "get",
            "list",
            "patch",
            "update",
            "watch",
        ]
    };
    let mut main = json!({
        "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
        "kind": resource.kind, "verbs": verbs,
    });
    if !resource.short_names.is_empty() {
        main["shortNames"] = resource.short_names.clone().into();
    }
    if !resource.categories.is_empty() {
        main["categories"] = resource.categories.clone().into();
    }
    let mut entries = vec![main];
    let mut sub = |name: &str, kind: &str, group_version: Option<(&str, &str)>, verbs: &[&str]| {
        let mut entry = json!({
            "name": format!("{}/{name}", resource.plural), "singularName": "", "namespaced": resource.namespaced,
            "kind": kind, "verbs": verbs,
        });
        if let Some((group, version)) = group_version {
            entry["group"] = group.into();
            entry["version"] = version.into();
        }
        entries.push(entry);
    };
    if resource.status {
        sub("status", &resource.kind, None, &["get", "patch", "update"]);
    }
    if resource.scale.is_some() {
        sub(
            "scale",
            "Scale",
            Some(("autoscaling", "v1")),
            &["get", "patch", "update"],
        );
    }
    if resource.is("namespaces") {
        sub("finalize", "Namespace", None, &["update"]);
    }
    if resource.is("pods") {
        sub("binding", "Binding", None, &["create"]);
        sub("eviction", "Eviction", Some(("policy", "v1")), &["create"]);
        sub("exec", "PodExecOptions", None, &["create", "get"]);
        sub("log", "Pod", None, &["get"]);
    }
    entries
}
