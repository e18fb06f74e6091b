// SPDX-License-Identifier: Apache-2.0
//! One cluster's recording under comparison.

use serde_json::Value;

use super::{Answered, Deviation, Report, Severity, State, Unknown};
use crate::file::NodeGroup;
use crate::render::Context;

/// What is said when a comparison fails.
#[derive(Clone)]
pub(super) struct Otherwise {
    pub(super) severity: Severity,
    pub(super) trap: Option<u8>,
    pub(super) remedy: String,
}

pub(super) fn critical(remedy: impl Into<String>) -> Otherwise {
    Otherwise {
        severity: Severity::Critical,
        trap: None,
        remedy: remedy.into(),
    }
}

pub(super) fn warning(remedy: impl Into<String>) -> Otherwise {
    Otherwise {
        severity: Severity::Warning,
        trap: None,
        remedy: remedy.into(),
    }
}

pub(super) fn note(remedy: impl Into<String>) -> Otherwise {
    Otherwise {
        severity: Severity::Note,
        trap: None,
        remedy: remedy.into(),
    }
}

impl Otherwise {
    pub(super) fn trap(mut self, number: u8) -> Self {
        self.trap = Some(number);
        self
    }
}

pub(super) struct Look<'a> {
    pub(super) context: &'a Context<'a>,
    state: &'a State,
    report: &'a mut Report,
}

/// An answer and where it is from.
#[derive(Clone)]
pub(super) struct Answer<'a> {
    pub(super) file: String,
    pub(super) value: &'a Value,
}

impl<'a> Look<'a> {
    pub(super) fn new(context: &'a Context<'a>, state: &'a State, report: &'a mut Report) -> Self {
        Self {
            context,
            state,
            report,
        }
    }

    /// An answer of this cluster, which holds a list or an object at a place; what is not there is noted as unknown.
    pub(super) fn answer(&mut self, file: &str, holds: &str) -> Option<Answer<'a>> {
        let path = format!("{}/{file}", self.context.cluster.name);
        let reason = match self.state.answers.get(&path) {
            Some(Answered::Json(value)) => match value.pointer(holds) {
                Some(Value::Array(_) | Value::Object(_)) => return Some(Answer { file: path, value }),
                _ => format!("the answer has no {holds}; record it again, whole"),
            },
            Some(Answered::Useless(reason)) => reason.clone(),
            None => "it was not recorded".to_owned(),
        };
        let cluster = self.context.cluster.name.clone();
        self.report.unknown.push(Unknown {
            cluster,
            file: path,
            reason,
        });
        None
    }

    /// Compares one value of an answer, by JSON pointer. One that is absent counts as found `nothing`.
    pub(super) fn expect(
        &mut self,
        answer: &Answer<'_>,
        pointer: &str,
        subject: &str,
        planned: impl Into<Value>,
        otherwise: Otherwise,
    ) {
        let planned = planned.into();
        let found = answer.value.pointer(pointer).unwrap_or(&Value::Null);
        self.that(
            *found == planned,
            subject,
            shown(&planned),
            shown(found),
            place(answer, pointer),
            otherwise,
        );
    }

    /// Counts a comparison and notes the deviation unless `good`.
    pub(super) fn that(
        &mut self,
        good: bool,
        subject: &str,
        planned: impl Into<String>,
        found: impl Into<String>,
        evidence: String,
        otherwise: Otherwise,
    ) {
        self.report.compared += 1;
        if good {
            return;
        }
        self.report.deviations.push(Deviation {
            cluster: self.context.cluster.name.clone(),
            subject: subject.to_owned(),
            planned: planned.into(),
            found: found.into(),
            evidence,
            severity: otherwise.severity,
            trap: otherwise.trap,
            remedy: otherwise.remedy,
        });
    }
}

/// Whether the API is reachable from inside only, as planned. Where nothing is said, it is from outside.
pub(super) fn private_api(look: &mut Look<'_>, cluster: &Answer<'_>, pointer: &str, remedy: &str) {
    let planned = look.context.cluster.private;
    let found = cluster
        .value
        .pointer(pointer)
        .and_then(Value::as_bool)
        .unwrap_or(false);
    look.that(
        found == planned,
        "private API",
        planned.to_string(),
        found.to_string(),
        place(cluster, pointer),
        warning(remedy),
    );
}

/// The pool of a group in a list of pools: itself, its pointer, and what it is called in a report.
pub(super) fn node_pool<'a>(
    look: &mut Look<'_>,
    cluster: &Answer<'a>,
    pools: &str,
    group: &NodeGroup,
) -> Option<(&'a Value, String, String)> {
    let subject = format!("node pool {}", group.name);
    let found = items(cluster, pools)
        .into_iter()
        .find(|(pool, _)| pool["name"] == group.name.as_str());
    look.that(
        found.is_some(),
        &subject,
        "there",
        "not there",
        place(cluster, pools),
        warning("`terraform apply` makes it"),
    );
    found.map(|(pool, pointer)| (pool, pointer, subject))
}

pub(super) fn place(answer: &Answer<'_>, pointer: &str) -> String {
    format!("{} {pointer}", answer.file)
}

/// The items of a list in an answer, with their pointers.
pub(super) fn items<'a>(answer: &Answer<'a>, pointer: &str) -> Vec<(&'a Value, String)> {
    let list = answer.value.pointer(pointer).and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .enumerate()
        .map(|(index, item)| (item, format!("{pointer}/{index}")))
        .collect()
}

pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Null => "nothing".into(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

pub(super) fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
