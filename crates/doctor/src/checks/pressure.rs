// SPDX-License-Identifier: Apache-2.0
//! Tables that fill up, and packets that pay for it (trap 9: conntrack is full, and nobody sees it).

use super::{Check, each_node, some_of};
use crate::facts::Facts;
use crate::finding::{Outcome, Severity};

/// From here on a table is pressed, in percent.
const PRESSED: u64 = 80;
/// From here on it is full for all that matters.
const FULL: u64 = 95;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "pressure.maps",
        per_node: true,
        trap: Some(9),
        title: "a map of the datapath is nearly full: connections, endpoints, others",
        why: "a full table drops new connections while old ones work, which looks like anything but a full table",
        run: maps,
    },
    Check {
        id: "pressure.nf-conntrack",
        per_node: true,
        trap: Some(9),
        title: "the kernel's own connection tracking is nearly full",
        why: "the kernel then drops packets with `nf_conntrack: table full` in its log and nowhere else",
        run: nf_conntrack,
    },
    Check {
        id: "pressure.lost",
        per_node: true,
        trap: Some(9),
        title: "connections were refused because a table was full",
        why: "these packets are lost already; the table is too small for what runs here",
        run: lost,
    },
];

fn maps(facts: &Facts, outcome: &mut Outcome) {
    each_node(facts, |node| {
        let Some(agent) = outcome.need(&node.name, &node.agent) else {
            return;
        };
        // Pools of addresses are another check's affair.
        for limit in agent
            .limits
            .iter()
            .filter(|limit| !limit.name.starts_with("pool "))
        {
            let Some(percent) = pressed(limit.used, limit.max) else {
                continue;
            };
            outcome.find(
                severity(percent),
                &node.name,
                format!(
                    "{} is {percent} % full: {} of {}",
                    limit.name, limit.used, limit.max
                ),
                if limit.name.contains("conntrack") || limit.name.contains("connections") {
                    format!(
                        "thalweg conntrack list --node {} shows whose; conntrack.maxEntries makes it larger",
                        node.name
                    )
                } else {
                    format!("thalweg map list --node {}", node.name)
                },
            );
        }
    });
}

/// The share in percent, where it is worth a word.
fn pressed(used: u64, max: u64) -> Option<u64> {
    let percent = used.saturating_mul(100) / max.max(1);
    (max > 0 && percent >= PRESSED).then_some(percent)
}

fn severity(percent: u64) -> Severity {
    if percent >= FULL {
        Severity::Error
    } else {
        Severity::Warning
    }
}

fn nf_conntrack(facts: &Facts, outcome: &mut Outcome) {
    each_node(facts, |node| {
        let Some(table) = outcome.need(&node.name, &node.nf_conntrack) else {
            return;
        };
        let Some(table) = table else { return };
        if let Some(percent) = pressed(table.count, table.max) {
            outcome.find(
                severity(percent),
                &node.name,
                format!(
                    "nf_conntrack is {percent} % full: {} of {}",
                    table.count, table.max
                ),
                format!(
                    "sysctl -w net.netfilter.nf_conntrack_max={}",
                    table.max.saturating_mul(2)
                ),
            );
        }
    });
}

fn lost(facts: &Facts, outcome: &mut Outcome) {
    const REASON: &str = "CT_MAP_INSERTION_FAILED";
    each_node(facts, |node| {
        let Some(agent) = outcome.need(&node.name, &node.agent) else {
            return;
        };
        let packets: u64 = agent
            .drops
            .iter()
            .filter(|drop| drop.reason == REASON)
            .map(|drop| drop.packets)
            .sum();
        if packets > 0 {
            let limits = agent
                .limits
                .iter()
                .map(|limit| format!("{} {}/{}", limit.name, limit.used, limit.max));
            outcome.find(
                Severity::Error,
                &node.name,
                format!(
                    "{packets} packets dropped with {REASON} since the programs were loaded; now {}",
                    some_of(limits)
                ),
                "set conntrack.maxEntries higher, or shorten conntrack.timeouts",
            );
        }
    });
}
