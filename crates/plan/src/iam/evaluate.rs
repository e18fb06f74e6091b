// SPDX-License-Identifier: Apache-2.0
//! Whether policies allow a call: an explicit Deny wins, then an Allow, else it is denied. Without boundaries, service
//! control policies, session and resource policies: those can only take away, or are not of this role.

use serde::Serialize;

use super::condition::{Context, Truth};
use super::document::{Effect, Patterns, Policy, Statement};
use super::glob::{self, Pattern};

/// A call on one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Such as `ec2:AttachNetworkInterface`.
    pub action: String,
    /// The resource's ARN, or `*` for actions without one.
    pub resource: String,
    /// What is known of the request.
    pub context: Context,
}

/// What becomes of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "decision", rename_all = "kebab-case")]
pub enum Decision {
    /// A statement allows it.
    Allowed {
        /// Policy and statement.
        by: String,
    },
    /// A statement denies it.
    Denied {
        /// Policy and statement.
        by: String,
    },
    /// No statement allows it.
    NotAllowed,
    /// It depends on what is not known.
    Unknown {
        /// On what.
        because: String,
    },
}

/// Decides a call.
#[must_use]
pub fn evaluate(policies: &[Policy], call: &Call) -> Decision {
    let mut allowed = None;
    let mut doubt_allow = None;
    let mut doubt_deny = None;
    for policy in policies {
        for statement in &policy.statements {
            let by = || format!("{}, {}", policy.name, statement.name);
            match (statement.concerns(call), statement.effect) {
                (Truth::Yes, Effect::Deny) => return Decision::Denied { by: by() },
                (Truth::Yes, Effect::Allow) => allowed = allowed.or_else(|| Some(by())),
                (Truth::Unknown(why), Effect::Deny) => {
                    doubt_deny = doubt_deny.or_else(|| Some(format!("{}: {why}", by())))
                }
                (Truth::Unknown(why), Effect::Allow) => {
                    doubt_allow = doubt_allow.or_else(|| Some(format!("{}: {why}", by())));
                }
                (Truth::No, _) => {}
            }
        }
    }
    match (allowed, doubt_allow, doubt_deny) {
        (None, None, _) => Decision::NotAllowed,
        (Some(by), _, None) => Decision::Allowed { by },
        (_, _, Some(because)) | (None, Some(because), None) => Decision::Unknown { because },
    }
}

impl Statement {
    /// Whether the statement is about a call.
    pub(super) fn concerns(&self, call: &Call) -> Truth {
        if !self.actions.match_action(&call.action) {
            return Truth::No;
        }
        let mut truth = self.resources.match_resource(call);
        for condition in &self.conditions {
            truth = match (truth, condition.holds(&call.context)) {
                (Truth::No, _) | (_, Truth::No) => Truth::No,
                (Truth::Unknown(why), _) | (Truth::Yes, Truth::Unknown(why)) => Truth::Unknown(why),
                (Truth::Yes, Truth::Yes) => Truth::Yes,
            };
        }
        truth
    }
}

impl Patterns {
    /// Names of actions are compared without regard to case.
    pub(super) fn match_action(&self, action: &str) -> bool {
        let action = action.to_ascii_lowercase();
        let any = |patterns: &[String]| {
            patterns
                .iter()
                .any(|pattern| Pattern::plain(&pattern.to_ascii_lowercase()).matches(&action))
        };
        match self {
            Self::Only(patterns) => any(patterns),
            Self::Except(patterns) => !any(patterns),
        }
    }

    fn match_resource(&self, call: &Call) -> Truth {
        let (patterns, wanted) = match self {
            Self::Only(patterns) => (patterns, true),
            Self::Except(patterns) => (patterns, false),
        };
        let mut doubt = None;
        for pattern in patterns {
            match glob::substitute(pattern, &call.context) {
                Ok(pattern) if pattern.matches(&call.resource) => return wanted.into(),
                Ok(_) => {}
                Err(variable) => doubt = Some(format!("the policy variable {variable} has no known value")),
            }
        }
        doubt.map_or_else(|| Truth::from(!wanted), Truth::Unknown)
    }
}
