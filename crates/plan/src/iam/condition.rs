// SPDX-License-Identifier: Apache-2.0
//! Conditions of a statement, against what is known of a request.
//!
//! Three answers: it holds, it does not, or that cannot be said (a key of which nothing is known, an operator that is not
//! evaluated here, a policy variable without a value).

use std::collections::BTreeMap;

use super::glob;

/// What is known of a request: keys (in lower case: IAM compares them so) with their values, or their absence. Of a key
/// that is in neither, nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    keys: BTreeMap<String, Vec<String>>,
    /// Keys that begin so are all known: what is not in `keys` is not in the request.
    closed: Vec<String>,
}

impl Context {
    /// Adds a key with its values; without values it is known to be absent.
    #[must_use]
    pub fn with(mut self, key: &str, values: &[&str]) -> Self {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        self.keys.insert(key.to_ascii_lowercase(), values);
        self
    }

    /// Says that all keys that begin so are known.
    #[must_use]
    pub fn closed(mut self, prefix: &str) -> Self {
        self.closed.push(prefix.to_ascii_lowercase());
        self
    }

    /// The values of a key: none when it is absent; `None` when nothing is known.
    pub(crate) fn get(&self, key: &str) -> Option<&[String]> {
        let key = key.to_ascii_lowercase();
        match self.keys.get(&key) {
            Some(values) => Some(values),
            None => self
                .closed
                .iter()
                .any(|prefix| key.starts_with(prefix.as_str()))
                .then_some(&[]),
        }
    }
}

/// Yes, no, or why neither can be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    Yes,
    /// It does not.
    No,
    /// It cannot be said.
    Unknown(String),
}

impl From<bool> for Truth {
    fn from(truth: bool) -> Self {
        if truth { Self::Yes } else { Self::No }
    }
}

/// How a set of values is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quantifier {
    /// No set operator.
    One,
    /// `ForAllValues:`.
    All,
    /// `ForAnyValue:`.
    Any,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equals,
    EqualsIgnoreCase,
    Like,
    Arn,
    Bool,
    Null,
}

/// `{operator: {key: values}}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    operator: String,
    key: String,
    values: Vec<String>,
    quantifier: Quantifier,
    if_exists: bool,
    negated: bool,
    /// `None`: an operator that is not evaluated here.
    comparison: Option<Comparison>,
}

impl Condition {
    pub(crate) fn new(operator: &str, key: &str, values: Vec<String>) -> Self {
        let (quantifier, rest) = match operator.split_once(':') {
            Some(("ForAllValues", rest)) => (Quantifier::All, rest),
            Some(("ForAnyValue", rest)) => (Quantifier::Any, rest),
            _ => (Quantifier::One, operator),
        };
        let (rest, if_exists) = rest
            .strip_suffix("IfExists")
            .map_or((rest, false), |rest| (rest, true));
        let (comparison, negated) = match rest {
            "StringEquals" => (Some(Comparison::Equals), false),
            "StringNotEquals" => (Some(Comparison::Equals), true),
            "StringEqualsIgnoreCase" => (Some(Comparison::EqualsIgnoreCase), false),
            "StringNotEqualsIgnoreCase" => (Some(Comparison::EqualsIgnoreCase), true),
            "StringLike" => (Some(Comparison::Like), false),
            "StringNotLike" => (Some(Comparison::Like), true),
            "ArnEquals" | "ArnLike" => (Some(Comparison::Arn), false),
            "ArnNotEquals" | "ArnNotLike" => (Some(Comparison::Arn), true),
            "Bool" => (Some(Comparison::Bool), false),
            "Null" => (Some(Comparison::Null), false),
            _ => (None, false),
        };
        Self {
            operator: operator.to_owned(),
            key: key.to_owned(),
            values,
            quantifier,
            if_exists,
            negated,
            comparison,
        }
    }

    /// Whether it holds for a request of which this is known.
    #[must_use]
    pub fn holds(&self, context: &Context) -> Truth {
        let Some(comparison) = self.comparison else {
            return Truth::Unknown(format!(
                "condition operator {} is not evaluated here",
                self.operator
            ));
        };
        let Some(found) = context.get(&self.key) else {
            return Truth::Unknown(format!("nothing is known of the condition key {}", self.key));
        };
        if comparison == Comparison::Null {
            return self.null(found.is_empty());
        }
        let mut wanted = Vec::new();
        for value in &self.values {
            match glob::substitute(value, context) {
                Ok(value) => wanted.push(value),
                Err(variable) => {
                    return Truth::Unknown(format!("the policy variable {variable} has no known value"));
                }
            }
        }
        let meets = |value: &String| {
            let equal = wanted.iter().any(|wanted| comparison.meets(wanted, value));
            equal != self.negated
        };
        match (self.quantifier, found) {
            // Absent: a negated operator holds, and ForAllValues of nothing.
            (Quantifier::One, []) => (self.if_exists || self.negated).into(),
            (Quantifier::Any, []) => self.if_exists.into(),
            (Quantifier::All, values) => values.iter().all(meets).into(),
            (Quantifier::Any, values) => values.iter().any(meets).into(),
            (Quantifier::One, [value]) => meets(value).into(),
            (Quantifier::One, _) => Truth::Unknown(format!(
                "{} has several values, which {} is not made for",
                self.key, self.operator
            )),
        }
    }

    fn null(&self, absent: bool) -> Truth {
        match self.values.as_slice() {
            [one] if one.eq_ignore_ascii_case("true") => absent.into(),
            [one] if one.eq_ignore_ascii_case("false") => (!absent).into(),
            _ => Truth::Unknown(format!("Null on {} is neither true nor false", self.key)),
        }
    }
}

impl Comparison {
    fn meets(self, wanted: &glob::Pattern, value: &str) -> bool {
        match self {
            Self::Equals => wanted.literal() == value,
            Self::EqualsIgnoreCase | Self::Bool => wanted.literal().eq_ignore_ascii_case(value),
            Self::Like => wanted.matches(value),
            Self::Arn => wanted.matches_arn(value),
            // Decided before values are compared.
            Self::Null => false,
        }
    }
}
