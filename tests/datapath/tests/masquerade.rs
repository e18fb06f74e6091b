// SPDX-License-Identifier: Apache-2.0
//! Pods and the world: one packet through one program, and what it looks like outside.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use datapath::common::event::Hook;
use datapath::common::nat::Ports;
use datapath::common::packet::GATEWAY_MAC;
use datapath::common::{Mac, NodeConfig, Reason};
use datapath::{GcReport, TestRunOutput, Timeouts};
use thalweg_tests_datapath::packet::{Path, ends, fragments, set_ends, sums_hold};
use thalweg_tests_datapath::{Node, require_root};

const NEXT: u32 = u32::MAX;
const SHOT: u32 = 2;
const REDIRECT: u32 = 7;

const PORTS: Ports = Ports {
    first: 50_000,
    last: 50_999,
};

/// A node, and the paths of its first pod to the world in both families.
fn up(ports: Ports) -> (Node, [Path; 2]) {
    let node = Node::masquerading(ports);
    let paths = to_world(&node, 0);
    (node, paths)
}

fn to_world(node: &Node, pod: usize) -> [Path; 2] {
    let pod = &node.pods[pod];
    [
        Path::new(pod.mac, pod.v4, Node::NEIGHBOUR_V4),
        Path::new(pod.mac, pod.v6, Node::NEIGHBOUR_V6),
    ]
}

fn own_address(path: &Path) -> IpAddr {
    if path.source.is_ipv4() {
        Node::V4.into()
    } else {
        Node::V6.into()
    }
}

/// The way of answers over the wire.
fn back(node: &mut Node, path: &Path) -> Path {
    let to = Mac(node.netlink.link("wire").unwrap().unwrap().mac.unwrap().0);
    Path {
        to,
        destination: own_address(path),
        ..path.reply(Mac([2, 0, 0, 0, 0, 9]))
    }
}

fn from_wire(node: &mut Node, frame: &[u8]) -> TestRunOutput {
    let wire = node.wire;
    node.run(Hook::FromWire, wire, frame)
}

/// Sends a pod's packet to the world; returns the port that it has there.
fn sent(node: &mut Node, path: &Path, frame: &[u8]) -> u16 {
    let out = node.from_pod(0, frame);
    assert_eq!(out.retval, REDIRECT, "{path:?}");
    sums_hold(&out.packet);
    let (source, destination) = ends(&out.packet);
    assert_eq!(
        (source.ip(), destination.ip()),
        (own_address(path), path.destination)
    );
    source.port()
}

#[test]
fn a_connection_to_the_world_has_the_nodes_address_and_its_answers_come_back() {
    if !require_root() {
        return;
    }
    let (mut node, paths) = up(PORTS);
    for path in paths {
        let answers = back(&mut node, &path);
        let pod = SocketAddr::new(path.source, 40_000);
        let remote = |port| SocketAddr::new(path.destination, port);
        for (there, here, port) in [
            (path.tcp(40_000, 80, "S"), answers.tcp(80, 1, "SA"), 80),
            (path.tcp(40_000, 80, "PA"), answers.tcp(80, 1, "PA"), 80),
            (path.udp(40_000, 53), answers.udp(53, 1), 53),
        ] {
            let outside = sent(&mut node, &path, &there);
            assert!((PORTS.first..=PORTS.last).contains(&outside), "{outside}");
            let mut here = here;
            set_ends(
                &mut here,
                remote(port),
                SocketAddr::new(own_address(&path), outside),
            );
            let out = from_wire(&mut node, &here);
            assert_eq!(out.retval, REDIRECT);
            sums_hold(&out.packet);
            assert_eq!(ends(&out.packet), (remote(port), pod));
            let mac = node.pods[0].mac;
            assert_eq!(
                (&out.packet[0..6], &out.packet[6..12]),
                (&mac.0[..], &GATEWAY_MAC.0[..])
            );
        }
    }
    let connections = node.datapath.conntrack().entries().unwrap();
    assert_eq!(connections.len(), 4);
    for connection in connections {
        let outside = connection.masqueraded.expect("masqueraded");
        assert_eq!(outside.is_ipv4(), connection.tuple.source.is_v4());
        assert_eq!(
            connection.entry.packets.iter().sum::<u64>() % 2,
            0,
            "answers count"
        );
    }
    assert_eq!(node.drop_event(), None);
}

#[test]
fn a_ping_has_an_identifier_of_its_own() {
    if !require_root() {
        return;
    }
    let (mut node, paths) = up(PORTS);
    for path in paths {
        let out = node.from_pod(0, &path.echo(7, false));
        assert_eq!(out.retval, REDIRECT);
        sums_hold(&out.packet);
        let (source, destination) = ends(&out.packet);
        assert_eq!(source.ip(), own_address(&path));
        assert_eq!(source.port(), destination.port(), "one identifier");
        assert!((PORTS.first..=PORTS.last).contains(&source.port()));
        let answer = back(&mut node, &path).echo(source.port(), true);
        let out = from_wire(&mut node, &answer);
        assert_eq!(out.retval, REDIRECT);
        sums_hold(&out.packet);
        assert_eq!(
            ends(&out.packet),
            (
                SocketAddr::new(path.destination, 7),
                SocketAddr::new(path.source, 7)
            )
        );
    }
}

#[test]
fn a_port_in_the_range_is_kept_if_it_is_free() {
    if !require_root() {
        return;
    }
    let (mut node, [path, _]) = up(PORTS);
    assert_eq!(sent(&mut node, &path, &path.tcp(50_123, 80, "S")), 50_123);
    let [other, _] = to_world(&node, 1);
    let out = node.from_pod(1, &other.tcp(50_123, 80, "S"));
    let (source, _) = ends(&out.packet);
    assert_eq!(out.retval, REDIRECT);
    assert_ne!(source.port(), 50_123, "another pod has it towards this remote");
    let out = node.from_pod(1, &other.tcp(50_123, 81, "S"));
    assert_eq!(ends(&out.packet).0.port(), 50_123, "and nobody towards that one");
}

#[test]
fn a_socket_of_the_node_is_never_shadowed() {
    if !require_root() {
        return;
    }
    let (mut node, [path, _]) = up(Ports {
        first: 50_000,
        last: 50_001,
    });
    let _listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 50_000)).unwrap();
    let _socket = UdpSocket::bind((Node::V4, 50_001)).unwrap();
    assert_eq!(sent(&mut node, &path, &path.tcp(50_000, 80, "S")), 50_001);
    assert_eq!(sent(&mut node, &path, &path.udp(50_001, 53)), 50_000);
}

#[test]
fn when_all_ports_are_taken_that_is_said_and_counted() {
    if !require_root() {
        return;
    }
    let (mut node, [path, _]) = up(Ports {
        first: 50_000,
        last: 50_003,
    });
    let mut taken = BTreeSet::new();
    for source in 40_000..40_004 {
        taken.insert(sent(&mut node, &path, &path.tcp(source, 80, "S")));
    }
    assert_eq!(taken, (50_000..=50_003).collect());
    let refused = path.tcp(40_004, 80, "S");
    assert_eq!(node.from_pod(0, &refused).retval, SHOT);
    assert_eq!(node.count(Reason::NO_MAPPING_FOR_NAT_MASQUERADE), 1);
    assert_eq!(
        node.drop_event().expect("an event").reason,
        Reason::NO_MAPPING_FOR_NAT_MASQUERADE
    );
    assert!(taken.contains(&sent(&mut node, &path, &path.tcp(40_000, 443, "S"))));
    let report = collect(&node, |_| {});
    assert_eq!((report.nat.entries, report.nat.busiest), (5, 4));
    // The end of one makes room for the other.
    node.from_pod(0, &path.tcp(40_002, 80, "R"));
    assert_eq!(
        collect(&node, |timeouts| timeouts.tcp_closed = std::time::Duration::ZERO).removed,
        1
    );
    sent(&mut node, &path, &refused);
}

fn collect(node: &Node, change: impl FnOnce(&mut Timeouts)) -> GcReport {
    let mut timeouts = Timeouts::default();
    change(&mut timeouts);
    let conntrack = node.datapath.conntrack();
    conntrack
        .collect_garbage(&timeouts, &GcReport::default())
        .unwrap()
}

#[test]
fn rows_go_with_their_connection() {
    if !require_root() {
        return;
    }
    let (mut node, paths) = up(PORTS);
    for path in &paths {
        sent(&mut node, path, &path.udp(40_000, 53));
        sent(&mut node, path, &path.echo(9, false));
    }
    let rows = |node: &Node| node.datapath.conntrack().nat().map().len().unwrap();
    assert_eq!(rows(&node), 4);
    let pod = node.pods[0].v4.into();
    assert_eq!(node.datapath.conntrack().remove_address(pod).unwrap(), 2);
    assert_eq!(rows(&node), 2);
    // One that has lost its connection is swept, but not at once: the programs write it first.
    let conntrack = node.datapath.conntrack();
    let keys: Vec<_> = conntrack
        .map()
        .rows()
        .unwrap()
        .iter()
        .map(|(key, _)| *key)
        .collect();
    conntrack.map().remove_all(&keys).unwrap();
    assert_eq!((collect(&node, |_| {}).nat.swept, rows(&node)), (0, 2));
    for (key, mut row) in conntrack.nat().map().rows().unwrap() {
        row.created = row.created.wrapping_sub(1_000_000);
        conntrack.nat().map().insert(&key, &row).unwrap();
    }
    assert_eq!((collect(&node, |_| {}).nat.swept, rows(&node)), (2, 0));
}

#[test]
fn what_is_in_the_cluster_or_excluded_keeps_its_address() {
    if !require_root() {
        return;
    }
    let (mut node, [path, _]) = up(PORTS);
    let pod = node.pods[0].v4;
    for destination in [
        Node::REMOTE_V4.into(),
        node.pods[1].v4.into(),
        IpAddr::from(Node::V4),
    ] {
        let frame = Path { destination, ..path }.udp(40_000, 53);
        let out = node.from_pod(0, &frame);
        assert_eq!(ends(&out.packet).0, SocketAddr::new(pod.into(), 40_000));
    }
    let net = "172.30.0.0/24".parse().unwrap();
    let excluded = datapath::common::Prefix::cluster(datapath::common::Addr::UNSPECIFIED);
    node.datapath.prefixes().upsert(&net, &excluded).unwrap();
    let out = node.from_pod(0, &path.udp(40_000, 54));
    assert_eq!(ends(&out.packet).0, SocketAddr::new(pod.into(), 40_000));
}

#[test]
fn a_connection_that_the_world_opened_is_answered_from_the_pods_own_address() {
    if !require_root() {
        return;
    }
    let (mut node, paths) = up(PORTS);
    for path in paths {
        let inbound = Path {
            destination: path.source,
            ..back(&mut node, &path)
        };
        let out = from_wire(&mut node, &inbound.tcp(5000, 80, "S"));
        assert_eq!(out.retval, REDIRECT);
        let out = node.from_pod(0, &path.tcp(80, 5000, "SA"));
        assert_eq!(out.retval, REDIRECT);
        assert_eq!(ends(&out.packet).0, SocketAddr::new(path.source, 80));
    }
}

#[test]
fn what_is_the_nodes_own_stays_so() {
    if !require_root() {
        return;
    }
    let (mut node, paths) = up(PORTS);
    for path in paths {
        let outside = sent(&mut node, &path, &path.tcp(40_000, 80, "S"));
        let answers = back(&mut node, &path);
        let stranger = match path.source {
            IpAddr::V4(_) => "198.51.100.7",
            IpAddr::V6(_) => "2001:db8::7",
        };
        let source = stranger.parse().unwrap();
        for frame in [
            // From another end, from another port, to another port, another protocol, and a connection that is opened.
            Path { source, ..answers }.tcp(80, outside, "SA"),
            answers.tcp(81, outside, "SA"),
            answers.tcp(80, outside ^ 1, "SA"),
            answers.udp(80, outside),
            answers.tcp(80, outside, "S"),
            answers.echo(outside, true),
            answers.icmp_error(3, 1, &answers.reply(GATEWAY_MAC).udp(40_000, 53)),
        ] {
            let out = from_wire(&mut node, &frame);
            assert_eq!((out.retval, out.packet), (NEXT, frame));
        }
        // Another pod that sends there does not reach the first one.
        let hairpin = Path {
            source: if path.source.is_ipv4() {
                node.pods[1].v4.into()
            } else {
                node.pods[1].v6.into()
            },
            from: node.pods[1].mac,
            destination: own_address(&path),
            ..path
        };
        let frame = hairpin.tcp(80, outside, "SA");
        let out = node.from_pod(1, &frame);
        assert_eq!((out.retval, out.packet), (NEXT, frame));
    }
}

/// An ICMP error (type, code) of a family.
fn error_of(path: &Path) -> (u8, u8) {
    if path.source.is_ipv4() { (11, 0) } else { (3, 0) }
}

#[test]
fn an_error_from_outside_reaches_the_pod_in_its_own_terms() {
    if !require_root() {
        return;
    }
    let (mut node, paths) = up(PORTS);
    for path in paths {
        for frame in [
            path.tcp(40_000, 80, "S"),
            path.udp(40_000, 53),
            path.echo(7, false),
        ] {
            let outside = node.from_pod(0, &frame);
            assert_eq!(outside.retval, REDIRECT);
            let router = match path.source {
                IpAddr::V4(_) => "203.0.113.1",
                IpAddr::V6(_) => "2001:db8:1::1",
            };
            let from_router = Path {
                source: router.parse().unwrap(),
                ..back(&mut node, &path)
            };
            let (kind, code) = error_of(&path);
            for error in [
                from_router.icmp_error(kind, code, &outside.packet),
                from_router.icmp_error_quoting(kind, code, &outside.packet, 200),
            ] {
                let out = from_wire(&mut node, &error);
                assert_eq!(out.retval, REDIRECT);
                sums_hold(&out.packet);
                let (source, destination) = ends(&out.packet);
                assert_eq!((source.ip(), destination.ip()), (from_router.source, path.source));
                let quote = quoted(&out.packet);
                assert_eq!(ends(&quote), ends(&frame), "as the pod sent it");
                if quote.len() >= frame.len() {
                    sums_hold(&quote[..frame.len()]);
                }
            }
        }
    }
}

/// The packet that an ICMP error quotes, with an Ethernet header.
fn quoted(frame: &[u8]) -> Vec<u8> {
    let ip = if frame[12..14] == [8, 0] { 20 } else { 40 };
    [&frame[..14], &frame[14 + ip + 8..]].concat()
}

#[test]
fn an_error_of_a_pod_looks_as_if_the_node_sent_it() {
    if !require_root() {
        return;
    }
    let (mut node, paths) = up(PORTS);
    for path in paths {
        let outside = sent(&mut node, &path, &path.udp(40_000, 53));
        let answer = back(&mut node, &path).udp(53, outside);
        let delivered = from_wire(&mut node, &answer);
        let (kind, code) = if path.source.is_ipv4() { (3, 3) } else { (1, 4) };
        for error in [
            path.icmp_error(kind, code, &delivered.packet),
            path.icmp_error_quoting(kind, code, &delivered.packet, 200),
        ] {
            let out = node.from_pod(0, &error);
            assert_eq!(out.retval, REDIRECT);
            sums_hold(&out.packet);
            let (source, destination) = ends(&out.packet);
            assert_eq!(
                (source.ip(), destination.ip()),
                (own_address(&path), path.destination)
            );
            let quote = quoted(&out.packet);
            assert_eq!(ends(&quote), ends(&answer), "as the world sent it");
            if quote.len() >= answer.len() {
                sums_hold(&quote[..answer.len()]);
            }
        }
    }
}

#[test]
fn protocols_without_ports_are_refused_and_sctp_keeps_its_own() {
    if !require_root() {
        return;
    }
    let (mut node, paths) = up(PORTS);
    for path in paths {
        let gre = path.raw(47, &[0; 16]);
        assert_eq!(node.from_pod(0, &gre).retval, SHOT);
        let sctp = path.raw(132, &[0x9c, 0x40, 0, 80, 0, 0, 0, 1, 1, 2, 3, 4, 1, 0, 0, 4]);
        let out = node.from_pod(0, &sctp);
        assert_eq!(out.retval, REDIRECT);
        assert_eq!(ends(&out.packet).0, SocketAddr::new(own_address(&path), 40_000));
        let l4 = sctp.len() - 16;
        assert_eq!(out.packet[l4..], sctp[l4..], "no byte of SCTP is changed");
        let unasked = path.echo(7, true);
        assert_eq!(node.from_pod(0, &unasked).retval, SHOT);
    }
    assert_eq!(node.count(Reason::UNSUPPORTED_PROTOCOL_FOR_NAT_MASQUERADE), 4);
}

#[test]
fn fragments_get_the_translation_of_their_first() {
    if !require_root() {
        return;
    }
    let (mut node, paths) = up(PORTS);
    for path in paths {
        let whole = path.udp_of(40_000, 53, 3000);
        let [first, second, third] = fragments(&whole, 77, 1208).try_into().expect("three");
        let outside = sent(&mut node, &path, &path.udp(40_000, 53));
        for (frame, has_ports) in [(&first, true), (&third, false), (&second, false)] {
            let out = node.from_pod(0, frame);
            assert_eq!(out.retval, REDIRECT);
            let (source, destination) = ends(&out.packet);
            assert_eq!(
                (source.ip(), destination.ip()),
                (own_address(&path), path.destination)
            );
            assert_eq!(has_ports && source.port() == outside, has_ports);
        }
        let answer = back(&mut node, &path).udp_of(53, outside, 3000);
        let parts = fragments(&answer, 78, 1208);
        for frame in &parts {
            let out = from_wire(&mut node, frame);
            assert_eq!(out.retval, REDIRECT);
            assert_eq!(ends(&out.packet).1.ip(), path.source);
        }
        // The counters of the connection know all of them.
        let connections = node.datapath.conntrack().entries().unwrap();
        let connection = connections
            .iter()
            .find(|connection| connection.tuple.source.to_ip() == path.source)
            .unwrap();
        assert_eq!(connection.entry.packets, [4, 3]);
    }
}

#[test]
fn a_fragment_before_its_first_is_dropped_or_left_to_the_node() {
    if !require_root() {
        return;
    }
    let (mut node, paths) = up(PORTS);
    for path in paths {
        let later = fragments(&path.udp_of(40_000, 53, 3000), 99, 1208).remove(1);
        assert_eq!(node.from_pod(0, &later).retval, SHOT, "to the world");
        let other_pod = if path.source.is_ipv4() {
            node.pods[1].v4.into()
        } else {
            node.pods[1].v6.into()
        };
        let near = Path {
            destination: other_pod,
            ..path
        };
        let later = fragments(&near.udp_of(40_000, 53, 3000), 99, 1208).remove(1);
        assert_eq!(
            node.from_pod(0, &later).retval,
            REDIRECT,
            "to another pod, by address"
        );
        let answer = fragments(&back(&mut node, &path).udp_of(53, 50_000, 3000), 98, 1208).remove(1);
        let out = from_wire(&mut node, &answer);
        assert_eq!(
            (out.retval, out.packet),
            (NEXT, answer),
            "it may be the node's own"
        );
    }
    assert_eq!(node.count(Reason::FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND), 2);
}

#[test]
fn a_changed_address_leaves_open_connections_alone() {
    if !require_root() {
        return;
    }
    let (mut node, [path, _]) = up(PORTS);
    let before = sent(&mut node, &path, &path.tcp(40_000, 80, "S"));
    let other = "172.30.0.77".parse().unwrap();
    node.masquerade(PORTS, [other, Node::V6.into()]);
    assert_eq!(
        sent(&mut node, &path, &path.tcp(40_000, 80, "A")),
        before,
        "as before"
    );
    let answer = back(&mut node, &path).tcp(80, before, "A");
    assert_eq!(from_wire(&mut node, &answer).retval, REDIRECT);
    let out = node.from_pod(0, &path.tcp(40_001, 80, "S"));
    assert_eq!(ends(&out.packet).0.ip(), other);
}

#[test]
fn a_pod_that_uses_its_port_again_keeps_its_mapping() {
    if !require_root() {
        return;
    }
    let (mut node, [path, _]) = up(PORTS);
    let before = sent(&mut node, &path, &path.tcp(40_000, 80, "S"));
    sent(&mut node, &path, &path.tcp(40_000, 80, "R"));
    assert_eq!(sent(&mut node, &path, &path.tcp(40_000, 80, "S")), before);
    let answer = back(&mut node, &path).tcp(80, before, "SA");
    assert_eq!(from_wire(&mut node, &answer).retval, REDIRECT);
}

#[test]
fn what_the_stack_must_answer_is_the_pods_own() {
    if !require_root() {
        return;
    }
    let (mut node, [path, _]) = up(PORTS);
    let last_hop = Path { ttl: 1, ..path }.udp(40_000, 33434);
    let nowhere = Path {
        destination: "192.0.2.1".parse().unwrap(),
        ..path
    }
    .udp(40_000, 53);
    let mut too_big = path.udp_of(40_000, 53, 1401 - 28);
    too_big[20] |= 0x40;
    thalweg_tests_datapath::packet::renew_ip_checksum(&mut too_big);
    for frame in [last_hop, nowhere, too_big.clone()] {
        let out = node.from_pod(0, &frame);
        assert_eq!((out.retval, out.packet), (NEXT, frame));
    }
    // The stack would cut it and forward the pieces with the pod's address: it is told not to.
    let mut may_be_cut = too_big.clone();
    may_be_cut[20] &= !0x40;
    thalweg_tests_datapath::packet::renew_ip_checksum(&mut may_be_cut);
    let out = node.from_pod(0, &may_be_cut);
    assert_eq!((out.retval, out.packet), (NEXT, too_big));
    // An answer on its last hop is not the node's.
    let outside = sent(&mut node, &path, &path.udp(40_000, 53));
    let answer = Path {
        ttl: 1,
        ..back(&mut node, &path)
    }
    .udp(53, outside);
    assert_eq!(from_wire(&mut node, &answer).retval, SHOT);
    assert_eq!(node.count(Reason::TTL_EXCEEDED), 1);
}

#[test]
fn segments_stay_together() {
    if !require_root() {
        return;
    }
    let (mut node, paths) = up(PORTS);
    for path in paths {
        sent(&mut node, &path, &path.tcp(40_000, 80, "S"));
        let device = node.pods[0].ifindex;
        let out = node.run_gso(Hook::FromPod, device, &path.tcp(40_000, 80, "PA"), 1200);
        assert_eq!(out.retval, REDIRECT);
        assert_eq!(ends(&out.packet).0.ip(), own_address(&path));
    }
}

#[test]
fn without_an_address_of_a_family_nothing_is_translated() {
    if !require_root() {
        return;
    }
    let flags = NodeConfig::IPV4 | NodeConfig::IPV6 | NodeConfig::MASQUERADE;
    let mut node = Node::with(flags, |_| {});
    for path in to_world(&node, 0) {
        let out = node.from_pod(0, &path.udp(40_000, 53));
        assert_eq!(ends(&out.packet).0, SocketAddr::new(path.source, 40_000));
    }
}
