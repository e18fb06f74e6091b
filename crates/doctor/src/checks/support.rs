// SPDX-License-Identifier: Apache-2.0
//! Who helps when it breaks, and where no network but the cloud's can run at all (trap 1); what the cloud's own network did and
//! ours does not (trap 7); clusters that are joined (trap 8).

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::{Check, some_of};
use crate::facts::{Facts, NodeObject, Provider};
use crate::finding::{Outcome, Severity};

/// A rehearsal older than this proves little, in seconds: 90 days.
const REHEARSAL_AGE_MAX: u64 = 90 * 86_400;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "support.rollback",
        per_node: true,
        trap: Some(1),
        title: "there is no way back to the cloud's own network at hand, or nobody has tried it lately",
        why: "the cloud supports only its own network: the way back to it is what its support will ask for",
        run: rollback,
    },
    Check {
        id: "support.managed-nodes",
        per_node: false,
        trap: Some(1),
        title: "nodes whose network the cloud does not give up: Auto Mode, Fargate, Autopilot, virtual nodes; hybrid nodes and EKS Anywhere",
        why: "no agent can run there, or other rules of support hold: pods of such nodes are outside of this network",
        run: managed_nodes,
    },
    Check {
        id: "security-groups.pods",
        per_node: false,
        trap: Some(7),
        title: "security groups are meant for pods, which no network but the VPC CNI applies",
        why: "the rules look as if they were in force, and are not",
        run: security_groups,
    },
    Check {
        id: "mesh.peerings",
        per_node: false,
        trap: Some(8),
        title: "a joined cluster's network is not connected, not routed, or overlaps with ours",
        why: "services of the mesh resolve and time out, from some nodes and in one direction only",
        run: peerings,
    },
];

/// Whether the cloud runs the node so that no agent of ours can be on it.
pub(super) fn is_managed(node: &NodeObject) -> bool {
    kind_of(node).is_some_and(|(_, severity, _)| severity == Severity::Error)
}

/// What kind of managed node it is, how bad that is, and what to do.
fn kind_of(node: &NodeObject) -> Option<(&'static str, Severity, &'static str)> {
    let label = |name: &str| node.labels.get(name).map(String::as_str);
    match label("eks.amazonaws.com/compute-type") {
        Some("fargate") => {
            return Some((
                "Fargate: pods run without a node of yours, in the VPC CNI's network",
                Severity::Error,
                "keep these pods out of policies that count on us, or move them to node groups (delete the Fargate profile)",
            ));
        }
        Some("auto") => {
            return Some((
                "EKS Auto Mode: Amazon runs the node's network, and no other can be installed",
                Severity::Error,
                "use managed or self-managed node groups for pods of this network",
            ));
        }
        Some("hybrid") => {
            return Some((
                "EKS Hybrid Node: the VPC CNI does not work there; Amazon supports Cilium's core on it, and nothing else",
                Severity::Warning,
                "routes to the pods of hybrid nodes must be in the on-premises network: see docs/book/doctor.md",
            ));
        }
        _ => {}
    }
    if node
        .labels
        .keys()
        .any(|key| key.starts_with("anywhere.eks.amazonaws.com/"))
    {
        return Some((
            "EKS Anywhere: Amazon's support covers the Cilium that it ships",
            Severity::Warning,
            "set cniConfig.cilium.skipUpgrade: true in the Cluster object before another network is installed",
        ));
    }
    if node.name.starts_with("gk3-") || label("cloud.google.com/gke-provisioning") == Some("autopilot") {
        return Some((
            "GKE Autopilot: Google runs the network, and no other can be installed",
            Severity::Error,
            "use a Standard cluster for this network",
        ));
    }
    if label("type") == Some("virtual-kubelet") {
        return Some((
            "virtual node: there is no machine behind it",
            Severity::Error,
            "keep pods that need this network off virtual nodes",
        ));
    }
    None
}

fn managed_nodes(facts: &Facts, outcome: &mut Outcome) {
    let Some(nodes) = outcome.need("cluster", &facts.cluster.nodes) else {
        return;
    };
    for node in nodes {
        if let Some((what, severity, mend)) = kind_of(node) {
            outcome.find(severity, &node.name, what, mend);
        }
    }
}

fn rollback(facts: &Facts, outcome: &mut Outcome) {
    let Some(provider) = outcome.need("cloud", &facts.cloud.provider) else {
        return;
    };
    let (own, name) = match provider {
        Provider::Own => return,
        Provider::Aws => ("vpc-cni", "the VPC CNI"),
        Provider::Azure => ("azure-cni", "Azure CNI"),
        Provider::Gcp => ("other", "GKE's network"),
    };
    let known = facts.nodes.iter().filter_map(|node| node.rollback.known());
    let kept: Vec<_> = known.collect();
    if kept.is_empty() {
        for node in &facts.nodes {
            outcome.need(&node.name, &node.rollback);
        }
        return;
    }
    // Copies are named after the time and whose parts they hold.
    let of_own = format!("-{own}");
    let stem = |copy: &&String| {
        copy.strip_suffix(".json")
            .is_some_and(|stem| stem.contains(&of_own))
    };
    let copies: usize = kept
        .iter()
        .map(|one| one.backups.iter().filter(stem).count())
        .sum();
    let rehearsed = kept.iter().filter_map(|one| one.rehearsed).max();
    let now = facts.ended_ms / 1000;
    let evidence = match (copies, rehearsed) {
        (0, _) => format!("no node has a copy of the parts of {name}"),
        (_, None) => {
            format!("{copies} copies of parts of {name} are kept, but going back was never rehearsed")
        }
        (_, Some(when)) if now.saturating_sub(when) > REHEARSAL_AGE_MAX => {
            format!(
                "going back to {name} was last rehearsed {} days ago",
                (now - when) / 86_400
            )
        }
        _ => return,
    };
    let mend = format!(
        "thalweg conflicts rollback --to {own} prints the plan; --rehearse tries it on a node and undoes it"
    );
    outcome.find(Severity::Warning, "cluster", evidence, mend);
}

fn security_groups(facts: &Facts, outcome: &mut Outcome) {
    let policies = outcome.need("cluster", &facts.cluster.security_group_policies);
    if let Some(policies) = policies.filter(|policies| !policies.is_empty()) {
        outcome.find(
            Severity::Error,
            "cluster",
            format!("{} SecurityGroupPolicy objects have no effect here: {}", policies.len(), some_of(policies)),
            "write each as a NetworkPolicy (groups as podSelector, CIDRs as ipBlock), try them, then delete the SecurityGroupPolicy",
        );
    }
    let pods = outcome.need("cluster", &facts.cluster.pods);
    let branch = pods.into_iter().flatten().filter(|pod| pod.branch_interface);
    let branch: Vec<String> = branch
        .map(|pod| format!("{}/{}", pod.namespace, pod.name))
        .collect();
    if !branch.is_empty() {
        outcome.find(
            Severity::Error,
            "cluster",
            format!(
                "{} pods still have branch interfaces of the VPC CNI: {}",
                branch.len(),
                some_of(branch)
            ),
            "write their groups as NetworkPolicy, then restart these pods into this network",
        );
    }
}

fn peerings(facts: &Facts, outcome: &mut Outcome) {
    let Some(peerings) = outcome.need("cloud", &facts.cloud.peerings) else {
        return;
    };
    let ours: BTreeSet<IpNet> = facts.pod_networks().into_iter().map(|(_, net)| net).collect();
    for peering in peerings {
        let name = &peering.cluster;
        if !peering.active {
            outcome.find(
                Severity::Error,
                "cloud",
                format!("the connection to {name} is {}", peering.state),
                "accept or make it again: aws ec2 accept-vpc-peering-connection, or see the transit gateway's attachment",
            );
        }
        let unrouted = peering
            .cidrs
            .iter()
            .filter(|net| !peering.routed.iter().any(|routed| routed.contains(*net)));
        let unrouted: Vec<_> = unrouted.collect();
        if !unrouted.is_empty() {
            outcome.find(
                Severity::Error,
                "cloud",
                format!("no route leads to {} of {name}", some_of(unrouted)),
                format!("add routes to {name} to the route tables of all subnets with nodes, on both sides"),
            );
        }
        for net in &peering.cidrs {
            for own in ours
                .iter()
                .filter(|own| own.contains(&net.network()) || net.contains(&own.network()))
            {
                outcome.find(
                    Severity::Error,
                    "cloud",
                    format!("{net} of {name} overlaps with our pods' {own}"),
                    "one of the two clusters needs another range: joined networks share one address plan",
                );
            }
        }
    }
}
