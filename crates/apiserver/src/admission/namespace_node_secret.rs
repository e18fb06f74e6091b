// SPDX-License-Identifier: Apache-2.0
//! Namespaces, nodes, secrets.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::status::FieldError;
use crate::value::Json;

/// The label by which selectors know a namespace.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub(super) fn initial_namespace(value: &mut Value) {
    value["spec"] = json!({ "finalizers": ["kubernetes"] });
    value["status"] = json!({ "phase": "Active" });
}

pub(super) fn default_namespace(value: &mut Value) {
    let name = value.meta_str("name").to_owned();
    value["metadata"]["labels"]
        .map_mut()
        .insert(NAME_LABEL.into(), name.into());
}

/// `podCIDR` is the first of `podCIDRs`; who sets one of them sets both.
pub(super) fn default_node(value: &mut Value) {
    let (first, list) = (
        value.str_at("/spec/podCIDR").to_owned(),
        value.list_at("/spec/podCIDRs").to_vec(),
    );
    value["spec"].map_mut();
    if list.is_empty() && !first.is_empty() {
        value["spec"]["podCIDRs"] = json!([first]);
    } else if let (true, Some(first)) = (first.is_empty(), list.first()) {
        value["spec"]["podCIDR"] = first.clone();
    }
}

pub(super) fn validate_node(value: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let cidrs = value.list_at("/spec/podCIDRs");
    for (i, cidr) in cidrs.iter().enumerate() {
        if cidr.as_str().is_none_or(|c| c.parse::<ipnet::IpNet>().is_err()) {
            errors.push(FieldError::invalid(
                format!("spec.podCIDRs[{i}]"),
                cidr,
                "must be a valid CIDR value",
            ));
        }
    }
    if cidrs.len() > 2 {
        errors.push(FieldError::invalid(
            "spec.podCIDRs",
            &json!(cidrs),
            "may specify no more than one CIDR for each IP family",
        ));
    }
    if cidrs.first().is_some_and(|c| *c != *value.at("/spec/podCIDR")) {
        errors.push(FieldError::invalid(
            "spec.podCIDRs[0]",
            &cidrs[0],
            "field is not equal to spec.podCIDR",
        ));
    }
    if let Some(old) = old {
        let was = old.list_at("/spec/podCIDRs");
        if !was.is_empty() && was != cidrs {
            let detail = "node updates may not change podCIDR except from \"\" to valid";
            errors.push(FieldError::forbidden("spec.podCIDRs", detail));
        }
    }
    errors
}

/// `stringData` is only a way to write `data`.
pub(super) fn default_secret(value: &mut Value) {
    value.default_to("type", "Opaque");
    let Some(Value::Object(plain)) = value.map_mut().remove("stringData") else {
        return;
    };
    let data = value["data"].map_mut();
    for (key, text) in plain {
        data.insert(key, STANDARD.encode(text.as_str().unwrap_or_default()).into());
    }
}
