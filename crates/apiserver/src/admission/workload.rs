// SPDX-License-Identifier: Apache-2.0
//! Deployments, ReplicaSets, DaemonSets, StatefulSets, Jobs.

use serde_json::{Value, json};

use super::{meta, pod};
use crate::status::FieldError;
use crate::value::Json;

pub(super) fn default(kind: &str, value: &mut Value) {
    let uid = value.meta_str("uid").to_owned();
    let name = value.meta_str("name").to_owned();
    let spec = &mut value["spec"];
    spec.map_mut();
    match kind {
        "Deployment" => {
            spec.default_to("replicas", 1);
            spec.default_to("revisionHistoryLimit", 10);
            spec.default_to("progressDeadlineSeconds", 600);
            spec["strategy"].default_to("type", "RollingUpdate");
            if spec["strategy"]["type"] == "RollingUpdate" {
                spec["strategy"]["rollingUpdate"].default_to("maxSurge", "25%");
                spec["strategy"]["rollingUpdate"].default_to("maxUnavailable", "25%");
            }
        }
        "ReplicaSet" => spec.default_to("replicas", 1),
        "DaemonSet" => {
            spec.default_to("revisionHistoryLimit", 10);
            spec["updateStrategy"].default_to("type", "RollingUpdate");
            if spec["updateStrategy"]["type"] == "RollingUpdate" {
                spec["updateStrategy"]["rollingUpdate"].default_to("maxSurge", 0);
                spec["updateStrategy"]["rollingUpdate"].default_to("maxUnavailable", 1);
            }
        }
        "StatefulSet" => {
            spec.default_to("replicas", 1);
            spec.default_to("revisionHistoryLimit", 10);
            spec.default_to("podManagementPolicy", "OrderedReady");
            spec.default_to("serviceName", "");
            spec["updateStrategy"].default_to("type", "RollingUpdate");
        }
        "Job" => default_job(spec, &name, &uid),
        _ => {}
    }
    pod::default_spec(&mut spec["template"]["spec"]);
    spec["template"].default_to("metadata", json!({}));
}

fn default_job(spec: &mut Value, name: &str, uid: &str) {
    spec.default_to("parallelism", 1);
    spec.default_to("completions", 1);
    spec.default_to("backoffLimit", 6);
    spec.default_to("completionMode", "NonIndexed");
    spec.default_to("suspend", false);
    spec.default_to("manualSelector", false);
    if spec["manualSelector"] == true || uid.is_empty() {
        return;
    }
    spec.default_to(
        "selector",
        json!({ "matchLabels": { "batch.kubernetes.io/controller-uid": uid } }),
    );
    let labels = spec["template"]["metadata"]["labels"].map_mut();
    for (key, value) in [
        ("batch.kubernetes.io/controller-uid", uid),
        ("batch.kubernetes.io/job-name", name),
        ("controller-uid", uid),
        ("job-name", name),
    ] {
        labels.insert(key.into(), value.into());
    }
}

pub(super) fn validate(kind: &str, value: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = pod::validate_spec(value.at("/spec/template/spec"), "spec.template.spec");
    let labels = value.at("/spec/template/metadata/labels");
    meta::labels(labels, "spec.template.metadata.labels", &mut errors);
    let selector = value.at("/spec/selector");
    if !selector.is_object() {
        errors.push(FieldError::required("spec.selector", ""));
    } else if selector
        .at("/matchLabels")
        .as_object()
        .is_none_or(serde_json::Map::is_empty)
        && selector.list_at("/matchExpressions").is_empty()
    {
        let detail = "empty selector is invalid for this kind";
        errors.push(FieldError::invalid("spec.selector", &json!({}), detail));
    } else if !selects(selector, labels) {
        let detail = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid(
            "spec.template.metadata.labels",
            labels,
            detail,
        ));
    }
    if old.is_some_and(|old| old.at("/spec/selector") != selector) {
        errors.push(FieldError::invalid(
            "spec.selector",
            selector,
            "field is immutable",
        ));
    }
    if value.at("/spec/replicas").as_i64().is_some_and(|r| r < 0) {
        let detail = "must be greater than or equal to 0";
        errors.push(FieldError::invalid(
            "spec.replicas",
            value.at("/spec/replicas"),
            detail,
        ));
    }
    let restart = value.at("/spec/template/spec/restartPolicy");
    if kind == "Job" && restart == "Always" {
        let path = "spec.template.spec.restartPolicy";
        errors.push(FieldError::unsupported(path, restart, &["OnFailure", "Never"]));
    } else if kind != "Job" && restart != "Always" {
        errors.push(FieldError::unsupported(
            "spec.template.spec.restartPolicy",
            restart,
            &["Always"],
        ));
    }
    errors
}

/// Whether a label selector selects these labels.
fn selects(selector: &Value, labels: &Value) -> bool {
    let wanted = selector["matchLabels"].as_object();
    let by_label = wanted
        .into_iter()
        .flatten()
        .all(|(k, v)| labels.get(k) == Some(v));
    let by_expression = selector.list_at("/matchExpressions").iter().all(|e| {
        let value = labels.get(e.str_at("/key"));
        let listed = value.is_some_and(|v| e.list_at("/values").contains(v));
        match e.str_at("/operator") {
            "In" => listed,
            "NotIn" => !listed,
            "Exists" => value.is_some(),
            _ => value.is_none(),
        }
    });
    by_label && by_expression
}
