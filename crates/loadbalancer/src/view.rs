// SPDX-License-Identifier: Apache-2.0
//! Services as people look at them.

use std::collections::BTreeMap;

use model::{EndpointState, Family, ObjectName, Service};

use crate::entry::Entry;
use crate::resolve::{CLUSTER, LOCAL};
use crate::sets::Group;
use crate::{Balancer, Frontend, Kind, Owner, Remark, Target, choose};

/// A service, or a pod with ports of the node, and what of it is in force here.
#[derive(Clone, Debug)]
pub struct ServiceView {
    /// Who.
    pub owner: Owner,
    /// What clients connect to.
    pub frontends: Vec<FrontendView>,
    /// Who is behind it, those among them that clients of this node do not get.
    pub backends: Vec<BackendView>,
    /// What there is to say.
    pub remarks: Vec<Remark>,
    /// Why not all rows are written.
    pub failed: Option<String>,
}

/// A frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontendView {
    /// What clients connect to.
    pub frontend: Frontend,
    /// What it is.
    pub kind: Kind,
    /// The name of the service's port.
    pub port: String,
    /// How many backends clients of the cluster have, and those from outside; nothing where those may not come.
    pub backends: (usize, Option<usize>),
}

/// A backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendView {
    /// The name of the service's port.
    pub port: String,
    /// Where it listens.
    pub target: Target,
    /// Whether it serves.
    pub state: EndpointState,
    /// Its node and its zone.
    pub place: (Option<String>, Option<String>),
    /// Whether clients that may have any backend get it, and those that may have this node's only.
    pub chosen: [bool; 2],
    /// Whether its address is in no network that this node knows.
    pub is_foreign: bool,
}

impl Balancer {
    /// All with a frontend or something to say, by name; without their backends.
    #[must_use]
    pub fn list(&self) -> Vec<ServiceView> {
        let sorted: BTreeMap<&Owner, &Entry> = self.entries.iter().collect();
        sorted
            .into_iter()
            .map(|(owner, entry)| view(owner, entry))
            .collect()
    }

    /// One by its name, with its backends: the service and the pod of that name.
    #[must_use]
    pub fn get(&self, name: &ObjectName) -> Vec<ServiceView> {
        let owners = [Owner::Service(name.clone()), Owner::Pod(name.clone())];
        let entries = owners.into_iter().filter_map(|owner| {
            let entry = self.entries.get(&owner)?;
            let mut view = view(&owner, entry);
            view.backends = match self.services.get(name).filter(|_| !owner.is_pod()) {
                Some(service) => self.backends(service, entry),
                None => Vec::new(),
            };
            Some(view)
        });
        entries.collect()
    }

    /// What there is to say about one, and whether it is in error; for events.
    #[must_use]
    pub fn remarks(&self, owner: &Owner) -> (&[Remark], Option<&str>) {
        self.entries
            .get(owner)
            .map_or((&[], None), |entry| (&*entry.remarks, entry.failed.as_deref()))
    }

    /// The object of a service.
    #[must_use]
    pub fn service(&self, name: &ObjectName) -> Option<&Service> {
        self.services.get(name).map(|service| &**service)
    }

    fn backends(&self, service: &Service, entry: &Entry) -> Vec<BackendView> {
        let slices = self
            .slices
            .get(&service.name)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let mut all = Vec::new();
        for (family, port) in [Family::Ipv4, Family::Ipv6]
            .iter()
            .flat_map(|family| service.ports.iter().map(move |port| (family, port)))
        {
            let is_its = |group: &&Group| {
                (&group.port, group.transport, &group.family) == (&port.name, port.transport, family)
            };
            let group = entry.groups.iter().find(is_its);
            let (candidates, _) = choose::candidates(service, port, *family, slices, &self.local);
            let is_in = |list: u8, target: &Target| {
                group.is_some_and(|group| group.sets[usize::from(list)].targets.contains(target))
            };
            all.extend(candidates.iter().map(|one| BackendView {
                port: port.name.to_string(),
                target: one.target,
                state: one.state,
                place: (
                    one.endpoint.node.as_deref().map(str::to_owned),
                    one.endpoint.zone.as_deref().map(str::to_owned),
                ),
                chosen: [CLUSTER, LOCAL].map(|list| is_in(list, &one.target)),
                is_foreign: self.is_foreign(one.target.addr),
            }));
        }
        all
    }

    fn is_foreign(&self, addr: std::net::IpAddr) -> bool {
        let local = &self.local;
        local.pod_networks.containing(addr).is_none()
            && !local.nodes.contains(&addr)
            && !local.addresses.contains(&addr)
    }
}

fn view(owner: &Owner, entry: &Entry) -> ServiceView {
    let frontends = entry.frontends.iter().filter_map(|wanted| {
        let group = entry.groups.get(usize::from(wanted.group))?;
        let backends = |list: u8| group.sets[usize::from(list)].targets.len();
        Some(FrontendView {
            frontend: wanted.frontend,
            kind: wanted.kind,
            port: group.port.to_string(),
            backends: (
                backends(wanted.lists[0]),
                (wanted.kind != Kind::ClusterIp).then(|| backends(wanted.lists[1])),
            ),
        })
    });
    ServiceView {
        owner: owner.clone(),
        frontends: frontends.collect(),
        backends: Vec::new(),
        remarks: entry.remarks.to_vec(),
        failed: entry.failed.as_deref().map(str::to_owned),
    }
}
