// SPDX-License-Identifier: Apache-2.0
//! Recorded states: a healthy cluster in which nothing is found and nothing is unknown, and for each trap the same cluster with one thing
//! changed, in which exactly the expected checks fire, with the expected evidence. A JSON patch is the difference.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use doctor::checks::{self, Selection, examine};
use doctor::facts::{Facts, Gathered, NodeFacts};
use doctor::record;
use serde::Deserialize;
use thalweg_doctor as doctor;

#[derive(Debug, Deserialize)]
struct Trap {
    about: String,
    patch: json_patch::Patch,
    finds: Vec<Expected>,
}

#[derive(Debug, Deserialize)]
struct Expected {
    check: String,
    #[serde(rename = "where")]
    place: String,
    says: String,
}

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

fn healthy() -> Facts {
    record::load(&testdata().join("healthy-eks.json")).expect("the healthy twin is a record")
}

fn traps() -> Vec<(String, Trap)> {
    let entries = std::fs::read_dir(testdata().join("traps")).expect("the directory is there");
    let mut traps: Vec<(String, Trap)> = entries
        .map(|entry| {
            let path = entry.expect("an entry can be read").path();
            let name = path
                .file_stem()
                .expect("a file has a name")
                .to_string_lossy()
                .into_owned();
            let trap = serde_json::from_slice(&std::fs::read(&path).expect("a file can be read"));
            (
                name.clone(),
                trap.unwrap_or_else(|error| panic!("{name}: {error}")),
            )
        })
        .collect();
    traps.sort_by(|a, b| a.0.cmp(&b.0));
    traps
}

fn apply(patch: &json_patch::Patch) -> Facts {
    let mut value = serde_json::to_value(healthy()).expect("facts are JSON");
    json_patch::patch(&mut value, patch).expect("the patch fits the healthy twin");
    serde_json::from_value(value).expect("the patched facts are facts")
}

#[test]
fn nothing_is_found_and_nothing_unknown_in_the_healthy_cluster() {
    let report = examine(&healthy(), &Selection::default());
    assert_eq!(report.findings, []);
    assert_eq!(report.unknown, []);
    assert_eq!(report.passed.len(), checks::all().count());
}

#[test]
fn each_trap_is_found_with_its_evidence_and_nothing_else_is() {
    for (name, trap) in traps() {
        assert!(!trap.about.is_empty(), "{name}");
        let report = examine(&apply(&trap.patch), &Selection::default());
        for expected in &trap.finds {
            let fits = |finding: &&doctor::finding::Finding| {
                finding.check == expected.check
                    && finding.place == expected.place
                    && finding.evidence.contains(&expected.says)
            };
            let found = report.findings.iter().find(fits);
            let found =
                found.unwrap_or_else(|| panic!("{name}: {expected:?} is not in {:#?}", report.findings));
            assert!(
                !found.mend.is_empty() && !found.why.is_empty(),
                "{name}: {found:?}"
            );
        }
        assert_eq!(
            report.findings.len(),
            trap.finds.len(),
            "{name}: {:#?}",
            report.findings
        );
        let number = name
            .split('-')
            .next()
            .and_then(|number| number.parse::<u8>().ok());
        let of_trap = report.findings.iter().any(|finding| finding.trap == number);
        assert!(
            number.is_none() || of_trap,
            "{name}: no finding is of trap {number:?}"
        );
    }
}

#[test]
fn all_ten_traps_and_all_checks_are_set_up_in_some_record() {
    let traps = traps();
    for number in 1..=10 {
        let prefix = format!("{number:02}-");
        assert!(
            traps.iter().any(|(name, _)| name.starts_with(&prefix)),
            "trap {number}"
        );
    }
    let fired: BTreeSet<&str> = traps
        .iter()
        .flat_map(|(_, trap)| &trap.finds)
        .map(|one| one.check.as_str())
        .collect();
    let silent: Vec<&str> = checks::all()
        .map(|check| check.id)
        .filter(|id| !fired.contains(id))
        .collect();
    assert_eq!(silent, Vec::<&str>::new(), "checks that no record makes fire");
}

/// Whatever part of the facts is missing: no panic, no new finding, and the missing part is said.
#[test]
fn facts_that_are_missing_are_unknown_and_never_findings() {
    let whole = serde_json::to_value(healthy()).unwrap();
    let mut pointers = vec![];
    for (part, fields) in [
        ("/nodes/0", &whole["nodes"][0]),
        ("/cluster", &whole["cluster"]),
        ("/cloud", &whole["cloud"]),
    ] {
        pointers.extend(
            fields
                .as_object()
                .unwrap()
                .keys()
                .map(|key| format!("{part}/{key}")),
        );
    }
    let used_by_none = ["/nodes/0/name", "/nodes/0/os", "/cluster/crd_groups"];
    for pointer in pointers
        .iter()
        .filter(|pointer| !used_by_none.contains(&pointer.as_str()))
    {
        let mut value = whole.clone();
        *value.pointer_mut(pointer).unwrap() = serde_json::json!({"unknown": "permission denied for it"});
        let facts: Facts = serde_json::from_value(value).unwrap();
        let report = examine(&facts, &Selection::default());
        assert_eq!(report.findings, [], "{pointer}");
        // Some facts are a second source of what another one says already.
        let second_source = [
            "/cluster/service_cidrs",
            "/cluster/services",
            "/cluster/pods_per_node",
            "/nodes/0/rollback",
        ];
        let said = report
            .unknown
            .iter()
            .any(|one| one.reason.contains("permission denied for it"));
        assert!(
            said || second_source.contains(&pointer.as_str()),
            "{pointer}: {:#?}",
            report.unknown
        );
    }
}

#[test]
fn a_node_that_does_not_answer_is_unknown_in_every_respect() {
    let mut facts = healthy();
    let name = facts.nodes[0].name.clone();
    facts.nodes[0] = NodeFacts::unknown(&name, "the node has not answered in 20 s");
    let report = examine(&facts, &Selection::default());
    assert_eq!(report.findings, []);
    let checks: BTreeSet<_> = report
        .unknown
        .iter()
        .filter(|one| one.place == name)
        .map(|one| one.check)
        .collect();
    assert!(checks.len() > 25, "{checks:?}");
}

#[test]
fn strange_versions_are_unknown_with_the_text() {
    let mut facts = healthy();
    facts.cluster.version = Gathered::Known("latest".into());
    if let Gathered::Known(nodes) = &mut facts.cluster.nodes {
        nodes[0].kubelet = "\u{1f980}".into();
    }
    if let Gathered::Known(kernel) = &mut facts.nodes[1].kernel {
        kernel.release = "custom".into();
    }
    let report = examine(&facts, &Selection::default());
    assert_eq!(report.findings, []);
    for said in ["`latest`", "`custom`"] {
        assert!(
            report.unknown.iter().any(|one| one.reason.contains(said)),
            "{said}: {:#?}",
            report.unknown
        );
    }
    // Nothing passes that rests on them.
    for check in [
        "versions.kubernetes",
        "versions.kubelets",
        "kernel.version",
        "kernel.next-boot",
    ] {
        assert!(!report.passed.contains(&check), "{check}");
    }
}

/// The command that takes a network off the nodes names the DaemonSet that is there.
#[test]
fn what_mends_names_what_is_there() {
    let mut facts = healthy();
    let Gathered::Known(sets) = &mut facts.cluster.daemon_sets else {
        panic!("the healthy twin has DaemonSets");
    };
    sets.push(doctor::facts::DaemonSetFacts {
        namespace: "calico-system".into(),
        name: "calico-node".into(),
        desired: 2,
        ..Default::default()
    });
    if let Gathered::Known(processes) = &mut facts.nodes[0].processes {
        processes.push("calico-node".into());
    }
    let report = examine(&facts, &Selection::default());
    assert_eq!(report.findings.len(), 2, "{:#?}", report.findings);
    for finding in report.findings {
        assert!(
            finding
                .mend
                .starts_with("kubectl -n calico-system patch daemonset calico-node "),
            "{finding:?}"
        );
    }
}

/// A copy of another network's parts is no way back to the cloud's.
#[test]
fn only_copies_of_the_clouds_own_network_are_a_way_back() {
    let mut facts = healthy();
    for node in &mut facts.nodes {
        if let Gathered::Known(rollback) = &mut node.rollback {
            rollback.backups = vec!["/var/lib/thalweg/conflicts/1795000000-flannel.json".into()];
        }
    }
    let report = examine(&facts, &Selection::default());
    let evidence: Vec<&str> = report.findings.iter().map(|one| one.evidence.as_str()).collect();
    assert_eq!(evidence, ["no node has a copy of the parts of the VPC CNI"]);
}
