// SPDX-License-Identifier: Apache-2.0
//! Network policies and endpoints.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::pod::{validate_port, validate_protocol};
use crate::status::FieldError;
use crate::value::Json;

pub(super) fn default_policy(policy: &mut Value) {
    let spec = &mut policy["spec"];
    spec.map_mut();
    spec.default_to("podSelector", json!({}));
    let types = if spec.list_at("/egress").is_empty() {
        json!(["Ingress"])
    } else {
        json!(["Ingress", "Egress"])
    };
    spec.default_to("policyTypes", types);
    for direction in ["ingress", "egress"] {
        for rule in spec
            .get_mut(direction)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            for port in rule
                .get_mut("ports")
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                port.default_to("protocol", "TCP");
            }
        }
    }
}

pub(super) fn validate_policy(policy: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (i, kind) in policy.list_at("/spec/policyTypes").iter().enumerate() {
        if !matches!(kind.as_str(), Some("Ingress" | "Egress")) {
            errors.push(FieldError::unsupported(
                format!("spec.policyTypes[{i}]"),
                kind,
                &["Egress", "Ingress"],
            ));
        }
    }
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (i, rule) in policy["spec"][direction]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
        {
            let path = format!("spec.{direction}[{i}]");
            for (j, port) in rule.list_at("/ports").iter().enumerate() {
                validate_policy_port(port, &format!("{path}.ports[{j}]"), &mut errors);
            }
            for (j, peer) in rule[peers].as_array().into_iter().flatten().enumerate() {
                validate_peer(peer, &format!("{path}.{peers}[{j}]"), &mut errors);
            }
        }
    }
    errors
}

fn validate_policy_port(port: &Value, path: &str, errors: &mut Vec<FieldError>) {
    validate_protocol(port.at("/protocol"), &format!("{path}.protocol"), errors);
    let first = port.at("/port");
    if first.is_number() {
        validate_port(first, &format!("{path}.port"), errors);
    }
    let last = port.at("/endPort");
    if last.is_null() {
        return;
    }
    match (first.as_i64(), last.as_i64()) {
        (Some(first), Some(last)) if last >= first => {}
        (Some(_), _) => {
            errors.push(FieldError::invalid(
                format!("{path}.endPort"),
                last,
                "must be greater than or equal to `port`",
            ));
        }
        (None, _) => {
            let detail = "may not be specified when `port` is not specified or is a name";
            errors.push(FieldError::invalid(format!("{path}.endPort"), last, detail));
        }
    }
}

fn validate_peer(peer: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let given = ["podSelector", "namespaceSelector", "ipBlock"].map(|f| !peer[f].is_null());
    match given {
        [false, false, false] => errors.push(FieldError::required(path, "must specify a peer")),
        [pods, namespaces, true] if pods || namespaces => {
            errors.push(FieldError::forbidden(
                path,
                "may not specify both ipBlock and another peer",
            ));
        }
        [_, _, true] => validate_block(peer.at("/ipBlock"), &format!("{path}.ipBlock"), errors),
        _ => {}
    }
}

fn validate_block(block: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let net = |v: &Value| v.as_str().and_then(|s| s.parse::<IpNet>().ok());
    let Some(whole) = net(block.at("/cidr")) else {
        let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        errors.push(FieldError::invalid(
            format!("{path}.cidr"),
            block.at("/cidr"),
            detail,
        ));
        return;
    };
    for (i, except) in block.list_at("/except").iter().enumerate() {
        let path = format!("{path}.except[{i}]");
        match net(except) {
            None => errors.push(FieldError::invalid(path, except, "must be a valid CIDR value")),
            Some(part) if !whole.contains(&part) || part.prefix_len() <= whole.prefix_len() => {
                let detail = format!("must be a strict subset of `cidr`: {whole}");
                errors.push(FieldError::invalid(path, except, detail));
            }
            Some(_) => {}
        }
    }
}

pub(super) fn default_slice(slice: &mut Value) {
    if slice["endpoints"].is_null() {
        slice["endpoints"] = json!([]);
    }
    for port in slice
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        port.default_to("name", "");
        port.default_to("protocol", "TCP");
    }
}

pub(super) fn validate_slice(slice: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let family = slice.at("/addressType");
    if !matches!(family.as_str(), Some("IPv4" | "IPv6" | "FQDN")) {
        errors.push(FieldError::unsupported(
            "addressType",
            family,
            &["FQDN", "IPv4", "IPv6"],
        ));
    }
    if old.is_some_and(|old| old.at("/addressType") != family) {
        errors.push(FieldError::invalid("addressType", family, "field is immutable"));
    }
    for (i, endpoint) in slice.list_at("/endpoints").iter().enumerate() {
        let path = format!("endpoints[{i}].addresses");
        let addresses = endpoint.list_at("/addresses");
        if addresses.is_empty() {
            errors.push(FieldError::required(&path, "must contain at least 1 address"));
        }
        for (j, address) in addresses.iter().enumerate() {
            let parsed = address.as_str().and_then(|a| a.parse::<IpAddr>().ok());
            let fits = match family.as_str() {
                Some("IPv4") => parsed.is_some_and(|a| a.is_ipv4()),
                Some("IPv6") => parsed.is_some_and(|a| a.is_ipv6()),
                _ => true,
            };
            if !fits {
                let detail = format!("must be a valid {} address", family.as_str().unwrap_or_default());
                errors.push(FieldError::invalid(format!("{path}[{j}]"), address, detail));
            }
        }
    }
    for (i, port) in slice.list_at("/ports").iter().enumerate() {
        validate_protocol(port.at("/protocol"), &format!("ports[{i}].protocol"), &mut errors);
    }
    errors
}

pub(super) fn default_endpoints(endpoints: &mut Value) {
    for subset in endpoints
        .get_mut("subsets")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        for port in subset
            .get_mut("ports")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            port.default_to("protocol", "TCP");
        }
    }
}
