// SPDX-License-Identifier: Apache-2.0
//! Labs come, are looked at, and go without a trace.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use lab::state::Paths;
use lab::{Lab, Process, Spec};
use nix::sys::signal::Signal;
use tests_netns::{assert_pings, eventually, privileged, program, run, said, start, thalweg, unique};
use thalweg_tests_netns as tests_netns;

#[test]
fn a_lab_comes_and_goes_without_a_trace() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let Some(lab) = start("trace", |_| ()) else { return };
    assert_eq!(lab.pods().len(), 4);
    assert!(lab.state().defects(lab.paths()).is_empty());
    let remains = Remains::of(&lab);
    assert!(lab.down().unwrap());
    remains.assert_gone();
    assert_eq!(fs::read_to_string("/proc/self/mounts").unwrap(), mounts);
    assert!(!lab.down().unwrap(), "there is nothing to remove the second time");
}

#[test]
fn a_lab_whose_parts_were_killed_is_reported_and_removed() {
    let Some(lab) = start("killed", |_| ()) else {
        return;
    };
    let remains = Remains::of(&lab);
    let state = lab.state();
    assert!(state.daemon.signal(Signal::SIGKILL));
    assert!(state.daemon.wait_gone(tests_netns::LIMIT));

    // Pods do not notice.
    assert_pings(&lab, "pod-1-1", lab.pod_ips("pod-2-1").unwrap()[0]);
    let list = said(&thalweg(&["lab", "list"]));
    let line = list.lines().find(|line| line.starts_with(lab.name())).unwrap();
    assert!(line.contains("the daemon is gone"), "{list}");
    let status = thalweg(&["lab", "status", lab.name()]);
    assert!(
        !status.status.success() && said(&status).contains("thalweg lab down --name"),
        "{}",
        said(&status)
    );
    let up = thalweg(&["lab", "up", "--name", lab.name()]);
    assert!(
        !up.status.success() && said(&up).contains("not whole: the daemon is gone"),
        "{}",
        said(&up)
    );

    // Killing a node and its agent as well changes nothing for `down`.
    assert!(state.nodes[0].holder.signal(Signal::SIGKILL));
    let down = thalweg(&["lab", "down", "--name", lab.name()]);
    assert!(down.status.success(), "{}", said(&down));
    remains.assert_gone();
}

#[test]
fn a_lab_goes_with_the_process_that_runs_it_in_the_foreground() {
    if !privileged() {
        return;
    }
    let name = unique("owned");
    let mut run = Command::new(program())
        .args(["lab", "run", "--nodes", "1", "--name", &name])
        .spawn()
        .unwrap();
    eventually("the lab is there", || Lab::open(&name).is_ok());
    run.kill().unwrap();
    run.wait().unwrap();
    eventually("nothing is left", || !Paths::of(&name).dir.exists());
    assert!(!Paths::of(&name).cgroup().unwrap().exists());
}

#[test]
fn two_labs_run_side_by_side() {
    let Some(one) = start("one", |_| ()) else { return };
    let Some(two) = start("two", |_| ()) else { return };
    let ips = [&one, &two].map(|lab| lab.pod_ips("pod-2-1").unwrap());
    for (lab, ips) in [&one, &two].into_iter().zip(&ips) {
        assert!(
            ips[0].to_string().starts_with("10.244."),
            "both use the same range: {ips:?}"
        );
        assert_pings(lab, "pod-1-1", ips[0]);
    }
    let again = thalweg(&["lab", "up", "--name", one.name()]);
    assert!(
        !again.status.success() && said(&again).contains("is running already"),
        "{}",
        said(&again)
    );

    assert!(one.down().unwrap());
    assert_pings(&two, "pod-1-1", ips[1][0]);
}

#[test]
fn a_daemon_that_dies_at_its_start_is_reported_with_its_log() {
    if !tests_netns::privileged() {
        return;
    }
    let name = unique("broken");
    let directory = tempfile::tempdir().unwrap();
    let broken = directory.path().join("thalweg");
    fs::write(&broken, "#!/bin/sh\necho the reason >&2\nexit 3\n").unwrap();
    fs::set_permissions(&broken, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::write(directory.path().join("thalweg-cni"), "").unwrap();
    let spec = Spec {
        name: name.clone(),
        ..Spec::default()
    };
    let options = lab::Options {
        spec,
        program: broken,
        keep_failed: false,
        owned: true,
    };
    let error = Lab::up(&options, |_| ()).unwrap_err().to_string();
    assert!(
        error.contains("exit status: 3") && error.contains("the reason"),
        "{error}"
    );
    assert!(!Paths::of(&name).dir.exists());
}

#[test]
fn the_command_line_does_what_it_says() {
    let Some(lab) = start("cli", |spec| spec.nodes = lab::spec::Nodes::Count(1)) else {
        return;
    };
    let target = |what: &str| format!("{}/{what}", lab.name());

    let exit = thalweg(&[
        "lab",
        "exec",
        &target("pod-1-1"),
        "--",
        "sh",
        "-c",
        "echo out; exit 7",
    ]);
    assert_eq!((exit.status.code(), said(&exit).trim()), (Some(7), "out"));
    let hostname = thalweg(&["lab", "exec", &target("pod-1-2"), "--", "hostname"]);
    assert_eq!(said(&hostname).trim(), "pod-1-2");
    let hostname = thalweg(&["lab", "exec", &target("node-1"), "--", "hostname"]);
    assert_eq!(said(&hostname).trim(), "node-1");
    let absent = thalweg(&["lab", "exec", &target("pod-9-9"), "--", "true"]);
    assert!(
        !absent.status.success() && said(&absent).contains("it runs pod-1-1, pod-1-2"),
        "{}",
        said(&absent)
    );

    let kubeconfig = thalweg(&["lab", "kubeconfig", lab.name()]);
    assert_eq!(PathBuf::from(said(&kubeconfig).trim()), lab.kubeconfig());
    let directory = tempfile::tempdir().unwrap();
    let manifest = directory.path().join("pod.yaml");
    fs::write(&manifest, POD).unwrap();
    let apply = thalweg(&[
        "lab",
        "apply",
        "-f",
        manifest.to_str().unwrap(),
        "--name",
        lab.name(),
    ]);
    assert_eq!(
        said(&apply).trim(),
        "namespace/other applied\npod/applied applied"
    );
    tests_netns::eventually("the applied pod runs", || {
        lab.pod("other", "applied").is_ok_and(|pod| pod.ready)
    });

    let file = directory.path().join("lab.yaml");
    fs::write(&file, "nodez: 3\n").unwrap();
    let refused = thalweg(&["lab", "up", "--file", file.to_str().unwrap()]);
    assert!(
        !refused.status.success() && said(&refused).contains("nodez"),
        "{}",
        said(&refused)
    );
}

#[test]
fn processes_of_pods_are_in_their_cgroups_and_die_with_the_lab() {
    let Some(lab) = start("cgroup", |spec| spec.nodes = lab::spec::Nodes::Count(1)) else {
        return;
    };
    let cgroup = said(&run(&lab, "pod-1-1", &["cat", "/proc/self/cgroup"]));
    let uid = lab.pod("default", "pod-1-1").unwrap().uid;
    assert!(
        cgroup.contains(&format!("thalweg-lab-{}/nodes/node-1/pods/{uid}", lab.name())),
        "{cgroup}"
    );
    let mut command = lab
        .command(&lab.target(None, "pod-1-1"), "sleep", &["1000".into()])
        .unwrap();
    let mut sleeper = command.spawn().unwrap();
    assert!(lab.down().unwrap());
    assert!(!sleeper.wait().unwrap().success());
}

const POD: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: other}
---
apiVersion: v1
kind: Pod
metadata: {name: applied, namespace: other}
spec:
  containers: [{name: main, image: any, command: [sleep, infinity]}]
";

/// What must not be there once a lab is gone.
struct Remains {
    paths: Vec<PathBuf>,
    processes: Vec<Process>,
}

impl Remains {
    fn of(lab: &Lab) -> Self {
        let paths: Vec<PathBuf> = [Some(lab.paths().dir.clone()), lab.paths().cgroup()]
            .into_iter()
            .flatten()
            .collect();
        let state = lab.state();
        let mut processes: Vec<Process> = vec![state.daemon];
        processes.extend(state.underlay);
        processes.extend(state.nodes.iter().map(|node| node.holder));
        processes.extend(lab.pods().iter().filter_map(|pod| pod.sandbox));
        let agents = lab
            .nodes()
            .into_iter()
            .filter_map(|node| lab::state::AgentState::load(&node.dir));
        processes.extend(agents.map(|agent| agent.process));
        // daemon, underlay, two nodes with an agent and two pods each
        assert_eq!(processes.len(), 10);
        assert!(processes.iter().all(Process::is_alive), "{processes:?}");
        assert!(paths.iter().all(|path| path.exists()), "{paths:?}");
        Self { paths, processes }
    }

    fn assert_gone(&self) {
        for path in &self.paths {
            assert!(!path.exists(), "{} is left", path.display());
        }
        for process in &self.processes {
            assert!(!process.is_alive(), "{process:?} is left");
        }
        // Namespaces and mounts go with the last process; nobody else of this lab may be left either.
        let program = program();
        let ours = |pid: &u32| {
            fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program)
                && fs::read_to_string(format!("/proc/{pid}/environ"))
                    .is_ok_and(|environment| environment.contains(&*self.paths[0].to_string_lossy()))
        };
        let entries = fs::read_dir("/proc").expect("/proc").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        assert_eq!(pids.filter(ours).collect::<Vec<_>>(), [0; 0]);
    }
}
