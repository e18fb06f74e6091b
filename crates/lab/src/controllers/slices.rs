// SPDX-License-Identifier: Apache-2.0
//! The EndpointSlices of a service: pure.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash as _, Hasher as _};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{Resource as _, ResourceExt as _};

/// The most endpoints that one slice holds.
pub(crate) const ENDPOINTS_PER_SLICE: usize = 100;
/// The label that ties a slice to its service.
pub(crate) const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// The label that says who writes a slice.
pub(crate) const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
/// Our value of [`MANAGED_BY_LABEL`]: the one of Kubernetes, whose place this controller takes.
pub(crate) const MANAGED_BY: &str = "endpointslice-controller.k8s.io";
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// Where the zone of a node is found.
pub(crate) type Zones = BTreeMap<String, String>;

/// The slices that a service should have, given its pods and the slices that it has; existing slices keep their endpoints, so
/// that one new pod changes one slice.
pub(crate) fn desired(
    service: &Service,
    pods: &[Arc<Pod>],
    zones: &Zones,
    existing: &[Arc<EndpointSlice>],
) -> Vec<EndpointSlice> {
    let mut slices = Vec::new();
    for family in families(service) {
        for (ports, endpoints) in by_ports(service, pods, zones, family) {
            let prefix = slice_prefix(service, family, &ports);
            let mine: Vec<&EndpointSlice> = existing
                .iter()
                .map(Arc::as_ref)
                .filter(|slice| slice.name_any().starts_with(&prefix))
                .collect();
            for (name, endpoints) in pack(&prefix, &mine, endpoints) {
                slices.push(slice(service, name, family, &ports, endpoints));
            }
        }
    }
    slices
}

/// Whether a slice says what it should; fields of others (resource version, more labels) do not count.
pub(crate) fn is_current(is: &EndpointSlice, should: &EndpointSlice) -> bool {
    let labels = should
        .labels()
        .iter()
        .all(|(key, value)| is.labels().get(key) == Some(value));
    let headless = is.labels().contains_key(HEADLESS_LABEL) == should.labels().contains_key(HEADLESS_LABEL);
    let ports = is.ports.as_deref().unwrap_or_default() == should.ports.as_deref().unwrap_or_default();
    labels && headless && ports && is.address_type == should.address_type && is.endpoints == should.endpoints
}

/// Whether the service's pods are its own choice: it has a selector, and is not a name elsewhere.
pub(crate) fn is_selecting(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return false };
    spec.type_.as_deref() != Some("ExternalName") && spec.selector.as_ref().is_some_and(|s| !s.is_empty())
}

/// Whether the pod is one of the service's.
pub(crate) fn selects(service: &Service, pod: &Pod) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|all| !all.is_empty() && all.iter().all(|(k, v)| pod.labels().get(k) == Some(v)))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    fn has(self, ip: IpAddr) -> bool {
        ip.is_ipv4() == (self == Self::V4)
    }
}

fn families(service: &Service) -> Vec<Family> {
    let named = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ip_families.as_deref())
        .unwrap_or_default();
    let mut families: Vec<Family> = named
        .iter()
        .map(|name| if name == "IPv6" { Family::V6 } else { Family::V4 })
        .collect();
    if families.is_empty() {
        families.push(Family::V4);
    }
    families
}

/// Endpoints, grouped by what the service's ports mean on them: a named target port may differ from pod to pod.
fn by_ports(
    service: &Service,
    pods: &[Arc<Pod>],
    zones: &Zones,
    family: Family,
) -> Vec<(Vec<EndpointPort>, Vec<Endpoint>)> {
    let mut groups: Vec<(Vec<EndpointPort>, Vec<Endpoint>)> = Vec::new();
    for pod in pods {
        let Some(endpoint) = endpoint(service, pod, zones, family) else {
            continue;
        };
        let ports = ports(service, pod);
        match groups.iter_mut().find(|(known, _)| *known == ports) {
            Some((_, endpoints)) => endpoints.push(endpoint),
            None => groups.push((ports, vec![endpoint])),
        }
    }
    groups
}

fn endpoint(service: &Service, pod: &Pod, zones: &Zones, family: Family) -> Option<Endpoint> {
    let status = pod.status.as_ref()?;
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let address = pod_ips(pod).into_iter().find(|ip| family.has(*ip))?;
    let spec = service.spec.as_ref()?;
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let serving = is_ready(pod);
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    Some(Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(spec.publish_not_ready_addresses == Some(true) || serving && !terminating),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod),
        zone: node.as_ref().and_then(|node| zones.get(node)).cloned(),
        node_name: node,
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    })
}

/// The pod's addresses, primary first.
pub(crate) fn pod_ips(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else {
        return Vec::new();
    };
    let mut ips: Vec<IpAddr> = status
        .pod_ips
        .iter()
        .flatten()
        .filter_map(|ip| ip.ip.parse().ok())
        .collect();
    if let Some(ip) = status
        .pod_ip
        .as_deref()
        .and_then(|ip| ip.parse().ok())
        .filter(|ip| !ips.contains(ip))
    {
        ips.insert(0, ip);
    }
    ips
}

/// Whether the pod's Ready condition is true.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}

/// A pod with a host name in the service's domain keeps that name there.
fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let in_domain = spec.subdomain.as_deref() == service.metadata.name.as_deref();
    spec.hostname.clone().filter(|name| in_domain && !name.is_empty())
}

fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ports.as_deref())
        .unwrap_or_default();
    let known = ports.iter().filter_map(|port| {
        Some(EndpointPort {
            app_protocol: port.app_protocol.clone(),
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(target_port(port, pod)?),
            protocol: Some(protocol(port.protocol.as_deref()).to_owned()),
        })
    });
    known.collect()
}

/// The port's number on the pod; `None` for a name that no container port has.
pub(crate) fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let name = match &port.target_port {
        None | Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut named = containers.flat_map(|container| container.ports.iter().flatten());
    let same = |p: &&k8s_openapi::api::core::v1::ContainerPort| {
        p.name.as_ref() == Some(name) && protocol(p.protocol.as_deref()) == protocol(port.protocol.as_deref())
    };
    named.find(same).map(|p| p.container_port)
}

fn protocol(named: Option<&str>) -> &str {
    named.filter(|name| !name.is_empty()).unwrap_or("TCP")
}

/// Slice names start with this; the digest keeps groups of different ports apart.
fn slice_prefix(service: &Service, family: Family, ports: &[EndpointPort]) -> String {
    let mut hasher = DefaultHasher::new();
    for port in ports {
        (&port.name, port.port, &port.protocol).hash(&mut hasher);
    }
    let digest = hasher.finish() & 0xffff_ffff;
    format!(
        "{}-{}-{digest:08x}-",
        service.name_any(),
        family.name().to_lowercase()
    )
}

/// Distributes endpoints over slices: each stays where it is, new ones fill the gaps, then new slices.
fn pack(prefix: &str, existing: &[&EndpointSlice], endpoints: Vec<Endpoint>) -> Vec<(String, Vec<Endpoint>)> {
    let mut slices: BTreeMap<String, Vec<Endpoint>> = existing
        .iter()
        .map(|slice| (slice.name_any(), Vec::new()))
        .collect();
    let home: BTreeMap<String, String> = existing
        .iter()
        .flat_map(|slice| {
            slice
                .endpoints
                .iter()
                .map(|endpoint| (identity(endpoint), slice.name_any()))
        })
        .collect();
    let mut homeless = Vec::new();
    for endpoint in endpoints {
        match home
            .get(&identity(&endpoint))
            .and_then(|name| slices.get_mut(name))
        {
            Some(slice) if slice.len() < ENDPOINTS_PER_SLICE => slice.push(endpoint),
            _ => homeless.push(endpoint),
        }
    }
    for slice in slices.values_mut() {
        let room = (ENDPOINTS_PER_SLICE - slice.len()).min(homeless.len());
        slice.extend(homeless.drain(..room));
    }
    let names: BTreeSet<String> = slices.keys().cloned().collect();
    let mut free = (1..)
        .map(|n: u32| format!("{prefix}{n}"))
        .filter(|name| !names.contains(name));
    while !homeless.is_empty() {
        let rest = homeless.split_off(homeless.len().min(ENDPOINTS_PER_SLICE));
        slices.insert(
            free.next().unwrap_or_default(),
            std::mem::replace(&mut homeless, rest),
        );
    }
    slices
        .into_iter()
        .filter(|(_, endpoints)| !endpoints.is_empty())
        .collect()
}

fn identity(endpoint: &Endpoint) -> String {
    endpoint
        .target_ref
        .as_ref()
        .and_then(|pod| pod.uid.clone())
        .unwrap_or_default()
}

fn slice(
    service: &Service,
    name: String,
    family: Family,
    ports: &[EndpointPort],
    mut endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    endpoints.sort_by(|a, b| a.addresses.cmp(&b.addresses));
    let mut labels = service.labels().clone();
    labels.insert(SERVICE_NAME_LABEL.into(), service.name_any());
    labels.insert(MANAGED_BY_LABEL.into(), MANAGED_BY.into());
    if service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None") {
        labels.insert(HEADLESS_LABEL.into(), String::new());
    } else {
        labels.remove(HEADLESS_LABEL);
    }
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: service
                .controller_owner_ref(&())
                .map(|owner: OwnerReference| vec![owner]),
            ..ObjectMeta::default()
        },
        address_type: family.name().into(),
        endpoints,
        ports: Some(ports.to_vec()),
    }
}

#[cfg(test)]
#[path = "slices_tests.rs"]
mod tests;
