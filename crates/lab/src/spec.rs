// SPDX-License-Identifier: Apache-2.0
//! What a lab is to look like: `lab.yaml`, with everything optional.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use api::config::{Config, File, Inputs};
use ipnet::IpNet;
use model::Family;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::Error;

/// The name of a lab that is given none.
pub const DEFAULT_NAME: &str = "lab";
/// How many nodes a lab may have: the underlay's last address byte numbers them.
pub const NODES_MAX: usize = 200;
/// How many test pods per node `up` may start.
pub const PODS_PER_NODE_MAX: u32 = 100;
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// Lab names become part of cgroup and cluster names.
const NAME_MAX: usize = 40;
const NODES_DEFAULT: usize = 3;
const PODS_PER_NODE_DEFAULT: u32 = 2;

/// How pods' packets get to other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Routing {
    /// As they are, by the nodes' and the fabric's routes.
    #[default]
    Native,
    /// In VXLAN packets of the nodes.
    Vxlan,
    /// In Geneve packets of the nodes.
    Geneve,
}

/// Where pods' addresses come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ipam {
    /// `Node.spec.podCIDRs`.
    #[default]
    Kubernetes,
    /// Pools, of which two replicas of the operator hand blocks to nodes.
    ClusterPool,
}

/// A pool of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pool {
    /// Its name; `default` is the one of pods that name none.
    pub name: String,
    /// Its networks, as in a ThalwegPool.
    #[serde(flatten)]
    pub spec: api::crd::PoolSpec,
}

impl Pool {
    /// The pool that a lab has when none is described.
    #[must_use]
    pub fn usual(families: Families) -> Self {
        let range = |family, cidr: &str, node_mask_size| {
            families.list().contains(&family).then(|| api::crd::PoolRange {
                cidrs: vec![cidr.to_owned()],
                node_mask_size,
            })
        };
        Self {
            name: model::DEFAULT_POOL.to_owned(),
            spec: api::crd::PoolSpec {
                ipv4: range(Family::Ipv4, "10.32.0.0/13", 24),
                ipv6: range(Family::Ipv6, "fd74:7732::/48", 64),
            },
        }
    }
}

/// Which address families pods, services and nodes have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Families {
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
    /// Both, IPv4 first.
    #[default]
    Dual,
}

impl Families {
    /// The families, the primary one first.
    #[must_use]
    pub fn list(self) -> &'static [Family] {
        match self {
            Self::Ipv4 => &[Family::Ipv4],
            Self::Ipv6 => &[Family::Ipv6],
            Self::Dual => &[Family::Ipv4, Family::Ipv6],
        }
    }
}

/// What connects the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Topology {
    /// One Ethernet segment.
    #[default]
    Flat,
    /// A router with a segment per node, which learns the nodes' pod CIDRs as a fabric would.
    Routed,
}

/// Which API server the lab has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ApiKind {
    /// The one built in.
    #[default]
    Embedded,
    /// A real kube-apiserver.
    External,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeSpec {
    /// Its name; `node-1`, `node-2`, … by default.
    #[serde(default)]
    pub name: Option<String>,
    /// Labels of its Node object.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its zone, the label `topology.kubernetes.io/zone`.
    #[serde(default)]
    pub zone: Option<String>,
}

/// How many nodes, or which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Nodes {
    /// That many, all alike.
    Count(usize),
    /// These.
    List(Vec<NodeSpec>),
}

/// By hand, since serde's `untagged` forgets which key of a node was wrong.
impl<'de> Deserialize<'de> for Nodes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrList;

        impl<'de> Visitor<'de> for NumberOrList {
            type Value = Nodes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or a list of {name, labels, zone}")
            }

            fn visit_u64<E: serde::de::Error>(self, count: u64) -> Result<Nodes, E> {
                // More than fit are too many as well.
                Ok(Nodes::Count(usize::try_from(count).unwrap_or(usize::MAX)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Nodes, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(Nodes::List)
            }
        }

        deserializer.deserialize_any(NumberOrList)
    }
}

impl NodeSpec {
    /// The name of the node at this place, counted from one.
    #[must_use]
    pub fn name_at(&self, number: usize) -> String {
        self.name.clone().unwrap_or_else(|| format!("node-{number}"))
    }

    /// The labels of its Node object.
    #[must_use]
    pub fn all_labels(&self) -> BTreeMap<String, String> {
        let zone = self.zone.iter().map(|zone| (ZONE_LABEL.to_owned(), zone.clone()));
        self.labels.clone().into_iter().chain(zone).collect()
    }
}

impl Nodes {
    /// One specification per node.
    #[must_use]
    pub fn list(&self) -> Vec<NodeSpec> {
        match self {
            Self::Count(count) => vec![NodeSpec::default(); *count],
            Self::List(list) => list.clone(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Count(count) => *count,
            Self::List(list) => list.len(),
        }
    }
}

/// A lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Spec {
    /// Its name, by which commands find it.
    pub name: String,
    /// Its nodes.
    pub nodes: Nodes,
    /// How pods' packets get to other nodes.
    pub routing: Routing,
    /// Where pods' addresses come from.
    pub ipam: Ipam,
    /// With cluster pools: the pools; a usual one by default.
    pub pools: Vec<Pool>,
    /// Address families.
    pub family: Families,
    /// What connects the nodes.
    pub topology: Topology,
    /// Where pods' addresses come from; one CIDR per family.
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<IpNet>,
    /// Where ClusterIPs come from; one CIDR per family.
    #[serde(rename = "serviceCIDRs")]
    pub service_cidrs: Vec<IpNet>,
    /// How many test pods each node starts with.
    pub pods_per_node: u32,
    /// Kubernetes objects to apply once the nodes are ready; relative paths are relative to the file.
    pub manifests: Vec<PathBuf>,
    /// Settings of the agents, beside those that the lab makes.
    pub agent: BTreeMap<String, serde_json::Value>,
    /// Settings of the operator, beside those that the lab makes.
    pub operator: BTreeMap<String, serde_json::Value>,
    /// Which API server.
    pub api: ApiKind,
    /// For an external API server that runs already: how to reach it.
    pub kubeconfig: Option<PathBuf>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            name: DEFAULT_NAME.to_owned(),
            nodes: Nodes::Count(NODES_DEFAULT),
            routing: Routing::default(),
            ipam: Ipam::default(),
            pools: Vec::new(),
            family: Families::default(),
            topology: Topology::default(),
            pod_cidrs: Vec::new(),
            service_cidrs: Vec::new(),
            pods_per_node: PODS_PER_NODE_DEFAULT,
            manifests: Vec::new(),
            agent: BTreeMap::new(),
            operator: BTreeMap::new(),
            api: ApiKind::default(),
            kubeconfig: None,
        }
    }
}

/// What a description of a lab is usually called.
const FILE: &str = "lab.yaml";

impl Spec {
    /// Reads a `lab.yaml`.
    ///
    /// # Errors
    /// When the file cannot be read, or names an unknown key or value; the text names it.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let refused = |what: &dyn std::fmt::Display| Error::Refused(format!("{}: {what}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| refused(&error))?;
        let mut spec: Self = serde_yaml_ng::from_str(&text).map_err(|error| refused(&error))?;
        let directory = path.parent().unwrap_or_else(|| Path::new("."));
        for manifest in spec.manifests.iter_mut().chain(spec.kubeconfig.as_mut()) {
            *manifest = std::path::absolute(directory.join(&*manifest)).map_err(|error| refused(&error))?;
        }
        Ok(spec)
    }

    /// Checks what serde cannot.
    ///
    /// # Errors
    /// The first thing that is wrong, with the key and the remedy.
    pub fn validate(&self) -> Result<(), Error> {
        check_name(&self.name)?;
        if self.nodes.len() == 0 || self.nodes.len() > NODES_MAX {
            return refused(format!(
                "nodes: {} is not between 1 and {NODES_MAX}",
                self.nodes.len()
            ));
        }
        if self.pods_per_node > PODS_PER_NODE_MAX {
            return refused(format!(
                "podsPerNode: {} is more than {PODS_PER_NODE_MAX}",
                self.pods_per_node
            ));
        }
        if self.kubeconfig.is_some() && self.api == ApiKind::Embedded {
            return refused("kubeconfig: it is of use only with api: external (--api external)".to_owned());
        }
        if !self.pools.is_empty() && self.ipam == Ipam::Kubernetes {
            return refused(
                "pools: they are of use only with ipam: cluster-pool (--ipam cluster-pool)".to_owned(),
            );
        }
        self.check_nodes()?;
        self.check_agent()?;
        for (key, cidrs) in [
            ("podCIDRs", &self.pod_cidrs),
            ("serviceCIDRs", &self.service_cidrs),
        ] {
            self.check_families(key, cidrs)?;
        }
        Ok(())
    }

    /// As the agents will do it, and would end by.
    fn check_agent(&self) -> Result<(), Error> {
        self.agent_config().map(drop)
    }

    fn agent_config(&self) -> Result<Config, Error> {
        let wrong = |what: &dyn std::fmt::Display| Error::Refused(format!("agent: {what}"));
        // JSON is YAML.
        let settings = serde_json::to_vec(&self.agent).map_err(|error| wrong(&error))?;
        let inputs = Inputs {
            file: Some(File {
                path: Path::new(FILE),
                content: &settings,
            }),
            hostname: Some("node-1"),
            ..Inputs::default()
        };
        Config::load(inputs).map_err(|error| wrong(&error))
    }

    /// Whether the agents serve services where nobody says: nobody else does, but through the host's stack they cannot.
    pub(crate) fn serves_services(&self) -> bool {
        self.agent_config().is_ok_and(|config| !config.host_routing)
    }

    fn check_nodes(&self) -> Result<(), Error> {
        let mut names = BTreeSet::new();
        for (node, number) in self.nodes.list().iter().zip(1..) {
            let name = node.name_at(number);
            if !is_dns_label(&name) {
                return refused(format!(
                    "nodes: {name:?} is no name for a node: use at most 63 lower-case letters, digits and hyphens"
                ));
            }
            if let Some((key, value)) = node
                .all_labels()
                .into_iter()
                .find(|(key, value)| !is_label(key, value))
            {
                return refused(format!(
                    "nodes: {name}: {key}={value} is no label: key and value may have letters, digits, '-', '_' and '.', \
                     begin and end with a letter or digit, and be 63 characters long; the key may have a DNS name and a \
                     slash before it"
                ));
            }
            if !names.insert(name.clone()) {
                return refused(format!(
                    "nodes: two are named {name}; give each its own name (one without is node-N, by its place in the list)"
                ));
            }
        }
        Ok(())
    }

    fn check_families(&self, key: &str, cidrs: &[IpNet]) -> Result<(), Error> {
        let given: Vec<Family> = cidrs.iter().map(Family::of_net).collect();
        let mut wanted = self.family.list().to_vec();
        if given.is_empty() || given == wanted {
            return Ok(());
        }
        wanted.reverse();
        if given == wanted {
            return refused(format!("{key}: put the IPv4 CIDR first"));
        }
        let family = serde_json::to_string(&self.family).unwrap_or_default();
        refused(format!(
            "{key}: family {family} needs exactly one CIDR per family; leave {key} away for the default"
        ))
    }
}

/// Checks the name of a lab.
///
/// # Errors
/// When it cannot be part of a file name, a cgroup name and a cluster name.
pub fn check_name(name: &str) -> Result<(), Error> {
    if is_dns_label(name) && name.len() <= NAME_MAX {
        return Ok(());
    }
    refused(format!(
        "{name:?} is no name for a lab: use at most {NAME_MAX} lower-case letters, digits and hyphens"
    ))
}

fn is_label(key: &str, value: &str) -> bool {
    apiserver::is_qualified(key) && apiserver::is_label_value(value)
}

fn is_dns_label(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&name.len())
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

fn refused<T>(text: String) -> Result<T, Error> {
    Err(Error::Refused(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Spec, String> {
        let spec: Spec = serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
        spec.validate().map(|()| spec).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_is_the_default_lab() {
        assert_eq!(parse("{}").unwrap(), Spec::default());
    }

    #[test]
    fn nodes_are_a_number_or_a_list() {
        assert_eq!(parse("nodes: 5").unwrap().nodes.list().len(), 5);
        let spec = parse("nodes: [{zone: a}, {name: edge, labels: {tier: front}}]").unwrap();
        assert_eq!(spec.nodes.list()[1].labels["tier"], "front");
    }

    #[test]
    fn pools_are_described_as_in_kubernetes() {
        let text =
            "{ipam: cluster-pool, pools: [{name: default, ipv4: {cidrs: [10.0.0.0/24], nodeMaskSize: 29}}]}";
        let spec = parse(text).unwrap();
        assert_eq!(spec.pools[0].spec.ipv4.as_ref().unwrap().node_mask_size, 29);
        assert!(Pool::usual(Families::Ipv4).spec.ipv6.is_none());
    }

    #[test]
    fn a_mistake_is_refused_with_its_key() {
        for (text, said) in [
            ("nodez: 3", "nodez"),
            ("nodes: [{}, {zome: a}]", "nodes[1]: unknown field `zome`"),
            (
                "nodes: many",
                "expected a number, or a list of {name, labels, zone}",
            ),
            ("nodes: -1", "nodes"),
            ("nodes: 0", "nodes: 0"),
            ("agent: {mtu: big}", "mtu: \"big\" (from file lab.yaml)"),
            ("agent: {tunnelPotr: 1}", "did you mean tunnelPort?"),
            ("nodes: 201", "nodes: 201"),
            ("name: Lab", "\"Lab\""),
            ("topology: ring", "ring"),
            ("nodes: [{name: a}, {name: a}]", "two are named a"),
            ("nodes: [{name: node-2}, {}]", "two are named node-2"),
            ("nodes: [{name: A}]", "\"A\" is no name for a node"),
            (
                "nodes: [{zone: a b}]",
                "node-1: topology.kubernetes.io/zone=a b is no label",
            ),
            ("nodes: [{labels: {'x y': z}}]", "node-1: x y=z is no label"),
            ("podsPerNode: 1000", "podsPerNode: 1000"),
            ("kubeconfig: /x", "only with api: external"),
            (
                "pools: [{name: a, ipv4: {cidrs: [10.0.0.0/8], nodeMaskSize: 24}}]",
                "only with ipam: cluster-pool",
            ),
            ("podCIDRs: [10.0.0.0/33]", "podCIDRs"),
            ("podCIDRs: [10.0.0.0/16]", "one CIDR per family"),
            ("{family: ipv4, podCIDRs: ['fd00::/48']}", "one CIDR per family"),
            ("podCIDRs: ['fd00::/48', 10.0.0.0/16]", "IPv4 CIDR first"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
