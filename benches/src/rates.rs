// SPDX-License-Identifier: Apache-2.0
//! Request rates and throughput, same node and across nodes, against kernel routing and against the bridge plugin.

use anyhow::Result;
use connectivity::perf::Kind;

use crate::kube_proxy::{self, Backend};
use crate::load::{self, Effort, Round, Work};
use crate::reference::{self, Path, Wire};
use crate::results::{Comparison, Spread};
use crate::services::Served;
use crate::subject::{Programs, Subject};

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
    /// What must be reached.
    goals: Goals,
}

/// What ratios must be at least.
#[derive(Clone, Copy, Debug, Default)]
struct Goals {
    /// Of transactions on a connection.
    rr: Option<f64>,
    /// Of connections.
    crr: Option<f64>,
    /// Of throughput.
    stream: Option<f64>,
}

impl Goals {
    fn of(self, kind: Kind) -> Option<f64> {
        match kind {
            Kind::TcpRr | Kind::UdpRr => self.rr,
            Kind::TcpCrr => self.crr,
            Kind::TcpStream => self.stream,
        }
    }
}

/// What the ratio of connections through a tunnel to those without one must be at least.
const NATIVE_GOAL: f64 = 0.85;

/// Tunnels, by whom they are made: name, and arguments of the lab.
const TUNNELS: [(&str, &[&str]); 3] = [
    (
        "VXLAN by the kernel's device",
        &["--routing", "vxlan", "--set", "tunnelEncapsulation=kernel"],
    ),
    (
        "VXLAN by the programs",
        &["--routing", "vxlan", "--set", "tunnelEncapsulation=ebpf"],
    ),
    (
        "Geneve by the programs",
        &["--routing", "geneve", "--set", "tunnelEncapsulation=ebpf"],
    ),
];

/// What the ratio of connections to the world to those that netfilter masquerades must be at least.
const MASQUERADE_GOAL: f64 = 1.1;

/// Where load runs.
struct Scope {
    name: String,
    subject: Path,
    rivals: Vec<Rival>,
}

fn same_node(subject: &Subject) -> Result<Scope> {
    Ok(Scope {
        name: "same node".into(),
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
        goals: Goals::default(),
    };
    Ok(Scope {
        name: "across nodes".into(),
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
        goals: Goals {
            rr: Some(ROUTING_GOAL),
            crr: Some(ROUTING_GOAL),
            stream: Some(STREAM_GOAL),
        },
    }
}

fn bridge(path: Path) -> Rival {
    Rival {
        name: "bridge plugin",
        path,
        goals: Goals {
            rr: Some(BRIDGE_GOAL),
            crr: Some(BRIDGE_GOAL),
            stream: None,
        },
    }
}

/// Same node and across nodes, as [`compare_in`] does.
pub(crate) fn compare(
    subject: &Subject,
    effort: Effort,
    cpus: [usize; 2],
    wanted: impl FnMut(&str) -> bool,
) -> Result<Vec<Comparison>> {
    let scopes = [same_node(subject)?, across_nodes(subject)?];
    compare_in(&scopes, &[subject], effort, cpus, wanted)
}

/// Tunnels against the kernel's own device with plain routing, and against ourselves without a tunnel, as [`compare_in`] does.
pub(crate) fn compare_tunnels(
    native: &Subject,
    programs: &Programs,
    effort: Effort,
    cpus: [usize; 2],
    mut wanted: impl FnMut(&str) -> bool,
) -> Result<Vec<Comparison>> {
    let mut all = Vec::new();
    for (name, arguments) in TUNNELS {
        let subject = Subject::start_as("bench-tunnel", programs, 2, 1, arguments)?;
        let scope = Scope {
            name: name.into(),
            subject: subject.path("pod-1-1", "pod-2-1")?,
            rivals: vec![
                routing("kernel vxlan device", reference::tunnelled_across()?),
                Rival {
                    name: "Thalweg without a tunnel",
                    path: native.path("pod-1-1", "pod-2-1")?,
                    goals: Goals {
                        crr: Some(NATIVE_GOAL),
                        ..Goals::default()
                    },
                },
            ],
        };
        all.extend(compare_in(
            &[scope],
            &[&subject, native],
            effort,
            cpus,
            &mut wanted,
        )?);
    }
    Ok(all)
}

/// Pods to the world with their node's address there, against kernel routing with nftables, as [`compare_in`] does.
pub(crate) fn compare_masquerade(
    programs: &Programs,
    effort: Effort,
    cpus: [usize; 2],
    wanted: impl FnMut(&str) -> bool,
) -> Result<Vec<Comparison>> {
    let arguments = ["--set", "enableIPv4Masquerade=true"];
    let subject = Subject::start_as("bench-world", programs, 1, 1, &arguments)?;
    let scope = Scope {
        name: "pod to world".into(),
        subject: subject.path_to_world("pod-1-1")?,
        rivals: vec![Rival {
            name: "kernel routing + nftables",
            path: reference::masqueraded_to_world()?,
            goals: Goals {
                crr: Some(MASQUERADE_GOAL),
                ..Goals::default()
            },
        }],
    };
    compare_in(&[scope], &[&subject], effort, cpus, wanted)
}

/// What the ratio of connections through a service must be at least: to those through kube-proxy's rules, and straight to the pod.
const KUBE_PROXY_GOAL: f64 = 1.15;
const STRAIGHT_GOAL: f64 = 0.97;

/// Connections through one of so many services against what kube-proxy writes for as many, as [`compare_in`] does. Of throughput
/// nothing is measured: it is that of the path.
pub(crate) fn compare_services(
    programs: &Programs,
    count: u32,
    effort: Effort,
    cpus: [usize; 2],
    mut wanted: impl FnMut(&str) -> bool,
) -> Result<Vec<Comparison>> {
    let served = Served::start(programs, count)?;
    let mut all = Vec::new();
    for (way, by_socket) in [("by sockets", true), ("by packets", false)] {
        let rival = |name, path, goal| Rival {
            name,
            path,
            goals: Goals {
                rr: Some(1.0),
                crr: Some(goal),
                stream: None,
            },
        };
        let scope = Scope {
            name: format!("{count} services, {way}"),
            subject: served.path(by_socket)?,
            rivals: vec![
                rival(
                    "iptables of kube-proxy",
                    kube_proxy::path(Backend::Iptables, count)?,
                    KUBE_PROXY_GOAL,
                ),
                rival(
                    "nftables of kube-proxy",
                    kube_proxy::path(Backend::Nftables, count)?,
                    KUBE_PROXY_GOAL,
                ),
                rival(
                    "straight to the pod",
                    served.subject.path("pod-1-1", "pod-1-2")?,
                    STRAIGHT_GOAL,
                ),
            ],
        };
        let one_cpu = |name: &str| {
            !name.contains("STREAM") && name.ends_with("1 cpu") && !name.contains("UDP") && wanted(name)
        };
        all.extend(compare_in(&[scope], &[&served.subject], effort, cpus, one_cpu)?);
    }
    Ok(all)
}

/// Compares everything whose name `wanted` approves of. Each CPU set is measured on its own: one CPU for both ends,
/// then one for each.
fn compare_in(
    scopes: &[Scope],
    subjects: &[&Subject],
    effort: Effort,
    cpus: [usize; 2],
    mut wanted: impl FnMut(&str) -> bool,
) -> Result<Vec<Comparison>> {
    let alive = || subjects.iter().try_for_each(|subject| subject.check_alive());
    let mut all = Vec::new();
    for scope in scopes {
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
                alive()?;
                let rounds = load::rounds(&paths, work, effort)?;
                alive()?;
                all.extend(judge(&scope.name, rivals, work, &rounds, count));
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
        let goal = rival.goals.of(work.kind);
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
