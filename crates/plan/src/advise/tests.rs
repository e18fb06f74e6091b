// SPDX-License-Identifier: Apache-2.0
use std::collections::BTreeSet;

use super::*;
use crate::advise::rules::{LAST, RULES};

const CLOUDS: [Cloud; 4] = [Cloud::Aws, Cloud::Azure, Cloud::Gcp, Cloud::Other];

fn ask(answers: &Answers) -> Advice {
    advise(answers, &InstanceTable::shipped().unwrap()).unwrap()
}

/// The answers that a rule asks for, and nothing else.
fn answers_of(rule: &rules::Rule) -> Answers {
    let begin = Answers::new(rule.clouds[0]);
    rule.when.iter().fold(begin, |answers, (question, answer)| {
        answers.with(*question, *answer)
    })
}

#[test]
fn every_rule_decides_for_the_answers_that_it_names() {
    for rule in RULES.iter().chain([&LAST]) {
        let advice = ask(&answers_of(rule));
        assert_eq!((advice.rule, advice.choice), (rule.id, rule.choice));
        assert_eq!(advice.reasons[0], rule.because);
    }
}

#[test]
fn without_the_answers_that_it_names_a_rule_does_not_decide() {
    for rule in RULES.iter().filter(|rule| !rule.when.is_empty()) {
        for (question, answer) in rule.when {
            let mut answers = answers_of(rule);
            answers.yes_no.insert(*question, !answer);
            assert_ne!(
                ask(&answers).rule,
                rule.id,
                "{} without {}",
                rule.id,
                question.name()
            );
        }
    }
}

#[test]
fn rules_ask_only_what_their_clouds_are_asked() {
    let mut names = BTreeSet::new();
    for rule in RULES.iter().chain([&LAST]) {
        assert!(names.insert(rule.id), "{} is there twice", rule.id);
        for cloud in rule.clouds {
            assert!(
                rule.when.iter().all(|(question, _)| question.is_about(*cloud)),
                "{}",
                rule.id
            );
        }
    }
}

#[test]
fn every_question_can_change_an_advice() {
    let used: BTreeSet<Question> = RULES
        .iter()
        .flat_map(|rule| rule.when.iter().map(|(question, _)| *question))
        .collect();
    assert_eq!(used, Question::ALL.into_iter().collect());
}

/// All answers to all questions of each cloud.
fn all_answers() -> Vec<Answers> {
    let mut all = Vec::new();
    for cloud in CLOUDS {
        let asked: Vec<Question> = Question::ALL
            .into_iter()
            .filter(|question| question.is_about(cloud))
            .collect();
        for bits in 0_u32..1 << asked.len() {
            let begin = Answers::new(cloud);
            all.push((0..).zip(&asked).fold(begin, |answers, (bit, question)| {
                answers.with(*question, bits >> bit & 1 == 1)
            }));
        }
    }
    all
}

const NOT_OURS: [Choice; 5] = [
    Choice::VpcCni,
    Choice::AzureCni,
    Choice::GkeDataplane,
    Choice::SupportedCilium,
    Choice::OtherNetwork,
];

#[test]
fn the_clouds_own_network_is_advised_where_only_it_will_do() {
    let table = InstanceTable::shipped().unwrap();
    let only_theirs = [
        Question::WindowsNodes,
        Question::VendorSupport,
        Question::Fargate,
        Question::AutoMode,
        Question::SecurityGroupsPerPod,
        Question::Autopilot,
    ];
    for answers in all_answers() {
        let Ok(advice) = advise(&answers, &table) else {
            continue;
        };
        let theirs = only_theirs.iter().any(|question| answers.get(*question));
        assert_eq!(
            NOT_OURS.contains(&advice.choice),
            theirs,
            "{answers:?}: {advice:?}"
        );
        assert!(advice.assumptions.is_empty());
        assert!(
            advice
                .alternatives
                .iter()
                .all(|other| other.choice != advice.choice)
        );
    }
}

#[test]
fn what_was_not_answered_is_listed() {
    let advice = ask(&Answers::new(Cloud::Aws).with(Question::RoutablePods, true));
    assert_eq!(advice.choice, Choice::Eni);
    assert!(advice.assumptions.contains(&"windows-nodes: no".to_owned()));
    assert!(
        !advice
            .assumptions
            .iter()
            .any(|line| line.starts_with("routable-pods"))
    );
}

#[test]
fn the_density_that_types_allow_decides_between_addresses_and_prefixes() {
    let mut answers = Answers::new(Cloud::Aws).with(Question::RoutablePods, true);
    answers.instance_types = vec!["m5.xlarge".to_owned(), "t3.medium".to_owned()];
    answers.pods_per_node = Some(15);
    assert_eq!(ask(&answers).choice, Choice::Eni);
    answers.pods_per_node = Some(16);
    let advice = ask(&answers);
    assert_eq!(advice.choice, Choice::EniPrefix);
    assert!(
        advice.reasons[1].contains("15 addresses of t3.medium"),
        "{:?}",
        advice.reasons
    );
}

#[test]
fn impossible_answers_are_refused() {
    let table = InstanceTable::shipped().unwrap();
    let refused = |answers: Answers| advise(&answers, &table).unwrap_err().to_string();
    let azure = Answers::new(Cloud::Azure);
    assert!(refused(azure.clone().with(Question::Fargate, false)).contains("not about Azure"));
    let both = azure
        .with(Question::OwnAddresses, true)
        .with(Question::VendorSupport, true);
    assert!(refused(both).contains("both yes"));
    let aws = Answers::new(Cloud::Aws);
    assert!(
        refused(
            aws.clone()
                .with(Question::AutoMode, true)
                .with(Question::HybridNodes, true)
        )
        .contains("both yes")
    );
    let mut unknown = aws;
    unknown.instance_types.push("m5.lagre".to_owned());
    assert!(refused(unknown).contains("did you mean"));
    let misspelt = "routeable-pods".parse::<Question>().unwrap_err().to_string();
    assert!(misspelt.contains("did you mean routable-pods"), "{misspelt}");
}

fn words(choice: Choice) -> String {
    let facts = choice.facts();
    let parts = [facts.limits, facts.gives_up, facts.next].concat();
    format!("{} {}", facts.title, parts.join(" "))
}

/// Facts that older documents have wrong.
#[test]
fn the_texts_have_the_facts_right() {
    let azure = words(Choice::AzureDelegated);
    assert!(
        azure.contains("nothing is encapsulated") && !azure.contains("Geneve") && !azure.contains("50 bytes")
    );
    assert!(words(Choice::AzureCni).contains("no BGP, no cluster mesh, and the configuration is locked"));
    assert!(
        RULES
            .iter()
            .any(|rule| rule.choice == Choice::AksByo && rule.because.contains("generally available"))
    );
    for choice in [Choice::Eni, Choice::EniPrefix, Choice::EniOverflow] {
        assert!(words(choice).contains("pods share the security groups of their node's interfaces"));
    }
    let eni = words(Choice::Eni);
    assert!(eni.contains("ENIs x (addresses on each - 1)") && eni.contains("adds 2"));
    assert!(words(Choice::EniPrefix).contains("110 up to 30 vCPUs, 250 above"));
    let vpc_cni = words(Choice::VpcCni);
    assert!(
        vpc_cni.contains("since 1.14 it has an eBPF agent") && vpc_cni.contains("upgradePolicy.supportType")
    );
    for rule in RULES.iter().chain([&LAST]) {
        let text = format!("{} {}", rule.because, words(rule.choice));
        for wrong in [
            "--no-enable-auto-update",
            "strict",
            "ten times faster",
            "SPIRE",
            "tunnel:",
        ] {
            assert!(!text.contains(wrong), "{}: {wrong}", rule.id);
        }
    }
}

fn node(name: &str, provider: &str, labels: &[(&str, &str)]) -> NodeFacts {
    NodeFacts {
        name: name.to_owned(),
        provider_id: (!provider.is_empty()).then(|| format!("{provider}:///zone/id")),
        labels: labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        ..NodeFacts::default()
    }
}

#[test]
fn an_eks_cluster_with_fargate_is_recognised() {
    let observed = Observed {
        nodes: vec![
            NodeFacts {
                pods: 12,
                allocatable_pods: Some(17),
                ..node(
                    "a",
                    "aws",
                    &[
                        ("kubernetes.io/os", "linux"),
                        ("node.kubernetes.io/instance-type", "t3.medium"),
                    ],
                )
            },
            node("b", "aws", &[("eks.amazonaws.com/compute-type", "fargate")]),
        ],
        daemon_sets: vec!["aws-node".to_owned(), "kube-proxy".to_owned()],
        security_group_policies: Some(false),
        ..Observed::default()
    };
    let found = detect(&observed);
    assert_eq!(found.answers.cloud, Cloud::Aws);
    assert_eq!(found.answers.instance_types, ["t3.medium"]);
    assert_eq!(found.answers.pods_per_node, Some(12));
    assert!(found.answers.get(Question::Fargate) && !found.answers.get(Question::WindowsNodes));
    assert_eq!(
        found.answers.yes_no.get(&Question::RoutablePods),
        None,
        "no label says so"
    );
    let seen: Vec<String> = found
        .evidence
        .iter()
        .map(|evidence| format!("{}: {}", evidence.about, evidence.seen))
        .collect();
    assert!(
        seen.contains(&"network: DaemonSet aws-node: the Amazon VPC CNI".to_owned()),
        "{seen:?}"
    );
    assert!(
        seen.contains(&"pod density: 12 pods of 17 allowed on a, the fullest node".to_owned()),
        "{seen:?}"
    );
    assert_eq!(ask(&found.answers).rule, "aws-fargate");
}

#[test]
fn azure_google_and_ones_own_machines_are_recognised() {
    let of = |nodes: Vec<NodeFacts>| {
        detect(&Observed {
            nodes,
            ..Observed::default()
        })
        .answers
    };
    let azure = of(vec![node("a", "azure", &[("kubernetes.io/os", "windows")])]);
    assert_eq!((azure.cloud, ask(&azure).rule), (Cloud::Azure, "azure-windows"));
    let autopilot = of(vec![node("gk3-blue-1", "gce", &[])]);
    assert_eq!(
        (autopilot.cloud, ask(&autopilot).rule),
        (Cloud::Gcp, "gcp-autopilot")
    );
    let standard = of(vec![node("gke-blue-1", "gce", &[])]);
    assert_eq!(ask(&standard).rule, "gcp-default");
    let hybrid = of(vec![node(
        "a",
        "eks-hybrid",
        &[("eks.amazonaws.com/compute-type", "hybrid")],
    )]);
    assert_eq!(ask(&hybrid).rule, "aws-hybrid");
    let own = of(vec![node("a", "", &[])]);
    assert_eq!((own.cloud, ask(&own).rule), (Cloud::Other, "own-default"));
}

#[test]
fn an_unreadable_cluster_answers_nothing() {
    let found = detect(&Observed {
        unread: vec!["DaemonSets: forbidden".to_owned()],
        ..Observed::default()
    });
    assert!(found.answers.yes_no.is_empty());
    assert!(
        found
            .evidence
            .iter()
            .any(|evidence| evidence.seen == "DaemonSets: forbidden")
    );
}

#[test]
fn types_are_counted_where_they_are_and_not_against_what_was_said() {
    let table = InstanceTable::shipped().unwrap();
    let of = |cloud, name: &str| Answers {
        pods_per_node: Some(40),
        instance_types: vec![name.to_owned()],
        ..Answers::new(cloud)
    };
    let dense = of(Cloud::Aws, "m5.large").with(Question::ManyPodsPerNode, false);
    let error = advise(&dense, &table).unwrap_err().to_string();
    assert!(
        error.contains("40 pods on a node is more than the 27 addresses"),
        "{error}"
    );
    for cloud in [Cloud::Azure, Cloud::Gcp, Cloud::Other] {
        assert_eq!(
            advise(&of(cloud, "m5.large"), &table),
            Err(AdviseError::NoTypes(cloud))
        );
    }
    let xen = of(Cloud::Aws, "m4.large").with(Question::RoutablePods, true);
    let advice = advise(&xen, &table).unwrap();
    assert_eq!(advice.choice, Choice::EniPrefix);
    assert!(
        advice
            .reasons
            .iter()
            .any(|reason| reason.contains("m4.large, which is not known to run on Nitro")),
        "{:?}",
        advice.reasons
    );
}

/// What cannot be had is said, not passed over.
#[test]
fn on_azure_scarce_addresses_for_pods_that_must_be_reached_are_spoken_of() {
    let answers = Answers::new(Cloud::Azure)
        .with(Question::RoutablePods, true)
        .with(Question::ScarceAddresses, true);
    let advice = ask(&answers);
    assert_eq!(advice.choice, Choice::AzureDelegated);
    assert!(
        advice.reasons[0].contains("enlarge the VNet"),
        "{:?}",
        advice.reasons
    );
}
