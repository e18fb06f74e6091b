// SPDX-License-Identifier: Apache-2.0
//! Other networks' configurations beside ours: seen, set aside, put back.

use std::fs;
use std::path::PathBuf;

use lab::{Lab, Target};
use nix::sys::signal::Signal;
use tests_netns::{agent_status, eventually, program, said, set_agent, start};
use thalweg_tests_netns as tests_netns;

const OTHER: &str = r#"{"name":"other","cniVersion":"1.0.0","plugins":[{"type":"ptp"}]}"#;

#[test]
fn other_networks_are_set_aside_while_we_are_exclusive_and_come_back_after() {
    let Some(lab) = start("exclusive", |spec| {
        spec.nodes = lab::spec::Nodes::Count(1);
        spec.agent.insert("cni.exclusive".into(), true.into());
    }) else {
        return;
    };
    let files = [file(&lab, "00-other.conflist"), file(&lab, "10-aws.conflist")];
    for path in &files {
        fs::write(path, OTHER).unwrap();
    }
    eventually("both are set aside", || {
        files.iter().all(|path| !path.exists() && aside(path).exists())
            && cni(&lab)
                .1
                .contains("set aside: 00-other.conflist, 10-aws.conflist")
    });
    assert!(agent_status(&lab, "node-1").ready);
    assert_eq!(metric(&lab, "thalweg_cni_configurations_set_aside_total"), "2");

    // Its owner makes it anew, as a DaemonSet does that nobody has removed.
    fs::write(&files[1], OTHER).unwrap();
    eventually("it is set aside again", || {
        metric(&lab, "thalweg_cni_configurations_set_aside_total") == "3"
    });
    assert_eq!(metric(&lab, "thalweg_cni_configurations_aside"), "2");
    assert_eq!(metric(&lab, "thalweg_cni_rivals"), "0");
    let cleanup = on_node(
        &lab,
        &[
            "cleanup",
            "--dry-run",
            "--run-dir",
            "/run/nobody",
            "--cni-conf-dir",
            "/run/cni/net.d",
        ],
    );
    assert!(
        cleanup.contains("put back what was set aside: 00-other.conflist, 10-aws.conflist"),
        "{cleanup}"
    );

    fs::remove_file(aside(&files[0])).unwrap();
    set_agent(&lab, "node-1", "cni.exclusive", false.into());
    lab.restart_agent("node-1", Signal::SIGTERM).unwrap();
    eventually("it is put back", || {
        files[1].exists() && !aside(&files[1]).exists()
    });
    assert_eq!(fs::read_to_string(&files[1]).unwrap(), OTHER);

    // One that the runtime prefers is not touched now, but said.
    fs::write(&files[0], OTHER).unwrap();
    eventually("the rival is named", || {
        let (ok, message) = cni(&lab);
        !ok && message.contains("prefers 00-other.conflist over our")
    });
    assert_eq!(metric(&lab, "thalweg_cni_rivals"), "1");
    assert!(files[0].exists());
    fs::remove_file(&files[0]).unwrap();
    eventually("all is well again", || agent_status(&lab, "node-1").ready);
}

fn file(lab: &Lab, name: &str) -> PathBuf {
    lab.node("node-1").expect("it is there").cni_conf_dir.join(name)
}

fn aside(path: &std::path::Path) -> PathBuf {
    PathBuf::from(format!("{}.thalweg_bak", path.display()))
}

fn cni(lab: &Lab) -> (bool, String) {
    let conditions = agent_status(lab, "node-1").conditions;
    let cni = conditions
        .into_iter()
        .find(|one| one.name == "cni")
        .expect("it is there");
    (cni.ok, cni.message)
}

fn metric(lab: &Lab, name: &str) -> String {
    let metrics = tests_netns::ask_agent(lab, "node-1", "/metrics");
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {metrics}"))
        .to_owned()
}

fn on_node(lab: &Lab, arguments: &[&str]) -> String {
    let arguments: Vec<String> = arguments.iter().map(|&one| one.to_owned()).collect();
    let mut command = lab
        .command(
            &Target::Node("node-1".into()),
            &program().display().to_string(),
            &arguments,
        )
        .expect("it is there");
    said(&command.output().expect("it is there"))
}
