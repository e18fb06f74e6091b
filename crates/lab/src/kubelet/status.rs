// SPDX-License-Identifier: Apache-2.0
//! The status of a pod, from what its containers do: pure.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Conditions that a kubelet writes; all others belong to others.
const OWN_CONDITIONS: [&str; 5] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
];

/// What is known of a pod on its node.
#[derive(Debug, Clone, Default)]
pub(super) struct View {
    /// Whether namespaces and network are there.
    pub(super) sandbox: bool,
    /// The node's addresses.
    pub(super) host_ips: Vec<IpAddr>,
    /// The pod's addresses.
    pub(super) pod_ips: Vec<IpAddr>,
    /// Init containers, in order.
    pub(super) init: Vec<ContainerStatus>,
    /// Names of init containers that run on beside the others.
    pub(super) sidecars: Vec<String>,
    /// The other containers.
    pub(super) containers: Vec<ContainerStatus>,
}

/// The pod's status. Times of conditions that stay as they are stay, too.
pub(super) fn status(pod: &Pod, view: &View, now: &Time) -> PodStatus {
    let before = pod.status.clone().unwrap_or_default();
    let phase = phase(pod, view);
    let own = conditions(pod, view, &phase);
    let known = before.conditions.unwrap_or_default();
    let mut conditions: Vec<PodCondition> = own.into_iter().map(|c| dated(c, &known, now)).collect();
    conditions.extend(
        known
            .into_iter()
            .filter(|c| !OWN_CONDITIONS.contains(&c.type_.as_str())),
    );
    // A pod that is over keeps its addresses for the record.
    let kept = || before.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect();
    let ips: Vec<String> = if view.pod_ips.is_empty() && is_over(&phase) {
        kept()
    } else {
        view.pod_ips.iter().map(ToString::to_string).collect()
    };
    PodStatus {
        phase: Some(phase),
        conditions: Some(conditions),
        host_ip: view.host_ips.first().map(ToString::to_string),
        host_ips: some(
            view.host_ips
                .iter()
                .map(|ip| HostIP { ip: ip.to_string() })
                .collect(),
        ),
        pod_ip: ips.first().cloned(),
        pod_ips: some(ips.into_iter().map(|ip| PodIP { ip }).collect()),
        start_time: before.start_time.or_else(|| Some(now.clone())),
        init_container_statuses: some(view.init.clone()),
        container_statuses: some(view.containers.clone()),
        ..PodStatus::default()
    }
}

/// Whether a pod in that phase is done for good.
pub(super) fn is_over(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn phase(pod: &Pod, view: &View) -> String {
    let before = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.clone())
        .unwrap_or_default();
    if is_over(&before) {
        return before;
    }
    let policy = restart_policy(pod);
    if policy == "Never"
        && view
            .init
            .iter()
            .any(|c| !is_sidecar(view, c) && exit_code(c).is_some_and(|code| code != 0))
    {
        return "Failed".into();
    }
    let waiting = |c: &ContainerStatus| {
        state(c).waiting.is_some() && c.last_state.as_ref().is_none_or(|l| l.terminated.is_none())
    };
    if !initialized(view) || view.containers.is_empty() || view.containers.iter().any(waiting) {
        return "Pending".into();
    }
    let codes: Option<Vec<i32>> = view.containers.iter().map(exit_code).collect();
    match (codes, policy) {
        (None, _) | (_, "Always") => "Running".into(),
        (Some(codes), _) if codes.iter().all(|code| *code == 0) => "Succeeded".into(),
        (Some(_), "Never") => "Failed".into(),
        (Some(_), _) => "Running".into(),
    }
}

/// The pod's restart policy.
pub(super) fn restart_policy(pod: &Pod) -> &str {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.restart_policy.as_deref())
        .unwrap_or("Always")
}

fn state(container: &ContainerStatus) -> ContainerState {
    container.state.clone().unwrap_or_default()
}

fn exit_code(container: &ContainerStatus) -> Option<i32> {
    state(container).terminated.map(|terminated| terminated.exit_code)
}

fn is_sidecar(view: &View, container: &ContainerStatus) -> bool {
    view.sidecars.contains(&container.name)
}

fn initialized(view: &View) -> bool {
    view.init.iter().all(|c| {
        let started = c.started == Some(true);
        if is_sidecar(view, c) {
            started
        } else {
            exit_code(c) == Some(0)
        }
    })
}

fn conditions(pod: &Pod, view: &View, phase: &str) -> Vec<PodCondition> {
    let initialized = initialized(view);
    let sidecars = view.init.iter().filter(|c| is_sidecar(view, c));
    let unready: Vec<&str> = sidecars
        .chain(&view.containers)
        .filter(|c| !c.ready)
        .map(|c| c.name.as_str())
        .collect();
    let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_ref());
    let is_true = |kind: &str| {
        let known = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        known
            .into_iter()
            .flatten()
            .any(|c| c.type_ == kind && c.status == "True")
    };
    let closed = gates
        .into_iter()
        .flatten()
        .find(|gate| !is_true(&gate.condition_type));
    let why_unready = if phase == "Succeeded" {
        Some(("PodCompleted", String::new()))
    } else if unready.is_empty() && phase != "Failed" {
        None
    } else {
        Some((
            "ContainersNotReady",
            format!("containers with unready status: [{}]", unready.join(" ")),
        ))
    };
    let gate = closed.map(|gate| {
        (
            "ReadinessGatesNotReady",
            format!(
                "corresponding condition of pod readiness gate {:?} is not true",
                gate.condition_type
            ),
        )
    });
    let init = (!initialized && phase != "Succeeded").then(|| {
        (
            "ContainersNotInitialized",
            "containers with incomplete status".to_owned(),
        )
    });
    vec![
        condition(
            "PodReadyToStartContainers",
            (!view.sandbox).then_some(("", String::new())),
        ),
        condition("Initialized", init),
        condition("Ready", why_unready.clone().or(gate)),
        condition("ContainersReady", why_unready),
        condition("PodScheduled", None),
    ]
}

/// True, unless there is a reason why not.
fn condition(kind: &str, why_not: Option<(&str, String)>) -> PodCondition {
    let (status, reason, message) = match why_not {
        None => ("True", None, None),
        Some((reason, message)) => ("False", Some(reason.to_owned()), Some(message)),
    };
    PodCondition {
        type_: kind.into(),
        status: status.into(),
        reason: reason.filter(|text| !text.is_empty()),
        message: message.filter(|text| !text.is_empty()),
        ..PodCondition::default()
    }
}

fn dated(condition: PodCondition, known: &[PodCondition], now: &Time) -> PodCondition {
    let same = known
        .iter()
        .find(|c| c.type_ == condition.type_ && c.status == condition.status);
    let since = same
        .and_then(|c| c.last_transition_time.clone())
        .unwrap_or_else(|| now.clone());
    PodCondition {
        last_transition_time: Some(since),
        ..condition
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value, status: Value) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": "p" }, "spec": spec, "status": status }))
            .unwrap()
    }

    fn plain(policy: &str) -> Pod {
        pod(json!({ "restartPolicy": policy, "containers": [] }), json!({}))
    }

    fn container(name: &str, state: Value, ready: bool) -> ContainerStatus {
        serde_json::from_value(
            json!({ "name": name, "state": state, "ready": ready, "started": ready,
            "restartCount": 0, "image": "", "imageID": "" }),
        )
        .unwrap()
    }

    fn running(ready: bool) -> ContainerStatus {
        container("c", json!({ "running": {} }), ready)
    }

    fn ended(code: i32) -> ContainerStatus {
        container("c", json!({ "terminated": { "exitCode": code } }), false)
    }

    fn waiting() -> ContainerStatus {
        container(
            "c",
            json!({ "waiting": { "reason": "ContainerCreating" } }),
            false,
        )
    }

    fn view(containers: Vec<ContainerStatus>) -> View {
        let ip = "10.0.0.9".parse().unwrap();
        View {
            sandbox: true,
            host_ips: vec![ip],
            pod_ips: vec![ip],
            containers,
            ..View::default()
        }
    }

    fn at(second: i64) -> Time {
        Time(k8s_openapi::jiff::Timestamp::from_second(second).unwrap())
    }

    fn phase_of(policy: &str, containers: Vec<ContainerStatus>) -> String {
        status(&plain(policy), &view(containers), &at(0)).phase.unwrap()
    }

    fn is(status: &PodStatus, kind: &str) -> bool {
        status
            .conditions
            .iter()
            .flatten()
            .any(|c| c.type_ == kind && c.status == "True")
    }

    #[test]
    fn the_phase_follows_containers_and_restart_policy() {
        assert_eq!(phase_of("Always", vec![waiting()]), "Pending");
        assert_eq!(phase_of("Always", vec![running(true)]), "Running");
        assert_eq!(phase_of("Always", vec![ended(0)]), "Running");
        assert_eq!(phase_of("OnFailure", vec![ended(0), ended(0)]), "Succeeded");
        assert_eq!(phase_of("OnFailure", vec![ended(0), ended(1)]), "Running");
        assert_eq!(phase_of("Never", vec![ended(0), ended(1)]), "Failed");
        assert_eq!(phase_of("Never", vec![ended(1), running(true)]), "Running");
    }

    #[test]
    fn a_failed_init_container_fails_a_pod_that_is_never_restarted() {
        let mut view = view(vec![waiting()]);
        view.init = vec![ended(3)];
        assert_eq!(status(&plain("Never"), &view, &at(0)).phase.unwrap(), "Failed");
        assert_eq!(status(&plain("Always"), &view, &at(0)).phase.unwrap(), "Pending");
    }

    #[test]
    fn ready_needs_all_containers_and_gates() {
        let ready = status(&plain("Always"), &view(vec![running(true)]), &at(0));
        assert!(
            is(&ready, "Ready") && is(&ready, "ContainersReady") && is(&ready, "PodReadyToStartContainers")
        );
        let unready = status(
            &plain("Always"),
            &view(vec![running(true), running(false)]),
            &at(0),
        );
        assert!(!is(&unready, "Ready") && is(&unready, "Initialized"));
        let gated = pod(
            json!({ "containers": [], "readinessGates": [{ "conditionType": "g" }] }),
            json!({}),
        );
        let gated = status(&gated, &view(vec![running(true)]), &at(0));
        assert!(!is(&gated, "Ready") && is(&gated, "ContainersReady"));
    }

    #[test]
    fn times_change_with_the_status_of_a_condition_only_and_foreign_conditions_stay() {
        let first = status(&plain("Always"), &view(vec![running(true)]), &at(1));
        let mut pod = plain("Always");
        pod.status = Some(first);
        let foreign = PodCondition {
            type_: "x/y".into(),
            status: "True".into(),
            ..PodCondition::default()
        };
        pod.status
            .as_mut()
            .unwrap()
            .conditions
            .as_mut()
            .unwrap()
            .push(foreign);
        let second = status(&pod, &view(vec![running(false)]), &at(2));
        let time = |kind: &str| {
            let of = second
                .conditions
                .iter()
                .flatten()
                .find(|c| c.type_ == kind)
                .unwrap();
            of.last_transition_time.clone()
        };
        assert_eq!((time("Initialized"), time("Ready")), (Some(at(1)), Some(at(2))));
        assert!(is(&second, "x/y"));
    }

    #[test]
    fn a_finished_pod_keeps_phase_and_address() {
        let done = json!({ "phase": "Succeeded", "podIPs": [{ "ip": "10.0.0.7" }] });
        let pod = pod(json!({ "containers": [] }), done);
        let status = status(&pod, &View::default(), &at(0));
        assert_eq!(
            (status.phase.as_deref(), status.pod_ip.as_deref()),
            (Some("Succeeded"), Some("10.0.0.7"))
        );
    }
}
