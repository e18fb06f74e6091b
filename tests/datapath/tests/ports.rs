// SPDX-License-Identifier: Apache-2.0
//! The node's ports towards one remote end when all are taken: those of TCP connections that are over go to new ones.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};

use datapath::common::CtEntry;
use datapath::common::ct::State;
use datapath::common::event::Hook;
use datapath::common::nat::Ports;
use datapath::common::{Mac, Reason};
use datapath::{Connection, GcReport, Timeouts};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use thalweg_tests_datapath::packet::{Path, ends, sums_hold};
use thalweg_tests_datapath::{Node, require_root};

const SHOT: u32 = 2;
const REDIRECT: u32 = 7;

/// One, so that a connection gets this or none.
const PORT: u16 = 50_000;
const ONE: Ports = Ports::only(PORT);
/// Behind all sequence numbers of [`Path::tcp`].
const LATER: u32 = 0x0010_0000;
/// Longer than any connection must be over, at any rate of the kernel's clock.
const LONG: u32 = 1_000_000;

#[test]
fn the_port_of_a_connection_that_is_over_goes_to_a_new_one() {
    if !require_root() {
        return;
    }
    let mut node = Node::masquerading(ONE);
    for (old, new) in paths(&node) {
        for end in ["R", "FA"] {
            open(&mut node, &old, 80);
            close(&mut node, &old, 80, end);
            silent_for(&node, LONG);
            assert!(
                gets_port(&mut node, 1, &new.tcp_at(41_000, 80, "S", LATER)),
                "{end}"
            );
            let answer = answers(&mut node, &new).tcp(80, PORT, "SA");
            let out = node.run(Hook::FromWire, node.wire, &answer);
            assert_eq!(out.retval, REDIRECT);
            assert_eq!(ends(&out.packet).1.ip(), new.source, "the port is the new one's");
            assert_eq!(ends(&out.packet).1.port(), 41_000);
            assert_eq!(connections(&node).len(), 1, "the old one is gone");
            // Nothing is left to collect but what is there.
            let report = collect(&node, |_| {});
            assert_eq!((report.removed, report.nat.swept, report.nat.entries), (0, 0, 1));
            node.datapath.conntrack().remove_address(new.source).unwrap();
        }
    }
    assert_eq!(node.drop_event(), None);
}

#[test]
fn a_port_stays_with_a_connection_that_may_still_need_it() {
    if !require_root() {
        return;
    }
    let mut node = Node::masquerading(ONE);
    for (old, new) in paths(&node) {
        let wire = answers(&mut node, &old);
        let later = |port| new.tcp_at(41_000, port, "S", LATER);
        open(&mut node, &old, 80);
        silent_for(&node, LONG);
        assert!(!gets_port(&mut node, 1, &later(80)), "opens");
        node.run(Hook::FromWire, node.wire, &wire.tcp(80, PORT, "SA"));
        node.from_pod(0, &old.tcp(40_000, 80, "A"));
        silent_for(&node, LONG);
        assert!(!gets_port(&mut node, 1, &later(80)), "is open");
        node.from_pod(0, &old.tcp(40_000, 80, "FA"));
        silent_for(&node, LONG);
        assert!(!gets_port(&mut node, 1, &later(80)), "one end has closed");
        node.run(Hook::FromWire, node.wire, &wire.tcp(80, PORT, "FA"));
        // Heard of after the new one's packet was, for whose clock that is the future.
        silent_for(&node, LONG.wrapping_neg());
        assert!(!gets_port(&mut node, 1, &later(80)), "was over just now");
        silent_for(&node, LONG);
        for frame in [
            new.tcp_at(41_000, 80, "A", LATER),
            new.tcp_at(41_000, 80, "S", 1),
            new.tcp_at(41_000, 80, "S", LATER | 1 << 31),
        ] {
            assert!(!gets_port(&mut node, 1, &frame), "no SYN that follows");
        }
        assert!(gets_port(&mut node, 1, &later(80)), "is over");

        // UDP is over when it is collected, whatever its age.
        assert!(gets_port(&mut node, 0, &old.udp(40_000, 53)));
        silent_for(&node, LONG);
        assert!(!gets_port(&mut node, 1, &new.udp(41_000, 53)));
        for pod in [old.source, new.source] {
            node.datapath.conntrack().remove_address(pod).unwrap();
        }
    }
}

#[test]
fn a_pods_last_sequence_number_counts_and_not_its_first() {
    if !require_root() {
        return;
    }
    let mut node = Node::masquerading(ONE);
    for (old, new) in paths(&node) {
        open(&mut node, &old, 80);
        let answer = answers(&mut node, &old).tcp(80, PORT, "R");
        node.from_pod(0, &old.tcp_at(40_000, 80, "FA", LATER));
        node.run(Hook::FromWire, node.wire, &answer);
        silent_for(&node, LONG);
        let between = new.tcp_at(41_000, 80, "S", LATER / 2);
        assert!(!gets_port(&mut node, 1, &between));
        assert!(gets_port(&mut node, 1, &new.tcp_at(41_000, 80, "S", 2 * LATER)));
        node.datapath.conntrack().remove_address(new.source).unwrap();
    }
}

#[test]
fn the_collector_leaves_a_port_alone_that_is_anothers_by_now() {
    if !require_root() {
        return;
    }
    let mut node = Node::masquerading(ONE);
    let [(old, new), _] = paths(&node);
    open(&mut node, &old, 80);
    close(&mut node, &old, 80, "R");
    silent_for(&node, LONG);
    let before = node.datapath.conntrack().map().rows().unwrap();
    assert!(gets_port(&mut node, 1, &new.tcp_at(41_000, 80, "S", LATER)));
    // As if the collector had seen the old one before, and the new one were not of now.
    for (key, row) in before {
        node.datapath.conntrack().map().insert(&key, &row).unwrap();
    }
    let conntrack = node.datapath.conntrack();
    let nat = conntrack.nat().map();
    for (key, mut row) in nat.rows().unwrap() {
        row.created = row.created.wrapping_sub(LONG);
        nat.insert(&key, &row).unwrap();
    }
    let report = collect(&node, |_| {});
    assert_eq!((report.removed, report.nat.swept, report.nat.entries), (1, 0, 1));
    assert_eq!(connections(&node)[0].tuple.source.to_ip(), new.source);
    let answer = answers(&mut node, &new).tcp(80, PORT, "SA");
    assert_eq!(node.run(Hook::FromWire, node.wire, &answer).retval, REDIRECT);
}

#[test]
fn ports_that_new_connections_take_do_not_count_as_taken() {
    if !require_root() {
        return;
    }
    let mut node = Node::masquerading(Ports {
        first: PORT,
        last: PORT + 3,
    });
    let [(old, _), _] = paths(&node);
    for source in 40_000..40_004 {
        node.from_pod(0, &old.tcp(source, 80, "S"));
    }
    let busiest = |node: &Node| collect(node, |_| {}).nat.busiest;
    assert_eq!(busiest(&node), 4);
    node.from_pod(0, &old.tcp(40_001, 80, "R"));
    assert_eq!(busiest(&node), 3);
    assert_eq!(collect(&node, |_| {}).nat.entries, 4);
}

/// What [`race`] has each CPU do.
const OPENED: usize = 3000;

#[test]
fn two_cpus_never_take_one_port() {
    if !require_root() {
        return;
    }
    let mut node = Node::masquerading(Ports {
        first: PORT,
        last: PORT + 63,
    });
    let program = node.datapath.program(Hook::FromPod).unwrap();
    let [(first, second), _] = paths(&node);
    let devices = [node.pods[0].ifindex, node.pods[1].ifindex];
    let opened = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for (cpu, path) in [first, second].into_iter().enumerate() {
            let (program, opened) = (program.as_fd(), &opened);
            scope.spawn(move || race(cpu, &path, devices[cpu], program, opened));
        }
    });
    assert!(
        opened.into_inner() >= OPENED,
        "ports of closed connections come back"
    );
    // Each connection that is there has a port of its own.
    let nat: BTreeMap<_, _> = node
        .datapath
        .conntrack()
        .nat()
        .map()
        .rows()
        .unwrap()
        .into_iter()
        .map(|(key, row)| {
            let port = key
                .port
                .iter()
                .map(|port| port.get())
                .find(|port| *port != 80)
                .unwrap();
            (port, (row.pod.to_ip(), row.port.get()))
        })
        .collect();
    let connections = connections(&node);
    assert!(connections.len() <= 64 && nat.len() <= 64);
    for connection in connections {
        let port = connection.masqueraded.expect("masqueraded").port();
        let pod = (
            connection.tuple.source.to_ip(),
            connection.tuple.source_port.get(),
        );
        assert_eq!(nat.get(&port), Some(&pod), "of {port}");
    }
}

/// Opens and aborts connections on one CPU as fast as it can.
fn race(cpu: usize, path: &Path, device: u32, program: BorrowedFd<'_>, opened: &AtomicUsize) {
    /// More than it takes by far: with a clock of 100 ticks a second the ports come back 25 times in a second.
    const TRIES: u32 = 2_000_000;
    let mut only = CpuSet::new();
    only.set(cpu).unwrap();
    // On a machine with one CPU there is no race.
    let _ = sched_setaffinity(Pid::from_raw(0), &only);
    let context = Node::context(device, 0);
    for number in 0..TRIES {
        if opened.load(Ordering::Relaxed) >= OPENED {
            return;
        }
        let source = 1024 + u16::try_from(number % 40_000).unwrap();
        let frame = |flags| path.tcp_at(source, 80, flags, number << 16);
        let run = |frame: &[u8]| datapath::test_run(program, frame, &context, 1).unwrap().retval;
        if run(&frame("S")) == REDIRECT {
            run(&frame("R"));
            opened.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The first and the second pod to the world, in both families.
fn paths(node: &Node) -> [(Path, Path); 2] {
    let [a, b] = &node.pods;
    [
        (
            Path::new(a.mac, a.v4, Node::NEIGHBOUR_V4),
            Path::new(b.mac, b.v4, Node::NEIGHBOUR_V4),
        ),
        (
            Path::new(a.mac, a.v6, Node::NEIGHBOUR_V6),
            Path::new(b.mac, b.v6, Node::NEIGHBOUR_V6),
        ),
    ]
}

/// The way of answers over the wire.
fn answers(node: &mut Node, path: &Path) -> Path {
    let to = Mac(node.netlink.link("wire").unwrap().unwrap().mac.unwrap().0);
    let destination: IpAddr = if path.source.is_ipv4() {
        Node::V4.into()
    } else {
        Node::V6.into()
    };
    Path {
        to,
        destination,
        ..path.reply(Mac([2, 0, 0, 0, 0, 9]))
    }
}

fn open(node: &mut Node, path: &Path, port: u16) {
    assert!(gets_port(node, 0, &path.tcp(40_000, port, "S")));
}

/// Establishes a connection of the first pod and ends it: by a RST, or from both ends.
fn close(node: &mut Node, path: &Path, port: u16, flags: &str) {
    let wire = answers(node, path);
    for flags in ["SA", flags] {
        node.run(Hook::FromWire, node.wire, &wire.tcp(port, PORT, flags));
        let flags = if flags == "SA" { "A" } else { flags };
        node.from_pod(0, &path.tcp(40_000, port, flags));
    }
    assert_eq!(connections(node)[0].entry.state, State::CLOSED);
}

/// Whether a pod's packet goes out with the port; else it is dropped for want of one.
fn gets_port(node: &mut Node, pod: usize, frame: &[u8]) -> bool {
    let refused = node.count(Reason::NO_MAPPING_FOR_NAT_MASQUERADE);
    let out = node.from_pod(pod, frame);
    if out.retval == SHOT {
        let counted = node.count(Reason::NO_MAPPING_FOR_NAT_MASQUERADE);
        assert_eq!(counted, refused + 1, "nothing else is amiss");
        return false;
    }
    assert_eq!(out.retval, REDIRECT);
    sums_hold(&out.packet);
    assert_eq!(ends(&out.packet).0.port(), PORT);
    true
}

/// Moves the last packets of all connections into the past.
fn silent_for(node: &Node, ticks: u32) {
    let conntrack = node.datapath.conntrack();
    let map = conntrack.map();
    for (key, row) in map.rows().unwrap() {
        let row = CtEntry {
            last_seen: row.created.wrapping_sub(ticks),
            ..row
        };
        map.insert(&key, &row).unwrap();
    }
}

fn connections(node: &Node) -> Vec<Connection> {
    node.datapath.conntrack().entries().unwrap()
}

fn collect(node: &Node, change: impl FnOnce(&mut Timeouts)) -> GcReport {
    let mut timeouts = Timeouts::default();
    change(&mut timeouts);
    let conntrack = node.datapath.conntrack();
    conntrack
        .collect_garbage(&timeouts, &GcReport::default())
        .unwrap()
}
