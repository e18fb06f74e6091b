// SPDX-License-Identifier: Apache-2.0
//! What happens to an object between a request and the store: defaults, allocations, validation.

pub(crate) mod alloc;
mod meta;
pub(crate) mod names;
mod namespace_node_secret;
mod network;
mod pod;
mod service;
mod workload;

use serde_json::{Value, json};

use crate::crd;
use crate::resources::Resource;
use crate::status::{ApiError, FieldError, Result};
use crate::store::Txn;
use crate::value::Json;

/// Defaults of a new object.
pub(crate) fn default_new(resource: &Resource, value: &mut Value) {
    // Kubelets register nodes with a status; all other kinds begin with an empty one.
    if resource.status && !resource.is("nodes") {
        value.map_mut().remove("status");
    }
    default(resource, value);
}

/// What the server adds to a new object: its first status, and what nobody asked for.
pub(crate) fn begin(resource: &Resource, value: &mut Value) {
    match resource.group_resource.as_str() {
        "pods" => pod::initial_status(value),
        "namespaces" => namespace_node_secret::initial_namespace(value),
        "services" => value["status"] = json!({ "loadBalancer": {} }),
        "deployments.apps" | "daemonsets.apps" | "statefulsets.apps" | "jobs.batch" => {
            value["status"] = json!({})
        }
        "replicasets.apps" => value["status"] = json!({ "replicas": 0 }),
        "ingresses.networking.k8s.io" => value["status"] = json!({ "loadBalancer": {} }),
        "customresourcedefinitions.apiextensions.k8s.io" => crd::complete(value),
        _ => {}
    }
}

/// Defaults of a changed object.
pub(crate) fn on_update(resource: &Resource, value: &mut Value, old: &Value) {
    if resource.is("services") {
        service::before_update(value, old);
    }
    default(resource, value);
    if resource.is("customresourcedefinitions.apiextensions.k8s.io") {
        crd::complete(value);
    }
}

fn default(resource: &Resource, value: &mut Value) {
    if let Some(custom) = &resource.custom {
        custom.default(value);
        return;
    }
    match resource.group_resource.as_str() {
        "pods" => pod::default_spec(&mut value["spec"]),
        "services" => service::default(value),
        "deployments.apps" | "replicasets.apps" | "daemonsets.apps" | "statefulsets.apps" | "jobs.batch" => {
            workload::default(&resource.kind, value);
        }
        "networkpolicies.networking.k8s.io" => network::default_policy(value),
        "endpointslices.discovery.k8s.io" => network::default_slice(value),
        "endpoints" => network::default_endpoints(value),
        "namespaces" => namespace_node_secret::default_namespace(value),
        "nodes" => namespace_node_secret::default_node(value),
        "secrets" => namespace_node_secret::default_secret(value),
        _ => {}
    }
}

/// Gives a service its addresses and ports.
pub(crate) fn allocate(
    txn: &mut Txn<'_>,
    resource: &Resource,
    value: &mut Value,
    old: Option<&Value>,
) -> Result<()> {
    if !resource.is("services") {
        return Ok(());
    }
    // What cannot be right gets no address.
    refuse(resource, value, service::validate(value, old))?;
    service::allocate(txn.allocator(), value)
}

/// Refuses an object that breaks a rule.
pub(crate) fn validate(resource: &Resource, value: &Value, old: Option<&Value>) -> Result<()> {
    let mut errors = meta::validate(resource, value);
    if let Some(custom) = &resource.custom {
        errors.extend(custom.validate(value));
        return refuse(resource, value, errors);
    }
    errors.extend(match resource.group_resource.as_str() {
        "pods" => pod::validate(value, old),
        "deployments.apps" | "replicasets.apps" | "daemonsets.apps" | "statefulsets.apps" | "jobs.batch" => {
            workload::validate(&resource.kind, value, old)
        }
        "networkpolicies.networking.k8s.io" => network::validate_policy(value),
        "endpointslices.discovery.k8s.io" => network::validate_slice(value, old),
        "nodes" => namespace_node_secret::validate_node(value, old),
        "customresourcedefinitions.apiextensions.k8s.io" => crd::validate(value),
        _ => Vec::new(),
    });
    refuse(resource, value, errors)
}

fn refuse(resource: &Resource, value: &Value, errors: Vec<FieldError>) -> Result<()> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(
        &resource.kind,
        &resource.group,
        value.meta_str("name"),
        &errors,
    ))
}

pub(crate) fn name_required(resource: &Resource) -> ApiError {
    let error = FieldError::required("metadata.name", "name or generateName is required");
    ApiError::invalid(&resource.kind, &resource.group, "", &[error])
}

/// Members whose values are quantities.
const QUANTITY_MAPS: [&str; 6] = [
    "limits",
    "requests",
    "capacity",
    "allocatable",
    "default",
    "overhead",
];

/// Numbers where quantities are expected become strings: `cpu: 1` is how people write it.
pub(crate) fn quantities_to_strings(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, member) in map.iter_mut() {
                if let Some(quantities) = member
                    .as_object_mut()
                    .filter(|_| QUANTITY_MAPS.contains(&key.as_str()))
                {
                    quantities
                        .values_mut()
                        .filter(|q| q.is_number())
                        .for_each(|q| *q = q.to_string().into());
                } else if member.is_number() && key == "sizeLimit" {
                    *member = member.to_string().into();
                } else {
                    quantities_to_strings(member);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(quantities_to_strings),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
