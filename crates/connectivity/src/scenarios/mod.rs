// SPDX-License-Identifier: Apache-2.0
//! The catalogue: what is tried, between whom, and what it proves.

mod guard;
mod path;
mod reach;
mod services;
mod tools;

use futures::future::BoxFuture;
use model::Family;

use crate::bed::Bed;

/// A test that does not hold, or cannot be tried here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// What was wrong.
    Failed(String),
    /// Why not.
    Skipped(String),
}

/// What was found.
pub(crate) type Verdict = Result<String, Problem>;

/// Who talks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    PodToPodSameNode,
    PodToPodOtherNode,
    PodToOwnNode,
    PodToOtherNode,
    NodeToLocalPod,
    NodeToRemotePod,
    PodToItself,
    PodToApiServer,
    PodToService,
    NodeToService,
}

impl Reach {
    fn name(self) -> &'static str {
        match self {
            Self::PodToPodSameNode => "pod-to-pod-same-node",
            Self::PodToPodOtherNode => "pod-to-pod-other-node",
            Self::PodToOwnNode => "pod-to-own-node",
            Self::PodToOtherNode => "pod-to-other-node",
            Self::NodeToLocalPod => "node-to-local-pod",
            Self::NodeToRemotePod => "node-to-remote-pod",
            Self::PodToItself => "pod-to-itself",
            Self::PodToApiServer => "pod-to-api-server",
            Self::PodToService => "pod-to-service",
            Self::NodeToService => "node-to-service",
        }
    }

    /// Whether it takes two nodes.
    pub(crate) fn crosses_nodes(self) -> bool {
        match self {
            Self::PodToPodOtherNode | Self::PodToOtherNode | Self::NodeToRemotePod => true,
            Self::PodToPodSameNode
            | Self::PodToOwnNode
            | Self::NodeToLocalPod
            | Self::PodToItself
            | Self::PodToApiServer
            | Self::PodToService
            | Self::NodeToService => false,
        }
    }
}

/// Who talks to whom in which family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) reach: Reach,
    pub(crate) family: Family,
}

type Run = for<'bed> fn(&'bed Bed, Case) -> BoxFuture<'bed, Verdict>;

struct Scenario {
    name: &'static str,
    proves: &'static str,
    reaches: &'static [Reach],
    /// Whether it asks Thalweg's agents or expects what only Thalweg promises.
    thalweg: bool,
    run: Run,
}

use Reach::{
    NodeToLocalPod, NodeToRemotePod, NodeToService, PodToApiServer, PodToItself, PodToOtherNode,
    PodToOwnNode, PodToPodOtherNode, PodToPodSameNode, PodToService,
};

const EVERYBODY: &[Reach] = &[
    PodToPodSameNode,
    PodToPodOtherNode,
    PodToOwnNode,
    PodToOtherNode,
    NodeToLocalPod,
    NodeToRemotePod,
    PodToItself,
];
const PODS: &[Reach] = &[PodToPodSameNode, PodToPodOtherNode];

const CATALOGUE: &[Scenario] = &[
    Scenario {
        name: "ping",
        proves: "every pair reaches each other, with no echo lost",
        reaches: EVERYBODY,
        thalweg: false,
        run: |bed, case| Box::pin(reach::ping(bed, case)),
    },
    Scenario {
        name: "tcp",
        proves: "every pair opens a TCP connection and exchanges data on it",
        reaches: EVERYBODY,
        thalweg: false,
        run: |bed, case| Box::pin(reach::tcp(bed, case)),
    },
    Scenario {
        name: "udp",
        proves: "every pair exchanges datagrams, none lost",
        reaches: EVERYBODY,
        thalweg: false,
        run: |bed, case| Box::pin(reach::udp(bed, case)),
    },
    Scenario {
        name: "api-server",
        proves: "pods reach the Kubernetes API server",
        reaches: &[PodToApiServer],
        thalweg: false,
        run: |bed, case| Box::pin(reach::api_server(bed, case)),
    },
    Scenario {
        name: "source-address",
        proves: "the other end sees the caller's own address, not a translated one",
        reaches: &[PodToPodSameNode, PodToPodOtherNode, PodToOwnNode, NodeToLocalPod],
        thalweg: false,
        run: |bed, case| Box::pin(reach::source_address(bed, case)),
    },
    Scenario {
        name: "bulk-data",
        proves: "megabytes in both directions at once arrive unchanged",
        reaches: &[
            PodToPodSameNode,
            PodToPodOtherNode,
            NodeToLocalPod,
            PodToOtherNode,
        ],
        thalweg: false,
        run: |bed, case| Box::pin(reach::bulk(bed, case)),
    },
    Scenario {
        name: "many-connections",
        proves: "hundreds of connections are open at once, and each carries data",
        reaches: PODS,
        thalweg: false,
        run: |bed, case| Box::pin(reach::many(bed, case)),
    },
    Scenario {
        name: "short-connections",
        proves: "connections opened and closed one after the other never fail",
        reaches: PODS,
        thalweg: false,
        run: |bed, case| Box::pin(reach::short(bed, case)),
    },
    Scenario {
        name: "full-size-packets",
        proves: "packets as big as the pod's MTU pass without being fragmented, and bigger ones are refused",
        reaches: PODS,
        thalweg: false,
        run: |bed, case| Box::pin(path::full_size(bed, case)),
    },
    Scenario {
        name: "fragments",
        proves: "datagrams bigger than the MTU arrive, in fragments",
        reaches: PODS,
        thalweg: false,
        run: |bed, case| Box::pin(path::fragments(bed, case)),
    },
    Scenario {
        name: "ttl",
        proves: "each node on the way counts as one hop",
        reaches: PODS,
        thalweg: true,
        run: |bed, case| Box::pin(path::ttl(bed, case)),
    },
    Scenario {
        name: "traceroute",
        proves: "a packet whose time is up is answered by the node where that happens",
        reaches: PODS,
        thalweg: true,
        run: |bed, case| Box::pin(path::traceroute(bed, case)),
    },
    Scenario {
        name: "neighbour-flush",
        proves: "a pod that forgets its gateway's hardware address finds it again by ARP or neighbour discovery",
        reaches: &[PodToPodSameNode],
        thalweg: false,
        run: |bed, case| Box::pin(path::neighbour_flush(bed, case)),
    },
    Scenario {
        name: "spoofed-foreign-source",
        proves: "packets with an address that is nobody's are dropped at the sender's node, and counted",
        reaches: PODS,
        thalweg: true,
        run: |bed, case| Box::pin(guard::foreign_source(bed, case)),
    },
    Scenario {
        name: "spoofed-neighbour-source",
        proves: "packets with the address of another pod on the node are dropped, and counted",
        reaches: &[PodToPodOtherNode],
        thalweg: true,
        run: |bed, case| Box::pin(guard::neighbour_source(bed, case)),
    },
];

/// A test: a scenario between certain parties in one family.
#[derive(Clone, Copy)]
pub struct Test {
    scenario: &'static Scenario,
    case: Case,
}

impl std::fmt::Debug for Test {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.name())
    }
}

/// All tests that there are.
pub fn catalogue() -> Vec<Test> {
    let mut tests = Vec::new();
    for scenario in CATALOGUE.iter().chain(services::CATALOGUE) {
        for reach in scenario.reaches {
            let families = [Family::Ipv4, Family::Ipv6];
            tests.extend(families.map(|family| Test {
                scenario,
                case: Case {
                    reach: *reach,
                    family,
                },
            }));
        }
    }
    tests
}

impl Test {
    /// Its name: `ping/pod-to-own-node/ipv6`.
    pub fn name(&self) -> String {
        let family = match self.case.family {
            Family::Ipv4 => "ipv4",
            Family::Ipv6 => "ipv6",
        };
        format!("{}/{}/{family}", self.scenario.name, self.case.reach.name())
    }

    /// What it proves.
    pub fn proves(&self) -> &'static str {
        self.scenario.proves
    }

    /// Tries it.
    pub(crate) async fn run(&self, bed: &Bed) -> Verdict {
        if let Some(reason) = self.missing(bed) {
            return Err(Problem::Skipped(reason));
        }
        (self.scenario.run)(bed, self.case).await
    }

    /// What the cluster would have to have.
    fn missing(&self, bed: &Bed) -> Option<String> {
        let family = self.case.family;
        if self.case.reach.crosses_nodes() && bed.nodes.len() < 2 {
            return Some("takes two nodes, and there is one".into());
        }
        if bed.nodes.iter().any(|node| node.first.ip(family).is_none()) {
            return Some(format!("pods have no {family} address here"));
        }
        if bed.nodes.iter().any(|node| node.host.ip(family).is_none()) && self.case.reach.involves_node() {
            return Some(format!("nodes have no {family} address here"));
        }
        if self.case.reach == NodeToService && !bed.node_sockets {
            return Some("sockets of nodes reach no services here: socketLB.enabled is false".into());
        }
        if self.scenario.thalweg && !bed.thalweg {
            return Some("the cluster's agents are not Thalweg's".into());
        }
        None
    }
}

impl Reach {
    fn involves_node(self) -> bool {
        match self {
            PodToOwnNode | PodToOtherNode | NodeToLocalPod | NodeToRemotePod | NodeToService => true,
            PodToPodSameNode | PodToPodOtherNode | PodToItself | PodToApiServer | PodToService => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique() {
        let tests = catalogue();
        let names: BTreeSet<_> = tests.iter().map(Test::name).collect();
        assert_eq!(names.len(), tests.len());
        assert!(names.contains("ping/pod-to-pod-other-node/ipv6"), "{names:?}");
    }
}
