// SPDX-License-Identifier: Apache-2.0
//! The verbs that look at a cluster, by nothing but a kubeconfig: agents are found as pods and run the program there. And the taint
//! that an agent takes away.
#![expect(clippy::unwrap_used, reason = "this is a test")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use lab::Lab;
use lab::spec::Nodes;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests_netns::examine::json as answer;
use tests_netns::objects::{kubectl, kubectl_fed};
use tests_netns::{eventually, program, said, start, thalweg};
use thalweg_tests_netns as tests_netns;

const TAINT: &str = "node.thalweg.io/agent-not-ready";

#[test]
fn doctor_upgrade_check_advise_and_verify_need_a_kubeconfig_and_nothing_else() {
    let Some(lab) = start("kubeconfig", |spec| spec.nodes = Nodes::Count(3)) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let (kubeconfig, file) = (lab.kubeconfig(), directory.path().join("platform.yaml"));
    let kubeconfig = kubeconfig.to_str().unwrap();
    agents_as_pods(&lab, directory.path());

    let report = answer(&thalweg(&["doctor", "--kubeconfig", kubeconfig, "-o", "json"]));
    assert_eq!(report["findings"], json!([]), "{report:#}");
    assert_eq!(unknown(&report), ["upgrade.deprecated"], "{report:#}");

    let upgrade = ["upgrade", "check", "--kubeconfig", kubeconfig, "--to-kubernetes"];
    let upgraded = answer(&thalweg(&[upgrade.as_slice(), &["1.33", "-o", "json"]].concat()));
    assert_eq!(verdict(&upgraded, "kernel.canary"), "pass", "{upgraded:#}");
    assert_eq!(verdict(&upgraded, "kubernetes.step"), "pass", "{upgraded:#}");
    let skipped = thalweg(&[upgrade.as_slice(), &["1.34", "-o", "json"]].concat());
    assert_eq!(verdict(&answer(&skipped), "kubernetes.step"), "block");
    assert_eq!(skipped.status.code(), Some(4), "{}", said(&skipped));

    let advice = answer(&thalweg(&[
        "advise",
        "--kubeconfig",
        kubeconfig,
        "--no-questions",
        "-o",
        "json",
    ]));
    let seen = advice["evidence"].to_string();
    assert!(
        seen.contains("3 of 3 nodes have one, as in 10.244.0.0/24"),
        "{advice:#}"
    );

    fs::write(&file, platform(lab.name())).unwrap();
    let verify = [
        "platform",
        "verify",
        file.to_str().unwrap(),
        "--kubeconfig",
        kubeconfig,
        "-o",
        "json",
    ];
    let verified = thalweg(&verify);
    assert_eq!(verified.status.code(), Some(0), "{}", said(&verified));
    assert!(
        answer(&verified)["compared"].as_u64().unwrap() > 20,
        "{}",
        said(&verified)
    );

    what_is_changed_in_the_cluster_is_found(&lab, &verify, kubeconfig);
}

#[test]
fn a_cluster_that_cannot_be_asked_is_unknown_or_refused_with_the_reason() {
    let Some(lab) = start("kubeconfig-bad", |_| ()) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let (closed, file) = (
        directory.path().join("closed"),
        directory.path().join("platform.yaml"),
    );
    let text = fs::read_to_string(lab.kubeconfig()).unwrap();
    let server = text.lines().find(|line| line.contains("server:")).unwrap();
    fs::write(&closed, text.replace(server, "    server: https://127.0.0.1:1")).unwrap();
    fs::write(&file, platform(lab.name())).unwrap();
    let verify = |kubeconfig: &Path| {
        let arguments = ["platform", "verify", file.to_str().unwrap(), "--kubeconfig"];
        thalweg(
            &[
                arguments.as_slice(),
                &[kubeconfig.to_str().unwrap(), "-o", "json"],
            ]
            .concat(),
        )
    };
    let output = verify(&closed);
    let report = answer(&output);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        (&report["deviations"], &report["compared"]),
        (&json!([]), &json!(0)),
        "{report:#}"
    );
    let reasons: Vec<String> = report["unknown"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["reason"].to_string())
        .collect();
    assert!(
        reasons.len() == 3
            && reasons
                .iter()
                .all(|one| one.contains("cannot list") && one.contains("closed") && one.contains("refused")),
        "{reasons:#?}"
    );
    let doctor = thalweg(&["doctor", "--kubeconfig", closed.to_str().unwrap(), "--strict"]);
    assert_eq!(doctor.status.code(), Some(5), "{}", said(&doctor));
    let none = thalweg(&["doctor", "--kubeconfig", "/nonexistent"]);
    assert!(
        none.status.code() == Some(1) && said(&none).contains("/nonexistent"),
        "{}",
        said(&none)
    );
}

#[test]
fn an_agent_that_becomes_ready_takes_its_taint_away_and_no_other() {
    let Some(lab) = start("taint", |_| ()) else {
        return;
    };
    for effect in ["NoSchedule", "NoExecute"] {
        // Pods that do not tolerate it would be evicted by a controller that the lab has not.
        kubectl(
            &lab,
            &["taint", "nodes", "node-1", &format!("{TAINT}=true:{effect}")],
        );
    }
    kubectl(
        &lab,
        &["taint", "nodes", "node-1", "dedicated=db:PreferNoSchedule"],
    );
    kubectl(
        &lab,
        &["taint", "nodes", "node-2", &format!("{TAINT}=true:NoSchedule")],
    );
    let keys = |node: &str| {
        let taints = ["get", "node", node, "-o", "jsonpath={.spec.taints[*].key}"];
        kubectl(&lab, &taints)
    };
    assert_eq!(keys("node-1").split(' ').count(), 3);
    lab.restart_agent("node-1", Signal::SIGTERM).unwrap();
    eventually("the agent takes its taints away", || {
        keys("node-1") == "dedicated"
    });
    assert_eq!(keys("node-2"), TAINT, "another agent's node");
    lab.restart_agent("node-2", Signal::SIGKILL).unwrap();
    eventually("the other agent, too", || keys("node-2").is_empty());
}

fn what_is_changed_in_the_cluster_is_found(lab: &Lab, verify: &[&str], kubeconfig: &str) {
    kubectl(
        lab,
        &["taint", "nodes", "node-2", &format!("{TAINT}=true:NoSchedule")],
    );
    create(lab, &daemon_set("aws-node", "/usr/bin:/bin"));
    let deviations = answer(&thalweg(verify))["deviations"].clone();
    for subject in ["node node-2", "DaemonSet aws-node"] {
        let found = deviations
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["subject"] == subject);
        assert!(found, "{subject}: {deviations:#}");
    }
    let report = answer(&thalweg(&["doctor", "--kubeconfig", kubeconfig, "-o", "json"]));
    let found: Vec<&str> = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|one| one["check"].as_str())
        .collect();
    assert!(found.contains(&"cni.daemonset"), "{report:#}");
}

fn unknown(report: &Value) -> Vec<&str> {
    let unknown = report["unknown"].as_array().unwrap();
    unknown.iter().filter_map(|one| one["check"].as_str()).collect()
}

fn verdict<'a>(report: &'a Value, gate: &str) -> &'a str {
    let gates = report["gates"].as_array().unwrap();
    let found = gates.iter().find(|one| one["id"] == gate);
    found.and_then(|one| one["verdict"].as_str()).unwrap_or("absent")
}

/// A lab as a file that plans it; the cluster has the name of the kubeconfig's context.
fn platform(lab: &str) -> String {
    format!(
        "name: lab\npools: {{pods: 10.244.0.0/16}}\nclusters:\n  - name: thalweg-lab-{lab}\n    cloud: machines\n    region: here\n    \
         endpoint: 172.30.0.1:6443\n    network: 172.30.0.0/24\n    services: 10.96.0.0/16\n    kubernetes: \"1.32\"\n    mode: pod-cidr\n    \
         podsPerNode: 250\n    nodeGroups: [{{name: all, min: 3, max: 5}}]\n"
    )
}

/// In a lab agents are no pods. Here each node gets one beside its agent, in which the program runs as it does in an agent's: with the
/// node's network, and its places being those of a lab.
fn agents_as_pods(lab: &Lab, directory: &Path) {
    let wrapper: PathBuf = directory.join("thalweg");
    let program = program();
    let script = format!(
        "#!/bin/sh\ncase \"$1 $2\" in\n\"doctor gather\") exec {0} \"$@\" --cni-conf-dir {1} --keep-dir /run/thalweg-kept ;;\n*) exec {0} \"$@\" ;;\nesac\n",
        program.display(),
        lab::node::CNI_CONF_DIR
    );
    fs::write(&wrapper, script).unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", directory.display());
    create(lab, &daemon_set("thalweg", &path));
    let rollout = [
        "rollout",
        "status",
        "daemonset/thalweg",
        "-n",
        "kube-system",
        "--timeout=30s",
    ];
    kubectl(lab, &rollout);
}

fn create(lab: &Lab, object: &Value) {
    kubectl_fed(lab, &["create", "-f", "-"], &object.to_string());
}

fn daemon_set(name: &str, path: &str) -> Value {
    let labels = json!({"app.kubernetes.io/name": name});
    let container = json!({"name": "agent", "image": "none", "command": ["sleep", "100000"], "env": [{"name": "PATH", "value": path}]});
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": name, "namespace": "kube-system"},
        "spec": {
            "selector": {"matchLabels": labels}, "updateStrategy": {"type": "RollingUpdate"},
            "template": {"metadata": {"labels": labels}, "spec": {
                "hostNetwork": true, "priorityClassName": "system-node-critical", "tolerations": [{"operator": "Exists"}], "containers": [container],
            }},
        },
    })
}
