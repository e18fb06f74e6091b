// SPDX-License-Identifier: Apache-2.0
//! A lab on a real kube-apiserver. The programs are those of `KUBEBUILDER_ASSETS` (`etcd` and `kube-apiserver`); without them
//! there is nothing to test, and the test says that it is skipped.

use std::process::Command;

use lab::spec::ApiKind;
use lab::{Lab, Process};
use nix::sys::signal::Signal;
use tests_netns::objects::kubectl;
use tests_netns::{assert_pings, assert_tcp, eventually, said, start, thalweg};
use thalweg_tests_netns as tests_netns;

const APP: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: main, image: any, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
";

#[test]
fn a_lab_works_on_a_real_kube_apiserver() {
    if std::env::var_os("KUBEBUILDER_ASSETS").is_none() {
        println!("SKIPPED: KUBEBUILDER_ASSETS names no directory with etcd and kube-apiserver");
        return;
    }
    let Some(lab) = start("external", |spec| spec.api = ApiKind::External) else {
        return;
    };
    assert!(
        !kubectl(&lab, &["version"]).contains("thalweg"),
        "the server is not the embedded one"
    );
    let ranges = ["get", "nodes", "-o", "jsonpath={.items[*].spec.podCIDR}"];
    assert_eq!(kubectl(&lab, &ranges), "10.244.0.0/24 10.244.1.0/24");

    let ips = lab.pod_ips("pod-2-1").unwrap();
    for ip in &ips {
        assert_pings(&lab, "pod-1-1", *ip);
        assert_tcp(&lab, "pod-1-1", "pod-2-1", *ip);
    }
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        lab.restart_agent("node-1", signal).unwrap();
        assert_pings(&lab, "pod-1-1", ips[0]);
    }

    let all_paths = thalweg(&["connectivity", "test", "--lab", lab.name()]);
    assert!(all_paths.status.success(), "{}", said(&all_paths));

    let directory = tempfile::tempdir().unwrap();
    let manifest = directory.path().join("app.yaml");
    std::fs::write(&manifest, APP).unwrap();
    let manifest = manifest.to_str().unwrap();
    kubectl(&lab, &["apply", "-f", manifest]);
    kubectl(&lab, &["rollout", "status", "deployment/web", "--timeout=30s"]);
    eventually("the service has its two endpoints", || {
        let addresses = "jsonpath={.items[*].endpoints[*].addresses[0]}";
        let slices = [
            "get",
            "endpointslices",
            "-l",
            "kubernetes.io/service-name=web",
            "-o",
            addresses,
        ];
        kubectl(&lab, &slices).split_whitespace().count() == 2
    });
    kubectl(
        &lab,
        &["delete", "-f", manifest, "--cascade=foreground", "--timeout=30s"],
    );

    // The real server and its etcd go with the lab.
    let servers = servers(&lab);
    assert_eq!(servers.len(), 2, "etcd and kube-apiserver: {servers:?}");
    let (paths, state) = (lab.paths().clone(), lab.state().clone());
    assert!(servers[1].signal(Signal::SIGKILL) && servers[1].wait_gone(tests_netns::LIMIT));
    assert_eq!(state.defects(&paths), ["etcd or the kube-apiserver is gone"]);
    assert_pings(&lab, "pod-1-1", ips[0]);
    let down = thalweg(&["lab", "down", "--name", lab.name()]);
    assert!(down.status.success(), "{}", said(&down));
    for process in servers.iter().chain([&state.daemon]) {
        assert!(!process.is_alive(), "{process:?} is left");
    }
    assert!(!paths.dir.exists() && paths.cgroup().is_none_or(|cgroup| !cgroup.exists()));
}

#[test]
fn a_kube_apiserver_that_dies_at_its_start_is_reported_with_its_log() {
    if !tests_netns::privileged() {
        return;
    }
    let assets = tempfile::tempdir().unwrap();
    for (name, script) in [
        ("etcd", "#!/bin/sh\nexec sleep 1000\n"),
        ("kube-apiserver", "#!/bin/sh\necho the reason >&2\nexit 3\n"),
    ] {
        let path = assets.path().join(name);
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let name = tests_netns::unique("dead-server");
    let up = || {
        let mut command = Command::new(tests_netns::program());
        command.args(["lab", "up", "--nodes", "1", "--api", "external", "--name", &name]);
        command
    };
    let failed = up().env("KUBEBUILDER_ASSETS", assets.path()).output().unwrap();
    let text = said(&failed);
    assert!(!failed.status.success());
    assert!(
        text.contains("kube-apiserver ended at its start (exit status: 3)") && text.contains("the reason"),
        "{text}"
    );
    assert!(!lab::state::Paths::of(&name).dir.exists());

    // What can be seen before is refused before: nothing is made.
    std::fs::remove_file(assets.path().join("etcd")).unwrap();
    let refused = up().env("KUBEBUILDER_ASSETS", assets.path()).output().unwrap();
    let text = said(&refused);
    assert!(
        !refused.status.success() && text.contains("etcd is no program"),
        "{text}"
    );
    assert!(!text.contains("namespaces of"), "{text}");
}

/// The processes of the API server's cgroup.
fn servers(lab: &Lab) -> Vec<Process> {
    let cgroup = lab.paths().cgroup().expect("a cgroup2 hierarchy").join("api");
    let pids = lab::cgroup::processes(&cgroup);
    pids.into_iter().filter_map(Process::of).collect()
}
