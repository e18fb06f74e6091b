// SPDX-License-Identifier: Apache-2.0
//! Limits that a cloud would refuse late, when half of a cluster is made: names, pools, pods of a node.

use super::check::Of;
use super::{Cloud, NodeGroup};
use crate::catalogue::{Catalogue, is_graviton};

/// Pods that AKS allows on a node, in every mode (learn.microsoft.com, AKS IP address planning).
const AKS_PODS: std::ops::RangeInclusive<u32> = 10..=250;

impl Of<'_> {
    /// Names of parts begin with the platform's name and the cluster's.
    pub(super) fn full_name(&mut self, platform: &str) {
        let (most, of) = match self.cluster.cloud {
            // 64 letters, less `-operator`.
            Cloud::Aws => (55, "roles of IAM, before what is appended,"),
            Cloud::Azure => (54, "DNS names of AKS"),
            Cloud::Gcp => (40, "clusters of GKE"),
            Cloud::Machines => return,
        };
        let full = format!("{platform}-{}", self.cluster.name);
        if full.len() > most {
            let reason = format!(
                "`{full}` has {} letters, and names of {of} have {most} at most",
                full.len()
            );
            self.add("name", reason, "shorten it, or the platform's name");
        }
    }

    /// The first pool of AKS runs what the cluster itself needs.
    pub(super) fn system_pool(&mut self) {
        let Some(first) = self.cluster.node_groups.first() else {
            return;
        };
        if self.cluster.cloud != Cloud::Azure {
            return;
        }
        if first.spot {
            let reason =
                "the first pool is AKS's system pool, which cannot be of machines that may be taken away";
            self.add("nodeGroups[0].spot", reason, "list another group first");
        }
        if first.min == 0 {
            let reason = "the first pool is AKS's system pool, which has a node at least";
            self.add(
                "nodeGroups[0].min",
                reason,
                "take 1 or more, or list another group first",
            );
        }
    }

    pub(super) fn aks_per_node(&mut self, pods: u32) {
        if self.cluster.cloud == Cloud::Azure && !AKS_PODS.contains(&pods) {
            let (least, most) = (AKS_PODS.start(), AKS_PODS.end());
            let reason = format!("AKS runs {least} to {most} pods on a node, not {pods}");
            self.add("podsPerNode", reason, format!("take {least} to {most}"));
        }
    }

    /// Whether a type of AWS can have addresses in the mode, and as many as pods are let in.
    pub(super) fn pods_fit(&mut self, key: &str, name: &str, catalogue: &Catalogue) {
        let cluster = self.cluster;
        let capacity = match catalogue.capacity(cluster, Some(name)) {
            Ok(capacity) => capacity,
            Err(error) => {
                let text = error.to_string();
                let (reason, remedy) = text.split_once("; ").unwrap_or((&text, "take another type"));
                return self.add(key, reason, remedy);
            }
        };
        if let (Some(pods), Some(most)) = (cluster.pods_per_node, capacity.official_max_pods)
            && pods > most
        {
            let (mode, slots) = (cluster.mode, capacity.slots);
            let reason =
                format!("{name} has addresses for {slots} pods in mode {mode}, and podsPerNode is {pods}");
            self.add(
                key,
                reason,
                format!("take podsPerNode {most} at most, or leave it out and let it be computed"),
            );
        }
    }

    /// A group has one image.
    pub(super) fn processors(&mut self, key: &str, group: &NodeGroup) {
        let of = |graviton: bool| {
            group
                .instance_types
                .iter()
                .find(|name| is_graviton(name) == graviton)
        };
        if self.cluster.cloud == Cloud::Aws
            && let (Some(own), Some(other)) = (of(true), of(false))
        {
            let reason = format!("{own} has processors of AWS and {other} has not: no image runs on both");
            self.add(key, reason, "make a group for each kind");
        }
    }
}
