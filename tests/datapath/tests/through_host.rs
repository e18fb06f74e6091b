// SPDX-License-Identifier: Apache-2.0
//! What must take the host's stack: answers to what came through there, pods whose rate is limited, pods of another network.

use std::net::IpAddr;

use datapath::TestRunOutput;
use datapath::common::ct::State;
use datapath::common::event::Hook;
use datapath::common::{CtEntry, Endpoint, Mac, NodeConfig, Reason};
use thalweg_tests_datapath::packet::{Path, arp, fragments, solicitation};
use thalweg_tests_datapath::{Node, require_root};

const NEXT: u32 = u32::MAX;
const SHOT: u32 = 2;
const REDIRECT: u32 = 7;
const STRANGER: Mac = Mac([2, 0, 0, 0, 0, 9]);

/// From outside to the first pod, in both families, and the way of its answers.
fn from_outside(node: &Node) -> [(Path, Path); 2] {
    let pod = &node.pods[0];
    [
        Path::new(STRANGER, Node::NEIGHBOUR_V4, pod.v4),
        Path::new(STRANGER, Node::NEIGHBOUR_V6, pod.v6),
    ]
    .map(|path| (path, path.reply(pod.mac)))
}

fn from_host(node: &mut Node, frame: &[u8]) -> TestRunOutput {
    let host = node.host;
    node.run(Hook::FromHost, host, frame)
}

#[test]
fn answers_to_what_came_through_the_host_go_back_through_it() {
    if !require_root() {
        return;
    }
    let mut node = Node::up();
    for (there, back) in from_outside(&node) {
        assert_eq!(from_host(&mut node, &there.tcp(1000, 80, "S")).retval, REDIRECT);
        let answer = back.tcp(80, 1000, "SA");
        let out = node.from_pod(0, &answer);
        assert_eq!((out.retval, out.packet), (NEXT, answer));

        // Without ports in every packet, and without a connection of their own.
        assert_eq!(from_host(&mut node, &there.udp(1000, 53)).retval, REDIRECT);
        for fragment in fragments(&back.udp_of(53, 1000, 3000), 7, 1480) {
            assert_eq!(node.from_pod(0, &fragment).retval, NEXT);
        }
        let (kind, code) = if there.source.is_ipv4() { (3, 3) } else { (1, 4) };
        let error = back.icmp_error(kind, code, &there.udp(1000, 53));
        assert_eq!(node.from_pod(0, &error).retval, NEXT);

        // What the pod opens itself, to the same place, goes past the stack.
        assert_eq!(node.from_pod(0, &back.tcp(5000, 80, "S")).retval, REDIRECT);
        assert_eq!(node.from_pod(0, &back.udp(5000, 53)).retval, REDIRECT);
    }
    assert_eq!(node.drop_event(), None);
}

#[test]
fn a_connection_that_is_opened_again_goes_the_way_of_its_new_opener() {
    if !require_root() {
        return;
    }
    let mut node = Node::up();
    for (there, back) in from_outside(&node) {
        from_host(&mut node, &there.tcp(1000, 80, "S"));
        assert_eq!(node.from_pod(0, &back.tcp(80, 1000, "RA")).retval, NEXT);
        // The pod itself, from the port that it was reached on.
        assert_eq!(node.from_pod(0, &back.tcp(80, 1000, "S")).retval, REDIRECT);
        assert_eq!(node.from_pod(0, &back.tcp(80, 1000, "RA")).retval, REDIRECT);
        // And once more from outside.
        from_host(&mut node, &there.tcp(1000, 80, "S"));
        assert_eq!(node.from_pod(0, &back.tcp(80, 1000, "SA")).retval, NEXT);
    }
}

#[test]
fn a_row_that_an_answer_has_made_learns_the_way_from_the_opener() {
    if !require_root() {
        return;
    }
    let mut node = Node::up();
    let [(there, back), _] = from_outside(&node);
    // As after an expiry of our row alone.
    assert_eq!(node.from_pod(0, &back.tcp(80, 1000, "SA")).retval, REDIRECT);
    from_host(&mut node, &there.tcp(1000, 80, "A"));
    assert_eq!(node.from_pod(0, &back.tcp(80, 1000, "PA")).retval, NEXT);
    let rows = node.datapath.conntrack().entries().unwrap();
    assert_eq!(rows[0].entry.state, State::ESTABLISHED);
    assert_eq!(rows[0].entry.flags, CtEntry::THROUGH_HOST);
}

#[test]
fn what_a_limited_pod_sends_and_receives_takes_the_stack() {
    if !require_root() {
        return;
    }
    let mut node = Node::up();
    let (limited, other) = (node.pods[0].mac, node.pods[1].mac);
    for ip in [node.pods[0].v4.into(), node.pods[0].v6.into()] {
        let mut row = Endpoint::pod(node.pods[0].ifindex, limited);
        row.flags = Endpoint::STACK;
        node.datapath.endpoints().upsert(ip, &row).unwrap();
    }
    let to = Mac(node.netlink.link("wire").unwrap().unwrap().mac.unwrap().0);
    let [a, b] = &node.pods;
    let paths = [
        (
            Path::new(limited, a.v4, b.v4),
            Path::new(STRANGER, Node::REMOTE_V4, a.v4),
        ),
        (
            Path::new(limited, a.v6, b.v6),
            Path::new(STRANGER, Node::REMOTE_V6, a.v6),
        ),
    ];
    for (between, wire) in paths {
        let frame = between.udp(1000, 53);
        let out = node.from_pod(0, &frame);
        assert_eq!((out.retval, out.packet), (NEXT, frame.clone()));
        assert_eq!(node.from_pod(0, &wire.reply(limited).udp(1000, 53)).retval, NEXT);
        assert_eq!(from_host(&mut node, &frame).retval, REDIRECT);
        // Both ways alike: half of a connection is no connection to netfilter.
        assert_eq!(node.from_pod(1, &between.reply(other).udp(53, 1000)).retval, NEXT);
        let frame = Path { to, ..wire }.udp(53, 1000);
        let index = node.wire;
        assert_eq!(node.run(Hook::FromWire, index, &frame).retval, NEXT);
    }
    let [a, b] = [node.pods[0].v4, node.pods[1].v4];
    let forged = Path::new(other, a, b).udp(1000, 53);
    assert_eq!(
        node.from_pod(0, &forged).retval,
        SHOT,
        "it is checked all the same"
    );
    let forged = Path {
        to,
        ..Path::new(STRANGER, b, a)
    };
    let index = node.wire;
    let out = node.run(Hook::FromWire, index, &forged.udp(53, 1000));
    assert_eq!(
        out.retval, SHOT,
        "and so is what the wire says to be of a pod here"
    );
}

#[test]
fn behind_another_network_everything_is_looked_at_and_left_to_the_stack() {
    if !require_root() {
        return;
    }
    let flags = NodeConfig::IPV4 | NodeConfig::IPV6 | NodeConfig::HOST_ROUTING | NodeConfig::CHAINED;
    let mut node = Node::with(flags, |_| {});
    let [a, b] = &node.pods;
    let (mac, index) = (a.mac, a.ifindex);
    let (a4, a6, b4): (IpAddr, IpAddr, IpAddr) = (a.v4.into(), a.v6.into(), b.v4.into());
    let request = arp(1, mac, node.pods[0].v4.octets(), [169, 254, 1, 1]);
    let asks = solicitation(mac, &a6.to_string(), "fe80::1", true);
    for frame in [request, asks, Path::new(mac, a4, b4).udp(1, 53)] {
        let out = node.from_pod(0, &frame);
        assert_eq!((out.retval, out.packet), (NEXT, frame));
    }
    let forged = Path::new(mac, b4, Node::V4).udp(1, 53);
    assert_eq!(node.from_pod(0, &forged).retval, SHOT);
    assert_eq!(node.count(Reason::INVALID_SOURCE_IP), 1);

    // On the way out of its own device: both legs of a connection are seen, and no byte is changed.
    for ip in [a4, a6] {
        let there = if ip.is_ipv4() {
            Path::new(STRANGER, Node::REMOTE_V4, ip)
        } else {
            Path::new(STRANGER, Node::REMOTE_V6, ip)
        };
        for (frame, from_pod) in [
            (there.tcp(1000, 80, "S"), false),
            (there.reply(mac).tcp(80, 1000, "SA"), true),
            (there.tcp(1000, 80, "A"), false),
        ] {
            let out = if from_pod {
                node.from_pod(0, &frame)
            } else {
                node.run(Hook::FromHost, index, &frame)
            };
            assert_eq!((out.retval, out.packet), (NEXT, frame));
        }
        let rows = node.datapath.conntrack().entries().unwrap();
        let tcp = rows.iter().find(|row| row.tuple.destination == ip.into());
        assert_eq!(tcp.unwrap().entry.state, State::ESTABLISHED);
    }
    let nobody = Path::new(
        STRANGER,
        Node::REMOTE_V4,
        "10.244.1.77".parse::<IpAddr>().unwrap(),
    );
    assert_eq!(node.run(Hook::FromHost, index, &nobody.udp(1, 1)).retval, NEXT);
    // A pod from before has no route of its own: the host's routes lead to our device.
    let there = Path::new(STRANGER, Node::REMOTE_V4, a4).udp(1, 53);
    assert_eq!(from_host(&mut node, &there).retval, REDIRECT);
}
