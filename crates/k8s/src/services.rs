// SPDX-License-Identifier: Apache-2.0
//! The little that we read of Services and EndpointSlices, and what becomes of it.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use api::ALGORITHM_ANNOTATION;
use ipnet::IpNet;
use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use model::{
    Algorithm, Distribution, EndpointSlice, EndpointState, Exposure, Family, Hints, ObjectName, Service,
    ServicePort, SliceEndpoint, SlicePort, Transport,
};
use serde::{Deserialize, Deserializer};

use crate::names::Names;
use crate::objects::{Lenient, ObjectError, Parse, stands_for};

/// Services of other proxies, and those that have no address, as kube-proxy leaves them out.
pub(crate) const SELECTOR: &str = "!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless";
/// Objects per answer while listing: there are tens of thousands, of a kilobyte or two.
const SMALL_PAGE: u32 = 500;
/// Ties a slice to its service.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// `spec.clusterIP` of a service without an address.
const HEADLESS: &str = "None";
/// What Kubernetes gives where `timeoutSeconds` is missing: three hours.
const AFFINITY_SECONDS: u32 = 10_800;
/// `timeoutSeconds` is at most a day.
const AFFINITY_SECONDS_MOST: u32 = 86_400;

/// What we read of a Service.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ServiceObject {
    #[serde(default, deserialize_with = "slim")]
    pub(crate) metadata: ObjectMeta,
    #[serde(default)]
    spec: Lenient<ServiceSpec>,
    #[serde(default)]
    status: Lenient<ServiceStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ServiceSpec {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    #[serde(rename = "externalIPs")]
    external_ips: Option<Vec<String>>,
    ports: Option<Vec<PortSpec>>,
    session_affinity: Option<String>,
    session_affinity_config: Option<AffinityConfig>,
    internal_traffic_policy: Option<String>,
    external_traffic_policy: Option<String>,
    traffic_distribution: Option<String>,
    load_balancer_source_ranges: Option<Vec<String>>,
    health_check_node_port: Option<i32>,
    publish_not_ready_addresses: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PortSpec {
    name: Option<String>,
    protocol: Option<String>,
    port: i64,
    node_port: Option<i64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AffinityConfig {
    #[serde(rename = "clientIP")]
    client_ip: Option<ClientIp>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClientIp {
    timeout_seconds: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ServiceStatus {
    load_balancer: Option<LoadBalancerStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct LoadBalancerStatus {
    ingress: Option<Vec<Ingress>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Ingress {
    ip: Option<String>,
    ip_mode: Option<String>,
}

/// What we read of an EndpointSlice.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SliceObject {
    #[serde(default, deserialize_with = "slim")]
    pub(crate) metadata: ObjectMeta,
    #[serde(default)]
    address_type: String,
    #[serde(default)]
    ports: Lenient<Option<Vec<SlicePortObject>>>,
    #[serde(default)]
    endpoints: Lenient<Option<Vec<EndpointObject>>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SlicePortObject {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<i64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct EndpointObject {
    addresses: Vec<String>,
    conditions: Conditions,
    node_name: Option<String>,
    zone: Option<String>,
    hints: Option<HintsObject>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct HintsObject {
    for_zones: Option<Vec<NamedHint>>,
    for_nodes: Option<Vec<NamedHint>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NamedHint {
    name: String,
}

stands_for!(ServiceObject, core::Service);
stands_for!(SliceObject, discovery::EndpointSlice);

impl Parse for Arc<Service> {
    type Object = ServiceObject;

    const PAGE_SIZE: u32 = SMALL_PAGE;

    fn key_of(meta: &ObjectMeta) -> ObjectName {
        name_of(meta)
    }

    fn parse(object: ServiceObject, names: &mut Names) -> Result<Self, ObjectError> {
        let meta = object.metadata;
        if meta.name.is_none() {
            return Err(ObjectError::Missing("metadata.name"));
        }
        let spec = object.spec.get("spec")?;
        let status = object.status.get("status")?;
        let cluster_ips = cluster_ips(&spec)?;
        let exposure = exposure(&spec, status)?;
        let ports = match cluster_ips.is_empty() {
            true => Box::default(),
            false => ports(&spec, names)?,
        };
        let algorithm = meta
            .annotations
            .as_ref()
            .and_then(|all| all.get(ALGORITHM_ANNOTATION));
        Ok(Self::new(Service {
            name: name_of(&meta),
            uid: meta.uid.unwrap_or_default().into(),
            created: meta.creation_timestamp.map_or(0, |Time(time)| time.as_second()),
            cluster_ips,
            ports,
            exposure,
            affinity_seconds: affinity(&spec),
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
            distribution: distribution(spec.traffic_distribution.as_deref()),
            algorithm: algorithm.map(|text| parse_algorithm(text)).transpose()?,
        }))
    }
}

fn name_of(meta: &ObjectMeta) -> ObjectName {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    ObjectName::new(&part(&meta.namespace), &part(&meta.name))
}

/// None of a headless service, of an external name, and while Kubernetes has not given any.
fn cluster_ips(spec: &ServiceSpec) -> Result<Box<[IpAddr]>, ObjectError> {
    if spec.kind.as_deref() == Some("ExternalName") {
        return Ok(Box::default());
    }
    let given = spec.cluster_ips.iter().flatten();
    let all: Vec<&String> = match spec.cluster_ips.as_deref() {
        None | Some([]) => spec.cluster_ip.iter().collect(),
        Some(_) => given.collect(),
    };
    let has_one = |text: &&&String| !text.is_empty() && **text != HEADLESS;
    let all = all.iter().filter(has_one);
    all.map(|text| address("spec.clusterIPs", text)).collect()
}

fn exposure(spec: &ServiceSpec, status: ServiceStatus) -> Result<Option<Box<Exposure>>, ObjectError> {
    let external_ips: Box<[IpAddr]> = spec
        .external_ips
        .iter()
        .flatten()
        .map(|text| address("spec.externalIPs", text))
        .collect::<Result<_, _>>()?;
    let is_balanced = spec.kind.as_deref() == Some("LoadBalancer");
    let ingress = status
        .load_balancer
        .unwrap_or_default()
        .ingress
        .unwrap_or_default();
    // In the mode `Proxy` packets come to a node's own address: nothing is to be done for the balancer's.
    let led_here = |one: &&Ingress| is_balanced && one.ip_mode.as_deref() != Some("Proxy");
    let load_balancer_ips = ingress
        .iter()
        .filter(led_here)
        .filter_map(|one| one.ip.as_deref().filter(|ip| !ip.is_empty()))
        .map(|text| address("status.loadBalancer.ingress", text))
        .collect::<Result<_, _>>()?;
    let has_node_ports = matches!(spec.kind.as_deref(), Some("NodePort" | "LoadBalancer"));
    if !has_node_ports && external_ips.is_empty() {
        return Ok(None);
    }
    let ranges = spec.load_balancer_source_ranges.iter().flatten();
    Ok(Some(Box::new(Exposure {
        load_balancer_ips,
        external_ips,
        source_ranges: ranges
            .map(|text| network("spec.loadBalancerSourceRanges", text.trim()))
            .collect::<Result<_, _>>()?,
        local: spec.external_traffic_policy.as_deref() == Some("Local"),
        health_check_port: optional_port(
            "spec.healthCheckNodePort",
            spec.health_check_node_port.map(i64::from),
        )?,
    })))
}

fn ports(spec: &ServiceSpec, names: &mut Names) -> Result<Box<[ServicePort]>, ObjectError> {
    let port = |port: &PortSpec| {
        Ok(ServicePort {
            name: names.share(port.name.as_deref().unwrap_or_default()),
            transport: transport("spec.ports.protocol", port.protocol.as_deref())?,
            port: some_port("spec.ports.port", port.port)?,
            node_port: optional_port("spec.ports.nodePort", port.node_port)?,
        })
    };
    spec.ports.iter().flatten().map(port).collect()
}

fn affinity(spec: &ServiceSpec) -> u32 {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return 0;
    }
    let config = spec.session_affinity_config.as_ref();
    let seconds = config.and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
    seconds
        .unwrap_or(AFFINITY_SECONDS)
        .clamp(1, AFFINITY_SECONDS_MOST)
}

/// What is not known prefers nothing, as Kubernetes has it for values to come.
fn distribution(text: Option<&str>) -> Distribution {
    match text {
        Some("PreferClose" | "PreferSameZone") => Distribution::SameZone,
        Some("PreferSameNode") => Distribution::SameNode,
        _ => Distribution::Any,
    }
}

fn parse_algorithm(text: &str) -> Result<Algorithm, ObjectError> {
    match text {
        "random" => Ok(Algorithm::Random),
        "maglev" => Ok(Algorithm::Maglev),
        _ => Err(ObjectError::Value {
            field: "annotation service.thalweg.io/lb-algorithm",
            value: text.to_owned(),
            expected: "random or maglev",
        }),
    }
}

impl Parse for Arc<EndpointSlice> {
    type Object = SliceObject;

    const PAGE_SIZE: u32 = SMALL_PAGE;

    fn key_of(meta: &ObjectMeta) -> ObjectName {
        name_of(meta)
    }

    fn parse(object: SliceObject, names: &mut Names) -> Result<Self, ObjectError> {
        let meta = object.metadata;
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let labels = meta.labels.as_ref();
        let service = labels.and_then(|labels| labels.get(SERVICE_NAME_LABEL));
        let service = service.ok_or(ObjectError::Missing("label kubernetes.io/service-name"))?;
        let family = match object.address_type.as_str() {
            "IPv6" => Family::Ipv6,
            _ => Family::Ipv4,
        };
        let has_addresses = matches!(object.address_type.as_str(), "IPv4" | "IPv6");
        let endpoints = object.endpoints.get("endpoints")?.unwrap_or_default();
        // Names instead of addresses are nothing that packets can be sent to.
        let endpoints = endpoints.into_iter().filter(|_| has_addresses);
        let ports = object.ports.get("ports")?.unwrap_or_default();
        Ok(Self::new(EndpointSlice {
            name: name_of(&meta),
            service: ObjectName::new(namespace, service),
            family,
            ports: ports
                .iter()
                .filter_map(|port| slice_port(port, names).transpose())
                .collect::<Result<_, _>>()?,
            endpoints: endpoints
                .map(|endpoint| slice_endpoint(endpoint, family, names))
                .collect::<Result<_, _>>()?,
        }))
    }
}

/// A slice without a port's number means all ports, which is of use for headless services only.
fn slice_port(port: &SlicePortObject, names: &mut Names) -> Result<Option<SlicePort>, ObjectError> {
    let Some(number) = port.port else { return Ok(None) };
    Ok(Some(SlicePort {
        name: names.share(port.name.as_deref().unwrap_or_default()),
        transport: transport("ports.protocol", port.protocol.as_deref())?,
        port: some_port("ports.port", number)?,
    }))
}

/// Of several addresses, which all lead to the same pod, the first counts (`EndpointSlice.endpoints.addresses`).
fn slice_endpoint(
    endpoint: EndpointObject,
    family: Family,
    names: &mut Names,
) -> Result<SliceEndpoint, ObjectError> {
    let field = "endpoints.addresses";
    let text = endpoint.addresses.first().ok_or(ObjectError::Missing(field))?;
    let addr = address(field, text)?;
    if Family::of(&addr) != family {
        return Err(ObjectError::Value {
            field,
            value: text.clone(),
            expected: "of the slice's addressType",
        });
    }
    let Conditions {
        ready,
        serving,
        terminating,
    } = endpoint.conditions;
    let state = match (
        ready.unwrap_or(true),
        serving.unwrap_or(true),
        terminating.unwrap_or(false),
    ) {
        (true, ..) => EndpointState::Ready,
        (false, true, true) => EndpointState::Terminating,
        (false, ..) => EndpointState::NotReady,
    };
    let mut share = |text: Option<String>| {
        text.filter(|text| !text.is_empty())
            .map(|text| names.share(&text))
    };
    Ok(SliceEndpoint {
        addr,
        state,
        node: share(endpoint.node_name),
        zone: share(endpoint.zone),
        hints: endpoint.hints.and_then(|hints| shared_hints(hints, names)),
    })
}

fn shared_hints(hints: HintsObject, names: &mut Names) -> Option<Box<Hints>> {
    let mut all = |list: Option<Vec<NamedHint>>| -> Box<[Arc<str>]> {
        let list = list.unwrap_or_default();
        list.iter().map(|hint| names.share(&hint.name)).collect()
    };
    let hints = Hints {
        zones: all(hints.for_zones),
        nodes: all(hints.for_nodes),
    };
    let is_empty = hints.zones.is_empty() && hints.nodes.is_empty();
    (!is_empty).then(|| Box::new(hints))
}

fn address(field: &'static str, text: &str) -> Result<IpAddr, ObjectError> {
    parse(field, text, "an IP address")
}

fn network(field: &'static str, text: &str) -> Result<IpNet, ObjectError> {
    parse(field, text, "a network such as 192.0.2.0/24").map(|net: IpNet| net.trunc())
}

fn parse<T: FromStr>(field: &'static str, text: &str, expected: &'static str) -> Result<T, ObjectError> {
    text.parse().map_err(|_| ObjectError::Value {
        field,
        value: text.to_owned(),
        expected,
    })
}

/// TCP where nothing is said.
pub(crate) fn transport(field: &'static str, text: Option<&str>) -> Result<Transport, ObjectError> {
    let text = text.filter(|text| !text.is_empty()).unwrap_or("TCP");
    Transport::parse(text).ok_or_else(|| ObjectError::Value {
        field,
        value: text.to_owned(),
        expected: "TCP, UDP or SCTP",
    })
}

pub(crate) fn some_port(field: &'static str, number: i64) -> Result<u16, ObjectError> {
    let port = u16::try_from(number).ok().filter(|port| *port > 0);
    port.ok_or_else(|| ObjectError::Value {
        field,
        value: number.to_string(),
        expected: "a port from 1 to 65535",
    })
}

/// 0 where there is none.
fn optional_port(field: &'static str, number: Option<i64>) -> Result<u16, ObjectError> {
    match number {
        None | Some(0) => Ok(0),
        Some(number) => some_port(field, number),
    }
}

/// Reads of an object's metadata what is used: who manages which of its fields is most of some objects.
fn slim<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Slim {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        creation_timestamp: Option<Time>,
        labels: Option<std::collections::BTreeMap<String, String>>,
        annotations: Option<std::collections::BTreeMap<String, String>>,
    }
    let slim = Slim::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: slim.name,
        namespace: slim.namespace,
        uid: slim.uid,
        resource_version: slim.resource_version,
        creation_timestamp: slim.creation_timestamp,
        labels: slim.labels,
        annotations: slim.annotations,
        ..ObjectMeta::default()
    })
}

#[cfg(test)]
#[path = "services_test.rs"]
mod tests;
