// SPDX-License-Identifier: Apache-2.0
//! What of a Service and an EndpointSlice is kept.

use serde_json::{Value, json};

use super::*;

#[test]
fn a_service_keeps_what_packets_care_for() {
    let service = service(json!({
        "metadata": {
            "name": "web", "namespace": "shop", "uid": "u-1", "resourceVersion": "7",
            "creationTimestamp": "2026-01-01T00:00:10Z", "managedFields": [{"manager": "kubectl"}],
            "annotations": {"service.thalweg.io/lb-algorithm": "maglev"},
        },
        "spec": {
            "type": "LoadBalancer", "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10", "fd74:96::10"],
            "externalIPs": ["192.0.2.9"], "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
            "ports": [
                {"name": "http", "port": 80, "targetPort": "web", "nodePort": 30080, "protocol": "TCP"},
                {"name": "dns", "port": 53, "protocol": "UDP"},
            ],
            "internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local", "healthCheckNodePort": 32000,
            "trafficDistribution": "PreferSameNode", "loadBalancerSourceRanges": ["198.51.100.7/24 "],
            "publishNotReadyAddresses": true, "selector": {"app": "web"},
        },
        "status": {"loadBalancer": {"ingress": [
            {"ip": "203.0.113.1"}, {"hostname": "lb.example"}, {"ip": "203.0.113.2", "ipMode": "Proxy"},
        ]}},
    }))
    .unwrap();
    assert_eq!((service.name.as_str(), &*service.uid), ("shop/web", "u-1"));
    assert_eq!(service.created, 1_767_225_610);
    assert_eq!(texts(&service.cluster_ips), ["10.96.0.10", "fd74:96::10"]);
    let ports: Vec<_> = service
        .ports
        .iter()
        .map(|port| (&*port.name, port.port, port.node_port))
        .collect();
    assert_eq!(ports, [("http", 80, 30080), ("dns", 53, 0)]);
    assert_eq!(
        (
            service.affinity_seconds,
            service.internal_local,
            service.publish_not_ready
        ),
        (60, true, true)
    );
    assert_eq!(
        (service.distribution, service.algorithm),
        (Distribution::SameNode, Some(Algorithm::Maglev))
    );
    let exposure = service.exposure.as_ref().unwrap();
    assert_eq!(
        texts(&exposure.load_balancer_ips),
        ["203.0.113.1"],
        "a name and a proxy are not led here"
    );
    assert_eq!(texts(&exposure.external_ips), ["192.0.2.9"]);
    assert_eq!(texts(&exposure.source_ranges), ["198.51.100.0/24"]);
    assert_eq!((exposure.local, exposure.health_check_port), (true, 32000));
}

#[test]
fn services_without_an_address_have_nothing_for_packets() {
    for spec in [
        json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": [{"port": 80}]}),
        json!({"type": "ExternalName", "externalName": "a.example"}),
        json!({"type": "NodePort", "clusterIP": "", "ports": [{"port": 80, "nodePort": 30000}]}),
    ] {
        let service = service(json!({"metadata": {"name": "a", "namespace": "b"}, "spec": spec})).unwrap();
        assert!(service.cluster_ips.is_empty() && service.ports.is_empty());
    }
}

#[test]
fn a_cluster_ip_alone_is_what_most_have() {
    let object = json!({"metadata": {"name": "a", "namespace": "b"},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 443}], "sessionAffinity": "ClientIP"}});
    let service = service(object).unwrap();
    assert_eq!(texts(&service.cluster_ips), ["10.96.0.1"]);
    assert_eq!(
        (service.exposure.is_none(), service.affinity_seconds),
        (true, AFFINITY_SECONDS)
    );
    assert_eq!(service.ports[0].transport, Transport::Tcp);
}

#[test]
fn an_impossible_service_says_which_field_and_value() {
    let broken = |spec: Value| {
        let object = json!({"metadata": {"name": "a", "namespace": "b"}, "spec": spec});
        service(object).unwrap_err().to_string()
    };
    let port = |port: Value| broken(json!({"clusterIP": "10.96.0.1", "ports": [port]}));
    assert_eq!(
        port(json!({"port": 0})),
        "spec.ports.port is \"0\", which is not a port from 1 to 65535"
    );
    assert_eq!(
        port(json!({"port": 70000})),
        "spec.ports.port is \"70000\", which is not a port from 1 to 65535"
    );
    assert!(port(json!({"port": 1, "nodePort": -1})).starts_with("spec.ports.nodePort is"));
    assert!(port(json!({"port": 1, "protocol": "ICMP"})).contains("not TCP, UDP or SCTP"));
    assert!(broken(json!({"clusterIP": "ten"})).starts_with("spec.clusterIPs is \"ten\""));
    assert!(broken(json!({"ports": "all"})).starts_with("spec has an unexpected shape"));
    let ranges = json!({"type": "LoadBalancer", "clusterIP": "10.96.0.1", "loadBalancerSourceRanges": ["x"]});
    assert!(broken(ranges).starts_with("spec.loadBalancerSourceRanges is \"x\""));
}

#[test]
fn a_slice_keeps_who_serves_where_and_for_whom() {
    let mut names = Names::default();
    let object = json!({
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "any"}],
        "endpoints": [
            {"addresses": ["10.244.1.1", "10.244.1.9"], "conditions": {"ready": true}, "nodeName": "n1", "zone": "a",
             "hints": {"forZones": [{"name": "a"}], "forNodes": [{"name": "n1"}]}},
            {"addresses": ["10.244.1.2"], "conditions": {"ready": false, "serving": true, "terminating": true}},
            {"addresses": ["10.244.1.3"], "conditions": {"ready": false, "serving": false}, "nodeName": "n1"},
            {"addresses": ["10.244.1.4"]},
        ],
    });
    let slice = slice(object, &mut names).unwrap();
    assert_eq!(
        (slice.name.as_str(), slice.service.as_str()),
        ("shop/web-1", "shop/web")
    );
    assert_eq!(
        (slice.ports.len(), slice.ports[0].port),
        (1, 8080),
        "one without a number is for headless services"
    );
    let states: Vec<_> = slice.endpoints.iter().map(|one| one.state.name()).collect();
    assert_eq!(states, ["ready", "terminating", "not ready", "ready"]);
    let first = &slice.endpoints[0];
    assert_eq!(first.addr.to_string(), "10.244.1.1");
    let hints = first.hints.as_ref().unwrap();
    assert_eq!((&*hints.zones[0], &*hints.nodes[0]), ("a", "n1"));
    assert!(Arc::ptr_eq(
        first.node.as_ref().unwrap(),
        slice.endpoints[2].node.as_ref().unwrap()
    ));
}

#[test]
fn an_impossible_slice_says_which_field_and_value() {
    let broken = |labels: Value, kind: &str, endpoints: Value| {
        let object = json!({"metadata": {"name": "a", "namespace": "b", "labels": labels},
            "addressType": kind, "endpoints": endpoints});
        slice(object, &mut Names::default())
            .map(|slice| slice.endpoints.len())
            .map_err(|error| error.to_string())
    };
    let of_web = json!({"kubernetes.io/service-name": "web"});
    assert_eq!(
        broken(json!({}), "IPv4", json!([])),
        Err("it has no label kubernetes.io/service-name".into())
    );
    assert!(
        broken(of_web.clone(), "IPv4", json!([{"addresses": ["fd00::1"]}]))
            .unwrap_err()
            .contains("addressType")
    );
    assert!(broken(of_web.clone(), "IPv4", json!([{"addresses": []}])).is_err());
    assert_eq!(
        broken(of_web, "FQDN", json!([{"addresses": ["a.example"]}])),
        Ok(0)
    );
}

#[expect(
    clippy::unwrap_in_result,
    reason = "an object that is none is the test's mistake"
)]
fn service(object: Value) -> Result<Arc<Service>, ObjectError> {
    Parse::parse(serde_json::from_value(object).unwrap(), &mut Names::default())
}

#[expect(
    clippy::unwrap_in_result,
    reason = "an object that is none is the test's mistake"
)]
fn slice(object: Value, names: &mut Names) -> Result<Arc<EndpointSlice>, ObjectError> {
    Parse::parse(serde_json::from_value(object).unwrap(), names)
}

fn texts<T: ToString>(all: &[T]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}
