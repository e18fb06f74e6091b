// SPDX-License-Identifier: Apache-2.0
//! The environment of a container: pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, Pod};
use kube::ResourceExt as _;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What fields of the pod's status resolve to, known before the API knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses<'a> {
    /// The pod's, primary first.
    pub(super) pod: &'a [IpAddr],
    /// The node's, primary first.
    pub(super) host: &'a [IpAddr],
}

/// Names and values, later ones over earlier ones. `Err` says what cannot be had here.
pub(super) fn environment(
    pod: &Pod,
    container: &Container,
    addresses: Addresses<'_>,
) -> Result<BTreeMap<String, String>, String> {
    let mut env = BTreeMap::from([
        ("PATH".to_owned(), DEFAULT_PATH.to_owned()),
        ("HOME".to_owned(), "/root".to_owned()),
        ("HOSTNAME".to_owned(), hostname(pod)),
    ]);
    if container
        .env_from
        .as_ref()
        .is_some_and(|sources| !sources.is_empty())
    {
        return Err("envFrom is not supported here; write the variables into env".into());
    }
    for variable in container.env.iter().flatten() {
        let value = value(pod, variable, addresses, &env)?;
        env.insert(variable.name.clone(), value);
    }
    Ok(env)
}

/// The pod's host name: its own choice, or its name; the kernel takes 63 bytes of it.
pub(super) fn hostname(pod: &Pod) -> String {
    const LONGEST: usize = 63;
    let chosen = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.hostname.clone())
        .filter(|name| !name.is_empty());
    let mut name = chosen.unwrap_or_else(|| pod.name_any());
    name.truncate(LONGEST);
    name.trim_end_matches(['-', '.']).to_owned()
}

/// Replaces `$(NAME)` by what is known of it; `$$(NAME)` stays as `$(NAME)`, unknown names stay as they are.
pub(super) fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        if let Some(tail) = tail.strip_prefix('$') {
            out.push('$');
            rest = tail;
            continue;
        }
        let name = tail.strip_prefix('(').and_then(|tail| tail.split_once(')'));
        match name.and_then(|(name, after)| Some((env.get(name)?, after))) {
            Some((value, after)) => {
                out.push_str(value);
                rest = after;
            }
            None => {
                out.push('$');
                rest = tail;
            }
        }
    }
    out.push_str(rest);
    out
}

fn value(
    pod: &Pod,
    variable: &EnvVar,
    addresses: Addresses<'_>,
    env: &BTreeMap<String, String>,
) -> Result<String, String> {
    match &variable.value_from {
        None => Ok(expand(variable.value.as_deref().unwrap_or_default(), env)),
        Some(EnvVarSource {
            field_ref: Some(field),
            ..
        }) => field_value(pod, &field.field_path, addresses).ok_or_else(|| {
            format!(
                "env {}: field {} is not supported here",
                variable.name, field.field_path
            )
        }),
        Some(_) => Err(format!(
            "env {}: only value and valueFrom.fieldRef are supported here",
            variable.name
        )),
    }
}

fn field_value(pod: &Pod, path: &str, addresses: Addresses<'_>) -> Option<String> {
    let spec = pod.spec.as_ref();
    let join = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let first = |ips: &[IpAddr]| ips.first().map(ToString::to_string).unwrap_or_default();
    let value = match path {
        "metadata.name" => pod.name_any(),
        "metadata.namespace" => pod.namespace().unwrap_or_default(),
        "metadata.uid" => pod.uid().unwrap_or_default(),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => spec
            .and_then(|spec| spec.service_account_name.clone())
            .unwrap_or_default(),
        "status.hostIP" => first(addresses.host),
        "status.hostIPs" => join(addresses.host),
        "status.podIP" => first(addresses.pod),
        "status.podIPs" => join(addresses.pod),
        _ => return keyed(pod, path),
    };
    Some(value)
}

/// `metadata.labels['key']` and `metadata.annotations['key']`; an absent key is an empty value.
fn keyed(pod: &Pod, path: &str) -> Option<String> {
    let (map, key) = path.split_once("['")?;
    let key = key.strip_suffix("']")?;
    let map = match map {
        "metadata.labels" => pod.labels(),
        "metadata.annotations" => pod.annotations(),
        _ => return None,
    };
    Some(map.get(key).cloned().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(env: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "web", "namespace": "default", "labels": { "app": "x" } },
            "spec": { "nodeName": "node-1", "containers": [{ "name": "c", "env": env }] },
        }))
        .unwrap()
    }

    fn env_of(env: Value) -> Result<BTreeMap<String, String>, String> {
        let pod = pod(env);
        let ips: [IpAddr; 2] = [[10, 0, 0, 1].into(), [0xfd00, 0, 0, 0, 0, 0, 0, 1].into()];
        let spec = pod.spec.clone().unwrap_or_default();
        environment(
            &pod,
            &spec.containers[0],
            Addresses {
                pod: &ips,
                host: &ips[..1],
            },
        )
    }

    fn field(name: &str, path: &str) -> Value {
        json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } })
    }

    #[test]
    fn variables_see_the_pod_and_one_another() {
        let env = env_of(json!([
            field("IPS", "status.podIPs"), field("NODE", "spec.nodeName"), field("APP", "metadata.labels['app']"),
            { "name": "ALL", "value": "$(APP)@$(NODE) $$(APP) $(NONE) 5$" },
        ]))
        .unwrap();
        assert_eq!(env["IPS"], "10.0.0.1,fd00::1");
        assert_eq!(env["ALL"], "x@node-1 $(APP) $(NONE) 5$");
        assert_eq!(env["HOSTNAME"], "web");
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let error = env_of(json!([field("CPU", "limits.cpu")])).unwrap_err();
        assert_eq!(error, "env CPU: field limits.cpu is not supported here");
        let secret = json!([{ "name": "S", "valueFrom": { "secretKeyRef": { "name": "a", "key": "b" } } }]);
        assert!(env_of(secret).unwrap_err().contains("env S"));
    }
}
