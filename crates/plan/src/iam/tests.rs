// SPDX-License-Identifier: Apache-2.0
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn read(document: &Value) -> Policy {
    Policy::parse("test", &document.to_string()).unwrap()
}

fn allow(rest: Value) -> Value {
    let mut statement = json!({ "Effect": "Allow", "Action": "ec2:Do", "Resource": "*" });
    statement
        .as_object_mut()
        .unwrap()
        .extend(rest.as_object().unwrap().clone());
    json!({ "Version": "2012-10-17", "Statement": [statement] })
}

fn decide(policy: &Value, action: &str, resource: &str, context: &Context) -> Decision {
    let call = Call {
        action: action.to_owned(),
        resource: resource.to_owned(),
        context: context.clone(),
    };
    evaluate(&[read(policy)], &call)
}

/// `+` allowed, `-` not, `?` unknown.
fn under(condition: Value, context: &Context) -> char {
    match decide(&allow(json!({ "Condition": condition })), "ec2:Do", "*", context) {
        Decision::Allowed { .. } => '+',
        Decision::NotAllowed | Decision::Denied { .. } => '-',
        Decision::Unknown { .. } => '?',
    }
}

fn all_scopes() -> Vec<Scope> {
    let mut scopes = Vec::new();
    for mode in Mode::ALL {
        for bits in 0_u8..64 {
            scopes.push(Scope {
                release: bits & 1 != 0,
                ipv6: bits & 2 != 0,
                select_groups: bits & 4 != 0,
                first_interface: bits & 8 != 0,
                scoped: bits & 16 != 0,
                vpc: (bits & 32 != 0).then(|| "vpc-1".to_owned()),
                region: if bits & 32 != 0 { "eu-central-1" } else { "*" }.to_owned(),
                account: if bits & 32 != 0 { "111122223333" } else { "*" }.to_owned(),
                ..Scope::new(mode, "blue")
            });
        }
    }
    scopes
}

#[test]
fn every_generated_policy_is_enough_and_not_too_much() {
    for scope in all_scopes() {
        let generated = policy(&scope);
        let Some(document) = generated.document else {
            assert!(needs(&scope).is_empty());
            continue;
        };
        let report = check(&scope, &[read(&document)]);
        assert_eq!(report.findings, [], "{scope:?}");
        assert_eq!(report.allowed, report.needed);
        if scope.scoped {
            assert_eq!(report.superfluous, [], "{scope:?}");
        }
    }
}

/// Taking away any action of any statement leaves something missing: nothing is there without need.
#[test]
fn nothing_can_be_taken_out_of_a_generated_policy() {
    let mut tried = 0;
    // The ENI modes need the same.
    for scope in all_scopes().into_iter().filter(|scope| scope.mode == Mode::Eni) {
        let Some(document) = policy(&scope).document else {
            continue;
        };
        let statements = document["Statement"].as_array().unwrap();
        for (place, statement) in statements.iter().enumerate() {
            for index in 0..statement["Action"].as_array().unwrap().len() {
                let mut less = document.clone();
                let removed = less["Statement"][place]["Action"]
                    .as_array_mut()
                    .unwrap()
                    .remove(index);
                let report = check(&scope, &[read(&less)]);
                assert!(
                    report.findings.iter().any(|finding| removed == finding.action),
                    "{removed} of {less}"
                );
                assert!(
                    report
                        .findings
                        .iter()
                        .all(|finding| finding.problem == Problem::Missing)
                );
                tried += 1;
            }
        }
    }
    assert!(tried > 300, "{tried}");
}

/// Another cluster's interfaces, machines and requests, and another VPC, are out of reach.
#[test]
fn a_scoped_policy_does_not_reach_other_clusters() {
    let blue = Scope {
        vpc: Some("vpc-1".to_owned()),
        first_interface: true,
        ..Scope::new(Mode::EniPrefix, "blue")
    };
    let document = policy(&blue).document.unwrap();
    for other in [
        Scope {
            cluster: "green".to_owned(),
            ..blue.clone()
        },
        Scope {
            vpc: Some("vpc-2".to_owned()),
            ..blue.clone()
        },
    ] {
        let report = check(&other, &[read(&document)]);
        assert!(
            report
                .findings
                .iter()
                .any(|finding| finding.action == "ec2:CreateNetworkInterface"),
            "{other:?}"
        );
        if other.cluster != blue.cluster {
            let reached: Vec<_> = report.findings.iter().map(|finding| finding.action).collect();
            for action in [
                "ec2:DeleteNetworkInterface",
                "ec2:AttachNetworkInterface",
                "ec2:CreateTags",
                "ec2:AssignPrivateIpAddresses",
            ] {
                assert!(
                    reached.contains(&action),
                    "{action} reaches a cluster of another name"
                );
            }
        }
    }
}

#[test]
fn tags_can_only_be_given_to_what_is_being_made() {
    let document = policy(&Scope::new(Mode::Eni, "blue")).document.unwrap();
    let later = Context::default()
        .with("ec2:CreateAction", &[])
        .with("aws:RequestTag/thalweg.io/cluster", &["blue"]);
    let eni = "arn:aws:ec2:us-east-1:111122223333:network-interface/eni-1";
    assert_eq!(
        decide(&document, "ec2:CreateTags", eni, &later),
        Decision::NotAllowed
    );
}

#[test]
fn overlay_and_delegated_modes_need_nothing() {
    for mode in [Mode::Overlay, Mode::PodCidr, Mode::Gke, Mode::AzureOverlay] {
        let generated = policy(&Scope::new(mode, "blue"));
        assert_eq!(generated.document, None);
        assert!(generated.notes[0].contains("nothing"), "{mode}");
    }
}

/// The VPC CNI's managed policy, beside ours: what lacks and what is too much is named.
#[test]
fn a_foreign_policy_is_compared() {
    let document = json!({ "Version": "2012-10-17", "Statement": [
        { "Effect": "Allow", "Resource": "*", "Action": [
            "ec2:AssignPrivateIpAddresses", "ec2:AttachNetworkInterface", "ec2:CreateNetworkInterface",
            "ec2:DeleteNetworkInterface", "ec2:DescribeInstances", "ec2:DescribeTags", "ec2:DescribeNetworkInterfaces",
            "ec2:DescribeInstanceTypes", "ec2:DescribeSecurityGroups", "ec2:DescribeSubnets",
            "ec2:DetachNetworkInterface", "ec2:ModifyNetworkInterfaceAttribute", "ec2:UnassignPrivateIpAddresses",
        ]},
        { "Effect": "Allow", "Action": "ec2:CreateTags", "Resource": "arn:aws:ec2:*:*:network-interface/*" },
    ]});
    let report = check(&Scope::new(Mode::Eni, "blue"), &[read(&document)]);
    let missing: Vec<_> = report.findings.iter().map(|finding| finding.action).collect();
    assert_eq!(missing, ["ec2:DescribeVpcs"]);
    let unneeded: Vec<_> = report
        .superfluous
        .iter()
        .filter(|extra| extra.reason == "not needed")
        .map(|extra| extra.action.as_str())
        .collect();
    assert_eq!(unneeded, ["ec2:DescribeTags", "ec2:DescribeSecurityGroups"]);
    assert!(report.superfluous.iter().any(|extra| {
        extra.action == "ec2:DeleteNetworkInterface"
            && extra
                .reason
                .contains("also on interfaces that are not the cluster's")
    }));
}

/// A resource's kind, or a condition that anybody meets, makes no permission narrow: what reaches another cluster's is too much.
#[test]
fn what_reaches_other_clusters_is_too_much_however_it_is_written() {
    let scope = Scope::new(Mode::Eni, "blue");
    let reached = |action: &str, resource: &str, condition: Value| {
        let statement = json!({ "Action": action, "Resource": resource, "Condition": condition });
        let report = check(&scope, &[read(&allow(statement))]);
        report
            .superfluous
            .iter()
            .map(|one| one.reason.clone())
            .collect::<Vec<_>>()
    };
    let tag = |value: &str| json!({ "StringLike": { "aws:ResourceTag/thalweg.io/cluster": value } });
    let any = "arn:aws:ec2:*:*:*/*";
    let interfaces = "arn:aws:ec2:*:*:network-interface/*";
    let deletes = "ec2:DeleteNetworkInterface";
    for (action, resource, condition, words) in [
        (deletes, "*", json!({}), "interfaces that"),
        (deletes, interfaces, json!({}), "interfaces that"),
        (deletes, interfaces, tag("*"), "interfaces that"),
        (deletes, interfaces, tag("blue*"), "interfaces that"),
        (
            "ec2:AttachNetworkInterface",
            any,
            json!({}),
            "interfaces and machines",
        ),
        (
            "ec2:CreateTags",
            interfaces,
            json!({ "StringEquals": { "ec2:CreateAction": "CreateNetworkInterface" } }),
            "interfaces that",
        ),
    ] {
        let found = reached(action, resource, condition.clone());
        assert!(
            found.len() == 1 && found[0].contains(words),
            "{action} on {resource} if {condition}: {found:?}"
        );
    }
    assert_eq!(reached(deletes, interfaces, tag("blue")), Vec::<String>::new());
    assert_eq!(reached("ec2:DescribeVpcs", "*", json!({})), Vec::<String>::new());
    // A Deny narrows it down as well.
    let others = json!({ "Statement": [{ "Effect": "Deny", "Action": "*", "Resource": interfaces, "Condition":
        { "StringNotEquals": { "aws:ResourceTag/thalweg.io/cluster": "blue" } } }] });
    let broad = allow(json!({ "Action": deletes, "Resource": interfaces }));
    assert_eq!(check(&scope, &[read(&broad), read(&others)]).superfluous, []);
}

#[test]
fn a_policy_for_one_account_asks_which_is_meant() {
    let here = Scope {
        region: "eu-central-1".to_owned(),
        account: "111122223333".to_owned(),
        ..Scope::new(Mode::Eni, "blue")
    };
    let document = policy(&here).document.unwrap();
    let report = check(&Scope::new(Mode::Eni, "blue"), &[read(&document)]);
    assert!(!report.findings.is_empty());
    for finding in &report.findings {
        assert!(
            matches!(&finding.problem, Problem::Unknown { because } if because.contains("say which")),
            "{finding:?}"
        );
    }
    let there = Scope {
        account: "999999999999".to_owned(),
        ..here
    };
    let report = check(&there, &[read(&document)]);
    assert!(
        report
            .findings
            .iter()
            .all(|finding| finding.problem == Problem::Missing)
    );
    assert_eq!(report.findings.len(), 13);
}

#[test]
fn wildcards_and_negations_are_called_too_much() {
    let wide = |action: Value| {
        let report = check(&Scope::new(Mode::Eni, "blue"), &[read(&allow(action))]);
        (report.findings.len(), report.superfluous)
    };
    let (missing, extra) = wide(json!({ "Action": "ec2:*" }));
    assert_eq!(missing, 0);
    assert!(extra[0].reason.contains("more than is needed"));
    let mut without =
        json!({ "NotAction": ["ec2:AssignPrivateIpAddresses"], "Effect": "Allow", "Resource": "*" });
    without = json!({ "Statement": without });
    let report = check(&Scope::new(Mode::Eni, "blue"), &[read(&without)]);
    assert_eq!(report.findings.len(), 1);
    assert!(report.superfluous[0].reason.contains("NotAction"));
}

#[test]
fn an_explicit_deny_wins_over_policies() {
    let generous = read(&allow(json!({ "Action": "*" })));
    let strict = read(&json!({ "Statement": [
        { "Sid": "No", "Effect": "Deny", "Action": "EC2:assign*", "Resource": "*" },
    ]}));
    let report = check(&Scope::new(Mode::Eni, "blue"), &[generous, strict]);
    assert_eq!(report.findings.len(), 1);
    assert_eq!(
        report.findings[0].problem,
        Problem::Denied {
            by: "test, No".to_owned()
        }
    );
}

#[test]
fn actions_and_resources_match_as_iam_has_it() {
    let none = Context::default();
    let table = [
        ("ec2:Do", "*", "ec2:do", "x", true),
        ("ec2:D?", "*", "ec2:Do", "x", true),
        ("ec2:D?", "*", "ec2:D", "x", false),
        ("*", "*", "ec2:Do", "x", true),
        ("ec2:*Interface*", "*", "ec2:AttachNetworkInterface", "x", true),
        (
            "ec2:Do",
            "arn:aws:ec2:*:*:subnet/*",
            "ec2:Do",
            "arn:aws:ec2:eu-1:1:subnet/s-1",
            true,
        ),
        (
            "ec2:Do",
            "arn:aws:ec2:*:*:subnet/*",
            "ec2:Do",
            "arn:aws:ec2:eu-1:1:instance/i-1",
            false,
        ),
        (
            "ec2:Do",
            "ARN:aws:ec2:*",
            "ec2:Do",
            "arn:aws:ec2:eu-1:1:instance/i-1",
            false,
        ),
    ];
    for (action, resource, asked, on, expected) in table {
        let policy = allow(json!({ "Action": action, "Resource": resource }));
        let allowed = matches!(decide(&policy, asked, on, &none), Decision::Allowed { .. });
        assert_eq!(allowed, expected, "{action} on {resource}: {asked} on {on}");
    }
    let others = json!({ "Statement": { "Effect": "Allow", "Action": "ec2:Do", "NotResource": "arn:aws:ec2:*:*:subnet/*" } });
    assert_eq!(
        decide(&others, "ec2:Do", "arn:aws:ec2:e:1:subnet/s", &none),
        Decision::NotAllowed
    );
    assert!(matches!(
        decide(&others, "ec2:Do", "arn:aws:ec2:e:1:vpc/v", &none),
        Decision::Allowed { .. }
    ));
}

#[test]
fn string_conditions_hold_as_iam_has_it() {
    let one = Context::default().with("k", &["Blue"]).with("gone", &[]);
    let table = [
        (json!({ "StringEquals": { "K": "Blue" } }), '+'),
        (json!({ "StringEquals": { "k": ["Red", "Blue"] } }), '+'),
        (json!({ "StringEquals": { "k": "blue" } }), '-'),
        (json!({ "StringEquals": { "k": "B*" } }), '-'),
        (json!({ "StringEqualsIgnoreCase": { "k": "bLUE" } }), '+'),
        (json!({ "StringNotEqualsIgnoreCase": { "k": "bLUE" } }), '-'),
        (json!({ "StringNotEquals": { "k": ["Red", "Green"] } }), '+'),
        (json!({ "StringNotEquals": { "k": ["Red", "Blue"] } }), '-'),
        (json!({ "StringNotEquals": { "gone": "Red" } }), '+'),
        (json!({ "StringLike": { "k": "B?u*" } }), '+'),
        (json!({ "StringNotLike": { "k": "R*" } }), '+'),
        (json!({ "StringEquals": { "gone": "Blue" } }), '-'),
        (json!({ "StringEqualsIfExists": { "gone": "Blue" } }), '+'),
        (json!({ "StringEqualsIfExists": { "k": "Red" } }), '-'),
        (json!({ "StringEquals": { "never": "heard" } }), '?'),
        (json!({ "Bool": { "gone": "true" } }), '-'),
        (json!({ "Null": { "gone": "true" } }), '+'),
        (json!({ "Null": { "gone": false } }), '-'),
        (json!({ "Null": { "k": "false" } }), '+'),
        (json!({ "IpAddress": { "k": "10.0.0.0/8" } }), '?'),
        (json!({ "StringEquals": { "k": "Blue", "gone": "x" } }), '-'),
        (
            json!({ "StringEquals": { "k": "Red" }, "IpAddress": { "k": "10.0.0.0/8" } }),
            '-',
        ),
        (json!({ "StringEquals": { "k": "${k}" } }), '+'),
        (json!({ "StringEquals": { "k": "${never}" } }), '?'),
        (json!({ "StringLike": { "k": "${*}" } }), '-'),
        (json!({ "StringEquals": { "k": "${gone, 'Blue'}" } }), '+'),
    ];
    for (condition, expected) in table {
        assert_eq!(under(condition.clone(), &one), expected, "{condition}");
    }
}

#[test]
fn sets_and_arns_hold_as_iam_has_it() {
    let arn = "arn:aws:ec2:eu-1:1:vpc/vpc-1";
    let context = Context::default()
        .with("keys", &["a", "b"])
        .with("gone", &[])
        .with("vpc", &[arn])
        .with("yes", &["true"]);
    let table = [
        (
            json!({ "ForAllValues:StringEquals": { "keys": ["a", "b", "c"] } }),
            '+',
        ),
        (json!({ "ForAllValues:StringEquals": { "keys": ["a"] } }), '-'),
        (json!({ "ForAllValues:StringEquals": { "gone": ["a"] } }), '+'),
        (json!({ "ForAnyValue:StringEquals": { "keys": ["b", "z"] } }), '+'),
        (json!({ "ForAnyValue:StringEquals": { "keys": ["z"] } }), '-'),
        (json!({ "ForAnyValue:StringEquals": { "gone": ["a"] } }), '-'),
        (json!({ "ForAllValues:StringNotEquals": { "keys": ["z"] } }), '+'),
        (json!({ "ForAllValues:StringNotEquals": { "keys": ["a"] } }), '-'),
        (json!({ "StringEquals": { "keys": "a" } }), '?'),
        (json!({ "ArnLike": { "vpc": "arn:aws:ec2:*:*:vpc/vpc-1" } }), '+'),
        (json!({ "ArnEquals": { "vpc": "arn:aws:ec2:*:1:vpc/*" } }), '+'),
        (json!({ "ArnEquals": { "vpc": "arn:aws:ec2:*:vpc/vpc-1" } }), '-'),
        (json!({ "ArnLike": { "vpc": "arn:*" } }), '-'),
        (
            json!({ "ArnNotLike": { "vpc": "arn:aws:ec2:*:*:vpc/vpc-2" } }),
            '+',
        ),
        (json!({ "Bool": { "yes": true } }), '+'),
        (json!({ "BoolIfExists": { "gone": "false" } }), '+'),
    ];
    for (condition, expected) in table {
        assert_eq!(under(condition.clone(), &context), expected, "{condition}");
    }
}

#[test]
fn a_doubtful_deny_makes_the_answer_doubtful() {
    let policy = json!({ "Statement": [
        { "Effect": "Allow", "Action": "ec2:Do", "Resource": "*" },
        { "Effect": "Deny", "Action": "ec2:Do", "Resource": "*", "Condition": { "StringEquals": { "aws:PrincipalOrgID": "o-1" } } },
    ]});
    let decision = decide(&policy, "ec2:Do", "*", &Context::default());
    assert!(
        matches!(&decision, Decision::Unknown { because } if because.contains("aws:PrincipalOrgID")),
        "{decision:?}"
    );
    assert_eq!(
        decide(&policy, "ec2:Other", "*", &Context::default()),
        Decision::NotAllowed
    );
}

#[test]
fn documents_are_read_bare_or_wrapped_and_bad_ones_refused() {
    let bare = allow(json!({}));
    let wrapped = json!({ "PolicyVersion": { "Document": bare, "VersionId": "v3" } });
    assert_eq!(read(&bare).statements, read(&wrapped).statements);
    assert_eq!(
        read(&bare).statements,
        read(&json!({ "RoleName": "r", "PolicyDocument": bare })).statements
    );
    for (bad, why) in [
        ("{\"Statement\": [", "no JSON"),
        ("[]", "no object"),
        ("{}", "no Statement"),
        (r#"{"Version": "2020-01-01", "Statement": []}"#, "version"),
        (
            r#"{"Statement": [{"Effect": "allow", "Action": "a:b", "Resource": "*"}]}"#,
            "Effect",
        ),
        (
            r#"{"Statement": [{"Effect": "Allow", "Action": "a:b", "NotAction": "a:c", "Resource": "*"}]}"#,
            "both",
        ),
        (
            r#"{"Statement": [{"Effect": "Allow", "Action": "a:b"}]}"#,
            "neither Resource",
        ),
        (
            r#"{"Statement": [{"Effect": "Allow", "Action": "Describe", "Resource": "*"}]}"#,
            "no service",
        ),
        (
            r#"{"Statement": [{"Effect": "Allow", "Action": "a:b", "Resource": "*", "Conditions": {}}]}"#,
            "Conditions",
        ),
        (
            r#"{"Statement": [{"Effect": "Allow", "Action": "a:b", "Principal": "*"}]}"#,
            "trust",
        ),
        (r#"{"Statements": []}"#, "Statements"),
    ] {
        let error = Policy::parse("file.json", bad).unwrap_err().to_string();
        assert!(
            error.contains(why) && error.contains("file.json"),
            "{bad}: {error}"
        );
    }
}

#[test]
fn trust_policies_name_one_service_account() {
    let pods = pod_identity(&PodIdentity {
        namespace: "kube-system".to_owned(),
        service_account: "thalweg-operator".to_owned(),
        cluster: "blue".to_owned(),
        account: Some("111122223333".to_owned()),
    })
    .unwrap();
    let statement = &pods["Statement"][0];
    assert_eq!(statement["Principal"]["Service"], "pods.eks.amazonaws.com");
    assert_eq!(statement["Action"], json!(["sts:AssumeRole", "sts:TagSession"]));
    assert_eq!(
        statement["Condition"]["StringEquals"]["aws:RequestTag/kubernetes-service-account"],
        "thalweg-operator"
    );
    let role = |issuer: &str, account: &str| Irsa {
        namespace: "kube-system".to_owned(),
        service_account: "thalweg-operator".to_owned(),
        partition: "aws-cn".to_owned(),
        account: account.to_owned(),
        issuer: issuer.to_owned(),
    };
    let issuer = "https://oidc.eks.cn-north-1.amazonaws.com.cn/id/ABC";
    let document = irsa(&role(issuer, "111122223333")).unwrap();
    let statement = &document["Statement"][0];
    assert_eq!(
        statement["Principal"]["Federated"],
        "arn:aws-cn:iam::111122223333:oidc-provider/oidc.eks.cn-north-1.amazonaws.com.cn/id/ABC"
    );
    assert_eq!(
        statement["Condition"]["StringEquals"]["oidc.eks.cn-north-1.amazonaws.com.cn/id/ABC:sub"],
        "system:serviceaccount:kube-system:thalweg-operator"
    );
    for (issuer, account) in [
        ("http://x/id/A", "111122223333"),
        (issuer, "1111"),
        ("https://x", "111122223333"),
        ("https://x/*", "111122223333"),
    ] {
        assert!(irsa(&role(issuer, account)).is_err(), "{issuer} {account}");
    }
}

proptest! {
    /// Against a plain recursive matcher.
    #[test]
    fn patterns_match_as_the_simple_definition(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
        fn simple(pattern: &[u8], text: &[u8]) -> bool {
            match (pattern, text) {
                ([], []) => true,
                ([b'*', rest @ ..], _) => simple(rest, text) || (!text.is_empty() && simple(pattern, &text[1..])),
                ([b'?', rest @ ..], [_, more @ ..]) => simple(rest, more),
                ([one, rest @ ..], [other, more @ ..]) => one == other && simple(rest, more),
                _ => false,
            }
        }
        prop_assert_eq!(glob::Pattern::plain(&pattern).matches(&text), simple(pattern.as_bytes(), text.as_bytes()));
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        let _ = Policy::parse("any", &text);
    }

    /// More policies with Allow never take away, another Deny never gives.
    #[test]
    fn evaluation_is_monotonic(
        actions in proptest::collection::vec("ec2:[AB*]{1,2}", 1..4),
        deny in "ec2:[AB*]{1,2}",
        asked in "ec2:[AB]{1,2}",
    ) {
        let call = Call { action: asked, resource: "*".to_owned(), context: Context::default() };
        let allow: Vec<Policy> = actions.iter().map(|action| read(&allow(json!({ "Action": action })))).collect();
        let is = |policies: &[Policy]| matches!(evaluate(policies, &call), Decision::Allowed { .. });
        prop_assert!(!is(&allow[..1]) || is(&allow));
        let mut denied = allow.clone();
        denied.push(read(&json!({ "Statement": { "Effect": "Deny", "Action": deny, "Resource": "*" } })));
        prop_assert!(!is(&denied) || is(&allow));
    }
}
