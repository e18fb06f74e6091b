// SPDX-License-Identifier: Apache-2.0
//! Which backends clients of this node get: the rules of kube-proxy (`CategorizeEndpoints` in `pkg/proxy/topology.go`).

use std::sync::Arc;

use model::{Distribution, EndpointSlice, EndpointState, Family, Service, ServicePort, SliceEndpoint};

use crate::{Local, Target};

/// A backend that may be chosen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) target: Target,
    pub(crate) state: EndpointState,
    pub(crate) endpoint: &'a SliceEndpoint,
}

impl Candidate<'_> {
    fn is_on(&self, node: &str) -> bool {
        self.endpoint.node.as_deref() == Some(node)
    }
}

/// All that are behind a port in one family, in the order of their addresses; and those that slices say different things of.
pub(crate) fn candidates<'a>(
    service: &Service,
    port: &ServicePort,
    family: Family,
    slices: &'a [Arc<EndpointSlice>],
    local: &Local,
) -> (Vec<Candidate<'a>>, Vec<Target>) {
    let mut all: Vec<Candidate<'a>> = Vec::new();
    for slice in slices.iter().filter(|slice| slice.family == family) {
        let ports = slice.ports.iter();
        for its in ports.filter(|its| (&its.name, its.transport) == (&port.name, port.transport)) {
            all.extend(slice.endpoints.iter().map(|endpoint| Candidate {
                target: Target {
                    addr: endpoint.addr,
                    port: its.port,
                },
                state: if service.publish_not_ready {
                    EndpointState::Ready
                } else {
                    endpoint.state
                },
                endpoint,
            }));
        }
    }
    // Of those that are named twice the best counts: here before elsewhere, then the one that serves.
    let rank = |one: &Candidate<'_>| (one.target, !one.is_on(&local.name), std::cmp::Reverse(one.state));
    all.sort_by_key(rank);
    let mut contradictory = Vec::new();
    all.dedup_by(|next, kept| {
        let same = next.target == kept.target;
        let agree = next.state == kept.state && next.endpoint.node == kept.endpoint.node;
        if same && !agree && contradictory.last() != Some(&kept.target) {
            contradictory.push(kept.target);
        }
        same
    });
    (all, contradictory)
}

/// For clients that may have any backend of the cluster.
pub(crate) fn in_cluster(all: &[Candidate<'_>], distribution: Distribution, local: &Local) -> Vec<Target> {
    let wanted = Wanted::of(all, distribution, local);
    let is_chosen = |one: &&Candidate<'_>| one.state == EndpointState::Ready && wanted.takes(one, local);
    let chosen = targets(all.iter().filter(is_chosen));
    if chosen.is_empty() {
        // Better one that is about to end than none; where it is does not matter any more.
        return targets(all.iter().filter(|one| one.state == EndpointState::Terminating));
    }
    chosen
}

/// For clients that may have backends of this node only.
pub(crate) fn on_this_node(all: &[Candidate<'_>], local: &Local) -> Vec<Target> {
    let here = |state| {
        let is_one = move |one: &&Candidate<'_>| one.is_on(&local.name) && one.state == state;
        targets(all.iter().filter(is_one))
    };
    let ready = here(EndpointState::Ready);
    if ready.is_empty() {
        here(EndpointState::Terminating)
    } else {
        ready
    }
}

/// How many backends this node has that are ready: what load balancers ask for.
pub(crate) fn ready_here(all: &[Candidate<'_>], local: &Local) -> usize {
    let is_one = |one: &&Candidate<'_>| one.is_on(&local.name) && one.state == EndpointState::Ready;
    all.iter().filter(is_one).count()
}

fn targets<'a>(all: impl Iterator<Item = &'a Candidate<'a>>) -> Vec<Target> {
    all.map(|one| one.target).collect()
}

/// Which of those that are ready clients of this node are to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    All { own: bool },
    OfNode { own: bool },
    OfZone { own: bool },
}

impl Wanted {
    /// Hints count only if every backend has one and somebody is meant for here. Where nobody gave hints and the service has a
    /// preference, they are what Kubernetes' own controller would give: a backend is for its zone and its node.
    fn of(all: &[Candidate<'_>], distribution: Distribution, local: &Local) -> Self {
        let ready = || all.iter().filter(|one| one.state == EndpointState::Ready);
        let own = ready().all(|one| one.endpoint.hints.is_none());
        if own && distribution == Distribution::Any {
            return Self::All { own };
        }
        let for_nodes = !own || distribution == Distribution::SameNode;
        let has_node = |one: &Candidate<'_>| nodes(one, own).is_some();
        let has_zone = |one: &Candidate<'_>| zones(one, own).is_some();
        if for_nodes && ready().all(has_node) && ready().any(|one| is_for_node(one, own, local)) {
            return Self::OfNode { own };
        }
        if ready().all(has_zone) && ready().any(|one| is_for_zone(one, own, local)) {
            return Self::OfZone { own };
        }
        Self::All { own }
    }

    fn takes(self, one: &Candidate<'_>, local: &Local) -> bool {
        match self {
            Self::All { .. } => true,
            Self::OfNode { own } => is_for_node(one, own, local),
            Self::OfZone { own } => is_for_zone(one, own, local),
        }
    }
}

fn zones<'a>(one: &'a Candidate<'_>, own: bool) -> Option<&'a [Arc<str>]> {
    let list = match (own, &one.endpoint.hints) {
        (true, _) => one.endpoint.zone.as_ref().map(std::slice::from_ref),
        (false, hints) => hints.as_ref().map(|hints| &*hints.zones),
    };
    list.filter(|list| !list.is_empty())
}

fn nodes<'a>(one: &'a Candidate<'_>, own: bool) -> Option<&'a [Arc<str>]> {
    let list = match (own, &one.endpoint.hints) {
        (true, _) => one.endpoint.node.as_ref().map(std::slice::from_ref),
        (false, hints) => hints.as_ref().map(|hints| &*hints.nodes),
    };
    list.filter(|list| !list.is_empty())
}

fn is_for_zone(one: &Candidate<'_>, own: bool, local: &Local) -> bool {
    let zone = local.zone.as_deref();
    zones(one, own).is_some_and(|list| list.iter().any(|name| Some(&**name) == zone))
}

fn is_for_node(one: &Candidate<'_>, own: bool, local: &Local) -> bool {
    nodes(one, own).is_some_and(|list| list.iter().any(|name| **name == *local.name))
}

#[cfg(test)]
#[path = "choose_test.rs"]
mod tests;
