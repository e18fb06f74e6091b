// SPDX-License-Identifier: Apache-2.0
//! Whether an upgrade will survive: of Kubernetes, of Thalweg, of the nodes' images. Gates are computed from facts, data with sources,
//! and canaries that loaded the real programs; they end in a runbook whose every step has a gate and an undo.

pub mod canary;
mod gates;
mod runbook;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::facts::Facts;
use crate::version::Version;
use canary::Canary;

pub use runbook::{Step, markdown};

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The version of Kubernetes to go to.
    pub to_kubernetes: Version,
    /// The version of Thalweg to go to, if it changes too.
    pub to_version: Option<String>,
    /// The version of this program, whose programs the canaries loaded.
    pub program_version: String,
    /// The operating system of the new nodes' image (`ID` of os-release), if it differs from the present ones'.
    pub os: Option<String>,
}

/// What a gate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing stands in the way.
    Pass,
    /// Go on with care.
    Warn,
    /// It could not be found out.
    Unknown,
    /// Do not go on.
    Block,
}

/// A question that the upgrade depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gate {
    /// Its name.
    pub id: &'static str,
    /// The trap that it looks at.
    pub trap: u8,
    /// What is asked.
    pub title: &'static str,
    /// The answer.
    pub verdict: Verdict,
    /// What it rests on.
    pub evidence: String,
    /// What to do; empty when nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mend: String,
}

/// All gates, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Assessment {
    /// What was looked at.
    pub title: String,
    /// The cluster's version now; empty when unknown.
    pub from_kubernetes: String,
    /// The wanted one.
    pub to_kubernetes: String,
    /// The worst of the gates.
    pub verdict: Verdict,
    /// The gates.
    pub gates: Vec<Gate>,
    /// What to do, step by step.
    pub runbook: Vec<Step>,
}

/// What became of the canary of each node: its report, or why there is none.
pub type Canaries = BTreeMap<String, Result<Canary, String>>;

/// Computes the gates and the runbook.
#[must_use]
pub fn assess(facts: &Facts, request: &Request, canaries: &Canaries) -> Assessment {
    let gates = gates::all(facts, request, canaries);
    Assessment {
        title: facts.title.clone(),
        from_kubernetes: facts.cluster.version.known().cloned().unwrap_or_default(),
        to_kubernetes: request.to_kubernetes.to_string(),
        verdict: gates
            .iter()
            .map(|gate| gate.verdict)
            .max()
            .unwrap_or(Verdict::Unknown),
        runbook: runbook::steps(facts, request, &gates),
        gates,
    }
}

impl Verdict {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Unknown => "unknown",
            Self::Block => "block",
        }
    }
}
