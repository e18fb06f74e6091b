// SPDX-License-Identifier: Apache-2.0
//! EKS without the VPC CNI and without kube-proxy.

use ::plan::cloud::partition;
use ::plan::iam::{Scope, policy};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::graph::{Provider, Resource, Stack, of};
use super::{Context, TAINT};
use crate::address::{Role, Subnet};
use crate::catalogue::is_graviton;
use crate::file::{Egress, Identity, Mode, NodeGroup};

pub(crate) static AWS: Provider = Provider {
    terraform: "aws",
    source: "hashicorp/aws",
    version: "~> 6.0",
    pulumi: "aws",
    tokens: &[
        ("aws_ec2_subnet_cidr_reservation", "aws:ec2:SubnetCidrReservation"),
        ("aws_ec2_transit_gateway", "aws:ec2transitgateway:TransitGateway"),
        (
            "aws_ec2_transit_gateway_peering_attachment",
            "aws:ec2transitgateway:PeeringAttachment",
        ),
        (
            "aws_ec2_transit_gateway_peering_attachment_accepter",
            "aws:ec2transitgateway:PeeringAttachmentAccepter",
        ),
        ("aws_ec2_transit_gateway_route", "aws:ec2transitgateway:Route"),
        (
            "aws_ec2_transit_gateway_vpc_attachment",
            "aws:ec2transitgateway:VpcAttachment",
        ),
        ("aws_eip", "aws:ec2:Eip"),
        ("aws_eks_addon", "aws:eks:Addon"),
        ("aws_eks_cluster", "aws:eks:Cluster"),
        ("aws_eks_node_group", "aws:eks:NodeGroup"),
        (
            "aws_eks_pod_identity_association",
            "aws:eks:PodIdentityAssociation",
        ),
        ("aws_iam_openid_connect_provider", "aws:iam:OpenIdConnectProvider"),
        ("aws_iam_role", "aws:iam:Role"),
        ("aws_iam_role_policy", "aws:iam:RolePolicy"),
        ("aws_iam_role_policy_attachment", "aws:iam:RolePolicyAttachment"),
        ("aws_internet_gateway", "aws:ec2:InternetGateway"),
        ("aws_launch_template", "aws:ec2:LaunchTemplate"),
        ("aws_nat_gateway", "aws:ec2:NatGateway"),
        ("aws_route", "aws:ec2:Route"),
        ("aws_route_table", "aws:ec2:RouteTable"),
        ("aws_route_table_association", "aws:ec2:RouteTableAssociation"),
        ("aws_subnet", "aws:ec2:Subnet"),
        ("aws_vpc", "aws:ec2:Vpc"),
        ("aws_vpc_peering_connection", "aws:ec2:VpcPeeringConnection"),
        (
            "aws_vpc_peering_connection_accepter",
            "aws:ec2:VpcPeeringConnectionAccepter",
        ),
        (
            "aws_vpc_security_group_ingress_rule",
            "aws:vpc:SecurityGroupIngressRule",
        ),
        ("data.aws_availability_zones", "aws:index:getAvailabilityZones"),
        ("data.aws_eks_cluster", "aws:eks:getCluster"),
        ("data.aws_route_table", "aws:ec2:getRouteTable"),
        ("data.aws_subnet", "aws:ec2:getSubnet"),
        ("data.aws_vpc", "aws:ec2:getVpc"),
    ],
    renamed: &[
        ("aws_eks_node_group.taint", "taints"),
        ("aws_eks_cluster.identity", "identities"),
        ("aws_eks_cluster.oidc", "oidcs"),
        ("aws_iam_openid_connect_provider.client_id_list", "clientIdLists"),
        ("aws_route_table.filter", "filters"),
        ("aws_subnet.filter", "filters"),
        ("aws_vpc.filter", "filters"),
    ],
};

/// Where the operator of ENI mode runs.
pub(crate) const OPERATOR_NAMESPACE: &str = "kube-system";
/// Its service account.
pub(crate) const OPERATOR_ACCOUNT: &str = "thalweg-operator";

/// Tags that the mesh finds networks by.
pub(crate) const CLUSTER_TAG: &str = "thalweg.io/cluster";
/// Which part of the network it is.
pub(crate) const ROLE_TAG: &str = "thalweg.io/role";

pub(crate) fn stack(context: &Context<'_>) -> Stack {
    let cluster = context.cluster;
    let mut stack = Stack::new(&context.full_name(), &AWS, json!({"region": cluster.region}));
    network(&mut stack, context);
    roles(&mut stack, context);
    control_plane(&mut stack, context);
    nodes(&mut stack, context);
    addons(&mut stack, context);
    if let Some(policy) = operator_policy(context) {
        operator(&mut stack, context, &policy);
    }
    stack.outputs = vec![
        ("cluster_endpoint", of("aws_eks_cluster", "this", "endpoint")),
        ("vpc_id", of("aws_vpc", "this", "id")),
    ];
    stack
}

fn tags(context: &Context<'_>, part: &str) -> Value {
    json!({
        "Name": format!("{}-{part}", context.full_name()),
        CLUSTER_TAG: context.cluster.name,
        "thalweg.io/platform": context.platform.name,
    })
}

fn role_tags(context: &Context<'_>, part: &str, role: &str) -> Value {
    let mut tags = tags(context, part);
    tags[ROLE_TAG] = json!(role);
    tags
}

fn network(stack: &mut Stack, context: &Context<'_>) {
    let addresses = context.addresses;
    stack.add(
        "aws_vpc",
        "this",
        json!({
            "cidr_block": addresses.network.to_string(),
            "enable_dns_hostnames": true,
            "enable_dns_support": true,
            "tags": tags(context, "vpc"),
        }),
    );
    if addresses.subnets.iter().any(|subnet| subnet.zone_name.is_none()) {
        stack.query(
            "aws_availability_zones",
            "available",
            json!({"state": "available"}),
        );
    }
    stack.add(
        "aws_internet_gateway",
        "this",
        json!({
            "vpc_id": of("aws_vpc", "this", "id"),
            "tags": tags(context, "internet"),
        }),
    );
    for subnet in &addresses.subnets {
        add_subnet(stack, context, subnet);
    }
    routes(stack, context);
}

/// `nodes-0`, `public-2`, …
fn subnet_name(subnet: &Subnet) -> String {
    let role = match subnet.role {
        Role::Nodes => "nodes",
        Role::Public => "public",
        Role::Transit => "transit",
        Role::Firewall => "firewall",
        Role::ControlPlane => "control-plane",
    };
    format!("{role}-{}", subnet.zone.unwrap_or(0))
}

fn add_subnet(stack: &mut Stack, context: &Context<'_>, subnet: &Subnet) {
    let name = subnet_name(subnet);
    let zone = subnet.zone_name.clone().unwrap_or_else(|| {
        format!(
            "${{data.aws_availability_zones.available.names[{}]}}",
            subnet.zone.unwrap_or(0)
        )
    });
    let mut tags = role_tags(context, &name, &name);
    match subnet.role {
        Role::Public => tags["kubernetes.io/role/elb"] = json!("1"),
        Role::Nodes => tags["kubernetes.io/role/internal-elb"] = json!("1"),
        Role::Transit | Role::Firewall | Role::ControlPlane => {}
    }
    stack.add(
        "aws_subnet",
        name.clone(),
        json!({
            "vpc_id": of("aws_vpc", "this", "id"),
            "cidr_block": subnet.cidr.to_string(),
            "availability_zone": zone,
            "map_public_ip_on_launch": false,
            "tags": tags,
        }),
    );
    if context.cluster.mode == Mode::EniPrefix
        && subnet.role == Role::Nodes
        && let Ok(mut halves) = subnet.cidr.subnets(subnet.cidr.prefix_len() + 1)
        && let Some(upper) = halves.nth(1)
    {
        // Single addresses that are scattered over a subnet leave no aligned /28 free; a reservation keeps them out.
        stack.add(
            "aws_ec2_subnet_cidr_reservation",
            name.clone(),
            json!({
                "subnet_id": of("aws_subnet", &name, "id"),
                "cidr_block": upper.to_string(),
                "reservation_type": "prefix",
                "description": "/28 prefixes of pods",
            }),
        );
    }
}

fn routes(stack: &mut Stack, context: &Context<'_>) {
    let vpc = of("aws_vpc", "this", "id");
    stack.add(
        "aws_route_table",
        "public",
        json!({"vpc_id": vpc, "tags": role_tags(context, "public", "public")}),
    );
    stack.add(
        "aws_route",
        "public-default",
        json!({
            "route_table_id": of("aws_route_table", "public", "id"),
            "destination_cidr_block": "0.0.0.0/0",
            "gateway_id": of("aws_internet_gateway", "this", "id"),
        }),
    );
    let per_zone = context.cluster.egress == Egress::NatPerZone;
    for subnet in &context.addresses.subnets {
        let (name, zone) = (subnet_name(subnet), subnet.zone.unwrap_or(0));
        match subnet.role {
            Role::Public => {
                associate(stack, &name, "public");
                if per_zone || zone == 0 {
                    nat(stack, context, &name, zone);
                }
            }
            Role::Nodes => {
                let gateway = format!("zone-{}", if per_zone { zone } else { 0 });
                let tags = role_tags(context, &name, &name);
                stack.add(
                    "aws_route_table",
                    name.clone(),
                    json!({"vpc_id": vpc, "tags": tags}),
                );
                stack.add(
                    "aws_route",
                    format!("{name}-default"),
                    json!({
                        "route_table_id": of("aws_route_table", &name, "id"),
                        "destination_cidr_block": "0.0.0.0/0",
                        "nat_gateway_id": of("aws_nat_gateway", &gateway, "id"),
                    }),
                );
                associate(stack, &name, &name);
            }
            Role::Transit | Role::Firewall | Role::ControlPlane => {}
        }
    }
}

fn associate(stack: &mut Stack, subnet: &str, table: &str) {
    stack.add(
        "aws_route_table_association",
        subnet,
        json!({
            "subnet_id": of("aws_subnet", subnet, "id"),
            "route_table_id": of("aws_route_table", table, "id"),
        }),
    );
}

fn nat(stack: &mut Stack, context: &Context<'_>, subnet: &str, zone: u32) {
    let name = format!("zone-{zone}");
    let part = format!("nat-{zone}");
    stack.add(
        "aws_eip",
        name.clone(),
        json!({"domain": "vpc", "tags": tags(context, &part)}),
    );
    let gateway = stack.add(
        "aws_nat_gateway",
        name.clone(),
        json!({
            "allocation_id": of("aws_eip", &name, "id"),
            "subnet_id": of("aws_subnet", subnet, "id"),
            "tags": tags(context, &part),
        }),
    );
    gateway.after = vec!["aws_internet_gateway.this".into()];
}

fn trust(service: &str, actions: &[&str]) -> String {
    json!({
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"Service": service}, "Action": actions}],
    })
    .to_string()
}

fn roles(stack: &mut Stack, context: &Context<'_>) {
    let full = context.full_name();
    stack.add(
        "aws_iam_role",
        "cluster",
        json!({
            "name": format!("{full}-cluster"),
            "assume_role_policy": trust("eks.amazonaws.com", &["sts:AssumeRole", "sts:TagSession"]),
            "tags": tags(context, "cluster"),
        }),
    );
    stack.add(
        "aws_iam_role",
        "node",
        json!({
            "name": format!("{full}-node"),
            "assume_role_policy": trust("ec2.amazonaws.com", &["sts:AssumeRole"]),
            "tags": tags(context, "node"),
        }),
    );
    // No AmazonEKS_CNI_Policy: nodes do not call EC2 for addresses; the operator does.
    let attached = [
        ("cluster", "cluster", "AmazonEKSClusterPolicy"),
        ("node-worker", "node", "AmazonEKSWorkerNodePolicy"),
        ("node-registry", "node", "AmazonEC2ContainerRegistryPullOnly"),
    ];
    for (name, role, policy) in attached {
        stack.add(
            "aws_iam_role_policy_attachment",
            name,
            json!({
                "role": of("aws_iam_role", role, "name"),
                "policy_arn": format!("arn:{}:iam::aws:policy/{policy}", partition(&context.cluster.region)),
            }),
        );
    }
}

fn node_subnets(context: &Context<'_>) -> Vec<String> {
    let subnets = context.addresses.of_role(Role::Nodes);
    subnets
        .map(|subnet| of("aws_subnet", &subnet_name(subnet), "id"))
        .collect()
}

fn control_plane(stack: &mut Stack, context: &Context<'_>) {
    let cluster = context.cluster;
    let resource = stack.add(
        "aws_eks_cluster",
        "this",
        json!({
            "name": context.full_name(),
            "role_arn": of("aws_iam_role", "cluster", "arn"),
            "version": cluster.kubernetes.to_string(),
            // Without this EKS installs the VPC CNI, kube-proxy and CoreDNS by itself, and nobody removes them.
            "bootstrap_self_managed_addons": false,
            "access_config": {
                "authentication_mode": "API",
                "bootstrap_cluster_creator_admin_permissions": true,
            },
            "kubernetes_network_config": {
                "ip_family": "ipv4",
                "service_ipv4_cidr": context.addresses.services.to_string(),
            },
            // STANDARD: at the end of standard support EKS upgrades by itself instead of charging for extended support.
            "upgrade_policy": {"support_type": "STANDARD"},
            "vpc_config": {
                "subnet_ids": node_subnets(context),
                "endpoint_private_access": true,
                "endpoint_public_access": !cluster.private,
            },
            "tags": tags(context, "cluster"),
        }),
    );
    resource.after = vec!["aws_iam_role_policy_attachment.cluster".into()];
    if cluster.identity == Identity::Irsa {
        stack.add(
            "aws_iam_openid_connect_provider",
            "this",
            json!({
                "url": of("aws_eks_cluster", "this", "identity[0].oidc[0].issuer"),
                "client_id_list": ["sts.amazonaws.com"],
                "tags": tags(context, "oidc"),
            }),
        );
    }
}

fn nodes(stack: &mut Stack, context: &Context<'_>) {
    for group in &context.cluster.node_groups {
        let mut template = json!({
            "name": format!("{}-{}", context.full_name(), group.name),
            // Pods in the host's network are one hop further from the metadata service than the node.
            "metadata_options": {"http_tokens": "required", "http_put_response_hop_limit": 2},
            "user_data": user_data(context, group),
            "tags": tags(context, &group.name),
        });
        if context.cluster.pods_in_network() {
            // The operator may change interfaces that say whose they are.
            let owned = json!({format!("kubernetes.io/cluster/{}", context.full_name()): "owned"});
            template["tag_specifications"] = json!([{"resource_type": "network-interface", "tags": owned}]);
        }
        stack.add("aws_launch_template", group.name.clone(), template);
        let resource = stack.add("aws_eks_node_group", group.name.clone(), json!({
            "cluster_name": of("aws_eks_cluster", "this", "name"),
            "node_group_name": group.name,
            "node_role_arn": of("aws_iam_role", "node", "arn"),
            "subnet_ids": node_subnets(context),
            "ami_type": ami(group),
            "instance_types": group.instance_types,
            "capacity_type": if group.spot { "SPOT" } else { "ON_DEMAND" },
            "launch_template": {
                "id": of("aws_launch_template", &group.name, "id"),
                "version": of("aws_launch_template", &group.name, "latest_version"),
            },
            "scaling_config": {"min_size": group.min, "max_size": group.max, "desired_size": group.desired},
            "taint": [{"key": TAINT, "value": "true", "effect": "NO_EXECUTE"}],
            "update_config": {"max_unavailable_percentage": 33},
            "tags": tags(context, &group.name),
        }));
        resource.after = vec![
            "aws_iam_role_policy_attachment.node_worker".into(),
            "aws_iam_role_policy_attachment.node_registry".into(),
        ];
    }
}

/// Amazon Linux 2023 for the processors of the types, which are all of one kind.
fn ami(group: &NodeGroup) -> &'static str {
    if group.instance_types.iter().any(|name| is_graviton(name)) {
        "AL2023_ARM_64_STANDARD"
    } else {
        "AL2023_x86_64_STANDARD"
    }
}

/// nodeadm computes max-pods for the VPC CNI; what ours can is said here.
fn user_data(context: &Context<'_>, group: &NodeGroup) -> String {
    let pods = crate::address::pods_of(context.cluster, group, context.catalogue)
        .unwrap_or(crate::address::PODS_PER_NODE);
    let config = format!(
        "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"//\"\n\n--//\nContent-Type: \
         application/node.eks.aws\n\napiVersion: node.eks.aws/v1alpha1\nkind: NodeConfig\nspec:\n  kubelet:\n    \
         config:\n      maxPods: {pods}\n\n--//--\n"
    );
    STANDARD.encode(config)
}

fn addons(stack: &mut Stack, context: &Context<'_>) {
    let cluster = context.cluster;
    // Node groups are made when their nodes are ready; in ENI mode those wait for the operator, and the operator for its
    // permissions: what runs in the host's network must not wait for node groups.
    if cluster.identity == Identity::PodIdentity {
        addon(stack, context, "eks-pod-identity-agent");
    }
    if !cluster.features.kube_proxy_replacement {
        addon(stack, context, "kube-proxy");
    }
    let groups = cluster.node_groups.iter();
    let groups = groups.map(|group| format!("aws_eks_node_group.{}", group.name.replace('-', "_")));
    addon(stack, context, "coredns").after = groups.collect();
}

fn addon<'s>(stack: &'s mut Stack, context: &Context<'_>, name: &str) -> &'s mut Resource {
    stack.add(
        "aws_eks_addon",
        name,
        json!({
            "cluster_name": of("aws_eks_cluster", "this", "name"),
            "addon_name": name,
            "tags": tags(context, name),
        }),
    )
}

fn operator(stack: &mut Stack, context: &Context<'_>, policy: &str) {
    let cluster = context.cluster;
    let trust = match cluster.identity {
        Identity::PodIdentity => trust("pods.eks.amazonaws.com", &["sts:AssumeRole", "sts:TagSession"]),
        Identity::Irsa => irsa_trust(),
    };
    stack.add(
        "aws_iam_role",
        "operator",
        json!({
            "name": format!("{}-operator", context.full_name()),
            "assume_role_policy": trust,
            "tags": tags(context, "operator"),
        }),
    );
    stack.add(
        "aws_iam_role_policy",
        "operator",
        json!({
            "name": "addresses",
            "role": of("aws_iam_role", "operator", "name"),
            "policy": policy,
        }),
    );
    if cluster.identity == Identity::PodIdentity {
        stack.add(
            "aws_eks_pod_identity_association",
            "operator",
            json!({
                "cluster_name": of("aws_eks_cluster", "this", "name"),
                "namespace": OPERATOR_NAMESPACE,
                "service_account": OPERATOR_ACCOUNT,
                "role_arn": of("aws_iam_role", "operator", "arn"),
            }),
        );
    }
}

/// The provider's `url` has no scheme, as the names of the conditions want it.
fn irsa_trust() -> String {
    let issuer = of("aws_iam_openid_connect_provider", "this", "url");
    json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Allow",
            "Principal": {"Federated": of("aws_iam_openid_connect_provider", "this", "arn")},
            "Action": ["sts:AssumeRoleWithWebIdentity"],
            "Condition": {"StringEquals": {
                format!("{issuer}:aud"): "sts.amazonaws.com",
                format!("{issuer}:sub"): format!("system:serviceaccount:{OPERATOR_NAMESPACE}:{OPERATOR_ACCOUNT}"),
            }},
        }],
    })
    .to_string()
}

/// What the operator of ENI mode asks of EC2, as `thalweg iam policy` has it, and on this cluster's parts only. Nodes' first interfaces
/// have addresses of pods, too.
fn operator_policy(context: &Context<'_>) -> Option<String> {
    let cluster = context.cluster;
    let mode = match cluster.mode {
        Mode::Eni => ::plan::Mode::Eni,
        Mode::EniPrefix => ::plan::Mode::EniPrefix,
        Mode::Overlay | Mode::Delegated | Mode::PodCidr => return None,
    };
    let scope = Scope {
        partition: partition(&cluster.region).to_owned(),
        region: cluster.region.clone(),
        vpc: Some(of("aws_vpc", "this", "id")),
        first_interface: true,
        ..Scope::new(mode, &context.full_name())
    };
    policy(&scope).document.map(|document| document.to_string())
}
