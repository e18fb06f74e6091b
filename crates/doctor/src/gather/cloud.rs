// SPDX-License-Identifier: Apache-2.0
//! What the cluster itself betrays about the cloud below it.

use crate::facts::{CloudFacts, ClusterFacts, Gathered, NodeObject, Provider};

/// What the cluster itself betrays about the cloud below it. The rest is unknown until somebody who may ask the cloud says it.
#[must_use]
pub fn of_cluster(cluster: &ClusterFacts) -> CloudFacts {
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
            provider,
            ..unasked()
        },
    }
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
