// SPDX-License-Identifier: Apache-2.0
//! The checks: pure functions from facts to findings. One file per group; [`all`] is the list.

mod addresses;
mod agent;
mod capacity;
mod host;
mod kernel;
mod leftovers;
mod networks;
mod pressure;
mod support;
mod upgrades;
mod versions;

use std::collections::BTreeSet;

use crate::facts::Facts;
use crate::finding::{Finding, Outcome, Report, Unknown};
pub(crate) use versions::kubelet_lag_allowed;

/// A check.
#[derive(Debug)]
pub struct Check {
    /// Its name: `group.subject`.
    pub id: &'static str,
    /// Whether it looks at what nodes say of themselves: without any node it knows nothing.
    pub per_node: bool,
    /// The trap that it finds, 1 to 10.
    pub trap: Option<u8>,
    /// What it finds.
    pub title: &'static str,
    /// Why that matters.
    pub why: &'static str,
    pub(crate) run: fn(&Facts, &mut Outcome),
}

/// The ten traps of a cluster whose network is not the cloud's own.
pub const TRAPS: [&str; 10] = [
    "nobody at the cloud supports it",
    "an upgrade brings a kernel that refuses the programs",
    "the cloud's own network stays or comes back",
    "addresses per machine run out",
    "permissions are missing or too broad",
    "the network does not know the new Kubernetes version",
    "security groups do not reach pods",
    "a mesh of clusters is put together by hand",
    "finding a fault takes hours",
    "the way of an upgrade was never tried",
];

/// All checks, by group.
pub fn all() -> impl Iterator<Item = &'static Check> {
    let groups: [&'static [Check]; 11] = [
        kernel::CHECKS,
        host::CHECKS,
        networks::CHECKS,
        leftovers::CHECKS,
        addresses::CHECKS,
        agent::CHECKS,
        pressure::CHECKS,
        capacity::CHECKS,
        versions::CHECKS,
        support::CHECKS,
        upgrades::CHECKS,
    ];
    groups.into_iter().flatten()
}

/// Which checks run. A name ending in a dot, or a group's name, stands for the whole group.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only these; all when empty.
    pub only: Vec<String>,
    /// All but these.
    pub skip: Vec<String>,
}

/// A name that no check has.
#[derive(Debug, thiserror::Error)]
#[error("there is no check `{0}`; `thalweg doctor --list` shows them")]
pub struct NoSuchCheck(String);

impl Selection {
    /// Whether all names are those of checks or groups.
    ///
    /// # Errors
    /// With the first name that is not.
    pub fn validate(&self) -> Result<(), NoSuchCheck> {
        let unknown = self
            .only
            .iter()
            .chain(&self.skip)
            .find(|name| !all().any(|check| fits(name, check.id)));
        unknown.map_or(Ok(()), |name| Err(NoSuchCheck(name.clone())))
    }

    fn takes(&self, id: &str) -> bool {
        let named = |names: &[String]| names.iter().any(|name| fits(name, id));
        (self.only.is_empty() || named(&self.only)) && !named(&self.skip)
    }
}

fn fits(name: &str, id: &str) -> bool {
    let group = id.split('.').next().unwrap_or(id);
    name == id || name.trim_end_matches('.') == group
}

/// Runs the selected checks over facts.
#[must_use]
pub fn examine(facts: &Facts, selection: &Selection) -> Report {
    let mut report = Report {
        title: facts.title.clone(),
        ..Report::default()
    };
    for check in all() {
        if !selection.takes(check.id) {
            report.skipped.push(check.id);
            continue;
        }
        let mut outcome = Outcome::default();
        (check.run)(facts, &mut outcome);
        if check.per_node && facts.nodes.is_empty() {
            let reason = facts.nodes_unknown.as_deref().unwrap_or("no node was looked at");
            outcome.not_known("nodes", reason);
        }
        if outcome.found.is_empty() && outcome.unknown.is_empty() {
            report.passed.push(check.id);
        }
        report
            .findings
            .extend(outcome.found.into_iter().map(|noted| Finding {
                check: check.id,
                trap: check.trap,
                severity: noted.severity,
                place: noted.place,
                evidence: noted.evidence,
                why: check.why,
                mend: noted.mend,
            }));
        let unknown = outcome.unknown.into_iter().map(|(place, reason)| Unknown {
            check: check.id,
            place,
            reason,
        });
        report.unknown.extend(unknown);
    }
    report
        .findings
        .sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    report
}

/// Runs something for each node.
fn each_node<'a>(facts: &'a Facts, work: impl FnMut(&'a crate::facts::NodeFacts)) {
    facts.nodes.iter().for_each(work);
}

/// The first few of many, in words.
pub(crate) fn some_of<T: std::fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    const SHOWN: usize = 5;
    let unique: BTreeSet<String> = items.into_iter().map(|item| item.to_string()).collect();
    let shown: Vec<&str> = unique.iter().take(SHOWN).map(String::as_str).collect();
    match unique.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_trap_has_a_check() {
        let names: BTreeSet<_> = all().map(|check| check.id).collect();
        assert_eq!(names.len(), all().count());
        for trap in 1..=10 {
            assert!(all().any(|check| check.trap == Some(trap)), "trap {trap}");
        }
        for check in all() {
            assert!(
                check.id.contains('.') && !check.title.is_empty() && !check.why.is_empty(),
                "{check:?}"
            );
        }
    }

    #[test]
    fn without_any_facts_everything_is_unknown_and_nothing_is_found() {
        let mut facts = Facts::default();
        facts
            .nodes
            .push(crate::facts::NodeFacts::unknown("n", "permission denied"));
        let report = examine(&facts, &Selection::default());
        assert_eq!(report.findings, []);
        assert_eq!(report.passed, Vec::<&str>::new(), "nothing is taken for well");
    }

    #[test]
    fn checks_are_selected_by_name_and_by_group() {
        let names = |only: &[&str], skip: &[&str]| {
            let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            let selection = Selection {
                only: own(only),
                skip: own(skip),
            };
            selection
                .validate()
                .map(|()| all().filter(|check| selection.takes(check.id)).count())
                .ok()
        };
        assert_eq!(names(&[], &[]), Some(all().count()));
        assert_eq!(names(&["kernel.btf"], &[]), Some(1));
        assert!(names(&["kernel"], &[]).unwrap() > 2);
        assert_eq!(names(&["kernel."], &["kernel"]), Some(0));
        assert_eq!(names(&["kern"], &[]), None);
    }
}
