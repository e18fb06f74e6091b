// SPDX-License-Identifier: Apache-2.0
//! What is there against what is planned, from recorded answers of the clouds' tools and of the Kubernetes API.
//!
//! It only reads. What was not recorded, was denied or is cut short is said to be unknown; it is never taken for good.

mod aws;
mod azure;
mod commands;
mod gcp;
mod kubernetes;
mod look;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::address::Addresses;
use crate::catalogue::Catalogue;
use crate::file::{Cloud, Platform};
use crate::render::Fleet;

pub use commands::{Recording, recordings};

/// Recorded answers by path, such as `prod-eu/aws/cluster.json`.
#[derive(Clone, Debug, Default)]
pub struct State {
    answers: BTreeMap<String, Answered>,
}

#[derive(Clone, Debug)]
enum Answered {
    Json(Value),
    Useless(String),
}

/// How bad a deviation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Pods lose or never get their network.
    Critical,
    /// It will hurt: at the next upgrade, at the next node, in an audit.
    Warning,
    /// It is different, and works.
    Note,
}

/// Something that is not as planned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Deviation {
    /// The cluster.
    pub cluster: String,
    /// What it is about, such as `subnet nodes-0`.
    pub subject: String,
    /// What is planned.
    pub planned: String,
    /// What was found.
    pub found: String,
    /// Where: file of the recording and the place in it.
    pub evidence: String,
    /// How bad.
    pub severity: Severity,
    /// Which of the ten traps it is, if one.
    pub trap: Option<u8>,
    /// What to do.
    pub remedy: String,
}

/// Something that could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unknown {
    /// The cluster.
    pub cluster: String,
    /// The file of the recording.
    pub file: String,
    /// Why.
    pub reason: String,
}

/// What came out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The worst first, then by cluster.
    pub deviations: Vec<Deviation>,
    /// What is not known.
    pub unknown: Vec<Unknown>,
    /// How many comparisons were made.
    pub compared: usize,
}

/// The largest answer that is read.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;

impl State {
    /// Adds an answer. A text that is no JSON is what a tool says that was denied or throttled: kept as the reason.
    pub fn add(&mut self, path: &str, text: &str) {
        let answer = if text.len() > ANSWER_BYTES_MAX {
            Answered::Useless(format!(
                "the answer has {} bytes, {ANSWER_BYTES_MAX} are the limit",
                text.len()
            ))
        } else if text.trim().is_empty() {
            Answered::Useless("the answer is empty".into())
        } else {
            match serde_json::from_str::<Value>(text) {
                Ok(value) => Self::whole(value),
                Err(_) => Answered::Useless(format!("the answer is no JSON: {}", first_line(text))),
            }
        };
        self.answers.insert(path.to_owned(), answer);
    }

    /// Adds an answer that is JSON already.
    pub fn add_value(&mut self, path: &str, value: Value) {
        self.answers.insert(path.to_owned(), Self::whole(value));
    }

    /// Notes why there is no answer.
    pub fn add_unknown(&mut self, path: &str, reason: impl Into<String>) {
        self.answers
            .insert(path.to_owned(), Answered::Useless(reason.into()));
    }

    /// An answer that goes on elsewhere would make things seem missing.
    fn whole(value: Value) -> Answered {
        let more = [
            &value["NextToken"],
            &value["nextToken"],
            &value["metadata"]["continue"],
        ];
        if more
            .iter()
            .any(|token| token.as_str().is_some_and(|token| !token.is_empty()))
        {
            return Answered::Useless("the answer is one page of several; record it without a limit".into());
        }
        if let Some(message) = value["error"]["message"]
            .as_str()
            .or_else(|| value["Error"]["Message"].as_str())
        {
            return Answered::Useless(format!("the cloud answered: {message}"));
        }
        if value["kind"] == "Status" {
            return Answered::Useless(format!(
                "the API answered: {}",
                value["message"].as_str().unwrap_or("an error")
            ));
        }
        Answered::Json(value)
    }
}

fn first_line(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    line.chars().take(200).collect()
}

/// Compares.
#[must_use]
pub fn verify(platform: &Platform, addresses: &Addresses, catalogue: &Catalogue, state: &State) -> Report {
    let fleet = Fleet {
        platform,
        addresses,
        catalogue,
    };
    let mut report = Report::default();
    for context in fleet.contexts() {
        let mut look = look::Look::new(&context, state, &mut report);
        match context.cluster.cloud {
            Cloud::Aws => aws::verify(&mut look, &fleet),
            Cloud::Azure => azure::verify(&mut look),
            Cloud::Gcp => gcp::verify(&mut look),
            Cloud::Machines => {}
        }
        kubernetes::verify(&mut look);
    }
    report.deviations.sort_by_key(|deviation| deviation.severity);
    report
}
