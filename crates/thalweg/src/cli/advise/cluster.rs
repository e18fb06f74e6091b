// SPDX-License-Identifier: Apache-2.0
//! Reads what `thalweg advise` asks of a running cluster. Only lists: nothing is changed.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::{Client, ResourceExt as _};
use plan::advise::{NodeFacts, Observed};

/// Objects of one answer of the API; lists come in pages of this size.
const PAGE: u32 = 500;
/// More pods than any cluster has; ends a list that does not end.
const MOST_OBJECTS: usize = 1_000_000;

/// Looks at a cluster. What may not be read is named in the answer; without nodes there is none.
pub(super) async fn observe(client: Client) -> anyhow::Result<Observed> {
    let nodes = all::<Node>(&Api::all(client.clone())).await?;
    let mut unread = Vec::new();
    let pods = match all::<Pod>(&Api::all(client.clone())).await {
        Ok(pods) => pods_by_node(&pods),
        Err(error) => {
            unread.push(format!("pods, and so how many run on a node: {error}"));
            BTreeMap::new()
        }
    };
    let daemon_sets = match all::<DaemonSet>(&Api::all(client.clone())).await {
        Ok(list) => list.iter().map(DaemonSet::name_any).collect(),
        Err(error) => {
            unread.push(format!("DaemonSets, and so which networks are there: {error}"));
            Vec::new()
        }
    };
    let security_group_policies = groups(client, &mut unread).await;
    Ok(Observed {
        nodes: nodes.iter().map(|node| facts(node, &pods)).collect(),
        daemon_sets,
        unread,
        security_group_policies,
    })
}

async fn all<K>(api: &Api<K>) -> kube::Result<Vec<K>>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let mut found = Vec::new();
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = api.list(&params).await?;
        found.extend(page.items);
        match page.metadata.continue_ {
            Some(token) if !token.is_empty() && found.len() < MOST_OBJECTS => {
                params.continue_token = Some(token)
            }
            _ => return Ok(found),
        }
    }
}

/// Whether there are objects of the VPC resource controller's `SecurityGroupPolicy`. Where the kind is not known, there are none.
async fn groups(client: Client, unread: &mut Vec<String>) -> Option<bool> {
    let kind = GroupVersionKind::gvk("vpcresources.k8s.aws", "v1beta1", "SecurityGroupPolicy");
    let resource = ApiResource::from_gvk_with_plural(&kind, "securitygrouppolicies");
    let api: Api<DynamicObject> = Api::all_with(client, &resource);
    match api.list(&ListParams::default().limit(1)).await {
        Ok(list) => Some(!list.items.is_empty()),
        Err(kube::Error::Api(status)) if status.code == 404 => Some(false),
        Err(error) => {
            unread.push(format!("SecurityGroupPolicy objects: {error}"));
            None
        }
    }
}

/// Pods with addresses of their own that have not ended, by node.
fn pods_by_node(pods: &[Pod]) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for pod in pods {
        let Some(spec) = &pod.spec else { continue };
        let ended = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref())
            .is_some_and(|phase| ["Succeeded", "Failed"].contains(&phase));
        if let Some(node) = &spec.node_name
            && !spec.host_network.unwrap_or(false)
            && !ended
        {
            *counts.entry(node.clone()).or_insert(0) += 1;
        }
    }
    counts
}

fn facts(node: &Node, pods: &BTreeMap<String, u32>) -> NodeFacts {
    let spec = node.spec.as_ref();
    let allocatable = node
        .status
        .as_ref()
        .and_then(|status| status.allocatable.as_ref());
    NodeFacts {
        name: node.name_any(),
        provider_id: spec.and_then(|spec| spec.provider_id.clone()),
        labels: node.labels().clone(),
        pod_cidrs: spec.and_then(|spec| spec.pod_cidrs.clone()).unwrap_or_default(),
        allocatable_pods: allocatable.and_then(|list| list.get("pods")?.0.parse().ok()),
        pods: pods.get(&node.name_any()).copied().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests;
