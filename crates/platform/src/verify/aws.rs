// SPDX-License-Identifier: Apache-2.0
//! EKS and its VPC, from answers of the AWS CLI.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::look::{Answer, Look, critical, items, note, place, shown, text, warning};
use crate::address::Role;
use crate::file::{Connect, Egress, Identity, NodeGroup};
use crate::render::{Fleet, TAINT};

pub(super) fn verify(look: &mut Look<'_>, fleet: &Fleet<'_>) {
    if let Some(cluster) = look.answer("aws/cluster.json", "/cluster") {
        control_plane(look, &cluster);
    }
    if let Some(addons) = look.answer("aws/addons.json", "/addons") {
        add_ons(look, &addons);
    }
    if let Some(vpcs) = look.answer("aws/vpcs.json", "/Vpcs") {
        vpc(look, &vpcs);
    }
    if let Some(subnets) = look.answer("aws/subnets.json", "/Subnets") {
        subnets_are_planned(look, &subnets);
    }
    if let Some(gateways) = look.answer("aws/nat-gateways.json", "/NatGateways") {
        nat(look, &gateways);
    }
    if let Some(tables) = look.answer("aws/route-tables.json", "/RouteTables") {
        routes(look, &tables, fleet);
    }
    if let Some(policies) = look.answer("aws/node-role-policies.json", "/AttachedPolicies") {
        node_role(look, &policies);
    }
    let wants_pod_identity =
        look.context.cluster.pods_in_network() && look.context.cluster.identity == Identity::PodIdentity;
    if wants_pod_identity && let Some(associations) = look.answer("aws/pod-identity.json", "/associations") {
        operator(look, &associations);
    }
    let groups: Vec<NodeGroup> = look.context.cluster.node_groups.clone();
    for group in groups {
        if let Some(answer) = look.answer(&format!("aws/node-groups/{}.json", group.name), "/nodegroup") {
            node_group(look, &answer, &group);
        }
    }
}

fn control_plane(look: &mut Look<'_>, cluster: &Answer<'_>) {
    let (planned, addresses) = (look.context.cluster, look.context.addresses);
    let subject = "cluster";
    let upgrade = warning("upgrade the cluster after `thalweg upgrade check`, or correct the plan").trap(6);
    look.expect(
        cluster,
        "/cluster/version",
        "Kubernetes version",
        planned.kubernetes.to_string(),
        upgrade,
    );
    let services =
        critical("it cannot be changed: make the cluster anew, or correct the plan and see what overlaps");
    let network = addresses.services.to_string();
    look.expect(
        cluster,
        "/cluster/kubernetesNetworkConfig/serviceIpv4Cidr",
        "services' network",
        network,
        services,
    );
    let exposed = warning("`aws eks update-cluster-config --resources-vpc-config endpointPublicAccess=…`");
    look.expect(
        cluster,
        "/cluster/resourcesVpcConfig/endpointPublicAccess",
        "API reachable from the Internet",
        !planned.private,
        exposed.clone(),
    );
    look.expect(
        cluster,
        "/cluster/resourcesVpcConfig/endpointPrivateAccess",
        "API reachable from inside",
        true,
        exposed,
    );
    let support = note(
        "extended support costs more an hour: `aws eks update-cluster-config --upgrade-policy supportType=STANDARD`",
    );
    look.expect(
        cluster,
        "/cluster/upgradePolicy/supportType",
        "upgrade policy",
        "STANDARD",
        support,
    );
    let auto = cluster
        .value
        .pointer("/cluster/computeConfig/enabled")
        .and_then(Value::as_bool)
        .unwrap_or(false);
    let otherwise =
        critical("nodes of EKS Auto Mode have AWS' own network and take no other: switch it off").trap(3);
    look.that(
        !auto,
        subject,
        "no EKS Auto Mode",
        "Auto Mode is on",
        place(cluster, "/cluster/computeConfig/enabled"),
        otherwise,
    );
}

fn add_ons(look: &mut Look<'_>, addons: &Answer<'_>) {
    let kube_proxy_is_wanted = !look.context.cluster.features.kube_proxy_replacement;
    for (addon, pointer) in items(addons, "/addons") {
        let name = addon.as_str().unwrap_or_default();
        let unwanted = name == "vpc-cni" || (name == "kube-proxy" && !kube_proxy_is_wanted);
        let otherwise = critical(format!(
            "`aws eks delete-addon --addon-name {name}`, then `thalweg conflicts` for what it left"
        ))
        .trap(3);
        look.that(
            !unwanted,
            &format!("add-on {name}"),
            "not there",
            "installed",
            place(addons, &pointer),
            otherwise,
        );
    }
    let there = |name: &str| items(addons, "/addons").iter().any(|(addon, _)| *addon == name);
    let otherwise = warning("`terraform apply` makes it");
    look.that(
        there("coredns"),
        "add-on coredns",
        "installed",
        "not there",
        place(addons, "/addons"),
        otherwise,
    );
}

fn vpc(look: &mut Look<'_>, vpcs: &Answer<'_>) {
    let planned = look.context.addresses.network.to_string();
    let found = items(vpcs, "/Vpcs");
    let otherwise = critical(
        "the VPC with the cluster's tag is gone, or there are two: look in the account before anything is applied",
    );
    look.that(
        found.len() == 1,
        "VPC",
        "one",
        found.len().to_string(),
        place(vpcs, "/Vpcs"),
        otherwise,
    );
    for (vpc, pointer) in found {
        let answer = Answer {
            file: vpcs.file.clone(),
            value: vpcs.value,
        };
        let otherwise = critical("another VPC has the cluster's tag, or the plan is of another one");
        look.expect(
            &answer,
            &format!("{pointer}/CidrBlock"),
            "VPC",
            planned.clone(),
            otherwise,
        );
        for (block, at) in items(vpcs, &format!("{pointer}/CidrBlockAssociationSet")) {
            let cidr = text(block, "/CidrBlock");
            let otherwise = warning(
                "a network that the plan does not know may overlap with what is planned next: add it to `reserved`, or take it away",
            );
            look.that(
                cidr == text(vpc, "/CidrBlock"),
                "VPC",
                "no further networks",
                cidr,
                place(vpcs, &at),
                otherwise,
            );
        }
    }
}

/// Subnets by the role tag that rendering gives them.
fn subnets_are_planned(look: &mut Look<'_>, subnets: &Answer<'_>) {
    let mut found: BTreeMap<String, (Value, String)> = BTreeMap::new();
    for (subnet, pointer) in items(subnets, "/Subnets") {
        found.insert(text(subnet, "/CidrBlock").to_owned(), (subnet.clone(), pointer));
    }
    let planned = look.context.addresses.subnets.clone();
    for subnet in &planned {
        let cidr = subnet.cidr.to_string();
        let subject = format!("subnet {:?} {}", subnet.role, subnet.zone.unwrap_or(0)).to_lowercase();
        let there = found.remove(&cidr);
        let otherwise = critical("`terraform apply` makes it; a subnet that has pods cannot be changed");
        look.that(
            there.is_some(),
            &subject,
            cidr,
            "not there",
            place(subnets, "/Subnets"),
            otherwise,
        );
        let Some((answer, pointer)) = there else { continue };
        if let Some(zone) = &subnet.zone_name {
            let at = format!("{pointer}/AvailabilityZone");
            let otherwise = warning("zones are not as planned: a failure takes more than is thought");
            let whole = Answer {
                file: subnets.file.clone(),
                value: subnets.value,
            };
            look.expect(&whole, &at, &subject, zone.clone(), otherwise);
        }
        if subnet.role == Role::Nodes && look.context.cluster.pods_in_network() {
            let free = answer["AvailableIpAddressCount"].as_u64().unwrap_or(u64::MAX);
            let otherwise = critical("pods will hang without addresses: `thalweg capacity` forecasts, a further subnet or mode overlay mends").trap(4);
            let least = subnet.usable / 10;
            look.that(
                free >= least,
                &subject,
                format!("at least {least} free addresses"),
                free.to_string(),
                place(subnets, &format!("{pointer}/AvailableIpAddressCount")),
                otherwise,
            );
        }
    }
    for (cidr, (_, pointer)) in found {
        let otherwise = note("somebody made it by hand: add it to the plan or take it away");
        look.that(
            false,
            "subnet",
            "not there",
            cidr,
            place(subnets, &pointer),
            otherwise,
        );
    }
}

fn nat(look: &mut Look<'_>, gateways: &Answer<'_>) {
    let zones = look.context.addresses.of_role(Role::Nodes).count();
    let planned = if look.context.cluster.egress == Egress::NatPerZone {
        zones
    } else {
        1
    };
    let working = items(gateways, "/NatGateways")
        .iter()
        .filter(|(gateway, _)| gateway["State"] == "available")
        .count();
    let otherwise = warning("a zone has no way out of its own: `terraform apply` makes the missing gateway");
    look.that(
        working == planned,
        "NAT gateways",
        planned.to_string(),
        working.to_string(),
        place(gateways, "/NatGateways"),
        otherwise,
    );
}

fn routes(look: &mut Look<'_>, tables: &Answer<'_>, fleet: &Fleet<'_>) {
    let own = look.context.cluster.name.clone();
    let others: Vec<(String, String)> = fleet
        .members()
        .filter(|(other, _)| {
            fleet.platform.mesh != Connect::None
                && other.name != own
                && other.cloud == look.context.cluster.cloud
        })
        .map(|(other, addresses)| (other.name.clone(), addresses.network.to_string()))
        .collect();
    for (table, pointer) in items(tables, "/RouteTables") {
        let role = tag(table, "thalweg.io/role").to_owned();
        if !role.starts_with("nodes-") {
            continue;
        }
        let subject = format!("route table {role}");
        let list = items(tables, &format!("{pointer}/Routes"));
        let to = |cidr: &str| {
            list.iter()
                .find(|(route, _)| route["DestinationCidrBlock"] == cidr)
        };
        let (found, at) = to("0.0.0.0/0").map_or_else(
            || (Value::Null, format!("{pointer}/Routes")),
            |(route, at)| ((*route).clone(), at.clone()),
        );
        let good = text(&found, "/NatGatewayId").starts_with("nat-") && found["State"] == "active";
        let otherwise = critical(
            "nodes of this zone reach nothing outside, or are reached from there: `terraform apply` puts the route back",
        );
        look.that(
            good,
            &subject,
            "0.0.0.0/0 by a NAT gateway",
            shown(&found),
            place(tables, &at),
            otherwise,
        );
        for (other, network) in &others {
            let (found, at) = to(network).map_or_else(
                || (Value::Null, format!("{pointer}/Routes")),
                |(route, at)| ((*route).clone(), at.clone()),
            );
            let otherwise = critical(format!(
                "{own} does not reach {other}: `terraform apply` in terraform/mesh-aws"
            ))
            .trap(8);
            look.that(
                found["State"] == "active",
                &subject,
                format!("a route to {network} of {other}"),
                shown(&found),
                place(tables, &at),
                otherwise,
            );
        }
        for (route, at) in list.iter().filter(|(route, _)| route["State"] == "blackhole") {
            let destination = text(route, "/DestinationCidrBlock");
            let otherwise = warning("what it led to is gone: packets are dropped without a word");
            look.that(
                false,
                &subject,
                "no dead routes",
                format!("{destination} leads nowhere"),
                place(tables, at),
                otherwise,
            );
        }
    }
}

fn tag<'v>(value: &'v Value, key: &str) -> &'v str {
    let tags = value["Tags"].as_array().map(Vec::as_slice).unwrap_or_default();
    tags.iter()
        .find(|tag| tag["Key"] == key)
        .map_or("", |tag| text(tag, "/Value"))
}

fn node_role(look: &mut Look<'_>, policies: &Answer<'_>) {
    for (policy, pointer) in items(policies, "/AttachedPolicies") {
        let name = text(policy, "/PolicyName");
        let otherwise = warning(format!(
            "every pod in the host's network may change interfaces: `aws iam detach-role-policy` for {name}"
        ))
        .trap(5);
        look.that(
            name != "AmazonEKS_CNI_Policy",
            "role of the nodes",
            "no CNI policy",
            name,
            place(policies, &pointer),
            otherwise,
        );
    }
}

fn operator(look: &mut Look<'_>, associations: &Answer<'_>) {
    let found = items(associations, "/associations");
    let there = found
        .iter()
        .any(|(one, _)| one["serviceAccount"] == "thalweg-operator");
    let otherwise =
        critical("the operator may not ask EC2 for addresses: `terraform apply` makes the association")
            .trap(5);
    look.that(
        there,
        "permissions of the operator",
        "a Pod Identity association",
        "none",
        place(associations, "/associations"),
        otherwise,
    );
}

fn node_group(look: &mut Look<'_>, answer: &Answer<'_>, group: &NodeGroup) {
    let subject = format!("node group {}", group.name);
    let taints = items(answer, "/nodegroup/taints");
    let good = taints.iter().any(|(taint, _)| taint["key"] == TAINT);
    let found = answer.value.pointer("/nodegroup/taints").unwrap_or(&Value::Null);
    let otherwise = critical("pods start on new nodes before the agent is ready: put the taint back").trap(3);
    look.that(
        good,
        &subject,
        format!("taint {TAINT}"),
        shown(found),
        place(answer, "/nodegroup/taints"),
        otherwise,
    );
    let types = warning("other types hold other numbers of pods: correct the group or the plan").trap(4);
    look.expect(
        answer,
        "/nodegroup/instanceTypes",
        &subject,
        json!(group.instance_types),
        types,
    );
    let scaling = note("somebody changed the limits by hand: correct the group or the plan");
    look.expect(
        answer,
        "/nodegroup/scalingConfig/maxSize",
        &format!("{subject}, most nodes"),
        group.max,
        scaling.clone(),
    );
    look.expect(
        answer,
        "/nodegroup/scalingConfig/minSize",
        &format!("{subject}, fewest nodes"),
        group.min,
        scaling,
    );
    let health = items(answer, "/nodegroup/health/issues");
    let issues: Vec<&str> = health.iter().map(|(issue, _)| text(issue, "/code")).collect();
    let otherwise =
        critical("`aws eks describe-nodegroup` says more; without a ready agent nodes do not become ready");
    look.that(
        issues.is_empty(),
        &subject,
        "no health issues",
        issues.join(", "),
        place(answer, "/nodegroup/health/issues"),
        otherwise,
    );
}
