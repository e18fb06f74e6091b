// SPDX-License-Identifier: Apache-2.0
//! Agents and operators come and go under load: no connection breaks, no ping is lost.
//!
//! `HITLESS_SECONDS=60` spreads the same over a minute; the figure of docs/benchmarks.md is that run.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::process::Child;
use std::time::{Duration, Instant};

use lab::Lab;
use lab::spec::Ipam;
use nix::sys::signal::Signal;
use tests_netns::hitless::Traffic;
use tests_netns::objects::{kill_leader, leader};
use tests_netns::{eventually, start};
use thalweg_tests_netns as tests_netns;

const RESTARTS: u32 = 20;
/// After so many restarts the operator that leads is killed.
const FAILOVERS: [u32; 2] = [5, 14];
/// Pings of one target in a second.
const PING_RATE: u64 = 20;

#[test]
fn twenty_restarts_of_agents_and_two_failovers_of_operators_break_nothing_and_lose_no_ping() {
    let Some(lab) = start("failover", |spec| spec.ipam = Ipam::ClusterPool) else {
        return;
    };
    let seconds: u64 = std::env::var("HITLESS_SECONDS").map_or(20, |text| text.parse().unwrap());
    let (near, far) = (lab.pod_ips("pod-1-2").unwrap(), lab.pod_ips("pod-2-1").unwrap());
    let mut traffic = Traffic::new();
    for family in [0, 1] {
        traffic.connect(&lab, "pod-1-1", "pod-1-2", near[family], 25);
        traffic.connect(&lab, "pod-1-1", "pod-2-1", far[family], 25);
        traffic.stream(&lab, "pod-1-1", "pod-2-1", far[family]);
    }
    let targets = [near, far].concat();
    let pings: Vec<Child> = targets
        .iter()
        .map(|to| ping(&lab, &to.to_string(), seconds * PING_RATE))
        .collect();

    let begin = Instant::now();
    let mut leaders = Vec::new();
    for restart in 0..RESTARTS {
        let before = traffic.echoes();
        let node = ["node-1", "node-2"][restart as usize % 2];
        let signal = [Signal::SIGTERM, Signal::SIGTERM, Signal::SIGKILL][restart as usize % 3];
        lab.restart_agent(node, signal).unwrap();
        if FAILOVERS.contains(&restart) {
            leaders.push(kill_leader(&lab));
        }
        eventually("a hundred echoes since", || traffic.echoes() >= before + 100);
        // Spread over the time; nothing waits for this.
        let due = begin + Duration::from_secs(seconds) * (restart + 1) / RESTARTS;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    eventually("an operator leads again", || leader(&lab).is_some());
    assert_eq!(leaders.len(), FAILOVERS.len());

    for (child, to) in pings.into_iter().zip(&targets) {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let count = seconds * PING_RATE;
        let expected = format!("{count} packets transmitted, {count} received, 0% packet loss");
        assert!(text.contains(&expected), "{to}: {text}");
    }
    let elapsed = begin.elapsed();
    let report = traffic.finish();
    assert_eq!(report.broken, [""; 0]);
    assert_eq!(report.sent, report.received, "datagrams were lost");
    assert!(report.echoes > 100 * u64::from(RESTARTS), "{report:?}");
    println!(
        "{RESTARTS} restarts of agents and {} failovers in {:.0} s: {} pings, {} echoes on 100 connections, {} datagrams; \
         none lost, no connection broken",
        FAILOVERS.len(),
        elapsed.as_secs_f32(),
        seconds * PING_RATE * targets.len() as u64,
        report.echoes,
        report.sent,
    );
}

fn ping(lab: &Lab, to: &str, count: u64) -> Child {
    let count = count.to_string();
    let interval = (1.0 / PING_RATE as f32).to_string();
    let arguments = ["-n", "-q", "-c", &count, "-i", &interval, "-W", "5", to];
    let arguments: Vec<String> = arguments.map(str::to_owned).to_vec();
    let mut command = lab
        .command(&lab.target(None, "pod-1-1"), "ping", &arguments)
        .unwrap();
    command.stdout(std::process::Stdio::piped()).spawn().unwrap()
}
