// SPDX-License-Identifier: Apache-2.0

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

#[test]
fn pods_of_this_node_are_local_and_the_host_speaks_with_its_own_address() {
    let nodes = [node(
        "a",
        &["172.30.0.11", "fd74:77::11"],
        &["10.244.0.0/24", "fd74:7710::/64"],
    )];
    assert_eq!(
        ways("a", &nodes),
        [
            Way::Local {
                source: Some("172.30.0.11".parse().unwrap())
            },
            Way::Local {
                source: Some("fd74:77::11".parse().unwrap())
            },
        ]
    );
}

#[test]
fn a_source_that_is_no_address_of_this_machine_is_left_to_the_kernel() {
    let nodes = [node("a", &["203.0.113.9"], &["10.244.0.0/24"])];
    assert_eq!(ways("a", &nodes), [Way::Local { source: None }]);
}

#[test]
fn a_node_on_the_same_segment_gets_a_direct_route_per_family() {
    let nodes = [node(
        "b",
        &["172.30.0.12", "fd74:77::12"],
        &["10.244.1.0/24", "fd74:7710:0:1::/64"],
    )];
    assert_eq!(ways("a", &nodes), [direct("172.30.0.12"), direct("fd74:77::12")]);
}

#[test]
fn a_node_behind_a_router_is_left_to_the_network() {
    let nodes = [node("b", &["172.30.9.12"], &["10.244.1.0/24"])];
    assert_eq!(ways("a", &nodes), [Way::Network]);
}

#[test]
fn a_node_without_an_address_of_the_family_is_left_to_the_network() {
    let nodes = [node("b", &["172.30.0.12"], &["fd74:7710:0:1::/64"])];
    assert_eq!(ways("a", &nodes), [Way::Network]);
}

#[test]
fn no_direct_routes_when_they_are_switched_off() {
    let nodes = [node("b", &["172.30.0.12"], &["10.244.1.0/24"])];
    let rows = plan(
        &Input {
            own_name: "a",
            devices: &devices(),
            mode: Mode::Native { direct: false },
        },
        nodes.iter(),
    );
    assert_eq!(rows[0].way, Way::Network);
}

#[test]
fn the_second_address_serves_when_only_it_is_on_the_segment() {
    let nodes = [node("b", &["192.0.2.1", "172.30.0.12"], &["10.244.1.0/24"])];
    assert_eq!(ways("a", &nodes), [direct("172.30.0.12")]);
}

#[test]
fn the_narrowest_segment_wins() {
    let mut devices = devices();
    devices.push(device(3, "eth1", &["172.30.0.129/25"]));
    let nodes = [node("b", &["172.30.0.200"], &["10.244.1.0/24"])];
    let rows = plan(
        &Input {
            own_name: "a",
            devices: &devices,
            mode: Mode::Native { direct: true },
        },
        nodes.iter(),
    );
    assert!(
        matches!(&rows[0].way, Way::Direct { device: 3, .. }),
        "{:?}",
        rows[0]
    );
}

#[test]
fn a_host_address_without_a_subnet_is_no_segment() {
    let devices = [device(2, "eth0", &["172.30.0.11/32"])];
    let nodes = [node("b", &["172.30.0.11"], &["10.244.1.0/24"])];
    let rows = plan(
        &Input {
            own_name: "a",
            devices: &devices,
            mode: Mode::Native { direct: true },
        },
        nodes.iter(),
    );
    assert_eq!(rows[0].way, Way::Network);
}

#[test]
fn where_nodes_overlap_this_one_wins_then_the_first_by_name() {
    let nodes = [
        node("a", &["172.30.0.10"], &["10.244.0.0/16"]),
        node("b", &["172.30.0.11"], &["10.244.1.0/24"]),
        node("c", &["172.30.0.12"], &["10.244.2.0/24", "10.245.0.0/24"]),
        node("d", &["172.30.0.13"], &["10.245.0.0/24"]),
    ];
    let refused = |node: &str, network: &str| {
        Way::Refused(Refusal::OverlapsNode {
            node: node.to_owned(),
            network: network.parse().unwrap(),
        })
    };
    assert_eq!(
        ways("b", &nodes),
        [
            refused("b", "10.244.1.0/24"),
            Way::Local {
                source: Some("172.30.0.11".parse().unwrap())
            },
            direct("172.30.0.12"),
            direct("172.30.0.12"),
            refused("c", "10.245.0.0/24"),
        ]
    );
}

#[test]
fn a_pod_network_that_overlaps_the_underlay_is_refused_and_both_are_named() {
    let nodes = [node("a", &[], &["172.30.0.0/26"])];
    let rows = plan(
        &Input {
            own_name: "a",
            devices: &devices(),
            mode: Mode::Native { direct: true },
        },
        nodes.iter(),
    );
    let Way::Refused(refusal) = &rows[0].way else {
        panic!("{rows:?}")
    };
    assert_eq!(
        refusal.to_string(),
        "overlaps 172.30.0.0/24 on device eth0; choose another cluster CIDR or renumber the device"
    );
}

#[test]
fn a_pod_network_with_a_nodes_address_inside_is_refused() {
    let nodes = [
        node("a", &["172.30.0.11"], &["10.0.0.0/24"]),
        node("b", &["10.0.0.7"], &["10.244.1.0/24"]),
    ];
    assert_eq!(
        ways("a", &nodes)[0],
        Way::Refused(Refusal::ContainsNode {
            node: "b".to_owned(),
            address: "10.0.0.7".parse().unwrap()
        })
    );
}

proptest! {
    #[test]
    fn every_pod_network_gets_exactly_one_verdict_in_order(nodes in nodes()) {
        let rows = plan_for("n1", &nodes);
        let expected: Vec<_> =
            nodes.iter().flat_map(|node| node.pod_cidrs.iter().map(|net| (node.name.clone(), *net))).collect();
        let got: Vec<_> = rows.iter().map(|row| (row.node.clone(), row.destination)).collect();
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn routes_never_overlap_each_other_nor_a_node(nodes in nodes()) {
        let rows = plan_for("n1", &nodes);
        let routes: Vec<_> = rows.iter().filter(|row| !matches!(row.way, Way::Refused(_))).collect();
        for (i, one) in routes.iter().enumerate() {
            for other in &routes[..i] {
                let (one, other) = (one.destination, other.destination);
                prop_assert!(!one.contains(&other) && !other.contains(&one), "{} {}", one, other);
            }
            for addr in nodes.iter().flat_map(|node| &node.addresses) {
                prop_assert!(!one.destination.contains(addr));
            }
        }
    }

    #[test]
    fn a_gateway_is_an_address_of_the_node_on_the_devices_segment(nodes in nodes()) {
        for row in plan_for("n1", &nodes) {
            if let Way::Direct { gateway, device, .. } = row.way {
                let node = nodes.iter().find(|node| node.name == row.node).unwrap();
                prop_assert!(node.addresses.contains(&gateway));
                prop_assert_eq!(Family::of(&gateway), Family::of_net(&row.destination));
                let devices = devices();
                let device = devices.iter().find(|candidate| candidate.index == device).unwrap();
                prop_assert!(device.addresses.iter().any(|net| net.contains(&gateway)));
            }
        }
    }

    #[test]
    fn nobody_but_the_own_node_is_local(nodes in nodes()) {
        for row in plan_for("n1", &nodes) {
            let (own, local) = (row.node == "n1", matches!(row.way, Way::Local { .. }));
            prop_assert_eq!(local, own && !matches!(row.way, Way::Refused(_)));
        }
    }
}

fn nodes() -> impl Strategy<Value = Vec<Node>> {
    let v4 = (0u8..4, any::<u8>()).prop_map(|(net, host)| IpAddr::V4(Ipv4Addr::new(172, 30, net, host)));
    let v6 = any::<u8>().prop_map(|host| IpAddr::V6(Ipv6Addr::new(0xfd74, 0x77, 0, 0, 0, 0, 0, host.into())));
    let cidr4 = (0u8..4, any::<u8>(), 14u8..=30).prop_map(|(a, b, len)| {
        IpNet::new(IpAddr::V4(Ipv4Addr::new(10, 244 + a, b, 0)), len)
            .unwrap()
            .trunc()
    });
    let near = (0u8..6, 22u8..=28).prop_map(|(net, len)| {
        IpNet::new(IpAddr::V4(Ipv4Addr::new(172, 30, net, 0)), len)
            .unwrap()
            .trunc()
    });
    let cidr6 = (0u16..8, 60u8..=64).prop_map(|(net, len)| {
        IpNet::new(IpAddr::V6(Ipv6Addr::new(0xfd74, 0x7710, 0, net, 0, 0, 0, 0)), len)
            .unwrap()
            .trunc()
    });
    let addresses = prop::collection::vec(prop_oneof![v4, v6], 0..3);
    let cidrs = prop::collection::vec(prop_oneof![4 => cidr4, 1 => near, 2 => cidr6], 0..3);
    prop::collection::vec((addresses, cidrs), 1..12).prop_map(|nodes| {
        let name = |i: usize| format!("n{i}");
        let node = |(i, (addresses, pod_cidrs))| Node {
            name: name(i),
            addresses,
            pod_cidrs,
            zone: None,
        };
        nodes.into_iter().enumerate().map(node).collect()
    })
}

fn plan_for(own_name: &str, nodes: &[Node]) -> Vec<Row> {
    plan(
        &Input {
            own_name,
            devices: &devices(),
            mode: Mode::Native { direct: true },
        },
        nodes.iter(),
    )
}

fn ways(own_name: &str, nodes: &[Node]) -> Vec<Way> {
    plan_for(own_name, nodes).into_iter().map(|row| row.way).collect()
}

fn direct(gateway: &str) -> Way {
    Way::Direct {
        gateway: gateway.parse().unwrap(),
        device: 2,
        device_name: "eth0".to_owned(),
    }
}

fn devices() -> Vec<Device> {
    vec![
        device(1, "lo", &["127.0.0.1/8", "::1/128"]),
        device(2, "eth0", &["172.30.0.11/24", "fd74:77::11/64", "fe80::1/64"]),
    ]
}

fn device(index: u32, name: &str, addresses: &[&str]) -> Device {
    let addresses = addresses.iter().map(|net| net.parse().unwrap()).collect();
    Device {
        index,
        name: name.to_owned(),
        addresses,
    }
}

fn node(name: &str, addresses: &[&str], pod_cidrs: &[&str]) -> Node {
    Node {
        name: name.to_owned(),
        addresses: addresses.iter().map(|addr| addr.parse().unwrap()).collect(),
        pod_cidrs: pod_cidrs.iter().map(|net| net.parse().unwrap()).collect(),
        zone: None,
    }
}
