// SPDX-License-Identifier: Apache-2.0
//! The doctor on labs: silent on a healthy one, and right about what hurts a node; upgrades checked, with real canaries.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use lab::spec::Nodes;
use serde_json::Value;
use tests_netns::examine::{checks_on, findings, json, named_process, on_node, shell, stop, text};
use tests_netns::{program, said, start, thalweg};
use thalweg_tests_netns as tests_netns;

/// How long the doctor may take on a healthy lab of three nodes.
const GOAL: Duration = Duration::from_secs(2);
/// What the lab's own API server cannot tell.
const UNKNOWN_IN_LABS: [&str; 1] = ["upgrade.deprecated"];

#[test]
fn nothing_is_found_on_a_healthy_lab_of_three_nodes_within_two_seconds() {
    let Some(lab) = start("doctor-well", |spec| spec.nodes = Nodes::Count(3)) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let record = directory.path().join("facts.json");
    let begin = Instant::now();
    let output = thalweg(&[
        "doctor",
        "--lab",
        lab.name(),
        "-o",
        "json",
        "--record",
        record.to_str().unwrap(),
    ]);
    let took = begin.elapsed();
    let report = json(&output);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(report["findings"], Value::Array(vec![]), "{report:#}");
    for unknown in report["unknown"].as_array().unwrap() {
        let check = unknown["check"].as_str().unwrap();
        assert!(UNKNOWN_IN_LABS.contains(&check), "{unknown:#}");
    }
    assert!(took < GOAL, "{took:?}");

    let again = thalweg(&["doctor", "--from", record.to_str().unwrap(), "-o", "json"]);
    assert_eq!(json(&again), report, "a record is examined like the lab itself");
    let strict = thalweg(&["doctor", "--from", record.to_str().unwrap(), "--strict"]);
    assert_eq!(strict.status.code(), Some(5), "{}", said(&strict));
    let one = thalweg(&[
        "doctor",
        "--from",
        record.to_str().unwrap(),
        "--check",
        "kernel",
        "--strict",
        "-o",
        "json",
    ]);
    assert_eq!(
        (one.status.code(), json(&one)["passed"].as_array().map(Vec::len)),
        (Some(0), Some(4))
    );
}

#[test]
fn what_cannot_be_read_or_asked_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let broken = directory.path().join("broken.json");
    fs::write(&broken, "{\"schema\": 1, \"nodes\": 7}").unwrap();
    for (arguments, reason) in [
        (vec!["doctor", "--from", broken.to_str().unwrap()], "is no record"),
        (vec!["doctor", "--from", "/nonexistent"], "cannot read"),
        (
            vec![
                "doctor",
                "--check",
                "nonsense",
                "--from",
                broken.to_str().unwrap(),
            ],
            "no check `nonsense`",
        ),
        (
            vec![
                "upgrade",
                "check",
                "--to-kubernetes",
                "newest",
                "--from",
                broken.to_str().unwrap(),
            ],
            "no version",
        ),
        (
            vec!["conflicts", "restore", broken.to_str().unwrap()],
            "no copy of removed parts",
        ),
        (
            vec![
                "conflicts",
                "rollback",
                "--to",
                "vpc-cni",
                "--execute",
                "--root",
                directory.path().to_str().unwrap(),
            ],
            "no copy below",
        ),
    ] {
        let output = thalweg(&arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(reason), "{arguments:?}: {}", said(&output));
    }
}

#[test]
fn what_hurts_a_node_is_found_there_and_nowhere_else() {
    let Some(lab) = start("doctor-hurt", |_| ()) else {
        return;
    };
    on_node(
        &lab,
        &[
            "sh",
            "-c",
            "set -e
            sysctl -qw net.ipv4.conf.all.rp_filter=1
            ip link set $(ls /sys/class/net | grep '^tw' | head -n 1) mtu 1300
            mkdir -p /run/empty
            printf '{\"name\":\"x\",\"plugins\":[{\"type\":\"macvlan\"}]}' > /run/cni/net.d/00-other.conflist
            printf 'not json' > /run/cni/net.d/02-broken.conf
            mount -t tmpfs none /run/empty",
        ],
    );
    let networkd = named_process(&lab, "systemd-network");
    let found = findings(&lab);
    for (check, evidence) in [
        ("host.sysctls", "net.ipv4.conf.all.rp_filter is 1"),
        ("addresses.mtu", "(1300)"),
        (
            "cni.order",
            "00-other.conflist (another network: macvlan) sorts before 05-thalweg.conflist",
        ),
        ("cni.ours", "02-broken.conf cannot be read"),
        ("host.managers", "systemd-networkd"),
    ] {
        let hit = |one: &&Value| text(one, "check") == check && text(one, "evidence").contains(evidence);
        let one = found
            .iter()
            .find(hit)
            .unwrap_or_else(|| panic!("{check} with {evidence}: {found:#?}"));
        assert_eq!(text(one, "where"), "node-1");
    }
    assert_eq!(checks_on(&found, "node-2"), BTreeSet::new());
    stop(networkd);

    // An agent that does not answer, and one node that does not either.
    fs::remove_file(lab.agent_socket("node-2").unwrap()).unwrap();
    let silent = findings(&lab);
    let answers = silent.iter().find(|one| text(one, "check") == "agent.answers");
    let answers = answers.unwrap_or_else(|| panic!("{silent:#?}"));
    assert_eq!(text(answers, "where"), "node-2");
    assert!(
        text(answers, "evidence").contains("no agent answers"),
        "{answers:#}"
    );
}

#[test]
fn the_programs_are_tried_on_a_canary_that_leaves_nothing() {
    let Some(lab) = start("doctor-canary", |_| ()) else {
        return;
    };
    let program = program().display().to_string();
    let look = || {
        said(&shell(
            &lab,
            "find /sys/fs/bpf | sort; ls /run; cat /proc/self/mounts",
        ))
    };
    let before = look();
    let canary = json(&on_node(&lab, &[&program, "upgrade", "canary", "-o", "json"]));
    let programs = canary["programs"].as_array().unwrap();
    assert!(programs.iter().any(|name| name == "from_pod"), "{canary:#}");
    assert!(canary.get("error").is_none(), "{canary:#}");
    assert_eq!(look(), before);
}

#[test]
fn an_upgrade_is_checked_gate_by_gate() {
    let Some(lab) = start("doctor-upgrade", |_| ()) else {
        return;
    };
    let check = |to: &str, more: &[&str]| {
        let words = [
            "upgrade",
            "check",
            "--lab",
            lab.name(),
            "--to-kubernetes",
            to,
            "-o",
            "json",
        ];
        let output = thalweg(&[&words, more].concat());
        (output.status.code(), json(&output))
    };
    let (code, next) = check("1.33", &[]);
    assert_eq!(
        (code, verdict(&next, "kernel.canary")),
        (Some(5), "pass"),
        "{next:#}"
    );
    assert_eq!(
        verdict(&next, "kernel.image"),
        "unknown",
        "its image is in no table"
    );
    for step in next["runbook"].as_array().unwrap() {
        for part in ["title", "command", "gate", "undo"] {
            assert!(!step[part].as_str().unwrap().is_empty(), "{step:#}");
        }
    }
    assert_eq!(
        check("1.33", &["--accept-unknown"]).0,
        Some(3),
        "untested with 1.33"
    );
    assert_eq!(check("1.32", &["--accept-unknown"]).0, Some(0), "nothing changes");
    let (code, far) = check("1.35", &["--no-canary"]);
    assert_eq!((code, verdict(&far, "kubernetes.step")), (Some(4), "block"));
    assert_eq!(verdict(&far, "kernel.canary"), "unknown", "not tried");

    // A second network that the upgrade would bring back is in the way.
    shell(
        &lab,
        r#"printf '{"name":"x","plugins":[{"type":"aws-cni"}]}' > /run/cni/net.d/00-aws.conflist"#,
    );
    let (code, rival) = check("1.32", &["--accept-unknown", "--no-canary"]);
    assert_eq!(
        (code, verdict(&rival, "nodes.one-network")),
        (Some(4), "block"),
        "{rival:#}"
    );
}

fn verdict<'a>(assessment: &'a Value, id: &str) -> &'a str {
    let mut gates = assessment["gates"].as_array().expect("gates").iter();
    let gate = gates
        .find(|gate| gate["id"] == id)
        .unwrap_or_else(|| panic!("{assessment:#}"));
    gate["verdict"].as_str().expect("a verdict")
}
