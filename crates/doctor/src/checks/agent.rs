// SPDX-License-Identifier: Apache-2.0
//! Agents and the pods that they attach.

use super::{Check, each_node, some_of};
use crate::facts::Facts;
use crate::finding::{Outcome, Severity};

/// A pod that has been starting for longer than this is stuck, in seconds.
const STARTING_MAX: u64 = 120;
/// A connection to the API that takes longer is slow, in milliseconds.
const CONNECT_SLOW_MS: u64 = 1000;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "agent.answers",
        per_node: true,
        trap: None,
        title: "an agent does not answer, or a node has none",
        why: "running pods keep their network, but no pod can start or stop there",
        run: answers,
    },
    Check {
        id: "agent.ready",
        per_node: true,
        trap: None,
        title: "an agent is not ready",
        why: "new pods of the node wait in ContainerCreating",
        run: ready,
    },
    Check {
        id: "agent.api",
        per_node: true,
        trap: None,
        title: "a node cannot reach the Kubernetes API",
        why: "everything goes on as it was, and nothing new is learned: no new pods, nodes, services",
        run: api,
    },
    Check {
        id: "agent.stuck",
        per_node: true,
        trap: Some(9),
        title: "pods whose network is not in force, or that do not get beyond ContainerCreating",
        why: "a pod without network fails its probes, and the reason is on another screen than the symptom",
        run: stuck,
    },
];

fn answers(facts: &Facts, outcome: &mut Outcome) {
    each_node(facts, |node| {
        match (&node.agent_silent, node.agent.get()) {
        (Some(reason), _) => outcome.find(
            Severity::Error,
            &node.name,
            reason.clone(),
            format!(
                "kubectl -n kube-system get pods -l app.kubernetes.io/name=thalweg --field-selector spec.nodeName={}",
                node.name
            ),
        ),
        (None, Err(reason)) => outcome.not_known(&node.name, reason),
        (None, Ok(_)) => {}
    }
    });
    let Some(nodes) = outcome.need("cluster", &facts.cluster.nodes) else {
        return;
    };
    // Where agents could not be asked for at all, that one is missing is not known.
    if facts.nodes_unknown.is_some() {
        return;
    }
    let wanted = |name: &str| facts.only_node.as_deref().is_none_or(|only| only == name);
    for node in nodes.iter().filter(|node| wanted(&node.name)) {
        let gathered = facts.nodes.iter().any(|one| one.name == node.name);
        // Machines that no agent can run on are another check's affair.
        if !gathered && !super::support::is_managed(node) {
            outcome.find(
                Severity::Error,
                &node.name,
                "no agent runs on this node",
                "see the taints of the node and the tolerations of the DaemonSet",
            );
        }
    }
}

fn ready(facts: &Facts, outcome: &mut Outcome) {
    each_node(facts, |node| {
        let Some(agent) = outcome.need(&node.name, &node.agent) else {
            return;
        };
        for condition in agent.conditions.iter().filter(|condition| !condition.ok) {
            outcome.find(
                Severity::Error,
                &node.name,
                format!("{}: {}", condition.name, condition.message),
                format!("thalweg status --node {}", node.name),
            );
        }
    });
}

fn api(facts: &Facts, outcome: &mut Outcome) {
    each_node(facts, |node| {
        let Some(api) = outcome.need(&node.name, &node.api) else {
            return;
        };
        let mend = "see routes, security groups and firewalls between the node and the API's address";
        match (&api.error, api.connect_ms) {
            (Some(error), _) => outcome.find(
                Severity::Error,
                &node.name,
                format!("{}: {error}", api.server),
                mend,
            ),
            (None, Some(took)) if took >= CONNECT_SLOW_MS => {
                outcome.find(
                    Severity::Warning,
                    &node.name,
                    format!("{} took {took} ms to connect", api.server),
                    mend,
                );
            }
            _ => {}
        }
        if let Some(agent) = node.agent.known()
            && api.error.is_none()
            && !agent.api_connected
        {
            outcome.find(
                Severity::Error,
                &node.name,
                format!(
                    "{} can be reached, but the agent's watches do not run",
                    agent.api_server
                ),
                "see the agent's service account and its role; `thalweg status` has the last error",
            );
        }
    });
}

fn stuck(facts: &Facts, outcome: &mut Outcome) {
    each_node(facts, |node| {
        let Some(agent) = outcome.need(&node.name, &node.agent) else {
            return;
        };
        for pod in &agent.stuck {
            outcome.find(
                Severity::Error,
                &node.name,
                format!("{}: {}", pod.pod, pod.reason),
                format!("thalweg endpoint get {}", pod.pod),
            );
        }
        let tables = agent
            .tables_in_error
            .iter()
            .map(|(table, rows)| format!("{rows} rows of {table}"));
        let tables: Vec<String> = tables.collect();
        if !tables.is_empty() {
            outcome.find(
                Severity::Error,
                &node.name,
                format!("in error: {}", some_of(tables)),
                format!("thalweg status --node {}", node.name),
            );
        }
    });
    let Some(pods) = outcome.need("cluster", &facts.cluster.pods) else {
        return;
    };
    let starting = pods.iter().filter(|pod| {
        !pod.node.is_empty() && pod.waiting == "ContainerCreating" && pod.age_seconds > STARTING_MAX
    });
    for pod in starting {
        outcome.find(
            Severity::Error,
            &pod.node,
            format!(
                "{}/{} has been in ContainerCreating for {} s {}",
                pod.namespace, pod.name, pod.age_seconds, pod.message
            )
            .trim_end()
            .to_owned(),
            format!(
                "kubectl -n {} describe pod {}; thalweg status --node {}",
                pod.namespace, pod.name, pod.node
            ),
        );
    }
}
