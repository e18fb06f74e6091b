// SPDX-License-Identifier: Apache-2.0
//! Migrations as steps, each with the command, the check that it worked, and the way back.
//!
//! Nothing is run: the plan is for people, or for a program that reads its JSON. Durations are given where a setting
//! decides them (a DNS record's lifetime); else they are unknown, and said to be.

mod aks_to_eks;
mod markdown;
#[cfg(test)]
mod tests;
mod vpc_cni;

use serde::Serialize;

use crate::address::Addresses;
use crate::catalogue::Catalogue;
use crate::file::{Cloud, Platform};
use crate::render::{Context, Fleet};

pub use markdown::markdown;

/// A migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Runbook {
    /// What it is called.
    pub title: String,
    /// The cluster that is left, or changed.
    pub from: String,
    /// The cluster that takes over; the same where it is changed in place.
    pub to: String,
    /// What has to be so before it begins.
    pub before: Vec<String>,
    /// The steps in their order.
    pub steps: Vec<Step>,
    /// What does not come along.
    pub lost: Vec<String>,
}

/// A step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Its place, from 1.
    pub number: usize,
    /// What it does.
    pub title: String,
    /// Shell commands.
    pub command: String,
    /// A command that fails as long as the step is not done.
    pub check: String,
    /// How to take it back; commands.
    pub undo: String,
    /// How long it takes, where known.
    pub duration: Duration,
    /// What users notice of it.
    pub impact: String,
    /// Whether until here everything can be taken back without loss, and after it not.
    pub point_of_no_return: bool,
}

/// How long a step takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Duration {
    /// By a setting.
    Known {
        /// Seconds at least.
        seconds: u32,
        /// Which setting.
        because: String,
    },
    /// It depends on what nobody here knows.
    Unknown {
        /// On what.
        depends: &'static str,
    },
}

/// Which migration.
#[derive(Clone, Debug)]
pub enum Kind<'a> {
    /// From a cluster of AKS to one of EKS, beside each other.
    AksToEks {
        /// The AKS cluster of the file.
        from: &'a str,
        /// The EKS cluster of the file.
        to: &'a str,
    },
    /// On one EKS cluster from the VPC CNI to Thalweg, node by node.
    VpcCni {
        /// The EKS cluster of the file.
        cluster: &'a str,
    },
}

/// What the user knows and the file does not.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The DNS name that users go to.
    pub host: &'a str,
    /// The lifetime of its record, in seconds.
    pub dns_ttl: u32,
    /// The bucket for backups.
    pub bucket: &'a str,
}

/// A migration that cannot be planned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MigrateError {
    /// The file has no such cluster.
    #[error("the platform file has no cluster `{name}`{}; it has {}", .near.as_ref().map(|near| format!(" (did you mean `{near}`?)")).unwrap_or_default(), .known.join(", "))]
    NoCluster {
        /// What was asked for.
        name: String,
        /// The nearest.
        near: Option<String>,
        /// Those that there are.
        known: Vec<String>,
    },
    /// The cluster is on another cloud.
    #[error("cluster `{name}` is on {found}, and this migration is for {wanted}; name another cluster")]
    OtherCloud {
        /// The cluster.
        name: String,
        /// Where it is.
        found: Cloud,
        /// Where it would have to be.
        wanted: Cloud,
    },
    /// A lifetime that no record has.
    #[error("a DNS record cannot live {0} seconds; give 1 to 604800")]
    Ttl(u32),
    /// A name that no shell command can hold safely.
    #[error("`{0}` is not a plain name; use letters, digits, '.', '-' and '_'")]
    Name(String),
}

/// Plans a migration.
///
/// # Errors
/// A cluster that is not there or on another cloud, or facts that cannot be.
pub fn migrate(
    platform: &Platform,
    addresses: &Addresses,
    catalogue: &Catalogue,
    kind: &Kind<'_>,
    facts: &Facts<'_>,
) -> Result<Runbook, MigrateError> {
    if !(1..=604_800).contains(&facts.dns_ttl) {
        return Err(MigrateError::Ttl(facts.dns_ttl));
    }
    for name in [facts.host, facts.bucket] {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if name.is_empty() || name.starts_with('-') || !name.bytes().all(plain) {
            return Err(MigrateError::Name(name.to_owned()));
        }
    }
    let fleet = Fleet {
        platform,
        addresses,
        catalogue,
    };
    match kind {
        Kind::AksToEks { from, to } => {
            let (from, to) = (find(&fleet, from, Cloud::Azure)?, find(&fleet, to, Cloud::Aws)?);
            Ok(aks_to_eks::plan(&from, &to, facts))
        }
        Kind::VpcCni { cluster } => Ok(vpc_cni::plan(&find(&fleet, cluster, Cloud::Aws)?, facts)),
    }
}

fn find<'a>(fleet: &Fleet<'a>, name: &str, wanted: Cloud) -> Result<Context<'a>, MigrateError> {
    let known: Vec<&str> = fleet
        .members()
        .map(|(cluster, _)| cluster.name.as_str())
        .collect();
    let Some(context) = fleet.contexts().find(|context| context.cluster.name == name) else {
        return Err(MigrateError::NoCluster {
            name: name.to_owned(),
            near: crate::file::nearest(name, &known).map(str::to_owned),
            known: known.into_iter().map(str::to_owned).collect(),
        });
    };
    if context.cluster.cloud != wanted {
        return Err(MigrateError::OtherCloud {
            name: name.to_owned(),
            found: context.cluster.cloud,
            wanted,
        });
    }
    Ok(context)
}

/// A step in the making; `number` comes when all are there.
pub(crate) struct Draft {
    pub(crate) title: &'static str,
    pub(crate) command: String,
    pub(crate) check: String,
    pub(crate) undo: String,
    pub(crate) duration: Duration,
    pub(crate) impact: &'static str,
}

pub(crate) fn numbered(drafts: Vec<Draft>, last_safe: &str) -> Vec<Step> {
    drafts
        .into_iter()
        .enumerate()
        .map(|(index, draft)| Step {
            number: index + 1,
            point_of_no_return: draft.title == last_safe,
            title: draft.title.to_owned(),
            command: draft.command,
            check: draft.check,
            undo: draft.undo,
            duration: draft.duration,
            impact: draft.impact.to_owned(),
        })
        .collect()
}

pub(crate) fn unknown(depends: &'static str) -> Duration {
    Duration::Unknown { depends }
}
