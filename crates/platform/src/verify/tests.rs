// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Report, State, recordings, verify};
use crate::sample::{catalogue, planned};

const EKS: &str = include_str!("../../../../examples/platform/eks-eni.yaml");
const AKS: &str = include_str!("../../../../examples/platform/aks-private.yaml");
const GKE: &str = include_str!("../../../../examples/platform/gke.yaml");
const METAL: &str = include_str!("../../../../examples/platform/bare-metal.yaml");
const ALL: [(&str, &str); 4] = [
    ("eks-eni", EKS),
    ("aks-private", AKS),
    ("gke", GKE),
    ("bare-metal", METAL),
];

/// A recording as files, as the commands of `recordings` write them.
struct Recorded(Vec<(String, Value)>);

impl Recorded {
    fn load(name: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("testdata/state")
            .join(name);
        let mut files = Vec::new();
        walk(&root, &mut |path: PathBuf| {
            let relative = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
            files.push((
                relative,
                serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap(),
            ));
        });
        assert!(!files.is_empty(), "no recording {name}");
        Self(files)
    }

    /// Changes one value of one answer; it has to be there.
    fn plant(mut self, file: &str, pointer: &str, value: Value) -> Self {
        let (_, answer) = self
            .0
            .iter_mut()
            .find(|(path, _)| path == file)
            .unwrap_or_else(|| panic!("no {file}"));
        if let Some(list) = pointer.strip_suffix("/-") {
            answer
                .pointer_mut(list)
                .and_then(Value::as_array_mut)
                .unwrap_or_else(|| panic!("no {pointer}"))
                .push(value);
        } else {
            *answer
                .pointer_mut(pointer)
                .unwrap_or_else(|| panic!("no {pointer} in {file}")) = value;
        }
        self
    }

    fn state(&self) -> State {
        let mut state = State::default();
        for (path, value) in &self.0 {
            state.add(path, &value.to_string());
        }
        state
    }

    fn verified(&self, platform: &str) -> Report {
        let (platform, addresses) = planned(platform);
        verify(&platform, &addresses, catalogue(), &self.state())
    }
}

fn walk(directory: &Path, visit: &mut dyn FnMut(PathBuf)) {
    let mut entries: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            walk(&path, visit)
        } else {
            visit(path)
        }
    }
}

#[test]
fn healthy_clusters_have_no_deviation_and_nothing_unknown() {
    for (name, platform) in ALL {
        let report = Recorded::load(name).verified(platform);
        assert_eq!(report.deviations, [], "{name}");
        assert_eq!(report.unknown, [], "{name}");
        assert!(report.compared > 20, "{name}: {}", report.compared);
    }
}

#[test]
fn the_recordings_are_those_that_the_commands_make() {
    for (name, platform) in ALL {
        let (platform, _) = planned(platform);
        let wanted: BTreeSet<String> = recordings(&platform).into_iter().map(|one| one.file).collect();
        let there: BTreeSet<String> = Recorded::load(name).0.into_iter().map(|(path, _)| path).collect();
        assert_eq!(wanted, there, "{name}");
    }
}

/// What is planted: example, file, place, value; and the subject and evidence of what has to be found.
type Planted = (
    &'static str,
    &'static str,
    &'static str,
    fn() -> Value,
    &'static str,
    &'static str,
);

#[rustfmt::skip]
const PLANTED: [Planted; 36] = [
    ("eks-eni", "prod-eu/aws/cluster.json", "/cluster/version", || json!("1.31"), "Kubernetes version", "prod-eu/aws/cluster.json /cluster/version"),
    ("eks-eni", "prod-eu/aws/cluster.json", "/cluster/kubernetesNetworkConfig/serviceIpv4Cidr", || json!("10.100.0.0/16"), "services' network", "prod-eu/aws/cluster.json /cluster/kubernetesNetworkConfig/serviceIpv4Cidr"),
    ("eks-eni", "prod-us/aws/cluster.json", "/cluster/resourcesVpcConfig/endpointPublicAccess", || json!(true), "API reachable from the Internet", "prod-us/aws/cluster.json /cluster/resourcesVpcConfig/endpointPublicAccess"),
    ("eks-eni", "prod-eu/aws/cluster.json", "/cluster/upgradePolicy/supportType", || json!("EXTENDED"), "upgrade policy", "prod-eu/aws/cluster.json /cluster/upgradePolicy/supportType"),
    ("eks-eni", "prod-eu/aws/cluster.json", "/cluster/computeConfig/enabled", || json!(true), "cluster", "prod-eu/aws/cluster.json /cluster/computeConfig/enabled"),
    ("eks-eni", "prod-eu/aws/addons.json", "/addons/-", || json!("vpc-cni"), "add-on vpc-cni", "prod-eu/aws/addons.json /addons/2"),
    ("eks-eni", "prod-eu/aws/addons.json", "/addons/-", || json!("kube-proxy"), "add-on kube-proxy", "prod-eu/aws/addons.json /addons/2"),
    ("eks-eni", "prod-eu/aws/addons.json", "/addons/0", || json!("metrics-server"), "add-on coredns", "prod-eu/aws/addons.json /addons"),
    ("eks-eni", "prod-us/aws/vpcs.json", "/Vpcs/0/CidrBlock", || json!("10.77.0.0/16"), "VPC", "prod-us/aws/vpcs.json /Vpcs/0/CidrBlock"),
    ("eks-eni", "prod-us/aws/vpcs.json", "/Vpcs/0/CidrBlockAssociationSet/-", || json!({"CidrBlock": "100.64.0.0/16"}), "VPC", "prod-us/aws/vpcs.json /Vpcs/0/CidrBlockAssociationSet/1"),
    ("eks-eni", "prod-us/aws/subnets.json", "/Subnets/0/CidrBlock", || json!("10.5.0.0/24"), "subnet nodes 0", "prod-us/aws/subnets.json /Subnets"),
    ("eks-eni", "prod-us/aws/subnets.json", "/Subnets/0/AvailableIpAddressCount", || json!(12), "subnet nodes 0", "prod-us/aws/subnets.json /Subnets/0/AvailableIpAddressCount"),
    ("eks-eni", "prod-eu/aws/nat-gateways.json", "/NatGateways/1/State", || json!("failed"), "NAT gateways", "prod-eu/aws/nat-gateways.json /NatGateways"),
    ("eks-eni", "prod-eu/aws/route-tables.json", "/RouteTables/1/Routes/1", || json!({"DestinationCidrBlock": "0.0.0.0/0", "GatewayId": "igw-01", "State": "active"}), "route table nodes-1", "prod-eu/aws/route-tables.json /RouteTables/1/Routes/1"),
    ("eks-eni", "prod-eu/aws/route-tables.json", "/RouteTables/2/Routes/2/DestinationCidrBlock", || json!("10.9.0.0/16"), "route table nodes-2", "prod-eu/aws/route-tables.json /RouteTables/2/Routes"),
    ("eks-eni", "prod-eu/aws/route-tables.json", "/RouteTables/2/Routes/-", || json!({"DestinationCidrBlock": "10.9.0.0/16", "State": "blackhole"}), "route table nodes-2", "prod-eu/aws/route-tables.json /RouteTables/2/Routes/3"),
    ("eks-eni", "prod-eu/aws/node-role-policies.json", "/AttachedPolicies/-", || json!({"PolicyName": "AmazonEKS_CNI_Policy"}), "role of the nodes", "prod-eu/aws/node-role-policies.json /AttachedPolicies/2"),
    ("eks-eni", "prod-eu/aws/pod-identity.json", "/associations", || json!([]), "permissions of the operator", "prod-eu/aws/pod-identity.json /associations"),
    ("eks-eni", "prod-eu/aws/node-groups/workers.json", "/nodegroup/taints", || json!([]), "node group workers", "prod-eu/aws/node-groups/workers.json /nodegroup/taints"),
    ("eks-eni", "prod-eu/aws/node-groups/workers.json", "/nodegroup/instanceTypes", || json!(["t3.small"]), "node group workers", "prod-eu/aws/node-groups/workers.json /nodegroup/instanceTypes"),
    ("eks-eni", "prod-eu/aws/node-groups/workers.json", "/nodegroup/scalingConfig/maxSize", || json!(200), "node group workers, most nodes", "prod-eu/aws/node-groups/workers.json /nodegroup/scalingConfig/maxSize"),
    ("eks-eni", "prod-eu/kubernetes/daemonsets.json", "/items/-", || json!({"metadata": {"name": "aws-node"}}), "DaemonSet aws-node", "prod-eu/kubernetes/daemonsets.json /items/1"),
    ("eks-eni", "prod-eu/kubernetes/daemonsets.json", "/items/-", || json!({"metadata": {"name": "kube-proxy"}}), "DaemonSet kube-proxy", "prod-eu/kubernetes/daemonsets.json /items/1"),
    ("eks-eni", "prod-eu/kubernetes/daemonsets.json", "/items/0/status/numberReady", || json!(2), "DaemonSet thalweg", "prod-eu/kubernetes/daemonsets.json /items/0/status/numberReady"),
    ("eks-eni", "prod-us/kubernetes/nodes.json", "/items/0/status/capacity/pods", || json!("17"), "node ip-10-11-64-20.us-east-1.compute.internal", "prod-us/kubernetes/nodes.json /items/0/status/capacity/pods"),
    ("eks-eni", "prod-us/kubernetes/nodes.json", "/items/1/spec", || json!({"taints": [{"key": "node.thalweg.io/agent-not-ready", "effect": "NoExecute"}]}), "node ip-10-11-80-21.us-east-1.compute.internal", "prod-us/kubernetes/nodes.json /items/1/spec/taints/0"),
    ("eks-eni", "prod-us/kubernetes/nodes.json", "/items/1/status/addresses/0/address", || json!("192.168.1.5"), "node ip-10-11-80-21.us-east-1.compute.internal", "prod-us/kubernetes/nodes.json /items/1/status/addresses/0"),
    ("eks-eni", "prod-us/kubernetes/services.json", "/items/0/spec/clusterIP", || json!("10.100.0.1"), "services' network", "prod-us/kubernetes/services.json /items/0/spec/clusterIP"),
    ("aks-private", "vault/azure/cluster.json", "/networkProfile/networkPlugin", || json!("azure"), "network plugin", "vault/azure/cluster.json /networkProfile/networkPlugin"),
    ("aks-private", "vault/azure/cluster.json", "/networkProfile/networkDataplane", || json!("cilium"), "dataplane", "vault/azure/cluster.json /networkProfile/networkDataplane"),
    ("aks-private", "vault/azure/cluster.json", "/apiServerAccessProfile/enablePrivateCluster", || json!(false), "private API", "vault/azure/cluster.json /apiServerAccessProfile/enablePrivateCluster"),
    ("aks-private", "vault/azure/route-table.json", "/routes/0/nextHopType", || json!("Internet"), "default route", "vault/azure/route-table.json /routes/0"),
    ("gke", "west/gcp/cluster.json", "/networkConfig/datapathProvider", || json!("ADVANCED_DATAPATH"), "dataplane", "west/gcp/cluster.json /networkConfig/datapathProvider"),
    ("gke", "west/gcp/cluster.json", "/nodePools/0/management", || json!({"autoUpgrade": true}), "node pool workers", "west/gcp/cluster.json /nodePools/0/management/autoUpgrade"),
    ("bare-metal", "fabric/kubernetes/nodes.json", "/items/2/spec/podCIDR", || json!("10.99.1.0/24"), "node fabric-2", "fabric/kubernetes/nodes.json /items/2/spec/podCIDR"),
    ("bare-metal", "fabric/kubernetes/nodes.json", "/items/2/status/nodeInfo/kubeletVersion", || json!("v1.30.1"), "node fabric-2", "fabric/kubernetes/nodes.json /items/2/status/nodeInfo/kubeletVersion"),
];

#[test]
fn each_planted_deviation_is_found_with_its_evidence() {
    for (name, file, pointer, value, subject, evidence) in PLANTED {
        let platform = ALL.iter().find(|(example, _)| *example == name).unwrap().1;
        let report = Recorded::load(name)
            .plant(file, pointer, value())
            .verified(platform);
        let found = report
            .deviations
            .iter()
            .find(|one| one.subject == subject && one.evidence == evidence);
        assert!(found.is_some(), "{file} {pointer}: {:#?}", report.deviations);
        let found = found.unwrap();
        assert_eq!(found.cluster, file.split('/').next().unwrap());
        assert!(!found.remedy.is_empty() && !found.planned.is_empty(), "{found:?}");
        // Nothing else is blamed: what follows from the one planted value is about the same thing.
        assert!(
            report.deviations.len() <= 3,
            "{file} {pointer}: {:#?}",
            report.deviations
        );
    }
}

#[test]
fn all_deviations_at_once_hide_none() {
    let mut recorded = Recorded::load("eks-eni");
    let mut planted = 0;
    let mut taken = BTreeSet::new();
    let mut expected = Vec::new();
    for (name, file, pointer, value, subject, _) in PLANTED {
        if name == "eks-eni" && taken.insert((file, pointer)) {
            recorded = recorded.plant(file, pointer, value());
            expected.push(subject);
            planted += 1;
        }
    }
    let report = recorded.verified(EKS);
    for subject in expected {
        assert!(
            report.deviations.iter().any(|one| one.subject == subject),
            "{subject}"
        );
    }
    assert!(
        planted >= 15 && report.deviations.len() >= planted,
        "{planted} planted, {} found",
        report.deviations.len()
    );
    assert!(
        report
            .deviations
            .windows(2)
            .all(|pair| pair[0].severity <= pair[1].severity)
    );
}

#[test]
fn what_was_not_recorded_denied_or_cut_short_is_unknown_and_not_taken_for_good() {
    let (platform, addresses) = planned(AKS);
    let mut state = Recorded::load("aks-private").state();
    state.answers.remove("vault/azure/firewall.json");
    state.add(
        "vault/azure/network.json",
        "ERROR: (AuthorizationFailed) The client does not have authorization",
    );
    state.add(
        "vault/kubernetes/nodes.json",
        r#"{"items": [], "metadata": {"continue": "abc"}}"#,
    );
    state.add(
        "vault/azure/route-table.json",
        r#"{"error": {"code": "TooManyRequests", "message": "throttled"}}"#,
    );
    state.add("vault/kubernetes/services.json", "");
    let report = verify(&platform, &addresses, catalogue(), &state);
    assert_eq!(report.deviations, []);
    let unknown: Vec<String> = report
        .unknown
        .iter()
        .map(|one| format!("{}: {}", one.file, one.reason))
        .collect();
    assert_eq!(
        unknown,
        [
            "vault/azure/network.json: the answer is no JSON: ERROR: (AuthorizationFailed) The client does not have authorization",
            "vault/azure/route-table.json: the cloud answered: throttled",
            "vault/azure/firewall.json: it was not recorded",
            "vault/kubernetes/nodes.json: the answer is one page of several; record it without a limit",
            "vault/kubernetes/services.json: the answer is empty",
        ]
    );
}

/// An answer without what was asked for would make things seem missing, or seem well for being absent.
#[test]
fn an_answer_without_what_was_asked_for_is_unknown() {
    let (platform, addresses) = planned(EKS);
    let mut state = Recorded::load("eks-eni").state();
    for file in [
        "aws/addons.json",
        "aws/vpcs.json",
        "aws/cluster.json",
        "kubernetes/daemonsets.json",
    ] {
        state.add(&format!("prod-eu/{file}"), "{}");
    }
    let report = verify(&platform, &addresses, catalogue(), &state);
    assert_eq!(report.deviations, []);
    let unknown: Vec<&str> = report.unknown.iter().map(|one| one.reason.as_str()).collect();
    assert_eq!(
        unknown,
        ["/cluster", "/addons", "/Vpcs", "/items"]
            .map(|holds| format!("the answer has no {holds}; record it again, whole"))
    );
}

#[test]
fn all_recording_commands_only_read() {
    for (_, platform) in ALL {
        let (platform, _) = planned(platform);
        for recording in recordings(&platform) {
            let reads = ["describe", "list-", " get ", " show "]
                .iter()
                .any(|verb| recording.command.contains(verb));
            assert!(reads, "{}", recording.command);
        }
    }
}
