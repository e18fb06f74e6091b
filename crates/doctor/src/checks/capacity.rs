// SPDX-License-Identifier: Apache-2.0
//! Addresses that run out: in a node's pool, on an instance, in the cloud (trap 4); permissions to get more (trap 5).

use super::{Check, each_node, some_of};
use crate::facts::{Facts, Provider};
use crate::finding::{Outcome, Severity};

/// From here on a pool is pressed, in percent.
const PRESSED: u64 = 80;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "capacity.pool",
        per_node: true,
        trap: Some(4),
        title: "a node's addresses for pods are nearly used up",
        why: "the next pods of the node hang in ContainerCreating",
        run: pool,
    },
    Check {
        id: "capacity.slots",
        per_node: false,
        trap: Some(4),
        title: "the scheduler may put more pods on an instance than it has addresses for",
        why: "addresses per machine follow its type, not its size: pods are scheduled where they cannot start",
        run: slots,
    },
    Check {
        id: "iam.permissions",
        per_node: false,
        trap: Some(5),
        title: "the operator's role lacks actions, or allows more than is needed",
        why: "a missing action shows only when the next node needs an address; a broad one is an attacker's",
        run: permissions,
    },
];

fn pool(facts: &Facts, outcome: &mut Outcome) {
    each_node(facts, |node| {
        let Some(agent) = outcome.need(&node.name, &node.agent) else {
            return;
        };
        for pool in &agent.pools {
            let percent = pool.used.saturating_mul(100) / pool.total.max(1);
            if percent < PRESSED {
                continue;
            }
            let full = pool.used >= pool.total;
            outcome.find(
                if full { Severity::Error } else { Severity::Warning },
                &node.name,
                format!(
                    "{} of {} addresses of {} are in use",
                    pool.used, pool.total, pool.cidr
                ),
                "give nodes larger networks (--node-cidr-mask-size), or the cluster more nodes",
            );
        }
    });
}

fn slots(facts: &Facts, outcome: &mut Outcome) {
    let Some(provider) = outcome.need("cloud", &facts.cloud.provider) else {
        return;
    };
    // Elsewhere a pool is what limits, which the other check looks at.
    if *provider != Provider::Aws {
        return;
    }
    let Some(slots) = outcome.need("cloud", &facts.cloud.pod_slots) else {
        return;
    };
    let Some(nodes) = outcome.need("cluster", &facts.cluster.nodes) else {
        return;
    };
    let counts = facts.cluster.pods_per_node.known();
    for node in nodes.iter().filter(|node| !super::support::is_managed(node)) {
        let kind = node.labels.get("node.kubernetes.io/instance-type");
        let Some(kind) = kind else {
            outcome.not_known(
                &node.name,
                "the node has no label node.kubernetes.io/instance-type",
            );
            continue;
        };
        let Some(limit) = slots.get(kind) else {
            outcome.not_known(&node.name, format!("the limits of {kind} are not in the data"));
            continue;
        };
        let mend = format!(
            "thalweg capacity --instance-type {kind} shows what fits; set the kubelet's maxPods to {} or take prefix delegation",
            limit.slots + HOST_NETWORK_PODS
        );
        let used = counts
            .and_then(|counts| counts.get(&node.name))
            .copied()
            .unwrap_or_default();
        if let Some(most) = node.max_pods
            && most > limit.slots + HOST_NETWORK_PODS
        {
            outcome.find(
                Severity::Warning,
                &node.name,
                format!(
                    "{kind} has addresses for {} pods ({}), the kubelet lets {most} in; {used} are there",
                    limit.slots, limit.how
                ),
                mend.clone(),
            );
        }
        if used > limit.slots {
            outcome.find(
                Severity::Error,
                &node.name,
                format!(
                    "{used} pods want addresses on {kind}, which has {} ({})",
                    limit.slots, limit.how
                ),
                mend,
            );
        }
    }
}

/// Pods with the host's network, which need no address: the official formula allows for two.
const HOST_NETWORK_PODS: u32 = 2;

fn permissions(facts: &Facts, outcome: &mut Outcome) {
    let Some(provider) = outcome.need("cloud", &facts.cloud.provider) else {
        return;
    };
    if *provider != Provider::Aws {
        return;
    }
    let Some(iam) = outcome.need("cloud", &facts.cloud.iam) else {
        return;
    };
    let mend = format!(
        "thalweg iam policy --mode {} prints the policy to attach to {}",
        iam.mode, iam.role
    );
    if !iam.missing.is_empty() {
        outcome.find(
            Severity::Error,
            "cloud",
            format!("{} may not {}", iam.role, some_of(&iam.missing)),
            mend.clone(),
        );
    }
    if !iam.superfluous.is_empty() {
        outcome.find(
            Severity::Warning,
            "cloud",
            format!(
                "{} may {}, which mode {} does not need",
                iam.role,
                some_of(&iam.superfluous),
                iam.mode
            ),
            mend,
        );
    }
}
