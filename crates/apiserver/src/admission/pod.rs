// SPDX-License-Identifier: Apache-2.0
//! Pods, and the pod templates of workloads.

use serde_json::{Value, json};

use super::{meta, names};
use crate::status::FieldError;
use crate::value::Json;

const CONTAINER_LISTS: [&str; 2] = ["initContainers", "containers"];

/// Defaults of a pod's spec.
pub(super) fn default_spec(spec: &mut Value) {
    spec.map_mut();
    spec.default_to("restartPolicy", "Always");
    spec.default_to("dnsPolicy", "ClusterFirst");
    spec.default_to("schedulerName", "default-scheduler");
    spec.default_to("terminationGracePeriodSeconds", 30);
    spec.default_to("securityContext", json!({}));
    spec.default_to("enableServiceLinks", true);
    let host_network = spec["hostNetwork"] == true;
    for list in CONTAINER_LISTS {
        for container in spec
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            default_container(container, host_network);
        }
    }
}

fn default_container(container: &mut Value, host_network: bool) {
    let image = container.str_at("/image").to_owned();
    let tag = image
        .rsplit('/')
        .next()
        .and_then(|name| name.split_once(':'))
        .map(|(_, tag)| tag);
    let latest = !image.contains('@') && matches!(tag, None | Some("latest"));
    container.default_to("imagePullPolicy", if latest { "Always" } else { "IfNotPresent" });
    container.default_to("terminationMessagePath", "/dev/termination-log");
    container.default_to("terminationMessagePolicy", "File");
    container.default_to("resources", json!({}));
    for port in container
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        port.default_to("protocol", "TCP");
        if host_network {
            let number = port["containerPort"].clone();
            port.default_to("hostPort", number);
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.get_mut(probe).filter(|p| p.is_object()) else {
            continue;
        };
        for (field, value) in [
            ("timeoutSeconds", 1),
            ("periodSeconds", 10),
            ("successThreshold", 1),
            ("failureThreshold", 3),
        ] {
            probe.default_to(field, value);
        }
        if let Some(get) = probe.get_mut("httpGet").filter(|g| g.is_object()) {
            get.default_to("path", "/");
            get.default_to("scheme", "HTTP");
        }
    }
    for env in container
        .get_mut("env")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if let Some(field) = env.pointer_mut("/valueFrom/fieldRef") {
            field.default_to("apiVersion", "v1");
        }
    }
    if let Some(limits) = container
        .pointer("/resources/limits")
        .and_then(Value::as_object)
        .cloned()
    {
        let requests = container["resources"]["requests"].map_mut();
        for (resource, quantity) in limits {
            requests.entry(resource).or_insert(quantity);
        }
    }
}

/// What a new pod's status is, and what the service account admission adds to its spec.
pub(super) fn initial_status(pod: &mut Value) {
    let spec = &mut pod["spec"];
    spec.default_to("serviceAccountName", "default");
    let account = spec["serviceAccountName"].clone();
    spec.default_to("serviceAccount", account);
    spec.default_to("preemptionPolicy", "PreemptLowerPriority");
    spec.default_to("priority", 0);
    let tolerations = spec["tolerations"].as_array().cloned().unwrap_or_default();
    let missing = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]
        .into_iter()
        .filter(|key| {
            let covers = |t: &Value| {
                (t["key"] == *key || t["key"].is_null() && t["operator"] == "Exists")
                    && (t["effect"] == "NoExecute" || t["effect"].is_null())
            };
            !tolerations.iter().any(covers)
        });
    let added = missing.map(
        |key| json!({ "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 }),
    );
    let all: Vec<Value> = tolerations.iter().cloned().chain(added).collect();
    spec["tolerations"] = all.into();
    pod["status"] = json!({ "phase": "Pending", "qosClass": qos_class(&pod["spec"]) });
}

fn qos_class(spec: &Value) -> &'static str {
    let containers = || {
        CONTAINER_LISTS
            .iter()
            .flat_map(|l| spec[*l].as_array().into_iter().flatten())
    };
    let has = |c: &Value, of: &str| {
        c.pointer(&format!("/resources/{of}"))
            .is_some_and(|r| r.as_object().is_some_and(|m| !m.is_empty()))
    };
    if !containers().any(|c| has(c, "requests") || has(c, "limits")) {
        return "BestEffort";
    }
    let guaranteed = |c: &Value| {
        let (requests, limits) = (c.at("/resources/requests"), c.at("/resources/limits"));
        ["cpu", "memory"]
            .iter()
            .all(|r| limits.get(r).is_some() && limits.get(r) == requests.get(r))
    };
    if containers().all(guaranteed) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

pub(super) fn validate(pod: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = validate_spec(pod.at("/spec"), "spec");
    if let Some(old) = old {
        let was = old.at("/spec/nodeName");
        if !was.is_null() && was != pod.at("/spec/nodeName") {
            errors.push(FieldError::forbidden(
                "spec.nodeName",
                "a pod stays on the node it was bound to",
            ));
        } else if !same_but_for_what_may_change(old.at("/spec"), pod.at("/spec")) {
            errors.push(FieldError::forbidden(
                "spec",
                "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
                 `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
                 `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
            ));
        }
    }
    errors
}

fn same_but_for_what_may_change(old: &Value, new: &Value) -> bool {
    let rest = |spec: &Value| {
        let mut spec = spec.clone();
        for field in [
            "nodeName",
            "activeDeadlineSeconds",
            "tolerations",
            "terminationGracePeriodSeconds",
            "ephemeralContainers",
            "schedulingGates",
        ] {
            spec.map_mut().remove(field);
        }
        for list in CONTAINER_LISTS {
            for container in spec
                .get_mut(list)
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                container.map_mut().remove("image");
            }
        }
        spec
    };
    rest(old) == rest(new)
}

/// What holds for the spec of a pod and of a template.
pub(super) fn validate_spec(spec: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if spec.list_at("/containers").is_empty() {
        errors.push(FieldError::required(format!("{path}.containers"), ""));
    }
    let mut seen: Vec<&str> = Vec::new();
    for list in CONTAINER_LISTS {
        for (i, container) in spec[list].as_array().into_iter().flatten().enumerate() {
            let path = format!("{path}.{list}[{i}]");
            let name = container.str_at("/name");
            if name.is_empty() {
                errors.push(FieldError::required(format!("{path}.name"), ""));
            } else if !names::is_label(name) {
                errors.push(FieldError::invalid(
                    format!("{path}.name"),
                    &name.into(),
                    names::LABEL,
                ));
            } else if seen.contains(&name) {
                errors.push(FieldError::duplicate(format!("{path}.name"), &name.into()));
            }
            if container.str_at("/image").is_empty() {
                errors.push(FieldError::required(format!("{path}.image"), ""));
            }
            seen.push(name);
            validate_ports(container, &path, &mut errors);
        }
    }
    let policy = spec.at("/restartPolicy");
    if !matches!(policy.as_str(), Some("Always" | "OnFailure" | "Never")) {
        errors.push(FieldError::unsupported(
            format!("{path}.restartPolicy"),
            policy,
            &["Always", "OnFailure", "Never"],
        ));
    }
    let dns = spec.at("/dnsPolicy");
    if !matches!(
        dns.as_str(),
        Some("ClusterFirst" | "ClusterFirstWithHostNet" | "Default" | "None")
    ) {
        let supported = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
        errors.push(FieldError::unsupported(
            format!("{path}.dnsPolicy"),
            dns,
            &supported,
        ));
    }
    meta::labels(
        spec.at("/nodeSelector"),
        &format!("{path}.nodeSelector"),
        &mut errors,
    );
    errors
}

fn validate_ports(container: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, port) in container.list_at("/ports").iter().enumerate() {
        let path = format!("{path}.ports[{i}]");
        validate_port(
            port.at("/containerPort"),
            &format!("{path}.containerPort"),
            errors,
        );
        validate_protocol(port.at("/protocol"), &format!("{path}.protocol"), errors);
        if let Some(name) = port["name"].as_str() {
            if seen.contains(&name) {
                errors.push(FieldError::duplicate(format!("{path}.name"), &name.into()));
            }
            if !is_port_name(name) {
                errors.push(FieldError::invalid(
                    format!("{path}.name"),
                    &name.into(),
                    PORT_NAME,
                ));
            }
            seen.push(name);
        }
    }
}

const PORT_NAME: &str = "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-), at least one letter, and no more than 15 characters";

/// An IANA service name.
pub(super) fn is_port_name(name: &str) -> bool {
    name.len() <= 15
        && names::is_label(name)
        && name.contains(|c: char| c.is_ascii_lowercase())
        && !name.contains("--")
}

pub(super) fn validate_port(port: &Value, path: &str, errors: &mut Vec<FieldError>) {
    match port.as_i64() {
        None => errors.push(FieldError::required(path, "")),
        Some(1..=65_535) => {}
        Some(_) => errors.push(FieldError::invalid(
            path,
            port,
            "must be between 1 and 65535, inclusive",
        )),
    }
}

pub(super) fn validate_protocol(protocol: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if !matches!(protocol.as_str(), Some("TCP" | "UDP" | "SCTP")) {
        errors.push(FieldError::unsupported(path, protocol, &["SCTP", "TCP", "UDP"]));
    }
}
