// SPDX-License-Identifier: Apache-2.0
//! The verbs that ask agents and try the network out, on a lab.

use std::cell::OnceCell;
use std::io::{BufRead as _, BufReader};
use std::process::Output;
use std::time::Duration;

use lab::Lab;
use lab::spec::{Routing, Topology};
use nix::sys::signal::Signal;
use serde_json::Value;
use thalweg_tests_netns::objects::{cleanup, end_agent, items};
use thalweg_tests_netns::{agent_status, eventually, run, said, start, thalweg};

#[test]
fn all_connectivity_scenarios_hold_on_one_segment() {
    let Some(lab) = start("verbs-flat", |_| ()) else {
        return;
    };
    assert_all_pass(&lab, 0);
}

#[test]
fn all_connectivity_scenarios_hold_behind_a_router() {
    let Some(lab) = start("verbs-routed", |spec| spec.topology = Topology::Routed) else {
        return;
    };
    assert_all_pass(&lab, 0);
}

#[test]
fn reports_of_scenarios_have_their_documented_shape() {
    let Some(lab) = start("verbs-report", |_| ()) else {
        return;
    };
    let junit = thalweg(&[
        "connectivity",
        "test",
        "--lab",
        lab.name(),
        "--filter",
        "ping/pod-to-itself",
        "-o",
        "junit",
    ]);
    let text = said(&junit);
    assert!(
        junit.status.success() && text.contains("tests=\"2\" failures=\"0\" skipped=\"0\""),
        "{text}"
    );
    let nothing = thalweg(&[
        "connectivity",
        "test",
        "--lab",
        lab.name(),
        "--filter",
        "no such test",
    ]);
    assert!(
        !nothing.status.success() && said(&nothing).contains("--list shows them"),
        "{}",
        said(&nothing)
    );
}

#[test]
fn every_verb_shows_all_nodes_as_text_and_as_json() {
    let Some(lab) = start("verbs-show", |_| ()) else {
        return;
    };
    let ping = ["ping", "-c", "1", "-W", "5", &pod_address(&lab, "pod-2-1")];
    assert!(lab.exec_in_pod("pod-1-1", &ping).unwrap().status.success());
    for (verb, at_least) in [
        (&["status"] as &[&str], 2),
        (&["endpoint", "list"], 4),
        (&["endpoint", "get", "default/pod-1-1"], 1),
        (&["node", "list"], 4),
        (&["ipam", "status"], 2),
        (&["map", "list"], 8),
        (&["map", "dump", "endpoints"], 8),
        (&["map", "dump", "services"], 2),
        (&["service", "get", "default/kubernetes"], 2),
        (&["conntrack", "list"], 2),
        (&["drops"], 0),
    ] {
        let items = items(&ask(&lab, verb, &["-o", "json"]));
        assert!(items.len() >= at_least, "{verb:?}: {items:?}");
        let text = said(&ask(&lab, verb, &[]));
        assert!(
            text.contains("node-1") && !text.contains('\x1b'),
            "{verb:?}: {text}"
        );
        let one = said(&ask(&lab, verb, &["--node", "node-1"]));
        assert!(
            one.contains("node-1") && !one.contains("\nnode-2 "),
            "{verb:?}: {one}"
        );
    }
}

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {type: NodePort, selector: {app: thalweg-lab}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: diameter, namespace: default}
spec: {selector: {app: thalweg-lab}, ports: [{port: 3868, targetPort: 8080, protocol: SCTP}]}
";

#[test]
fn services_are_listed_with_who_answers_and_why_and_outlive_the_agent() {
    let Some(lab) = start("verbs-service", |_| ()) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("services.yaml");
    std::fs::write(&file, SERVICES).unwrap();
    let applied = thalweg(&["lab", "apply", "-f", file.to_str().unwrap(), "--name", lab.name()]);
    assert!(applied.status.success(), "{}", said(&applied));
    let list = || items(&ask(&lab, &["service", "list"], &["-o", "json"]));
    let on = |node: &str, name: &str| {
        list()
            .into_iter()
            .find(|row| row["node"] == node && row["name"] == name)
    };
    let of = |row: &Value, kind: &str| -> Vec<Value> {
        let all = row["frontends"].as_array().cloned().unwrap_or_default();
        all.into_iter()
            .filter(|frontend| frontend["kind"] == kind)
            .collect()
    };
    for node in ["node-1", "node-2"] {
        eventually("all four pods answer for the service", || {
            let row = on(node, "web").unwrap_or_default();
            of(&row, "ClusterIP")
                .iter()
                .any(|frontend| frontend["backends"] == 4)
        });
        let row = on(node, "web").unwrap();
        assert!(!of(&row, "NodePort").is_empty(), "{row}");
        eventually("the service that cannot be is refused by name", || {
            on(node, "diameter").is_some_and(|row| row["remarks"][0]["reason"] == "SctpPortChanged")
        });
    }
    let shown = said(&ask(
        &lab,
        &["service", "get", "default/web"],
        &["--node", "node-1"],
    ));
    assert!(shown.contains("ClusterIP") && shown.contains("chosen"), "{shown}");
    let none = thalweg(&["service", "get", "default/none", "--lab", lab.name()]);
    assert!(!none.status.success() && said(&none).contains("serves no service default/none"));
    let maps = || {
        let all = ["services", "backends"]
            .map(|map| said(&ask(&lab, &["map", "dump", map], &["--node", "node-1"])));
        all.map(|text| {
            text.lines()
                .map(str::to_owned)
                .collect::<std::collections::BTreeSet<_>>()
        })
    };
    let before = maps();
    lab.restart_agent("node-1", Signal::SIGKILL).unwrap();
    eventually("the services are in force again", || {
        agent_status(&lab, "node-1")
            .services
            .is_some_and(|services| services.in_sync)
    });
    assert_eq!(maps(), before, "a new agent leaves the rows as they are");
}

#[test]
fn a_drop_is_shown_with_its_reason_and_followed_as_it_happens() {
    let Some(lab) = start("verbs-drops", |_| ()) else {
        return;
    };
    let to = pod_address(&lab, "pod-2-1");
    let spoof = || {
        let script = format!("ip address replace {SPOOFED}/32 dev lo && ping -c 1 -W 1 -I {SPOOFED} {to}");
        drop(run(&lab, "pod-1-1", &["sh", "-c", &script]));
    };
    spoof();
    let filter = ["--pod", "default/pod-1-1", "--reason", "invalid_source_ip"];
    eventually("the drop is listed", || {
        let output = ask(&lab, &["drops"], &[&filter[..], &["-o", "json"]].concat());
        items(&output).iter().any(|drop| {
            let seen = [
                &drop["node"],
                &drop["source"],
                &drop["destination"],
                &drop["direction"],
            ];
            seen == ["node-1", SPOOFED, &to, "egress"]
        })
    });
    let text = said(&ask(&lab, &["drops"], &["--last", "1"]));
    assert!(
        text.contains("INVALID_SOURCE_IP") && text.contains("does not belong to the sender"),
        "{text}"
    );
    let none = ask(&lab, &["drops"], &["--ip", "192.0.2.77", "-o", "json"]);
    assert_eq!(items(&none), [] as [Value; 0]);

    let program = thalweg_tests_netns::program();
    let arguments = ["drops", "--follow", "--lab", lab.name(), "-o", "json"];
    let mut follower = std::process::Command::new(program)
        .args(arguments.iter().chain(&filter))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let (sender, lines) = std::sync::mpsc::channel();
    let output = BufReader::new(follower.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        let _ = output.lines().try_for_each(|line| sender.send(line.unwrap()));
    });
    let line = OnceCell::new();
    eventually("the drop is followed", || {
        spoof();
        lines
            .recv_timeout(Duration::from_millis(100))
            .is_ok_and(|said| line.set(said).is_ok())
    });
    let event: Value = serde_json::from_str(line.get().unwrap()).unwrap();
    assert_eq!(
        (&event["kind"], &event["source"]),
        (&"drop".into(), &SPOOFED.into()),
        "{event}"
    );
    // Nobody reads any more.
    drop(lines);
    let follower = std::cell::RefCell::new(follower);
    eventually("a follower without a reader ends", || {
        spoof();
        follower.borrow_mut().try_wait().unwrap().is_some()
    });
    reader.join().unwrap();
}

/// An address that no pod has.
const SPOOFED: &str = "10.99.0.99";

#[test]
fn an_agent_that_does_not_answer_is_listed_and_fails_nothing_else() {
    let Some(lab) = start("verbs-gone", |_| ()) else {
        return;
    };
    std::fs::remove_file(lab.agent_socket("node-2").unwrap()).unwrap();
    let output = thalweg(&["endpoint", "list", "--lab", lab.name(), "-o", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(list["unreachable"][0]["node"], "node-2", "{list}");
    assert_eq!(list["items"].as_array().map(Vec::len), Some(2), "{list}");
}

#[test]
fn cleanup_refuses_a_running_agent_and_dry_runs_remove_nothing() {
    let Some(lab) = start("verbs-clean", |spec| spec.routing = Routing::Vxlan) else {
        return;
    };
    // The directory of an agent that is not there: what the running one owns is found all the same.
    let elsewhere = ["--run-dir", "/run/nobody"];
    for arguments in [vec!["--yes"], [&["--yes"], &elsewhere[..]].concat()] {
        let refused = cleanup(&lab, &arguments);
        assert!(
            !refused.status.success() && said(&refused).contains("stop it first"),
            "{}",
            said(&refused)
        );
    }
    let dry = said(&cleanup(&lab, &[&["--dry-run"], &elsewhere[..]].concat()));
    for part in [
        "device thalweg_host",
        "device thalweg_tunnel",
        "device tw",
        "route 10.244.",
        "05-thalweg.conflist",
        "programs and maps",
    ] {
        assert!(dry.contains(part), "{part}: {dry}");
    }
    assert!(lab.node("node-1").is_ok_and(|node| lab.agent_is_ready(&node)));
}

#[test]
fn cleanup_leaves_nothing() {
    let Some(lab) = start("verbs-gone", |spec| spec.routing = Routing::Vxlan) else {
        return;
    };
    end_agent(&lab, "node-1");
    let cleaned = cleanup(&lab, &["--yes"]);
    assert!(cleaned.status.success(), "{}", said(&cleaned));
    let again = said(&cleanup(&lab, &["--dry-run"]));
    assert!(again.contains("Nothing of Thalweg"), "{again}");
    let links = said(&run(&lab, "node-1", &["ip", "-o", "link"]));
    assert!(!links.contains("thalweg") && !links.contains(" tw"), "{links}");
    let routes = said(&run(&lab, "node-1", &["ip", "route"]));
    assert!(!routes.contains("10.244."), "{routes}");
}

fn assert_all_pass(lab: &Lab, skipped: u64) {
    let output = thalweg(&["connectivity", "test", "--lab", lab.name(), "-o", "json"]);
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    let tests = report["tests"].as_array().expect("a list of tests");
    let bad: Vec<_> = tests.iter().filter(|test| test["result"] != "passed").collect();
    assert_eq!(
        (&report["failed"], &report["skipped"]),
        (&0.into(), &skipped.into()),
        "{bad:#?}"
    );
    assert_eq!(
        report["passed"].as_u64().map(|passed| passed + skipped),
        Some(tests.len() as u64)
    );
    assert!(output.status.success());
}

fn ask(lab: &Lab, verb: &[&str], more: &[&str]) -> Output {
    let arguments: Vec<_> = verb
        .iter()
        .chain(&["--lab", lab.name()])
        .chain(more)
        .copied()
        .collect();
    let output = thalweg(&arguments);
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    output
}

fn pod_address(lab: &Lab, pod: &str) -> String {
    lab.pod_ips(pod).expect("the pod runs")[0].to_string()
}
