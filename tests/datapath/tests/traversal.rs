// SPDX-License-Identifier: Apache-2.0
//! One packet through one program: what comes out, where it goes, what is counted.

use std::net::{IpAddr, Ipv4Addr};

use datapath::common::event::Hook;
use datapath::common::packet::GATEWAY_MAC;
use datapath::common::{Mac, NodeConfig, Reason};
use etherparse::{SlicedPacket, TransportSlice};
use thalweg_tests_datapath::packet::{Path, arp, solicitation};
use thalweg_tests_datapath::{Node, require_root};

/// To the next program and the host's stack.
const NEXT: u32 = u32::MAX;
const SHOT: u32 = 2;
const REDIRECT: u32 = 7;

/// The path from pod 1 to pod 2, in both families.
fn between_pods(node: &Node) -> [Path; 2] {
    let [a, b] = &node.pods;
    [Path::new(a.mac, a.v4, b.v4), Path::new(a.mac, a.v6, b.v6)]
}

/// The Ethernet addresses of a frame.
fn macs(frame: &[u8]) -> (Mac, Mac) {
    let mac = |at: usize| Mac(frame[at..at + 6].try_into().expect("valid"));
    (mac(0), mac(6))
}

/// Asserts that the frame's checksums are right; returns its TTL.
fn ttl_of_sound(frame: &[u8]) -> u8 {
    let packet = SlicedPacket::from_ethernet(frame).expect("valid");
    match packet.net.expect("valid") {
        etherparse::NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            header.time_to_live
        }
        etherparse::NetSlice::Ipv6(ip) => ip.header().hop_limit(),
        etherparse::NetSlice::Arp(_) => panic!("not IP"),
    }
}

#[test]
fn a_packet_between_pods_is_forwarded_as_by_a_router() {
    if !require_root() {
        return;
    }
    let mut node = Node::up();
    let destination = node.pods[1].mac;
    for path in between_pods(&node) {
        for frame in [path.tcp(1000, 80, "S"), path.udp(1000, 53), path.echo(7, false)] {
            let out = node.from_pod(0, &frame);
            assert_eq!(out.retval, REDIRECT);
            assert_eq!(macs(&out.packet), (destination, GATEWAY_MAC));
            assert_eq!(ttl_of_sound(&out.packet), 63);
            assert_eq!(out.packet[26..], frame[26..], "nothing else is touched");
        }
    }
    assert_eq!(node.count(Reason::FORWARDED), 6);
    assert_eq!(node.drop_event(), None);
}

#[test]
fn a_packet_for_the_node_goes_to_its_stack_unchanged() {
    if !require_root() {
        return;
    }
    let mut node = Node::up();
    let pod = &node.pods[0];
    for path in [
        Path::new(pod.mac, pod.v4, Node::V4),
        Path::new(pod.mac, pod.v6, Node::V6),
    ] {
        let frame = path.tcp(1000, 10250, "S");
        let out = node.from_pod(0, &frame);
        assert_eq!((out.retval, out.packet), (NEXT, frame));
    }
}

#[test]
fn a_packet_for_another_node_goes_past_the_stack() {
    if !require_root() {
        return;
    }
    let mut node = Node::up();
    let pod = &node.pods[0];
    for path in [
        Path::new(pod.mac, pod.v4, Node::REMOTE_V4),
        Path::new(pod.mac, pod.v6, Node::REMOTE_V6),
    ] {
        // The neighbour is not resolved: the kernel will do that and write the Ethernet header.
        let out = node.from_pod(0, &path.tcp(1000, 80, "S"));
        assert_eq!(out.retval, REDIRECT);
        assert_eq!(ttl_of_sound(&out.packet), 63);
    }
    let (mac, wire) = (model::Mac([2, 0, 0, 0, 0, 9]), node.wire);
    node.netlink
        .replace_neighbour(wire, Node::NEIGHBOUR_V4.into(), mac, true)
        .unwrap();
    let path = Path::new(node.pods[0].mac, node.pods[0].v4, Node::REMOTE_V4);
    let out = node.from_pod(0, &path.tcp(1000, 80, "A"));
    let own = node.netlink.link("wire").unwrap().unwrap().mac.unwrap();
    assert_eq!(out.retval, REDIRECT);
    assert_eq!(macs(&out.packet), (Mac(mac.0), Mac(own.0)));
}

#[test]
fn the_kernels_answer_is_kept_for_a_tick_and_no_longer() {
    if !require_root() {
        return;
    }
    let mut node = Node::up();
    let wire = node.wire;
    let path = Path::new(node.pods[0].mac, node.pods[0].v4, Node::REMOTE_V4);
    for last in [9, 10] {
        let mac = model::Mac([2, 0, 0, 0, 0, last]);
        node.netlink
            .replace_neighbour(wire, Node::NEIGHBOUR_V4.into(), mac, true)
            .unwrap();
        // The longest tick that kernels are built with, and one more.
        std::thread::sleep(std::time::Duration::from_millis(20));
        for frame in [
            path.tcp(1000, 80, "A"),
            path.tcp(1000, 80, "A"),
            path.tcp(1001, 80, "A"),
        ] {
            let out = node.from_pod(0, &frame);
            assert_eq!((out.retval, macs(&out.packet).0), (REDIRECT, Mac(mac.0)));
        }
    }
    // A larger packet is another question: the route's MTU has its say.
    let mut too_big = path.tcp(1000, 80, "PA");
    too_big.resize(14 + 1401, 0);
    too_big[16..18].copy_from_slice(&1401_u16.to_be_bytes());
    assert_eq!(node.from_pod(0, &too_big).retval, NEXT);
}

#[test]
fn what_the_stack_must_answer_is_left_to_it() {
    if !require_root() {
        return;
    }
    let mut node = Node::up();
    let pod = &node.pods[0];
    let no_route = Path::new(pod.mac, pod.v4, Ipv4Addr::new(192, 0, 2, 1)).tcp(1000, 80, "S");
    let remote = Path::new(pod.mac, pod.v4, Node::REMOTE_V4);
    let mut too_big = remote.tcp(1000, 80, "PA");
    too_big.resize(14 + 1401, 0);
    too_big[16..18].copy_from_slice(&1401_u16.to_be_bytes());
    let mut just_fits = too_big.clone();
    just_fits.truncate(14 + 1400);
    just_fits[16..18].copy_from_slice(&1400_u16.to_be_bytes());
    let mut last_hop: Vec<_> = between_pods(&node)
        .map(|path| Path { ttl: 1, ..path }.udp(1000, 33434))
        .into();
    last_hop.push(Path { ttl: 1, ..remote }.udp(1000, 33434));
    for frame in last_hop.into_iter().chain([no_route, too_big]) {
        let out = node.from_pod(0, &frame);
        assert_eq!((out.retval, out.packet), (NEXT, frame));
    }
    assert_eq!(node.from_pod(0, &just_fits).retval, REDIRECT);
}

#[test]
fn segments_too_big_for_the_route_are_left_to_the_stack() {
    if !require_root() {
        return;
    }
    let mut node = Node::up();
    if node.datapath.features().version < (5, 12) {
        // The kernel compares GSO packets with no MTU (2c0a10af688c, "bpf: Fix bpf_fib_lookup helper MTU check").
        return;
    }
    let (mac, device) = (node.pods[0].mac, node.pods[0].ifindex);
    let (v4, v6) = (node.pods[0].v4, node.pods[0].v6);
    for (path, headers) in [
        (Path::new(mac, v4, Node::REMOTE_V4), 40),
        (Path::new(mac, v6, Node::REMOTE_V6), 60),
    ] {
        let frame = path.tcp(1000, 80, "PA");
        let fits = Node::MTU - headers;
        assert_eq!(node.run_gso(Hook::FromPod, device, &frame, fits).retval, REDIRECT);
        assert_eq!(node.run_gso(Hook::FromPod, device, &frame, fits + 1).retval, NEXT);
    }
}

#[test]
fn the_gateway_answers_arp() {
    if !require_root() {
        return;
    }
    let mut node = Node::up();
    let (mac, ip) = (node.pods[0].mac, node.pods[0].v4.octets());
    let out = node.from_pod(0, &arp(1, mac, ip, [169, 254, 1, 1]));
    let mut expected = arp(2, GATEWAY_MAC, [169, 254, 1, 1], ip);
    expected[0..6].copy_from_slice(&mac.0);
    expected[32..38].copy_from_slice(&mac.0);
    assert_eq!((out.retval, out.packet), (REDIRECT, expected));
}

#[test]
fn the_gateway_answers_neighbour_solicitations() {
    if !require_root() {
        return;
    }
    let mut node = Node::up();
    let mac = node.pods[0].mac;
    for (source, option) in [
        ("fe80::858:aff:fef4:101", true),
        ("fd74:7710:0:1::1", true),
        ("fd74:7710:0:1::1", false),
    ] {
        let out = node.from_pod(0, &solicitation(mac, source, "fe80::1", option));
        assert_eq!(out.retval, REDIRECT);
        assert_eq!(out.packet.len(), 86);
        assert_eq!(macs(&out.packet), (mac, GATEWAY_MAC));
        let packet = SlicedPacket::from_ethernet(&out.packet).unwrap();
        let Some(TransportSlice::Icmpv6(icmp)) = &packet.transport else {
            panic!("no ICMPv6")
        };
        let address =
            |at: usize| std::net::Ipv6Addr::from(<[u8; 16]>::try_from(&out.packet[at..at + 16]).unwrap());
        let (from, to) = (address(22), address(38));
        assert_eq!(
            (out.packet[21], from, to),
            (255, "fe80::1".parse().unwrap(), source.parse().unwrap())
        );
        assert!(icmp.is_checksum_valid(from.octets(), to.octets()));
        assert_eq!((icmp.type_u8(), out.packet[58]), (136, 0xe0));
        assert_eq!(
            out.packet[62..78],
            "fe80::1".parse::<std::net::Ipv6Addr>().unwrap().octets()
        );
        assert_eq!(out.packet[78..86], [2, 1, 0x02, 0x74, 0x77, 0, 0, 1]);
    }
}

/// Frames that must die, with the reason.
#[expect(clippy::too_many_lines, reason = "a table")]
fn refused(node: &Node) -> Vec<(Hook, Reason, Vec<u8>)> {
    let [a, b] = &node.pods;
    let [v4, v6] = between_pods(node);
    let stranger = Mac([2, 2, 2, 2, 2, 2]);
    let pod = |reason: Reason, frame: Vec<u8>| (Hook::FromPod, reason, frame);
    let to = |destination: &str| destination.parse::<IpAddr>().expect("valid");
    let mut dhcp = Path::new(a.mac, Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST).udp(68, 67);
    dhcp[0..6].fill(0xff);
    let mut lldp = v4.udp(1, 1);
    lldp[12..14].copy_from_slice(&[0x88, 0xcc]);
    let mut bad_ihl = v4.udp(1, 1);
    bad_ihl[14] = 0x44;
    let mut bad_version = v6.udp(1, 1);
    bad_version[14] = 0x40;
    let mut bad_offset = v4.tcp(1, 1, "S");
    bad_offset[14 + 20 + 12] = 0x40;
    let mut bad_udp = v4.udp(1, 1);
    bad_udp[14 + 20 + 5] = 7;
    let mut extensions = v6.udp(1, 1);
    extensions[20] = 60;
    extensions.splice(54..54, [60, 0, 1, 4, 0, 0, 0, 0].repeat(7));
    let payload = u16::try_from(extensions.len() - 54).expect("valid");
    extensions[18..20].copy_from_slice(&payload.to_be_bytes());
    let link = |kind: u8, source: &str, destination: &str| {
        Path {
            ttl: 255,
            ..Path::new(a.mac, to(source), to(destination))
        }
        .icmpv6(kind, &[0; 20])
    };
    vec![
        pod(
            Reason::INVALID_SOURCE_MAC,
            Path { from: stranger, ..v4 }.udp(1, 1),
        ),
        pod(
            Reason::INVALID_SOURCE_MAC,
            Path { from: stranger, ..v6 }.udp(1, 1),
        ),
        pod(
            Reason::INVALID_SOURCE_IP,
            Path {
                source: b.v4.into(),
                ..v4
            }
            .udp(1, 1),
        ),
        pod(
            Reason::INVALID_SOURCE_IP,
            Path {
                source: Node::V4.into(),
                ..v4
            }
            .udp(1, 1),
        ),
        pod(
            Reason::INVALID_SOURCE_IP,
            Path {
                source: to("192.0.2.1"),
                ..v4
            }
            .udp(1, 1),
        ),
        pod(
            Reason::INVALID_SOURCE_IP,
            Path {
                source: to("fe80::1234"),
                ..v6
            }
            .udp(1, 1),
        ),
        pod(
            Reason::CT_TRUNCATED_OR_INVALID_HEADER,
            Path {
                source: to("::ffff:10.244.1.1"),
                ..v6
            }
            .udp(1, 1),
        ),
        pod(Reason::INVALID_SOURCE_IP, dhcp),
        pod(
            Reason::INVALID_DESTINATION_MAC,
            Path { to: stranger, ..v4 }.udp(1, 1),
        ),
        pod(
            Reason::MULTICAST,
            Path {
                destination: to("224.0.0.251"),
                ..v4
            }
            .udp(5353, 5353),
        ),
        pod(
            Reason::MULTICAST,
            Path {
                destination: to("ff02::fb"),
                source: to("fe80::1234"),
                ..v6
            }
            .udp(5353, 5353),
        ),
        pod(Reason::UNSUPPORTED_L2_PROTOCOL, lldp),
        pod(Reason::CT_TRUNCATED_OR_INVALID_HEADER, bad_ihl),
        pod(Reason::CT_TRUNCATED_OR_INVALID_HEADER, bad_version),
        pod(Reason::CT_TRUNCATED_OR_INVALID_HEADER, bad_offset),
        pod(Reason::CT_TRUNCATED_OR_INVALID_HEADER, bad_udp),
        pod(Reason::INVALID_IPV6_EXTENSION_HEADER, extensions),
        pod(
            Reason::UNKNOWN_L3_TARGET_ADDRESS,
            arp(1, a.mac, a.v4.octets(), b.v4.octets()),
        ),
        pod(
            Reason::UNKNOWN_L3_TARGET_ADDRESS,
            solicitation(a.mac, "fd74:7710:0:1::1", "fd74:7710:0:1::2", true),
        ),
        pod(Reason::FORBIDDEN_ICMPV6_MESSAGE, link(134, "fe80::1", "ff02::1")),
        pod(
            Reason::FORBIDDEN_ICMPV6_MESSAGE,
            link(137, "fe80::1", "fd74:7710:0:1::2"),
        ),
        pod(
            Reason::UNRELATED_ICMP_ERROR,
            v4.icmp_error(3, 1, &v4.reply(b.mac).udp(1, 2)),
        ),
        (
            Hook::FromWire,
            Reason::INVALID_SOURCE_IP,
            Path {
                source: b.v4.into(),
                destination: a.v4.into(),
                ..v4
            }
            .udp(1, 1),
        ),
        (
            Hook::FromHost,
            Reason::STALE_OR_UNROUTABLE_IP,
            Path {
                destination: to("10.244.1.99"),
                ..v4
            }
            .udp(1, 1),
        ),
    ]
}

#[test]
fn what_must_die_dies_of_the_right_reason_and_is_told() {
    if !require_root() {
        return;
    }
    let mut node = Node::up();
    for (hook, reason, mut frame) in refused(&node) {
        let device = match hook {
            Hook::FromPod => node.pods[0].ifindex,
            Hook::FromWire => node.wire,
            Hook::FromHost => node.host,
            Hook::FromTunnel => node.wire,
        };
        if hook == Hook::FromWire {
            frame[0..6].copy_from_slice(&node.netlink.link("wire").unwrap().unwrap().mac.unwrap().0);
        }
        let before = node.count(reason);
        let out = node.run(hook, device, &frame);
        assert_eq!(out.retval, SHOT, "{hook} {reason}");
        assert_eq!(node.count(reason), before + 1, "{hook} {reason}");
        let event = node
            .drop_event()
            .unwrap_or_else(|| panic!("no event for {reason}"));
        assert_eq!(
            (event.reason, event.hook, event.ifindex),
            (reason, hook as u8, device)
        );
        assert_eq!(event.length as usize, frame.len());
        assert_eq!(event.ethertype.get().to_be_bytes(), frame[12..14]);
    }
}

#[test]
fn an_event_says_who_and_what() {
    if !require_root() {
        return;
    }
    let mut node = Node::up();
    let [v4, v6] = between_pods(&node);
    let source: IpAddr = "192.0.2.1".parse().unwrap();
    node.from_pod(0, &Path { source, ..v4 }.tcp(1000, 80, "SA"));
    let event = node.drop_event().unwrap();
    assert_eq!(
        (event.source.to_ip(), event.destination.to_ip()),
        (source, v4.destination)
    );
    assert_eq!(
        (event.source_port.get(), event.destination_port.get()),
        (1000, 80)
    );
    assert_eq!((event.proto, event.tcp_flags), (6, 0x12));
    node.from_pod(
        0,
        &Path {
            source: "2001:db8::1".parse().unwrap(),
            ..v6
        }
        .echo(9, true),
    );
    let event = node.drop_event().unwrap();
    assert_eq!(
        (event.proto, event.icmp, event.source_port.get()),
        (58, [129, 0], 9)
    );
}

#[test]
fn what_every_stack_says_on_its_link_is_no_attack() {
    if !require_root() {
        return;
    }
    let mut node = Node::up();
    let pod = &node.pods[0];
    let (mac, ip) = (pod.mac, pod.v4.octets());
    let link = |kind: u8, source: &str, destination: &str| {
        let (source, destination): (IpAddr, IpAddr) = (source.parse().unwrap(), destination.parse().unwrap());
        Path {
            ttl: 255,
            ..Path::new(mac, source, destination)
        }
        .icmpv6(kind, &[0; 20])
    };
    for frame in [
        solicitation(mac, "::", "fe80::858:aff:fef4:101", false),
        link(133, "fe80::858:aff:fef4:101", "ff02::2"),
        link(136, "fe80::858:aff:fef4:101", "ff02::1"),
        link(143, "::", "ff02::16"),
        link(131, "fe80::858:aff:fef4:101", "ff02::fb"),
        arp(1, mac, [0; 4], ip),
        arp(1, mac, ip, ip),
        arp(2, mac, ip, ip),
    ] {
        assert_eq!(node.from_pod(0, &frame).retval, SHOT);
    }
    assert_eq!(node.count(Reason::LINK_LOCAL_CHATTER), 8);
    assert_eq!(node.drop_event(), None);
}

#[test]
fn the_wire_passes_what_is_not_for_a_pod() {
    if !require_root() {
        return;
    }
    let mut node = Node::up();
    let own = Mac(node.netlink.link("wire").unwrap().unwrap().mac.unwrap().0);
    let from = Mac([2, 0, 0, 0, 0, 9]);
    let v4 = Path {
        to: own,
        ..Path::new(from, Node::REMOTE_V4, Node::V4)
    };
    let nobody = Path {
        destination: "10.244.1.99".parse().unwrap(),
        ..v4
    };
    let not_to_us = Path {
        to: from,
        destination: node.pods[0].v4.into(),
        ..v4
    };
    for frame in [
        v4.tcp(1, 22, "S"),
        nobody.udp(1, 1),
        not_to_us.udp(1, 1),
        arp(1, from, [172, 30, 0, 2], [172, 30, 0, 1]),
    ] {
        let out = node.run(Hook::FromWire, node.wire, &frame);
        assert_eq!((out.retval, out.packet), (NEXT, frame));
    }
    assert_eq!(node.count(Reason::FORWARDED), 0);
}

#[test]
fn the_wire_and_the_host_deliver_to_pods() {
    if !require_root() {
        return;
    }
    let mut node = Node::up();
    let own = Mac(node.netlink.link("wire").unwrap().unwrap().mac.unwrap().0);
    let (mac, v4, v6) = (node.pods[0].mac, node.pods[0].v4, node.pods[0].v6);
    let from = Mac([2, 0, 0, 0, 0, 9]);
    for path in [
        Path::new(from, Node::REMOTE_V4, v4),
        Path::new(from, Node::REMOTE_V6, v6),
    ] {
        let frame = Path { to: own, ..path }.tcp(1000, 80, "S");
        let out = node.run(Hook::FromWire, node.wire, &frame);
        assert_eq!((out.retval, macs(&out.packet)), (REDIRECT, (mac, GATEWAY_MAC)));
        assert_eq!(ttl_of_sound(&out.packet), 63, "the node is a router");
    }
    for path in [Path::new(from, Node::V4, v4), Path::new(from, Node::V6, v6)] {
        let out = node.run(Hook::FromHost, node.host, &path.tcp(1000, 80, "S"));
        assert_eq!((out.retval, macs(&out.packet)), (REDIRECT, (mac, GATEWAY_MAC)));
        assert_eq!(ttl_of_sound(&out.packet), 64, "the stack has counted the hop");
    }
}

#[test]
fn a_family_that_is_off_is_refused() {
    if !require_root() {
        return;
    }
    let mut node = Node::with(NodeConfig::IPV4, |_| {});
    let [v4, v6] = between_pods(&node);
    assert_eq!(node.from_pod(0, &v4.udp(1, 1)).retval, REDIRECT);
    assert_eq!(node.from_pod(0, &v6.udp(1, 1)).retval, SHOT);
    assert_eq!(node.count(Reason::UNSUPPORTED_L3_PROTOCOL), 1);
}

#[test]
fn host_routing_leaves_every_way_to_the_stack_but_checks_sources() {
    if !require_root() {
        return;
    }
    let mut node = Node::with(
        NodeConfig::IPV4 | NodeConfig::IPV6 | NodeConfig::HOST_ROUTING,
        |_| {},
    );
    let [v4, _] = between_pods(&node);
    let frame = v4.udp(1, 1);
    let out = node.from_pod(0, &frame);
    assert_eq!((out.retval, out.packet), (NEXT, frame.clone()));
    assert_eq!(node.from_pod(1, &frame).retval, SHOT);
    assert_eq!(node.run(Hook::FromHost, node.host, &frame).retval, REDIRECT);
    assert_eq!(node.run(Hook::FromWire, node.wire, &frame).retval, NEXT);
}
