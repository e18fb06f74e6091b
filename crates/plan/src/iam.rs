// SPDX-License-Identifier: Apache-2.0
//! What Thalweg asks of AWS IAM: the least policy of a mode, trust policies for its role, and whether given policies
//! suffice.
//!
//! The needed calls are one table ([`needs`]); the generated policy ([`policy`]) and the check ([`check`]) both come from it.
//! The evaluator ([`evaluate`]) knows identity policies; what it cannot decide it calls unknown.

mod check;
mod condition;
mod document;
mod evaluate;
mod generate;
mod glob;
mod needs;
mod trust;

pub use check::{Finding, Problem, Report, Superfluous, check};
pub use condition::{Condition, Context, Truth};
pub use document::{Effect, Patterns, Policy, PolicyError, Statement};
pub use evaluate::{Call, Decision, evaluate};
pub use generate::{Generated, policy};
pub use needs::{Need, Target, needs};
pub use trust::{Irsa, PodIdentity, TrustError, irsa, pod_identity};

use crate::capacity::Mode;

/// Tags that the operator gives each interface that it makes; the policy's conditions rest on them.
pub const CLUSTER_TAG: &str = "thalweg.io/cluster";
/// Says that Thalweg owns an interface.
pub const MANAGED_TAG: &str = "thalweg.io/managed";

/// Whose permissions are asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// How pods get addresses.
    pub mode: Mode,
    /// The cluster's name, as in the tags of its machines and interfaces.
    pub cluster: String,
    /// `aws`, `aws-cn` or `aws-us-gov`.
    pub partition: String,
    /// `*` for any.
    pub region: String,
    /// Twelve digits, or `*` for any.
    pub account: String,
    /// `vpc-…`; without it, any VPC.
    pub vpc: Option<String>,
    /// Whether addresses that pods have left, and interfaces that are empty, are given back.
    pub release: bool,
    /// Whether pods have IPv6 addresses.
    pub ipv6: bool,
    /// Whether security groups of new interfaces are found by their tags, not taken over from the first interface.
    pub select_groups: bool,
    /// Whether pods use the first interface, too, which the launch template made.
    pub first_interface: bool,
    /// Whether conditions and ARNs narrow the policy down. Without, it names actions only.
    pub scoped: bool,
}

impl Scope {
    /// The usual scope: releases addresses, leaves the first interface alone, narrow.
    #[must_use]
    pub fn new(mode: Mode, cluster: &str) -> Self {
        Self {
            mode,
            cluster: cluster.to_owned(),
            partition: "aws".to_owned(),
            region: "*".to_owned(),
            account: "*".to_owned(),
            vpc: None,
            release: true,
            ipv6: false,
            select_groups: false,
            first_interface: false,
            scoped: true,
        }
    }

    fn arn(&self, kind: &str, id: &str) -> String {
        format!(
            "arn:{}:ec2:{}:{}:{kind}/{id}",
            self.partition, self.region, self.account
        )
    }
}

#[cfg(test)]
mod tests;
