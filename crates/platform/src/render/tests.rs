// SPDX-License-Identifier: Apache-2.0

use serde_json::{Value, json};

use super::names::Names;
use super::{File, render};
use crate::sample;

/// The examples that people begin with are what is rendered here.
const EXAMPLES: [(&str, &str); 8] = [
    (
        "aks-delegated",
        include_str!("../../../../examples/platform/aks-delegated.yaml"),
    ),
    (
        "aks-none",
        include_str!("../../../../examples/platform/aks-none.yaml"),
    ),
    (
        "aks-private",
        include_str!("../../../../examples/platform/aks-private.yaml"),
    ),
    (
        "bare-metal",
        include_str!("../../../../examples/platform/bare-metal.yaml"),
    ),
    (
        "eks-eni",
        include_str!("../../../../examples/platform/eks-eni.yaml"),
    ),
    (
        "eks-overlay",
        include_str!("../../../../examples/platform/eks-overlay.yaml"),
    ),
    ("gke", include_str!("../../../../examples/platform/gke.yaml")),
    (
        "many-clouds",
        include_str!("../../../../examples/platform/many-clouds.yaml"),
    ),
];

fn rendered(text: &str) -> Vec<File> {
    let (platform, addresses) = sample::planned(text);
    render(&platform, &addresses, sample::catalogue())
}

fn document(files: &[File], path: &str) -> Value {
    let file = files
        .iter()
        .find(|file| file.path == path)
        .unwrap_or_else(|| panic!("no {path}"));
    serde_yaml_ng::from_str(&file.content).unwrap()
}

fn unknown_names(files: &[File]) -> Vec<String> {
    let names = Names::load();
    let mut wrong = Vec::new();
    for file in files {
        let found = if file.path.ends_with(".tf.json") {
            names.terraform(&serde_json::from_str(&file.content).unwrap())
        } else if file.path.ends_with("Pulumi.yaml") {
            names.pulumi(&serde_yaml_ng::from_str(&file.content).unwrap())
        } else {
            continue;
        };
        wrong.extend(found.into_iter().map(|what| format!("{}: {what}", file.path)));
    }
    wrong
}

#[test]
fn every_rendered_name_is_known_to_its_provider() {
    let mut wrong = Vec::new();
    let mut documents = 0;
    for (name, text) in EXAMPLES {
        let files = rendered(text);
        documents += files
            .iter()
            .filter(|file| file.path.starts_with("terraform") || file.path.starts_with("pulumi"))
            .count();
        wrong.extend(
            unknown_names(&files)
                .into_iter()
                .map(|what| format!("{name}: {what}")),
        );
    }
    assert!(
        wrong.is_empty(),
        "{} unknown names:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(documents >= 20, "{documents} documents were looked at");
}

#[test]
fn an_unknown_name_is_found() {
    let names = Names::load();
    let vpc = |settings: Value| json!({"resource": {"aws_vpc": {"this": settings}}});
    assert_eq!(
        names.terraform(&vpc(json!({"cidr_block": "10.0.0.0/16"}))),
        Vec::<String>::new()
    );
    let wrong = names.terraform(&vpc(json!({"cidr": "10.0.0.0/16"})));
    assert_eq!(wrong, ["aws_vpc.cidr: there is no such setting"]);
    let nested =
        json!({"resource": {"aws_eks_cluster": {"this": {"upgrade_policy": {"auto_update": false}}}}});
    assert_eq!(
        names.terraform(&nested),
        ["aws_eks_cluster.upgrade_policy.auto_update: there is no such setting"]
    );
    let refers = vpc(json!({"cidr_block": "${aws_vpc.this.colour}", "tags": {"a": "${aws_vpc.that.id}"}}));
    let expected = [
        "aws_vpc has no result colour",
        "${aws_vpc.that.id}: nothing has this name",
    ];
    assert_eq!(names.terraform(&refers), expected);
    let token = json!({"resources": {"a": {"type": "aws:ec2:Vpcs", "properties": {}}}});
    assert_eq!(names.pulumi(&token), ["aws:ec2:Vpcs: no provider has this type"]);
    let property = json!({"resources": {"a": {"type": "aws:ec2:Vpc", "properties": {"cidr_block": "x"}}}});
    assert_eq!(
        names.pulumi(&property),
        ["aws:ec2:Vpc.cidr_block: there is no such setting"]
    );
}

#[test]
fn rendered_files_are_as_they_were_read_by_people() {
    for (name, text) in EXAMPLES {
        let mut golden = String::new();
        for file in rendered(text) {
            golden.push_str(&format!("==> {} <==\n{}\n", file.path, file.content));
        }
        insta::with_settings!({snapshot_path => "../../testdata/render", prepend_module_to_snapshot => false, omit_expression => true}, {
            insta::assert_snapshot!(name, golden);
        });
    }
}

#[test]
fn rendering_twice_gives_the_same_bytes() {
    for (_, text) in EXAMPLES {
        assert_eq!(rendered(text), rendered(text));
    }
}

#[test]
fn eks_has_neither_vpc_cni_nor_kube_proxy() {
    let files = rendered(EXAMPLES[4].1);
    let eks = document(&files, "terraform/prod-eu/main.tf.json");
    let cluster = &eks["resource"]["aws_eks_cluster"]["this"];
    assert_eq!(cluster["bootstrap_self_managed_addons"], json!(false));
    assert_eq!(cluster["upgrade_policy"]["support_type"], json!("STANDARD"));
    let addons = eks["resource"]["aws_eks_addon"].as_object().unwrap();
    let names: Vec<_> = addons
        .values()
        .map(|addon| addon["addon_name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["coredns", "eks-pod-identity-agent"]);
    assert!(!eks.to_string().contains("AmazonEKS_CNI_Policy"));
    // Nodes are ready when the operator has given addresses, which waits for this agent: no waiting for each other.
    assert_eq!(addons["eks_pod_identity_agent"].get("depends_on"), None);
    assert!(
        addons["coredns"]["depends_on"]
            .as_array()
            .is_some_and(|groups| groups.len() == 2)
    );
    for group in eks["resource"]["aws_eks_node_group"]
        .as_object()
        .unwrap()
        .values()
    {
        assert_eq!(group["taint"][0]["key"], json!(super::TAINT));
    }
}

/// The role that is rendered is what `thalweg iam` would have it be: nothing is missing and nothing too much.
#[test]
fn the_operators_role_is_what_the_planner_checks() {
    let files = rendered(EXAMPLES[4].1);
    for (cluster, region, mode) in [
        ("prod-eu", "eu-central-1", ::plan::Mode::Eni),
        ("prod-us", "us-east-1", ::plan::Mode::EniPrefix),
    ] {
        let eks = document(&files, &format!("terraform/{cluster}/main.tf.json"));
        let text = eks["resource"]["aws_iam_role_policy"]["operator"]["policy"]
            .as_str()
            .unwrap();
        // As Terraform fills it in.
        let text = text.replace("${aws_vpc.this.id}", "vpc-1");
        let role = ::plan::iam::Policy::parse("operator", &text).unwrap();
        let name = format!("acme-{cluster}");
        let scope = ::plan::iam::Scope {
            region: region.into(),
            vpc: Some("vpc-1".into()),
            first_interface: true,
            ..::plan::iam::Scope::new(mode, &name)
        };
        let report = ::plan::iam::check(&scope, &[role]);
        assert_eq!(
            (report.findings, report.superfluous),
            (vec![], vec![]),
            "{cluster}"
        );
        // What the policy goes by is there.
        for template in eks["resource"]["aws_launch_template"]
            .as_object()
            .unwrap()
            .values()
        {
            let tags = &template["tag_specifications"][0];
            assert_eq!(tags["resource_type"], json!("network-interface"));
            assert_eq!(
                tags["tags"][format!("kubernetes.io/cluster/{name}")],
                json!("owned")
            );
        }
        assert_eq!(eks["resource"]["aws_eks_cluster"]["this"]["name"], json!(name));
    }
}

#[test]
fn azure_overlay_is_never_called_an_encapsulation() {
    let files = rendered(EXAMPLES[0].1);
    let values = document(&files, "gitops/clusters/shared/values.yaml");
    assert_eq!(values["routingMode"], json!("native"));
    assert_eq!(values.get("tunnelProtocol"), None);
    assert_eq!(values["ipam"]["mode"], json!("delegated-plugin"));
}

#[test]
fn network_plugin_none_has_no_pod_cidr_of_azure() {
    let files = rendered(EXAMPLES[2].1);
    let aks = document(&files, "terraform/vault/main.tf.json");
    let profile = &aks["resource"]["azurerm_kubernetes_cluster"]["this"]["network_profile"];
    assert_eq!(profile["network_plugin"], json!("none"));
    assert_eq!(profile["outbound_type"], json!("userDefinedRouting"));
    assert_eq!(profile.get("pod_cidr"), None);
    let values = document(&files, "gitops/clusters/vault/values.yaml");
    assert_eq!(values["kubeProxyReplacement"], json!(true));
    assert_eq!(values["routingMode"], json!("tunnel"));
}
