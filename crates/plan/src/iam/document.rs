// SPDX-License-Identifier: Apache-2.0
//! Policy documents as IAM reads them.

use serde_json::{Map, Value};

use super::condition::Condition;

/// Allow or Deny.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Allows what nothing denies.
    Allow,
    /// Denies whatever allows it.
    Deny,
}

/// An element or its opposite: `Action` and `NotAction`, `Resource` and `NotResource`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Patterns {
    /// Matches what one of them matches.
    Only(Vec<String>),
    /// Matches what none of them matches.
    Except(Vec<String>),
}

/// A statement of an identity policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Its `Sid`, or its place, such as `statement 2`.
    pub name: String,
    /// What it does.
    pub effect: Effect,
    /// Which actions.
    pub actions: Patterns,
    /// On what.
    pub resources: Patterns,
    /// Under which conditions; all must hold.
    pub conditions: Vec<Condition>,
}

/// An identity policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Where it comes from, for messages.
    pub name: String,
    /// Its statements.
    pub statements: Vec<Statement>,
}

/// A document that is no identity policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// No JSON, or cut off.
    #[error("{name} is no JSON: {reason}")]
    NotJson {
        /// The document.
        name: String,
        /// What the parser says.
        reason: String,
    },
    /// JSON of another kind.
    #[error("{name} is no policy: {reason}")]
    NotPolicy {
        /// The document.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A statement that IAM would refuse.
    #[error("{name}, {statement}: {reason}")]
    Statement {
        /// The document.
        name: String,
        /// Which statement.
        statement: String,
        /// What is wrong.
        reason: String,
    },
}

const STATEMENT_KEYS: [&str; 7] = [
    "Sid",
    "Effect",
    "Action",
    "NotAction",
    "Resource",
    "NotResource",
    "Condition",
];

impl Policy {
    /// Reads a policy document, bare or as `aws iam get-policy-version` and `get-role-policy` wrap it.
    ///
    /// # Errors
    /// It is no identity policy, or IAM would not take it.
    pub fn parse(name: &str, text: &str) -> Result<Self, PolicyError> {
        let value: Value = serde_json::from_str(text).map_err(|error| PolicyError::NotJson {
            name: name.to_owned(),
            reason: error.to_string(),
        })?;
        let not_policy = |reason: &str| PolicyError::NotPolicy {
            name: name.to_owned(),
            reason: reason.to_owned(),
        };
        let document = value
            .pointer("/PolicyVersion/Document")
            .or_else(|| value.get("PolicyDocument"))
            .unwrap_or(&value);
        let document = document
            .as_object()
            .ok_or_else(|| not_policy("it is no object"))?;
        if let Some(key) = document
            .keys()
            .find(|key| !["Version", "Id", "Statement"].contains(&key.as_str()))
        {
            return Err(not_policy(&format!(
                "it has a key `{key}`; keys are Version, Id, Statement"
            )));
        }
        match document.get("Version").and_then(Value::as_str) {
            Some("2012-10-17" | "2008-10-17") | None => {}
            Some(other) => {
                return Err(not_policy(&format!(
                    "its version is `{other}`; there are 2012-10-17 and 2008-10-17"
                )));
            }
        }
        let statements = match document.get("Statement") {
            Some(Value::Array(list)) => list.iter().collect(),
            Some(one @ Value::Object(_)) => vec![one],
            _ => return Err(not_policy("it has no Statement")),
        };
        let mut parsed = Vec::new();
        for (place, statement) in statements.into_iter().enumerate() {
            let place = format!("statement {}", place + 1);
            let statement = statement_of(statement, &place).map_err(|reason| PolicyError::Statement {
                name: name.to_owned(),
                statement: place,
                reason,
            })?;
            parsed.push(statement);
        }
        Ok(Self {
            name: name.to_owned(),
            statements: parsed,
        })
    }
}

fn statement_of(value: &Value, place: &str) -> Result<Statement, String> {
    let object = value.as_object().ok_or("it is no object")?;
    if object.contains_key("Principal") || object.contains_key("NotPrincipal") {
        return Err(
            "it has a Principal, so this is a trust or resource policy; give the role's permissions"
                .to_owned(),
        );
    }
    if let Some(key) = object.keys().find(|key| !STATEMENT_KEYS.contains(&key.as_str())) {
        return Err(format!("it has a key `{key}`, which IAM does not know"));
    }
    let effect = match object.get("Effect").and_then(Value::as_str) {
        Some("Allow") => Effect::Allow,
        Some("Deny") => Effect::Deny,
        _ => return Err("its Effect is neither Allow nor Deny".to_owned()),
    };
    let actions = patterns(object, "Action", "NotAction")?;
    let (Patterns::Only(names) | Patterns::Except(names)) = &actions;
    if let Some(bad) = names.iter().find(|name| *name != "*" && !name.contains(':')) {
        return Err(format!("action `{bad}` has no service, as in ec2:{bad}"));
    }
    Ok(Statement {
        name: object
            .get("Sid")
            .and_then(Value::as_str)
            .unwrap_or(place)
            .to_owned(),
        effect,
        actions,
        resources: patterns(object, "Resource", "NotResource")?,
        conditions: conditions(object.get("Condition"))?,
    })
}

fn patterns(object: &Map<String, Value>, only: &str, except: &str) -> Result<Patterns, String> {
    match (object.get(only), object.get(except)) {
        (Some(_), Some(_)) => Err(format!("it has both {only} and {except}")),
        (Some(value), None) => Ok(Patterns::Only(strings(value, only)?)),
        (None, Some(value)) => Ok(Patterns::Except(strings(value, except)?)),
        (None, None) => Err(format!("it has neither {only} nor {except}")),
    }
}

/// A string, or a list of them; numbers and booleans are taken as their text, as IAM does in conditions.
fn strings(value: &Value, what: &str) -> Result<Vec<String>, String> {
    let one = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(truth) => Ok(truth.to_string()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => Err(format!("{what} is no text")),
    };
    if let Value::Array(list) = value {
        list.iter().map(one).collect()
    } else {
        Ok(vec![one(value)?])
    }
}

fn conditions(value: Option<&Value>) -> Result<Vec<Condition>, String> {
    let mut found = Vec::new();
    let Some(value) = value else { return Ok(found) };
    for (operator, keys) in value.as_object().ok_or("its Condition is no object")? {
        for (key, values) in keys
            .as_object()
            .ok_or_else(|| format!("condition {operator} is no object"))?
        {
            found.push(Condition::new(operator, key, strings(values, key)?));
        }
    }
    Ok(found)
}
