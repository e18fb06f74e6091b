// SPDX-License-Identifier: Apache-2.0
//! Who reaches whom: pods and hosts, on one node and across nodes, by both families and over both underlays.

use lab::Spec;
use lab::spec::{Families, Topology};
use tests_netns::{addresses, assert_pings, assert_tcp, drops, run, said, start};
use thalweg_tests_netns as tests_netns;

#[test]
fn everybody_reaches_everybody_on_one_segment() {
    everybody("flat", |_| (), 2);
}

#[test]
fn everybody_reaches_everybody_behind_a_router() {
    everybody("routed", |spec| spec.topology = Topology::Routed, 2);
}

#[test]
fn everybody_reaches_everybody_with_ipv4_alone() {
    everybody("v4", |spec| spec.family = Families::Ipv4, 1);
}

#[test]
fn everybody_reaches_everybody_with_ipv6_alone_behind_a_router() {
    let edit = |spec: &mut Spec| (spec.family, spec.topology) = (Families::Ipv6, Topology::Routed);
    everybody("v6", edit, 1);
}

#[test]
fn traceroute_from_a_pod_shows_its_node() {
    let Some(lab) = start("trace-pod", |_| ()) else {
        return;
    };
    let node = lab.node("node-1").unwrap();
    for ip in lab.pod_ips("pod-2-1").unwrap() {
        let output = run(
            &lab,
            "pod-1-1",
            &[
                "traceroute",
                "-n",
                "-q",
                "1",
                "-m",
                "5",
                "-w",
                "2",
                &ip.to_string(),
            ],
        );
        let text = said(&output);
        let hops: Vec<&str> = text
            .lines()
            .skip(1)
            .filter_map(|line| line.split_whitespace().nth(1))
            .collect();
        assert_eq!(hops.last(), Some(&ip.to_string().as_str()), "{text}");
        assert!(
            hops.iter()
                .any(|hop| node.addresses.iter().any(|address| address.to_string() == *hop)),
            "{text}"
        );
    }
}

#[test]
fn a_spoofed_source_is_dropped_and_counted() {
    let Some(lab) = start("spoof", |_| ()) else { return };
    for (prefix, victim) in [("32", 0), ("128", 1)] {
        let foreign = lab.pod_ips("pod-1-2").unwrap()[victim];
        let target = lab.pod_ips("pod-2-1").unwrap()[victim];
        let add = [
            "ip",
            "address",
            "add",
            &format!("{foreign}/{prefix}"),
            "dev",
            "eth0",
            "nodad",
        ];
        // IPv4 has no duplicate address detection to switch off.
        let add = if foreign.is_ipv4() { &add[..6] } else { &add[..] };
        let added = run(&lab, "pod-1-1", add);
        assert!(added.status.success(), "{}", said(&added));
        let before = drops(&lab, "node-1", "INVALID_SOURCE_IP");
        let ping = [
            "ping",
            "-n",
            "-c",
            "3",
            "-i",
            "0.05",
            "-W",
            "1",
            "-I",
            &foreign.to_string(),
            &target.to_string(),
        ];
        let ping = run(&lab, "pod-1-1", &ping);
        assert!(said(&ping).contains("100% packet loss"), "{}", said(&ping));
        assert!(drops(&lab, "node-1", "INVALID_SOURCE_IP") >= before + 3);
    }
}

/// Pings and TCP between all kinds of places, by every address.
fn everybody(test: &str, edit: impl FnOnce(&mut Spec), families: usize) {
    let Some(lab) = start(test, edit) else { return };
    for (from, to) in [
        ("pod-1-1", "pod-1-2"),
        ("pod-1-1", "pod-2-1"),
        ("pod-1-1", "node-1"),
        ("pod-1-1", "node-2"),
        ("node-1", "pod-1-1"),
        ("node-1", "pod-2-1"),
        ("pod-1-1", "pod-1-1"),
    ] {
        let addresses = addresses(&lab, to);
        assert_eq!(addresses.len(), families, "{to}");
        for address in addresses {
            assert_pings(&lab, from, address);
            assert_tcp(&lab, from, to, address);
        }
    }
    let api = lab.api_addresses();
    assert_eq!(api.len(), families);
    for address in api {
        assert_pings(&lab, "pod-1-1", address);
    }
}
