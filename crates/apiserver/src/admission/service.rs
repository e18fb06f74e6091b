// SPDX-License-Identifier: Apache-2.0
//! Services: defaults, rules, and what they are given.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::alloc::{Allocator, Family};
use super::{names, pod};
use crate::status::{ApiError, FieldError, Result};
use crate::store::Key;
use crate::value::Json;

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

fn external_name(service: &Value) -> bool {
    service.str_at("/spec/type") == "ExternalName"
}

fn headless(service: &Value) -> bool {
    service.str_at("/spec/clusterIP") == "None"
}

fn has_node_ports(service: &Value) -> bool {
    match service.str_at("/spec/type") {
        "NodePort" => true,
        "LoadBalancer" => service.at("/spec/allocateLoadBalancerNodePorts") != &json!(false),
        _ => false,
    }
}

fn needs_health_check(service: &Value) -> bool {
    service.str_at("/spec/type") == "LoadBalancer" && service.str_at("/spec/externalTrafficPolicy") == "Local"
}

pub(super) fn default(service: &mut Value) {
    let spec = &mut service["spec"];
    spec.map_mut();
    spec.default_to("type", "ClusterIP");
    spec.default_to("sessionAffinity", "None");
    if spec["sessionAffinity"] == "ClientIP" {
        spec["sessionAffinityConfig"]["clientIP"].default_to("timeoutSeconds", 10_800);
    } else {
        spec.map_mut().remove("sessionAffinityConfig");
    }
    let kind = spec.str_at("/type").to_owned();
    if kind != "ExternalName" {
        spec.default_to("internalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        spec.default_to("externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        spec.default_to("allocateLoadBalancerNodePorts", true);
    }
    for port in spec
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        port.default_to("protocol", "TCP");
        let target = port["port"].clone();
        port.default_to("targetPort", target);
    }
    // One address may be given in either place.
    if let Some(address) = spec["clusterIP"]
        .as_str()
        .filter(|a| !a.is_empty())
        .map(str::to_owned)
    {
        spec.default_to("clusterIPs", json!([address]));
    } else if let Some(first) = spec["clusterIPs"].as_array().and_then(|a| a.first()).cloned() {
        spec["clusterIP"] = first;
    }
}

/// A client that sends an update without what it was given means to keep it; a changed type loses what the new one has not.
pub(super) fn before_update(service: &mut Value, old: &Value) {
    let kept_kind = !external_name(service) && !external_name(old);
    if kept_kind {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            let was = old.at(&format!("/spec/{field}"));
            if !was.is_null() {
                service["spec"].default_to(field, was.clone());
            }
        }
        // Asking for one stack only gives the second address back.
        if service.str_at("/spec/ipFamilyPolicy") == "SingleStack" {
            for list in ["clusterIPs", "ipFamilies"] {
                if let Some(items) = service["spec"][list].as_array_mut() {
                    items.truncate(1);
                }
            }
        }
    } else if external_name(service) {
        for field in [
            "clusterIP",
            "clusterIPs",
            "ipFamilies",
            "ipFamilyPolicy",
            "internalTrafficPolicy",
        ] {
            service["spec"].map_mut().remove(field);
        }
    }
    keep_node_ports(service, old);
    if !matches!(service.str_at("/spec/type"), "NodePort" | "LoadBalancer") {
        for field in ["externalTrafficPolicy", "allocateLoadBalancerNodePorts"] {
            service["spec"].map_mut().remove(field);
        }
    }
    if service.str_at("/spec/type") != "LoadBalancer" {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            service["spec"].map_mut().remove(field);
        }
    }
    if needs_health_check(service) {
        let was = old.at("/spec/healthCheckNodePort").clone();
        if !was.is_null() {
            service["spec"].default_to("healthCheckNodePort", was);
        }
    } else {
        service["spec"].map_mut().remove("healthCheckNodePort");
    }
}

fn keep_node_ports(service: &mut Value, old: &Value) {
    let wanted = has_node_ports(service);
    let was_given = has_node_ports(old);
    for port in service["spec"]
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        let same = |p: &&Value| {
            p["port"] == port["port"]
                && p["protocol"].as_str().unwrap_or("TCP") == port["protocol"].as_str().unwrap_or("TCP")
        };
        let was = old
            .list_at("/spec/ports")
            .iter()
            .find(same)
            .map(|p| p["nodePort"].clone());
        match was {
            Some(was) if wanted && !was.is_null() => port.default_to("nodePort", was),
            // The type no longer has node ports, and this one was only left over.
            Some(was) if !wanted && was_given && was == port["nodePort"] => {
                drop(port.map_mut().remove("nodePort"))
            }
            _ => {}
        }
    }
}

pub(super) fn validate(service: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = service.at("/spec");
    let kind = spec.at("/type");
    if !kind.as_str().is_some_and(|k| TYPES.contains(&k)) {
        errors.push(FieldError::unsupported("spec.type", kind, &TYPES));
    }
    if external_name(service) {
        let name = spec.str_at("/externalName");
        if !names::is_subdomain(name.trim_end_matches('.')) || name.is_empty() {
            errors.push(FieldError::invalid(
                "spec.externalName",
                &name.into(),
                names::SUBDOMAIN,
            ));
        }
    } else if spec.list_at("/ports").is_empty() && !headless(service) {
        errors.push(FieldError::required("spec.ports", ""));
    }
    validate_ports(service, &mut errors);
    for (field, supported) in [
        ("sessionAffinity", &["ClientIP", "None"][..]),
        ("internalTrafficPolicy", &["Cluster", "Local"]),
        ("externalTrafficPolicy", &["Cluster", "Local"]),
        (
            "ipFamilyPolicy",
            &["PreferDualStack", "RequireDualStack", "SingleStack"],
        ),
    ] {
        let value = spec.get(field).unwrap_or(&Value::Null);
        if !value.is_null() && !value.as_str().is_some_and(|v| supported.contains(&v)) {
            errors.push(FieldError::unsupported(format!("spec.{field}"), value, supported));
        }
    }
    if let Some(old) = old.filter(|old| !external_name(old) && !external_name(service)) {
        let was = old.str_at("/spec/clusterIP");
        if !was.is_empty() && was != spec.str_at("/clusterIP") {
            let is = spec.list_at("/clusterIPs");
            errors.push(FieldError::invalid(
                "spec.clusterIPs[0]",
                &json!(is),
                "may not change once set",
            ));
        }
    }
    errors
}

fn validate_ports(service: &Value, errors: &mut Vec<FieldError>) {
    let ports = service.list_at("/spec/ports");
    let node_ports = has_node_ports(service);
    for (i, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{i}]");
        pod::validate_port(port.at("/port"), &format!("{path}.port"), errors);
        pod::validate_protocol(port.at("/protocol"), &format!("{path}.protocol"), errors);
        let name = port.str_at("/name");
        if name.is_empty() && ports.len() > 1 {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        } else if !name.is_empty() && !names::is_label(name) {
            errors.push(FieldError::invalid(
                format!("{path}.name"),
                &name.into(),
                names::LABEL,
            ));
        }
        let before = &ports[..i];
        if !name.is_empty() && before.iter().any(|p| p.str_at("/name") == name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), &name.into()));
        }
        if before
            .iter()
            .any(|p| p["port"] == port["port"] && p["protocol"] == port["protocol"])
        {
            errors.push(FieldError::duplicate(&path, port));
        }
        if let Some(target) = port["targetPort"].as_i64()
            && !(1..=65_535).contains(&target)
        {
            let path = format!("{path}.targetPort");
            errors.push(FieldError::invalid(
                path,
                &target.into(),
                "must be between 1 and 65535, inclusive",
            ));
        }
        if !node_ports
            && service.str_at("/spec/type") == "ClusterIP"
            && port["nodePort"].as_i64().is_some_and(|p| p != 0)
        {
            errors.push(FieldError::forbidden(
                format!("{path}.nodePort"),
                "may not be used when `type` is 'ClusterIP'",
            ));
        }
    }
}

/// Gives a service the addresses and ports that its type wants, or says why not.
pub(super) fn allocate(allocator: &mut Allocator, service: &mut Value) -> Result<()> {
    let key = Key::of(service);
    let invalid = |error: FieldError| ApiError::invalid("Service", "", &key.name, &[error]);
    if !external_name(service) {
        let families = families(allocator, service).map_err(&invalid)?;
        set_families(service, &families);
        if headless(service) {
            service["spec"]["clusterIPs"] = json!(["None"]);
        } else {
            allocate_addresses(allocator, service, &key, &families).map_err(&invalid)?;
        }
    }
    allocate_ports(allocator, service, &key).map_err(&invalid)
}

/// The families of a service's addresses, from its policy, its addresses and what the cluster has.
fn families(allocator: &Allocator, service: &Value) -> Result<Vec<Family>, FieldError> {
    let cluster = allocator.families();
    let mut wanted: Vec<Family> = Vec::new();
    for (i, name) in service.list_at("/spec/ipFamilies").iter().enumerate() {
        let family = match name.as_str() {
            Some("IPv4") => Family::V4,
            Some("IPv6") => Family::V6,
            _ => {
                return Err(FieldError::unsupported(
                    format!("spec.ipFamilies[{i}]"),
                    name,
                    &["IPv4", "IPv6"],
                ));
            }
        };
        if wanted.contains(&family) {
            return Err(FieldError::duplicate(format!("spec.ipFamilies[{i}]"), name));
        }
        if !cluster.contains(&family) && !selectorless_headless(service) {
            let detail = "not configured on this cluster";
            return Err(FieldError::invalid(format!("spec.ipFamilies[{i}]"), name, detail));
        }
        wanted.push(family);
    }
    for (i, address) in service.list_at("/spec/clusterIPs").iter().enumerate() {
        let Some(address) = address.as_str().and_then(|a| a.parse::<IpAddr>().ok()) else {
            continue;
        };
        match wanted.get(i) {
            Some(family) if *family != Family::of(address) => {
                let detail = format!(
                    "expected an {} value as indicated by `ipFamilies[{i}]`",
                    family.as_str()
                );
                return Err(FieldError::invalid(
                    format!("spec.clusterIPs[{i}]"),
                    &address.to_string().into(),
                    detail,
                ));
            }
            Some(_) => {}
            None => wanted.push(Family::of(address)),
        }
    }
    if wanted.is_empty() {
        wanted.push(cluster[0]);
    }
    by_policy(allocator, service, wanted)
}

/// The families as `ipFamilyPolicy` has them.
fn by_policy(
    allocator: &Allocator,
    service: &Value,
    mut wanted: Vec<Family>,
) -> Result<Vec<Family>, FieldError> {
    let cluster = allocator.families();
    let policy = service.str_at("/spec/ipFamilyPolicy");
    let second = cluster
        .iter()
        .find(|f| !wanted.contains(f))
        .filter(|_| wanted.len() == 1);
    match policy {
        "RequireDualStack" if cluster.len() < 2 && !selectorless_headless(service) => {
            let detail = "this cluster is not configured for dual-stack services";
            Err(FieldError::invalid("spec.ipFamilyPolicy", &policy.into(), detail))
        }
        "RequireDualStack" | "PreferDualStack" => {
            wanted.extend(second);
            Ok(wanted)
        }
        "" | "SingleStack" if wanted.len() > 1 => {
            let detail =
                "must be RequireDualStack or PreferDualStack when multiple IP families are specified";
            Err(FieldError::invalid(
                "spec.ipFamilyPolicy",
                &"SingleStack".into(),
                detail,
            ))
        }
        _ => Ok(wanted),
    }
}

fn selectorless_headless(service: &Value) -> bool {
    headless(service)
        && service
            .at("/spec/selector")
            .as_object()
            .is_none_or(serde_json::Map::is_empty)
}

fn set_families(service: &mut Value, families: &[Family]) {
    service["spec"]["ipFamilies"] = families.iter().map(|f| f.as_str()).collect::<Vec<_>>().into();
    service["spec"].default_to("ipFamilyPolicy", "SingleStack");
}

fn allocate_addresses(
    allocator: &mut Allocator,
    service: &mut Value,
    key: &Key,
    families: &[Family],
) -> Result<(), FieldError> {
    let requested = service.list_at("/spec/clusterIPs").to_vec();
    let mut addresses = Vec::new();
    for (i, family) in families.iter().enumerate() {
        let path = format!("spec.clusterIPs[{i}]");
        let address = match requested.get(i).filter(|r| **r != "") {
            Some(text) => {
                let address = text.as_str().and_then(|t| t.parse::<IpAddr>().ok());
                let address =
                    address.ok_or_else(|| FieldError::invalid(&path, text, "must be a valid IP address"))?;
                if !allocator.contains(address) {
                    let detail = format!(
                        "failed to allocate IP {address}: the provided IP ({address}) is not in the valid range. The range of \
                         valid IPs is {}",
                        allocator.network(Family::of(address))
                    );
                    return Err(FieldError::invalid(path, &json!(requested), detail));
                }
                if allocator.address_taken(address, key) {
                    let detail = format!("failed to allocate IP {address}: provided IP is already allocated");
                    return Err(FieldError::invalid(path, &json!(requested), detail));
                }
                address
            }
            None => allocator.next_address(*family).ok_or_else(|| {
                let detail = format!(
                    "failed to allocate a serviceIP: range {} is full",
                    allocator.network(*family)
                );
                FieldError::invalid(path, &Value::Null, detail)
            })?,
        };
        addresses.push(address.to_string());
    }
    service["spec"]["clusterIP"] = addresses.first().cloned().unwrap_or_default().into();
    service["spec"]["clusterIPs"] = addresses.into();
    Ok(())
}

fn allocate_ports(allocator: &mut Allocator, service: &mut Value, key: &Key) -> Result<(), FieldError> {
    let mut used: Vec<u16> = Vec::new();
    if has_node_ports(service) {
        let ports = service["spec"]["ports"]
            .as_array_mut()
            .map(std::mem::take)
            .unwrap_or_default();
        // Requested ports first, so that an allocated one does not take them.
        let mut ports = ports;
        for (i, port) in ports.iter().enumerate() {
            let Some(number) = port["nodePort"].as_i64().filter(|p| *p != 0) else {
                continue;
            };
            used.push(check_port(
                allocator,
                number,
                key,
                &format!("spec.ports[{i}].nodePort"),
            )?);
            let clash = |other: &Value| {
                other["nodePort"] == port["nodePort"] && other["protocol"] == port["protocol"]
            };
            if ports[..i].iter().any(clash) {
                return Err(FieldError::duplicate(
                    format!("spec.ports[{i}].nodePort"),
                    &number.into(),
                ));
            }
        }
        for i in 0..ports.len() {
            if ports[i]["nodePort"].as_i64().unwrap_or(0) != 0 {
                continue;
            }
            // One number serves both protocols of a port, as DNS has it.
            let twin = ports
                .iter()
                .find(|p| p["port"] == ports[i]["port"] && p["nodePort"].as_i64().unwrap_or(0) != 0);
            let number = match twin.and_then(|p| p["nodePort"].as_u64()) {
                Some(number) => number,
                None => {
                    let number = allocator
                        .next_port(&used)
                        .ok_or_else(|| full(&format!("spec.ports[{i}].nodePort"), allocator))?;
                    used.push(number);
                    number.into()
                }
            };
            ports[i]["nodePort"] = number.into();
        }
        service["spec"]["ports"] = ports.into();
    }
    if needs_health_check(service) {
        let number = service.at("/spec/healthCheckNodePort").as_i64().unwrap_or(0);
        let path = "spec.healthCheckNodePort";
        let number = if number == 0 {
            allocator.next_port(&used).ok_or_else(|| full(path, allocator))?
        } else {
            check_port(allocator, number, key, path)?
        };
        service["spec"]["healthCheckNodePort"] = number.into();
    }
    Ok(())
}

fn full(path: &str, allocator: &Allocator) -> FieldError {
    let range = allocator.port_range();
    FieldError::invalid(
        path,
        &Value::Null,
        format!(
            "failed to allocate a nodePort: range {}-{} is full",
            range.start(),
            range.end()
        ),
    )
}

fn check_port(allocator: &Allocator, number: i64, key: &Key, path: &str) -> Result<u16, FieldError> {
    let range = allocator.port_range();
    let port = u16::try_from(number).ok().filter(|p| range.contains(p));
    let port = port.ok_or_else(|| {
        let detail = format!(
            "provided port is not in the valid range. The range of valid ports is {}-{}",
            range.start(),
            range.end()
        );
        FieldError::invalid(path, &number.into(), detail)
    })?;
    if allocator.port_taken(port, key) {
        return Err(FieldError::invalid(
            path,
            &number.into(),
            "provided port is already allocated",
        ));
    }
    Ok(port)
}
