// SPDX-License-Identifier: Apache-2.0
//! In what clusters differ although they are in one file.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::file::{Cloud, Cluster, Egress, Mode, Platform};

/// A property that is not the same everywhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// What it is about.
    pub property: &'static str,
    /// Each value with its clusters.
    pub values: BTreeMap<&'static str, Vec<String>>,
    /// What must not be concluded from one cluster for another.
    pub therefore: &'static str,
}

type Property = (&'static str, fn(&Cluster) -> &'static str, &'static str);

const PROPERTIES: [Property; 8] = [
    (
        "what leaves is filtered",
        |cluster| match cluster.egress {
            Egress::Firewall => "by the cloud's firewall, by name",
            Egress::Nat | Egress::NatPerZone => "no: NAT lets everything out",
            Egress::LoadBalancer => "no: the load balancer lets everything out",
            Egress::Existing => "as the machines' network does; not known here",
        },
        "a workload that works here may be cut off there, and an audit of one says nothing about the other",
    ),
    (
        "where the Kubernetes API is reachable from",
        |cluster| match (cluster.cloud, cluster.private) {
            (Cloud::Machines, _) => "where the machines' network lets it; not known here",
            (_, true) => "inside only",
            (_, false) => "the Internet, with credentials",
        },
        "who can run kubectl, and from where, differs",
    ),
    (
        "who owns pod addresses",
        |cluster| match cluster.mode {
            Mode::Eni | Mode::EniPrefix => "the VPC: pods are first-class in it",
            Mode::Delegated => "Azure CNI: the fabric routes them, nothing is encapsulated",
            Mode::Overlay => "Thalweg: a pool that nothing outside the cluster routes",
            Mode::PodCidr => "Kubernetes: a range per node that the network below routes",
        },
        "whether something outside can open a connection to a pod's address differs",
    ),
    (
        "how many pods a node can have",
        |cluster| match cluster.mode {
            Mode::Eni | Mode::EniPrefix => "as many as its interfaces have addresses",
            Mode::Delegated => "250 at most, a /24 per node",
            Mode::Overlay | Mode::PodCidr => "as many as its range has addresses",
        },
        "the same node type holds different numbers of pods",
    ),
    (
        "the cloud's security groups",
        |cluster| match (cluster.cloud, cluster.mode) {
            (Cloud::Aws, Mode::Eni | Mode::EniPrefix) => "reach pods, but all pods of a node alike",
            (Cloud::Aws, _) => "see nodes only",
            (Cloud::Azure, _) => "are of subnets: see nodes only",
            (Cloud::Gcp, _) => "are firewall rules of the network: reach pods by their ranges",
            (Cloud::Machines, _) => "do not exist",
        },
        "what a group allows or forbids has to be policy where it does not reach",
    ),
    (
        "kube-proxy",
        |cluster| match (cluster.cloud, cluster.features.kube_proxy_replacement) {
            (Cloud::Aws | Cloud::Machines, true) => "is not there",
            (Cloud::Azure | Cloud::Gcp, true) => "is there beside our services: the cloud keeps it",
            (_, false) => "does services",
        },
        "rules in iptables are a finding here and normal there",
    ),
    (
        "pods before the agent is ready",
        |cluster| match cluster.cloud {
            Cloud::Aws | Cloud::Gcp | Cloud::Machines => "are kept off by a taint that the agent takes away",
            Cloud::Azure if cluster.mode == Mode::Delegated => {
                "can start unmanaged: Azure's plugin is there first, and a pool's taints cannot be taken away"
            }
            Cloud::Azure => "cannot start: without our plugin there is none",
        },
        "a node that is Ready does not mean the same",
    ),
    (
        "a zone that fails takes",
        |cluster| match cluster.egress {
            Egress::NatPerZone => "its own share",
            Egress::Nat if cluster.cloud == Cloud::Aws => "with the NAT's zone the way out of all zones",
            Egress::Nat | Egress::Firewall | Egress::LoadBalancer => {
                "what the cloud promises for its regional services"
            }
            Egress::Existing => "what the machines' network makes of it; not known here",
        },
        "availability figures of one are not the other's",
    ),
];

pub(super) fn of(platform: &Platform) -> Vec<Difference> {
    let mut differences = Vec::new();
    for (property, value, therefore) in PROPERTIES {
        let mut values: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
        for cluster in &platform.clusters {
            values
                .entry(value(cluster))
                .or_default()
                .push(cluster.name.clone());
        }
        if values.len() > 1 {
            differences.push(Difference {
                property,
                values,
                therefore,
            });
        }
    }
    differences
}
