// SPDX-License-Identifier: Apache-2.0
//! Masquerading by real agents: connections to the world outlive them, and ports that run out are counted and named.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tests_netns::hitless::Traffic;
use tests_netns::{agent_status, ask_agent, eventually, listen_in_world, run, said, start, thalweg, within};
use thalweg_tests_netns as tests_netns;

const RESTARTS: usize = 5;
const REFUSED: &str = "NO_MAPPING_FOR_NAT_MASQUERADE";

#[test]
fn connections_to_the_world_outlive_restarts_of_the_agent() {
    let Some(lab) = start("world-restart", masquerade) else {
        return;
    };
    let mut traffic = Traffic::new();
    for world in lab.api_addresses() {
        // The world sees the node.
        let listener = listen_in_world(&lab, world);
        let to = listener.local_addr().unwrap();
        let _stream = within(&lab, "pod-1-1", || {
            TcpStream::connect_timeout(&to, tests_netns::LIMIT)
        })
        .unwrap();
        let seen = listener.accept().unwrap().1.ip();
        let node = lab.state().nodes[0].addresses.clone();
        assert!(
            node.iter().any(|net| net.addr() == seen),
            "{seen} is not of {node:?}"
        );
        traffic.connect_to(&lab, "pod-1-1", listen_in_world(&lab, world), 25);
        traffic.connect_to(&lab, "pod-1-2", listen_in_world(&lab, world), 25);
    }
    for restart in 0..RESTARTS {
        let before = traffic.echoes();
        let signal = [Signal::SIGTERM, Signal::SIGKILL][restart % 2];
        lab.restart_agent("node-1", signal).unwrap();
        eventually("a hundred echoes since", || traffic.echoes() >= before + 100);
    }
    // The collector of a fresh agent has been through the table, and took no port away.
    eventually("connections are counted", || {
        let masquerade = agent_status(&lab, "node-1").masquerade;
        masquerade.is_some_and(|masquerade| masquerade.connections >= 100)
    });
    let before = traffic.echoes();
    eventually("a hundred echoes since", || traffic.echoes() >= before + 100);
    let report = traffic.finish();
    assert_eq!(report.broken, [""; 0]);
    assert_eq!(tests_netns::drops(&lab, "node-1", REFUSED), 0);
}

#[test]
fn ports_that_run_out_are_counted_and_named() {
    let Some(lab) = start("world-ports", |spec| {
        masquerade(spec);
        spec.agent
            .insert("masquerade.portRange".into(), "50000-50015".into());
    }) else {
        return;
    };
    let world = lab.api_addresses()[0];
    let (listener, other) = (listen_in_world(&lab, world), listen_in_world(&lab, world));
    let connect = |to: SocketAddr| {
        within(&lab, "pod-1-1", || {
            TcpStream::connect_timeout(&to, Duration::from_millis(700))
        })
    };
    let to = listener.local_addr().unwrap();
    let open: Vec<TcpStream> = (0..24).filter_map(|_| connect(to).ok()).collect();
    assert!((13..=16).contains(&open.len()), "{} of 16 ports", open.len());
    // Another remote end has all ports of its own.
    connect(other.local_addr().unwrap()).unwrap();

    eventually("the ports are counted", || {
        let masquerade = agent_status(&lab, "node-1").masquerade.unwrap();
        masquerade.refused > 0 && masquerade.ports_busiest == open.len() as u64
    });
    assert!(tests_netns::drops(&lab, "node-1", REFUSED) > 0);
    let status = said(&thalweg(&["status", "--lab", lab.name()]));
    assert!(
        status.contains("ports to one remote") && status.contains(REFUSED),
        "{status}"
    );
    let status = thalweg(&["status", "--lab", lab.name(), "--node", "node-1", "-o", "json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["items"][0]["masquerade"]["ports_max"], 16, "{status}");
    let metrics = ask_agent(&lab, "node-1", "/metrics");
    for line in [
        "thalweg_nat_ports_max 16".to_owned(),
        format!("thalweg_nat_ports_busiest {}", open.len()),
        format!("thalweg_drops_total{{reason=\"{REFUSED}\",direction=\"egress\"}}"),
    ] {
        assert!(metrics.contains(&line), "{line} is missing in {metrics}");
    }

    // Ports come back when their connections have ended.
    drop((open, listener));
    eventually("ports are free again", || {
        let masquerade = agent_status(&lab, "node-1").masquerade.unwrap();
        masquerade.ports_busiest <= 1
    });
}

#[test]
fn a_pod_cuts_what_is_too_big_for_the_way_to_the_world_by_itself() {
    let Some(lab) = start("world-cut", masquerade) else {
        return;
    };
    let world = lab.api_addresses()[0].to_string();
    let way = said(&run(&lab, "node-1", &["ip", "-o", "route", "get", &world]));
    let mut words = way.split_whitespace().skip_while(|word| *word != "dev");
    let device = words.nth(1).unwrap();
    // Locked, since what routers say of a path does not count for what is forwarded.
    let route = [
        "ip", "route", "replace", &world, "dev", device, "mtu", "lock", "1400",
    ];
    let narrowed = run(&lab, "node-1", &route);
    assert!(narrowed.status.success(), "{}", said(&narrowed));
    // It may be cut. The first is answered with an error, which says how large the pieces of the others may be.
    let ping = [
        "ping", "-n", "-c", "4", "-i", "0.2", "-W", "2", "-M", "dont", "-s", "1440", &world,
    ];
    let output = run(&lab, "pod-1-1", &ping);
    assert!(said(&output).contains(" 3 received"), "{}", said(&output));
}

fn masquerade(spec: &mut lab::Spec) {
    for (key, value) in [
        ("enableIPv4Masquerade", Value::from("true")),
        ("enableIPv6Masquerade", "true".into()),
        ("conntrack.gcIntervalSeconds", 1.into()),
        ("conntrack.timeouts.closingSeconds", 1.into()),
    ] {
        spec.agent.insert(key.into(), value);
    }
}
