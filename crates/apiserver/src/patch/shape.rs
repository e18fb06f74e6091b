// SPDX-License-Identifier: Apache-2.0
//! What lists and maps mean: which lists are sets or are keyed, which values are one piece.
//!
//! For the built-in kinds this is a table by field name and the name of the field above it, taken from the `patchMergeKey`,
//! `listType` and `mapType` markers of the Kubernetes API; for custom kinds it is in their schema.

use serde_json::Value;

use crate::resources::Resource;

/// How a list is merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ListKind<'a> {
    Atomic,
    Set,
    /// Items are known by these members; strategic merge patches use the first.
    Keyed(Vec<&'a str>),
}

/// A place in an object.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape<'a> {
    /// A field of a built-in kind, and the field above it.
    Builtin {
        kind: &'a str,
        parent: &'a str,
        field: &'a str,
    },
    /// A place of a custom kind; `None` where the schema says nothing.
    Schema { schema: Option<&'a Value>, root: bool },
}

impl<'a> Shape<'a> {
    pub(crate) fn of(resource: &'a Resource) -> Self {
        match &resource.custom {
            Some(custom) => Self::Schema {
                schema: Some(custom.schema()),
                root: true,
            },
            None => Self::Builtin {
                kind: &resource.kind,
                parent: "",
                field: "",
            },
        }
    }

    /// The shape of a member.
    pub(crate) fn member(self, name: &'a str) -> Self {
        match self {
            Self::Builtin { kind, field, .. } => Self::Builtin {
                kind,
                parent: field,
                field: name,
            },
            Self::Schema { root: true, .. } if name == "metadata" => Self::Builtin {
                kind: "",
                parent: "",
                field: "metadata",
            },
            Self::Schema { schema, .. } => {
                let schema = schema.and_then(|s| {
                    s.get("properties")
                        .and_then(|p| p.get(name))
                        .or_else(|| s.get("additionalProperties"))
                });
                Self::Schema { schema, root: false }
            }
        }
    }

    /// The shape of a list's items.
    pub(crate) fn item(self) -> Self {
        match self {
            Self::Builtin { .. } => self,
            Self::Schema { schema, .. } => Self::Schema {
                schema: schema.and_then(|s| s.get("items")),
                root: false,
            },
        }
    }

    /// Whether a map here is one piece.
    pub(crate) fn atomic_map(self) -> bool {
        match self {
            Self::Builtin { field, .. } => matches!(
                field,
                "selector"
                    | "nodeSelector"
                    | "labelSelector"
                    | "podSelector"
                    | "namespaceSelector"
                    | "fieldRef"
                    | "resourceFieldRef"
                    | "secretKeyRef"
                    | "configMapKeyRef"
                    | "roleRef"
                    | "involvedObject"
                    | "targetRef"
            ),
            Self::Schema { schema, .. } => schema.is_some_and(|s| s["x-kubernetes-map-type"] == "atomic"),
        }
    }

    pub(crate) fn list_kind(self) -> ListKind<'a> {
        match self {
            Self::Builtin { kind, parent, field } => builtin_list(kind, parent, field),
            Self::Schema {
                schema: Some(schema), ..
            } => match schema["x-kubernetes-list-type"].as_str() {
                Some("set") => ListKind::Set,
                Some("map") => {
                    let keys = schema["x-kubernetes-list-map-keys"]
                        .as_array()
                        .into_iter()
                        .flatten();
                    ListKind::Keyed(keys.filter_map(Value::as_str).collect())
                }
                _ => ListKind::Atomic,
            },
            Self::Schema { schema: None, .. } => ListKind::Atomic,
        }
    }
}

fn builtin_list<'a>(kind: &str, parent: &str, field: &str) -> ListKind<'a> {
    let container = matches!(parent, "containers" | "initContainers" | "ephemeralContainers");
    let keys: &[&str] = match field {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "imagePullSecrets"
        | "volumes"
        | "secrets"
        | "schedulingGates"
        | "resourceClaims" => &["name"],
        "env" if container => &["name"],
        "ports" if container => &["containerPort", "protocol"],
        "ports" if kind == "Service" && parent == "spec" => &["port", "protocol"],
        "volumeMounts" => &["mountPath"],
        "volumeDevices" => &["devicePath"],
        "hostAliases" | "podIPs" | "hostIPs" if kind != "Endpoints" => &["ip"],
        "topologySpreadConstraints" => &["topologyKey", "whenUnsatisfiable"],
        "conditions" if kind != "Event" => &["type"],
        "addresses" if kind == "Node" => &["type"],
        "ownerReferences" if parent == "metadata" => &["uid"],
        "finalizers" if parent == "metadata" => return ListKind::Set,
        "podCIDRs" if kind == "Node" => return ListKind::Set,
        _ => return ListKind::Atomic,
    };
    ListKind::Keyed(keys.to_vec())
}

/// The value by which an item is known; a port's protocol may be left out.
pub(crate) fn key_value(item: &Value, key: &str) -> Value {
    match item.get(key) {
        Some(value) if !value.is_null() => value.clone(),
        _ if key == "protocol" => "TCP".into(),
        _ => Value::Null,
    }
}

/// Whether two items of a keyed list are the same one.
pub(crate) fn same_item(a: &Value, b: &Value, keys: &[&str]) -> bool {
    keys.iter().all(|k| key_value(a, k) == key_value(b, k))
}
