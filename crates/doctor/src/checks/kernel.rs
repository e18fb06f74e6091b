// SPDX-License-Identifier: Apache-2.0
//! Kernels: the one that runs, and the one that the next boot brings (trap 2).

use super::{Check, each_node, some_of};
use crate::compatibility::{Verdict, data};
use crate::facts::{Facts, NodeFacts};
use crate::finding::{Outcome, Severity};
use crate::version::Version;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "kernel.version",
        per_node: true,
        trap: Some(2),
        title: "the running kernel is older than what the programs need, or was not tested and does not run them yet",
        why: "the verifier of an untested kernel may refuse a program, and then no pod of the node gets a network",
        run: version,
    },
    Check {
        id: "kernel.next-boot",
        per_node: true,
        trap: Some(2),
        title: "a newer kernel is installed, untested, and runs after the next boot",
        why: "the programs were never run on it: a reboot may take the node out of the network",
        run: next_boot,
    },
    Check {
        id: "kernel.programs",
        per_node: true,
        trap: Some(2),
        title: "an agent runs without its programs being loaded",
        why: "without programs no packet of any pod is forwarded",
        run: programs,
    },
    Check {
        id: "kernel.btf",
        per_node: true,
        trap: None,
        title: "the kernel carries no type information",
        why: "tracing tools and some program types need it to adapt to the kernel",
        run: btf,
    },
];

/// Whether this very kernel has taken the programs: better than any table.
fn runs_programs(node: &NodeFacts) -> bool {
    node.agent.known().is_some_and(|agent| !agent.programs.is_empty())
}

fn version(facts: &Facts, outcome: &mut Outcome) {
    each_node(facts, |node| {
        let Some(kernel) = outcome.need(&node.name, &node.kernel) else {
            return;
        };
        let series = match Version::parse(&kernel.release) {
            Ok(series) => series,
            Err(error) => return outcome.not_known(&node.name, error.to_string()),
        };
        let tested = data().tested_kernels();
        let release = &kernel.release;
        let canary = format!(
            "on {}: thalweg upgrade canary, before pods depend on it",
            node.name
        );
        match data().kernel(series) {
            Verdict::TooOld => outcome.find(
                Severity::Error,
                &node.name,
                format!("kernel {release} is older than {}", crate::compatibility::KERNEL_FLOOR),
                "upgrade the node's image to one with a newer kernel",
            ),
            _ if runs_programs(node) => {}
            Verdict::Passed(_) => {}
            Verdict::Failed(row) => outcome.find(
                Severity::Error,
                &node.name,
                format!("kernel {release}: the programs failed on {} in our tests", row.package),
                format!("take an image with one of the kernels {tested}"),
            ),
            Verdict::Untested { .. } => outcome.find(
                Severity::Warning,
                &node.name,
                format!("kernel {release} was not tested, and no agent has loaded programs on it; tested: {tested}"),
                canary,
            ),
        }
    });
}

fn next_boot(facts: &Facts, outcome: &mut Outcome) {
    each_node(facts, |node| {
        let Some(kernel) = outcome.need(&node.name, &node.kernel) else {
            return;
        };
        let running = match Version::parse(&kernel.release) {
            Ok(running) => running,
            Err(error) => return outcome.not_known(&node.name, error.to_string()),
        };
        let newer = kernel
            .installed
            .iter()
            .filter_map(|release| Some((Version::parse(release).ok()?, release)));
        let untested = newer.filter(|(series, _)| {
            *series > running
                && matches!(
                    data().kernel(*series),
                    Verdict::Untested { .. } | Verdict::Failed(_)
                )
        });
        let untested: Vec<_> = untested.map(|(_, release)| release).collect();
        if !untested.is_empty() {
            outcome.find(
                Severity::Warning,
                &node.name,
                format!(
                    "{} is installed beside the running {}; tested: {}",
                    some_of(untested),
                    kernel.release,
                    data().tested_kernels()
                ),
                "boot one node with it, run `thalweg upgrade canary` there, and only then the others; or pin the kernel package",
            );
        }
    });
}

fn programs(facts: &Facts, outcome: &mut Outcome) {
    each_node(facts, |node| {
        let Some(agent) = outcome.need(&node.name, &node.agent) else {
            return;
        };
        if agent.programs.is_empty() {
            outcome.find(
                Severity::Error,
                &node.name,
                format!("the agent {} has no program loaded", agent.version),
                format!(
                    "thalweg status --node {} says why; the agent's log has the verifier's words",
                    node.name
                ),
            );
        }
    });
}

fn btf(facts: &Facts, outcome: &mut Outcome) {
    each_node(facts, |node| {
        let Some(kernel) = outcome.need(&node.name, &node.kernel) else {
            return;
        };
        if !kernel.btf {
            outcome.find(
                Severity::Warning,
                &node.name,
                format!("/sys/kernel/btf/vmlinux is missing (kernel {})", kernel.release),
                "take a kernel built with CONFIG_DEBUG_INFO_BTF=y, as all current cloud images have",
            );
        }
    });
}
