// SPDX-License-Identifier: Apache-2.0
//! From YAML to [`Platform`].

use serde_yaml_ng::{Mapping, Value};

use super::read::{Problems, Section};
use super::{
    CLUSTERS_MAX, Cloud, Cluster, Connect, Egress, FILE_BYTES_MAX, Features, GitOps, Identity, Mode,
    NodeGroup, Platform, Pools, Refused, Tunnel, Version, Zones, check,
};
use crate::catalogue::Catalogue;

const TOP: &[&str] = &[
    "name", "pools", "reserved", "mesh", "gitops", "defaults", "clusters",
];
const POOLS: &[&str] = &["networks", "pods", "services"];
const GITOPS: &[&str] = &["repository", "revision", "chartRepository", "chartVersion"];
const CLUSTER: &[&str] = &[
    "name",
    "cloud",
    "region",
    "mode",
    "kubernetes",
    "zones",
    "network",
    "networkPrefix",
    "pods",
    "services",
    "nodeMask",
    "podsPerNode",
    "private",
    "egress",
    "identity",
    "features",
    "nodeGroups",
    "endpoint",
];
/// What a name, a fixed network or an address of one cluster is, cannot be every cluster's.
const OWN: &[&str] = &["name", "network", "pods", "services", "endpoint"];
const FEATURES: &[&str] = &["kubeProxyReplacement", "hubble", "tunnel", "bgp"];
const GROUP: &[&str] = &["name", "instanceTypes", "min", "max", "desired", "spot"];

/// The most nodes of a group.
const NODES_MAX: u32 = 5000;

impl Platform {
    /// Reads a platform file.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its path, the reason and the remedy.
    pub fn parse(text: &str, catalogue: &Catalogue) -> Result<Self, Refused> {
        let mut problems = Problems::default();
        let platform = parse(text, &mut problems);
        if let Some(platform) = &platform {
            check::check(platform, catalogue, &mut problems);
        }
        match platform {
            Some(platform) if problems.0.is_empty() => Ok(platform),
            _ => Err(Refused { problems: problems.0 }),
        }
    }
}

fn parse(text: &str, problems: &mut Problems) -> Option<Platform> {
    if text.len() > FILE_BYTES_MAX {
        let reason = format!("the file has {} bytes", text.len());
        problems.add("", reason, format!("{FILE_BYTES_MAX} are the limit: split it"));
        return None;
    }
    let document: Value = match serde_yaml_ng::from_str(text) {
        Ok(document) => document,
        Err(error) => {
            problems.add(
                "",
                format!("this is not YAML: {error}"),
                "mend the line that is named",
            );
            return None;
        }
    };
    let top = Section::open(Some(&document), "", TOP, problems);
    let defaults = top.value("defaults").and_then(Value::as_mapping);
    let known: Vec<&str> = CLUSTER.iter().copied().filter(|key| !OWN.contains(key)).collect();
    Section::open(top.value("defaults"), "defaults", &known, problems);
    let clusters = clusters(&top, defaults, problems);
    Some(Platform {
        name: top.required("name", "acme", problems).unwrap_or_default(),
        pools: pools(&top, problems),
        reserved: top.networks("reserved", problems),
        mesh: top.choice("mesh", Connect::WORDS, problems).unwrap_or_default(),
        gitops: gitops(&top, problems),
        clusters,
    })
}

fn pools(top: &Section<'_>, problems: &mut Problems) -> Pools {
    let section = Section::open(top.value("pools"), "pools", POOLS, problems);
    Pools {
        networks: section.networks("networks", problems),
        pods: section.networks("pods", problems),
        services: section.networks("services", problems),
    }
}

fn gitops(top: &Section<'_>, problems: &mut Problems) -> Option<GitOps> {
    top.value("gitops")?;
    let section = Section::open(top.value("gitops"), "gitops", GITOPS, problems);
    Some(GitOps {
        repository: section.required("repository", "https://git.example.com/platform.git", problems)?,
        revision: section
            .text("revision", problems)
            .unwrap_or_else(|| "main".into()),
        chart_repository: section.required(
            "chartRepository",
            "oci://registry.example.com/charts",
            problems,
        )?,
        chart_version: section.required("chartVersion", "0.1.0", problems)?,
    })
}

fn clusters(top: &Section<'_>, defaults: Option<&Mapping>, problems: &mut Problems) -> Vec<Cluster> {
    let items = match top.value("clusters") {
        Some(Value::Sequence(items)) if !items.is_empty() => items,
        _ => {
            problems.add(
                "clusters",
                "there is no cluster",
                "list at least one, beginning with `- name: …`",
            );
            return Vec::new();
        }
    };
    if items.len() > CLUSTERS_MAX {
        let reason = format!("{} clusters are too many", items.len());
        problems.add(
            "clusters",
            reason,
            format!("{CLUSTERS_MAX} are the limit: split the file"),
        );
        return Vec::new();
    }
    items
        .iter()
        .enumerate()
        .filter_map(|(index, item)| {
            let path = format!("clusters[{index}]");
            let section = Section::open(Some(item), &path, CLUSTER, problems).or_else(defaults, "defaults");
            cluster(&section, problems)
        })
        .collect()
}

fn cluster(section: &Section<'_>, problems: &mut Problems) -> Option<Cluster> {
    let before = problems.0.len();
    let name = section.required("name", "prod-1", problems);
    section.required("cloud", "aws", problems);
    let cloud = section.choice("cloud", Cloud::WORDS, problems);
    let region = section.required("region", "eu-central-1", problems);
    section.required("mode", "overlay", problems);
    let mode = section.choice("mode", Mode::WORDS, problems);
    let kubernetes = version(section, problems);
    let zones = zones(section, problems);
    let node_groups = groups(section, problems);
    let features = features(section, problems);
    let (network, pods, services) = (
        section.network("network", problems),
        section.network("pods", problems),
        section.network("services", problems),
    );
    let prefix = section.number("networkPrefix", 8..=28, problems);
    let node_mask = section.number("nodeMask", 16..=28, problems);
    let cluster = Cluster {
        kubernetes: kubernetes?,
        name: name?,
        region: region?,
        mode: mode?,
        zones,
        network,
        network_prefix: prefix.and_then(|length| u8::try_from(length).ok()),
        pods,
        services,
        node_mask: node_mask
            .and_then(|length| u8::try_from(length).ok())
            .unwrap_or(DEFAULT_NODE_MASK),
        pods_per_node: section.number("podsPerNode", 8..=1000, problems),
        private: section.boolean("private", problems).unwrap_or(false),
        egress: section
            .choice("egress", Egress::WORDS, problems)
            .unwrap_or_else(|| usual_egress(cloud)),
        identity: section
            .choice("identity", Identity::WORDS, problems)
            .unwrap_or_default(),
        features,
        node_groups,
        endpoint: section.text("endpoint", problems),
        cloud: cloud?,
    };
    // What was refused above stands in as a default; judged as if the user had meant it, it would be blamed twice.
    (problems.0.len() == before).then_some(cluster)
}

/// A /24 for each node, as Kubernetes' controller manager and Azure have it.
const DEFAULT_NODE_MASK: u8 = 24;

fn usual_egress(cloud: Option<Cloud>) -> Egress {
    match cloud {
        Some(Cloud::Azure) => Egress::LoadBalancer,
        Some(Cloud::Machines) => Egress::Existing,
        Some(Cloud::Gcp) => Egress::Nat,
        Some(Cloud::Aws) | None => Egress::NatPerZone,
    }
}

fn version(section: &Section<'_>, problems: &mut Problems) -> Option<Version> {
    let text = section.required("kubernetes", "\"1.33\"", problems)?;
    let parsed = text
        .trim_start_matches('v')
        .split_once('.')
        .and_then(|(major, minor)| {
            let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
            (major == 1).then_some(Version(major, minor))
        });
    if parsed.is_none() {
        let path = section
            .find("kubernetes")
            .map_or_else(String::new, |(_, path)| path);
        let remedy = "write the minor version in quotes, such as \"1.33\"";
        problems.add(
            path,
            format!("`{text}` is not a minor version of Kubernetes"),
            remedy,
        );
    }
    parsed
}

fn zones(section: &Section<'_>, problems: &mut Problems) -> Zones {
    match section.value("zones") {
        None => Zones::Count(DEFAULT_ZONES),
        Some(Value::Sequence(_)) => {
            let words = section.words("zones", problems);
            Zones::Named(words.into_iter().map(|(word, _)| word).collect())
        }
        Some(_) => Zones::Count(section.number("zones", 1..=6, problems).unwrap_or(DEFAULT_ZONES)),
    }
}

/// Two of three zones may hold a majority.
const DEFAULT_ZONES: u32 = 3;

fn features(section: &Section<'_>, problems: &mut Problems) -> Features {
    let found = section.find("features");
    let path = found
        .as_ref()
        .map_or_else(|| section.at("features"), |(_, path)| path.clone());
    let features = Section::open(found.map(|(value, _)| value), &path, FEATURES, problems);
    Features {
        kube_proxy_replacement: features.boolean("kubeProxyReplacement", problems).unwrap_or(true),
        hubble: features.boolean("hubble", problems).unwrap_or(true),
        tunnel: features
            .choice("tunnel", Tunnel::WORDS, problems)
            .unwrap_or_default(),
        bgp: features.boolean("bgp", problems).unwrap_or(false),
    }
}

fn groups(section: &Section<'_>, problems: &mut Problems) -> Vec<NodeGroup> {
    let items = section.items("nodeGroups");
    if items.is_empty() {
        let remedy = "list at least one, beginning with `- name: …`";
        problems.add(section.at("nodeGroups"), "there is no node group", remedy);
    }
    items
        .into_iter()
        .filter_map(|(value, path)| group(value, &path, problems))
        .collect()
}

fn group(value: &Value, path: &str, problems: &mut Problems) -> Option<NodeGroup> {
    let section = Section::open(Some(value), path, GROUP, problems);
    let name = section.required("name", "workers", problems);
    let types = section.words("instanceTypes", problems);
    let min = section.number("min", 0..=NODES_MAX, problems).unwrap_or(1);
    section.required("max", "10", problems);
    let max = section.number("max", 1..=NODES_MAX, problems);
    let desired = section.number("desired", 0..=NODES_MAX, problems);
    let spot = section.boolean("spot", problems).unwrap_or(false);
    let max = max?;
    let desired = desired.unwrap_or_else(|| min.max(1).min(max));
    if min > max || desired < min || desired > max {
        let reason = format!("min {min}, desired {desired}, max {max} are not in this order");
        problems.add(path, reason, "make min ≤ desired ≤ max");
    }
    Some(NodeGroup {
        name: name?,
        instance_types: types.into_iter().map(|(word, _)| word).collect(),
        min,
        max,
        desired,
        spot,
    })
}
