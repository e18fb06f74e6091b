// SPDX-License-Identifier: Apache-2.0
//! Nodes, DaemonSets and services of a cluster.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde_json::Value;

use super::look::{Answer, Look, critical, items, note, place, text, warning};
use crate::address::Role;
use crate::file::{Cloud, Version};
use crate::render::TAINT;

/// Parts of other networks, by the name of their DaemonSet.
const OTHERS: [(&str, &str); 9] = [
    ("aws-node", "the VPC CNI"),
    ("calico-node", "Calico"),
    ("cilium", "Cilium"),
    ("anetd", "GKE Dataplane V2"),
    ("kube-flannel-ds", "Flannel"),
    ("antrea-agent", "Antrea"),
    ("kube-router", "kube-router"),
    ("weave-net", "Weave Net"),
    ("kindnet", "kindnet"),
];

/// The agent's DaemonSet.
const AGENT: &str = "thalweg";

pub(super) fn verify(look: &mut Look<'_>) {
    if let Some(nodes) = look.answer("kubernetes/nodes.json", "/items") {
        for (node, pointer) in items(&nodes, "/items") {
            one_node(look, &nodes, node, &pointer);
        }
        count(look, &nodes);
    }
    if let Some(sets) = look.answer("kubernetes/daemonsets.json", "/items") {
        daemon_sets(look, &sets);
    }
    if let Some(services) = look.answer("kubernetes/services.json", "/items") {
        api_service(look, &services);
    }
}

fn count(look: &mut Look<'_>, nodes: &Answer<'_>) {
    let groups = &look.context.cluster.node_groups;
    let (min, max): (u32, u32) = (
        groups.iter().map(|group| group.min).sum(),
        groups.iter().map(|group| group.max).sum(),
    );
    let number = u32::try_from(items(nodes, "/items").len()).unwrap_or(u32::MAX);
    let otherwise =
        warning("look at the node groups' scaling; a group that was made by hand is not in the plan");
    look.that(
        (min..=max).contains(&number),
        "number of nodes",
        format!("{min} to {max}"),
        number.to_string(),
        place(nodes, "/items"),
        otherwise,
    );
}

fn one_node(look: &mut Look<'_>, nodes: &Answer<'_>, node: &Value, pointer: &str) {
    let name = text(node, "/metadata/name");
    let subject = format!("node {name}");
    node_addresses(look, nodes, node, pointer, &subject);
    let tainted = items(nodes, &format!("{pointer}/spec/taints"))
        .into_iter()
        .find(|(taint, _)| taint["key"] == TAINT);
    let (found, evidence) = match &tainted {
        Some((taint, at)) => (taint.to_string(), place(nodes, at)),
        None => ("no taint".to_owned(), place(nodes, pointer)),
    };
    let otherwise = critical(format!(
        "the agent on {name} never became ready: `thalweg status --node {name}`"
    ));
    look.that(
        tainted.is_none(),
        &subject,
        "no agent-not-ready taint",
        found,
        evidence,
        otherwise,
    );
    version(look, nodes, node, pointer, &subject);
    max_pods(look, nodes, node, pointer, &subject);
}

fn node_addresses(look: &mut Look<'_>, nodes: &Answer<'_>, node: &Value, pointer: &str, subject: &str) {
    let networks: Vec<Ipv4Net> = look
        .context
        .addresses
        .of_role(Role::Nodes)
        .map(|subnet| subnet.cidr)
        .collect();
    for (address, at) in items(nodes, &format!("{pointer}/status/addresses")) {
        let parsed = text(address, "/address").parse::<Ipv4Addr>();
        if let ("InternalIP", Ok(ip)) = (text(address, "/type"), parsed) {
            let good = networks.iter().any(|net| net.contains(&ip));
            let planned = networks
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", ");
            let otherwise =
                warning("the node is in a subnet that is not planned: look at its group's subnets");
            look.that(
                good,
                subject,
                format!("an address in {planned}"),
                ip.to_string(),
                place(nodes, &at),
                otherwise,
            );
        }
    }
    let Some(pods) = look.context.addresses.pods else {
        return;
    };
    let cidr = text(node, "/spec/podCIDR");
    if let Ok(net) = cidr.parse::<Ipv4Net>() {
        let at = place(nodes, &format!("{pointer}/spec/podCIDR"));
        let otherwise = critical(
            "pod addresses outside the plan collide or are not routed: correct the cluster's pod network before more nodes join",
        );
        look.that(
            pods.contains(&net),
            subject,
            format!("a pod range in {pods}"),
            cidr,
            at.clone(),
            otherwise,
        );
        let mask = look
            .context
            .addresses
            .node_mask
            .unwrap_or_else(|| net.prefix_len());
        let otherwise = warning(
            "the cluster gives nodes ranges of another size than planned: it ends at another number of nodes",
        );
        look.that(
            net.prefix_len() == mask,
            subject,
            format!("a /{mask} for its pods"),
            cidr,
            at,
            otherwise,
        );
    }
}

/// `v1.33.4-eks-…` is of 1.33.
fn version(look: &mut Look<'_>, nodes: &Answer<'_>, node: &Value, pointer: &str, subject: &str) {
    let found = text(node, "/status/nodeInfo/kubeletVersion");
    let planned = look.context.cluster.kubernetes;
    let mut parts = found.trim_start_matches('v').split('.');
    let number = |part: Option<&str>| part.and_then(|part| part.parse().ok());
    let same = match (number(parts.next()), number(parts.next())) {
        (Some(major), Some(minor)) => Version(major, minor) == planned,
        (_, _) => false,
    };
    let at = place(nodes, &format!("{pointer}/status/nodeInfo/kubeletVersion"));
    let otherwise = warning("upgrade the group, after `thalweg upgrade check`").trap(6);
    look.that(same, subject, format!("kubelet {planned}"), found, at, otherwise);
}

fn max_pods(look: &mut Look<'_>, nodes: &Answer<'_>, node: &Value, pointer: &str, subject: &str) {
    let kind = node["metadata"]["labels"]["node.kubernetes.io/instance-type"].as_str();
    let cluster = look.context.cluster;
    let of_kind = cluster.node_groups.iter().filter(|group| {
        group.instance_types.is_empty()
            || group
                .instance_types
                .iter()
                .any(|name| Some(name.as_str()) == kind)
    });
    let planned: Vec<u32> = of_kind
        .filter_map(|group| crate::address::pods_of(cluster, group, look.context.catalogue))
        .collect();
    let at = place(nodes, &format!("{pointer}/status/capacity/pods"));
    let known = cluster
        .node_groups
        .iter()
        .flat_map(|group| &group.instance_types)
        .cloned()
        .collect::<Vec<_>>();
    if planned.is_empty() && cluster.cloud != Cloud::Machines && !known.is_empty() {
        let at = place(
            nodes,
            &format!("{pointer}/metadata/labels/node.kubernetes.io~1instance-type"),
        );
        let otherwise =
            warning("a machine that no group names: look who makes it (Karpenter, a group made by hand)");
        look.that(
            false,
            subject,
            format!("one of {}", known.join(", ")),
            kind.unwrap_or("nothing"),
            at,
            otherwise,
        );
        return;
    }
    let found = text(node, "/status/capacity/pods");
    let good = found.parse::<u32>().is_ok_and(|found| planned.contains(&found));
    let planned = planned
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" or ");
    let otherwise = warning(
        "pods are scheduled to addresses that are not there, or room stays empty: set the kubelet's maxPods",
    )
    .trap(4);
    look.that(
        good,
        subject,
        format!("--max-pods {planned}"),
        found,
        at,
        otherwise,
    );
}

fn daemon_sets(look: &mut Look<'_>, sets: &Answer<'_>) {
    let mut agent = None;
    for (set, pointer) in items(sets, "/items") {
        let name = text(set, "/metadata/name");
        if let Some((_, who)) = OTHERS.iter().find(|(other, _)| *other == name) {
            let otherwise = critical(format!(
                "two networks on one node: `thalweg conflicts` shows what {who} left and takes it away"
            ))
            .trap(3);
            look.that(
                false,
                &format!("DaemonSet {name}"),
                "not there",
                format!("{who} is installed"),
                place(sets, &pointer),
                otherwise,
            );
        } else if name == "kube-proxy" {
            let keeps = matches!(look.context.cluster.cloud, Cloud::Azure | Cloud::Gcp);
            let wanted = keeps || !look.context.cluster.features.kube_proxy_replacement;
            let otherwise =
                warning("services are done twice: remove the kube-proxy add-on or DaemonSet").trap(3);
            look.that(
                wanted,
                "DaemonSet kube-proxy",
                "not there",
                "installed",
                place(sets, &pointer),
                otherwise,
            );
        } else if name == AGENT {
            agent = Some((set, pointer));
        }
    }
    let Some((set, pointer)) = agent else {
        let otherwise = critical("install Thalweg with the cluster's values.yaml");
        look.that(
            false,
            "DaemonSet thalweg",
            "installed",
            "not there",
            place(sets, "/items"),
            otherwise,
        );
        return;
    };
    let number = |name: &str| set["status"][name].as_u64().unwrap_or(0);
    let (wanted, ready) = (number("desiredNumberScheduled"), number("numberReady"));
    let otherwise = critical("`thalweg status` says which agents are not ready and why");
    look.that(
        wanted == ready && wanted > 0,
        "DaemonSet thalweg",
        format!("{wanted} agents ready"),
        ready.to_string(),
        place(sets, &format!("{pointer}/status/numberReady")),
        otherwise,
    );
    let updated = number("updatedNumberScheduled");
    let otherwise =
        note("an update has stopped half-way, or nodes wait for it: go on with it or take it back").trap(10);
    look.that(
        updated == wanted,
        "DaemonSet thalweg",
        format!("{wanted} agents of one version"),
        updated.to_string(),
        place(sets, &format!("{pointer}/status/updatedNumberScheduled")),
        otherwise,
    );
}

/// The API's own service has the first address of the services' network.
fn api_service(look: &mut Look<'_>, services: &Answer<'_>) {
    let network = look.context.addresses.services;
    for (service, pointer) in items(services, "/items") {
        if (
            text(service, "/metadata/namespace"),
            text(service, "/metadata/name"),
        ) != ("default", "kubernetes")
        {
            continue;
        }
        let at = format!("{pointer}/spec/clusterIP");
        let found = text(service, "/spec/clusterIP");
        let good = found.parse::<Ipv4Addr>().is_ok_and(|ip| network.contains(&ip));
        let otherwise = critical(
            "services' addresses cannot be changed later: make the cluster anew, or correct the plan and see what overlaps",
        );
        look.that(
            good,
            "services' network",
            network.to_string(),
            found,
            place(services, &at),
            otherwise,
        );
    }
}
