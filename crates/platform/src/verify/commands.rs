// SPDX-License-Identifier: Apache-2.0
//! Which commands record what is compared. All of them only read.

use crate::file::{Cloud, Cluster, Egress, Identity, Platform};

/// A command and the file its output goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recording {
    /// The file, below the folder of the recording.
    pub file: String,
    /// The command.
    pub command: String,
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
        Cloud::Aws => aws(cluster, &full),
        Cloud::Azure => azure(cluster, &full),
        Cloud::Gcp => vec![
            (
                "gcp/cluster.json".to_owned(),
                format!(
                    "gcloud container clusters describe {full} --region {} --format json",
                    cluster.region
                ),
            ),
            (
                "gcp/subnet.json".to_owned(),
                format!(
                    "gcloud compute networks subnets describe {full}-nodes --region {} --format json",
                    cluster.region
                ),
            ),
        ],
        Cloud::Machines => Vec::new(),
    };
    let kubectl = format!("kubectl --context {} get", cluster.name);
    list.extend([
        (
            "kubernetes/nodes.json".to_owned(),
            format!("{kubectl} nodes -o json"),
        ),
        (
            "kubernetes/daemonsets.json".to_owned(),
            format!("{kubectl} daemonsets -A -o json"),
        ),
        (
            "kubernetes/services.json".to_owned(),
            format!("{kubectl} services -n default -o json"),
        ),
    ]);
    list.into_iter()
        .map(|(file, command)| Recording {
            file: format!("{}/{file}", cluster.name),
            command,
        })
        .collect()
}

fn aws(cluster: &Cluster, full: &str) -> Vec<(String, String)> {
    let region = &cluster.region;
    let tagged = format!("--filters Name=tag:thalweg.io/cluster,Values={}", cluster.name);
    let mut list = vec![
        (
            "cluster",
            format!("aws eks describe-cluster --region {region} --name {full}"),
        ),
        (
            "addons",
            format!("aws eks list-addons --region {region} --cluster-name {full}"),
        ),
        (
            "vpcs",
            format!("aws ec2 describe-vpcs --region {region} {tagged}"),
        ),
        (
            "subnets",
            format!("aws ec2 describe-subnets --region {region} {tagged}"),
        ),
        (
            "nat-gateways",
            format!(
                "aws ec2 describe-nat-gateways --region {region} {}",
                tagged.replace("--filters", "--filter")
            ),
        ),
        (
            "route-tables",
            format!("aws ec2 describe-route-tables --region {region} {tagged}"),
        ),
        (
            "node-role-policies",
            format!("aws iam list-attached-role-policies --role-name {full}-node"),
        ),
    ];
    if cluster.pods_in_network() && cluster.identity == Identity::PodIdentity {
        list.push((
            "pod-identity",
            format!("aws eks list-pod-identity-associations --region {region} --cluster-name {full}"),
        ));
    }
    let mut list: Vec<(String, String)> = list
        .into_iter()
        .map(|(name, command)| (format!("aws/{name}.json"), format!("{command} --output json")))
        .collect();
    for group in &cluster.node_groups {
        let command = format!(
            "aws eks describe-nodegroup --region {region} --cluster-name {full} --nodegroup-name {} --output json",
            group.name
        );
        list.push((format!("aws/node-groups/{}.json", group.name), command));
    }
    list
}

fn azure(cluster: &Cluster, full: &str) -> Vec<(String, String)> {
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
        .map(|(name, command)| (format!("azure/{name}.json"), command))
        .collect()
}
