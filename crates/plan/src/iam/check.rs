// SPDX-License-Identifier: Apache-2.0
//! Whether policies suffice, and what in them is too much.

use std::collections::BTreeSet;

use serde::Serialize;

use super::condition::Truth;
use super::document::{Effect, Patterns, Policy, Statement};
use super::{Call, Decision, Need, Scope, Target, evaluate, needs};

/// What is wrong with a needed call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "problem", rename_all = "kebab-case")]
pub enum Problem {
    /// No statement allows it.
    Missing,
    /// A statement denies it.
    Denied {
        /// Policy and statement.
        by: String,
    },
    /// It depends on what is not known.
    Unknown {
        /// On what.
        because: String,
    },
}

/// A needed call that is not sure to be allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The action.
    pub action: &'static str,
    /// On what.
    pub target: Target,
    /// What fails without it.
    pub why: &'static str,
    /// What is wrong.
    #[serde(flatten)]
    pub problem: Problem,
}

/// Something allowed that is not needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Superfluous {
    /// Policy and statement.
    pub by: String,
    /// The action, or the pattern of actions, as the policy has it.
    pub action: String,
    /// What is wrong with it.
    pub reason: String,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Needed calls, each on each of its targets.
    pub needed: usize,
    /// Those that are allowed.
    pub allowed: usize,
    /// Those that are not.
    pub findings: Vec<Finding>,
    /// What is too much.
    pub superfluous: Vec<Superfluous>,
}

/// Checks policies against what a scope needs.
#[must_use]
pub fn check(scope: &Scope, policies: &[Policy]) -> Report {
    let needs = needs(scope);
    let mut report = Report {
        needed: 0,
        allowed: 0,
        findings: Vec::new(),
        superfluous: Vec::new(),
    };
    for need in &needs {
        for target in &need.targets {
            report.needed += 1;
            match problem(scope, policies, need, *target) {
                None => report.allowed += 1,
                Some(problem) => report.findings.push(Finding {
                    action: need.action,
                    target: *target,
                    why: need.why,
                    problem,
                }),
            }
        }
    }
    for policy in policies {
        for statement in &policy.statements {
            if statement.effect == Effect::Allow {
                let allowed = Allowed { policy, statement };
                too_much(scope, policies, &allowed, &needs, &mut report.superfluous);
            }
        }
    }
    report
}

fn problem(scope: &Scope, policies: &[Policy], need: &Need, target: Target) -> Option<Problem> {
    let call = Call {
        action: need.action.to_owned(),
        resource: target.example(scope),
        context: target.context(need.action, scope),
    };
    match evaluate(policies, &call) {
        Decision::Allowed { .. } => None,
        Decision::NotAllowed => Some(elsewhere(scope, policies, need, target).unwrap_or(Problem::Missing)),
        Decision::Denied { by } => Some(Problem::Denied { by }),
        Decision::Unknown { because } => Some(Problem::Unknown { because }),
    }
}

/// Where region or account were not said, whether the call would be allowed in those that the policies name.
fn elsewhere(scope: &Scope, policies: &[Policy], need: &Need, target: Target) -> Option<Problem> {
    if scope.region != "*" && scope.account != "*" {
        return None;
    }
    for (region, account) in places(policies) {
        let there = Scope {
            region: if scope.region == "*" {
                region
            } else {
                scope.region.clone()
            },
            account: if scope.account == "*" {
                account
            } else {
                scope.account.clone()
            },
            ..scope.clone()
        };
        let call = Call {
            action: need.action.to_owned(),
            resource: target.example(&there),
            context: target.context(need.action, &there),
        };
        let because = match evaluate(policies, &call) {
            Decision::Allowed { .. } => format!(
                "it is allowed in region {} and account {} only; say which are meant",
                there.region, there.account
            ),
            Decision::Unknown { because } => because,
            Decision::Denied { .. } | Decision::NotAllowed => continue,
        };
        return Some(Problem::Unknown { because });
    }
    None
}

/// Regions and accounts that resources of the policies name.
fn places(policies: &[Policy]) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for statement in policies.iter().flat_map(|policy| &policy.statements) {
        let (Patterns::Only(arns) | Patterns::Except(arns)) = &statement.resources;
        for arn in arns {
            if let [_, _, _, region, account, _] = arn.splitn(6, ':').collect::<Vec<_>>().as_slice() {
                found.insert(((*region).to_owned(), (*account).to_owned()));
            }
        }
    }
    found
}

/// A statement that allows something.
struct Allowed<'a> {
    policy: &'a Policy,
    statement: &'a Statement,
}

fn too_much(
    scope: &Scope,
    policies: &[Policy],
    allowed: &Allowed<'_>,
    needs: &[Need],
    found: &mut Vec<Superfluous>,
) {
    let by = format!("{}, {}", allowed.policy.name, allowed.statement.name);
    let mut add = |action: &str, reason: String| {
        found.push(Superfluous {
            by: by.clone(),
            action: action.to_owned(),
            reason,
        });
    };
    let patterns = match &allowed.statement.actions {
        Patterns::Only(patterns) => patterns,
        Patterns::Except(patterns) => {
            let named = patterns.join(", ");
            add(
                &format!("all but {named}"),
                "NotAction allows all that it does not name, whatever is added later".to_owned(),
            );
            return;
        }
    };
    for pattern in patterns {
        let one = Patterns::Only(vec![pattern.clone()]);
        let covered: Vec<&Need> = needs
            .iter()
            .filter(|need| one.match_action(need.action))
            .collect();
        if covered.is_empty() {
            add(pattern, "not needed".to_owned());
            continue;
        }
        if pattern.contains(['*', '?']) {
            let names: Vec<&str> = covered.iter().map(|need| need.action).collect();
            add(
                pattern,
                format!("allows more than is needed; needed of it: {}", names.join(", ")),
            );
            continue;
        }
        let others = others(scope, policies, allowed.statement, &covered);
        if !others.is_empty() {
            let others: Vec<&str> = others.into_iter().collect();
            add(
                pattern,
                format!(
                    "also on {} that are not the cluster's; `thalweg iam policy` narrows it down",
                    others.join(" and ")
                ),
            );
        }
    }
}

/// What of other clusters a statement lets calls reach that are needed on the cluster's own only, in words.
fn others(
    scope: &Scope,
    policies: &[Policy],
    statement: &Statement,
    needs: &[&Need],
) -> BTreeSet<&'static str> {
    let other = Scope {
        cluster: format!("{}2", scope.cluster),
        ..scope.clone()
    };
    let mut found = BTreeSet::new();
    for need in needs {
        for target in &need.targets {
            let Some(word) = target.owned() else { continue };
            let call = Call {
                action: need.action.to_owned(),
                resource: target.example(scope),
                context: target.context(need.action, &other),
            };
            // A Deny elsewhere may narrow it down.
            let allowed = || matches!(evaluate(policies, &call), Decision::Allowed { .. });
            if statement.concerns(&call) == Truth::Yes && allowed() {
                found.insert(word);
            }
        }
    }
    found
}
