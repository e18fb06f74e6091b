// SPDX-License-Identifier: Apache-2.0
//! Answers out of what a running cluster shows: labels and addresses of nodes, DaemonSets, custom resources.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Answers, Question};
use crate::cloud::Cloud;

/// What a node's object says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// `spec.providerID`.
    pub provider_id: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// `spec.podCIDRs`.
    pub pod_cidrs: Vec<String>,
    /// Pods that it may run: `status.allocatable`.
    pub allocatable_pods: Option<u32>,
    /// Pods that run there, without those of the host's network.
    pub pods: u32,
}

/// What was read of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Its nodes.
    pub nodes: Vec<NodeFacts>,
    /// Its DaemonSets' names, of all namespaces.
    pub daemon_sets: Vec<String>,
    /// What could not be read, and why.
    pub unread: Vec<String>,
    /// Whether objects of `SecurityGroupPolicy` exist; `None` if that could not be read.
    pub security_group_policies: Option<bool>,
}

/// What follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detected {
    /// Answers to begin with.
    pub answers: Answers,
    /// What they rest on, what else was seen, and what could not be read.
    pub evidence: Vec<Evidence>,
}

/// A thing that was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// What it is about.
    pub about: &'static str,
    /// What was seen.
    pub seen: String,
}

/// DaemonSets that are networks, or parts of them.
const NETWORKS: [(&str, &str); 12] = [
    ("aws-node", "the Amazon VPC CNI"),
    ("cilium", "Cilium"),
    ("anetd", "GKE Dataplane V2"),
    ("azure-cns", "Azure CNI (Azure gives the addresses)"),
    ("azure-npm", "Azure's network policy manager"),
    ("calico-node", "Calico"),
    ("canal", "Canal: Calico and Flannel"),
    ("kube-flannel-ds", "Flannel"),
    ("antrea-agent", "Antrea"),
    ("kindnet", "kindnet"),
    ("kube-router", "kube-router"),
    ("thalweg", "Thalweg"),
];
const COMPUTE_TYPE: &str = "eks.amazonaws.com/compute-type";

/// Draws the conclusions. What does not follow from what was seen stays unanswered.
#[must_use]
pub fn detect(observed: &Observed) -> Detected {
    let mut evidence = Vec::new();
    let mut see = |about: &'static str, seen: String| evidence.push(Evidence { about, seen });
    let cloud = cloud_of(observed, &mut see);
    let mut answers = Answers::new(cloud);
    for (name, what) in NETWORKS {
        if observed.daemon_sets.iter().any(|found| found == name) {
            see("network", format!("DaemonSet {name}: {what}"));
        }
    }
    let labelled = |key: &str, value: &str| {
        observed
            .nodes
            .iter()
            .filter(|node| node.labels.get(key).is_some_and(|found| found == value))
            .count()
    };
    let mut answer = |question: Question, nodes: usize| {
        if question.is_about(cloud) && !observed.nodes.is_empty() {
            answers.yes_no.insert(question, nodes > 0);
        }
        if nodes > 0 {
            see(
                question.name(),
                format!("{nodes} of {} nodes", observed.nodes.len()),
            );
        }
    };
    answer(Question::WindowsNodes, labelled("kubernetes.io/os", "windows"));
    if cloud == Cloud::Aws {
        answer(Question::Fargate, labelled(COMPUTE_TYPE, "fargate"));
        answer(Question::AutoMode, labelled(COMPUTE_TYPE, "auto"));
        answer(Question::HybridNodes, labelled(COMPUTE_TYPE, "hybrid"));
    }
    if cloud == Cloud::Gcp {
        // Google names the machines of Autopilot gk3-…, those of Standard gke-….
        let autopilot = observed.nodes.iter().filter(|node| node.name.starts_with("gk3-"));
        answer(Question::Autopilot, autopilot.count());
    }
    if cloud == Cloud::Aws
        && let Some(exist) = observed.security_group_policies
    {
        answers.yes_no.insert(Question::SecurityGroupsPerPod, exist);
        see(
            "security-groups-per-pod",
            if exist {
                "SecurityGroupPolicy objects exist"
            } else {
                "no SecurityGroupPolicy object"
            }
            .to_owned(),
        );
    }
    types_and_density(observed, &mut answers, &mut see);
    for unread in &observed.unread {
        see("unread", unread.clone());
    }
    Detected { answers, evidence }
}

fn cloud_of(observed: &Observed, see: &mut impl FnMut(&'static str, String)) -> Cloud {
    let by_provider = |node: &NodeFacts| match node.provider_id.as_deref()?.split_once("://")?.0 {
        "aws" => Some(Cloud::Aws),
        // Hybrid nodes are EKS's, though not on AWS's machines.
        "eks-hybrid" => Some(Cloud::Aws),
        "azure" => Some(Cloud::Azure),
        "gce" => Some(Cloud::Gcp),
        _ => None,
    };
    let found: BTreeSet<Cloud> = observed.nodes.iter().filter_map(by_provider).collect();
    let cloud = found.iter().next().copied().unwrap_or(Cloud::Other);
    match found.len() {
        0 => see(
            "cloud",
            "no node's providerID is of AWS, Azure or Google Cloud".to_owned(),
        ),
        1 => see("cloud", format!("the nodes' providerID: {cloud}")),
        _ => see("cloud", format!("nodes of several clouds; taking {cloud}")),
    }
    cloud
}

fn types_and_density(observed: &Observed, answers: &mut Answers, see: &mut impl FnMut(&'static str, String)) {
    let label = |node: &NodeFacts| node.labels.get("node.kubernetes.io/instance-type").cloned();
    let types: BTreeSet<String> = observed.nodes.iter().filter_map(label).collect();
    if !types.is_empty() {
        see(
            "instance types",
            types.iter().cloned().collect::<Vec<_>>().join(", "),
        );
    }
    if answers.cloud == Cloud::Aws {
        answers.instance_types = types.into_iter().collect();
    }
    let fullest = observed.nodes.iter().max_by_key(|node| node.pods);
    if let Some(node) = fullest.filter(|node| node.pods > 0) {
        let most = node
            .allocatable_pods
            .map_or_else(String::new, |most| format!(" of {most} allowed"));
        see(
            "pod density",
            format!("{} pods{most} on {}, the fullest node", node.pods, node.name),
        );
        answers.pods_per_node = Some(node.pods);
    }
    let ranged = observed
        .nodes
        .iter()
        .filter(|node| !node.pod_cidrs.is_empty())
        .count();
    if let Some(example) = observed.nodes.iter().find_map(|node| node.pod_cidrs.first()) {
        see(
            "pod CIDRs",
            format!(
                "{ranged} of {} nodes have one, as in {example}",
                observed.nodes.len()
            ),
        );
    }
}
