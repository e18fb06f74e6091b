// SPDX-License-Identifier: Apache-2.0

use super::{Platform, nearest};
use crate::sample::{catalogue, parsed};

fn problems(text: &str) -> Vec<String> {
    let refused = Platform::parse(text, catalogue()).unwrap_err();
    refused.problems.iter().map(ToString::to_string).collect()
}

fn cluster(settings: &str) -> String {
    format!("name: x\nclusters:\n  - {{name: a, kubernetes: '1.33', {settings}}}\n")
}

const GROUPS: &str = "nodeGroups: [{name: w, instanceTypes: [m5.large], max: 3}]";

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let text = "
name: Acme!
pool: {}
clusters:
  - {name: a, cloud: aws, region: eu-centrl-1, kubernets: '1.33', kubernetes: 1.33, mode: overlay,
     nodeGroups: [{name: w, instanceTypes: [m5.larg], max: 3, maxx: 4}], features: {hubbel: true}}
  - {name: a, cloud: aws, region: eu-west-1, kubernetes: '1.33', mode: eni, pods: 10.0.0.1/8, nodeGroups: []}
";
    assert_eq!(
        problems(text),
        [
            "pool: there is no such setting; did you mean `pools`?",
            "clusters[0].kubernets: there is no such setting; did you mean `kubernetes`?",
            "clusters[0].nodeGroups[0].maxx: there is no such setting; did you mean `max`?",
            "clusters[0].features.hubbel: there is no such setting; did you mean `hubble`?",
            "clusters[1].nodeGroups: there is no node group; list at least one, beginning with `- name: …`",
            "clusters[1].pods: `10.0.0.1/8` has host bits; write 10.0.0.0/8",
            "name: `Acme!` cannot be part of names in the clouds; use small letters, digits and '-', beginning with a letter, at most 40",
        ]
    );
}

/// What a cloud would refuse when half of the cluster is made, or what would hang there.
#[test]
fn what_a_cloud_would_refuse_late_is_refused_here() {
    let eks = "cloud: aws, region: eu-west-1, mode: eni";
    let aks = "cloud: azure, region: westeurope, mode: delegated";
    let types = |types: &str| format!("nodeGroups: [{{name: w, instanceTypes: [{types}], max: 3}}]");
    let pool =
        |more: &str| format!("nodeGroups: [{{name: w, instanceTypes: [Standard_D4s_v5], max: 3{more}}}]");
    let long = "a".repeat(40);
    let cases = [
        (
            format!("{eks}, podsPerNode: 110, {GROUPS}"),
            "clusters[0].nodeGroups[0].instanceTypes: m5.large has addresses for 27 pods in mode eni, and podsPerNode is 110; take podsPerNode 29 at most, or leave it out and let it be computed",
        ),
        (
            format!("{eks}-prefix, {}", types("m4.large")),
            "clusters[0].nodeGroups[0].instanceTypes: m4.large runs on Xen, which has no prefix delegation; use mode eni or overlay, or a Nitro type",
        ),
        (
            format!("{eks}, {}", types("m5.large, t4g.medium")),
            "clusters[0].nodeGroups[0].instanceTypes: t4g.medium has processors of AWS and m5.large has not: no image runs on both; make a group for each kind",
        ),
        (
            format!("{aks}, podsPerNode: 8, {}", pool("")),
            "clusters[0].podsPerNode: AKS runs 10 to 250 pods on a node, not 8; take 10 to 250",
        ),
        (
            format!(
                "cloud: azure, region: westeurope, mode: overlay, nodeMask: 20, podsPerNode: 900, {}",
                pool("")
            ),
            "clusters[0].podsPerNode: AKS runs 10 to 250 pods on a node, not 900; take 10 to 250",
        ),
        (
            format!("{aks}, zones: 6, {}", pool("")),
            "clusters[0].zones: regions of Azure have 3 availability zones at most; take 3 or fewer",
        ),
        (
            format!("{aks}, {}", pool(", spot: true")),
            "clusters[0].nodeGroups[0].spot: the first pool is AKS's system pool, which cannot be of machines that may be taken away; list another group first",
        ),
        (
            format!("{aks}, {}", pool(", min: 0")),
            "clusters[0].nodeGroups[0].min: the first pool is AKS's system pool, which has a node at least; take 1 or more, or list another group first",
        ),
    ];
    for (settings, said) in cases {
        assert_eq!(problems(&cluster(&settings)), [said], "{settings}");
    }
    let text = format!(
        "name: {long}\nclusters:\n  - {{name: a{long}, kubernetes: '1.33', cloud: gcp, region: us-east1, mode: pod-cidr, \
         nodeGroups: [{{name: w, instanceTypes: [e2-standard-4], max: 3}}]}}\n"
    )
    .replace("name: aa", "name: a");
    let said = problems(&text);
    assert!(
        said.len() == 1 && said[0].contains("names of clusters of GKE have 40 at most"),
        "{said:?}"
    );
}

#[test]
fn impossible_modes_are_refused_with_the_reason_and_the_remedy() {
    let cases = [
        (
            "cloud: azure, region: westeurope, mode: eni",
            "clusters[0].mode: ENIs are a thing of AWS; on azure there are none; choose delegated (Azure CNI owns the addresses) or overlay (network-plugin none, Thalweg owns all)",
        ),
        (
            "cloud: aws, region: eu-west-1, mode: delegated",
            "clusters[0].mode: addresses by Azure CNI are a thing of AKS, not of aws; choose eni, eni-prefix or overlay",
        ),
        (
            "cloud: gcp, region: us-east1, mode: overlay",
            "clusters[0].mode: GKE routes pod CIDRs by itself and cannot be told not to; a tunnel on top costs and gives nothing; choose pod-cidr: the alias ranges of the nodes",
        ),
        (
            "cloud: aws, region: eu-west-1, mode: pod-cidr",
            "clusters[0].mode: EKS gives nodes no pod CIDRs, and a VPC routes no more than it has entries for; choose eni, eni-prefix or overlay",
        ),
    ];
    for (settings, expected) in cases {
        let found = problems(&cluster(&format!(
            "{settings}, nodeGroups: [{{name: w, instanceTypes: [m5.large], max: 3}}]"
        )));
        assert!(found.contains(&expected.to_owned()), "{settings}: {found:#?}");
    }
}

#[test]
fn unknown_regions_and_types_are_refused_with_the_nearest() {
    let found = problems(&cluster(&format!(
        "cloud: aws, region: eu-centrl-1, mode: overlay, {GROUPS}"
    )));
    assert!(
        found[0].starts_with("clusters[0].region: aws has no region `eu-centrl-1`"),
        "{found:?}"
    );
    assert!(found[0].ends_with("did you mean `eu-central-1`?"), "{found:?}");
    let found = problems(&cluster(
        "cloud: aws, region: eu-west-1, mode: eni, nodeGroups: [{name: w, instanceTypes: [m5.lage], max: 3}]",
    ));
    assert!(
        found[0].starts_with("clusters[0].nodeGroups[0].instanceTypes: aws has no machine type `m5.lage`"),
        "{found:?}"
    );
    assert!(found[0].contains("m5.large"), "{found:?}");
}

#[test]
fn masks_and_sizes_that_do_not_fit_are_refused() {
    let base = format!("cloud: aws, region: eu-west-1, mode: overlay, {GROUPS}");
    let cases = [
        (
            "nodeMask: 26, podsPerNode: 110",
            "a node's /26 holds 61 pods, and podsPerNode is 110",
        ),
        (
            "pods: 10.0.0.0/23",
            "10.0.0.0/23 holds 2 nodes' /24, and the groups may grow to 3 nodes",
        ),
        ("network: 10.0.0.0/15", "a network of aws cannot be a /15"),
        (
            "services: 100.64.0.0/16",
            "EKS takes services' networks of RFC 1918 only",
        ),
        ("services: 10.0.0.0/8", "aws takes no services' network of /8"),
        ("zones: 1", "EKS wants subnets in at least two availability zones"),
        (
            "zones: [eu-west-1a, eu-west-2b]",
            "`eu-west-2b` is no zone of eu-west-1",
        ),
        ("egress: firewall", "firewall is not rendered for aws"),
        ("features: {bgp: true}", "has no BGP peer"),
        ("endpoint: 'a:1'", "aws chooses the API's address"),
        ("network: 169.254.0.0/16", "contains link-local addresses"),
        (
            "kubernetes: latest",
            "`latest` is not a minor version of Kubernetes",
        ),
    ];
    for (setting, expected) in cases {
        let base = if setting.starts_with("kubernetes") {
            format!("name: x\nclusters:\n  - {{name: a, {base}, {setting}}}\n")
        } else {
            cluster(&format!("{base}, {setting}"))
        };
        let found = problems(&base);
        assert!(
            found.iter().any(|problem| problem.contains(expected)),
            "{setting}: {found:#?}"
        );
    }
}

#[test]
fn azure_overlay_gives_each_node_a_24_and_250_pods() {
    let base = "cloud: azure, region: westeurope, mode: delegated, nodeGroups: [{name: w, instanceTypes: [Standard_D4s_v5], max: 3}]";
    assert!(
        problems(&cluster(&format!("{base}, nodeMask: 25, podsPerNode: 100")))[0]
            .contains("gives each node a /24")
    );
    assert!(problems(&cluster(&format!("{base}, podsPerNode: 251")))[0].contains("10 to 250 pods"));
    let long = base.replace("name: w", "name: my-workers");
    assert!(problems(&cluster(&long))[0].contains("cannot be the name of an AKS node pool"));
}

#[test]
fn what_is_no_yaml_and_what_is_twice_is_refused() {
    assert!(problems("name: [")[0].starts_with("this is not YAML"));
    assert!(problems("name: a\nname: b\nclusters: []")[0].contains("duplicate"));
    assert_eq!(problems("just words").len(), 3);
    assert!(problems("name: x\nclusters: []")[0].starts_with("clusters: there is no cluster"));
}

#[test]
fn defaults_hold_where_a_cluster_says_nothing() {
    let platform = parsed(
        "name: x\ndefaults: {cloud: aws, region: eu-west-1, kubernetes: '1.33', mode: overlay, nodeGroups: [{name: w, instanceTypes: [m5.large], max: 3}]}\n\
         clusters:\n  - {name: a}\n  - {name: b, mode: eni}\n",
    );
    let modes: Vec<String> = platform
        .clusters
        .iter()
        .map(|cluster| cluster.mode.to_string())
        .collect();
    assert_eq!(modes, ["overlay", "eni"]);
    let found = problems("name: x\ndefaults: {name: y, mode: enni}\nclusters:\n  - {name: a}\n");
    assert!(
        found[0].starts_with("defaults.name: there is no such setting"),
        "{found:#?}"
    );
    assert!(
        found.iter().any(
            |problem| problem.starts_with("defaults.mode: `enni` is not known here; did you mean `eni`?")
        )
    );
}

#[test]
fn suggestions_are_near() {
    assert_eq!(nearest("regoin", &["region", "mode"]), Some("region"));
    assert_eq!(nearest("NODEGROUPS", &["nodeGroups"]), Some("nodeGroups"));
    assert_eq!(nearest("zebra", &["region", "mode"]), None);
}
