// SPDX-License-Identifier: Apache-2.0
//! The decision table.

use super::{Answers, Choice, Question};
use crate::cloud::Cloud;

/// A row: when all its conditions hold and no row above matched, its choice is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name.
    pub id: &'static str,
    /// Where it applies.
    pub clouds: &'static [Cloud],
    /// Questions and the answers that they must have; none: always.
    pub when: &'static [(Question, bool)],
    /// What to take.
    pub choice: Choice,
    /// Why, in a sentence that begins with the condition.
    pub because: &'static str,
}

const AWS: &[Cloud] = &[Cloud::Aws];
const AZURE: &[Cloud] = &[Cloud::Azure];
const GCP: &[Cloud] = &[Cloud::Gcp];
const OTHER: &[Cloud] = &[Cloud::Other];

const fn rule(
    id: &'static str,
    clouds: &'static [Cloud],
    when: &'static [(Question, bool)],
    choice: Choice,
    because: &'static str,
) -> Rule {
    Rule {
        id,
        clouds,
        when,
        choice,
        because,
    }
}

/// From the top; the last of each cloud has no condition.
pub const RULES: [Rule; 24] = [
    // AWS: what only AWS's own network does.
    rule(
        "aws-windows",
        AWS,
        &[(Question::WindowsNodes, true)],
        Choice::VpcCni,
        "Windows nodes need the VPC CNI: Thalweg's datapath is Linux's",
    ),
    rule(
        "aws-auto-mode",
        AWS,
        &[(Question::AutoMode, true)],
        Choice::VpcCni,
        "In Auto Mode AWS runs nodes and network, and neither can be replaced",
    ),
    rule(
        "aws-fargate",
        AWS,
        &[(Question::Fargate, true)],
        Choice::VpcCni,
        "Pods on Fargate have AWS's network on a machine that runs no DaemonSet; a second network for the other nodes would not see them",
    ),
    rule(
        "aws-pod-groups",
        AWS,
        &[(Question::SecurityGroupsPerPod, true)],
        Choice::VpcCni,
        "Security groups of single pods need branch ENIs, which only the VPC CNI makes: in every ENI mode of others pods share the groups of the node's interfaces",
    ),
    rule(
        "aws-hybrid-support",
        AWS,
        &[(Question::HybridNodes, true), (Question::VendorSupport, true)],
        Choice::SupportedCilium,
        "On Hybrid Nodes the VPC CNI does not run, and AWS supports Cilium's core there",
    ),
    rule(
        "aws-support",
        AWS,
        &[(Question::VendorSupport, true)],
        Choice::VpcCni,
        "AWS supports no other network than the VPC CNI on EC2 nodes",
    ),
    rule(
        "aws-hybrid",
        AWS,
        &[(Question::HybridNodes, true)],
        Choice::Overlay,
        "Hybrid Nodes have no ENIs: only an overlay covers machines inside and outside of AWS",
    ),
    // AWS: ours.
    rule(
        "aws-routable-scarce",
        AWS,
        &[(Question::RoutablePods, true), (Question::ScarceAddresses, true)],
        Choice::EniOverflow,
        "Pods must be reachable by their addresses and those are scarce: ENI addresses first, overlay addresses for the rest instead of pods that hang",
    ),
    rule(
        "aws-routable-dense",
        AWS,
        &[(Question::RoutablePods, true), (Question::ManyPodsPerNode, true)],
        Choice::EniPrefix,
        "Pods must be reachable by their addresses and are more on a node than it has single addresses: /28 prefixes have sixteen times as many",
    ),
    rule(
        "aws-routable",
        AWS,
        &[(Question::RoutablePods, true)],
        Choice::Eni,
        "Pods must be reachable by their addresses, and the subnets have enough of them",
    ),
    rule(
        "aws-default",
        AWS,
        &[],
        Choice::Overlay,
        "Nobody outside needs the pods' addresses: an overlay takes one VPC address a node and knows no limit of ENIs",
    ),
    // Azure.
    rule(
        "azure-windows",
        AZURE,
        &[(Question::WindowsNodes, true)],
        Choice::AzureCni,
        "Windows nodes need Azure CNI: Thalweg's datapath, like Cilium's on AKS, is Linux's",
    ),
    rule(
        "azure-support",
        AZURE,
        &[(Question::VendorSupport, true)],
        Choice::AzureCni,
        "Microsoft supports the networks that AKS installs; with --network-plugin none, it supports all but the network",
    ),
    rule(
        "azure-own",
        AZURE,
        &[(Question::OwnAddresses, true)],
        Choice::AksByo,
        "Thalweg is to own addresses, too: --network-plugin none, which is generally available, leaves the cluster without a network for it",
    ),
    rule(
        "azure-bgp",
        AZURE,
        &[(Question::BgpOrMesh, true)],
        Choice::AksByo,
        "BGP or a mesh of clusters: AKS with the Cilium dataplane has neither and its configuration is locked; --network-plugin none has no such lock",
    ),
    rule(
        "azure-routable",
        AZURE,
        &[(Question::RoutablePods, true), (Question::ScarceAddresses, false)],
        Choice::AzurePodSubnet,
        "Pods must be reachable by their addresses: Azure CNI's pod subnet gives them addresses of the VNet",
    ),
    rule(
        "azure-routable-scarce",
        AZURE,
        &[(Question::RoutablePods, true), (Question::ScarceAddresses, true)],
        Choice::AzureDelegated,
        "The VNet has too few addresses for pods, and no mode on AKS gives some of them addresses of it and others not: pods have addresses of their own and are reached through load balancers; enlarge the VNet if that will not do",
    ),
    rule(
        "azure-default",
        AZURE,
        &[],
        Choice::AzureDelegated,
        "Azure CNI Overlay gives addresses and its fabric routes them, without encapsulation; Thalweg forwards, balances and enforces policy",
    ),
    // Google.
    rule(
        "gcp-windows",
        GCP,
        &[(Question::WindowsNodes, true)],
        Choice::GkeDataplane,
        "Windows nodes need GKE's own network",
    ),
    rule(
        "gcp-autopilot",
        GCP,
        &[(Question::Autopilot, true)],
        Choice::GkeDataplane,
        "On Autopilot Google runs nodes and network, and neither can be replaced",
    ),
    rule(
        "gcp-support",
        GCP,
        &[(Question::VendorSupport, true)],
        Choice::GkeDataplane,
        "Google supports Dataplane V2, not the networks of others",
    ),
    rule(
        "gcp-default",
        GCP,
        &[],
        Choice::PodCidr,
        "A VPC-native cluster routes each node's range by itself: nothing is to be encapsulated",
    ),
    // One's own machines.
    rule(
        "own-windows",
        OTHER,
        &[(Question::WindowsNodes, true)],
        Choice::OtherNetwork,
        "Thalweg does not run on Windows; Calico and Flannel do",
    ),
    rule(
        "own-routed",
        OTHER,
        &[(Question::FabricRoutes, true)],
        Choice::PodCidr,
        "The nodes are neighbours, or the fabric learns routes: nothing is to be encapsulated",
    ),
];

/// Where no row of [`RULES`] matches: machines that share nothing but IP.
pub const LAST: Rule = rule(
    "own-default",
    OTHER,
    &[],
    Choice::Overlay,
    "The network between the nodes knows nothing of pods: an overlay needs only that nodes reach each other",
);

impl Rule {
    /// Whether its conditions hold.
    #[must_use]
    pub fn matches(&self, answers: &Answers) -> bool {
        self.clouds.contains(&answers.cloud)
            && self
                .when
                .iter()
                .all(|(question, wanted)| answers.get(*question) == *wanted)
    }
}

/// The first row that matches.
pub(super) fn decide(answers: &Answers) -> Rule {
    RULES
        .into_iter()
        .find(|rule| rule.matches(answers))
        .unwrap_or(LAST)
}
