// SPDX-License-Identifier: Apache-2.0
//! Packets into and out of tunnels that the programs make themselves: the bytes on the wire, and what is refused.

use std::net::IpAddr;

use datapath::common::event::Hook;
use datapath::common::packet::{GATEWAY_MAC, TUNNEL_MAC};
use datapath::common::{Addr, Be16, LocalNode, NodeConfig, Prefix, Reason};
use datapath::{Event, TestRunOutput};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use thalweg_tests_datapath::packet::Path;
use thalweg_tests_datapath::{Node, require_root};

const SHOT: u32 = 2;
const REDIRECT: u32 = 7;
const NEXT: u32 = u32::MAX;
const VNI: u32 = 0x0a_0b0c;
const PORT: u16 = 6081;
/// The MTU of the tunnel that the tests pretend.
const TUNNEL_MTU: u16 = 1338;

/// Bytes of a Geneve header without options for our network, Ethernet inside.
const GENEVE: [u8; 8] = [0, 0, 0x65, 0x58, 0x0a, 0x0b, 0x0c, 0];
/// Bytes of a VXLAN header for our network.
const VXLAN: [u8; 8] = [8, 0, 0, 0, 0x0a, 0x0b, 0x0c, 0];

#[test]
fn what_a_pod_sends_to_another_nodes_pod_is_wrapped() {
    if !require_root() {
        return;
    }
    for (flags, header) in [(NodeConfig::GENEVE, GENEVE), (0, VXLAN)] {
        for end in [IpAddr::from(Node::NEIGHBOUR_V4), Node::NEIGHBOUR_V6.into()] {
            let mut node = node_with_tunnel(flags, end);
            let pod = &node.pods[0];
            for path in [
                Path::new(pod.mac, pod.v4, Node::REMOTE_V4),
                Path::new(pod.mac, pod.v6, Node::REMOTE_V6),
            ] {
                let frame = path.tcp(1000, 80, "PA");
                let out = node.from_pod(0, &frame);
                assert_eq!(out.retval, REDIRECT);
                assert_wrapped(&out.packet, &frame, end, header);
            }
        }
    }
}

#[test]
fn the_same_flow_has_the_same_outer_port_and_others_have_others() {
    if !require_root() {
        return;
    }
    let mut node = node_with_tunnel(NodeConfig::GENEVE, Node::NEIGHBOUR_V4.into());
    let path = Path::new(node.pods[0].mac, node.pods[0].v4, Node::REMOTE_V4);
    let mut port = |source: u16| {
        let out = node.from_pod(0, &path.udp(source, 53)).packet;
        u16::from_be_bytes([out[34], out[35]])
    };
    assert_eq!(port(1000), port(1000));
    let ports: std::collections::BTreeSet<u16> = (1000..1032).map(port).collect();
    assert!(ports.len() > 16, "{ports:?}");
    assert!(ports.iter().all(|port| *port >= 0xc000), "{ports:?}");
}

#[test]
fn what_does_not_fit_the_tunnel_is_left_to_the_stack() {
    if !require_root() {
        return;
    }
    let mut node = node_with_tunnel(NodeConfig::GENEVE, Node::NEIGHBOUR_V4.into());
    let path = Path::new(node.pods[0].mac, node.pods[0].v4, Node::REMOTE_V4);
    let sized = |bytes: u16| {
        let mut frame = path.udp(1000, 53);
        frame.resize(14 + usize::from(bytes), 0);
        frame[16..18].copy_from_slice(&bytes.to_be_bytes());
        frame[38..40].copy_from_slice(&(bytes - 20).to_be_bytes());
        frame
    };
    assert_eq!(node.from_pod(0, &sized(TUNNEL_MTU)).retval, REDIRECT);
    assert_eq!(node.from_pod(0, &sized(TUNNEL_MTU + 1)).retval, NEXT);
}

#[test]
fn what_comes_through_the_tunnel_reaches_its_pod() {
    if !require_root() {
        return;
    }
    for (flags, header) in [(NodeConfig::GENEVE, GENEVE), (0, VXLAN)] {
        for end in [IpAddr::from(Node::NEIGHBOUR_V4), Node::NEIGHBOUR_V6.into()] {
            let mut node = node_with_tunnel(flags, end);
            for inner in from_remote(&node) {
                let frame = inner.tcp(80, 1000, "SA");
                let out = receive(&mut node, end, &header, &frame);
                assert_eq!(out.retval, REDIRECT, "{end} {inner:?}");
                assert_eq!(out.packet[0..6], node.pods[0].mac.0);
                assert_eq!(out.packet[6..12], GATEWAY_MAC.0);
                // One hop less, and nothing else is touched.
                assert_eq!(out.packet.len(), frame.len());
                assert_eq!(out.packet[26..], frame[26..]);
            }
            assert_eq!(node.drop_event(), None);
        }
    }
}

#[test]
fn options_that_may_be_ignored_are() {
    if !require_root() {
        return;
    }
    let mut node = node_with_tunnel(NodeConfig::GENEVE, Node::NEIGHBOUR_V4.into());
    let frame = from_remote(&node)[0].tcp(80, 1000, "SA");
    let mut header = GENEVE.to_vec();
    header[0] = 3;
    header.extend([0x01, 0x08, 0x01, 0x02, 1, 2, 3, 4, 5, 6, 7, 8]);
    let out = receive(&mut node, Node::NEIGHBOUR_V4.into(), &header, &frame);
    assert_eq!((out.retval, out.packet.len()), (REDIRECT, frame.len()));
}

#[test]
fn a_header_that_is_not_ours_is_refused_by_name() {
    if !require_root() {
        return;
    }
    let mut node = node_with_tunnel(NodeConfig::GENEVE, Node::NEIGHBOUR_V4.into());
    let frame = from_remote(&node)[0].tcp(80, 1000, "SA");
    for (what, reason, at, value) in [
        ("another network", Reason::INVALID_VNI, 6, 0),
        ("another version", Reason::INVALID_GENEVE_OPTION, 0, 0x40),
        ("a critical option", Reason::INVALID_GENEVE_OPTION, 1, 0x40),
        ("a control packet", Reason::INVALID_GENEVE_OPTION, 1, 0x80),
        ("not Ethernet inside", Reason::UNSUPPORTED_L2_PROTOCOL, 2, 0),
        (
            "options beyond the end",
            Reason::CT_TRUNCATED_OR_INVALID_HEADER,
            0,
            0x3f,
        ),
    ] {
        let mut header = GENEVE;
        header[at] = value;
        assert_refused(
            &mut node,
            what,
            reason,
            Node::NEIGHBOUR_V4.into(),
            &header,
            &frame,
        );
    }
}

#[test]
fn a_packet_inside_that_its_sender_may_not_send_is_refused_by_name() {
    if !require_root() {
        return;
    }
    let mut node = node_with_tunnel(NodeConfig::GENEVE, Node::NEIGHBOUR_V4.into());
    let own = from_remote(&node)[0];
    let frame = |source: IpAddr, destination: IpAddr| {
        Path {
            source,
            destination,
            ..own
        }
        .tcp(80, 1000, "S")
    };
    let whole = frame(own.source, own.destination);
    let mut arp = whole.clone();
    arp[12..14].copy_from_slice(&[8, 6]);
    let neighbour = IpAddr::from(Node::NEIGHBOUR_V4);
    let ip = |text: &str| -> IpAddr { text.parse().expect("an address") };
    let local = node.pods[1].v4.into();
    for (what, reason, sender, inner) in [
        ("not IP", Reason::UNSUPPORTED_L2_PROTOCOL, neighbour, arp),
        (
            "from a machine that is no node",
            Reason::UNKNOWN_SENDER,
            ip("172.30.0.77"),
            whole,
        ),
        (
            "a source of nobody",
            Reason::UNKNOWN_SENDER,
            neighbour,
            frame(ip("10.244.9.9"), own.destination),
        ),
        (
            "a source of this node",
            Reason::UNKNOWN_SENDER,
            neighbour,
            frame(local, own.destination),
        ),
        (
            "to nobody",
            Reason::STALE_OR_UNROUTABLE_IP,
            neighbour,
            frame(own.source, ip("10.244.1.99")),
        ),
    ] {
        assert_refused(&mut node, what, reason, sender, &GENEVE, &inner);
    }
}

fn assert_refused(node: &mut Node, what: &str, reason: Reason, sender: IpAddr, header: &[u8], inner: &[u8]) {
    let before = node.count(reason);
    let out = receive(node, sender, header, inner);
    assert_eq!(out.retval, SHOT, "{what}");
    assert_eq!(node.count(reason), before + 1, "{what}");
    assert_eq!(
        node.drop_event().map(|event| event.reason),
        Some(reason),
        "{what}"
    );
}

#[test]
fn what_should_have_come_through_the_tunnel_is_refused_beside_it() {
    if !require_root() {
        return;
    }
    let mut node = node_with_tunnel(NodeConfig::GENEVE, Node::NEIGHBOUR_V4.into());
    for inner in from_remote(&node) {
        let mut frame = inner.tcp(80, 1000, "S");
        frame[0..6].copy_from_slice(&wire_mac(&mut node));
        let wire = node.wire;
        assert_eq!(node.run(Hook::FromWire, wire, &frame).retval, SHOT);
    }
    assert_eq!(node.count(Reason::INVALID_SOURCE_IP), 2);
}

#[test]
fn other_traffic_of_the_node_is_left_alone() {
    if !require_root() {
        return;
    }
    let mut node = node_with_tunnel(NodeConfig::GENEVE, Node::NEIGHBOUR_V4.into());
    let mac = wire_mac(&mut node);
    let wire = node.wire;
    for (source, destination) in [
        (IpAddr::from(Node::NEIGHBOUR_V4), IpAddr::from(Node::V4)),
        (Node::NEIGHBOUR_V6.into(), Node::V6.into()),
    ] {
        let path = Path::new(node.pods[0].mac, source, destination);
        for mut frame in [path.tcp(1, PORT, "S"), path.udp(PORT, 53), path.echo(1, false)] {
            frame[0..6].copy_from_slice(&mac);
            let out = node.run(Hook::FromWire, wire, &frame);
            assert_eq!((out.retval, out.packet), (NEXT, frame));
        }
    }
}

#[test]
fn a_router_that_quotes_eight_bytes_is_heard() {
    if !require_root() {
        return;
    }
    for device in [0, NodeConfig::TUNNEL_DEVICE] {
        for (end, own, kind, code) in [
            (IpAddr::from(Node::NEIGHBOUR_V4), IpAddr::from(Node::V4), 3, 4),
            (Node::NEIGHBOUR_V6.into(), Node::V6.into(), 2, 0),
        ] {
            let mut node = node_with_tunnel(device, end);
            let net = ipnet::IpNet::from(end);
            node.datapath
                .prefixes()
                .upsert(&net, &Prefix::tunnel(end.into(), TUNNEL_MTU))
                .unwrap();
            let mac = wire_mac(&mut node);
            let wire = node.wire;
            let mut tell = |about: Vec<u8>, kind: u8| {
                let router = Path::new(node.pods[0].mac, end, own);
                let mut error = router.icmp_error(kind, code, &about);
                let mtu_at = if end.is_ipv4() { 40 } else { 60 };
                error[mtu_at..mtu_at + 2].copy_from_slice(&1300_u16.to_be_bytes());
                error[0..6].copy_from_slice(&mac);
                assert_eq!(node.run(Hook::FromWire, wire, &error).retval, NEXT);
                node.events.next(std::time::Duration::ZERO).unwrap()
            };
            let sent = Path::new(datapath::common::Mac([0; 6]), own, end);
            match tell(sent.udp(0xc001, PORT), kind) {
                Some(Event::PathMtu(told)) => assert_eq!((told.node.to_ip(), told.mtu), (end, 1300)),
                other => panic!("{other:?}"),
            }
            assert_eq!(tell(sent.udp(0xc001, PORT + 1), kind), None, "not our tunnel's");
            assert_eq!(tell(sent.tcp(0xc001, PORT, "A"), kind), None, "not our tunnel's");
            assert_eq!(tell(sent.udp(0xc001, PORT), 1), None, "another message");
            let foreign = Path {
                source: end,
                destination: own,
                ..sent
            };
            assert_eq!(
                tell(foreign.udp(0xc001, PORT), kind),
                None,
                "never sent from here"
            );
        }
    }
}

#[test]
fn the_host_reaches_other_nodes_pods_through_the_tunnel() {
    if !require_root() {
        return;
    }
    let end = IpAddr::from(Node::NEIGHBOUR_V4);
    let mut node = node_with_tunnel(NodeConfig::GENEVE, end);
    let path = Path::new(node.pods[0].mac, Node::V4, Node::REMOTE_V4);
    let frame = path.tcp(1000, 80, "S");
    let host = node.host;
    let out = node.run(Hook::FromHost, host, &frame);
    assert_eq!(out.retval, REDIRECT);
    assert_eq!(out.packet[50..62], [TUNNEL_MAC.0, GATEWAY_MAC.0].concat());
    assert_eq!(out.packet[64..], frame[14..], "no hop: the stack has taken it");
}

#[test]
fn without_its_device_the_program_of_the_device_knows_no_sender() {
    if !require_root() {
        return;
    }
    let mut node = node_with_tunnel(NodeConfig::TUNNEL_DEVICE, Node::NEIGHBOUR_V4.into());
    let frame = from_remote(&node)[0].tcp(80, 1000, "S");
    let wire = node.wire;
    assert_eq!(node.run(Hook::FromTunnel, wire, &frame).retval, SHOT);
    assert_eq!(node.count(Reason::ERROR_RETRIEVING_TUNNEL_KEY), 1);
}

/// A node whose tunnel to the neighbour, and to the pods there, ends at `end`.
fn node_with_tunnel(flags: u32, end: IpAddr) -> Node {
    let flags = flags | NodeConfig::IPV4 | NodeConfig::IPV6 | NodeConfig::TUNNEL;
    let mut node = Node::with(flags, |options| {
        options.node.vni = VNI;
        options.node.tunnel_port = Be16::new(PORT);
    });
    let row = Prefix::tunnel(end.into(), TUNNEL_MTU);
    for net in ["10.244.2.0/24", "fd74:7710:0:2::/64"] {
        node.datapath
            .prefixes()
            .upsert(&net.parse().expect("a prefix"), &row)
            .expect("row");
    }
    let local = LocalNode {
        addresses: [Addr::from(Node::V4), Addr::from(Node::V6)],
        tunnel_ifindex: 0,
        _reserved: 0,
    };
    node.datapath.node().set(&local).expect("row");
    node
}

/// What a pod of the other node sends to the first of this one, as it is in the tunnel.
fn from_remote(node: &Node) -> [Path; 2] {
    let pod = &node.pods[0];
    let path = |source: IpAddr, destination: IpAddr| Path {
        to: TUNNEL_MAC,
        ..Path::new(GATEWAY_MAC, source, destination)
    };
    [
        path(Node::REMOTE_V4.into(), pod.v4.into()),
        path(Node::REMOTE_V6.into(), pod.v6.into()),
    ]
}

fn wire_mac(node: &mut Node) -> [u8; 6] {
    node.netlink
        .link("wire")
        .expect("links")
        .expect("the wire")
        .mac
        .expect("Ethernet")
        .0
}

/// Lets the frame come from the wire in a tunnel packet of `sender`.
fn receive(node: &mut Node, sender: IpAddr, header: &[u8], frame: &[u8]) -> TestRunOutput {
    let destination = if sender.is_ipv4() {
        IpAddr::from(Node::V4)
    } else {
        Node::V6.into()
    };
    let path = Path::new(node.pods[0].mac, sender, destination);
    let payload = [header, frame].concat();
    let mut outer = path.udp_with(0xc123, PORT, &payload);
    outer[0..6].copy_from_slice(&wire_mac(node));
    let wire = node.wire;
    node.run(Hook::FromWire, wire, &outer)
}

/// The frame's packet, one hop less, in a tunnel packet from this node to `end`.
fn assert_wrapped(outer: &[u8], frame: &[u8], end: IpAddr, header: [u8; 8]) {
    let sliced = SlicedPacket::from_ethernet(outer).expect("valid");
    match sliced.net.expect("IP") {
        NetSlice::Ipv4(ip) => {
            let ip = ip.header().to_header();
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            assert_eq!(IpAddr::from(ip.source), IpAddr::from(Node::V4));
            assert_eq!(IpAddr::from(ip.destination), end);
            assert!(ip.dont_fragment && ip.time_to_live == 64);
        }
        NetSlice::Ipv6(ip) => {
            assert_eq!(ip.header().source_addr(), Node::V6);
            assert_eq!(IpAddr::from(ip.header().destination_addr()), end);
        }
        NetSlice::Arp(_) => panic!("not IP"),
    }
    let Some(TransportSlice::Udp(udp)) = sliced.transport else {
        panic!("not UDP")
    };
    assert_eq!(udp.destination_port(), PORT);
    assert_eq!(usize::from(udp.length()), 8 + 8 + frame.len());
    let payload = udp.payload();
    assert_eq!(payload[..8], header);
    let inner = &payload[8..];
    assert_eq!(inner[0..12], [TUNNEL_MAC.0, GATEWAY_MAC.0].concat());
    assert_eq!(inner[12..14], frame[12..14]);
    assert_eq!(inner[26..], frame[26..], "nothing else is touched");
}
