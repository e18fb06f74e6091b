// SPDX-License-Identifier: Apache-2.0
//! Which mode fits a cluster, why, what its limits are and what is given up. Says so when the cloud's own network is the
//! better choice.
//!
//! A decision table: [`rules::RULES`] from the top, the first that matches decides; what was not answered is assumed and
//! listed. Start with [`advise`]; [`detect`] makes answers out of what a running cluster shows.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::capacity::{Mode, Network, Request, capacity};
use crate::cloud::Cloud;
use crate::data;
use crate::instance::{InstanceTable, PrefixSupport};

mod choices;
mod detect;
mod questions;
pub mod rules;

pub use choices::{Choice, Facts};
pub use detect::{Detected, Evidence, NodeFacts, Observed, detect};
pub use questions::Question;

/// What is known of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    /// Whose machines.
    pub cloud: Cloud,
    /// Answers; a question that is not in here was not answered.
    pub yes_no: BTreeMap<Question, bool>,
    /// Pods that are to run on a node.
    pub pods_per_node: Option<u32>,
    /// EC2 instance types of the nodes.
    pub instance_types: Vec<String>,
}

impl Answers {
    /// Nothing but the cloud.
    #[must_use]
    pub fn new(cloud: Cloud) -> Self {
        Self {
            cloud,
            yes_no: BTreeMap::new(),
            pods_per_node: None,
            instance_types: Vec::new(),
        }
    }

    /// Adds an answer.
    #[must_use]
    pub fn with(mut self, question: Question, answer: bool) -> Self {
        self.yes_no.insert(question, answer);
        self
    }

    /// The answer, or what is assumed without one.
    #[must_use]
    pub fn get(&self, question: Question) -> bool {
        self.yes_no
            .get(&question)
            .copied()
            .unwrap_or_else(|| question.assumed())
    }
}

/// Answers that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdviseError {
    /// A question that does not exist.
    #[error("there is no question `{name}`{}; `thalweg advise --list` shows all", data::suggestion(.nearest))]
    UnknownQuestion {
        /// What was given.
        name: String,
        /// Questions like it.
        nearest: Vec<String>,
    },
    /// A question of another cloud.
    #[error("question `{}` is not about {cloud}; leave it out", .question.name())]
    OtherCloud {
        /// The question.
        question: Question,
        /// The cloud.
        cloud: Cloud,
    },
    /// Two answers of which one must be wrong.
    #[error("{0}")]
    Contradiction(&'static str),
    /// What was counted and what was said.
    #[error("many-pods-per-node is answered with no, but {0}; leave the answer out")]
    Dense(String),
    /// Types of EC2 elsewhere.
    #[error("instance types are those of EC2, and the machines are of {0}; leave them out")]
    NoTypes(Cloud),
    /// An instance type that nobody knows.
    #[error(transparent)]
    UnknownType(#[from] crate::instance::UnknownType),
}

/// A choice that was not taken, and the rule that would have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Alternative {
    /// The choice.
    pub choice: Choice,
    /// When it would have been taken.
    pub when: &'static str,
}

/// The advice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// What to take.
    pub choice: Choice,
    /// In a sentence.
    pub title: &'static str,
    /// The rule that decided.
    pub rule: &'static str,
    /// Why.
    pub reasons: Vec<String>,
    /// What holds it back.
    pub limits: Vec<&'static str>,
    /// What the others have and this has not.
    pub gives_up: Vec<&'static str>,
    /// Whether this version of Thalweg does it.
    pub in_this_version: &'static str,
    /// What was not answered, and is taken to be so.
    pub assumptions: Vec<String>,
    /// What else there is.
    pub alternatives: Vec<Alternative>,
    /// What to do next.
    pub next: Vec<&'static str>,
}

/// Advises.
///
/// # Errors
/// Answers that contradict each other, are of another cloud, or name an unknown instance type.
pub fn advise(answers: &Answers, table: &InstanceTable) -> Result<Advice, AdviseError> {
    consistent(answers)?;
    let mut answers = answers.clone();
    let mut reasons = Vec::new();
    if let Some((dense, reason)) = density(&answers, table)? {
        let said = *answers.yes_no.entry(Question::ManyPodsPerNode).or_insert(dense);
        if dense && !said {
            return Err(AdviseError::Dense(reason));
        }
        reasons.push(reason);
    }
    let rule = rules::decide(&answers);
    reasons.insert(0, rule.because.to_owned());
    if rule.choice == Choice::EniPrefix {
        reasons.extend(without_prefixes(&answers, table)?);
    }
    let facts = rule.choice.facts();
    let asked = Question::ALL
        .into_iter()
        .filter(|question| question.is_about(answers.cloud));
    let open = asked.filter(|question| !answers.yes_no.contains_key(question));
    let assumptions = open.map(|question| {
        format!(
            "{}: {}",
            question.name(),
            if question.assumed() { "yes" } else { "no" }
        )
    });
    Ok(Advice {
        choice: rule.choice,
        title: facts.title,
        rule: rule.id,
        reasons,
        limits: facts.limits.to_vec(),
        gives_up: facts.gives_up.to_vec(),
        in_this_version: facts.in_this_version,
        assumptions: assumptions.collect(),
        alternatives: alternatives(answers.cloud, rule.choice),
        next: facts.next.to_vec(),
    })
}

fn consistent(answers: &Answers) -> Result<(), AdviseError> {
    for question in answers.yes_no.keys() {
        if !question.is_about(answers.cloud) {
            return Err(AdviseError::OtherCloud {
                question: *question,
                cloud: answers.cloud,
            });
        }
    }
    if answers.cloud != Cloud::Aws && !answers.instance_types.is_empty() {
        return Err(AdviseError::NoTypes(answers.cloud));
    }
    let said = |question| answers.yes_no.get(&question).copied();
    if said(Question::AutoMode) == Some(true) && said(Question::HybridNodes) == Some(true) {
        return Err(AdviseError::Contradiction(
            "auto-mode and hybrid-nodes are both yes: AWS runs no machines of yours in Auto Mode; ask for each part of the cluster alone",
        ));
    }
    if said(Question::OwnAddresses) == Some(true) && said(Question::VendorSupport) == Some(true) {
        return Err(AdviseError::Contradiction(
            "own-addresses and vendor-support are both yes: Microsoft supports no network that it did not install; decide which matters more",
        ));
    }
    Ok(())
}

/// Whether the pods wanted on a node are more than ENI mode has addresses for, on any of the types.
fn density(answers: &Answers, table: &InstanceTable) -> Result<Option<(bool, String)>, AdviseError> {
    let mut least: Option<(u32, &str)> = None;
    for name in &answers.instance_types {
        let instance = table.get(name)?;
        let slots = capacity(Some(instance), &Request::new(Mode::Eni, Network::Thalweg))
            .map_or(0, |answer| answer.slots);
        if least.is_none_or(|(fewest, _)| slots < fewest) {
            least = Some((slots, name));
        }
    }
    let (Some(pods), Some((slots, name))) = (answers.pods_per_node, least) else {
        return Ok(None);
    };
    let dense = pods > slots;
    let is = if dense { "is more than" } else { "fits into" };
    Ok(Some((
        dense,
        format!("{pods} pods on a node {is} the {slots} addresses of {name} (ENIs x (addresses - 1))"),
    )))
}

/// Types that the advice of prefixes does not hold for.
fn without_prefixes(answers: &Answers, table: &InstanceTable) -> Result<Option<String>, AdviseError> {
    let mut names = Vec::new();
    for name in &answers.instance_types {
        if table.get(name)?.prefix_support() != PrefixSupport::Yes {
            names.push(name.as_str());
        }
    }
    Ok((!names.is_empty()).then(|| {
        format!(
            "it does not hold for {}, which is not known to run on Nitro and so has no prefixes: take other types",
            names.join(", ")
        )
    }))
}

fn alternatives(cloud: Cloud, taken: Choice) -> Vec<Alternative> {
    let mut found: Vec<Alternative> = Vec::new();
    for rule in rules::RULES.iter().filter(|rule| rule.clouds.contains(&cloud)) {
        if rule.choice != taken && !found.iter().any(|other| other.choice == rule.choice) {
            found.push(Alternative {
                choice: rule.choice,
                when: rule.because,
            });
        }
    }
    found
}

#[cfg(test)]
mod tests;
