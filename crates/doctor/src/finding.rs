// SPDX-License-Identifier: Apache-2.0
//! What checks say.

use serde::Serialize;

use crate::facts::Gathered;

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Note,
    /// It will hurt.
    Warning,
    /// It hurts.
    Error,
}

impl Severity {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Something that a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check.
    pub check: &'static str,
    /// The trap that it belongs to, 1 to 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trap: Option<u8>,
    /// How bad it is.
    pub severity: Severity,
    /// The node, or `cluster`, or `cloud`.
    #[serde(rename = "where")]
    pub place: String,
    /// What is the case.
    pub evidence: String,
    /// Why it matters.
    pub why: &'static str,
    /// What mends it.
    pub mend: String,
}

/// Something that a check could not find out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unknown {
    /// The check.
    pub check: &'static str,
    /// The node, or `cluster`, or `cloud`.
    #[serde(rename = "where")]
    pub place: String,
    /// Why not.
    pub reason: String,
}

/// A check's notebook: what it found and what it could not find out.
#[derive(Debug, Default)]
pub struct Outcome {
    pub(crate) found: Vec<Noted>,
    pub(crate) unknown: Vec<(String, String)>,
}

/// A finding before the check's name is put on it.
#[derive(Debug)]
pub(crate) struct Noted {
    pub(crate) severity: Severity,
    pub(crate) place: String,
    pub(crate) evidence: String,
    pub(crate) mend: String,
}

impl Outcome {
    /// Notes something.
    pub fn find(
        &mut self,
        severity: Severity,
        place: &str,
        evidence: impl Into<String>,
        mend: impl Into<String>,
    ) {
        self.found.push(Noted {
            severity,
            place: place.to_owned(),
            evidence: evidence.into(),
            mend: mend.into(),
        });
    }

    /// Notes that something could not be found out; once for each reason and place.
    pub fn not_known(&mut self, place: &str, reason: impl Into<String>) {
        let entry = (place.to_owned(), reason.into());
        if !self.unknown.contains(&entry) {
            self.unknown.push(entry);
        }
    }

    /// The value, or nothing after noting that it is not known.
    pub fn need<'a, T>(&mut self, place: &str, gathered: &'a Gathered<T>) -> Option<&'a T> {
        match gathered.get() {
            Ok(value) => Some(value),
            Err(reason) => {
                self.not_known(place, reason);
                None
            }
        }
    }
}

/// What all checks said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What was looked at.
    pub title: String,
    /// What was found, the worst first.
    pub findings: Vec<Finding>,
    /// What could not be found out.
    pub unknown: Vec<Unknown>,
    /// Checks that ran and had nothing to say.
    pub passed: Vec<&'static str>,
    /// Checks that were left out on request.
    pub skipped: Vec<&'static str>,
}

impl Report {
    /// The worst finding's severity.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }
}
