// SPDX-License-Identifier: Apache-2.0

use std::process::Command;

use super::{Duration, Facts, Kind, MigrateError, Runbook, markdown, migrate};
use crate::sample::{catalogue, planned};

const MANY: &str = include_str!("../../../../examples/platform/many-clouds.yaml");

fn facts() -> Facts<'static> {
    Facts {
        host: "shop.example.com",
        dns_ttl: 3600,
        bucket: "acme-backups",
    }
}

fn of(kind: &Kind<'_>, facts: &Facts<'_>) -> Result<Runbook, MigrateError> {
    let (platform, addresses) = planned(MANY);
    migrate(&platform, &addresses, catalogue(), kind, facts)
}

fn both() -> [Runbook; 2] {
    let over = Kind::AksToEks {
        from: "azure-eu",
        to: "aws-eu",
    };
    let inside = Kind::VpcCni { cluster: "aws-eu" };
    [over, inside].map(|kind| of(&kind, &facts()).unwrap())
}

#[test]
fn every_step_has_command_check_undo_and_a_duration_or_says_on_what_it_depends() {
    for migration in both() {
        assert!(migration.steps.len() >= 8);
        for (index, step) in migration.steps.iter().enumerate() {
            assert_eq!(step.number, index + 1);
            for text in [&step.title, &step.command, &step.check, &step.undo, &step.impact] {
                assert!(!text.trim().is_empty(), "{step:?}");
            }
            match &step.duration {
                Duration::Known { seconds, because } => assert!(*seconds > 0 && !because.is_empty()),
                Duration::Unknown { depends } => assert!(!depends.is_empty()),
            }
        }
        assert_eq!(
            migration
                .steps
                .iter()
                .filter(|step| step.point_of_no_return)
                .count(),
            1
        );
    }
}

#[test]
fn commands_are_shell_that_a_shell_understands() {
    for step in both().into_iter().flat_map(|migration| migration.steps) {
        for script in [&step.command, &step.check, &step.undo] {
            // Pods of a test in a cluster need one.
            let names_an_image = script.contains(" --image ");
            assert!(
                !script.contains("thalweg connectivity test") || names_an_image,
                "{script}"
            );
            let parsed = Command::new("sh").args(["-n", "-c", script]).output().unwrap();
            assert!(
                parsed.status.success(),
                "{script}\n{}",
                String::from_utf8_lossy(&parsed.stderr)
            );
        }
    }
}

#[test]
fn aks_to_eks_backs_up_before_it_restores_and_switches_dns_by_its_lifetime() {
    let [over, _] = both();
    let at = |text: &str| {
        over.steps
            .iter()
            .position(|step| step.command.contains(text))
            .unwrap()
    };
    assert!(at("backup create move-1") < at("restore create move-1"));
    assert!(at("restore create move-1") < at("weigh shop.example.com 90"));
    assert!(at("weigh shop.example.com 90") < at("weigh shop.example.com 0 to 100"));
    assert!(at("weigh shop.example.com 0 to 100") < at("cd terraform/azure-eu && terraform destroy"));
    assert!(matches!(
        &over.steps[0].duration,
        Duration::Known { seconds: 3600, .. }
    ));
    assert!(over.before.iter().any(|text| text.contains("doubled capacity")));
}

#[test]
fn new_nodes_come_before_the_vpc_cni_goes() {
    let [_, inside] = both();
    let titles: Vec<&str> = inside.steps.iter().map(|step| step.title.as_str()).collect();
    assert_eq!(
        titles,
        [
            "back up",
            "keep the VPC CNI to the old nodes",
            "install Thalweg, for new nodes only",
            "double the capacity by new node groups",
            "prove the new nodes",
            "move the pods, one old node after the other",
            "remove the VPC CNI",
            "remove the old nodes",
        ]
    );
}

#[test]
fn runbooks_are_as_they_were_read_by_people() {
    for (name, migration) in ["aks-to-eks", "vpc-cni"].into_iter().zip(both()) {
        insta::with_settings!({snapshot_path => "../../testdata/migrate", prepend_module_to_snapshot => false, omit_expression => true}, {
            insta::assert_snapshot!(name, markdown(&migration));
        });
    }
}

#[test]
fn what_cannot_be_migrated_is_refused() {
    let typo = of(&Kind::VpcCni { cluster: "aws-us" }, &facts())
        .unwrap_err()
        .to_string();
    assert_eq!(
        typo,
        "the platform file has no cluster `aws-us` (did you mean `aws-eu`?); it has aws-eu, azure-eu, gcp-us"
    );
    let cloud = of(&Kind::VpcCni { cluster: "azure-eu" }, &facts())
        .unwrap_err()
        .to_string();
    assert_eq!(
        cloud,
        "cluster `azure-eu` is on azure, and this migration is for aws; name another cluster"
    );
    let kind = Kind::VpcCni { cluster: "aws-eu" };
    let host = of(
        &kind,
        &Facts {
            host: "a; rm -rf /",
            ..facts()
        },
    )
    .unwrap_err();
    assert_eq!(host, MigrateError::Name("a; rm -rf /".into()));
    assert_eq!(
        of(
            &kind,
            &Facts {
                dns_ttl: 0,
                ..facts()
            }
        )
        .unwrap_err(),
        MigrateError::Ttl(0)
    );
}
