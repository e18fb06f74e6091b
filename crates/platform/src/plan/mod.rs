// SPDX-License-Identifier: Apache-2.0
//! What is to be known before anything is made: addresses, pods that fit, traps, cost, and what is not comparable.

mod compare;
mod cost;
#[cfg(test)]
mod tests;
mod traps;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::address::{self, Addresses, ClusterAddresses};
use crate::catalogue::Catalogue;
use crate::file::{Cloud, Cluster, Connect, Mode, NodeGroup, Platform, Refused, Tunnel};

pub use compare::Difference;
pub use cost::Cost;
pub use traps::{Answer, Trap};

/// A plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The platform's name.
    pub name: String,
    /// In the order of the file.
    pub clusters: Vec<ClusterPlan>,
    /// Addresses left in each pool.
    pub free: BTreeMap<&'static str, u64>,
    /// The ten traps, those that apply.
    pub traps: Vec<Trap>,
    /// In what the clusters differ, so that one's experience does not hold for another.
    pub not_comparable: Vec<Difference>,
    /// Pairs of clusters that have no way to each other.
    pub unconnected: Vec<Unconnected>,
}

/// What is planned for a cluster.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterPlan {
    /// Its cloud.
    pub cloud: Cloud,
    /// Its region.
    pub region: String,
    /// Who owns pod addresses.
    pub mode: Mode,
    /// Its addresses.
    pub addresses: ClusterAddresses,
    /// Its groups.
    pub groups: Vec<GroupPlan>,
    /// The most pods with addresses of their own, when all groups have grown; nothing where a type is not known enough.
    pub pods_max: Option<u64>,
    /// What its machines cost.
    pub cost: Cost,
    /// What the agent of this version does not do yet and this cluster asks for.
    pub not_yet: Vec<String>,
}

/// What is planned for a group of nodes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupPlan {
    /// Its name.
    pub name: String,
    /// Its types.
    pub instance_types: Vec<String>,
    /// Nodes at least, to begin with, at most.
    pub nodes: [u32; 3],
    /// `--max-pods` of each node, of several types the fewest; nothing where that is not known.
    pub max_pods: Option<u32>,
    /// The official number with the VPC CNI, for comparison; of the first type.
    pub official_max_pods: Option<u32>,
    /// Pods with an address of their own on each node.
    pub pods: Option<u32>,
    /// What else has to be known to read the numbers.
    pub notes: Vec<String>,
}

/// Two clusters without a way to each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unconnected {
    /// The one.
    pub left: String,
    /// The other.
    pub right: String,
    /// Why.
    pub reason: String,
}

/// Plans.
///
/// # Errors
/// Addresses that overlap or do not fit.
pub fn plan(platform: &Platform, catalogue: &Catalogue) -> Result<Plan, Refused> {
    let addresses = address::plan(platform, catalogue)?;
    Ok(of(platform, &addresses, catalogue))
}

/// The plan around addresses that are planned already.
#[must_use]
pub fn of(platform: &Platform, addresses: &Addresses, catalogue: &Catalogue) -> Plan {
    let clusters: Vec<ClusterPlan> = platform
        .clusters
        .iter()
        .zip(&addresses.clusters)
        .map(|(cluster, addresses)| cluster_plan(cluster, addresses, catalogue))
        .collect();
    Plan {
        name: platform.name.clone(),
        free: addresses.free.clone(),
        traps: traps::of(platform),
        not_comparable: compare::of(platform),
        unconnected: unconnected(platform),
        clusters,
    }
}

fn cluster_plan(cluster: &Cluster, addresses: &ClusterAddresses, catalogue: &Catalogue) -> ClusterPlan {
    let groups: Vec<GroupPlan> = cluster
        .node_groups
        .iter()
        .map(|group| group_plan(cluster, group, catalogue))
        .collect();
    let pods_max = groups
        .iter()
        .map(|group| Some(u64::from(group.pods?) * u64::from(group.nodes[2])))
        .sum::<Option<u64>>();
    ClusterPlan {
        cloud: cluster.cloud,
        region: cluster.region.clone(),
        mode: cluster.mode,
        addresses: addresses.clone(),
        pods_max,
        groups,
        cost: cost::of(cluster, catalogue),
        not_yet: not_yet(cluster),
    }
}

fn group_plan(cluster: &Cluster, group: &NodeGroup, catalogue: &Catalogue) -> GroupPlan {
    let names: Vec<Option<&str>> = match group.instance_types.as_slice() {
        [] => vec![None],
        types => types.iter().map(|name| Some(name.as_str())).collect(),
    };
    let answers: Vec<_> = names
        .into_iter()
        .map(|name| catalogue.capacity(cluster, name).ok())
        .collect();
    let fewest = |of: fn(&::plan::Capacity) -> Option<u32>| {
        let each = answers
            .iter()
            .map(|answer| answer.as_ref().and_then(of))
            .collect::<Option<Vec<u32>>>();
        each.and_then(|each| each.into_iter().min())
    };
    let mut notes: Vec<String> = answers
        .iter()
        .flatten()
        .flat_map(|answer| answer.notes.clone())
        .collect();
    notes.dedup();
    if answers.iter().any(Option::is_none) {
        notes.push("a type is not known enough to say how many pods fit".into());
    }
    if group.instance_types.len() > 1 {
        notes.push(
            "of several types the one with the fewest pods counts: which one comes is not known before"
                .into(),
        );
    }
    GroupPlan {
        name: group.name.clone(),
        instance_types: group.instance_types.clone(),
        nodes: [group.min, group.desired, group.max],
        max_pods: fewest(|answer| answer.max_pods),
        official_max_pods: answers
            .first()
            .and_then(|answer| answer.as_ref()?.official_max_pods),
        pods: fewest(|answer| answer.pods),
        notes,
    }
}

/// Asks the agent's own configuration parser, so that this cannot say anything else than the agent.
fn not_yet(cluster: &Cluster) -> Vec<String> {
    let (routing, ipam) = match cluster.mode {
        Mode::Eni | Mode::EniPrefix => ("native", "eni"),
        Mode::Overlay => ("tunnel", "cluster-pool"),
        Mode::Delegated => ("native", "delegated-plugin"),
        Mode::PodCidr => ("native", "kubernetes"),
    };
    let mut wanted = vec![
        ("routingMode", routing.to_owned()),
        ("ipam.mode", ipam.to_owned()),
    ];
    if cluster.mode == Mode::Overlay {
        let protocol = match cluster.features.tunnel {
            Tunnel::Vxlan => "vxlan",
            Tunnel::Geneve => "geneve",
        };
        wanted.push(("tunnelProtocol", protocol.to_owned()));
    }
    let switches = [
        ("kubeProxyReplacement", cluster.features.kube_proxy_replacement),
        ("hubble.enabled", cluster.features.hubble),
        ("bgpControlPlane.enabled", cluster.features.bgp),
    ];
    wanted.extend(
        switches
            .iter()
            .filter(|(_, on)| *on)
            .map(|(key, _)| (*key, "true".to_owned())),
    );
    wanted
        .into_iter()
        .filter(|(key, value)| {
            api::config::Config::from_yaml(format!("{key}: {value}\n").as_bytes()).is_err()
        })
        .map(|(key, value)| format!("{key}: {value}"))
        .collect()
}

fn unconnected(platform: &Platform) -> Vec<Unconnected> {
    let mut pairs = Vec::new();
    if platform.mesh == Connect::None {
        return pairs;
    }
    for (index, left) in platform.clusters.iter().enumerate() {
        for right in &platform.clusters[index + 1..] {
            let reason = if left.cloud != right.cloud {
                format!(
                    "between {} and {} it takes a VPN or a leased line, which is not rendered",
                    left.cloud, right.cloud
                )
            } else if left.cloud == Cloud::Machines {
                "the way between machines is theirs who own the network".to_owned()
            } else if platform.mesh == Connect::TransitGateway && left.cloud != Cloud::Aws {
                format!(
                    "transit gateways are a thing of AWS, and both are on {}",
                    left.cloud
                )
            } else {
                continue;
            };
            pairs.push(Unconnected {
                left: left.name.clone(),
                right: right.name.clone(),
                reason,
            });
        }
    }
    pairs
}
