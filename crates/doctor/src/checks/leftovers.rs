// SPDX-License-Identifier: Apache-2.0
//! What networks that no longer run have left on nodes (trap 3).

use std::collections::BTreeMap;

use super::{Check, each_node, some_of};
use crate::facts::{Facts, NodeFacts};
use crate::finding::{Outcome, Severity};
use crate::owner::Owner;

const WHY_FILTER: &str =
    "rules of a network that is gone still rewrite or drop packets, and nobody looks for them there";
const WHY_DEVICE: &str =
    "devices and routes of a network that is gone draw traffic that is meant for pods elsewhere";

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "leftovers.iptables",
        per_node: true,
        trap: Some(3),
        title: "chains of iptables of a network that does not run",
        why: WHY_FILTER,
        run: iptables,
    },
    Check {
        id: "leftovers.nftables",
        per_node: true,
        trap: Some(3),
        title: "tables of nftables of a network that does not run",
        why: WHY_FILTER,
        run: nftables,
    },
    Check {
        id: "leftovers.ipvs",
        per_node: true,
        trap: Some(3),
        title: "virtual servers of IPVS without a kube-proxy",
        why: "connections to services end at backends that are long gone",
        run: ipvs,
    },
    Check {
        id: "leftovers.links",
        per_node: true,
        trap: Some(3),
        title: "devices of a network that does not run",
        why: WHY_DEVICE,
        run: links,
    },
    Check {
        id: "leftovers.routes",
        per_node: true,
        trap: Some(3),
        title: "routes of a network that does not run",
        why: WHY_DEVICE,
        run: routes,
    },
    Check {
        id: "leftovers.rules",
        per_node: true,
        trap: Some(3),
        title: "routing rules of a network that does not run",
        why: "they send pods' packets to tables that nobody fills any more",
        run: rules,
    },
    Check {
        id: "leftovers.bpffs",
        per_node: true,
        trap: Some(3),
        title: "pinned programs and maps of a network that does not run",
        why: "pinned programs stay attached and keep deciding over packets; pinned maps keep their memory",
        run: bpffs,
    },
];

/// What a network left: those whose program runs (or should run here) have left nothing.
fn report<'a>(
    facts: &Facts,
    node: &NodeFacts,
    outcome: &mut Outcome,
    what: &str,
    parts: impl IntoIterator<Item = (Owner, &'a str)>,
) {
    let mut by_owner: BTreeMap<Owner, Vec<&str>> = BTreeMap::new();
    for (owner, part) in parts {
        by_owner.entry(owner).or_default().push(part);
    }
    for (owner, parts) in by_owner {
        match runs(facts, node, owner) {
            Some(true) => {}
            Some(false) => outcome.find(
                Severity::Warning,
                &node.name,
                format!(
                    "{} {what} of {owner}, which does not run here: {}",
                    parts.len(),
                    some_of(parts)
                ),
                format!(
                    "on {1}: thalweg conflicts remove --owner {0} shows what would go; --execute does it",
                    owner.as_str(),
                    node.name
                ),
            ),
            None => outcome.not_known(
                &node.name,
                format!(
                    "{} {what} of {owner} are there ({}), and whether it runs is not known",
                    parts.len(),
                    some_of(parts)
                ),
            ),
        }
    }
}

/// Whether a network runs on a node: by its processes, or by a DaemonSet that wants pods.
fn runs(facts: &Facts, node: &NodeFacts, owner: Owner) -> Option<bool> {
    if let Some(processes) = node.processes.known() {
        return Some(
            processes
                .iter()
                .any(|name| owner.processes().contains(&name.as_str())),
        );
    }
    let sets = facts.cluster.daemon_sets.known()?;
    Some(
        sets.iter()
            .any(|set| set.desired > 0 && Owner::of_daemon_set(&set.name) == Some(owner)),
    )
}

fn iptables(facts: &Facts, outcome: &mut Outcome) {
    each_node(facts, |node| {
        let Some(chains) = outcome.need(&node.name, &node.iptables) else {
            return;
        };
        let parts: Vec<(Owner, String)> = chains
            .iter()
            .filter_map(|chain| {
                Some((
                    Owner::of_rules(chain)?,
                    format!("{} {} {}", chain.tool, chain.table, chain.name),
                ))
            })
            .collect();
        report(
            facts,
            node,
            outcome,
            "chains",
            parts.iter().map(|(owner, part)| (*owner, part.as_str())),
        );
    });
}

fn nftables(facts: &Facts, outcome: &mut Outcome) {
    each_node(facts, |node| {
        let Some(tables) = outcome.need(&node.name, &node.nft_tables) else {
            return;
        };
        let parts = tables
            .iter()
            .filter_map(|table| Some((Owner::of_nft_table(table)?, table.as_str())));
        report(facts, node, outcome, "tables", parts);
    });
}

fn ipvs(facts: &Facts, outcome: &mut Outcome) {
    each_node(facts, |node| {
        let Some(servers) = outcome.need(&node.name, &node.ipvs) else {
            return;
        };
        report(
            facts,
            node,
            outcome,
            "virtual servers",
            servers.iter().map(|server| (Owner::KubeProxy, server.as_str())),
        );
    });
}

fn links(facts: &Facts, outcome: &mut Outcome) {
    each_node(facts, |node| {
        let Some(links) = outcome.need(&node.name, &node.links) else {
            return;
        };
        let parts = links.iter().filter_map(|link| {
            Some((
                Owner::of_link(&link.name, link.kind.as_deref())?,
                link.name.as_str(),
            ))
        });
        report(facts, node, outcome, "devices", parts);
    });
}

fn routes(facts: &Facts, outcome: &mut Outcome) {
    each_node(facts, |node| {
        let Some(routes) = outcome.need(&node.name, &node.routes) else {
            return;
        };
        let kind = |device: &str| {
            let links = node.links.known()?;
            links.iter().find(|link| link.name == device)?.kind.as_deref()
        };
        let parts: Vec<(Owner, String)> = routes
            .iter()
            .filter_map(|route| {
                let device = route.device.as_deref();
                let owner = Owner::of_route(route.protocol, device, device.and_then(kind))?;
                let device = device.map(|device| format!(" dev {device}")).unwrap_or_default();
                Some((owner, format!("{}{device}", route.destination)))
            })
            .collect();
        report(
            facts,
            node,
            outcome,
            "routes",
            parts.iter().map(|(owner, part)| (*owner, part.as_str())),
        );
    });
}

fn rules(facts: &Facts, outcome: &mut Outcome) {
    each_node(facts, |node| {
        let Some(rules) = outcome.need(&node.name, &node.rules) else {
            return;
        };
        let parts: Vec<(Owner, String)> = rules
            .iter()
            .filter_map(|rule| Some((Owner::of_rule(rule)?, format!("{}: {}", rule.priority, rule.text))))
            .collect();
        report(
            facts,
            node,
            outcome,
            "rules",
            parts.iter().map(|(owner, part)| (*owner, part.as_str())),
        );
    });
}

fn bpffs(facts: &Facts, outcome: &mut Outcome) {
    each_node(facts, |node| {
        let Some(pins) = outcome.need(&node.name, &node.bpffs) else {
            return;
        };
        let parts = pins
            .iter()
            .filter_map(|pin| Some((Owner::of_pin(pin)?, pin.as_str())));
        report(facts, node, outcome, "pins", parts);
    });
}
