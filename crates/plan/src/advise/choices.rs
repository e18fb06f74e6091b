// SPDX-License-Identifier: Apache-2.0
//! What can be taken, with what is to be known of each.

use serde::Serialize;

/// A network in a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// Thalweg, ENI addresses.
    Eni,
    /// Thalweg, /28 prefixes.
    EniPrefix,
    /// Thalweg, ENI addresses, then overlay.
    EniOverflow,
    /// Thalweg, overlay.
    Overlay,
    /// Thalweg above Azure CNI Overlay.
    AzureDelegated,
    /// Thalweg above Azure CNI with a pod subnet.
    AzurePodSubnet,
    /// Thalweg alone on AKS.
    AksByo,
    /// Thalweg, node ranges, native routing.
    PodCidr,
    /// The VPC CNI.
    VpcCni,
    /// Azure CNI with Microsoft's dataplane.
    AzureCni,
    /// GKE's own.
    GkeDataplane,
    /// Cilium as AWS supports it.
    SupportedCilium,
    /// None of these.
    OtherNetwork,
}

/// What is to be known of a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// In a few words.
    pub title: &'static str,
    /// What holds it back.
    pub limits: &'static [&'static str],
    /// What is given up by it.
    pub gives_up: &'static [&'static str],
    /// Whether this version does it.
    pub in_this_version: &'static str,
    /// What to do next.
    pub next: &'static [&'static str],
}

const NO_AWS_SUPPORT: &str = "AWS's support: on EC2 nodes it supports the VPC CNI only; ask it about the network and it will ask you to go back";
const NO_POD_GROUPS: &str = "security groups of single pods: those need the VPC CNI's branch ENIs";
const ENI_NOT_YET: &str =
    "not yet: this version has no ENI mode; plan with it, install overlay or the VPC CNI meanwhile";
const DELEGATED_NOT_YET: &str = "not yet: this version cannot ask Azure's IPAM for addresses";
const NATIVE_NOW: &str = "yes, tried out in the lab; this version has not run on this cloud's machines";
const NOT_OURS: &str = "does not matter: the choice is not Thalweg";

const ENI: Facts = Facts {
    title: "Thalweg in ENI mode: pods have addresses of the VPC",
    limits: &[
        "pods on a node: ENIs x (addresses on each - 1); AWS's max-pods adds 2 for pods of the host's network",
        "every pod takes an address of the subnet, and some are kept ready",
        "pods share the security groups of their node's interfaces",
        "attaching another ENI takes up to ten seconds",
    ],
    gives_up: &[NO_AWS_SUPPORT, NO_POD_GROUPS],
    in_this_version: ENI_NOT_YET,
    next: &[
        "thalweg capacity -t TYPES --mode eni --subnet CIDR --nodes N --growth N",
        "thalweg iam policy --mode eni --cluster NAME",
    ],
};

const ENI_PREFIX: Facts = Facts {
    title: "Thalweg in ENI mode with /28 prefixes",
    limits: &[
        "a prefix needs sixteen neighbouring free addresses: a subnet that is split up has none left long before it is full; reserve a range of it for prefixes",
        "only Nitro and bare-metal types",
        "max-pods is capped: 110 up to 30 vCPUs, 250 above",
        "pods share the security groups of their node's interfaces",
    ],
    gives_up: &[NO_AWS_SUPPORT, NO_POD_GROUPS],
    in_this_version: ENI_NOT_YET,
    next: &[
        "thalweg capacity -t TYPES --mode eni-prefix --subnet CIDR --used N --nodes N --growth N",
        "thalweg iam policy --mode eni-prefix --cluster NAME",
    ],
};

const ENI_OVERFLOW: Facts = Facts {
    title: "Thalweg in ENI mode with overflow into an overlay",
    limits: &[
        "pods are of two kinds: those with overlay addresses cannot be reached from outside by address; mark the pods that must be",
        "traffic of overlay addresses is encapsulated: 50 bytes less for each packet",
        "pods share the security groups of their node's interfaces; overlay pods have their node's",
    ],
    gives_up: &[NO_AWS_SUPPORT, NO_POD_GROUPS, "one kind of address for all pods"],
    in_this_version: ENI_NOT_YET,
    next: &[
        "thalweg capacity -t TYPES --mode eni-overflow --subnet CIDR --used N --nodes N --growth N",
        "thalweg iam policy --mode eni-overflow --cluster NAME",
    ],
};

const OVERLAY: Facts = Facts {
    title: "Thalweg in overlay mode: a pool of its own, VXLAN or Geneve between nodes",
    limits: &[
        "packets are encapsulated: 50 bytes less for each, by VXLAN over IPv4",
        "nodes must reach each other on UDP 8472 (VXLAN) or 6081 (Geneve): security groups and firewalls have to let it through",
        "rules of the cloud's firewalls see nodes, not pods",
        "the pod CIDR must not overlap with anything that pods talk to",
    ],
    gives_up: &[
        "pods that are reachable from outside by their own addresses",
        "the cloud's security groups and flow logs for single pods",
        "the cloud's support for the network",
    ],
    in_this_version: NATIVE_NOW,
    next: &[
        "thalweg capacity -t TYPES --mode overlay --pod-cidr 10.32.0.0/13 --nodes N --growth N",
        "on EKS: leave the VPC CNI out, see that it does not come back; `thalweg iam policy` has nothing to allow",
    ],
};

const AZURE_DELEGATED: Facts = Facts {
    title: "Thalweg above Azure CNI Overlay: Azure gives addresses, Thalweg forwards",
    limits: &[
        "each node has a /24 of the pod CIDR, fixed; 250 pods on a node at most",
        "nothing is encapsulated: Azure's fabric routes the pod CIDR; network security groups of the subnet see pod addresses",
        "pods are not reachable from outside by their addresses",
    ],
    gives_up: &[
        "Microsoft's support for the dataplane",
        "what only Azure CNI powered by Cilium's add-ons do (Advanced Container Networking Services)",
    ],
    in_this_version: DELEGATED_NOT_YET,
    next: &["thalweg capacity --mode azure-overlay --pod-cidr CIDR --nodes N --growth N"],
};

const AZURE_POD_SUBNET: Facts = Facts {
    title: "Thalweg above Azure CNI with a pod subnet: pods have addresses of the VNet",
    limits: &[
        "every pod takes an address of the VNet, nodes ask for them in batches of 16",
        "110 pods on a node by default, 250 at most",
    ],
    gives_up: &["Microsoft's support for the dataplane"],
    in_this_version: DELEGATED_NOT_YET,
    next: &["thalweg capacity --mode azure-pod-subnet --cni azure --subnet CIDR --nodes N --growth N"],
};

const AKS_BYO: Facts = Facts {
    title: "Thalweg alone on AKS with --network-plugin none, in overlay mode",
    limits: &[
        "nodes stay NotReady until the network is installed: install it right after the cluster",
        "packets are encapsulated: 50 bytes less for each, by VXLAN over IPv4",
        "the plugin cannot be changed back: another network means another cluster",
    ],
    gives_up: &[
        "Microsoft's support for the network",
        "AKS's add-ons that expect Azure CNI, Windows nodes among them",
    ],
    in_this_version: NATIVE_NOW,
    next: &[
        "az aks create … --network-plugin none",
        "thalweg capacity --mode overlay --pod-cidr 10.32.0.0/13 --nodes N --growth N",
    ],
};

const POD_CIDR: Facts = Facts {
    title: "Thalweg with the nodes' podCIDRs, routed natively",
    limits: &[
        "every node gets one range, when it is made; GKE gives at least twice as many addresses as pods may run",
        "the network between the nodes must route those ranges, or the nodes be neighbours",
    ],
    gives_up: &["on GKE: Google's support for the network, and what rests on Dataplane V2"],
    in_this_version: NATIVE_NOW,
    next: &["thalweg capacity --mode pod-cidr --pod-cidr CIDR --nodes N --growth N (on GKE: --mode gke)"],
};

const VPC_CNI: Facts = Facts {
    title: "the Amazon VPC CNI, AWS's own",
    limits: &[
        "pods on a node: ENIs x (addresses on each - 1) + 2, with prefixes sixteen times as many, capped at 110 or 250",
        "it needs kube-proxy beside it",
        "no dual stack: IPv4 or IPv6",
    ],
    gives_up: &[
        "nothing of NetworkPolicy as such: since 1.14 it has an eBPF agent for it; but policy by DNS name, HTTP and flows with reasons",
        "overlay addresses when a subnet is full",
    ],
    in_this_version: NOT_OURS,
    next: &[
        "thalweg capacity -t TYPES --cni vpc-cni --subnet CIDR --nodes N --growth N",
        "upgradePolicy.supportType of the cluster decides what happens when a version's standard support ends",
    ],
};

const AZURE_CNI: Facts = Facts {
    title: "Azure CNI Overlay, Microsoft's own (powered by Cilium where all nodes are Linux)",
    limits: &[
        "no BGP, no cluster mesh, and the configuration is locked",
        "250 pods on a node at most",
    ],
    gives_up: &["what Thalweg does beyond it: reasons for drops, identities without a limit"],
    in_this_version: NOT_OURS,
    next: &["thalweg capacity --cni azure --mode azure-overlay --pod-cidr CIDR --nodes N --growth N"],
};

const GKE_DATAPLANE: Facts = Facts {
    title: "GKE Dataplane V2, Google's own",
    limits: &["its configuration is Google's"],
    gives_up: &["what Thalweg does beyond it: reasons for drops, identities without a limit"],
    in_this_version: NOT_OURS,
    next: &["thalweg capacity --cni gke --mode gke --pod-cidr CIDR --nodes N --growth N"],
};

const SUPPORTED_CILIUM: Facts = Facts {
    title: "Cilium in the version that AWS supports on Hybrid Nodes",
    limits: &[
        "AWS supports its core there, not every feature",
        "EC2 nodes of the same cluster still have the VPC CNI",
    ],
    gives_up: &["one network for both kinds of nodes"],
    in_this_version: NOT_OURS,
    next: &["docs.aws.amazon.com/eks: Configure CNI for hybrid nodes"],
};

const OTHER_NETWORK: Facts = Facts {
    title: "none of Thalweg's modes",
    limits: &[],
    gives_up: &[],
    in_this_version: NOT_OURS,
    next: &["put Windows nodes into a cluster of their own, and ask again for the rest"],
};

impl Choice {
    /// What is to be known of it.
    #[must_use]
    pub const fn facts(self) -> Facts {
        match self {
            Self::Eni => ENI,
            Self::EniPrefix => ENI_PREFIX,
            Self::EniOverflow => ENI_OVERFLOW,
            Self::Overlay => OVERLAY,
            Self::AzureDelegated => AZURE_DELEGATED,
            Self::AzurePodSubnet => AZURE_POD_SUBNET,
            Self::AksByo => AKS_BYO,
            Self::PodCidr => POD_CIDR,
            Self::VpcCni => VPC_CNI,
            Self::AzureCni => AZURE_CNI,
            Self::GkeDataplane => GKE_DATAPLANE,
            Self::SupportedCilium => SUPPORTED_CILIUM,
            Self::OtherNetwork => OTHER_NETWORK,
        }
    }
}
