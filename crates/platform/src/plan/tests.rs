// SPDX-License-Identifier: Apache-2.0

use super::{Answer, Cost, Plan, plan};
use crate::sample::{catalogue, parsed};

fn of(text: &str) -> Plan {
    plan(&parsed(text), catalogue()).unwrap()
}

const MANY: &str = include_str!("../../../../examples/platform/many-clouds.yaml");

#[test]
fn pods_per_node_are_those_of_the_official_table() {
    // type, official max-pods (amazon-vpc-cni-k8s misc/eni-max-pods.txt)
    for (name, official) in [
        ("t3.small", 11),
        ("t3.medium", 17),
        ("t3.large", 35),
        ("m5.large", 29),
        ("m5.xlarge", 58),
    ] {
        let text = format!(
            "name: x\npools: {{networks: 10.0.0.0/8, services: 172.16.0.0/16}}\nclusters:\n  - {{name: a, cloud: aws, region: us-east-1, \
             kubernetes: '1.33', mode: eni, nodeGroups: [{{name: w, instanceTypes: [{name}], max: 3}}]}}\n"
        );
        let plan = of(&text);
        let group = &plan.clusters[0].groups[0];
        assert_eq!(group.official_max_pods, Some(official), "{name}");
        assert_eq!(group.pods, Some(official - 2), "{name}");
    }
}

#[test]
fn cost_is_known_or_said_to_be_unknown_with_the_reason() {
    let text = "name: x\npools: {networks: 10.0.0.0/8, pods: 100.64.0.0/10, services: 172.16.0.0/16}\nclusters:\n  \
        - {name: a, cloud: aws, region: us-east-1, kubernetes: '1.33', mode: overlay, nodeGroups: [{name: w, instanceTypes: [m5.large], desired: 2, max: 4}]}\n  \
        - {name: b, cloud: aws, region: eu-south-2, kubernetes: '1.33', mode: overlay, nodeGroups: [{name: w, instanceTypes: [m5.large], max: 4}]}\n";
    let plan = of(text);
    match &plan.clusters[0].cost {
        Cost::Known {
            usd_per_month,
            usd_per_month_max,
            date,
            ..
        } => {
            assert!(*usd_per_month > 0.0 && (usd_per_month_max / usd_per_month - 2.0).abs() < 1e-6);
            assert_eq!(date.len(), "2026-07-20".len());
        }
        Cost::Unknown { reason } => panic!("{reason}"),
    }
    assert!(matches!(&plan.clusters[1].cost, Cost::Unknown { reason } if reason.contains("eu-south-2")));
}

#[test]
fn a_firewall_in_one_cloud_and_none_in_another_is_not_comparable() {
    let plan = of(MANY);
    let filter = plan
        .not_comparable
        .iter()
        .find(|one| one.property == "what leaves is filtered")
        .unwrap();
    assert_eq!(filter.values["by the cloud's firewall, by name"], ["azure-eu"]);
    assert_eq!(filter.values["no: NAT lets everything out"], ["aws-eu", "gcp-us"]);
    let api = plan
        .not_comparable
        .iter()
        .any(|one| one.property.contains("Kubernetes API"));
    assert!(api);
}

#[test]
fn equal_clusters_have_nothing_that_is_not_comparable() {
    let plan = of(include_str!("../../../../examples/platform/aks-private.yaml"));
    assert_eq!(plan.not_comparable, []);
}

#[test]
fn traps_are_of_those_clusters_that_have_them() {
    let plan = of(MANY);
    let interfaces = plan.traps.iter().find(|trap| trap.number == 4).unwrap();
    assert_eq!(
        (interfaces.clusters.as_slice(), interfaces.answer),
        (&["aws-eu".to_owned()][..], Answer::Prevented)
    );
    assert!(
        plan.traps.iter().all(|trap| trap.number != 8),
        "without a mesh there is nothing to join"
    );
    let numbers: std::collections::BTreeSet<u8> = plan.traps.iter().map(|trap| trap.number).collect();
    assert_eq!(
        numbers.into_iter().collect::<Vec<_>>(),
        [1, 2, 3, 4, 5, 6, 7, 9, 10]
    );
}

#[test]
fn what_the_agent_does_not_take_is_not_promised() {
    let plan = of(MANY);
    let takes = |setting: &str| api::config::Config::from_yaml(setting.as_bytes()).is_ok();
    let eni = plan.clusters[0].not_yet.contains(&"ipam.mode: eni".to_owned());
    assert_eq!(eni, !takes("ipam.mode: eni"));
    let kubernetes = plan.clusters[2]
        .not_yet
        .contains(&"ipam.mode: kubernetes".to_owned());
    assert!(!kubernetes && takes("ipam.mode: kubernetes"));
}
