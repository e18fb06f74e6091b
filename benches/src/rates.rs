// SPDX-License-Identifier: Apache-2.0
//! Request rates and throughput, same node and across nodes, against kernel routing and against the bridge plugin.

use anyhow::Result;
use connectivity::perf::Kind;

use crate::load::{self, Effort, Round, Work};
use crate::reference::{self, Path, Wire};
use crate::results::{Comparison, Spread};
use crate::subject::Subject;

/// What the ratio to kernel routing must be at least, for request rates and for throughput.
const ROUTING_GOAL: f64 = 1.05;
const STREAM_GOAL: f64 = 1.0;
/// What the ratio of request rates to the bridge plugin must be at least.
const BRIDGE_GOAL: f64 = 1.2;

/// The kinds of work, with the connections at once.
const WORKS: [(Kind, usize); 5] = [
    (Kind::TcpRr, 1),
    (Kind::UdpRr, 1),
    (Kind::TcpCrr, 1),
    (Kind::TcpStream, 1),
    (Kind::TcpStream, 8),
];

/// What the subject takes turns with.
struct Rival {
    name: &'static str,
    path: Path,
    /// The goal for request rates, and for throughput.
    goals: (Option<f64>, Option<f64>),
}

/// Where load runs.
struct Scope {
    name: &'static str,
    subject: Path,
    rivals: Vec<Rival>,
}

fn same_node(subject: &Subject) -> Result<Scope> {
    Ok(Scope {
        name: "same node",
        subject: subject.path("pod-1-1", "pod-1-2")?,
        rivals: vec![
            routing("kernel routing", reference::routed_same_node()?),
            bridge(reference::bridge_same_node()?),
        ],
    })
}

/// A lab's nodes are joined by a switch, so those of the reference are, too: the wire must be the same. What two
/// routers with nothing but a veth pair between them reach is shown beside it, without a goal.
fn across_nodes(subject: &Subject) -> Result<Scope> {
    let direct = Rival {
        name: "kernel routing, no switch",
        path: reference::routed_across(Wire::Direct)?,
        goals: (None, None),
    };
    Ok(Scope {
        name: "across nodes",
        subject: subject.path("pod-1-1", "pod-2-1")?,
        rivals: vec![
            routing("kernel routing", reference::routed_across(Wire::Switch)?),
            bridge(reference::bridge_across(Wire::Switch)?),
            direct,
        ],
    })
}

fn routing(name: &'static str, path: Path) -> Rival {
    Rival {
        name,
        path,
        goals: (Some(ROUTING_GOAL), Some(STREAM_GOAL)),
    }
}

fn bridge(path: Path) -> Rival {
    Rival {
        name: "bridge plugin",
        path,
        goals: (Some(BRIDGE_GOAL), None),
    }
}

/// Compares everything whose name `wanted` approves of. Each CPU set is measured on its own: one CPU for both ends,
/// then one for each.
pub(crate) fn compare(
    subject: &Subject,
    effort: Effort,
    cpus: [usize; 2],
    mut wanted: impl FnMut(&str) -> bool,
) -> Result<Vec<Comparison>> {
    let mut all = Vec::new();
    for scope in [same_node(subject)?, across_nodes(subject)?] {
        for (client_cpu, server_cpu, count) in [(cpus[1], cpus[1], 1), (cpus[0], cpus[1], 2)] {
            for (kind, flows) in WORKS {
                let work = Work {
                    kind,
                    flows,
                    client_cpu,
                    server_cpu,
                };
                if !wanted(&format!("{} {} {count} cpu", scope.name, work.label())) {
                    continue;
                }
                // Two CPUs are for the record: the scheduler and the caches have their say there.
                let rivals = if count == 1 {
                    scope.rivals.as_slice()
                } else {
                    scope.rivals.get(..1).unwrap_or_default()
                };
                let paths: Vec<_> = std::iter::once(&scope.subject)
                    .chain(rivals.iter().map(|rival| &rival.path))
                    .collect();
                subject.check_alive()?;
                let rounds = load::rounds(&paths, work, effort)?;
                subject.check_alive()?;
                all.extend(judge(scope.name, rivals, work, &rounds, count));
            }
        }
    }
    Ok(all)
}

fn judge<'a>(
    scope: &'a str,
    rivals: &'a [Rival],
    work: Work,
    rounds: &'a [Round],
    cpus: u8,
) -> impl Iterator<Item = Comparison> + 'a {
    let column = |index: usize| rounds.iter().filter_map(move |round| round.get(index).copied());
    rivals.iter().enumerate().map(move |(index, rival)| {
        let ratios = rounds
            .iter()
            .filter_map(|round| Some(round.first()? / round.get(index + 1)?));
        let goal = if work.kind == Kind::TcpStream {
            rival.goals.1
        } else {
            rival.goals.0
        };
        Comparison {
            scope: scope.into(),
            work: work.label(),
            cpus,
            reference: rival.name.into(),
            unit: work.unit().into(),
            subject: Spread::of(column(0)).median,
            reference_rate: Spread::of(column(index + 1)).median,
            ratio: Spread::of(ratios),
            goal: goal.filter(|_| cpus == 1),
        }
    })
}
