// SPDX-License-Identifier: Apache-2.0
//! Agents come and go; traffic does not notice.

use lab::Lab;
use lab::spec::Nodes;
use nix::sys::signal::Signal;
use tests_netns::hitless::Traffic;
use tests_netns::{agent_status, assert_pings, assert_tcp, start};
use thalweg_tests_netns as tests_netns;

const RESTARTS: usize = 20;

#[test]
fn a_hundred_connections_and_a_udp_stream_outlive_twenty_restarts_and_a_kill() {
    let Some(lab) = start("hitless", |_| ()) else {
        return;
    };
    let (near, far) = (lab.pod_ips("pod-1-2").unwrap(), lab.pod_ips("pod-2-1").unwrap());
    let mut traffic = Traffic::new();
    for (v4_or_v6, count) in [(0, 25), (1, 25)] {
        traffic.connect(&lab, "pod-1-1", "pod-1-2", near[v4_or_v6], count);
        traffic.connect(&lab, "pod-1-1", "pod-2-1", far[v4_or_v6], count);
    }
    traffic.stream(&lab, "pod-1-1", "pod-1-2", near[0]);
    traffic.stream(&lab, "pod-1-1", "pod-2-1", far[1]);

    for _ in 0..RESTARTS {
        let before = traffic.echoes();
        restart_both(&lab, Signal::SIGTERM);
        tests_netns::eventually("a hundred echoes since", || traffic.echoes() >= before + 100);
    }
    restart_both(&lab, Signal::SIGKILL);

    let report = traffic.finish();
    assert_eq!(report.broken, [""; 0]);
    assert!(report.echoes > 100 * RESTARTS as u64, "{report:?}");
    assert_eq!(report.sent, report.received, "datagrams were lost");
    assert!(report.sent > 1000, "{report:?}");
}

#[test]
fn pods_made_before_a_restart_are_reached_by_new_connections_after_it() {
    let Some(lab) = start("after", |_| ()) else { return };
    for node in ["node-1", "node-2"] {
        lab.restart_agent(node, Signal::SIGKILL).unwrap();
    }
    for (from, to) in [
        ("pod-1-1", "pod-1-2"),
        ("pod-1-1", "pod-2-1"),
        ("node-1", "pod-2-2"),
    ] {
        for ip in lab.pod_ips(to).unwrap() {
            assert_pings(&lab, from, ip);
            assert_tcp(&lab, from, to, ip);
        }
    }
}

/// Both agents at once: at times there is none at all.
fn restart_both(lab: &Lab, signal: Signal) {
    std::thread::scope(|scope| {
        for node in ["node-1", "node-2"] {
            scope.spawn(move || lab.restart_agent(node, signal).expect("the agent comes back"));
        }
    });
}

#[test]
fn an_agent_whose_socket_somebody_removed_says_so() {
    let Some(lab) = start("socketless", |spec| spec.nodes = Nodes::Count(1)) else {
        return;
    };
    let node = lab.node("node-1").unwrap();
    std::fs::remove_file(node.run_dir.join("thalweg/cni.sock")).unwrap();
    tests_netns::eventually("it is said", || {
        let status = agent_status(&lab, "node-1");
        let of_it = |message: &str| message.contains("cni.sock (cni.socket)");
        !status.ready && status.conditions.iter().any(|one| !one.ok && of_it(&one.message))
    });
    lab.restart_agent("node-1", Signal::SIGTERM).unwrap();
    tests_netns::eventually("all is well again", || agent_status(&lab, "node-1").ready);
}
