// SPDX-License-Identifier: Apache-2.0
//! What the cluster itself betrays about the cloud below it.

use std::collections::BTreeMap;

use plan::{InstanceTable, Mode, Network, Request, capacity};

use crate::facts::{CloudFacts, ClusterFacts, Gathered, NodeFacts, NodeObject, PodSlots, Provider};

/// What the cluster itself betrays about the cloud below it. The rest is unknown until somebody who may ask the cloud says it.
#[must_use]
pub fn of_cluster(cluster: &ClusterFacts, nodes: &[NodeFacts]) -> CloudFacts {
    let provider = match cluster.nodes.get() {
        Ok(nodes) => Gathered::Known(provider(nodes)),
        Err(reason) => Gathered::unknown(reason),
    };
    match provider.known() {
        // Nobody manages add-ons, roles or peerings there.
        Some(Provider::Own) => CloudFacts {
            provider,
            addons: Gathered::Known(Vec::new()),
            vpc_cidrs: Gathered::Known(Vec::new()),
            peerings: Gathered::Known(Vec::new()),
            ..unasked()
        },
        _ => CloudFacts {
            pod_slots: pod_slots(cluster, nodes),
            provider,
            ..unasked()
        },
    }
}

/// What the planner says of each instance type in the mode that is in use. Agents take addresses of the nodes' own pod CIDRs; what the
/// planner does not know is left out, and the check says so.
fn pod_slots(cluster: &ClusterFacts, nodes: &[NodeFacts]) -> Gathered<BTreeMap<String, PodSlots>> {
    let objects = match cluster.nodes.get() {
        Ok(objects) => objects,
        Err(reason) => return Gathered::unknown(reason),
    };
    let mut agents = nodes.iter().filter_map(|node| node.agent.known());
    let Some(agent) = agents.next() else {
        return Gathered::unknown("the mode is not known, as no agent answers");
    };
    let mode = if agent.routing_mode == "native" {
        Mode::PodCidr
    } else {
        Mode::Overlay
    };
    let table = match InstanceTable::shipped() {
        Ok(table) => table,
        Err(error) => return Gathered::unknown(error.to_string()),
    };
    let mut request = Request::new(mode, Network::Thalweg);
    let masks = objects
        .iter()
        .flat_map(|node| &node.pod_cidrs)
        .filter(|net| net.addr().is_ipv4());
    request.node_mask = masks.map(ipnet::IpNet::prefix_len).max();
    let mut slots = BTreeMap::new();
    for kind in objects
        .iter()
        .filter_map(|node| node.labels.get("node.kubernetes.io/instance-type"))
    {
        let answer = table
            .get(kind)
            .ok()
            .and_then(|instance| capacity(Some(instance), &request).ok());
        if let Some(answer) = answer {
            let how = format!(
                "{} (mode {mode:?}, limits as of {})",
                answer.notes.join("; "),
                table.provenance().date
            );
            slots.insert(
                kind.clone(),
                PodSlots {
                    slots: answer.usable,
                    how,
                },
            );
        }
    }
    Gathered::Known(slots)
}

fn unasked() -> CloudFacts {
    fn no<T>() -> Gathered<T> {
        Gathered::unknown("the cloud's own API was not asked; give what it says with --cloud FILE")
    }
    CloudFacts {
        provider: no(),
        addons: no(),
        vpc_cidrs: no(),
        iam: no(),
        pod_slots: no(),
        peerings: no(),
    }
}

/// By the form of the nodes' provider IDs; what none of them has is somebody's own.
fn provider(nodes: &[NodeObject]) -> Provider {
    let starts = |prefix: &str| nodes.iter().any(|node| node.provider_id.starts_with(prefix));
    let fargate = nodes
        .iter()
        .any(|node| node.labels.contains_key("eks.amazonaws.com/compute-type"));
    if starts("aws://") || fargate {
        Provider::Aws
    } else if starts("azure://") {
        Provider::Azure
    } else if starts("gce://") {
        Provider::Gcp
    } else {
        Provider::Own
    }
}
