// SPDX-License-Identifier: Apache-2.0
//! What the doctor says of a lab, and processes with names that it knows.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use lab::{Lab, Target};
use serde_json::Value;

use crate::{eventually, run, said, thalweg};

/// Runs a command on node-1, which must succeed.
///
/// # Panics
/// When it fails, with what it said.
pub fn on_node(lab: &Lab, argv: &[impl AsRef<str>]) -> Output {
    let output = on_node_unchecked(lab, argv);
    let argv: Vec<&str> = argv.iter().map(AsRef::as_ref).collect();
    assert!(output.status.success(), "{argv:?}: {}", said(&output));
    output
}

/// Runs a command on node-1.
///
/// # Panics
/// When it cannot be run.
#[must_use]
pub fn on_node_unchecked(lab: &Lab, argv: &[impl AsRef<str>]) -> Output {
    let argv: Vec<&str> = argv.iter().map(AsRef::as_ref).collect();
    run(lab, "node-1", &argv)
}

/// Runs a script on node-1, which must succeed.
///
/// # Panics
/// When it fails, with what it said.
pub fn shell(lab: &Lab, script: &str) -> Output {
    on_node(lab, &["sh", "-c", script])
}

/// What the doctor finds in a lab.
///
/// # Panics
/// When it cannot run.
#[must_use]
pub fn findings(lab: &Lab) -> Vec<Value> {
    let report = json(&thalweg(&["doctor", "--lab", lab.name(), "-o", "json"]));
    report["findings"].as_array().expect("a list").clone()
}

/// A field of a finding.
#[must_use]
pub fn text<'a>(finding: &'a Value, field: &str) -> &'a str {
    finding[field].as_str().unwrap_or_default()
}

/// The checks that found something on a node.
#[must_use]
pub fn checks_on<'a>(findings: &'a [Value], node: &str) -> BTreeSet<&'a str> {
    let there = findings.iter().filter(|finding| text(finding, "where") == node);
    there.map(|finding| text(finding, "check")).collect()
}

/// What a command printed, as JSON.
///
/// # Panics
/// When it is none.
#[must_use]
pub fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(output)))
}

/// Starts a process with a name in node-1: it sleeps.
///
/// # Panics
/// When it does not start.
#[must_use]
pub fn named_process(lab: &Lab, name: &str) -> Child {
    let mut command: Command = lab
        .command(
            &Target::Node("node-1".into()),
            "sh",
            &[
                "-c".into(),
                format!("cp /bin/sleep /run/{name}; exec /run/{name} 600"),
            ],
        )
        .expect("the node is there");
    let child = command.stdin(Stdio::null()).spawn().expect("it starts");
    let comm = PathBuf::from(format!("/proc/{}/comm", child.id()));
    eventually(&format!("{name} runs"), || {
        fs::read_to_string(&comm).is_ok_and(|found| found.trim() == name)
    });
    child
}

/// Ends such a process.
pub fn stop(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}
