// SPDX-License-Identifier: Apache-2.0
//! What holds for every object's metadata.

use serde_json::Value;

use super::names;
use crate::resources::Resource;
use crate::status::FieldError;
use crate::value::Json;

/// How large annotations may be altogether.
const MAX_ANNOTATIONS: usize = 256 << 10;

pub(super) fn validate(resource: &Resource, value: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let name = value.meta_str("name");
    let (fits, rule): (fn(&str) -> bool, &str) = match resource.group_resource.as_str() {
        "namespaces" => (names::is_label, names::LABEL),
        "services" => (names::is_label_1035, names::LABEL_1035),
        gr if gr.ends_with("rbac.authorization.k8s.io") => (
            |name| !matches!(name, "." | "..") && !name.contains(['/', '%']),
            "may not be '.' or '..' or contain '/' or '%'",
        ),
        _ => (names::is_subdomain, names::SUBDOMAIN),
    };
    if !fits(name) {
        errors.push(FieldError::invalid("metadata.name", &name.into(), rule));
    }
    labels(value.meta("labels"), "metadata.labels", &mut errors);
    let annotations = value.meta("annotations").as_object().into_iter().flatten();
    let mut size = 0;
    for (key, text) in annotations {
        size += key.len() + text.as_str().map_or(0, str::len);
        if !names::is_qualified(&key.to_lowercase()) {
            errors.push(FieldError::invalid(
                "metadata.annotations",
                &key.as_str().into(),
                names::QUALIFIED,
            ));
        }
    }
    if size > MAX_ANNOTATIONS {
        errors.push(FieldError::forbidden(
            "metadata.annotations",
            format!("must have at most {MAX_ANNOTATIONS} bytes"),
        ));
    }
    for (i, owner) in value.list_at("/metadata/ownerReferences").iter().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner.get(field).is_none_or(|v| v == "") {
                errors.push(FieldError::required(
                    format!("metadata.ownerReferences[{i}].{field}"),
                    "",
                ));
            }
        }
    }
    errors
}

/// Labels, wherever they are.
pub(super) fn labels(labels: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        if !names::is_qualified(key) {
            errors.push(FieldError::invalid(path, &key.as_str().into(), names::QUALIFIED));
        }
        if !value.as_str().is_some_and(names::is_label_value) {
            errors.push(FieldError::invalid(path, value, names::LABEL_VALUE));
        }
    }
}
