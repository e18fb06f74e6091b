// SPDX-License-Identifier: Apache-2.0
//! Services: one packet through one program, and what either end sees of the connection.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;

use datapath::common::event::Hook;
use datapath::common::packet::{GATEWAY_V4, proto};
use datapath::common::service::mirror;
use datapath::common::{Endpoint, Mac, NodeConfig, Reason, Service};
use datapath::{Datapath, GcReport, Limits, Options, TestRunOutput, Timeouts};
use thalweg_tests_datapath::packet::{Path, ends, fragments, sums_hold};
use thalweg_tests_datapath::services::Wanted;
use thalweg_tests_datapath::{Node, require_root};

const NEXT: u32 = u32::MAX;
const SHOT: u32 = 2;
const REDIRECT: u32 = 7;

const CLUSTER_IPS: [&str; 2] = ["10.96.0.10", "fd74:96::10"];

/// A node with a service on both families, whose backends are the second pod and one of another node, and the paths of the first pod
/// to it.
fn up(choose: fn(Family) -> Vec<SocketAddr>) -> (Node, [Path; 2]) {
    let mut node = Node::with_services(0);
    for (family, id) in [(Family::V4, 1), (Family::V6, 2)] {
        node.serve(&Wanted::tcp(id, &frontend(family).to_string(), &choose(family)));
    }
    let pod = &node.pods[0];
    let paths = [
        Path::new(pod.mac, pod.v4, frontend(Family::V4).ip()),
        Path::new(pod.mac, pod.v6, frontend(Family::V6).ip()),
    ];
    (node, paths)
}

#[derive(Clone, Copy, Debug)]
enum Family {
    V4,
    V6,
}

fn frontend(family: Family) -> SocketAddr {
    SocketAddr::new(CLUSTER_IPS[family as usize].parse().unwrap(), 80)
}

fn local(family: Family) -> Vec<SocketAddr> {
    let ip = ["10.244.1.2", "fd74:7710:0:1::2"][family as usize];
    vec![SocketAddr::new(ip.parse().unwrap(), 8080)]
}

fn remote(family: Family) -> Vec<SocketAddr> {
    let ip: [IpAddr; 2] = [Node::REMOTE_V4.into(), Node::REMOTE_V6.into()];
    vec![SocketAddr::new(ip[family as usize], 8080)]
}

fn none(_: Family) -> Vec<SocketAddr> {
    Vec::new()
}

fn family(path: &Path) -> Family {
    if path.source.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    }
}

/// Checks where a packet went, and that its checksums hold.
fn went(out: &TestRunOutput, source: SocketAddr, destination: SocketAddr) {
    assert_eq!(out.retval, REDIRECT);
    sums_hold(&out.packet);
    assert_eq!(ends(&out.packet), (source, destination));
}

fn at(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip, port)
}

#[test]
fn a_pod_talks_to_a_backend_on_its_node_and_hears_the_service() {
    if !require_root() {
        return;
    }
    let (mut node, paths) = up(local);
    for path in paths {
        let (client, service) = (at(path.source, 40_000), frontend(family(&path)));
        let backend = local(family(&path))[0];
        let answers = Path::new(node.pods[1].mac, backend.ip(), path.source);
        for (flags, answer) in [("S", "SA"), ("A", "A"), ("PA", "PA"), ("FA", "FA")] {
            went(&node.from_pod(0, &path.tcp(40_000, 80, flags)), client, backend);
            went(
                &node.from_pod(1, &answers.tcp(8080, 40_000, answer)),
                service,
                client,
            );
        }
    }
    assert_eq!(node.datapath.conntrack().len().unwrap(), 2, "one row for each");
    assert_eq!(
        node.datapath.conntrack().nat().map().len().unwrap(),
        4,
        "and two sights"
    );
}

#[test]
fn a_pod_talks_to_a_backend_on_another_node_and_hears_the_service() {
    if !require_root() {
        return;
    }
    let (mut node, paths) = up(remote);
    for path in paths {
        let (client, service) = (at(path.source, 40_000), frontend(family(&path)));
        let backend = remote(family(&path))[0];
        went(&node.from_pod(0, &path.tcp(40_000, 80, "S")), client, backend);
        let answer = from_remote(&mut node, &path, backend).tcp(8080, 40_000, "SA");
        went(&from_wire(&mut node, &answer), service, client);
    }
}

fn wire_mac(node: &mut Node) -> Mac {
    Mac(node.netlink.link("wire").unwrap().unwrap().mac.unwrap().0)
}

/// Who sends what comes over the wire.
const SENDER: Mac = Mac([2, 0, 0, 0, 0, 9]);

/// The way of what comes over the wire.
fn over_the_wire(node: &mut Node, source: impl Into<IpAddr>, destination: impl Into<IpAddr>) -> Path {
    Path {
        to: wire_mac(node),
        ..Path::new(SENDER, source, destination)
    }
}

/// The way from a backend of another node to a pod of this one.
fn from_remote(node: &mut Node, path: &Path, backend: SocketAddr) -> Path {
    over_the_wire(node, backend.ip(), path.source)
}

fn from_wire(node: &mut Node, frame: &[u8]) -> TestRunOutput {
    let wire = node.wire;
    node.run(Hook::FromWire, wire, frame)
}

#[test]
fn connections_spread_over_backends_and_each_keeps_its_own() {
    if !require_root() {
        return;
    }
    let (mut node, [path, _]) = up(|family| [local(family), remote(family)].concat());
    let mut hits = [0, 0];
    for port in 40_000..40_200 {
        let out = node.from_pod(0, &path.tcp(port, 80, "S"));
        let (_, backend) = ends(&out.packet);
        hits[usize::from(backend == remote(Family::V4)[0])] += 1;
        for flags in ["S", "A", "PA"] {
            let out = node.from_pod(0, &path.tcp(port, 80, flags));
            assert_eq!(ends(&out.packet).1, backend, "a packet of the same connection");
        }
    }
    // 100 are expected for each; six times the standard deviation is 42.
    assert!(hits.iter().all(|hits| (58..=142).contains(hits)), "{hits:?}");
}

#[test]
fn a_service_without_backends_refuses_and_one_that_there_is_not_too() {
    if !require_root() {
        return;
    }
    let (mut node, paths) = up(none);
    for path in paths {
        let client = at(path.source, 40_000);
        for port in [80, 81] {
            let refused = at(path.destination, port);
            let sent = path.tcp_at(40_000, port, "S", 7);
            went(&node.from_pod(0, &sent), refused, client);
            let reset = node.from_pod(0, &sent).packet;
            let tcp = &reset[reset.len() - 20..];
            assert_eq!(tcp[8..12], 8_u32.to_be_bytes(), "acknowledges the SYN");
            assert_eq!(tcp[13], 0x14, "RST, ACK");
            let out = node.from_pod(0, &path.tcp(40_000, port, "A"));
            assert_eq!(out.packet[out.packet.len() - 7], 0x04, "RST alone");
            let datagram = path.udp(40_000, port);
            let out = node.from_pod(0, &datagram);
            complains(&out, (refused.ip(), client.ip()), (client, refused));
            let reset = node.from_pod(0, &path.tcp(40_000, port, "R"));
            assert_eq!(reset.retval, SHOT, "a refusal is not refused");
        }
    }
    assert_eq!(node.count(Reason::SERVICE_BACKEND_NOT_FOUND), 20);
    assert!(node.datapath.conntrack().is_empty().unwrap());
    assert!(node.datapath.conntrack().nat().map().is_empty().unwrap());
    let mut silent = Wanted::tcp(1, "10.96.0.10:80", &[]);
    silent.flags |= Service::SILENT;
    node.serve(&silent);
    let path = Path::new(node.pods[0].mac, node.pods[0].v4, silent.frontend.ip());
    assert_eq!(node.from_pod(0, &path.tcp(40_000, 80, "S")).retval, SHOT);
}

#[test]
fn a_client_from_outside_is_refused_too() {
    if !require_root() {
        return;
    }
    let mut node = Node::with_services(0);
    node.serve(&Wanted::tcp(1, "172.30.0.1:30080", &[]));
    let path = over_the_wire(&mut node, Node::NEIGHBOUR_V4, Node::V4);
    let out = from_wire(&mut node, &path.tcp(40_000, 30_080, "S"));
    went(&out, at(path.destination, 30_080), at(path.source, 40_000));
    assert_eq!(out.packet[..6], SENDER.0, "to whom it came from");
}

#[test]
fn a_pod_that_is_its_services_backend_talks_to_itself() {
    if !require_root() {
        return;
    }
    let mut node = Node::with_services(0);
    let itself: [IpAddr; 2] = [node.pods[0].v4.into(), node.pods[0].v6.into()];
    for (id, family) in [(1, Family::V4), (2, Family::V6)] {
        let pod = itself[family as usize];
        let seen = mirror(pod.is_ipv4()).to_ip();
        let service = frontend(family);
        node.serve(&Wanted::tcp(id, &service.to_string(), &[at(pod, 8080)]));
        let path = Path::new(node.pods[0].mac, pod, service.ip());
        let answers = Path::new(node.pods[0].mac, pod, seen);
        for (flags, answer) in [("S", "SA"), ("A", "A"), ("FA", "FA"), ("R", "A")] {
            went(
                &node.from_pod(0, &path.tcp(40_000, 80, flags)),
                at(seen, 40_000),
                at(pod, 8080),
            );
            went(
                &node.from_pod(0, &answers.tcp(8080, 40_000, answer)),
                service,
                at(pod, 40_000),
            );
        }
    }
    let over = Timeouts {
        tcp_closed: std::time::Duration::ZERO,
        ..Timeouts::default()
    };
    let conntrack = node.datapath.conntrack();
    assert_eq!(
        conntrack
            .collect_garbage(&over, &GcReport::default())
            .unwrap()
            .removed,
        2
    );
    assert!(conntrack.nat().map().is_empty().unwrap());
}

#[test]
fn a_client_that_uses_its_port_again_gets_a_backend_that_is_there_now() {
    if !require_root() {
        return;
    }
    let (mut node, [path, _]) = up(local);
    let old = local(Family::V4)[0];
    let client = at(path.source, 40_000);
    went(&node.from_pod(0, &path.tcp(40_000, 80, "S")), client, old);
    let new = remote(Family::V4)[0];
    node.serve(&Wanted::tcp(1, &frontend(Family::V4).to_string(), &[new]));
    went(&node.from_pod(0, &path.tcp(40_000, 80, "S")), client, old);
    let answers = Path::new(node.pods[1].mac, old.ip(), path.source);
    node.from_pod(1, &answers.tcp(8080, 40_000, "SA"));
    went(&node.from_pod(0, &path.tcp(40_000, 80, "PA")), client, old);
    node.from_pod(0, &path.tcp(40_000, 80, "FA"));
    node.from_pod(1, &answers.tcp(8080, 40_000, "FA"));
    went(&node.from_pod(0, &path.tcp(40_000, 80, "A")), client, old);
    went(&node.from_pod(0, &path.tcp(40_000, 80, "S")), client, new);
}

#[test]
fn datagrams_leave_a_backend_that_no_longer_serves() {
    if !require_root() {
        return;
    }
    let mut node = Node::with_services(0);
    let (old, new) = (local(Family::V4)[0], remote(Family::V4)[0]);
    let mut dns = Wanted::udp(1, "10.96.0.10:53", &[old]);
    node.serve(&dns);
    let path = Path::new(node.pods[0].mac, node.pods[0].v4, dns.frontend.ip());
    let client = at(path.source, 40_000);
    went(&node.from_pod(0, &path.udp(40_000, 53)), client, old);
    dns.inside = vec![new];
    node.serve(&dns);
    went(&node.from_pod(0, &path.udp(40_000, 53)), client, old);
    node.forget_member(&dns, &old);
    went(&node.from_pod(0, &path.udp(40_000, 53)), client, new);
    let answer = from_remote(&mut node, &path, new).udp(8080, 40_000);
    went(&from_wire(&mut node, &answer), dns.frontend, client);
}

#[test]
fn a_client_keeps_its_backend_for_the_time_of_its_affinity() {
    if !require_root() {
        return;
    }
    let mut node = Node::with_services(0);
    let both = [local(Family::V4)[0], remote(Family::V4)[0]];
    let mut service = Wanted::tcp(1, "10.96.0.10:80", &both);
    service.flags |= Service::MEMBERS;
    service.affinity = 100_000;
    node.serve(&service);
    let path = Path::new(node.pods[0].mac, node.pods[0].v4, service.frontend.ip());
    let chosen = |node: &mut Node, port| ends(&node.from_pod(0, &path.tcp(port, 80, "S")).packet).1;
    let first = chosen(&mut node, 40_000);
    for port in 40_001..40_030 {
        assert_eq!(chosen(&mut node, port), first);
    }
    node.forget_member(&service, &first);
    let second = (40_030..40_130)
        .map(|port| chosen(&mut node, port))
        .find(|backend| *backend != first);
    let second = second.expect("another backend when the first no longer serves");
    for port in 40_130..40_160 {
        assert_eq!(chosen(&mut node, port), second);
    }
    service.affinity = 0;
    node.serve(&service);
    let free = (40_160..40_260).any(|port| chosen(&mut node, port) == first);
    assert!(free, "without affinity all backends are chosen");
}

#[test]
fn a_client_from_outside_reaches_a_local_backend_with_its_own_address() {
    if !require_root() {
        return;
    }
    for more in ["10.96.0.10", "198.51.100.7"] {
        let mut node = Node::with_services(0);
        let backend = local(Family::V4)[0];
        node.serve(&Wanted::tcp(1, &format!("{more}:80"), &[backend]));
        outside_to_local(&mut node, more.parse().unwrap(), 80, backend);
    }
    let mut node = Node::with_services(0);
    for family in [Family::V4, Family::V6] {
        let own: [IpAddr; 2] = [Node::V4.into(), Node::V6.into()];
        let own = own[family as usize];
        let backend = local(family)[0];
        node.serve(&Wanted::tcp(
            1 + family as u32,
            &at(own, 30_080).to_string(),
            &[backend],
        ));
        outside_to_local(&mut node, own, 30_080, backend);
    }
}

fn outside_to_local(node: &mut Node, frontend: IpAddr, port: u16, backend: SocketAddr) {
    let neighbour: IpAddr = if frontend.is_ipv4() {
        Node::NEIGHBOUR_V4.into()
    } else {
        Node::NEIGHBOUR_V6.into()
    };
    let path = over_the_wire(node, neighbour, frontend);
    let client = at(neighbour, 40_000);
    let answers = Path::new(node.pods[1].mac, backend.ip(), neighbour);
    for (flags, answer) in [("S", "SA"), ("A", "A"), ("PA", "PA")] {
        went(&from_wire(node, &path.tcp(40_000, port, flags)), client, backend);
        went(
            &node.from_pod(1, &answers.tcp(8080, 40_000, answer)),
            at(frontend, port),
            client,
        );
    }
}

#[test]
fn a_client_from_outside_reaches_another_nodes_backend_by_way_of_this_node() {
    if !require_root() {
        return;
    }
    let mut node = Node::with_services(0);
    for family in [Family::V4, Family::V6] {
        let own: [IpAddr; 2] = [Node::V4.into(), Node::V6.into()];
        let own = own[family as usize];
        let world: [IpAddr; 2] = ["198.51.100.9".parse().unwrap(), "2001:db8::9".parse().unwrap()];
        let world = world[family as usize];
        route_to(&mut node, world);
        let backend = remote(family)[0];
        node.serve(&Wanted::tcp(
            1 + family as u32,
            &at(own, 30_080).to_string(),
            &[backend],
        ));
        let path = over_the_wire(&mut node, world, own);
        let mut port = 0;
        for (flags, answer) in [("S", "SA"), ("A", "A"), ("PA", "PA")] {
            let out = from_wire(&mut node, &path.tcp(40_000, 30_080, flags));
            let (source, _) = ends(&out.packet);
            assert!(
                port == 0 || port == source.port(),
                "one port for the whole connection"
            );
            port = source.port();
            went(&out, at(own, port), backend);
            let answers = over_the_wire(&mut node, backend.ip(), own);
            let out = from_wire(&mut node, &answers.tcp(8080, port, answer));
            went(&out, at(own, 30_080), at(world, 40_000));
        }
    }
}

fn route_to(node: &mut Node, world: IpAddr) {
    let gateway: IpAddr = if world.is_ipv4() {
        Node::NEIGHBOUR_V4.into()
    } else {
        Node::NEIGHBOUR_V6.into()
    };
    let route = netlink::Route {
        gateway: Some(gateway),
        ..netlink::Route::to(world.into())
    };
    node.netlink.replace_route(&route).unwrap();
}

#[test]
fn a_cluster_ip_is_not_for_clients_from_outside_and_ranges_are_kept() {
    if !require_root() {
        return;
    }
    let mut node = Node::with_services(0);
    let backend = local(Family::V4)[0];
    let mut service = Wanted::tcp(1, "10.96.0.10:80", &[backend]);
    service.flags = 0;
    node.serve(&service);
    let path = over_the_wire(&mut node, Node::NEIGHBOUR_V4, service.frontend.ip());
    let sent = path.tcp(40_000, 80, "S");
    assert_eq!(from_wire(&mut node, &sent).retval, SHOT);
    service.flags = Service::EXTERNAL | Service::RANGES;
    node.serve(&service);
    node.allow(1, "192.0.2.0/24");
    node.allow(2, "0.0.0.0/0");
    assert_eq!(from_wire(&mut node, &sent).retval, SHOT);
    assert_eq!(node.count(Reason::DENIED_BY_LB_SRC_RANGE_CHECK), 1);
    node.allow(1, "172.30.0.0/30");
    went(&from_wire(&mut node, &sent), at(path.source, 40_000), backend);
}

#[test]
fn what_is_for_the_node_itself_is_left_alone() {
    if !require_root() {
        return;
    }
    let mut node = Node::with_services(0);
    node.serve(&Wanted::tcp(1, "172.30.0.1:30080", &local(Family::V4)));
    let path = over_the_wire(&mut node, Node::NEIGHBOUR_V4, Node::V4);
    for frame in [
        path.tcp(40_000, 22, "S"),
        path.echo(7, false),
        path.udp(40_000, 30_080),
    ] {
        let out = from_wire(&mut node, &frame);
        assert_eq!((out.retval, &out.packet), (NEXT, &frame));
    }
    let path = Path::new(node.pods[0].mac, node.pods[0].v4, Node::V4);
    let frame = path.tcp(40_000, 22, "S");
    let out = node.from_pod(0, &frame);
    assert_eq!((out.retval, &out.packet), (NEXT, &frame));
    went(
        &node.from_pod(0, &path.tcp(40_000, 30_080, "S")),
        at(path.source, 40_000),
        local(Family::V4)[0],
    );
}

#[test]
fn fragments_of_a_datagram_go_to_one_backend_and_come_back_from_the_service() {
    if !require_root() {
        return;
    }
    let mut node = Node::with_services(0);
    let backend = local(Family::V4)[0];
    node.serve(&Wanted::udp(1, "10.96.0.10:53", &[backend]));
    let pod = &node.pods[0];
    let path = Path::new(pod.mac, pod.v4, "10.96.0.10".parse::<IpAddr>().unwrap());
    let answers = Path::new(node.pods[1].mac, backend.ip(), path.source);
    let datagram = path.udp_of(40_000, 53, 3000);
    for fragment in fragments(&datagram, 77, 1480) {
        let out = node.from_pod(0, &fragment);
        assert_eq!(out.retval, REDIRECT);
        assert_eq!(ends(&out.packet).1.ip(), backend.ip());
    }
    let answer = answers.udp_of(8080, 40_000, 3000);
    for fragment in fragments(&answer, 78, 1480) {
        let out = node.from_pod(1, &fragment);
        assert_eq!(out.retval, REDIRECT);
        assert_eq!(ends(&out.packet).0.ip(), path.destination);
    }
    let lost = &fragments(&datagram, 79, 1480)[1];
    assert_eq!(node.from_pod(0, lost).retval, SHOT, "its first one never came");
}

#[test]
fn errors_about_a_connection_reach_the_end_that_they_are_about() {
    if !require_root() {
        return;
    }
    let (mut node, paths) = up(local);
    for path in paths {
        let (client, service) = (at(path.source, 40_000), frontend(family(&path)));
        let backend = local(family(&path))[0];
        let answers = Path::new(node.pods[1].mac, backend.ip(), path.source);
        let (unreachable, code) = if path.source.is_ipv4() { (3, 3) } else { (1, 4) };
        // The backend complains about what it got.
        let got = node.from_pod(0, &path.tcp(40_000, 80, "S")).packet;
        let out = node.from_pod(1, &answers.icmp_error(unreachable, code, &got));
        complains(&out, (service.ip(), client.ip()), (client, service));
        // The client complains about the answer.
        let answered = node.from_pod(1, &answers.tcp(8080, 40_000, "SA")).packet;
        let out = node.from_pod(0, &path.icmp_error(unreachable, code, &answered));
        complains(&out, (client.ip(), backend.ip()), (backend, client));
        // A router on the way complains.
        let router: IpAddr = if path.source.is_ipv4() {
            Node::NEIGHBOUR_V4.into()
        } else {
            Node::NEIGHBOUR_V6.into()
        };
        let way = over_the_wire(&mut node, router, path.source);
        let out = from_wire(&mut node, &way.icmp_error(unreachable, code, &got));
        complains(&out, (router, client.ip()), (client, service));
    }
}

/// Checks the ends of an ICMP error, those of the packet that it quotes, and all checksums.
fn complains(out: &TestRunOutput, outer: (IpAddr, IpAddr), quoted: (SocketAddr, SocketAddr)) {
    assert_eq!(out.retval, REDIRECT);
    sums_hold(&out.packet);
    let (source, destination) = ends(&out.packet);
    assert_eq!((source.ip(), destination.ip()), outer);
    let header = if source.is_ipv4() {
        14 + 20 + 8
    } else {
        14 + 40 + 8
    };
    let mut inner = vec![0_u8; 12];
    inner.extend(if source.is_ipv4() { [8, 0] } else { [0x86, 0xdd] });
    inner.extend_from_slice(&out.packet[header..]);
    assert_eq!(ends(&inner), quoted);
}

#[test]
fn a_connection_that_is_over_leaves_nothing() {
    if !require_root() {
        return;
    }
    let (mut node, paths) = up(local);
    for path in &paths {
        let backend = local(family(path))[0];
        let answers = Path::new(node.pods[1].mac, backend.ip(), path.source);
        node.from_pod(0, &path.tcp(40_000, 80, "S"));
        node.from_pod(1, &answers.tcp(8080, 40_000, "RA"));
    }
    let conntrack = node.datapath.conntrack();
    let now = Timeouts {
        tcp_closed: std::time::Duration::ZERO,
        ..Timeouts::default()
    };
    let report = conntrack
        .collect_garbage(&Timeouts::default(), &GcReport::default())
        .unwrap();
    assert_eq!((report.removed, report.nat.services), (0, 2));
    let report = conntrack.collect_garbage(&now, &GcReport::default()).unwrap();
    assert_eq!(report.removed, 2);
    assert!(conntrack.nat().map().is_empty().unwrap());
}

#[test]
fn sctp_keeps_its_port() {
    if !require_root() {
        return;
    }
    let mut node = Node::with_services(0);
    let backend = at(node.pods[1].v4.into(), 80);
    let service = Wanted {
        proto: proto::SCTP,
        ..Wanted::udp(1, "10.96.0.10:80", &[backend])
    };
    node.serve(&service);
    let path = Path::new(node.pods[0].mac, node.pods[0].v4, service.frontend.ip());
    let mut init = Vec::new();
    init.extend(40_000_u16.to_be_bytes());
    init.extend(80_u16.to_be_bytes());
    init.extend([0; 28]);
    let frame = path.raw(proto::SCTP, &init);
    let out = node.from_pod(0, &frame);
    assert_eq!(out.retval, REDIRECT);
    assert_eq!(out.packet[30..34], node.pods[1].v4.octets());
    assert_eq!(
        out.packet[34..],
        frame[34..],
        "the checksum does not cover addresses"
    );
}

#[test]
fn another_size_of_the_tables_keeps_services_and_their_connections() {
    if !require_root() {
        return;
    }
    let (mut node, [path, _]) = up(local);
    let backend = local(Family::V4)[0];
    let client = at(path.source, 40_000);
    went(&node.from_pod(0, &path.tcp(40_000, 80, "S")), client, backend);
    let flags = NodeConfig::IPV4 | NodeConfig::IPV6 | NodeConfig::SERVICES;
    let mut options = Options::new(node.bpffs.path(), NodeConfig::new(flags));
    options.limits = Limits {
        conntrack_max: 2 * Node::CONNECTIONS,
        services_max: 1024,
        ..Limits::default()
    };
    node.datapath = Datapath::load(&options).unwrap();
    went(&node.from_pod(0, &path.tcp(40_000, 80, "A")), client, backend);
    went(
        &node.from_pod(0, &path.tcp(40_001, 80, "S")),
        at(path.source, 40_001),
        backend,
    );
    let answers = Path::new(node.pods[1].mac, backend.ip(), path.source);
    let answer = node.from_pod(1, &answers.tcp(8080, 40_000, "A"));
    went(&answer, frontend(Family::V4), client);
}

#[test]
fn a_client_from_outside_reaches_a_socket_of_the_node_itself() {
    if !require_root() {
        return;
    }
    let mut node = Node::with_services(0);
    node.attach();
    for (id, own) in [(1, IpAddr::from(Node::V4)), (2, Node::V6.into())] {
        let listener = TcpListener::bind((own, 0)).unwrap();
        let backend = listener.local_addr().unwrap();
        node.serve(&Wanted::tcp(id, &at(own, 30_080).to_string(), &[backend]));
        let client = std::thread::spawn({
            let world = node.world.try_clone().unwrap();
            move || {
                netlink::netns::run_in(world.as_fd(), || {
                    let mut stream = TcpStream::connect((own, 30_080)).unwrap();
                    stream.write_all(b"who?").unwrap();
                    let mut answer = String::new();
                    stream.read_to_string(&mut answer).unwrap();
                    (answer, stream.local_addr().unwrap())
                })
            }
        });
        let (mut stream, peer) = listener.accept().unwrap();
        let mut question = [0; 4];
        stream.read_exact(&mut question).unwrap();
        assert_eq!(
            stream.local_addr().unwrap(),
            at(own, 30_080),
            "where the client called"
        );
        stream.write_all(b"the node").unwrap();
        drop(stream);
        let (answer, client) = client.join().unwrap().unwrap();
        assert_eq!(
            (answer.as_str(), client),
            ("the node", peer),
            "with its own address"
        );
    }
    assert!(node.datapath.conntrack().nat().map().is_empty().unwrap());
}

#[test]
fn errors_about_what_is_no_service_reach_whom_they_are_about() {
    if !require_root() {
        return;
    }
    let mut node = Node::with_services(NodeConfig::MASQUERADE);
    node.serve(&Wanted::tcp(1, "172.30.0.1:30080", &local(Family::V4)));
    let path = Path::new(node.pods[0].mac, node.pods[0].v4, Node::NEIGHBOUR_V4);
    let sent = node.from_pod(0, &path.udp(40_000, 53)).packet;
    let back = over_the_wire(&mut node, Node::NEIGHBOUR_V4, Node::V4);
    let out = from_wire(&mut node, &back.icmp_error(3, 3, &sent));
    let (pod, world) = (at(path.source, 40_000), at(path.destination, 53));
    complains(&out, (world.ip(), pod.ip()), (pod, world));
    let own = Path::new(Mac([2, 0, 0, 0, 0, 1]), Node::V4, Node::NEIGHBOUR_V4).udp(40_000, 99);
    let about_own = back.icmp_error(3, 3, &own);
    let out = from_wire(&mut node, &about_own);
    assert_eq!((out.retval, &out.packet), (NEXT, &about_own), "the node's own");
}

#[test]
fn who_sends_from_an_address_of_this_node_over_the_wire_is_refused() {
    if !require_root() {
        return;
    }
    let mut node = Node::with_services(0);
    node.serve(&Wanted::tcp(1, "172.30.0.1:30080", &local(Family::V4)));
    for source in [node.pods[0].v4, Node::V4, Ipv4Addr::from(GATEWAY_V4)] {
        let path = over_the_wire(&mut node, source, Node::V4);
        assert_eq!(from_wire(&mut node, &path.tcp(40_000, 30_080, "S")).retval, SHOT);
    }
    assert_eq!(node.count(Reason::INVALID_SOURCE_IP), 3);
    assert!(node.datapath.conntrack().is_empty().unwrap());
}

#[test]
fn other_ports_of_an_address_that_somebody_else_has_are_not_the_services() {
    if !require_root() {
        return;
    }
    let mut node = Node::with_services(0);
    let external = Wanted::tcp(1, "172.30.0.2:80", &local(Family::V4));
    node.serve(&external);
    node.datapath
        .endpoints()
        .upsert(external.frontend.ip(), &Endpoint::service())
        .unwrap();
    let path = Path::new(node.pods[0].mac, node.pods[0].v4, Node::NEIGHBOUR_V4);
    went(
        &node.from_pod(0, &path.tcp(40_000, 80, "S")),
        at(path.source, 40_000),
        local(Family::V4)[0],
    );
    let out = node.from_pod(0, &path.tcp(40_000, 443, "S"));
    went(&out, at(path.source, 40_000), at(path.destination, 443));
}

#[test]
fn ranges_bind_pods_too() {
    if !require_root() {
        return;
    }
    let mut node = Node::with_services(0);
    let mut service = Wanted::tcp(1, "198.51.100.7:80", &local(Family::V4));
    service.flags |= Service::RANGES;
    node.serve(&service);
    let path = Path::new(node.pods[0].mac, node.pods[0].v4, service.frontend.ip());
    assert_eq!(node.from_pod(0, &path.tcp(40_000, 80, "S")).retval, SHOT);
    node.allow(1, "10.244.1.1/32");
    went(
        &node.from_pod(0, &path.tcp(40_000, 80, "S")),
        at(path.source, 40_000),
        local(Family::V4)[0],
    );
}
