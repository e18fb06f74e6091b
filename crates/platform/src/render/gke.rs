// SPDX-License-Identifier: Apache-2.0
//! GKE with node pod CIDRs from alias ranges.

use serde_json::json;

use super::graph::{Provider, Stack, of};
use super::{Context, TAINT};
use crate::address::Role;
use crate::file::{NodeGroup, Zones};

pub(crate) static GOOGLE: Provider = Provider {
    terraform: "google",
    source: "hashicorp/google",
    version: "~> 7.0",
    pulumi: "gcp",
    tokens: &[
        ("google_compute_firewall", "gcp:compute/firewall:Firewall"),
        ("google_compute_network", "gcp:compute/network:Network"),
        (
            "google_compute_network_peering",
            "gcp:compute/networkPeering:NetworkPeering",
        ),
        ("google_compute_router", "gcp:compute/router:Router"),
        ("google_compute_router_nat", "gcp:compute/routerNat:RouterNat"),
        ("google_compute_subnetwork", "gcp:compute/subnetwork:Subnetwork"),
        ("google_container_cluster", "gcp:container/cluster:Cluster"),
        ("google_container_node_pool", "gcp:container/nodePool:NodePool"),
        ("google_service_account", "gcp:serviceaccount/account:Account"),
        ("google_project_iam_member", "gcp:projects/iAMMember:IAMMember"),
        ("data.google_compute_network", "gcp:compute/getNetwork:getNetwork"),
    ],
    renamed: &[
        (
            "google_compute_subnetwork.secondary_ip_range",
            "secondaryIpRanges",
        ),
        ("node_config.taint", "taints"),
        ("google_compute_firewall.allow", "allows"),
        ("master_authorized_networks_config.cidr_blocks", "cidrBlocks"),
    ],
};

pub(crate) fn stack(context: &Context<'_>) -> Stack {
    // The project is the user's: a variable of Terraform, `gcp:project` of Pulumi.
    let configuration = json!({"project": "${var.project}", "region": context.cluster.region});
    let mut stack = Stack::new(&context.full_name(), &GOOGLE, configuration);
    network(&mut stack, context);
    cluster(&mut stack, context);
    for group in &context.cluster.node_groups {
        pool(&mut stack, context, group);
    }
    stack.outputs = vec![
        (
            "cluster_endpoint",
            of("google_container_cluster", "this", "endpoint"),
        ),
        ("network_id", of("google_compute_network", "this", "id")),
    ];
    stack
}

fn network(stack: &mut Stack, context: &Context<'_>) {
    let (addresses, region, full) = (context.addresses, &context.cluster.region, context.full_name());
    stack.add(
        "google_compute_network",
        "this",
        json!({
            "name": full,
            "auto_create_subnetworks": false,
            "routing_mode": "REGIONAL",
        }),
    );
    for subnet in addresses.of_role(Role::Nodes) {
        let pods = addresses.pods.map(|net| net.to_string());
        stack.add(
            "google_compute_subnetwork",
            "nodes",
            json!({
                "name": format!("{full}-nodes"),
                "network": of("google_compute_network", "this", "id"),
                "region": region,
                "ip_cidr_range": subnet.cidr.to_string(),
                "private_ip_google_access": true,
                "secondary_ip_range": [
                    {"range_name": "pods", "ip_cidr_range": pods},
                    {"range_name": "services", "ip_cidr_range": addresses.services.to_string()},
                ],
            }),
        );
    }
    stack.add(
        "google_compute_router",
        "this",
        json!({
            "name": full,
            "network": of("google_compute_network", "this", "id"),
            "region": region,
        }),
    );
    stack.add(
        "google_compute_router_nat",
        "this",
        json!({
            "name": full,
            "router": of("google_compute_router", "this", "name"),
            "region": region,
            "nat_ip_allocate_option": "AUTO_ONLY",
            "source_subnetwork_ip_ranges_to_nat": "ALL_SUBNETWORKS_ALL_IP_RANGES",
        }),
    );
}

fn cluster(stack: &mut Stack, context: &Context<'_>) {
    let cluster = context.cluster;
    let control_plane = context
        .addresses
        .of_role(Role::ControlPlane)
        .map(|subnet| subnet.cidr.to_string())
        .next();
    let mut settings = json!({
        "name": context.full_name(),
        "location": cluster.region,
        "network": of("google_compute_network", "this", "id"),
        "subnetwork": of("google_compute_subnetwork", "nodes", "id"),
        "min_master_version": cluster.kubernetes.to_string(),
        "networking_mode": "VPC_NATIVE",
        // Dataplane V2 would be a second dataplane beside ours, and cannot be switched off later.
        "datapath_provider": "LEGACY_DATAPATH",
        "remove_default_node_pool": true,
        "initial_node_count": 1,
        "default_max_pods_per_node": pods(context),
        "ip_allocation_policy": {
            "cluster_secondary_range_name": "pods",
            "services_secondary_range_name": "services",
        },
        "private_cluster_config": {
            "enable_private_nodes": true,
            "enable_private_endpoint": cluster.private,
            "master_ipv4_cidr_block": control_plane,
        },
        "release_channel": {"channel": "REGULAR"},
        "resource_labels": {"platform": context.platform.name},
    });
    if let Zones::Named(names) = &cluster.zones {
        settings["node_locations"] = json!(names);
    }
    if cluster.private {
        // An API that is reachable from inside only wants to be told who inside.
        settings["master_authorized_networks_config"] = json!({"cidr_blocks": [{"cidr_block": context.addresses.network.to_string(), "display_name": "nodes"}]});
    }
    stack.add("google_container_cluster", "this", settings);
}

fn pods(context: &Context<'_>) -> u32 {
    context
        .cluster
        .pods_per_node
        .unwrap_or(crate::address::PODS_PER_NODE)
}

fn pool(stack: &mut Stack, context: &Context<'_>, group: &NodeGroup) {
    stack.add(
        "google_container_node_pool",
        group.name.clone(),
        json!({
            "name": group.name,
            "cluster": of("google_container_cluster", "this", "id"),
            "location": context.cluster.region,
            "max_pods_per_node": pods(context),
            "autoscaling": {
                "total_min_node_count": group.min,
                "total_max_node_count": group.max,
                "location_policy": "BALANCED",
            },
            "management": {"auto_repair": true, "auto_upgrade": false},
            "node_config": {
                "machine_type": group.instance_types.first(),
                "image_type": "COS_CONTAINERD",
                "spot": group.spot,
                "oauth_scopes": ["https://www.googleapis.com/auth/cloud-platform"],
                "taint": [{"key": TAINT, "value": "true", "effect": "NO_EXECUTE"}],
            },
        }),
    );
}
