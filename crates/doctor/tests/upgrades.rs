// SPDX-License-Identifier: Apache-2.0
//! Upgrade checks over recorded states: what each gate says, and on which evidence.

use std::path::Path;

use thalweg_doctor::facts::{DeprecatedUse, Facts, Gathered, Provider};
use thalweg_doctor::record;
use thalweg_doctor::upgrade::canary::Canary;
use thalweg_doctor::upgrade::{Assessment, Canaries, Request, Verdict, assess, markdown};
use thalweg_doctor::version::Version;

fn healthy() -> Facts {
    record::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/healthy-eks.json")).expect("a record")
}

fn request(minor: u32) -> Request {
    Request {
        to_kubernetes: Version::new(1, minor),
        to_version: None,
        program_version: "0.1.0".into(),
        os: None,
    }
}

fn canaries(facts: &Facts, error: Option<&str>) -> Canaries {
    let canary = Canary {
        version: "0.1.0".into(),
        kernel: "6.12.40".into(),
        programs: vec!["from_pod".into()],
        attach: "tcx".into(),
        milliseconds: 400,
        error: error.map(str::to_owned),
    };
    facts
        .nodes
        .iter()
        .map(|node| (node.name.clone(), Ok(canary.clone())))
        .collect()
}

#[track_caller]
fn assert_gate(assessment: &Assessment, id: &str, verdict: Verdict, says: &str) {
    let gate = assessment
        .gates
        .iter()
        .find(|gate| gate.id == id)
        .expect("there is such a gate");
    assert_eq!(gate.verdict, verdict, "{gate:#?}");
    assert!(gate.evidence.contains(says), "{says}: {gate:#?}");
    assert!(verdict == Verdict::Pass || !gate.mend.is_empty(), "{gate:#?}");
}

#[test]
fn nodes_alone_may_be_renewed_without_a_doubt() {
    let facts = healthy();
    let assessment = assess(&facts, &request(32), &canaries(&facts, None));
    assert_eq!(assessment.verdict, Verdict::Pass, "{:#?}", assessment.gates);
    assert_gate(
        &assessment,
        "kernel.image",
        Verdict::Pass,
        "AL2023 standard: kernel 6.1 (https://",
    );
    assert!(
        assessment
            .runbook
            .iter()
            .all(|step| !step.title.starts_with("The control plane"))
    );
}

#[test]
fn images_with_untested_kernels_are_unknown_with_their_source() {
    let facts = healthy();
    let to = |minor| assess(&facts, &request(minor), &canaries(&facts, None));
    assert_gate(&to(33), "kernel.image", Verdict::Pass, "kernel 6.12");
    assert_gate(&to(36), "kernel.image", Verdict::Unknown, "kernel 6.18");
    assert_gate(
        &to(36),
        "kernel.image",
        Verdict::Unknown,
        "between the tested 6.12 and 7.2",
    );
    assert_gate(
        &to(60),
        "kernel.image",
        Verdict::Unknown,
        "no image of amzn for Kubernetes 1.60 is in the data",
    );
    let mut azure = healthy();
    azure.cloud.provider = Gathered::Known(Provider::Azure);
    let request = Request {
        os: Some("ubuntu".into()),
        ..request(33)
    };
    assert_gate(
        &assess(&azure, &request, &Canaries::new()),
        "kernel.image",
        Verdict::Unknown,
        "kernel 5.15",
    );
    azure.cloud.provider = Gathered::Known(Provider::Gcp);
    assert_gate(
        &assess(&azure, &request, &Canaries::new()),
        "kernel.image",
        Verdict::Unknown,
        "no image",
    );
}

#[test]
fn steps_follow_kubernetes_policy() {
    let facts = healthy();
    let to = |minor| assess(&facts, &request(minor), &Canaries::new());
    assert_gate(&to(33), "kubernetes.step", Verdict::Pass, "version-skew-policy");
    assert_gate(
        &to(34),
        "kubernetes.step",
        Verdict::Block,
        "skips 1 minor versions",
    );
    assert_gate(&to(31), "kubernetes.step", Verdict::Block, "a way back");
    assert_gate(
        &to(36),
        "kubernetes.kubelets",
        Verdict::Block,
        "too far behind 1.36",
    );
    assert_gate(&to(33), "kubernetes.tested", Verdict::Warn, "tested: 1.32");
    assert_gate(&to(33), "kernel.canary", Verdict::Unknown, "not tried");
    let mut strange = healthy();
    strange.cluster.version = Gathered::Known("nightly".into());
    let assessment = assess(&strange, &request(33), &Canaries::new());
    assert_gate(
        &assessment,
        "kubernetes.step",
        Verdict::Unknown,
        "`nightly` is no version",
    );
}

#[test]
fn a_refused_canary_blocks_with_the_verifiers_words() {
    let facts = healthy();
    let assessment = assess(
        &facts,
        &request(33),
        &canaries(&facts, Some("the kernel refuses program from_pod")),
    );
    assert_gate(
        &assessment,
        "kernel.canary",
        Verdict::Block,
        "refuses program from_pod",
    );
    assert_eq!(assessment.verdict, Verdict::Block);
    let mut some = canaries(&facts, None);
    let first = facts.nodes[0].name.clone();
    some.insert(first, Err("permission denied".into()));
    assert_gate(
        &assess(&facts, &request(33), &some),
        "kernel.canary",
        Verdict::Unknown,
        "permission denied",
    );
}

#[test]
fn apis_that_go_block_and_name_what_takes_their_place() {
    let mut facts = healthy();
    facts.cluster.deprecated = Gathered::Known(vec![DeprecatedUse {
        group_version: "flowcontrol.apiserver.k8s.io/v1beta3".into(),
        resource: "flowschemas".into(),
        removed_in: String::new(),
    }]);
    let assessment = assess(&facts, &request(33), &Canaries::new());
    assert_gate(
        &assessment,
        "kubernetes.apis",
        Verdict::Block,
        "instead flowcontrol.apiserver.k8s.io/v1",
    );
    facts.cluster.deprecated = Gathered::unknown("forbidden");
    assert_gate(
        &assess(&facts, &request(33), &Canaries::new()),
        "kubernetes.apis",
        Verdict::Unknown,
        "forbidden",
    );
}

#[test]
fn another_version_is_tried_by_its_own_program() {
    let facts = healthy();
    let to = |version: &str| {
        let request = Request {
            to_version: Some(version.into()),
            ..request(33)
        };
        assess(&facts, &request, &canaries(&facts, None))
    };
    assert_gate(&to("0.1.0"), "thalweg.version", Verdict::Pass, "0.1.0");
    assert_gate(
        &to("0.2.0"),
        "thalweg.version",
        Verdict::Unknown,
        "not in this program",
    );
    assert_gate(&to("soon"), "thalweg.version", Verdict::Unknown, "no version");
    assert!(
        to("0.2.0")
            .runbook
            .iter()
            .any(|step| step.title.contains("Thalweg to 0.2.0, one node first"))
    );
}

#[test]
fn every_step_of_every_runbook_has_a_gate_and_an_undo() {
    for provider in [Provider::Aws, Provider::Azure, Provider::Gcp, Provider::Own] {
        let mut facts = healthy();
        facts.cloud.provider = Gathered::Known(provider);
        let request = Request {
            to_version: Some("0.1.0".into()),
            ..request(33)
        };
        let assessment = assess(&facts, &request, &canaries(&facts, None));
        assert!(assessment.runbook.len() >= 6, "{:#?}", assessment.runbook);
        for step in &assessment.runbook {
            let parts = [&step.title, &step.command, &step.gate, &step.undo];
            assert!(parts.iter().all(|part| !part.is_empty()), "{step:#?}");
        }
        let page = markdown(&assessment);
        assert!(
            page.contains("## Runbook") && page.matches("- Undo: ").count() == assessment.runbook.len(),
            "{page}"
        );
    }
}

#[test]
fn without_any_facts_nothing_passes_but_what_needs_none() {
    let assessment = assess(&Facts::default(), &request(33), &Canaries::new());
    assert_eq!(assessment.verdict, Verdict::Unknown, "{:#?}", assessment.gates);
    let passed: Vec<_> = assessment
        .gates
        .iter()
        .filter(|gate| gate.verdict == Verdict::Pass)
        .collect();
    assert_eq!(passed, Vec::<&thalweg_doctor::upgrade::Gate>::new());
}
