// SPDX-License-Identifier: Apache-2.0
//! Versions that do not go together (trap 6), and upgrades that stopped halfway (trap 10).

use std::collections::{BTreeMap, BTreeSet};

use super::Check;
use crate::compatibility::data;
use crate::facts::Facts;
use crate::finding::{Outcome, Severity};
use crate::version::Version;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "versions.kubernetes",
        per_node: false,
        trap: Some(6),
        title: "this version was not tested with the cluster's version of Kubernetes",
        why: "an API that changed breaks watches at the next restart, not at once",
        run: kubernetes,
    },
    Check {
        id: "versions.kubelets",
        per_node: false,
        trap: Some(6),
        title: "kubelets are newer than the API server, or too far behind it",
        why: "Kubernetes does not support the combination; the next upgrade of the control plane breaks those nodes",
        run: kubelets,
    },
    Check {
        id: "versions.agents",
        per_node: true,
        trap: Some(10),
        title: "agents are of different versions: an upgrade stopped halfway",
        why: "a half-done upgrade has neither the old version's behaviour nor the new one's",
        run: agents,
    },
];

fn kubernetes(facts: &Facts, outcome: &mut Outcome) {
    let Some(text) = outcome.need("cluster", &facts.cluster.version) else {
        return;
    };
    let version = match Version::parse(text) {
        Ok(version) => version,
        Err(error) => return outcome.not_known("cluster", error.to_string()),
    };
    let tested = &data().kubernetes.tested;
    if !tested
        .versions
        .iter()
        .any(|one| Version::parse(one) == Ok(version))
    {
        outcome.find(
            Severity::Warning,
            "cluster",
            format!("Kubernetes {text}; tested: {}. {}", tested.versions.join(", "), tested.note),
            format!("thalweg upgrade check --to-kubernetes {version} says what is known, and try it on a cluster of no importance"),
        );
    }
}

/// How many minor versions behind a kubelet may be.
pub(crate) fn kubelet_lag_allowed(kubelet: Version) -> i64 {
    let policy = &data().kubernetes.skew;
    if kubelet < Version::new(1, 25) {
        policy.kubelet_minors_behind_before_1_25
    } else {
        policy.kubelet_minors_behind
    }
}

fn kubelets(facts: &Facts, outcome: &mut Outcome) {
    let Some(text) = outcome.need("cluster", &facts.cluster.version) else {
        return;
    };
    let server = match Version::parse(text) {
        Ok(server) => server,
        Err(error) => return outcome.not_known("cluster", error.to_string()),
    };
    let Some(nodes) = outcome.need("cluster", &facts.cluster.nodes) else {
        return;
    };
    for node in nodes {
        let kubelet = match Version::parse(&node.kubelet) {
            Ok(kubelet) => kubelet,
            Err(error) => {
                outcome.not_known(&node.name, format!("the kubelet's version: {error}"));
                continue;
            }
        };
        let Some(behind) = server.minors_after(kubelet) else {
            continue;
        };
        let policy = &data().kubernetes.skew.source;
        if behind < 0 {
            outcome.find(
                Severity::Error,
                &node.name,
                format!(
                    "kubelet {} is newer than the API server {text} ({policy})",
                    node.kubelet
                ),
                "upgrade the control plane first, or go back with the node's image",
            );
        } else if behind > kubelet_lag_allowed(kubelet) {
            outcome.find(
                Severity::Error,
                &node.name,
                format!(
                    "kubelet {} is {behind} minor versions behind the API server {text} ({policy})",
                    node.kubelet
                ),
                "replace the node with one of a current image",
            );
        }
    }
}

fn agents(facts: &Facts, outcome: &mut Outcome) {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for node in &facts.nodes {
        if let Some(agent) = outcome.need(&node.name, &node.agent) {
            versions.entry(&agent.version).or_default().insert(&node.name);
        }
    }
    if versions.len() > 1 {
        let each = versions.iter().map(|(version, nodes)| {
            let nodes: Vec<&str> = nodes.iter().copied().collect();
            format!("{version} on {}", super::some_of(nodes))
        });
        outcome.find(
            Severity::Warning,
            "cluster",
            format!("agents are of {} versions: {}", versions.len(), each.collect::<Vec<_>>().join("; ")),
            "kubectl -n kube-system rollout status daemonset/thalweg, and `rollout undo` if it does not go on",
        );
    }
}
