// SPDX-License-Identifier: Apache-2.0
//! What will stand in the way of the next upgrade (trap 10).

use super::{Check, some_of};
use crate::facts::{Facts, WebhookFacts};
use crate::finding::{Outcome, Severity};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "upgrade.daemonset",
        per_node: false,
        trap: Some(10),
        title: "our DaemonSet is not rolled node by node, or may be evicted",
        why: "an upgrade takes all nodes at once, or none until somebody deletes pods by hand",
        run: daemon_set,
    },
    Check {
        id: "upgrade.budgets",
        per_node: false,
        trap: Some(10),
        title: "disruption budgets that let no pod go",
        why: "draining a node waits for them without end, and the cloud's upgrade fails or forces its way",
        run: budgets,
    },
    Check {
        id: "upgrade.webhooks",
        per_node: false,
        trap: Some(10),
        title: "admission webhooks in the cluster that must answer before a network pod may start",
        why: "while the network is down the webhook cannot answer, and while it does not answer the network cannot come up",
        run: webhooks,
    },
    Check {
        id: "upgrade.deprecated",
        per_node: false,
        trap: Some(10),
        title: "somebody uses API versions that are going away",
        why: "after the upgrade these requests fail",
        run: deprecated,
    },
];

fn daemon_set(facts: &Facts, outcome: &mut Outcome) {
    let Some(sets) = outcome.need("cluster", &facts.cluster.daemon_sets) else {
        return;
    };
    for set in sets.iter().filter(|set| set.name == "thalweg") {
        let name = format!("DaemonSet {}/{}", set.namespace, set.name);
        if set.strategy == "OnDelete" {
            outcome.find(
                Severity::Warning,
                "cluster",
                format!("{name} is replaced only OnDelete"),
                "set updateStrategy.type: RollingUpdate",
            );
        }
        if at_once(&set.max_unavailable, set.desired) {
            outcome.find(
                Severity::Warning,
                "cluster",
                format!(
                    "{name} may be away on {} of {} nodes at once",
                    set.max_unavailable, set.desired
                ),
                "set updateStrategy.rollingUpdate.maxUnavailable to 1 or 10%",
            );
        }
        if !set.priority_class.starts_with("system-") {
            outcome.find(
                Severity::Warning,
                "cluster",
                format!("{name} has the priority class `{}`", set.priority_class),
                "set priorityClassName: system-node-critical",
            );
        }
        if set.ready < set.desired {
            outcome.find(
                Severity::Error,
                "cluster",
                format!("{} of {} pods of {name} are ready", set.ready, set.desired),
                format!(
                    "kubectl -n {} get pods -l app.kubernetes.io/name=thalweg -o wide",
                    set.namespace
                ),
            );
        }
    }
}

/// Whether half of the nodes or more may be without an agent at once.
fn at_once(unavailable: &str, desired: u32) -> bool {
    match unavailable.strip_suffix('%') {
        Some(percent) => percent.parse::<u32>().is_ok_and(|percent| percent >= 50),
        None => unavailable
            .parse::<u32>()
            .is_ok_and(|count| count > 1 && count.saturating_mul(2) >= desired),
    }
}

fn budgets(facts: &Facts, outcome: &mut Outcome) {
    let Some(budgets) = outcome.need("cluster", &facts.cluster.budgets) else {
        return;
    };
    for budget in budgets
        .iter()
        .filter(|budget| budget.allowed <= 0 && budget.pods > 0)
    {
        outcome.find(
            Severity::Warning,
            "cluster",
            format!("{} lets none of its {} pods go", budget.name, budget.pods),
            "give the workload one replica more, or the budget a maxUnavailable of 1",
        );
    }
}

/// A webhook that keeps the network from coming up.
pub(crate) fn locks_out(webhook: &WebhookFacts) -> bool {
    webhook.fails_closed && webhook.covers_kube_system && webhook.covers_pods && webhook.service.is_some()
}

fn webhooks(facts: &Facts, outcome: &mut Outcome) {
    let Some(webhooks) = outcome.need("cluster", &facts.cluster.webhooks) else {
        return;
    };
    for webhook in webhooks.iter().filter(|webhook| locks_out(webhook)) {
        outcome.find(
            Severity::Warning,
            "cluster",
            format!(
                "{} is asked about pods of kube-system and refuses them while {} does not answer",
                webhook.name,
                webhook.service.as_deref().unwrap_or("its service")
            ),
            "except the namespace: namespaceSelector {key: kubernetes.io/metadata.name, operator: NotIn, values: [kube-system]}",
        );
    }
}

fn deprecated(facts: &Facts, outcome: &mut Outcome) {
    let Some(uses) = outcome.need("cluster", &facts.cluster.deprecated) else {
        return;
    };
    // Without a version in which it goes it is only frowned upon.
    let going = uses.iter().filter(|one| !one.removed_in.is_empty());
    let going: Vec<String> = going
        .map(|one| {
            format!(
                "{} {} (gone in {})",
                one.group_version, one.resource, one.removed_in
            )
        })
        .collect();
    if !going.is_empty() {
        outcome.find(
            Severity::Warning,
            "cluster",
            format!("requested since the API server started: {}", some_of(going)),
            "the API server's audit log names who (annotation k8s.io/deprecated); `thalweg upgrade check` says what takes their place",
        );
    }
}
