// SPDX-License-Identifier: Apache-2.0
//! AKS: addresses by Azure CNI with our forwarding, or `network-plugin none`; with or without a firewall.

use serde_json::{Value, json};

use super::Context;
use super::graph::{Provider, Stack, of};
use crate::address::Role;
use crate::file::{Cluster, Egress, Mode, NodeGroup, Zones};

pub(crate) static AZURERM: Provider = Provider {
    terraform: "azurerm",
    source: "hashicorp/azurerm",
    version: "~> 4.0",
    // Pulumi's azure-native has Azure's own names, not Terraform's: `aks_native` writes it.
    pulumi: "",
    tokens: &[],
    renamed: &[],
};

/// Where the firewall's rules begin; smaller numbers come first.
const RULES_PRIORITY: u32 = 500;

pub(crate) fn stack(context: &Context<'_>) -> Stack {
    let mut stack = Stack::new(&context.full_name(), &AZURERM, json!({"features": {}}));
    stack.add(
        "azurerm_resource_group",
        "this",
        json!({
            "name": context.full_name(),
            "location": context.cluster.region,
            "tags": tags(context),
        }),
    );
    network(&mut stack, context);
    identity(&mut stack, context);
    match context.cluster.egress {
        Egress::Firewall => firewall(&mut stack, context),
        Egress::Nat => nat(&mut stack, context),
        Egress::NatPerZone | Egress::LoadBalancer | Egress::Existing => {}
    }
    control_plane(&mut stack, context);
    for group in context.cluster.node_groups.iter().skip(1) {
        pool(&mut stack, context, group);
    }
    stack.outputs = vec![
        ("cluster_fqdn", of("azurerm_kubernetes_cluster", "this", "fqdn")),
        ("network_id", of("azurerm_virtual_network", "this", "id")),
    ];
    stack
}

fn tags(context: &Context<'_>) -> Value {
    json!({"cluster": context.cluster.name, "platform": context.platform.name})
}

/// Name, group, place and tags: what nearly every resource begins with.
fn placed(context: &Context<'_>, name: &str) -> Value {
    json!({
        "name": name,
        "resource_group_name": of("azurerm_resource_group", "this", "name"),
        "location": of("azurerm_resource_group", "this", "location"),
        "tags": tags(context),
    })
}

fn with(mut base: Value, more: Value) -> Value {
    if let (Value::Object(base), Value::Object(more)) = (&mut base, more) {
        base.extend(more);
    }
    base
}

fn network(stack: &mut Stack, context: &Context<'_>) {
    let vnet = placed(context, &context.full_name());
    let space = json!({"address_space": [context.addresses.network.to_string()]});
    stack.add("azurerm_virtual_network", "this", with(vnet, space));
    for subnet in &context.addresses.subnets {
        let (resource, name) = match subnet.role {
            Role::Firewall => ("firewall", "AzureFirewallSubnet"),
            Role::Nodes | Role::Public | Role::Transit | Role::ControlPlane => ("nodes", "nodes"),
        };
        stack.add(
            "azurerm_subnet",
            resource,
            json!({
                "name": name,
                "resource_group_name": of("azurerm_resource_group", "this", "name"),
                "virtual_network_name": of("azurerm_virtual_network", "this", "name"),
                "address_prefixes": [subnet.cidr.to_string()],
            }),
        );
    }
}

fn identity(stack: &mut Stack, context: &Context<'_>) {
    let name = format!("{}-cluster", context.full_name());
    stack.add(
        "azurerm_user_assigned_identity",
        "cluster",
        placed(context, &name),
    );
    stack.add(
        "azurerm_role_assignment",
        "network",
        json!({
            "scope": of("azurerm_virtual_network", "this", "id"),
            "role_definition_name": "Network Contributor",
            "principal_id": of("azurerm_user_assigned_identity", "cluster", "principal_id"),
        }),
    );
}

fn public_ip(stack: &mut Stack, context: &Context<'_>, name: &str) {
    let settings = json!({"allocation_method": "Static", "sku": "Standard"});
    stack.add(
        "azurerm_public_ip",
        name,
        with(
            placed(context, &format!("{}-{name}", context.full_name())),
            settings,
        ),
    );
}

fn nat(stack: &mut Stack, context: &Context<'_>) {
    public_ip(stack, context, "nat");
    let gateway = placed(context, &format!("{}-nat", context.full_name()));
    stack.add(
        "azurerm_nat_gateway",
        "this",
        with(gateway, json!({"sku_name": "Standard"})),
    );
    stack.add(
        "azurerm_nat_gateway_public_ip_association",
        "this",
        json!({
            "nat_gateway_id": of("azurerm_nat_gateway", "this", "id"),
            "public_ip_address_id": of("azurerm_public_ip", "nat", "id"),
        }),
    );
    stack.add(
        "azurerm_subnet_nat_gateway_association",
        "nodes",
        json!({
            "subnet_id": of("azurerm_subnet", "nodes", "id"),
            "nat_gateway_id": of("azurerm_nat_gateway", "this", "id"),
        }),
    );
}

fn firewall(stack: &mut Stack, context: &Context<'_>) {
    let full = context.full_name();
    public_ip(stack, context, "firewall");
    let policy = with(placed(context, &full), json!({"sku": "Standard"}));
    stack.add("azurerm_firewall_policy", "this", policy);
    rules(stack, context);
    stack.add(
        "azurerm_firewall",
        "this",
        with(
            placed(context, &full),
            json!({
                "sku_name": "AZFW_VNet",
                "sku_tier": "Standard",
                "firewall_policy_id": of("azurerm_firewall_policy", "this", "id"),
                "ip_configuration": [{
                    "name": "first",
                    "subnet_id": of("azurerm_subnet", "firewall", "id"),
                    "public_ip_address_id": of("azurerm_public_ip", "firewall", "id"),
                }],
            }),
        ),
    );
    stack.add(
        "azurerm_route_table",
        "nodes",
        placed(context, &format!("{full}-nodes")),
    );
    let route = |name: &str, prefix: &str, more: Value| {
        with(
            json!({
                "name": name,
                "resource_group_name": of("azurerm_resource_group", "this", "name"),
                "route_table_name": of("azurerm_route_table", "nodes", "name"),
                "address_prefix": prefix,
            }),
            more,
        )
    };
    let appliance = json!({
        "next_hop_type": "VirtualAppliance",
        "next_hop_in_ip_address": of("azurerm_firewall", "this", "ip_configuration[0].private_ip_address"),
    });
    stack.add(
        "azurerm_route",
        "default",
        route("default", "0.0.0.0/0", appliance),
    );
    stack.add(
        "azurerm_subnet_route_table_association",
        "nodes",
        json!({
            "subnet_id": of("azurerm_subnet", "nodes", "id"),
            "route_table_id": of("azurerm_route_table", "nodes", "id"),
        }),
    );
}

/// What AKS itself needs to reach: the tag covers its names, time is UDP.
fn rules(stack: &mut Stack, context: &Context<'_>) {
    let nodes = context
        .addresses
        .of_role(Role::Nodes)
        .map(|subnet| subnet.cidr.to_string())
        .collect::<Vec<_>>();
    stack.add(
        "azurerm_firewall_policy_rule_collection_group",
        "aks",
        json!({
            "name": "aks",
            "firewall_policy_id": of("azurerm_firewall_policy", "this", "id"),
            "priority": RULES_PRIORITY,
            "application_rule_collection": [{
                "name": "aks",
                "priority": RULES_PRIORITY,
                "action": "Allow",
                "rule": [{
                    "name": "aks",
                    "source_addresses": nodes,
                    "destination_fqdn_tags": ["AzureKubernetesService"],
                    "protocols": [{"type": "Https", "port": 443}, {"type": "Http", "port": 80}],
                }],
            }],
            "network_rule_collection": [{
                "name": "time",
                "priority": RULES_PRIORITY + 100,
                "action": "Allow",
                "rule": [{
                    "name": "ntp",
                    "protocols": ["UDP"],
                    "source_addresses": nodes,
                    "destination_addresses": ["*"],
                    "destination_ports": ["123"],
                }],
            }],
        }),
    );
}

pub(crate) fn outbound(egress: Egress) -> &'static str {
    match egress {
        Egress::Firewall => "userDefinedRouting",
        Egress::Nat => "userAssignedNATGateway",
        Egress::LoadBalancer | Egress::NatPerZone | Egress::Existing => "loadBalancer",
    }
}

fn zones(cluster: &Cluster) -> Value {
    match &cluster.zones {
        Zones::Named(names) => json!(names),
        Zones::Count(count) => (1..=*count).map(|zone| zone.to_string()).collect(),
    }
}

fn pods(context: &Context<'_>, group: &NodeGroup) -> u32 {
    crate::address::pods_of(context.cluster, group, context.catalogue)
        .unwrap_or(crate::address::PODS_PER_NODE)
}

/// The settings that the first pool and the others have in common.
fn pool_settings(context: &Context<'_>, group: &NodeGroup) -> Value {
    json!({
        "name": group.name,
        "vm_size": group.instance_types.first(),
        "auto_scaling_enabled": true,
        "min_count": group.min,
        "max_count": group.max,
        "max_pods": pods(context, group),
        "vnet_subnet_id": of("azurerm_subnet", "nodes", "id"),
        "zones": zones(context.cluster),
        "upgrade_settings": {"max_surge": "33%"},
    })
}

fn control_plane(stack: &mut Stack, context: &Context<'_>) {
    let cluster = context.cluster;
    let Some(first) = cluster.node_groups.first() else {
        return;
    };
    let mut profile = json!({
        "service_cidr": context.addresses.services.to_string(),
        "dns_service_ip": context.addresses.dns.to_string(),
        "load_balancer_sku": "standard",
        "outbound_type": outbound(cluster.egress),
    });
    if cluster.mode == Mode::Delegated {
        profile["network_plugin"] = json!("azure");
        profile["network_plugin_mode"] = json!("overlay");
        profile["pod_cidr"] = json!(context.addresses.pods.map(|net| net.to_string()));
    } else {
        profile["network_plugin"] = json!("none");
    }
    let settings = with(
        placed(context, &context.full_name()),
        json!({
            "dns_prefix": context.full_name(),
            "kubernetes_version": cluster.kubernetes.to_string(),
            "private_cluster_enabled": cluster.private,
            "identity": {"type": "UserAssigned", "identity_ids": [of("azurerm_user_assigned_identity", "cluster", "id")]},
            "oidc_issuer_enabled": true,
            "workload_identity_enabled": true,
            "network_profile": profile,
            "default_node_pool": pool_settings(context, first),
        }),
    );
    let mut after = vec!["azurerm_role_assignment.network".to_owned()];
    match cluster.egress {
        Egress::Firewall => after.extend([
            "azurerm_subnet_route_table_association.nodes".to_owned(),
            "azurerm_route.default".to_owned(),
            "azurerm_firewall_policy_rule_collection_group.aks".to_owned(),
        ]),
        Egress::Nat => after.extend([
            "azurerm_subnet_nat_gateway_association.nodes".to_owned(),
            "azurerm_nat_gateway_public_ip_association.this".to_owned(),
        ]),
        Egress::NatPerZone | Egress::LoadBalancer | Egress::Existing => {}
    }
    stack.add("azurerm_kubernetes_cluster", "this", settings).after = after;
}

fn pool(stack: &mut Stack, context: &Context<'_>, group: &NodeGroup) {
    let mut settings = with(
        pool_settings(context, group),
        json!({
            "kubernetes_cluster_id": of("azurerm_kubernetes_cluster", "this", "id"),
            "mode": "User",
            "tags": tags(context),
        }),
    );
    if group.spot {
        settings["priority"] = json!("Spot");
        settings["eviction_policy"] = json!("Delete");
    }
    stack.add(
        "azurerm_kubernetes_cluster_node_pool",
        group.name.clone(),
        settings,
    );
}
