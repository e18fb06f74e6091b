// SPDX-License-Identifier: Apache-2.0
//! Nodes try each other and a pod on each: what `thalweg health` shows when all is well, when one way is cut, and afterwards.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::process::{Command, Output};

use lab::Lab;
use lab::spec::Nodes;
use nix::sys::signal::Signal;
use serde_json::Value;
use tests_netns::objects::items;
use tests_netns::{agent_status, ask_agent, eventually, run, said, start, thalweg};
use thalweg_tests_netns as tests_netns;

const KINDS: [&str; 4] = ["node-icmp", "node-tcp", "pod-icmp", "pod-tcp"];

/// From, to, kind.
type Failure = (String, String, String);

#[test]
fn the_matrix_shows_exactly_the_way_that_is_cut_and_that_it_is_back() {
    let Some(lab) = start("health", |spec| spec.nodes = Nodes::Count(3)) else {
        return;
    };
    let well = probe(&lab, &[]);
    assert!(well.status.success(), "{}", said(&well));
    let views = views(&lab);
    for view in &views {
        let peers = view["peers"].as_array().unwrap();
        assert_eq!(peers.len(), 2, "{view}");
        for probes in peers.iter().map(|peer| peer["probes"].as_array().unwrap()) {
            let tried: Vec<_> = probes
                .iter()
                .map(|probe| probe["kind"].as_str().unwrap())
                .collect();
            assert_eq!(tried, KINDS.map(|kind| [kind; 2]).concat(), "both families");
            assert!(probes.iter().all(|probe| probe["ok"] == true), "{probes:?}");
        }
    }

    cut(&lab, &["to-node-1", "to-node-2"], true);
    let text = probe(&lab, &[]);
    assert_eq!(text.status.code(), Some(1), "{}", said(&text));
    let between = |a: &str, b: &str| KINDS.map(|kind| (a.to_owned(), b.to_owned(), kind.to_owned()));
    let expected: BTreeSet<Failure> = [between("node-1", "node-2"), between("node-2", "node-1")]
        .into_iter()
        .flatten()
        .collect();
    assert_eq!(failures(&lab), expected);
    let text = said(&text);
    assert!(
        text.contains("4 of 6 ways") && text.contains("FAIL FAIL FAIL FAIL"),
        "{text}"
    );
    let summary = agent_status(&lab, "node-1").health.unwrap();
    assert_eq!((summary.peers, summary.failing), (2, 1));
    assert_eq!(summary.failures[0].peer, "node-2");
    let status = said(&thalweg(&["status", "--lab", lab.name()]));
    assert!(status.contains("way to node-2"), "{status}");
    let metrics = ask_agent(&lab, "node-1", "/metrics");
    for line in [
        "thalweg_health_up{peer=\"node-2\",kind=\"node-icmp\"} 0",
        "thalweg_health_up{peer=\"node-3\",kind=\"pod-tcp\"} 1",
        "thalweg_health_latency_seconds{peer=\"node-3\",kind=\"pod-icmp\"} 0.",
        "thalweg_health_probes_total{kind=\"pod-icmp\",result=\"failed\"}",
    ] {
        assert!(metrics.contains(line), "{line} is missing in {metrics}");
    }

    cut(&lab, &["to-node-1", "to-node-2"], false);
    // Nobody asks: a node that failed is tried again soon.
    eventually("the way is back", || failures(&lab).is_empty());
}

#[test]
fn a_node_without_pods_or_without_an_agent_is_told_apart_from_one_that_is_gone() {
    let Some(lab) = start("health-agent", |spec| {
        spec.pods_per_node = 0;
        spec.agent.insert("health.intervalSeconds".into(), 5.into());
    }) else {
        return;
    };
    let text = probe(&lab, &[]);
    assert!(
        text.status.success() && said(&text).contains("none none"),
        "{}",
        said(&text)
    );
    // It would be started again at once: stopped, its port is open and nobody answers.
    let agent = agent_status(&lab, "node-2").pid.to_string();
    assert!(run(&lab, "node-2", &["kill", "-STOP", &agent]).status.success());
    let only = ["node-1".to_owned(), "node-2".to_owned(), "node-tcp".to_owned()];
    let [from, to, kind] = only;
    let output = probe(&lab, &["--node", "node-1", "-o", "json"]);
    assert_eq!(failures_of(&output), [(from, to, kind)].into_iter().collect());
    assert!(run(&lab, "node-2", &["kill", "-CONT", &agent]).status.success());
    lab.restart_agent("node-2", Signal::SIGKILL).unwrap();
    eventually("it answers again", || failures(&lab).is_empty());
}

#[test]
fn health_that_is_off_tries_nothing_and_says_so() {
    let Some(lab) = start("health-off", |spec| {
        spec.agent.insert("health.enabled".into(), false.into());
    }) else {
        return;
    };
    let output = probe(&lab, &[]);
    let text = said(&output);
    assert!(
        output.status.success() && text.contains("node-1: health.enabled is false there"),
        "{text}"
    );
    assert_eq!(agent_status(&lab, "node-1").health, None);
    let sockets = run(&lab, "node-1", &["ss", "-Hltn"]);
    assert!(
        sockets.status.success() && !said(&sockets).contains(":4240"),
        "{}",
        said(&sockets)
    );
}

/// Tries everything now.
fn probe(lab: &Lab, more: &[&str]) -> Output {
    let arguments = [&["health", "--probe", "--lab", lab.name()][..], more].concat();
    thalweg(&arguments)
}

fn views(lab: &Lab) -> Vec<Value> {
    items(&thalweg(&["health", "--lab", lab.name(), "-o", "json"]))
}

fn failures(lab: &Lab) -> BTreeSet<Failure> {
    failures_of(&thalweg(&["health", "--lab", lab.name(), "-o", "json"]))
}

fn failures_of(output: &Output) -> BTreeSet<Failure> {
    let mut failures = BTreeSet::new();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    for view in items(output) {
        for peer in view["peers"].as_array().unwrap() {
            let failed = peer["probes"].as_array().unwrap().iter();
            let failed = failed.filter(|probe| probe["ok"] == false);
            failures
                .extend(failed.map(|probe| (text(&view["node"]), text(&peer["peer"]), text(&probe["kind"]))));
        }
    }
    failures
}

/// Isolated ports of the underlay's bridge talk to all others, but not to each other.
fn cut(lab: &Lab, links: &[&str], isolated: bool) {
    let network = lab.state().underlay.unwrap().namespace("net");
    let isolated = if isolated { "on" } else { "off" };
    for link in links {
        let output = Command::new("nsenter")
            .arg(format!("--net={}", network.display()))
            .args([
                "ip",
                "link",
                "set",
                link,
                "type",
                "bridge_slave",
                "isolated",
                isolated,
            ])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }
}
