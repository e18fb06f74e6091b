// SPDX-License-Identifier: Apache-2.0
//! Which commands record what is compared. All of them only read.

use aws::{Call, Filter};

use crate::file::{Cloud, Cluster, Egress, Identity, Platform};

/// A command and the file its output goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recording {
    /// The cluster.
    pub cluster: String,
    /// Its region.
    pub region: String,
    /// The file, below the folder of the recording.
    pub file: String,
    /// The command.
    pub command: String,
    /// The same question for this program's own client of AWS, where it is one to AWS.
    pub call: Option<Call>,
}

/// A question to a cloud or a cluster.
enum Question {
    Aws(Call),
    Command(String),
}

/// All recordings that a platform needs, in the order of the file.
#[must_use]
pub fn recordings(platform: &Platform) -> Vec<Recording> {
    platform
        .clusters
        .iter()
        .flat_map(|cluster| of(platform, cluster))
        .collect()
}

fn of(platform: &Platform, cluster: &Cluster) -> Vec<Recording> {
    let full = format!("{}-{}", platform.name, cluster.name);
    let mut list = match cluster.cloud {
        Cloud::Aws => eks(cluster, &full),
        Cloud::Azure => aks(cluster, &full),
        Cloud::Gcp => gke(cluster, &full),
        Cloud::Machines => Vec::new(),
    };
    let kubectl = format!("kubectl --context {} get", cluster.name);
    for (name, what) in [
        ("nodes", "nodes"),
        ("daemonsets", "daemonsets -A"),
        ("services", "services -n default"),
    ] {
        let command = format!("{kubectl} {what} -o json");
        list.push((format!("kubernetes/{name}.json"), Question::Command(command)));
    }
    let recording = |(name, question): (String, Question)| {
        let (command, call) = match question {
            Question::Aws(call) => (call.command(&cluster.region), Some(call)),
            Question::Command(command) => (command, None),
        };
        Recording {
            cluster: cluster.name.clone(),
            region: cluster.region.clone(),
            file: format!("{}/{name}", cluster.name),
            command,
            call,
        }
    };
    list.into_iter().map(recording).collect()
}

fn eks(cluster: &Cluster, full: &str) -> Vec<(String, Question)> {
    let tagged = || Filter::new("tag:thalweg.io/cluster", &cluster.name);
    let name = || full.to_owned();
    let mut list = vec![
        ("cluster".to_owned(), Call::DescribeCluster { cluster: name() }),
        ("addons".to_owned(), Call::ListAddons { cluster: name() }),
        ("vpcs".to_owned(), Call::DescribeVpcs(tagged())),
        ("subnets".to_owned(), Call::DescribeSubnets(tagged())),
        ("nat-gateways".to_owned(), Call::DescribeNatGateways(tagged())),
        ("route-tables".to_owned(), Call::DescribeRouteTables(tagged())),
        (
            "node-role-policies".to_owned(),
            Call::ListAttachedRolePolicies {
                role: format!("{full}-node"),
            },
        ),
    ];
    if cluster.pods_in_network() && cluster.identity == Identity::PodIdentity {
        let call = Call::ListPodIdentityAssociations { cluster: name() };
        list.push(("pod-identity".to_owned(), call));
    }
    for group in &cluster.node_groups {
        let call = Call::DescribeNodegroup {
            cluster: name(),
            group: group.name.clone(),
        };
        list.push((format!("node-groups/{}", group.name), call));
    }
    list.into_iter()
        .map(|(name, call)| (format!("aws/{name}.json"), Question::Aws(call)))
        .collect()
}

fn aks(cluster: &Cluster, full: &str) -> Vec<(String, Question)> {
    let mut list = vec![
        (
            "cluster",
            format!("az aks show --resource-group {full} --name {full} -o json"),
        ),
        (
            "network",
            format!("az network vnet show --resource-group {full} --name {full} -o json"),
        ),
    ];
    if cluster.egress == Egress::Firewall {
        list.push((
            "route-table",
            format!("az network route-table show --resource-group {full} --name {full}-nodes -o json"),
        ));
        list.push((
            "firewall",
            format!("az network firewall show --resource-group {full} --name {full} -o json"),
        ));
    }
    list.into_iter()
        .map(|(name, command)| (format!("azure/{name}.json"), Question::Command(command)))
        .collect()
}

fn gke(cluster: &Cluster, full: &str) -> Vec<(String, Question)> {
    let region = &cluster.region;
    let gcloud = |what: String| Question::Command(format!("gcloud {what} --region {region} --format json"));
    vec![
        (
            "gcp/cluster.json".to_owned(),
            gcloud(format!("container clusters describe {full}")),
        ),
        (
            "gcp/subnet.json".to_owned(),
            gcloud(format!("compute networks subnets describe {full}-nodes")),
        ),
    ]
}
