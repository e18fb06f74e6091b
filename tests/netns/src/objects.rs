// SPDX-License-Identifier: Apache-2.0
//! Objects of a lab, by `kubectl` as everybody has it and by `thalweg lab apply`, and the operators of its pools.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use lab::{Lab, OperatorState};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{eventually, eventually_within, said, thalweg};

/// Another operator takes over after six seconds in a lab; on a busy machine it may be much later.
const FAILOVER: Duration = Duration::from_secs(60);

/// What `kubectl` prints, which must succeed.
///
/// # Panics
/// When it fails, with what it said.
pub fn kubectl(lab: &Lab, arguments: &[&str]) -> String {
    kubectl_fed(lab, arguments, "")
}

/// The same, with something to read from its standard input.
///
/// # Panics
/// When it fails, with what it said.
pub fn kubectl_fed(lab: &Lab, arguments: &[&str], input: &str) -> String {
    let mut command = Command::new("kubectl");
    command.arg("--kubeconfig").arg(lab.kubeconfig()).args(arguments);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl is installed");
    let mut stdin = child.stdin.take().expect("it is a pipe");
    // One that reads nothing may be gone already.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert!(
        output.status.success(),
        "kubectl {arguments:?}: {}",
        said(&output)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Gives a lab these objects, as YAML, by its own verb.
///
/// # Panics
/// When it refuses one.
pub fn apply(lab: &Lab, manifest: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("objects.yaml");
    std::fs::write(&file, manifest).expect("it can be written");
    let applied = thalweg(&[
        "lab",
        "apply",
        "-f",
        &file.display().to_string(),
        "--name",
        lab.name(),
    ]);
    assert!(applied.status.success(), "{}", said(&applied));
}

/// The items of a list that a command printed as JSON.
///
/// # Panics
/// When it is no list.
#[must_use]
pub fn items(output: &Output) -> Vec<Value> {
    let list = crate::examine::json(output);
    list["items"].as_array().expect("a list of items").clone()
}

/// The operator that leads, if one does.
#[must_use]
pub fn leader(lab: &Lab) -> Option<OperatorState> {
    lab.operators().into_iter().find(OperatorState::leads)
}

/// Kills the operator that leads, as soon as there is one; its name.
///
/// # Panics
/// When none comes to lead.
pub fn kill_leader(lab: &Lab) -> String {
    eventually_within(FAILOVER, "an operator leads", || leader(lab).is_some());
    let operator = leader(lab).expect("one leads");
    assert!(operator.process.signal(Signal::SIGKILL));
    operator.name
}

/// Ends a node's agent for good, with the lab's own process, which would start another.
///
/// # Panics
/// When they do not end.
pub fn end_agent(lab: &Lab, node: &str) {
    let agent = nix::unistd::Pid::from_raw(crate::agent_status(lab, node).pid.cast_signed());
    assert!(lab.state().daemon.signal(Signal::SIGKILL));
    nix::sys::signal::kill(agent, Signal::SIGKILL).expect("it runs");
    eventually("the agent is gone", || {
        !std::path::Path::new(&format!("/proc/{agent}/root")).exists()
    });
}

/// `thalweg cleanup` on node-1.
#[must_use]
pub fn cleanup(lab: &Lab, arguments: &[&str]) -> Output {
    let program = crate::program().display().to_string();
    let usual = [&program, "cleanup", "--cni-conf-dir", lab::node::CNI_CONF_DIR];
    crate::run(lab, "node-1", &[&usual, arguments].concat())
}
