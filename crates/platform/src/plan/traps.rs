// SPDX-License-Identifier: Apache-2.0
//! The ten traps of running a third-party network on a managed Kubernetes: which apply, and what is done about each.

use serde::Serialize;

use crate::file::{Cloud, Cluster, Connect, Platform};

/// A trap that applies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Trap {
    /// Its number, 1 to 10, as `thalweg doctor` has it.
    pub number: u8,
    /// What goes wrong.
    pub name: &'static str,
    /// The clusters.
    pub clusters: Vec<String>,
    /// How far it is dealt with.
    pub answer: Answer,
    /// What is done.
    pub done: String,
}

/// How far a trap is dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// What is rendered leaves no room for it.
    Prevented,
    /// A command finds it before it hurts.
    Checked,
    /// It is there, and somebody has to look after it.
    Open,
}

/// Number, name, which clusters have it, how far it is dealt with, and how.
type Candidate<'a> = (u8, &'static str, &'a dyn Fn(&Cluster) -> bool, Answer, String);

pub(super) fn of(platform: &Platform) -> Vec<Trap> {
    let managed = |cluster: &Cluster| cluster.cloud != Cloud::Machines;
    let aws = |cluster: &Cluster| cluster.cloud == Cloud::Aws;
    let eni = |cluster: &Cluster| cluster.pods_in_network();
    let all = |_: &Cluster| true;
    let meshed = |_: &Cluster| platform.mesh != Connect::None;
    let outside_groups =
        |cluster: &Cluster| matches!(cluster.cloud, Cloud::Aws | Cloud::Azure) && !cluster.pods_in_network();
    let cannot_remove = |cluster: &Cluster| matches!(cluster.cloud, Cloud::Azure | Cloud::Gcp);
    let mesh = match platform.mesh {
        Connect::None => "",
        Connect::Peering => {
            "the peerings, routes and rules of each pair are rendered, and no address is there twice"
        }
        Connect::TransitGateway => {
            "the gateways, attachments, routes and rules are rendered, and no address is there twice"
        }
    };
    let candidates: [Candidate<'_>; 13] = [
        (1, "nobody at the cloud supports this network", &managed, Answer::Open,
            "`thalweg platform migrate --kind vpc-cni` has the way back for EKS; elsewhere it is a cluster with the cloud's own network".into()),
        (2, "a new node image brings a kernel that refuses a program", &all, Answer::Checked,
            "`thalweg upgrade check` before each upgrade; node groups upgrade a third at a time; GKE pools do not upgrade by themselves".into()),
        (3, "the cloud's own CNI stays or comes back", &aws, Answer::Prevented,
            "`bootstrap_self_managed_addons` is off, no add-on of that kind is rendered, `thalweg platform verify` finds one".into()),
        (3, "the cloud's own CNI stays or comes back", &cannot_remove, Answer::Checked,
            "the cloud keeps its own parts; `thalweg doctor` and `thalweg platform verify` find what sorts before ours".into()),
        (4, "interfaces have fewer addresses than the node has room for pods", &eni, Answer::Prevented,
            "--max-pods of each group is computed from its types and set; subnets are sized for the largest number of nodes".into()),
        (5, "permissions are missing or too broad", &eni, Answer::Prevented,
            "the operator's role has what its mode needs and nodes have no CNI policy".into()),
        (5, "permissions are missing or too broad", &|cluster| cluster.cloud == Cloud::Azure, Answer::Prevented,
            "the cluster's identity has Network Contributor on its own network, nothing on the subscription".into()),
        (6, "the network's version does not fit Kubernetes' version", &all, Answer::Checked,
            "`thalweg upgrade check --to-kubernetes` before each upgrade".into()),
        (7, "security groups do not reach pods", &outside_groups, Answer::Open,
            "group rules have to become NetworkPolicy; the groups that are rendered are the nodes'".into()),
        (7, "security groups do not reach pods", &eni, Answer::Open,
            "they do, but all pods of a node share its interfaces' groups; a group per pod is the VPC CNI's branch interfaces only".into()),
        (8, "networks of several clusters joined by hand", &meshed, Answer::Prevented, mesh.into()),
        (9, "finding out takes hours", &all, Answer::Checked,
            "`thalweg platform alerts` for what the agent measures, `thalweg status` and `thalweg doctor` for the question at hand".into()),
        (10, "nobody has tried the upgrade", &all, Answer::Checked,
            "`thalweg platform rehearse` writes a rehearsal on a cluster that is thrown away".into()),
    ];
    candidates
        .into_iter()
        .filter_map(|(number, name, applies, answer, done)| {
            let clusters: Vec<String> = platform
                .clusters
                .iter()
                .filter(|cluster| applies(cluster))
                .map(|cluster| cluster.name.clone())
                .collect();
            (!clusters.is_empty()).then_some(Trap {
                number,
                name,
                clusters,
                answer,
                done,
            })
        })
        .collect()
}
