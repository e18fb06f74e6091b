// SPDX-License-Identifier: Apache-2.0
//! Tables: what `kubectl get` shows of each kind.

mod cluster;
mod network;
mod workloads;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::crd::{CustomKind, jsonpath};
use crate::resources::Resource;
use crate::time;
use crate::value::{self, Json};
use crate::view::{Include, partial};

/// A column: its name, and whether only `-o wide` shows it.
type Column = (&'static str, bool);

/// A kind's columns behind NAME, and their cells.
struct Printer {
    columns: &'static [Column],
    cells: fn(&Value, Timestamp) -> Vec<Value>,
}

/// What none of the printers below knows: its age.
const AGE_ONLY: Printer = Printer {
    columns: &[("Age", false)],
    cells: |o, now| vec![age(o, now)],
};

fn printer(resource: &Resource) -> Printer {
    match resource.group_resource.as_str() {
        "pods" => workloads::PODS,
        "deployments.apps" => workloads::DEPLOYMENTS,
        "replicasets.apps" => workloads::REPLICA_SETS,
        "daemonsets.apps" => workloads::DAEMON_SETS,
        "statefulsets.apps" => workloads::STATEFUL_SETS,
        "jobs.batch" => workloads::JOBS,
        "services" => network::SERVICES,
        "endpoints" => network::ENDPOINTS,
        "endpointslices.discovery.k8s.io" => network::SLICES,
        "networkpolicies.networking.k8s.io" => network::POLICIES,
        "ingresses.networking.k8s.io" => network::INGRESSES,
        "ingressclasses.networking.k8s.io" => network::INGRESS_CLASSES,
        "nodes" => cluster::NODES,
        "namespaces" => cluster::NAMESPACES,
        "configmaps" => cluster::CONFIG_MAPS,
        "secrets" => cluster::SECRETS,
        "events" | "events.events.k8s.io" => cluster::EVENTS,
        "leases.coordination.k8s.io" => cluster::LEASES,
        "customresourcedefinitions.apiextensions.k8s.io" => cluster::DEFINITIONS,
        "poddisruptionbudgets.policy" => cluster::BUDGETS,
        "priorityclasses.scheduling.k8s.io" => cluster::PRIORITIES,
        "roles.rbac.authorization.k8s.io" | "clusterroles.rbac.authorization.k8s.io" => cluster::ROLES,
        "rolebindings.rbac.authorization.k8s.io" | "clusterrolebindings.rbac.authorization.k8s.io" => {
            cluster::BINDINGS
        }
        _ => AGE_ONLY,
    }
}

/// Objects as a table.
pub(crate) fn table(
    resource: &Resource,
    objects: &[Value],
    meta: Value,
    include: Include,
    with_columns: bool,
) -> Value {
    let now = time::timestamp();
    let printer = printer(resource);
    let row = |object: &Value| {
        let mut cells = match &resource.custom {
            Some(custom) => custom_cells(custom, object, now),
            None => (printer.cells)(object, now),
        };
        // Events are known by what they are about; all else by name.
        if !resource.storage.starts_with("events") {
            cells.insert(0, object.meta_str("name").into());
        }
        match include {
            Include::Nothing => json!({ "cells": cells }),
            Include::Metadata => json!({ "cells": cells, "object": partial(object) }),
            Include::Object => json!({ "cells": cells, "object": object }),
        }
    };
    let mut table = json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta,
        "rows": objects.iter().map(row).collect::<Vec<_>>(),
    });
    table["columnDefinitions"] = if with_columns {
        columns(resource, &printer).into()
    } else {
        Value::Null
    };
    table
}

fn columns(resource: &Resource, printer: &Printer) -> Vec<Value> {
    let column = |name: &str, kind: &str, description: &str, priority: i64| {
        let format = if name == "Name" { "name" } else { "" };
        json!({ "name": name, "type": kind, "format": format, "description": description, "priority": priority })
    };
    let mut columns = Vec::new();
    if !resource.storage.starts_with("events") {
        columns.push(column(
            "Name",
            "string",
            "Name must be unique within a namespace.",
            0,
        ));
    }
    match &resource.custom {
        Some(custom) => {
            columns.extend(
                custom
                    .columns
                    .iter()
                    .map(|c| column(&c.name, &c.kind, &c.description, c.priority)),
            );
        }
        None => columns.extend(
            printer
                .columns
                .iter()
                .map(|(name, wide)| column(name, "string", "", i64::from(*wide))),
        ),
    }
    columns
}

fn custom_cells(custom: &CustomKind, object: &Value, now: Timestamp) -> Vec<Value> {
    let cell = |kind: &str, path: &str| {
        let found = jsonpath::select(object, path);
        match (found.as_slice(), kind) {
            ([], _) => Value::Null,
            ([Value::String(time)], "date") => time::age(time, now).into(),
            ([one @ (Value::Number(_) | Value::Bool(_) | Value::String(_))], _) => (*one).clone(),
            (many, _) => many
                .iter()
                .map(|v| value::scalar(Some(v)))
                .collect::<Vec<_>>()
                .join(",")
                .into(),
        }
    };
    custom.columns.iter().map(|c| cell(&c.kind, &c.path)).collect()
}

fn age(object: &Value, now: Timestamp) -> Value {
    since(object.meta("creationTimestamp"), now)
}

fn since(timestamp: &Value, now: Timestamp) -> Value {
    timestamp
        .as_str()
        .map_or_else(|| "<unknown>".into(), |t| time::age(t, now).into())
}

fn text(object: &Value, pointer: &str) -> Value {
    or(object.str_at(pointer), "<none>")
}

fn or(text: &str, otherwise: &str) -> Value {
    if text.is_empty() {
        otherwise.into()
    } else {
        text.into()
    }
}

fn number(object: &Value, pointer: &str) -> i64 {
    object.at(pointer).as_i64().unwrap_or(0)
}

fn size(object: &Value, pointer: &str) -> usize {
    object.at(pointer).as_object().map_or(0, serde_json::Map::len)
}

/// `a=b,c=d`.
fn labels(labels: &Value) -> Value {
    let pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    or(&pairs.join(","), "<none>")
}

/// A label selector as `-o wide` shows it.
fn selector(selector: &Value) -> Value {
    let mut parts = Vec::new();
    if let Value::String(plain) = labels(selector.at("/matchLabels"))
        && plain != "<none>"
    {
        parts.push(plain);
    }
    for e in selector.list_at("/matchExpressions") {
        let values: Vec<&str> = e.list_at("/values").iter().filter_map(Value::as_str).collect();
        let key = e.str_at("/key");
        parts.push(match e.str_at("/operator") {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    or(&parts.join(","), "<none>")
}

/// The names and images of a pod template's containers.
fn containers(spec: &Value) -> [Value; 2] {
    ["/name", "/image"].map(|field| {
        spec.list_at("/containers")
            .iter()
            .map(|c| c.str_at(field))
            .collect::<Vec<_>>()
            .join(",")
            .into()
    })
}

/// Items joined by commas, the tail of a long list counted only.
fn some_of(items: &[String], shown: usize) -> Value {
    if items.is_empty() {
        return "<none>".into();
    }
    let head = items.iter().take(shown).cloned().collect::<Vec<_>>().join(",");
    let more = items.len().saturating_sub(shown);
    if more > 0 {
        format!("{head} + {more} more...").into()
    } else {
        head.into()
    }
}
