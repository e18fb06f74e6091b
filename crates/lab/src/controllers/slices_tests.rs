// SPDX-License-Identifier: Apache-2.0
use super::*;
use serde_json::{Value, json};

fn service(spec: Value) -> Service {
    serde_json::from_value(json!({
        "metadata": { "name": "web", "namespace": "default", "uid": "svc" }, "spec": spec,
    }))
    .unwrap()
}

fn web() -> Service {
    service(json!({
        "selector": { "app": "web" }, "clusterIP": "10.96.0.9", "ipFamilies": ["IPv4", "IPv6"],
        "ports": [{ "name": "http", "port": 80, "targetPort": "http" }],
    }))
}

fn pod(n: usize, ready: bool) -> Arc<Pod> {
    Arc::new(
        serde_json::from_value(json!({
            "metadata": { "name": format!("web-{n}"), "namespace": "default", "uid": format!("pod-{n}"),
                "labels": { "app": "web" } },
            "spec": { "nodeName": "node-1", "containers": [
                { "name": "c", "ports": [{ "name": "http", "containerPort": 8080 }] }] },
            "status": { "phase": "Running", "podIP": format!("10.0.{}.{}", n / 250, n % 250),
                "podIPs": [{ "ip": format!("10.0.{}.{}", n / 250, n % 250) }, { "ip": format!("fd00::{n:x}") }],
                "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }] },
        }))
        .unwrap(),
    )
}

fn zones() -> Zones {
    Zones::from([("node-1".into(), "east".into())])
}

fn conditions(endpoint: &Endpoint) -> (bool, bool, bool) {
    let c = endpoint.conditions.clone().unwrap_or_default();
    (c.ready.unwrap(), c.serving.unwrap(), c.terminating.unwrap())
}

#[test]
fn a_dual_stack_service_has_one_slice_per_family_with_resolved_ports_and_zone() {
    let slices = desired(&web(), &[pod(1, true)], &zones(), &[]);
    let kinds: Vec<_> = slices
        .iter()
        .map(|s| (s.address_type.as_str(), s.endpoints[0].addresses[0].as_str()))
        .collect();
    assert_eq!(kinds, [("IPv4", "10.0.0.1"), ("IPv6", "fd00::1")]);
    assert_eq!(slices[0].ports.as_ref().unwrap()[0].port, Some(8080));
    assert_eq!(slices[0].endpoints[0].zone.as_deref(), Some("east"));
    assert_eq!(slices[0].labels()[SERVICE_NAME_LABEL], "web");
}

#[test]
fn unready_and_terminating_pods_stay_with_their_conditions() {
    let mut leaving = pod(2, true).as_ref().clone();
    leaving.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    let slices = desired(&web(), &[pod(1, false), Arc::new(leaving)], &zones(), &[]);
    let seen: Vec<_> = slices[0].endpoints.iter().map(conditions).collect();
    assert_eq!(seen, [(false, false, false), (false, true, true)]);
}

#[test]
fn not_ready_addresses_are_published_when_asked_for() {
    let mut service = web();
    service.spec.as_mut().unwrap().publish_not_ready_addresses = Some(true);
    let slices = desired(&service, &[pod(1, false)], &zones(), &[]);
    assert_eq!(conditions(&slices[0].endpoints[0]), (true, false, false));
}

#[test]
fn finished_pods_and_pods_without_addresses_are_no_endpoints() {
    let mut done = pod(1, true).as_ref().clone();
    done.status.as_mut().unwrap().phase = Some("Succeeded".into());
    let mut young = pod(2, true).as_ref().clone();
    young.status = None;
    assert!(desired(&web(), &[Arc::new(done), Arc::new(young)], &zones(), &[]).is_empty());
}

#[test]
fn a_slice_holds_a_hundred_endpoints_and_one_more_pod_changes_one_slice() {
    let pods: Vec<_> = (0..150).map(|n| pod(n, true)).collect();
    let v4 = |slices: Vec<EndpointSlice>| -> Vec<Arc<EndpointSlice>> {
        slices
            .into_iter()
            .filter(|s| s.address_type == "IPv4")
            .map(Arc::new)
            .collect()
    };
    let before = v4(desired(&web(), &pods, &zones(), &[]));
    assert_eq!(
        before.iter().map(|s| s.endpoints.len()).collect::<Vec<_>>(),
        [100, 50]
    );

    let more: Vec<_> = std::iter::once(pod(200, true)).chain(pods).collect();
    let after = v4(desired(&web(), &more, &zones(), &before));
    assert_eq!(
        after.iter().map(|s| s.endpoints.len()).collect::<Vec<_>>(),
        [100, 51]
    );
    assert!(is_current(&before[0], &after[0]));
    assert!(!is_current(&before[1], &after[1]));
}

#[test]
fn a_named_port_that_differs_between_pods_makes_slices_apart() {
    let mut other = pod(2, true).as_ref().clone();
    other.spec.as_mut().unwrap().containers[0].ports.as_mut().unwrap()[0].container_port = 9090;
    let slices = desired(&web(), &[pod(1, true), Arc::new(other)], &zones(), &[]);
    let ports: Vec<_> = slices
        .iter()
        .map(|s| s.ports.as_ref().unwrap()[0].port.unwrap())
        .collect();
    assert_eq!(ports, [8080, 9090, 8080, 9090]);
}

#[test]
fn services_without_selector_are_left_to_others() {
    assert!(!is_selecting(&service(json!({ "ports": [{ "port": 80 }] }))));
    assert!(!is_selecting(&service(
        json!({ "type": "ExternalName", "selector": { "a": "b" } })
    )));
    assert!(is_selecting(&web()));
}
