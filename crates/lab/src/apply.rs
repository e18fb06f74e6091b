// SPDX-License-Identifier: Apache-2.0
//! `lab apply -f`: server-side apply of any objects, as `kubectl apply --server-side` does.

use std::path::Path;
use std::time::Duration;

use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{GroupVersionKind, TypeMeta};
use kube::discovery::{ApiResource, Scope, pinned_kind};
use kube::{Api, Client};
use serde::Deserialize as _;
use serde_yaml_ng::Value;

use crate::Error;

const FIELD_MANAGER: &str = "thalweg-lab";
const DEFAULT_NAMESPACE: &str = "default";
/// A kind whose definition was applied just before is served after a moment.
const DEFINITION_ATTEMPTS: usize = 50;
const DEFINITION_PAUSE: Duration = Duration::from_millis(100);

/// Applies all objects of a YAML or JSON file (`-` is standard input) in their order; returns their names.
///
/// # Errors
/// When the file cannot be read or the API server refuses an object; those before it have been applied.
pub async fn file(client: &Client, path: &Path) -> Result<Vec<String>, Error> {
    let objects = read(path)?;
    let mut applied = Vec::with_capacity(objects.len());
    let mut definitions = false;
    for object in objects {
        applied.push(apply(client, &object, definitions).await?);
        definitions |= object
            .types
            .as_ref()
            .is_some_and(|types| types.kind == "CustomResourceDefinition");
    }
    Ok(applied)
}

/// The objects of a YAML or JSON file (`-` is standard input), in their order.
///
/// # Errors
/// When it cannot be read, or a document in it is no object; the text names the file and the document.
pub(crate) fn read(path: &Path) -> Result<Vec<DynamicObject>, Error> {
    let refused = |reason: &dyn std::fmt::Display| Error::Refused(format!("{}: {reason}", path.display()));
    let text = if path == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
            .map_err(|error| Error::Refused(format!("standard input: {error}")))?
    } else {
        std::fs::read_to_string(path).map_err(|error| refused(&error))?
    };
    parse(&text).map_err(|reason| refused(&reason))
}

async fn apply(client: &Client, object: &DynamicObject, after_definition: bool) -> Result<String, Error> {
    let types = object.types.clone().unwrap_or_default();
    let name = object.metadata.name.clone().unwrap_or_default();
    let label = format!("{}/{name}", types.kind.to_lowercase());
    let failed = |error| Error::kubernetes(format!("apply {label}"), error);
    let (resource, scope) = resource(client, &types, after_definition).await.map_err(failed)?;
    let api: Api<DynamicObject> = match scope {
        Scope::Cluster => Api::all_with(client.clone(), &resource),
        Scope::Namespaced => {
            let namespace = object.metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
            Api::namespaced_with(client.clone(), namespace, &resource)
        }
    };
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    api.patch(&name, &parameters, &Patch::Apply(object))
        .await
        .map_err(failed)?;
    Ok(label)
}

async fn resource(
    client: &Client,
    types: &TypeMeta,
    after_definition: bool,
) -> Result<(ApiResource, Scope), kube::Error> {
    let kind = GroupVersionKind::try_from(types).map_err(|error| {
        kube::Error::Discovery(kube::error::DiscoveryError::MissingKind(error.to_string()))
    })?;
    let mut attempts = if after_definition { DEFINITION_ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        match pinned_kind(client, &kind).await {
            Ok((resource, capabilities)) => return Ok((resource, capabilities.scope)),
            Err(error) if attempts == 0 => return Err(error),
            Err(_) => tokio::time::sleep(DEFINITION_PAUSE).await,
        }
    }
}

/// The objects of a multi-document YAML text, lists unfolded.
fn parse(text: &str) -> Result<Vec<DynamicObject>, String> {
    let mut objects = Vec::new();
    for (document, number) in serde_yaml_ng::Deserializer::from_str(text).zip(1..) {
        let at = |error: serde_yaml_ng::Error| format!("document {number}: {error}");
        let value = Value::deserialize(document).map_err(at)?;
        let items = match value.get("items").and_then(Value::as_sequence) {
            Some(items)
                if value
                    .get("kind")
                    .and_then(Value::as_str)
                    .is_some_and(|kind| kind.ends_with("List")) =>
            {
                items.clone()
            }
            _ if value.is_null() => continue,
            _ => vec![value],
        };
        for item in items {
            let object: DynamicObject = serde_yaml_ng::from_value(item).map_err(at)?;
            if object.types.is_none() || object.metadata.name.is_none() {
                return Err(format!(
                    "document {number}: apiVersion, kind and metadata.name are needed"
                ));
            }
            objects.push(object);
        }
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_and_lists_become_objects_in_order() {
        let text = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\n# nothing\n---\napiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: b}}\n- {apiVersion: v1, kind: Pod, metadata: {name: c}}\n";
        let names: Vec<_> = parse(text)
            .unwrap()
            .into_iter()
            .map(|object| object.metadata.name.unwrap())
            .collect();
        assert_eq!(names, ["a", "b", "c"]);
    }

    #[test]
    fn a_document_that_is_no_object_is_refused_by_number() {
        assert!(
            parse("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\nkind: Pod\n")
                .unwrap_err()
                .contains("document 2")
        );
        assert!(parse("a: [").unwrap_err().contains("document 1"));
    }
}
