// SPDX-License-Identifier: Apache-2.0
//! Pods and what makes them.

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::{Printer, age, containers, number, or, selector, since, text};
use crate::time;
use crate::value::Json;

pub(super) const PODS: Printer = Printer {
    columns: &[
        ("Ready", false),
        ("Status", false),
        ("Restarts", false),
        ("Age", false),
        ("IP", true),
        ("Node", true),
        ("Nominated Node", true),
        ("Readiness Gates", true),
    ],
    cells: pod,
};

fn pod(pod: &Value, now: Timestamp) -> Vec<Value> {
    let statuses = pod.list_at("/status/containerStatuses");
    let ready = statuses.iter().filter(|s| s["ready"] == true).count();
    let restarts: i64 = statuses.iter().map(|s| number(s, "/restartCount")).sum();
    let last = statuses
        .iter()
        .map(|s| s.str_at("/lastState/terminated/finishedAt"))
        .max()
        .unwrap_or_default();
    let restarts = if restarts > 0 && !last.is_empty() {
        format!("{restarts} ({} ago)", time::age(last, now))
    } else {
        restarts.to_string()
    };
    let ip = pod
        .list_at("/status/podIPs")
        .first()
        .map_or_else(|| pod.str_at("/status/podIP"), |i| i.str_at("/ip"));
    vec![
        format!("{ready}/{}", pod.list_at("/spec/containers").len()).into(),
        pod_status(pod).into(),
        restarts.into(),
        age(pod, now),
        or(ip, "<none>"),
        text(pod, "/spec/nodeName"),
        text(pod, "/status/nominatedNodeName"),
        readiness_gates(pod),
    ]
}

fn readiness_gates(pod: &Value) -> Value {
    let gates = pod.list_at("/spec/readinessGates");
    if gates.is_empty() {
        return "<none>".into();
    }
    let conditions = pod.list_at("/status/conditions");
    let passed = |gate: &&Value| {
        conditions
            .iter()
            .any(|c| c["type"] == gate["conditionType"] && c["status"] == "True")
    };
    format!("{}/{}", gates.iter().filter(passed).count(), gates.len()).into()
}

/// The STATUS of a pod: the reason that says most.
fn pod_status(pod: &Value) -> String {
    let mut reason = or(pod.str_at("/status/reason"), pod.str_at("/status/phase"));
    if pod
        .list_at("/status/conditions")
        .iter()
        .any(|c| c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated")
    {
        reason = "SchedulingGated".into();
    }
    let mut initializing = false;
    let inits = pod.list_at("/status/initContainerStatuses");
    for (i, status) in inits.iter().enumerate() {
        if status.at("/state/terminated/exitCode") == &Value::from(0) {
            continue;
        }
        let why = [
            status.str_at("/state/terminated/reason"),
            status.str_at("/state/waiting/reason"),
        ]
        .concat();
        reason = match why.as_str() {
            "" | "PodInitializing" => {
                format!("Init:{i}/{}", pod.list_at("/spec/initContainers").len()).into()
            }
            why => format!("Init:{why}").into(),
        };
        initializing = true;
        break;
    }
    if !initializing {
        let mut running = false;
        for status in pod.list_at("/status/containerStatuses").iter().rev() {
            let waiting = status.str_at("/state/waiting/reason");
            let terminated = status.at("/state/terminated");
            if !waiting.is_empty() {
                reason = waiting.into();
            } else if !terminated.str_at("/reason").is_empty() {
                reason = terminated.str_at("/reason").into();
            } else if terminated.is_object() {
                reason = match number(terminated, "/signal") {
                    0 => format!("ExitCode:{}", number(terminated, "/exitCode")).into(),
                    signal => format!("Signal:{signal}").into(),
                };
            } else if status["ready"] == true && status.at("/state/running").is_object() {
                running = true;
            }
        }
        if reason == "Completed" && running {
            let ready = pod
                .list_at("/status/conditions")
                .iter()
                .any(|c| c["type"] == "Ready" && c["status"] == "True");
            reason = if ready {
                "Running".into()
            } else {
                "NotReady".into()
            };
        }
    }
    if pod.deleting() && pod.str_at("/status/reason") == "NodeLost" {
        return "Unknown".into();
    }
    if pod.deleting() && !matches!(pod.str_at("/status/phase"), "Succeeded" | "Failed") {
        return "Terminating".into();
    }
    reason.as_str().unwrap_or_default().to_owned()
}

pub(super) const DEPLOYMENTS: Printer = Printer {
    columns: &[
        ("Ready", false),
        ("Up-to-date", false),
        ("Available", false),
        ("Age", false),
        ("Containers", true),
        ("Images", true),
        ("Selector", true),
    ],
    cells: |d, now| {
        let [names, images] = containers(d.at("/spec/template/spec"));
        vec![
            format!(
                "{}/{}",
                number(d, "/status/readyReplicas"),
                number(d, "/spec/replicas")
            )
            .into(),
            number(d, "/status/updatedReplicas").into(),
            number(d, "/status/availableReplicas").into(),
            age(d, now),
            names,
            images,
            selector(d.at("/spec/selector")),
        ]
    },
};

pub(super) const REPLICA_SETS: Printer = Printer {
    columns: &[
        ("Desired", false),
        ("Current", false),
        ("Ready", false),
        ("Age", false),
        ("Containers", true),
        ("Images", true),
        ("Selector", true),
    ],
    cells: |r, now| {
        let [names, images] = containers(r.at("/spec/template/spec"));
        vec![
            number(r, "/spec/replicas").into(),
            number(r, "/status/replicas").into(),
            number(r, "/status/readyReplicas").into(),
            age(r, now),
            names,
            images,
            selector(r.at("/spec/selector")),
        ]
    },
};

pub(super) const DAEMON_SETS: Printer = Printer {
    columns: &[
        ("Desired", false),
        ("Current", false),
        ("Ready", false),
        ("Up-to-date", false),
        ("Available", false),
        ("Node Selector", false),
        ("Age", false),
        ("Containers", true),
        ("Images", true),
        ("Selector", true),
    ],
    cells: |d, now| {
        let [names, images] = containers(d.at("/spec/template/spec"));
        vec![
            number(d, "/status/desiredNumberScheduled").into(),
            number(d, "/status/currentNumberScheduled").into(),
            number(d, "/status/numberReady").into(),
            number(d, "/status/updatedNumberScheduled").into(),
            number(d, "/status/numberAvailable").into(),
            super::labels(d.at("/spec/template/spec/nodeSelector")),
            age(d, now),
            names,
            images,
            selector(d.at("/spec/selector")),
        ]
    },
};

pub(super) const STATEFUL_SETS: Printer = Printer {
    columns: &[
        ("Ready", false),
        ("Age", false),
        ("Containers", true),
        ("Images", true),
    ],
    cells: |s, now| {
        let [names, images] = containers(s.at("/spec/template/spec"));
        let ready = format!(
            "{}/{}",
            number(s, "/status/readyReplicas"),
            number(s, "/spec/replicas")
        );
        vec![ready.into(), age(s, now), names, images]
    },
};

pub(super) const JOBS: Printer = Printer {
    columns: &[
        ("Status", false),
        ("Completions", false),
        ("Duration", false),
        ("Age", false),
        ("Containers", true),
        ("Images", true),
        ("Selector", true),
    ],
    cells: |j, now| {
        let [names, images] = containers(j.at("/spec/template/spec"));
        let condition = |kind: &str| {
            j.list_at("/status/conditions")
                .iter()
                .any(|c| c["type"] == kind && c["status"] == "True")
        };
        let status = match () {
            () if condition("Complete") => "Complete",
            () if condition("Failed") => "Failed",
            () if j.deleting() => "Terminating",
            () if condition("Suspended") => "Suspended",
            () => "Running",
        };
        let duration = match (j.at("/status/startTime"), j.at("/status/completionTime").as_str()) {
            (Value::Null, _) => "".into(),
            (start, Some(end)) => end
                .parse()
                .map_or_else(|_| "<unknown>".into(), |end| since(start, end)),
            (start, None) => since(start, now),
        };
        let completions = format!(
            "{}/{}",
            number(j, "/status/succeeded"),
            number(j, "/spec/completions")
        );
        vec![
            status.into(),
            completions.into(),
            duration,
            age(j, now),
            names,
            images,
            selector(j.at("/spec/selector")),
        ]
    },
};
