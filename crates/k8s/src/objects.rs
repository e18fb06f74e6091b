// SPDX-License-Identifier: Apache-2.0
//! The little that we read of Kubernetes objects, and what becomes of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::crd::POOL_ANNOTATION;
use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use model::{HostPort, Machine, Namespace, Node, Pod, PodRef};
use serde::Deserialize;
use serde::de::IgnoredAny;
use state::{PodKey, Row};

use crate::names::Names;
use crate::services::{some_port, transport};

/// Why an object was skipped.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ObjectError {
    #[error("{field} is {value:?}, which is not {expected}")]
    Value {
        field: &'static str,
        value: String,
        expected: &'static str,
    },
    #[error("{0} has an unexpected shape")]
    Shape(&'static str),
    #[error("it has no {0}")]
    Missing(&'static str),
    #[error(transparent)]
    Fault(#[from] api::crd::FaultError),
}

/// A field that does not spoil the whole list when it has the wrong shape.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Lenient<T> {
    Good(T),
    Broken(IgnoredAny),
}

impl<T: Default> Default for Lenient<T> {
    fn default() -> Self {
        Self::Good(T::default())
    }
}

impl<T> Lenient<T> {
    pub(crate) fn get(self, field: &'static str) -> Result<T, ObjectError> {
        match self {
            Self::Good(value) => Ok(value),
            Self::Broken(_) => Err(ObjectError::Shape(field)),
        }
    }
}

/// The zone of a node.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// A row that an object becomes.
pub(crate) trait Parse: Row {
    type Object: Resource<DynamicType = ()>;

    /// Objects per answer while listing: a Node has some twenty kilobytes, and a whole answer is in memory at once.
    const PAGE_SIZE: u32 = 100;

    fn key_of(meta: &ObjectMeta) -> Self::Key;
    /// Names that many objects have are taken from `names`.
    fn parse(object: Self::Object, names: &mut Names) -> Result<Self, ObjectError>;
}

/// What we read of a Node.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct NodeObject {
    #[serde(default)]
    pub(crate) metadata: ObjectMeta,
    #[serde(default)]
    spec: NodeSpec,
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct NodeSpec {
    #[serde(rename = "podCIDR", default)]
    pod_cidr: Lenient<Option<String>>,
    #[serde(rename = "podCIDRs", default)]
    pod_cidrs: Lenient<Option<Vec<String>>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct NodeStatus {
    #[serde(default)]
    addresses: Lenient<Option<Vec<NodeAddress>>>,
}

#[derive(Clone, Debug, Deserialize)]
struct NodeAddress {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

/// What we read of a Pod.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct PodObject {
    #[serde(default)]
    pub(crate) metadata: ObjectMeta,
    #[serde(default)]
    spec: PodSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct PodSpec {
    #[serde(rename = "hostNetwork", default)]
    host_network: Lenient<Option<bool>>,
    #[serde(default)]
    containers: Lenient<Option<Vec<Container>>>,
    #[serde(rename = "initContainers", default)]
    init_containers: Lenient<Option<Vec<Container>>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    ports: Option<Vec<ContainerPort>>,
    restart_policy: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerPort {
    container_port: i64,
    host_port: Option<i64>,
    #[serde(rename = "hostIP")]
    host_ip: Option<String>,
    protocol: Option<String>,
}

impl Parse for Node {
    type Object = NodeObject;

    fn key_of(meta: &ObjectMeta) -> String {
        meta.name.clone().unwrap_or_default()
    }

    fn parse(object: NodeObject, _names: &mut Names) -> Result<Self, ObjectError> {
        let name = object
            .metadata
            .name
            .ok_or(ObjectError::Missing("metadata.name"))?;
        let zone = object
            .metadata
            .labels
            .and_then(|mut labels| labels.remove(ZONE_LABEL));
        let mut cidrs = object.spec.pod_cidrs.get("spec.podCIDRs")?.unwrap_or_default();
        if cidrs.is_empty() {
            cidrs.extend(
                object
                    .spec
                    .pod_cidr
                    .get("spec.podCIDR")?
                    .filter(|cidr| !cidr.is_empty()),
            );
        }
        let addresses = object
            .status
            .addresses
            .get("status.addresses")?
            .unwrap_or_default();
        let internal = addresses
            .into_iter()
            .filter(|address| address.kind == "InternalIP");
        Ok(Self {
            name,
            addresses: internal
                .map(|address| parse_address(address.address))
                .collect::<Result<_, _>>()?,
            pod_cidrs: cidrs.into_iter().map(parse_cidr).collect::<Result<_, _>>()?,
            zone: zone.filter(|zone| !zone.is_empty()),
        })
    }
}

fn parse_address(value: String) -> Result<IpAddr, ObjectError> {
    match value.parse::<IpAddr>() {
        Ok(addr) if !addr.is_unspecified() && !addr.is_multicast() => Ok(addr),
        _ => Err(ObjectError::Value {
            field: "status.addresses",
            value,
            expected: "an address of a machine",
        }),
    }
}

fn parse_cidr(value: String) -> Result<IpNet, ObjectError> {
    match value.parse::<IpNet>() {
        Ok(net) if net.prefix_len() > 0 && !net.addr().is_multicast() => Ok(net.trunc()),
        _ => Err(ObjectError::Value {
            field: "spec.podCIDRs",
            value,
            expected: "a network such as 10.244.1.0/24",
        }),
    }
}

impl Parse for Pod {
    type Object = PodObject;

    fn key_of(meta: &ObjectMeta) -> PodKey {
        let (namespace, name) = (meta.namespace.clone(), meta.name.clone());
        PodKey {
            namespace: namespace.unwrap_or_default(),
            name: name.unwrap_or_default(),
        }
    }

    fn parse(object: PodObject, _names: &mut Names) -> Result<Self, ObjectError> {
        let metadata = object.metadata;
        let host_network = object.spec.host_network.get("spec.hostNetwork")?.unwrap_or(false);
        let host_ports = match host_network {
            true => Vec::new(),
            false => host_ports(object.spec.containers, object.spec.init_containers)?,
        };
        Ok(Self {
            pod: PodRef {
                namespace: metadata
                    .namespace
                    .ok_or(ObjectError::Missing("metadata.namespace"))?,
                name: metadata.name.ok_or(ObjectError::Missing("metadata.name"))?,
                uid: metadata.uid.unwrap_or_default(),
            },
            labels: metadata.labels.unwrap_or_default(),
            host_network,
            pool: pool_of(metadata.annotations),
            host_ports,
        })
    }
}

/// Of the containers that run all the time: an init container does if it is always started again.
fn host_ports(
    containers: Lenient<Option<Vec<Container>>>,
    init: Lenient<Option<Vec<Container>>>,
) -> Result<Vec<HostPort>, ObjectError> {
    let init = init.get("spec.initContainers")?.unwrap_or_default().into_iter();
    let sidecars = init.filter(|one| one.restart_policy.as_deref() == Some("Always"));
    let containers = containers.get("spec.containers")?.unwrap_or_default();
    let ports = containers
        .into_iter()
        .chain(sidecars)
        .flat_map(|one| one.ports.unwrap_or_default());
    ports.filter_map(|port| host_port(&port).transpose()).collect()
}

fn host_port(port: &ContainerPort) -> Result<Option<HostPort>, ObjectError> {
    let Some(number) = port.host_port.filter(|number| *number != 0) else {
        return Ok(None);
    };
    let field = "spec.containers.ports.hostIP";
    let addr = port.host_ip.as_deref().filter(|text| !text.is_empty());
    let addr = addr.map(|text| {
        text.parse::<IpAddr>().map_err(|_| ObjectError::Value {
            field,
            value: text.to_owned(),
            expected: "an IP address",
        })
    });
    Ok(Some(HostPort {
        addr: addr.transpose()?.filter(|addr| !addr.is_unspecified()),
        port: some_port("spec.containers.ports.hostPort", number)?,
        to: some_port("spec.containers.ports.containerPort", port.container_port)?,
        proto: transport("spec.containers.ports.protocol", port.protocol.as_deref())?.number(),
    }))
}

fn pool_of(annotations: Option<BTreeMap<String, String>>) -> Option<String> {
    let pool = annotations?.remove(POOL_ANNOTATION)?;
    (!pool.is_empty()).then_some(pool)
}

/// What we read of a Node to tell which one it is.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct MachineObject {
    #[serde(default)]
    pub(crate) metadata: ObjectMeta,
    #[serde(default)]
    status: NodeStatus,
}

/// What we read of a Namespace.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct NamespaceObject {
    #[serde(default)]
    pub(crate) metadata: ObjectMeta,
}

impl Parse for Machine {
    type Object = MachineObject;

    fn key_of(meta: &ObjectMeta) -> String {
        meta.name.clone().unwrap_or_default()
    }

    fn parse(object: MachineObject, _names: &mut Names) -> Result<Self, ObjectError> {
        let addresses = object
            .status
            .addresses
            .get("status.addresses")?
            .unwrap_or_default();
        let metadata = object.metadata;
        Ok(Self {
            name: metadata.name.ok_or(ObjectError::Missing("metadata.name"))?,
            uid: metadata.uid.ok_or(ObjectError::Missing("metadata.uid"))?,
            // Host names are among them.
            addresses: addresses
                .iter()
                .filter_map(|address| address.address.parse().ok())
                .collect(),
        })
    }
}

impl Parse for Namespace {
    type Object = NamespaceObject;

    fn key_of(meta: &ObjectMeta) -> String {
        meta.name.clone().unwrap_or_default()
    }

    fn parse(object: NamespaceObject, _names: &mut Names) -> Result<Self, ObjectError> {
        Ok(Self {
            name: object
                .metadata
                .name
                .ok_or(ObjectError::Missing("metadata.name"))?,
            pool: pool_of(object.metadata.annotations),
        })
    }
}

/// Lets kube list and watch a slim type under the real type's name.
macro_rules! stands_for {
    ($slim:ty, $real:ty) => {
        impl kube::Resource for $slim {
            type DynamicType = ();
            type Scope = <$real as kube::Resource>::Scope;

            fn kind(dt: &()) -> std::borrow::Cow<'_, str> {
                <$real as kube::Resource>::kind(dt)
            }
            fn group(dt: &()) -> std::borrow::Cow<'_, str> {
                <$real as kube::Resource>::group(dt)
            }
            fn version(dt: &()) -> std::borrow::Cow<'_, str> {
                <$real as kube::Resource>::version(dt)
            }
            fn plural(dt: &()) -> std::borrow::Cow<'_, str> {
                <$real as kube::Resource>::plural(dt)
            }
            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

pub(crate) use stands_for;

stands_for!(NodeObject, core::Node);
stands_for!(PodObject, core::Pod);
stands_for!(MachineObject, core::Node);
stands_for!(NamespaceObject, core::Namespace);

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_node_keeps_its_name_internal_addresses_and_pod_cidrs() {
        let node = node(json!({
            "metadata": {"name": "a", "managedFields": [{"manager": "kubelet"}]},
            "spec": {"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24", "fd74::1/64"], "taints": []},
            "status": {
                "addresses": [
                    {"type": "Hostname", "address": "a.example"},
                    {"type": "InternalIP", "address": "172.30.0.11"},
                    {"type": "ExternalIP", "address": "192.0.2.1"},
                    {"type": "InternalIP", "address": "fd74:77::11"},
                ],
                "images": [{"names": ["x"], "sizeBytes": 1}],
            },
        }))
        .unwrap();
        assert_eq!(node.name, "a");
        assert_eq!(
            node.addresses,
            ["172.30.0.11", "fd74:77::11"].map(|addr| addr.parse::<IpAddr>().unwrap())
        );
        assert_eq!(
            node.pod_cidrs,
            ["10.244.0.0/24", "fd74::/64"].map(|net| net.parse::<IpNet>().unwrap())
        );
    }

    #[test]
    fn a_node_without_spec_and_status_is_a_node_without_networks() {
        let node = node(json!({"metadata": {"name": "a"}})).unwrap();
        assert!(node.addresses.is_empty() && node.pod_cidrs.is_empty());
        assert!(
            self::node(json!({"metadata": {"name": "a"}, "spec": {"podCIDRs": null, "podCIDR": ""}})).is_ok()
        );
    }

    #[test]
    fn the_single_pod_cidr_counts_where_the_list_is_missing() {
        let node = node(json!({"metadata": {"name": "a"}, "spec": {"podCIDR": "10.244.0.0/24"}})).unwrap();
        assert_eq!(node.pod_cidrs.len(), 1);
    }

    #[test]
    fn a_broken_node_says_which_field_and_value() {
        let broken = |spec: Value, addresses: Value| {
            let object = json!({"metadata": {"name": "a"}, "spec": spec, "status": {"addresses": addresses}});
            node(object).unwrap_err().to_string()
        };
        assert_eq!(
            broken(json!({"podCIDRs": ["10.244.0.0/33"]}), json!([])),
            "spec.podCIDRs is \"10.244.0.0/33\", which is not a network such as 10.244.1.0/24"
        );
        assert_eq!(
            broken(json!({"podCIDRs": "x"}), json!([])),
            "spec.podCIDRs has an unexpected shape"
        );
        assert!(broken(json!({"podCIDRs": ["0.0.0.0/0"]}), json!([])).contains("0.0.0.0/0"));
        for address in ["", "0.0.0.0", "ff02::1", "a.example"] {
            let error = broken(json!({}), json!([{"type": "InternalIP", "address": address}]));
            assert!(error.starts_with("status.addresses is"), "{error}");
        }
        assert!(matches!(
            node(json!({})),
            Err(ObjectError::Missing("metadata.name"))
        ));
    }

    #[test]
    fn a_pod_keeps_its_name_labels_and_whether_it_is_on_the_host_network() {
        let pod = pod(json!({
            "metadata": {"name": "p", "namespace": "default", "uid": "u", "labels": {"app": "web"},
                         "annotations": {"ipam.thalweg.io/pool": "blue", "other": "x"}},
            "spec": {"hostNetwork": true, "containers": [{"name": "c"}]},
        }))
        .unwrap();
        assert_eq!(pod.pod.to_string(), "default/p");
        assert_eq!(pod.pool.as_deref(), Some("blue"));
        assert_eq!(
            (pod.pod.uid.as_str(), pod.labels["app"].as_str(), pod.host_network),
            ("u", "web", true)
        );
        assert!(self::pod(json!({"metadata": {"name": "p"}})).is_err());
    }

    #[test]
    fn a_pod_keeps_the_ports_of_its_node_that_lead_to_it() {
        let of = |spec: Value| pod(json!({"metadata": {"name": "p", "namespace": "default"}, "spec": spec}));
        let port = |host: i64, more: Value| {
            let mut port = json!({"containerPort": 8080, "hostPort": host});
            port.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            json!({"ports": [port, {"containerPort": 9}]})
        };
        let found = of(json!({
            "containers": [port(80, json!({})), port(53, json!({"protocol": "UDP", "hostIP": "172.30.0.1"}))],
            "initContainers": [port(1, json!({})), {"restartPolicy": "Always",
                "ports": [{"containerPort": 1, "hostPort": 2, "hostIP": "0.0.0.0"}]}],
        }))
        .unwrap();
        let all: Vec<_> = found
            .host_ports
            .iter()
            .map(|one| (one.port, one.to, one.proto, one.addr))
            .collect();
        let own = "172.30.0.1".parse().ok();
        assert_eq!(all, [(80, 8080, 6, None), (53, 8080, 17, own), (2, 1, 6, None)]);
        let on_host = of(json!({"hostNetwork": true, "containers": [port(80, json!({}))]})).unwrap();
        assert_eq!(on_host.host_ports, [], "it has the node's ports itself");
        let error = of(json!({"containers": [port(70_000, json!({}))]})).unwrap_err();
        assert!(
            error.to_string().starts_with("spec.containers.ports.hostPort is"),
            "{error}"
        );
    }

    #[test]
    fn a_node_keeps_its_zone() {
        let labels = json!({"topology.kubernetes.io/zone": "a"});
        let found = node(json!({"metadata": {"name": "n", "labels": labels}})).unwrap();
        assert_eq!(found.zone.as_deref(), Some("a"));
        assert_eq!(node(json!({"metadata": {"name": "n"}})).unwrap().zone, None);
    }

    fn node(object: Value) -> Result<Node, ObjectError> {
        Node::parse(read(object), &mut Names::default())
    }

    fn pod(object: Value) -> Result<Pod, ObjectError> {
        Pod::parse(read(object), &mut Names::default())
    }

    fn read<T: serde::de::DeserializeOwned>(object: Value) -> T {
        serde_json::from_value(object).unwrap()
    }
}
