// SPDX-License-Identifier: Apache-2.0
//! OpenAPI v3, as much as `kubectl` asks of it: which kinds can be patched and validated, and what custom kinds look like.

use serde_json::{Map, Value, json};

use crate::resources::{Registry, Resource};

pub(crate) fn index(registry: &Registry) -> Value {
    let mut paths = Map::new();
    for resource in registry.iter() {
        let path = if resource.group.is_empty() {
            format!("api/{}", resource.version)
        } else {
            format!("apis/{}/{}", resource.group, resource.version)
        };
        let url = format!("/openapi/v3/{path}");
        paths.insert(path, json!({ "serverRelativeURL": url }));
    }
    json!({ "paths": paths })
}

pub(crate) fn document(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    for resource in registry.of_version(group, version) {
        let name = schema_name(resource);
        for (path, item) in path_items(resource, &name) {
            paths.insert(path, item);
        }
        schemas.insert(name, schema(resource));
    }
    if schemas.is_empty() {
        return None;
    }
    schemas.insert(OBJECT_META.into(), object_meta());
    Some(json!({
        "openapi": "3.0.0", "info": { "title": "Kubernetes", "version": "v1" },
        "paths": paths, "components": { "schemas": schemas },
    }))
}

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// `com.example.v1.Widget`: the group backwards.
fn schema_name(resource: &Resource) -> String {
    let group = if resource.group.is_empty() {
        "core.api.k8s.io"
    } else {
        &resource.group
    };
    let reversed: Vec<&str> = group.rsplit('.').collect();
    format!("{}.{}.{}", reversed.join("."), resource.version, resource.kind)
}

fn gvk(resource: &Resource) -> Value {
    json!({ "group": resource.group, "version": resource.version, "kind": resource.kind })
}

fn path_items(resource: &Resource, schema: &str) -> Vec<(String, Value)> {
    let root = if resource.group.is_empty() {
        format!("/api/{}", resource.version)
    } else {
        format!("/apis/{}/{}", resource.group, resource.version)
    };
    let collection = if resource.namespaced {
        format!("{root}/namespaces/{{namespace}}/{}", resource.plural)
    } else {
        format!("{root}/{}", resource.plural)
    };
    let parameter = |name: &str| json!({ "name": name, "in": "query", "schema": { "type": "string", "uniqueItems": true } });
    let body = json!({ "$ref": format!("#/components/schemas/{schema}") });
    let operation = |action: &str, parameters: Vec<Value>, types: &[&str]| {
        let mut operation = json!({
            "x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk(resource), "parameters": parameters,
            "responses": { "200": { "description": "OK", "content": { "application/json": { "schema": body } } } },
        });
        if !types.is_empty() {
            let content: Map<String, Value> = types
                .iter()
                .map(|t| ((*t).to_owned(), json!({ "schema": body })))
                .collect();
            operation["requestBody"] = json!({ "content": content });
        }
        operation
    };
    let write = || {
        vec![
            parameter("dryRun"),
            parameter("fieldManager"),
            parameter("fieldValidation"),
        ]
    };
    // Strategic merge patches are understood too, but `kubectl` that read so here would look for their rules in our schemas;
    // it knows those of the built-in kinds by itself.
    let patches = [
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/apply-patch+yaml",
    ];
    let mut apply = write();
    apply.push(parameter("force"));
    let post = operation("post", write(), &["application/json"]);
    if resource.review {
        return vec![(collection, json!({ "post": post }))];
    }
    let item = json!({
        "get": operation("get", Vec::new(), &[]), "put": operation("put", write(), &["application/json"]),
        "patch": operation("patch", apply, &patches), "delete": operation("delete", vec![parameter("dryRun")], &[]),
    });
    let all = json!({ "get": operation("list", vec![parameter("labelSelector"), parameter("fieldSelector")], &[]), "post": post });
    vec![(format!("{collection}/{{name}}"), item), (collection, all)]
}

/// Custom kinds have a schema of their own; built-in ones are objects about which nothing is said.
fn schema(resource: &Resource) -> Value {
    let mut schema = match &resource.custom {
        Some(custom) => custom.schema().clone(),
        None => json!({ "type": "object", "description": format!("A {} of Kubernetes.", resource.kind),
                        "x-kubernetes-preserve-unknown-fields": true }),
    };
    let text = |description: &str| json!({ "type": "string", "description": description });
    let meta = json!({ "description": "Standard object's metadata.", "default": {},
                       "allOf": [{ "$ref": format!("#/components/schemas/{OBJECT_META}") }] });
    let properties = &mut schema["properties"];
    properties["apiVersion"] = text("The versioned schema of this representation of an object.");
    properties["kind"] = text("The REST resource this object represents.");
    properties["metadata"] = meta;
    schema["x-kubernetes-group-version-kind"] = json!([gvk(resource)]);
    schema
}

fn object_meta() -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    let map = |description: &str| json!({ "type": "object", "description": description, "additionalProperties": { "type": "string", "default": "" } });
    let list = |description: &str, items: Value| json!({ "type": "array", "description": description, "items": items });
    json!({ "type": "object", "description": "Metadata that all persisted resources have.", "properties": {
        "name": text("Unique within a namespace."),
        "namespace": text("The space within which each name must be unique."),
        "generateName": text("A prefix for a name that the server makes unique."),
        "labels": map("Keys and values by which objects are organized and selected."),
        "annotations": map("Keys and values that are not used to select."),
        "finalizers": list("What must be empty before the object is removed.", json!({ "type": "string", "default": "" })),
        "ownerReferences": list("The objects this object depends on.", json!({ "type": "object" })),
        "uid": text("Unique in time and space."),
        "resourceVersion": text("The internal version of this object."),
        "generation": json!({ "type": "integer", "format": "int64", "description": "A number for the desired state." }),
        "creationTimestamp": json!({ "type": "string", "format": "date-time", "description": "When it was created." }),
        "deletionTimestamp": json!({ "type": "string", "format": "date-time", "description": "When it will be deleted." }),
    } })
}
