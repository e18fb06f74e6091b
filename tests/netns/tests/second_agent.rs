// SPDX-License-Identifier: Apache-2.0
//! One agent per node: another one is refused, and takes nothing from the first.

use lab::Lab;
use tests_netns::{agent_status, program, run, said, start};
use thalweg_tests_netns as tests_netns;

/// What the agent of a lab's node is started with.
const CONFIG: &str = "/run/thalweg-lab/agent.yaml";

#[test]
fn a_second_agent_is_refused_and_the_first_goes_on_serving() {
    let Some(lab) = start("second", |_| ()) else {
        return;
    };
    let first = agent_status(&lab, "node-1").pid;
    let text = refusal(&lab, &[]);
    let expected = format!("another agent (process {first}) runs on this node");
    assert!(
        text.contains(&expected) && text.contains("stop it first"),
        "{text}"
    );

    // A directory of its own is not enough: the programs are the first one's, and so is the plugin's socket.
    let elsewhere = [
        "--run-dir",
        "/run/second",
        "--cni-socket",
        "/run/thalweg/cni.sock",
    ];
    let tunnel = ["--routing-mode", "tunnel"];
    for arguments in [&elsewhere[..], &[&elsewhere[..], &tunnel].concat()] {
        let text = refusal(&lab, arguments);
        assert!(
            text.contains("another agent runs on this node") && text.contains("/thalweg"),
            "{text}"
        );
    }

    assert_eq!(agent_status(&lab, "node-1").pid, first);
    let links = said(&run(&lab, "node-1", &["ip", "-o", "link"]));
    assert!(!links.contains("thalweg_tunnel"), "{links}");
    let status = run(&lab, "node-1", &["sh", "-c", STATUS, &plugin()]);
    assert!(
        status.status.success(),
        "the first one's plugin: {}",
        said(&status)
    );
}

/// The plugin, asked whether pods can be attached.
const STATUS: &str =
    r#"echo '{"cniVersion":"1.1.0","name":"thalweg","type":"thalweg-cni"}' | CNI_COMMAND=STATUS "$0""#;

fn plugin() -> String {
    program().with_file_name("thalweg-cni").display().to_string()
}

/// What another agent on the first node says before it ends.
fn refusal(lab: &Lab, arguments: &[&str]) -> String {
    let program = program().display().to_string();
    let command = [&[program.as_str(), "agent", "--config", CONFIG], arguments].concat();
    let output = run(lab, "node-1", &command);
    assert!(!output.status.success(), "{}", said(&output));
    said(&output)
}
