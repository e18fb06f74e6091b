// SPDX-License-Identifier: Apache-2.0
//! Which addresses each cluster gets: network, subnets, pods, services, without overlaps anywhere in the file.
//!
//! [`plan`] is deterministic, and clusters are served in the order of the file: adding one at the end moves no other.

mod layout;
mod pool;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::Serialize;

use crate::catalogue::Catalogue;
use crate::file::{Cloud, Cluster, NodeGroup, Platform, Problems, Refused};
use pool::Free;

pub use layout::{Role, Subnet};

/// Pods of a node where the file does not say: Kubernetes' own default.
pub const PODS_PER_NODE: u32 = 110;

/// The services' network where the file does not say: 4,096 services.
const SERVICES_PREFIX: u8 = 20;

/// VPCs smaller than this leave no room for subnets in three zones.
const NETWORK_PREFIX_LONGEST: u8 = 22;

/// Nodes come and go: during an upgrade there are more of them, and subnets cannot grow.
const HEADROOM: u64 = 2;

/// The addresses of all clusters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Addresses {
    /// In the order of the file.
    pub clusters: Vec<ClusterAddresses>,
    /// What is left of each pool: `networks`, `pods`, `services`.
    pub free: BTreeMap<&'static str, u64>,
}

/// The addresses of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterAddresses {
    /// The cluster's name.
    pub cluster: String,
    /// Its VPC or VNet, or the network that its machines are in.
    pub network: Ipv4Net,
    /// Disjoint parts of the network.
    pub subnets: Vec<Subnet>,
    /// Where pods have addresses of their own.
    pub pods: Option<Ipv4Net>,
    /// The length of each node's part of `pods`.
    pub node_mask: Option<u8>,
    /// Services' addresses.
    pub services: Ipv4Net,
    /// The tenth address of `services`, where cluster DNS is.
    pub dns: Ipv4Addr,
    /// Addresses of the network that the largest allowed number of nodes takes, pods included where they live there.
    pub needed: u64,
}

impl ClusterAddresses {
    /// Everything that must not overlap with anything else: network, pods, services.
    pub fn ranges(&self) -> impl Iterator<Item = Ipv4Net> {
        [Some(self.network), self.pods, Some(self.services)]
            .into_iter()
            .flatten()
    }

    /// The subnets of a role.
    pub fn of_role(&self, role: Role) -> impl Iterator<Item = &Subnet> {
        self.subnets.iter().filter(move |subnet| subnet.role == role)
    }
}

/// The length of a pods' network that holds so many nodes; nothing if none does.
#[must_use]
pub fn pods_prefix(node_mask: u8, nodes: u32) -> Option<u8> {
    let bits = u8::try_from(nodes.max(1).next_power_of_two().trailing_zeros()).ok()?;
    node_mask.checked_sub(bits).filter(|length| *length >= 8)
}

/// What `--max-pods` of this group's nodes is; of several types the fewest, since which one comes is not known.
#[must_use]
pub fn pods_of(cluster: &Cluster, group: &NodeGroup, catalogue: &Catalogue) -> Option<u32> {
    if group.instance_types.is_empty() {
        return catalogue.capacity(cluster, None).ok()?.max_pods;
    }
    let of = |name: &String| catalogue.capacity(cluster, Some(name)).ok()?.max_pods;
    group
        .instance_types
        .iter()
        .map(of)
        .collect::<Option<Vec<u32>>>()?
        .into_iter()
        .min()
}

/// Plans all addresses.
///
/// # Errors
/// Every overlap and everything that does not fit, each with the remedy.
pub fn plan(platform: &Platform, catalogue: &Catalogue) -> Result<Addresses, Refused> {
    let mut problems = Problems::default();
    let mut pools = Pools::new(platform, &mut problems);
    let mut clusters = Vec::new();
    for (index, cluster) in platform.clusters.iter().enumerate() {
        let path = format!("clusters[{index}]");
        clusters.extend(one(cluster, &path, &mut pools, catalogue, &mut problems));
    }
    if !problems.0.is_empty() {
        return Err(Refused { problems: problems.0 });
    }
    let free = [
        ("networks", &pools.networks),
        ("pods", &pools.pods),
        ("services", &pools.services),
    ];
    Ok(Addresses {
        clusters,
        free: free.map(|(name, pool)| (name, pool.addresses())).into(),
    })
}

/// The three pools without what is taken.
struct Pools {
    networks: Free,
    pods: Free,
    services: Free,
}

impl Pools {
    /// What the user fixed comes first, whoever it belongs to: no plan may take it.
    fn new(platform: &Platform, problems: &mut Problems) -> Self {
        let mut pools = Self {
            networks: Free::of(&platform.pools.networks),
            pods: Free::of(&platform.pools.pods),
            services: Free::of(&platform.pools.services),
        };
        let mut taken: Vec<(Ipv4Net, String)> = Vec::new();
        for (index, net) in platform.reserved.iter().enumerate() {
            taken.push((*net, format!("reserved[{index}]")));
        }
        for (index, cluster) in platform.clusters.iter().enumerate() {
            let path = |key: &str| format!("clusters[{index}].{key}");
            let fixed = [
                ("network", cluster.network),
                ("pods", cluster.pods),
                ("services", cluster.services),
            ];
            for (key, net) in fixed {
                let Some(net) = net else { continue };
                if cluster.cloud == Cloud::Machines && key == "network" && shares(&taken, net, platform) {
                    continue;
                }
                taken.push((net, path(key)));
            }
        }
        overlaps(&mut taken, problems);
        for (net, _) in &taken {
            pools.remove(*net);
        }
        pools
    }

    fn remove(&mut self, net: Ipv4Net) {
        self.networks.remove(net);
        self.pods.remove(net);
        self.services.remove(net);
    }
}

/// Clusters of machines may live in one network: nobody makes it for them.
fn shares(taken: &[(Ipv4Net, String)], net: Ipv4Net, platform: &Platform) -> bool {
    let machines = |path: &str| {
        platform.clusters.iter().enumerate().any(|(index, cluster)| {
            cluster.cloud == Cloud::Machines && path == format!("clusters[{index}].network")
        })
    };
    taken.iter().any(|(other, path)| *other == net && machines(path))
}

/// Notes each overlap once, at the later of the two in the file.
fn overlaps(taken: &mut [(Ipv4Net, String)], problems: &mut Problems) {
    let mut sorted: Vec<(usize, &(Ipv4Net, String))> = taken.iter().enumerate().collect();
    sorted.sort_by_key(|(index, (net, _))| (net.network(), net.prefix_len(), *index));
    let mut open: Vec<(usize, &(Ipv4Net, String))> = Vec::new();
    let mut found = Vec::new();
    for (index, entry) in sorted {
        open.retain(|(_, (net, _))| net.contains(&entry.0.network()));
        if let Some((other_index, other)) = open.last() {
            let (first, second) = if *other_index < index {
                (*other, entry)
            } else {
                (entry, *other)
            };
            found.push((index.max(*other_index), first, second));
        }
        open.push((index, entry));
    }
    found.sort_by_key(|(index, ..)| *index);
    for (_, (first, where_first), (second, where_second)) in found {
        let reason = format!("{second} overlaps {first} of {where_first}");
        problems.add(
            where_second,
            reason,
            "choose another, or leave it out and let it be planned",
        );
    }
}

fn one(
    cluster: &Cluster,
    path: &str,
    pools: &mut Pools,
    catalogue: &Catalogue,
    problems: &mut Problems,
) -> Option<ClusterAddresses> {
    let needed = needed(cluster, catalogue);
    let network = network(cluster, path, needed, pools, problems);
    let pods = pods(cluster, path, pools, problems);
    let services = cluster.services.or_else(|| {
        take(
            pools,
            Pool::Services,
            SERVICES_PREFIX,
            &format!("{path}.services"),
            problems,
        )
    });
    let (network, services) = (network?, services?);
    if !cluster.pods_in_network() && pods.is_none() {
        return None;
    }
    for (key, net) in [
        ("network", Some(network)),
        ("pods", pods),
        ("services", Some(services)),
    ] {
        not_of_aks(cluster, path, (key, net), problems);
    }
    let subnets = layout::subnets(cluster, network, path, problems)?;
    layout::check(cluster, &subnets, needed, path, problems);
    Some(ClusterAddresses {
        cluster: cluster.name.clone(),
        network,
        subnets,
        pods,
        node_mask: pods.map(|_| cluster.node_mask),
        services,
        dns: services.hosts().nth(9).unwrap_or_else(|| services.network()),
        needed,
    })
}

/// What AKS keeps for itself (learn.microsoft.com, configure-kubenet and azure-cni-overlay: prerequisites); link-local addresses
/// are refused everywhere.
const AKS_KEEPS: [(Ipv4Addr, u8); 2] = [
    (Ipv4Addr::new(172, 30, 0, 0), 15),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
];

/// Refuses what AKS would.
fn not_of_aks(cluster: &Cluster, path: &str, (key, net): (&str, Option<Ipv4Net>), problems: &mut Problems) {
    let Some(net) = net.filter(|_| cluster.cloud == Cloud::Azure) else {
        return;
    };
    let kept = AKS_KEEPS
        .into_iter()
        .filter_map(|(first, length)| Ipv4Net::new(first, length).ok());
    for kept in kept.filter(|kept| kept.contains(&net) || net.contains(kept)) {
        problems.add(
            format!("{path}.{key}"),
            format!("{net} overlaps {kept}, which AKS keeps for itself"),
            format!("fix another network here, or add {kept} to `reserved` so that none of it is planned"),
        );
    }
}

/// What the largest allowed number of nodes takes of the network.
fn needed(cluster: &Cluster, catalogue: &Catalogue) -> u64 {
    let group = |group: &NodeGroup| -> u64 {
        let each = group
            .instance_types
            .iter()
            .map(|name| catalogue.addresses(cluster, name))
            .max();
        u64::from(group.max) * u64::from(each.unwrap_or(1))
    };
    cluster.node_groups.iter().map(group).sum()
}

fn network(
    cluster: &Cluster,
    path: &str,
    needed: u64,
    pools: &mut Pools,
    problems: &mut Problems,
) -> Option<Ipv4Net> {
    if let Some(net) = cluster.network {
        return Some(net);
    }
    let length = match cluster.network_prefix {
        Some(length) => length,
        None => layout::network_prefix(cluster, needed * HEADROOM).min(NETWORK_PREFIX_LONGEST),
    };
    if cluster.cloud == Cloud::Aws && length < 16 {
        let reason = format!("{needed} addresses do not fit into one VPC, whose largest network is a /16");
        problems.add(
            path,
            reason,
            "split the cluster, lower the groups' max or podsPerNode, or use mode overlay",
        );
        return None;
    }
    take(
        pools,
        Pool::Networks,
        length,
        &format!("{path}.network"),
        problems,
    )
}

fn pods(cluster: &Cluster, path: &str, pools: &mut Pools, problems: &mut Problems) -> Option<Ipv4Net> {
    if cluster.pods_in_network() {
        return None;
    }
    if let Some(net) = cluster.pods {
        return Some(net);
    }
    let Some(length) = pods_prefix(cluster.node_mask, cluster.nodes_max()) else {
        let reason = format!(
            "{} nodes with a /{} each are more than a /8",
            cluster.nodes_max(),
            cluster.node_mask
        );
        problems.add(
            format!("{path}.pods"),
            reason,
            "take a longer nodeMask, or lower the groups' max",
        );
        return None;
    };
    take(pools, Pool::Pods, length, &format!("{path}.pods"), problems)
}

#[derive(Clone, Copy)]
enum Pool {
    Networks,
    Pods,
    Services,
}

/// Takes a network of one pool, and away from all: pools may overlap one another.
fn take(pools: &mut Pools, which: Pool, length: u8, path: &str, problems: &mut Problems) -> Option<Ipv4Net> {
    let (pool, name) = match which {
        Pool::Networks => (&mut pools.networks, "networks"),
        Pool::Pods => (&mut pools.pods, "pods"),
        Pool::Services => (&mut pools.services, "services"),
    };
    match pool.take(length) {
        Some(net) => {
            pools.remove(net);
            Some(net)
        }
        None => {
            let left = pool
                .largest()
                .map_or_else(|| "nothing".to_owned(), |largest| format!("a /{largest} at most"));
            let reason = format!("a /{length} is needed, and pools.{name} has {left} left");
            problems.add(
                path,
                reason,
                format!("add a network to pools.{name}, or fix one here"),
            );
            None
        }
    }
}
