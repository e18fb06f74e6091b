// SPDX-License-Identifier: Apache-2.0
//! What cannot be meant although each value is well-formed.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;

use super::read::Problems;
use super::{Cloud, Cluster, Connect, Egress, Mode, NodeGroup, Platform, Zones};
use crate::catalogue::{Catalogue, Known};

/// The longest name of a cluster: names of parts are appended, and Azure's node resource groups end at 80 letters.
const NAME_MAX: usize = 40;
/// The longest name of an Azure node pool, and what it is of.
const AZURE_POOL_NAME_MAX: usize = 12;
/// GKE's limit of pods per node on Standard clusters.
const GKE_PODS_MAX: u32 = 256;
const AZURE_ZONES_MAX: u32 = 3;

pub(super) fn check(platform: &Platform, catalogue: &Catalogue, problems: &mut Problems) {
    label("name", &platform.name, problems);
    let mut seen = BTreeMap::new();
    for (index, cluster) in platform.clusters.iter().enumerate() {
        let path = format!("clusters[{index}]");
        label(&format!("{path}.name"), &cluster.name, problems);
        if let Some(other) = seen.insert(cluster.name.clone(), path.clone()) {
            let reason = format!("`{}` is the name of {other} too", cluster.name);
            problems.add(
                format!("{path}.name"),
                reason,
                "give each cluster a name of its own",
            );
        }
        Of {
            path,
            cluster,
            problems,
        }
        .check(platform, catalogue);
    }
    mesh(platform, problems);
    service_pools(platform, problems);
}

/// EKS takes services' networks of RFC 1918 only.
fn service_pools(platform: &Platform, problems: &mut Problems) {
    let asks = |cluster: &Cluster| cluster.cloud == Cloud::Aws && cluster.services.is_none();
    if !platform.clusters.iter().any(asks) {
        return;
    }
    for net in platform.pools.services.iter().filter(|net| !is_rfc1918(**net)) {
        let reason = format!("EKS takes services' networks of RFC 1918 only, and {net} is none");
        problems.add(
            "pools.services",
            reason,
            "take one within 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16",
        );
    }
}

fn label(path: &str, name: &str, problems: &mut Problems) {
    let bytes = name.as_bytes();
    let good = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let fits = bytes.len() <= NAME_MAX
        && bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes.last().is_some_and(good)
        && bytes.iter().all(|byte| good(byte) || *byte == b'-');
    if !fits && !name.is_empty() {
        let remedy =
            format!("use small letters, digits and '-', beginning with a letter, at most {NAME_MAX}");
        problems.add(
            path,
            format!("`{name}` cannot be part of names in the clouds"),
            remedy,
        );
    }
}

fn mesh(platform: &Platform, problems: &mut Problems) {
    let of = |cloud| {
        platform
            .clusters
            .iter()
            .filter(|cluster| cluster.cloud == cloud)
            .count()
    };
    match platform.mesh {
        Connect::TransitGateway if of(Cloud::Aws) < 2 => problems.add(
            "mesh",
            "a transit gateway joins VPCs of AWS, and there are not two",
            "use `peering`, or `none`",
        ),
        Connect::Peering
            if [Cloud::Aws, Cloud::Azure, Cloud::Gcp]
                .iter()
                .all(|cloud| of(*cloud) < 2) =>
        {
            problems.add(
                "mesh",
                "a peering joins two networks of one cloud, and there are not two",
                "use `none`",
            )
        }
        Connect::None | Connect::Peering | Connect::TransitGateway => {}
    }
}

/// One cluster under judgement.
pub(super) struct Of<'a> {
    path: String,
    pub(super) cluster: &'a Cluster,
    problems: &'a mut Problems,
}

impl Of<'_> {
    pub(super) fn add(&mut self, key: &str, reason: impl Into<String>, remedy: impl Into<String>) {
        self.problems.add(format!("{}.{key}", self.path), reason, remedy);
    }

    fn check(&mut self, platform: &Platform, catalogue: &Catalogue) {
        self.full_name(&platform.name);
        self.mode();
        self.region(catalogue);
        self.zones();
        self.egress();
        self.sizes();
        self.services();
        self.per_node();
        self.features();
        let mut names = BTreeMap::new();
        for (index, group) in self.cluster.node_groups.iter().enumerate() {
            let key = format!("nodeGroups[{index}]");
            if names.insert(&group.name, ()).is_some() {
                let reason = format!("`{}` is the name of two groups", group.name);
                self.add(
                    &format!("{key}.name"),
                    reason,
                    "give each group a name of its own",
                );
            }
            self.group(&key, group, catalogue);
        }
        self.system_pool();
    }

    fn mode(&mut self) {
        let Cluster { cloud, mode, .. } = *self.cluster;
        let remedy = match cloud {
            Cloud::Aws => "choose eni, eni-prefix or overlay",
            Cloud::Azure => {
                "choose delegated (Azure CNI owns the addresses) or overlay (network-plugin none, Thalweg owns all)"
            }
            Cloud::Gcp => "choose pod-cidr: the alias ranges of the nodes",
            Cloud::Machines => "choose pod-cidr (one segment, or a fabric that knows the routes) or overlay",
        };
        let reason = match (cloud, mode) {
            (Cloud::Aws, Mode::Eni | Mode::EniPrefix | Mode::Overlay)
            | (Cloud::Azure, Mode::Delegated | Mode::Overlay)
            | (Cloud::Gcp, Mode::PodCidr)
            | (Cloud::Machines, Mode::PodCidr | Mode::Overlay) => return,
            (_, Mode::Eni | Mode::EniPrefix) => format!("ENIs are a thing of AWS; on {cloud} there are none"),
            (_, Mode::Delegated) => format!("addresses by Azure CNI are a thing of AKS, not of {cloud}"),
            (Cloud::Aws, Mode::PodCidr) => {
                "EKS gives nodes no pod CIDRs, and a VPC routes no more than it has entries for".to_owned()
            }
            (Cloud::Azure, Mode::PodCidr) => {
                "AKS routes pod CIDRs for its own plugins only (delegated mode); with network-plugin none it routes none"
                    .to_owned()
            }
            (Cloud::Gcp, Mode::Overlay) => {
                "GKE routes pod CIDRs by itself and cannot be told not to; a tunnel on top costs and gives nothing"
                    .to_owned()
            }
        };
        self.add("mode", reason, remedy);
    }

    fn region(&mut self, catalogue: &Catalogue) {
        let Cluster {
            cloud, ref region, ..
        } = *self.cluster;
        if let Known::No(near, date) = catalogue.region(cloud, region) {
            let remedy = near.map_or_else(
                || {
                    "take one of those that there are; a newer one needs a newer version of this program"
                        .to_owned()
                },
                |name| format!("did you mean `{name}`?"),
            );
            self.add(
                "region",
                format!("{cloud} has no region `{region}` in the data of {date}"),
                remedy,
            );
        }
    }

    fn zones(&mut self) {
        let Cluster {
            cloud,
            ref region,
            ref zones,
            ..
        } = *self.cluster;
        if cloud == Cloud::Aws && zones.count() < 2 {
            self.add(
                "zones",
                "EKS wants subnets in at least two availability zones",
                "give two or more",
            );
        }
        if cloud == Cloud::Azure && zones.count() > AZURE_ZONES_MAX {
            let reason = format!("regions of Azure have {AZURE_ZONES_MAX} availability zones at most");
            self.add("zones", reason, format!("take {AZURE_ZONES_MAX} or fewer"));
        }
        let Zones::Named(names) = zones else { return };
        let mut seen = std::collections::BTreeSet::new();
        for name in names {
            let good = match cloud {
                Cloud::Aws | Cloud::Gcp => name.starts_with(region.as_str()) && name.len() > region.len(),
                Cloud::Azure => matches!(name.as_str(), "1" | "2" | "3"),
                Cloud::Machines => !name.is_empty(),
            };
            if !good {
                let example = match cloud {
                    Cloud::Aws => format!("{region}a"),
                    Cloud::Gcp => format!("{region}-b"),
                    Cloud::Azure | Cloud::Machines => "\"1\"".to_owned(),
                };
                let reason = format!("`{name}` is no zone of {region}");
                self.add(
                    "zones",
                    reason,
                    format!("write names such as {example}, or only how many"),
                );
            }
            if !seen.insert(name) {
                self.add("zones", format!("`{name}` is there twice"), "name each zone once");
            }
        }
    }

    fn egress(&mut self) {
        let Cluster { cloud, egress, .. } = *self.cluster;
        let (good, remedy): (&[Egress], _) = match cloud {
            Cloud::Aws => (&[Egress::Nat, Egress::NatPerZone], "choose nat or nat-per-zone"),
            Cloud::Azure => (
                &[Egress::LoadBalancer, Egress::Nat, Egress::Firewall],
                "choose load-balancer, nat or firewall",
            ),
            Cloud::Gcp => (&[Egress::Nat], "choose nat"),
            Cloud::Machines => (&[Egress::Existing], "choose existing"),
        };
        if !good.contains(&egress) {
            self.add("egress", format!("{egress} is not rendered for {cloud}"), remedy);
        }
    }

    fn sizes(&mut self) {
        let cluster = self.cluster;
        let range = match cluster.cloud {
            Cloud::Aws => 16..=28,
            Cloud::Azure | Cloud::Gcp | Cloud::Machines => 8..=28,
        };
        let length = cluster
            .network
            .map(|net| net.prefix_len())
            .or(cluster.network_prefix);
        if let Some(length) = length.filter(|length| !range.contains(length)) {
            let reason = format!("a network of {} cannot be a /{length}", cluster.cloud);
            let key = if cluster.network.is_some() {
                "network"
            } else {
                "networkPrefix"
            };
            self.add(
                key,
                reason,
                format!("take one between /{} and /{}", range.start(), range.end()),
            );
        }
        if let (Some(net), Some(length)) = (cluster.network, cluster.network_prefix)
            && net.prefix_len() != length
        {
            let reason = format!("/{length} contradicts the network {net}");
            self.add("networkPrefix", reason, "remove one of the two");
        }
        if cluster.pods.is_some() && cluster.pods_in_network() {
            let reason = format!("in mode {} pods have addresses of the network", cluster.mode);
            self.add("pods", reason, "remove it, and size the network instead");
        }
        if cluster.cloud == Cloud::Machines && cluster.network.is_none() {
            self.add(
                "network",
                "is missing: the machines have addresses already",
                "write the network they are in",
            );
        }
    }

    fn services(&mut self) {
        let cluster = self.cluster;
        let Some(services) = cluster.services else { return };
        let (shortest, longest) = match cluster.cloud {
            // EKS: "between /24 and /12"; AKS: "smaller than /12"; GKE: "/16 to /27"; kubeadm: at most 20 host bits.
            Cloud::Aws => (12, 24),
            Cloud::Azure => (13, 28),
            Cloud::Gcp => (16, 27),
            Cloud::Machines => (12, 28),
        };
        if !(shortest..=longest).contains(&services.prefix_len()) {
            let reason = format!(
                "{} takes no services' network of /{}",
                cluster.cloud,
                services.prefix_len()
            );
            self.add(
                "services",
                reason,
                format!("take one between /{shortest} and /{longest}"),
            );
        }
        if cluster.cloud == Cloud::Aws && !is_rfc1918(services) {
            let reason = format!("EKS takes services' networks of RFC 1918 only, and {services} is none");
            self.add(
                "services",
                reason,
                "take one within 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16",
            );
        }
    }

    fn per_node(&mut self) {
        let cluster = self.cluster;
        let pods = cluster.pods_per_node.unwrap_or(crate::address::PODS_PER_NODE);
        match cluster.mode {
            Mode::Delegated if cluster.node_mask != 24 => {
                let reason = "Azure CNI Overlay gives each node a /24, neither more nor less";
                self.add("nodeMask", reason, "remove it");
            }
            Mode::PodCidr if cluster.cloud == Cloud::Gcp => self.gke_per_node(pods),
            Mode::Overlay | Mode::PodCidr => self.mask_holds(pods),
            // Azure's /24 holds all that AKS allows; of ENIs each type has its own number.
            Mode::Delegated | Mode::Eni | Mode::EniPrefix => {}
        }
        self.aks_per_node(pods);
        if let Some(net) = cluster.pods
            && !cluster.pods_in_network()
        {
            let bits = cluster.node_mask.checked_sub(net.prefix_len());
            let fit = bits.map_or(0, |bits| 1_u64 << bits);
            if fit < u64::from(cluster.nodes_max()) {
                let (mask, nodes) = (cluster.node_mask, cluster.nodes_max());
                let reason =
                    format!("{net} holds {fit} nodes' /{mask}, and the groups may grow to {nodes} nodes");
                let needed = crate::address::pods_prefix(mask, nodes);
                let remedy = needed.map_or_else(
                    || "lower the groups' max".to_owned(),
                    |length| format!("take a /{length}, a longer nodeMask, or a smaller max"),
                );
                self.add("pods", reason, remedy);
            }
        }
    }

    /// GKE gives a node at least twice as many addresses as pods.
    fn gke_per_node(&mut self, pods: u32) {
        if pods > GKE_PODS_MAX {
            let reason = format!("GKE runs at most {GKE_PODS_MAX} pods on a node");
            self.add("podsPerNode", reason, format!("take at most {GKE_PODS_MAX}"));
            return;
        }
        let length = ::plan::capacity::gke_mask(pods);
        if length != self.cluster.node_mask {
            let reason =
                format!("GKE derives it: for {pods} pods a node has a /{length}, twice the pods rounded up");
            self.add("nodeMask", reason, format!("write nodeMask: {length}"));
        }
    }

    /// The first address of a node's network is its router's; the network's own and the broadcast address are unused.
    fn mask_holds(&mut self, pods: u32) {
        let mask = self.cluster.node_mask;
        let holds = (1_u32 << (32 - u32::from(mask))).saturating_sub(3);
        if holds < pods {
            let reason = format!("a node's /{mask} holds {holds} pods, and podsPerNode is {pods}");
            self.add(
                "nodeMask",
                reason,
                "take a shorter mask (a smaller number), or fewer pods",
            );
        }
    }

    fn features(&mut self) {
        let Cluster {
            cloud,
            mode,
            features,
            ref endpoint,
            ..
        } = *self.cluster;
        if features.bgp && cloud != Cloud::Machines {
            let reason = match (cloud, mode) {
                (Cloud::Azure, Mode::Delegated) => "AKS with a delegated dataplane offers no BGP".to_owned(),
                _ => format!("the network of {cloud} has no BGP peer that this program renders"),
            };
            self.add("features.bgp", reason, "remove it");
        }
        match (cloud, endpoint) {
            (Cloud::Machines, None) => {
                self.add(
                    "endpoint",
                    "is missing",
                    "write the API's host and port, such as api.example.com:6443",
                );
            }
            (Cloud::Machines, Some(endpoint)) if !is_endpoint(endpoint) => {
                let reason = format!("`{endpoint}` is not a host and a port");
                self.add("endpoint", reason, "write it such as api.example.com:6443");
            }
            (Cloud::Aws | Cloud::Azure | Cloud::Gcp, Some(_)) => {
                self.add(
                    "endpoint",
                    format!("{cloud} chooses the API's address"),
                    "remove it",
                );
            }
            (_, _) => {}
        }
    }

    fn group(&mut self, key: &str, group: &NodeGroup, catalogue: &Catalogue) {
        label(&format!("{}.{key}.name", self.path), &group.name, self.problems);
        let cloud = self.cluster.cloud;
        if cloud == Cloud::Azure && (group.name.len() > AZURE_POOL_NAME_MAX || group.name.contains('-')) {
            let reason = format!("`{}` cannot be the name of an AKS node pool", group.name);
            let remedy = format!("use at most {AZURE_POOL_NAME_MAX} small letters and digits");
            self.add(&format!("{key}.name"), reason, remedy);
        }
        let types_key = format!("{key}.instanceTypes");
        match (cloud, group.instance_types.as_slice()) {
            (Cloud::Machines, _) => return,
            (_, []) => self.add(&types_key, "is missing", "name the instance type"),
            (Cloud::Azure | Cloud::Gcp, [_, _, ..]) => {
                self.add(
                    &types_key,
                    format!("a node pool of {cloud} has one type"),
                    "make a group for each type",
                );
            }
            (_, _) => {}
        }
        for name in &group.instance_types {
            if let Known::No(near, date) = catalogue.machine(cloud, name) {
                let remedy = near.map_or_else(
                    || "take one that exists".to_owned(),
                    |near| format!("did you mean `{near}`?"),
                );
                self.add(
                    &types_key,
                    format!("{cloud} has no machine type `{name}` in the data of {date}"),
                    remedy,
                );
            } else if cloud == Cloud::Aws {
                self.pods_fit(&types_key, name, catalogue);
            }
        }
        self.processors(&types_key, group);
    }
}

fn is_rfc1918(net: Ipv4Net) -> bool {
    let ranges = [([10, 0, 0, 0], 8), ([172, 16, 0, 0], 12), ([192, 168, 0, 0], 16)];
    ranges
        .into_iter()
        .any(|(first, length)| Ipv4Net::new(first.into(), length).is_ok_and(|range| range.contains(&net)))
}

fn is_endpoint(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    !host.is_empty() && host.bytes().all(letter) && port.parse::<u16>().is_ok_and(|port| port > 0)
}
