// SPDX-License-Identifier: Apache-2.0

use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use proptest::prelude::*;

use super::pool::Free;
use super::{Addresses, plan, pods_prefix};
use crate::file::Platform;
use crate::sample::{catalogue, parsed, planned};

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

/// Every pair of ranges that overlap, subnets within their network aside.
fn overlapping(addresses: &Addresses) -> Vec<(Ipv4Net, Ipv4Net)> {
    let mut all: Vec<Ipv4Net> = addresses
        .clusters
        .iter()
        .flat_map(|cluster| cluster.ranges())
        .collect();
    all.sort();
    let within = addresses.clusters.iter().flat_map(|cluster| {
        let mut subnets: Vec<Ipv4Net> = cluster.subnets.iter().map(|subnet| subnet.cidr).collect();
        subnets.sort();
        let outside = subnets
            .iter()
            .filter(|subnet| !cluster.network.contains(*subnet))
            .map(|subnet| (*subnet, cluster.network));
        let pairs = subnets
            .windows(2)
            .filter(|pair| pair[0].contains(&pair[1].network()))
            .map(|pair| (pair[0], pair[1]));
        outside.chain(pairs).collect::<Vec<_>>()
    });
    let pairs = all
        .windows(2)
        .filter(|pair| pair[0].contains(&pair[1].network()))
        .map(|pair| (pair[0], pair[1]));
    pairs.chain(within).collect()
}

fn file(clusters: &[(&str, u32, u32)]) -> String {
    let mut text = String::from(
        "name: many\npools: {networks: [10.0.0.0/8], pods: [100.64.0.0/10], services: [172.16.0.0/12]}\n\
         reserved: [10.99.0.0/16]\ndefaults: {kubernetes: '1.33'}\nclusters:\n",
    );
    for (index, (kind, nodes, zones)) in clusters.iter().enumerate() {
        let rest = match *kind {
            "eni" => "cloud: aws, region: eu-central-1, mode: eni",
            "overlay" => "cloud: aws, region: us-east-1, mode: overlay",
            "azure" => "cloud: azure, region: westeurope, mode: delegated, egress: firewall",
            _ => "cloud: gcp, region: us-central1, mode: pod-cidr",
        };
        let machine = match *kind {
            "azure" => "Standard_D4s_v5",
            "gcp" => "n2-standard-4",
            _ => "m5.large",
        };
        text.push_str(&format!(
            "  - {{name: c{index}, {rest}, zones: {zones}, nodeGroups: [{{name: w, instanceTypes: [{machine}], max: {nodes}}}]}}\n"
        ));
    }
    text
}

#[test]
fn three_hundred_clusters_in_three_regions_take_less_than_a_second() {
    let regions = ["eu-central-1", "us-east-1", "ap-southeast-1"];
    let mut text = String::from(
        "name: many\npools: {networks: [10.0.0.0/9], pods: [100.64.0.0/10], services: [10.128.0.0/9]}\n\
         defaults: {cloud: aws, kubernetes: '1.33', mode: overlay}\nclusters:\n",
    );
    for (region, index) in regions
        .iter()
        .flat_map(|region| (0..100).map(move |index| (region, index)))
    {
        text.push_str(&format!(
            "  - {{name: {region}-c{index}, region: {region}, nodeGroups: [{{name: w, instanceTypes: [m5.large], max: 30}}]}}\n"
        ));
    }
    let catalogue = catalogue();
    let start = Instant::now();
    let platform = Platform::parse(&text, catalogue).unwrap();
    let addresses = plan(&platform, catalogue).unwrap();
    let whole = crate::plan::of(&platform, &addresses, catalogue);
    let took = start.elapsed();
    println!("300 clusters: {took:?}");
    assert_eq!(whole.clusters.len(), 300);
    assert_eq!(overlapping(&addresses), []);
    // The goal is a second for the shipped build; this one is not optimised.
    assert!(took < Duration::from_secs(10), "{took:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_overlaps_and_later_clusters_move_no_earlier_ones(
        clusters in prop::collection::vec(
            (prop::sample::select(vec!["eni", "overlay", "azure", "gcp"]), 1..120_u32, 2..=3_u32), 1..24),
    ) {
        let text = file(&clusters);
        let platform = parsed(&text);
        let addresses = plan(&platform, catalogue()).unwrap();
        prop_assert_eq!(overlapping(&addresses), vec![]);
        let reserved = net("10.99.0.0/16");
        for range in addresses.clusters.iter().flat_map(super::ClusterAddresses::ranges) {
            prop_assert!(!range.contains(&reserved.network()) && !reserved.contains(&range.network()), "{range}");
        }
        prop_assert_eq!(&plan(&parsed(&text), catalogue()).unwrap(), &addresses);
        let fewer = plan(&parsed(&file(&clusters[..clusters.len().div_ceil(2)])), catalogue()).unwrap();
        prop_assert_eq!(&fewer.clusters[..], &addresses.clusters[..fewer.clusters.len()]);
    }

    #[test]
    fn free_space_is_what_was_there_less_what_was_taken(lengths in prop::collection::vec(18..=28_u8, 1..60)) {
        let mut free = Free::of(&[net("10.0.0.0/16"), net("10.4.0.0/15")]);
        let mut taken: Vec<Ipv4Net> = Vec::new();
        let all = free.addresses();
        for length in lengths {
            if let Some(found) = free.take(length) {
                prop_assert_eq!(found.prefix_len(), length);
                prop_assert!(taken.iter().all(|other| !other.contains(&found) && !found.contains(other)));
                taken.push(found);
            }
        }
        let sum: u64 = taken.iter().map(|net| 1_u64 << (32 - net.prefix_len())).sum();
        prop_assert_eq!(free.addresses() + sum, all);
    }
}

#[test]
fn a_pods_network_holds_a_range_for_each_node() {
    assert_eq!(pods_prefix(24, 1), Some(24));
    assert_eq!(pods_prefix(24, 256), Some(16));
    assert_eq!(pods_prefix(24, 257), Some(15));
    assert_eq!(pods_prefix(16, 5000), None);
}

#[test]
fn subnets_follow_the_zones() {
    let (_, addresses) = planned(&file(&[("eni", 60, 3)]));
    let cluster = &addresses.clusters[0];
    let cut: Vec<String> = cluster
        .subnets
        .iter()
        .map(|subnet| format!("{:?} {:?} {}", subnet.role, subnet.zone, subnet.cidr))
        .collect();
    // 60 nodes × (27 pods + 3 interfaces), doubled, in three zones and a quarter for the rest; beside the reserved
    // network, so that what is large and free stays so.
    assert_eq!(cluster.needed, 1800);
    assert_eq!(
        cut,
        [
            "Nodes Some(0) 10.98.0.0/21",
            "Nodes Some(1) 10.98.8.0/21",
            "Nodes Some(2) 10.98.16.0/21",
            "Public Some(0) 10.98.24.0/24",
            "Public Some(1) 10.98.25.0/24",
            "Public Some(2) 10.98.26.0/24",
            "Transit Some(0) 10.98.27.0/28",
            "Transit Some(1) 10.98.27.16/28",
            "Transit Some(2) 10.98.27.32/28",
        ]
    );
}

fn refused(text: &str) -> Vec<String> {
    let platform = parsed(text);
    let refused = plan(&platform, catalogue()).unwrap_err();
    refused.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn overlaps_are_refused_with_both_places() {
    let text = "
name: x
pools: {services: [172.16.0.0/16]}
reserved: [10.1.0.0/16]
clusters:
  - {name: a, cloud: aws, region: eu-west-1, kubernetes: '1.33', mode: overlay, network: 10.0.0.0/16, pods: 10.1.128.0/17,
     nodeGroups: [{name: w, instanceTypes: [m5.large], max: 9}]}
  - {name: b, cloud: aws, region: eu-west-1, kubernetes: '1.33', mode: overlay, network: 10.0.64.0/18, pods: 10.2.0.0/16,
     services: 10.2.0.0/20, nodeGroups: [{name: w, instanceTypes: [m5.large], max: 9}]}
";
    assert_eq!(
        refused(text),
        [
            "clusters[0].pods: 10.1.128.0/17 overlaps 10.1.0.0/16 of reserved[0]; choose another, or leave it out and let it be planned",
            "clusters[1].network: 10.0.64.0/18 overlaps 10.0.0.0/16 of clusters[0].network; choose another, or leave it out and let it be planned",
            "clusters[1].services: 10.2.0.0/20 overlaps 10.2.0.0/16 of clusters[1].pods; choose another, or leave it out and let it be planned",
        ]
    );
}

#[test]
fn what_does_not_fit_says_what_would() {
    let text = "
name: x
pools: {networks: [10.0.0.0/20], pods: [10.32.0.0/22], services: [172.16.0.0/20]}
clusters:
  - {name: a, cloud: aws, region: eu-west-1, kubernetes: '1.33', mode: eni, network: 10.8.0.0/23,
     nodeGroups: [{name: w, instanceTypes: [m5.large], max: 60}]}
  - {name: b, cloud: aws, region: eu-west-1, kubernetes: '1.33', mode: overlay, nodeGroups: [{name: w, instanceTypes: [m5.large], max: 60}]}
";
    assert_eq!(
        refused(text),
        [
            "clusters[0].network: its nodes' subnets hold 369 addresses, and the groups may need 1800; take a /20 or larger, lower the groups' max or podsPerNode, or use mode overlay",
            "clusters[1].pods: a /18 is needed, and pools.pods has a /22 at most left; add a network to pools.pods, or fix one here",
            "clusters[1].services: a /20 is needed, and pools.services has nothing left; add a network to pools.services, or fix one here",
        ]
    );
}

#[test]
fn what_aks_keeps_for_itself_is_not_planned_for_it() {
    let file = |cloud: &str, types: &str, more: &str| {
        format!(
            "name: x\npools: {{networks: 172.30.0.0/16, pods: 10.0.0.0/12, services: 10.96.0.0/12}}\n{more}\nclusters:\n  - {{name: a, \
             kubernetes: '1.33', {cloud}, mode: overlay, nodeGroups: [{{name: w, instanceTypes: [{types}], max: 3}}]}}\n"
        )
    };
    let aks = |more: &str| {
        let text = file("cloud: azure, region: westeurope", "Standard_D4s_v5", more);
        plan(&parsed(&text), catalogue()).unwrap_err().to_string()
    };
    let refused = aks("");
    assert!(
        refused.contains("clusters[0].network: 172.30.0.0/22 overlaps 172.30.0.0/15, which AKS keeps"),
        "{refused}"
    );
    let reserved = aks("reserved: 172.30.0.0/15");
    assert!(reserved.contains("pools.networks has nothing left"), "{reserved}");
    let eks = file("cloud: aws, region: eu-west-1", "m5.large", "");
    assert!(plan(&parsed(&eks), catalogue()).is_ok());
}
