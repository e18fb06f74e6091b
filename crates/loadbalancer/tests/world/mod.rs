// SPDX-License-Identifier: Apache-2.0
//! Maps that remember what is written, and objects to make rows of.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use datapath_common::Addr;
use datapath_common::service::{BackendKey, Service as Row, ServiceKey, SourceKey};
use model::{
    Distribution, EndpointSlice, EndpointState, Exposure, Family, ObjectName, Service, ServicePort,
    SliceEndpoint, SlicePort, Transport,
};
use thalweg_loadbalancer::{Balancer, Batch, Former, Frontend, Local, Settings, Target};

/// The maps.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Maps {
    pub(crate) backends: BTreeMap<(u32, u32), Target>,
    pub(crate) members: BTreeMap<(u32, Target), u32>,
    pub(crate) sources: BTreeSet<(u32, u32, [u32; 4])>,
    pub(crate) frontends: BTreeMap<Frontend, Row>,
    pub(crate) addresses: BTreeSet<IpAddr>,
}

/// A frontend as clients have it: flags, affinity, who answers inside and outside, who may come.
pub(crate) type Seen = (u16, u32, [BTreeSet<Target>; 2], BTreeSet<(u32, [u32; 4])>);

impl Maps {
    /// Does what a batch says, in its order; after every step all that clients may find is whole.
    pub(crate) fn apply(&mut self, batch: &Batch) {
        for (key, row) in &batch.backends {
            self.backends
                .insert((key.set, key.slot), target(row.addr, row.port.get()));
        }
        for (key, slot) in &batch.members {
            self.members
                .insert((key.set, target(key.addr, key.port.get())), *slot);
        }
        self.sources.extend(batch.sources.iter().map(source));
        for (key, row) in &batch.frontends {
            self.frontends.insert(frontend(key), *row);
            self.check();
        }
        self.addresses.extend(&batch.addresses);
        for addr in &batch.gone_addresses {
            self.addresses.remove(addr);
        }
        for key in &batch.gone_frontends {
            self.frontends.remove(&frontend(key));
        }
        for key in &batch.gone_sources {
            self.sources.remove(&source(key));
        }
        for key in &batch.gone_members {
            self.members.remove(&(key.set, target(key.addr, key.port.get())));
        }
        for BackendKey { set, slot } in &batch.gone_backends {
            self.backends.remove(&(*set, *slot));
        }
        self.check();
    }

    /// What an agent does when a map was full after some slots: those that clients find first go, and services are written one by one.
    pub(crate) fn fail(&mut self, batch: &Batch, written: usize) {
        for (key, row) in batch.backends.iter().take(written) {
            self.backends
                .insert((key.set, key.slot), target(row.addr, row.port.get()));
        }
        for addr in &batch.gone_addresses {
            self.addresses.remove(addr);
        }
        for key in &batch.gone_frontends {
            self.frontends.remove(&frontend(key));
        }
        for key in &batch.gone_sources {
            self.sources.remove(&source(key));
        }
        self.check();
    }

    /// Every slot that a frontend counts is there.
    fn check(&self) {
        for (frontend, row) in &self.frontends {
            for (set, count) in row.sets.iter().zip(row.counts) {
                for slot in 0..count {
                    assert!(
                        self.backends.contains_key(&(*set, slot)),
                        "{frontend}: slot {slot} of set {set} is missing"
                    );
                }
            }
        }
    }

    /// What clients find, without the numbers.
    pub(crate) fn seen(&self) -> BTreeMap<Frontend, Seen> {
        let see = |row: &Row| {
            let list = |side: usize| {
                let slot = |slot: u32| self.backends[&(row.sets[side], slot)];
                (0..row.counts[side]).map(slot).collect::<BTreeSet<Target>>()
            };
            let sources = self.sources.iter().filter(|(_, service, _)| *service == row.id);
            (
                row.flags,
                row.affinity,
                [list(0), list(1)],
                sources.map(|(length, _, addr)| (*length, *addr)).collect(),
            )
        };
        self.frontends
            .iter()
            .map(|(frontend, row)| (*frontend, see(row)))
            .collect()
    }

    /// Nothing is there that no frontend leads to, and members are those of the sets.
    pub(crate) fn assert_tidy(&self) {
        let sets: BTreeSet<u32> = self
            .frontends
            .values()
            .flat_map(|row| row.sets)
            .map(|set| set / 2)
            .collect();
        let ids: BTreeSet<u32> = self.frontends.values().map(|row| row.id).collect();
        for (set, slot) in self.backends.keys() {
            assert!(sets.contains(&(set / 2)), "slot {slot} of set {set} is nobody's");
        }
        for (_, service, _) in &self.sources {
            assert!(ids.contains(service), "sources of {service} are nobody's");
        }
        for ((set, target), slot) in &self.members {
            assert_eq!(
                self.backends.get(&(*set, *slot)),
                Some(target),
                "member {target} of {set}"
            );
        }
        for row in self
            .frontends
            .values()
            .filter(|row| row.flags & Row::MEMBERS != 0)
        {
            for (set, count) in row.sets.iter().zip(row.counts) {
                for slot in 0..count {
                    assert!(self.members.contains_key(&(*set, self.backends[&(*set, slot)])));
                }
            }
        }
    }

    /// As one who starts finds them.
    pub(crate) fn former(&self) -> Former {
        let mut former = Former::default();
        for (frontend, row) in &self.frontends {
            former.frontend(&frontend.key(), row);
        }
        for ((set, slot), target) in &self.backends {
            let row = datapath_common::service::Backend {
                addr: target.addr.into(),
                port: datapath_common::Be16::new(target.port),
                _pad: [0; 6],
            };
            former.backend(
                &BackendKey {
                    set: *set,
                    slot: *slot,
                },
                &row,
            );
        }
        for ((set, target), slot) in &self.members {
            let key = datapath_common::service::MemberKey {
                addr: target.addr.into(),
                set: *set,
                port: datapath_common::Be16::new(target.port),
                _pad: 0,
            };
            former.member(&key, *slot);
        }
        for (length, service, addr) in &self.sources {
            former.source(&SourceKey {
                length: *length,
                service: *service,
                addr: *addr,
            });
        }
        self.addresses.iter().for_each(|addr| former.address(*addr));
        former
    }
}

/// Works off all that is to be done, where every batch fails at first; leaves slots of who is no more.
pub(crate) fn settle_badly(balancer: &mut Balancer, maps: &mut Maps) {
    while balancer.is_behind() {
        let batch = balancer.step(2);
        maps.fail(&batch, batch.backends.len() / 2);
        for owner in &batch.owners {
            let again = balancer.again(owner);
            maps.apply(&again);
            balancer.confirm(std::slice::from_ref(owner));
        }
    }
}

/// Works off all that is to be done, and says how many rows that were.
pub(crate) fn settle(balancer: &mut Balancer, maps: &mut Maps) -> usize {
    let mut rows = 0;
    while balancer.is_behind() {
        let batch = balancer.step(2);
        rows += batch.len();
        maps.apply(&batch);
        balancer.confirm(&batch.owners);
    }
    rows
}

fn frontend(key: &ServiceKey) -> Frontend {
    Frontend::of(key).unwrap()
}

fn target(addr: Addr, port: u16) -> Target {
    Target {
        addr: addr.to_ip(),
        port,
    }
}

fn source(key: &SourceKey) -> (u32, u32, [u32; 4]) {
    (key.length, key.service, key.addr)
}

pub(crate) fn balancer(settings: Settings) -> Balancer {
    let mut balancer = Balancer::new(settings);
    balancer.set_local(local());
    balancer
}

/// A node with two addresses, in zone `a`.
pub(crate) fn local() -> Local {
    Local {
        name: "n1".into(),
        zone: Some("a".into()),
        addresses: ["172.30.0.1", "fd74:77::1"].map(ip).into(),
        nodes: ["172.30.0.1", "172.30.0.2", "fd74:77::1"].map(ip).into(),
        pod_networks: ["10.244.0.0/24", "10.244.1.0/24"]
            .map(|net| net.parse().unwrap())
            .into_iter()
            .collect(),
    }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A service of one port: its name, its address, `transport port[:node port]`.
pub(crate) fn service(name: &str, addr: &str, port: &str) -> Service {
    let (transport, port) = port.split_once(' ').unwrap();
    let (port, node_port) = port.split_once(':').unwrap_or((port, "0"));
    let node_port: u16 = node_port.parse().unwrap();
    Service {
        name: ObjectName::new("default", name),
        uid: name.into(),
        created: 0,
        cluster_ips: [ip(addr)].into(),
        ports: [ServicePort {
            name: "".into(),
            transport: Transport::parse(transport).unwrap(),
            port: port.parse().unwrap(),
            node_port,
        }]
        .into(),
        exposure: (node_port > 0).then(Box::default),
        affinity_seconds: 0,
        internal_local: false,
        publish_not_ready: false,
        distribution: Distribution::Any,
        algorithm: None,
    }
}

/// A slice of a service: the ends of its backends' addresses, and their port.
pub(crate) fn slice(service: &Service, name: &str, ends: &[u8], port: u16) -> EndpointSlice {
    let endpoint = |end: &u8| SliceEndpoint {
        addr: [10, 244, end % 2, *end].into(),
        state: EndpointState::Ready,
        node: Some(if end.is_multiple_of(2) { "n1" } else { "n2" }.into()),
        zone: None,
        hints: None,
    };
    EndpointSlice {
        name: ObjectName::new("default", name),
        service: service.name.clone(),
        family: Family::Ipv4,
        ports: [SlicePort {
            name: "".into(),
            transport: service.ports[0].transport,
            port,
        }]
        .into(),
        endpoints: ends.iter().map(endpoint).collect(),
    }
}

/// The same, reached from outside in this way.
pub(crate) fn exposed(service: Service, exposure: Exposure) -> Service {
    Service {
        exposure: Some(Box::new(exposure)),
        ..service
    }
}

pub(crate) fn add(balancer: &mut Balancer, service: &Service, ends: &[u8], port: u16) {
    balancer.set_service(Arc::new(service.clone()));
    let slice = slice(service, &format!("{}-1", service.name.name()), ends, port);
    balancer.change_slice(None, Some(Arc::new(slice)));
}
