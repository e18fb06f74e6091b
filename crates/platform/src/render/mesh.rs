// SPDX-License-Identifier: Apache-2.0
//! What joins the networks of several clusters: peerings or transit gateways, and routes on both sides.
//!
//! A stack of its own, that finds the clusters' networks by their tags or names: a cluster's stack can be applied and
//! destroyed without the others.

use serde_json::{Value, json};

use super::Fleet;
use super::aks::AZURERM;
use super::eks::{AWS, CLUSTER_TAG, ROLE_TAG};
use super::gke::GOOGLE;
use super::graph::Stack;
use crate::address::{ClusterAddresses, Role};
use crate::file::{Cloud, Cluster, Connect};

type Member<'a> = (&'a Cluster, &'a ClusterAddresses);

/// The joining stacks, one for each cloud with two or more clusters.
pub(crate) fn stacks(fleet: &Fleet<'_>) -> Vec<(Cloud, Stack)> {
    let of = |cloud: Cloud| -> Vec<Member<'_>> {
        fleet
            .members()
            .filter(|(cluster, _)| cluster.cloud == cloud)
            .collect()
    };
    let name = format!("{}-mesh", fleet.platform.name);
    let mut stacks = Vec::new();
    let (aws, azure, gcp) = (of(Cloud::Aws), of(Cloud::Azure), of(Cloud::Gcp));
    if fleet.platform.mesh != Connect::None && aws.len() > 1 {
        stacks.push((Cloud::Aws, aws_stack(fleet, &name, &aws)));
    }
    if fleet.platform.mesh == Connect::Peering && azure.len() > 1 {
        stacks.push((Cloud::Azure, azure_stack(fleet, &name, &azure)));
    }
    if fleet.platform.mesh == Connect::Peering && gcp.len() > 1 {
        stacks.push((Cloud::Gcp, gcp_stack(fleet, &name, &gcp)));
    }
    stacks
}

/// Every pair once.
fn pairs<'a, 'b>(members: &'b [Member<'a>]) -> impl Iterator<Item = (&'b Member<'a>, &'b Member<'a>)> {
    members
        .iter()
        .enumerate()
        .flat_map(|(index, left)| members[index + 1..].iter().map(move |right| (left, right)))
}

fn aws_stack(fleet: &Fleet<'_>, name: &str, members: &[Member<'_>]) -> Stack {
    let mut regions: Vec<String> = members
        .iter()
        .map(|(cluster, _)| cluster.region.clone())
        .collect();
    regions.sort();
    regions.dedup();
    let mut stack = Stack::new(name, &AWS, json!({"region": regions[0]}));
    stack.regions.clone_from(&regions);
    for member in members {
        aws_queries(&mut stack, member);
    }
    if fleet.platform.mesh == Connect::TransitGateway {
        transit(&mut stack, fleet, &regions, members);
    } else {
        for (left, right) in pairs(members) {
            aws_peering(&mut stack, fleet, left, right);
        }
    }
    for (cluster, _) in members {
        for (other, addresses) in members.iter().filter(|(other, _)| other.name != cluster.name) {
            admit(&mut stack, cluster, other, addresses);
        }
    }
    stack
}

fn place<'s>(
    stack: &'s mut Stack,
    region: &str,
    kind: &'static str,
    name: String,
    settings: Value,
) -> &'s mut Vec<String> {
    let resource = stack.add(kind, name, settings);
    resource.region = Some(region.to_owned());
    &mut resource.after
}

fn vpc(cluster: &Cluster) -> String {
    data("aws_vpc", &cluster.name, "id")
}

fn data(kind: &str, name: &str, attribute: &str) -> String {
    format!("${{data.{kind}.{}.{attribute}}}", name.replace('-', "_"))
}

fn aws_queries(stack: &mut Stack, (cluster, addresses): &Member<'_>) {
    let tagged = |more: &[(&str, &str)]| {
        let mut filters = vec![json!({"name": format!("tag:{CLUSTER_TAG}"), "values": [cluster.name]})];
        filters.extend(
            more.iter()
                .map(|(name, value)| json!({"name": format!("tag:{name}"), "values": [value]})),
        );
        json!({"filter": filters})
    };
    let region = Some(cluster.region.clone());
    stack
        .query("aws_vpc", cluster.name.clone(), tagged(&[]))
        .region
        .clone_from(&region);
    for subnet in addresses.of_role(Role::Nodes) {
        let part = format!("nodes-{}", subnet.zone.unwrap_or(0));
        let name = format!("{}-{part}", cluster.name);
        stack
            .query("aws_route_table", name, tagged(&[(ROLE_TAG, &part)]))
            .region
            .clone_from(&region);
    }
}

fn node_tables(cluster: &Cluster, addresses: &ClusterAddresses) -> Vec<(u32, String)> {
    let zones = addresses
        .of_role(Role::Nodes)
        .map(|subnet| subnet.zone.unwrap_or(0));
    zones
        .map(|zone| {
            (
                zone,
                data("aws_route_table", &format!("{}-nodes-{zone}", cluster.name), "id"),
            )
        })
        .collect()
}

fn aws_peering(stack: &mut Stack, fleet: &Fleet<'_>, left: &Member<'_>, right: &Member<'_>) {
    let name = format!("{}-{}", left.0.name, right.0.name);
    place(
        stack,
        &left.0.region,
        "aws_vpc_peering_connection",
        name.clone(),
        json!({
            "vpc_id": vpc(left.0),
            "peer_vpc_id": vpc(right.0),
            "peer_region": right.0.region,
            "auto_accept": false,
            "tags": {"Name": format!("{}-{name}", fleet.platform.name)},
        }),
    );
    let connection = super::graph::of("aws_vpc_peering_connection", &name, "id");
    place(
        stack,
        &right.0.region,
        "aws_vpc_peering_connection_accepter",
        name.clone(),
        json!({
            "vpc_peering_connection_id": connection,
            "auto_accept": true,
            "tags": {"Name": format!("{}-{name}", fleet.platform.name)},
        }),
    );
    let accepter = format!("aws_vpc_peering_connection_accepter.{}", name.replace('-', "_"));
    for (from, to) in [(left, right), (right, left)] {
        for (zone, table) in node_tables(from.0, from.1) {
            let after = place(
                stack,
                &from.0.region,
                "aws_route",
                format!("{}-{zone}-to-{}", from.0.name, to.0.name),
                json!({
                    "route_table_id": table,
                    "destination_cidr_block": to.1.network.to_string(),
                    "vpc_peering_connection_id": connection,
                }),
            );
            after.push(accepter.clone());
        }
    }
}

fn transit(stack: &mut Stack, fleet: &Fleet<'_>, regions: &[String], members: &[Member<'_>]) {
    for region in regions {
        place(
            stack,
            region,
            "aws_ec2_transit_gateway",
            region.clone(),
            json!({
                "description": format!("{} in {region}", fleet.platform.name),
                "auto_accept_shared_attachments": "disable",
                "tags": {"Name": format!("{}-{region}", fleet.platform.name)},
            }),
        );
    }
    for (cluster, addresses) in members {
        attach(stack, cluster, addresses);
    }
    for (index, left) in regions.iter().enumerate() {
        for right in &regions[index + 1..] {
            join_regions(stack, left, right, members);
        }
    }
    for (cluster, addresses) in members {
        for (other, others) in members.iter().filter(|(other, _)| other.name != cluster.name) {
            for (zone, table) in node_tables(cluster, addresses) {
                let name = format!("{}-{zone}-to-{}", cluster.name, other.name);
                let after = place(
                    stack,
                    &cluster.region,
                    "aws_route",
                    name,
                    json!({
                        "route_table_id": table,
                        "destination_cidr_block": others.network.to_string(),
                        "transit_gateway_id": gateway(&cluster.region, "id"),
                    }),
                );
                after.push(format!(
                    "aws_ec2_transit_gateway_vpc_attachment.{}",
                    cluster.name.replace('-', "_")
                ));
            }
        }
    }
}

fn gateway(region: &str, attribute: &str) -> String {
    super::graph::of("aws_ec2_transit_gateway", region, attribute)
}

fn attach(stack: &mut Stack, cluster: &Cluster, addresses: &ClusterAddresses) {
    let mut subnets = Vec::new();
    for subnet in addresses.of_role(Role::Transit) {
        let part = format!("transit-{}", subnet.zone.unwrap_or(0));
        let name = format!("{}-{part}", cluster.name);
        subnets.push(data("aws_subnet", &name, "id"));
        let filters = json!({"filter": [
            {"name": format!("tag:{CLUSTER_TAG}"), "values": [cluster.name]},
            {"name": format!("tag:{ROLE_TAG}"), "values": [part]},
        ]});
        stack.query("aws_subnet", name, filters).region = Some(cluster.region.clone());
    }
    place(
        stack,
        &cluster.region,
        "aws_ec2_transit_gateway_vpc_attachment",
        cluster.name.clone(),
        json!({
            "transit_gateway_id": gateway(&cluster.region, "id"),
            "vpc_id": vpc(cluster),
            "subnet_ids": subnets,
            "tags": {"Name": cluster.name},
        }),
    );
}

/// Gateways of different regions do not learn each other's routes: each network gets one.
fn join_regions(stack: &mut Stack, left: &str, right: &str, members: &[Member<'_>]) {
    let name = format!("{left}-{right}");
    place(
        stack,
        left,
        "aws_ec2_transit_gateway_peering_attachment",
        name.clone(),
        json!({
            "transit_gateway_id": gateway(left, "id"),
            "peer_transit_gateway_id": gateway(right, "id"),
            "peer_region": right,
            "tags": {"Name": name},
        }),
    );
    let attachment = super::graph::of("aws_ec2_transit_gateway_peering_attachment", &name, "id");
    place(
        stack,
        right,
        "aws_ec2_transit_gateway_peering_attachment_accepter",
        name.clone(),
        json!({
            "transit_gateway_attachment_id": attachment,
            "tags": {"Name": name},
        }),
    );
    let accepter = format!(
        "aws_ec2_transit_gateway_peering_attachment_accepter.{}",
        name.replace('-', "_")
    );
    for (here, there) in [(left, right), (right, left)] {
        for (cluster, addresses) in members.iter().filter(|(cluster, _)| cluster.region == there) {
            let route = format!("{here}-to-{}", cluster.name);
            let after = place(
                stack,
                here,
                "aws_ec2_transit_gateway_route",
                route,
                json!({
                    "destination_cidr_block": addresses.network.to_string(),
                    "transit_gateway_attachment_id": attachment,
                    "transit_gateway_route_table_id": gateway(here, "association_default_route_table_id"),
                }),
            );
            after.push(accepter.clone());
        }
    }
}

/// The nodes' security group lets the other cluster's network in: nodes and, in ENI mode, pods.
fn admit(stack: &mut Stack, cluster: &Cluster, other: &Cluster, addresses: &ClusterAddresses) {
    let region = Some(cluster.region.clone());
    let known = stack.resources.iter().any(|resource| {
        resource.data && resource.kind == "aws_eks_cluster" && resource.name == cluster.name.replace('-', "_")
    });
    if !known {
        let full = stack.name.trim_end_matches("mesh").to_owned() + &cluster.name;
        stack
            .query("aws_eks_cluster", cluster.name.clone(), json!({"name": full}))
            .region
            .clone_from(&region);
    }
    let group = data(
        "aws_eks_cluster",
        &cluster.name,
        "vpc_config[0].cluster_security_group_id",
    );
    let name = format!("{}-from-{}", cluster.name, other.name);
    place(
        stack,
        &cluster.region,
        "aws_vpc_security_group_ingress_rule",
        name,
        json!({
            "security_group_id": group,
            "cidr_ipv4": addresses.network.to_string(),
            "ip_protocol": "-1",
            "description": format!("nodes of {}", other.name),
        }),
    );
}

fn azure_stack(fleet: &Fleet<'_>, name: &str, members: &[Member<'_>]) -> Stack {
    let mut stack = Stack::new(name, &AZURERM, json!({"features": {}}));
    for (cluster, _) in members {
        let full = fleet.full_name(cluster);
        stack.query(
            "azurerm_virtual_network",
            cluster.name.clone(),
            json!({"name": full, "resource_group_name": full}),
        );
    }
    for (left, right) in pairs(members) {
        for (from, to) in [(left, right), (right, left)] {
            let full = fleet.full_name(from.0);
            stack.add(
                "azurerm_virtual_network_peering",
                format!("{}-to-{}", from.0.name, to.0.name),
                json!({
                    "name": format!("to-{}", to.0.name),
                    "resource_group_name": full,
                    "virtual_network_name": full,
                    "remote_virtual_network_id": data("azurerm_virtual_network", &to.0.name, "id"),
                    "allow_virtual_network_access": true,
                    "allow_forwarded_traffic": true,
                }),
            );
        }
    }
    stack
}

fn gcp_stack(fleet: &Fleet<'_>, name: &str, members: &[Member<'_>]) -> Stack {
    let region = members[0].0.region.clone();
    let mut stack = Stack::new(
        name,
        &GOOGLE,
        json!({"project": "${var.project}", "region": region}),
    );
    for (cluster, _) in members {
        stack.query(
            "google_compute_network",
            cluster.name.clone(),
            json!({"name": fleet.full_name(cluster)}),
        );
    }
    for (left, right) in pairs(members) {
        for (from, to) in [(left, right), (right, left)] {
            stack.add(
                "google_compute_network_peering",
                format!("{}-to-{}", from.0.name, to.0.name),
                json!({
                    "name": format!("{}-to-{}", from.0.name, to.0.name),
                    "network": data("google_compute_network", &from.0.name, "self_link"),
                    "peer_network": data("google_compute_network", &to.0.name, "self_link"),
                }),
            );
        }
    }
    for (cluster, _) in members {
        let networks: Vec<String> = members
            .iter()
            .filter(|(other, _)| other.name != cluster.name)
            .flat_map(|(_, addresses)| [Some(addresses.network), addresses.pods])
            .flatten()
            .map(|net| net.to_string())
            .collect();
        stack.add(
            "google_compute_firewall",
            cluster.name.clone(),
            json!({
                "name": format!("{}-from-mesh", fleet.full_name(cluster)),
                "network": data("google_compute_network", &cluster.name, "self_link"),
                "direction": "INGRESS",
                "source_ranges": networks,
                "allow": [{"protocol": "all"}],
            }),
        );
    }
    stack
}
