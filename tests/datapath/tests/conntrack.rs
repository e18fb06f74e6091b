// SPDX-License-Identifier: Apache-2.0
//! Connections as packets make and end them.

use std::time::Duration;

use datapath::common::ct::State;
use datapath::common::event::Hook;
use datapath::common::packet::proto;
use datapath::common::{Mac, Reason};
use datapath::{Connection, GcReport, Timeouts};
use thalweg_tests_datapath::packet::Path;
use thalweg_tests_datapath::{Node, require_root};

const SHOT: u32 = 2;

/// The two pods' paths to each other, in one family.
fn both_ways(node: &Node, v6: bool) -> (Path, Path) {
    let [a, b] = &node.pods;
    let there = if v6 {
        Path::new(a.mac, a.v6, b.v6)
    } else {
        Path::new(a.mac, a.v4, b.v4)
    };
    (there, there.reply(b.mac))
}

fn only_connection(node: &Node) -> Connection {
    let all = node.datapath.conntrack().entries().expect("valid");
    assert_eq!(all.len(), 1, "{all:?}");
    all[0]
}

#[test]
fn a_tcp_connection_is_one_row_from_open_to_close() {
    if !require_root() {
        return;
    }
    for v6 in [false, true] {
        let mut node = Node::up();
        let (there, back) = both_ways(&node, v6);
        let mut bytes = [0_u64; 2];
        for (client, flags, state) in [
            (true, "S", State::SYN_SENT),
            (false, "SA", State::SYN_RECEIVED),
            (true, "A", State::ESTABLISHED),
            (true, "PA", State::ESTABLISHED),
            (false, "PA", State::ESTABLISHED),
            (true, "FA", State::HALF_CLOSED),
            (false, "PA", State::HALF_CLOSED),
            (false, "FA", State::CLOSED),
            (true, "A", State::CLOSED),
        ] {
            let frame = if client {
                there.tcp(1000, 80, flags)
            } else {
                back.tcp(80, 1000, flags)
            };
            bytes[usize::from(!client)] += frame.len() as u64;
            node.from_pod(usize::from(!client), &frame);
            assert_eq!(only_connection(&node).entry.state, state, "after {flags}");
        }
        let Connection { tuple, entry, .. } = only_connection(&node);
        assert_eq!(
            (tuple.source.to_ip(), tuple.destination.to_ip()),
            (there.source, there.destination)
        );
        assert_eq!(
            (tuple.source_port.get(), tuple.destination_port.get(), tuple.proto),
            (1000, 80, proto::TCP)
        );
        assert_eq!((entry.packets, entry.bytes), ([5, 4], bytes));
        assert_eq!(entry.tcp_flags, [0x1b, 0x1b]);
        node.from_pod(1, &back.tcp(80, 1000, "S"));
        let reopened = only_connection(&node);
        assert_eq!(
            (reopened.entry.state, reopened.tuple.source_port.get()),
            (State::SYN_SENT, 80)
        );
        assert_eq!(reopened.entry.packets, [1, 0]);
    }
}

#[test]
fn udp_and_echo_are_replied_by_the_other_end() {
    if !require_root() {
        return;
    }
    for v6 in [false, true] {
        let mut node = Node::up();
        let (there, back) = both_ways(&node, v6);
        for (ask, answer) in [
            (there.udp(1000, 53), back.udp(53, 1000)),
            (there.echo(7, false), back.echo(7, true)),
        ] {
            node.from_pod(0, &ask);
            node.from_pod(0, &ask);
            assert_eq!(only_connection(&node).entry.state, State::UNREPLIED);
            node.from_pod(1, &answer);
            let entry = only_connection(&node).entry;
            assert_eq!((entry.state, entry.packets), (State::REPLIED, [2, 1]));
            assert_eq!(node.datapath.conntrack().remove_address(there.source).unwrap(), 1);
        }
    }
}

#[test]
fn a_connection_across_nodes_is_one_row_too() {
    if !require_root() {
        return;
    }
    let mut node = Node::up();
    let own = Mac(node.netlink.link("wire").unwrap().unwrap().mac.unwrap().0);
    let there = Path::new(node.pods[0].mac, node.pods[0].v4, Node::REMOTE_V4);
    let back = Path {
        to: own,
        ..there.reply(Mac([2; 6]))
    };
    node.from_pod(0, &there.tcp(1000, 80, "S"));
    node.run(Hook::FromWire, node.wire, &back.tcp(80, 1000, "SA"));
    node.from_pod(0, &there.tcp(1000, 80, "A"));
    assert_eq!(only_connection(&node).entry.state, State::ESTABLISHED);
}

#[test]
fn an_icmp_error_passes_only_to_the_sender_of_a_known_connection() {
    if !require_root() {
        return;
    }
    for v6 in [false, true] {
        let mut node = Node::up();
        let (there, back) = both_ways(&node, v6);
        let (kind, code) = if v6 { (1, 4) } else { (3, 3) };
        for ask in [
            there.udp(1000, 53),
            there.tcp(1000, 80, "S"),
            there.echo(7, false),
        ] {
            node.from_pod(0, &ask);
            let before = only_connection(&node).entry;
            assert_ne!(node.from_pod(1, &back.icmp_error(kind, code, &ask)).retval, SHOT);
            assert_eq!(
                only_connection(&node).entry,
                before,
                "an error opens and refreshes nothing"
            );
            // It quotes a packet that the other end would have sent.
            assert_eq!(node.from_pod(0, &there.icmp_error(kind, code, &ask)).retval, SHOT);
            node.datapath.conntrack().remove_address(there.source).unwrap();
            assert_eq!(node.from_pod(1, &back.icmp_error(kind, code, &ask)).retval, SHOT);
        }
        assert_eq!(node.count(Reason::UNRELATED_ICMP_ERROR), 6);
    }
}

#[test]
fn later_fragments_pass_untracked() {
    if !require_root() {
        return;
    }
    let mut node = Node::up();
    let (v4, _) = both_ways(&node, false);
    let mut frame = v4.udp(1000, 53);
    frame[14 + 6..14 + 8].copy_from_slice(&[0x00, 0x10]);
    // The checksum is the receiver's to check; a router only updates it.
    assert_ne!(node.from_pod(0, &frame).retval, SHOT);
    let (v6, _) = both_ways(&node, true);
    let mut frame = v6.udp(1000, 53);
    frame[20] = 44;
    frame.splice(54..54, [17, 0, 0x00, 0x10, 0, 0, 0, 1]);
    let payload = u16::try_from(frame.len() - 54).unwrap();
    frame[18..20].copy_from_slice(&payload.to_be_bytes());
    assert_ne!(node.from_pod(0, &frame).retval, SHOT);
    assert!(node.datapath.conntrack().is_empty().unwrap());
    frame[56..58].copy_from_slice(&[0x00, 0x01]);
    node.from_pod(0, &frame);
    assert_eq!(
        only_connection(&node).tuple.destination_port.get(),
        53,
        "the first fragment has ports"
    );
}

#[test]
fn a_full_table_refuses_the_new_and_keeps_the_old() {
    if !require_root() {
        return;
    }
    let mut node = Node::up();
    let (there, back) = both_ways(&node, false);
    let fits = u16::try_from(Node::CONNECTIONS).unwrap();
    let mut port = 0;
    // Preallocated rows are spread over the CPUs, which lend each other; none is lost.
    while node.from_pod(0, &there.udp(1000, port)).retval != SHOT {
        port += 1;
        assert!(port <= fits, "the table never fills");
    }
    assert_eq!(usize::from(port), node.datapath.conntrack().len().unwrap());
    assert_eq!(port, fits);
    assert_eq!(node.count(Reason::CT_MAP_INSERTION_FAILED), 1);
    assert_ne!(
        node.from_pod(1, &back.udp(0, 1000)).retval,
        SHOT,
        "a known connection goes on"
    );

    let conntrack = node.datapath.conntrack();
    let timeouts = Timeouts {
        unreplied: Duration::ZERO,
        ..Timeouts::default()
    };
    let report = conntrack
        .collect_garbage(&timeouts, &GcReport::default())
        .unwrap();
    assert_eq!(
        (report.scanned, report.removed, report.entries),
        (usize::from(fits), usize::from(fits) - 1, 1)
    );
    assert!((report.pressure - 1.0).abs() < 1e-9);
    assert_eq!(only_connection(&node).entry.state, State::REPLIED);
    assert_ne!(node.from_pod(0, &there.udp(1000, 9)).retval, SHOT);
}
