// SPDX-License-Identifier: Apache-2.0
//! What one service wants: frontends and the backends behind them, whoever else may claim them too.

use std::net::IpAddr;
use std::sync::Arc;

use datapath_common::service::Service as Row;
use ipnet::IpNet;
use model::{Algorithm, EndpointSlice, Exposure, Family, Service, ServicePort, Transport};

use crate::choose::{self, Candidate};
use crate::{Frontend, Kind, Local, PodPorts, Settings, Target};

/// Backends anywhere, and those of this node: what the traffic policies choose between.
pub(crate) const CLUSTER: u8 = 0;
pub(crate) const LOCAL: u8 = 1;

/// How much a remark weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Something is not as one may think.
    Note,
    /// Something of what the service asks for is not done.
    Refused,
}

/// What there is to say about a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// How much it weighs.
    pub weight: Weight,
    /// In one word, for events.
    pub reason: &'static str,
    /// In a sentence.
    pub text: Box<str>,
}

impl Remark {
    pub(crate) fn refused(reason: &'static str, text: String) -> Self {
        Self {
            weight: Weight::Refused,
            reason,
            text: text.into(),
        }
    }

    fn note(reason: &'static str, text: String) -> Self {
        Self {
            weight: Weight::Note,
            reason,
            text: text.into(),
        }
    }
}

/// What a service, or a pod with ports of the node, wants.
#[derive(Clone, Debug, Default)]
pub(crate) struct Desired {
    pub(crate) groups: Vec<WantedGroup>,
    pub(crate) frontends: Vec<Wanted>,
    pub(crate) remarks: Vec<Remark>,
    /// Backends of this node that are ready, by the service's busiest port.
    pub(crate) ready_here: usize,
}

/// The backends of a port in one family.
#[derive(Clone, Debug)]
pub(crate) struct WantedGroup {
    pub(crate) port: Arc<str>,
    pub(crate) transport: Transport,
    pub(crate) family: Family,
    /// By [`CLUSTER`] and [`LOCAL`]; sorted.
    pub(crate) lists: [Vec<Target>; 2],
    /// Slots of the lookup table; 0: the backends themselves are the slots.
    pub(crate) table: u32,
    /// Flags that all its frontends have.
    pub(crate) flags: u16,
    pub(crate) affinity_seconds: u32,
    pub(crate) ranges: Box<[IpNet]>,
}

/// A frontend that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) frontend: Frontend,
    pub(crate) kind: Kind,
    /// The place of its group.
    pub(crate) group: u16,
    /// For clients inside and outside.
    pub(crate) lists: [u8; 2],
    pub(crate) flags: u16,
}

/// What decides beside the objects.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Circumstances<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) local: &'a Local,
}

impl Circumstances<'_> {
    /// What a service wants.
    pub(crate) fn of_service(self, service: &Service, slices: &[Arc<EndpointSlice>]) -> Desired {
        let mut desired = Desired::default();
        for family in [Family::Ipv4, Family::Ipv6] {
            if !service.cluster_ips.iter().any(|ip| Family::of(ip) == family) {
                continue;
            }
            for port in &service.ports {
                self.port(service, (port, family), slices, &mut desired);
            }
        }
        let mut families = service.exposure.iter().flat_map(|outside| outside.addresses());
        let strange = families.find(|(_, ip)| {
            !service
                .cluster_ips
                .iter()
                .any(|own| own.is_ipv4() == ip.is_ipv4())
        });
        if let Some((kind, ip)) = strange {
            let text = format!(
                "{} {ip} is of a family that the service has not (spec.ipFamilies)",
                kind.name()
            );
            desired.remarks.push(Remark::refused("WrongFamily", text));
        }
        desired
    }

    fn port(
        self,
        service: &Service,
        (port, family): (&ServicePort, Family),
        slices: &[Arc<EndpointSlice>],
        desired: &mut Desired,
    ) {
        let is_same = |group: &WantedGroup| {
            (&group.port, group.transport, group.family) == (&port.name, port.transport, family)
        };
        if desired.groups.iter().any(is_same) {
            let text = format!(
                "port {} {:?} is there twice; the first counts",
                port.port, port.name
            );
            desired.remarks.push(Remark::refused("DuplicatePort", text));
            return;
        }
        let (mut all, contradictory) = choose::candidates(service, port, family, slices, self.local);
        for target in contradictory {
            let text = format!("EndpointSlices say different things of {target}; the better one counts");
            desired.remarks.push(Remark::note("ContradictingSlices", text));
        }
        all.retain(|one| {
            let unusable = unusable(one.target.addr);
            if let Some(why) = unusable {
                let text = format!("backend {} is left out: {why}", one.target);
                desired.remarks.push(Remark::refused("UnusableBackend", text));
            }
            unusable.is_none()
        });
        desired.ready_here = desired.ready_here.max(choose::ready_here(&all, self.local));
        let group = self.group(service, (port, family), &all, &mut desired.remarks);
        let place = u16::try_from(desired.groups.len()).unwrap_or(u16::MAX);
        for wanted in self.frontends(service, (port, family), place, &mut desired.remarks) {
            match self.refusal(&wanted, &group) {
                None => desired.frontends.push(wanted),
                Some(remark) => desired.remarks.push(remark),
            }
        }
        desired.groups.push(group);
    }

    fn group(
        self,
        service: &Service,
        (port, family): (&ServicePort, Family),
        all: &[Candidate<'_>],
        remarks: &mut Vec<Remark>,
    ) -> WantedGroup {
        let exposure = service.exposure.as_deref();
        let local_outside = exposure.is_some_and(|exposure| exposure.local);
        // From inside, all backends of the cluster may answer at the addresses that are for outside.
        let cluster = if service.internal_local && exposure.is_none() {
            Vec::new()
        } else {
            choose::in_cluster(all, service.distribution, self.local)
        };
        let local = if service.internal_local || local_outside {
            choose::on_this_node(all, self.local)
        } else {
            Vec::new()
        };
        let hashed = service.algorithm.unwrap_or(self.settings.algorithm) == Algorithm::Maglev;
        let size = self.settings.maglev_size;
        let fits = cluster.len().max(local.len()) <= size as usize;
        if hashed && !fits {
            let text = format!(
                "{} backends do not fit into a Maglev table of {size}: a change of backends moves many connections; raise the \
                 setting loadBalancer.maglevTableSize",
                cluster.len().max(local.len())
            );
            remarks.push(Remark::note("TableTooSmall", text));
        }
        let members = service.affinity_seconds > 0 || port.transport == Transport::Udp;
        let if_so = |so: bool, flag: u16| if so { flag } else { 0 };
        WantedGroup {
            port: port.name.clone(),
            transport: port.transport,
            family,
            lists: [cluster, local],
            table: if hashed && fits { size } else { 0 },
            flags: if_so(hashed, Row::HASHED)
                | if_so(members, Row::MEMBERS)
                | if_so(self.settings.silent, Row::SILENT),
            affinity_seconds: service.affinity_seconds,
            ranges: exposure
                .map(|exposure| exposure.source_ranges.clone())
                .unwrap_or_default(),
        }
    }

    fn frontends(
        self,
        service: &Service,
        (port, family): (&ServicePort, Family),
        group: u16,
        remarks: &mut Vec<Remark>,
    ) -> Vec<Wanted> {
        let at = |addr: IpAddr, port_number: u16| Frontend {
            addr,
            port: port_number,
            transport: port.transport,
        };
        let inside = if service.internal_local { LOCAL } else { CLUSTER };
        let own = service.cluster_ips.iter().filter(|ip| Family::of(ip) == family);
        let mut all: Vec<Wanted> = own
            .map(|ip| Wanted {
                frontend: at(*ip, port.port),
                kind: Kind::ClusterIp,
                group,
                lists: [inside, inside],
                flags: 0,
            })
            .collect();
        let Some(exposure) = service.exposure.as_deref() else {
            return all;
        };
        let outside = |frontend: Frontend, kind: Kind| {
            let ranges = kind == Kind::LoadBalancer && !exposure.source_ranges.is_empty();
            Wanted {
                frontend,
                kind,
                group,
                lists: [CLUSTER, if exposure.local { LOCAL } else { CLUSTER }],
                flags: Row::EXTERNAL
                    | if exposure.local { Row::KEEP_SOURCE } else { 0 }
                    | if ranges { Row::RANGES } else { 0 },
            }
        };
        let addresses = exposure.addresses().filter(|(_, ip)| Family::of(ip) == family);
        all.extend(addresses.map(|(kind, ip)| outside(at(ip, port.port), kind)));
        if port.node_port > 0 {
            let (first, last) = self.settings.node_ports;
            if (first..=last).contains(&port.node_port) {
                let addresses = self.node_addresses(family);
                all.extend(addresses.map(|ip| outside(at(ip, port.node_port), Kind::NodePort)));
            } else {
                let text = format!(
                    "node port {} is outside of {first}-{last}, the setting nodePort.range, which should be what the API server has",
                    port.node_port
                );
                remarks.push(Remark::refused("NodePortOutOfRange", text));
            }
        }
        all
    }

    /// The node's addresses that services of a port on every node are reached at.
    fn node_addresses(self, family: Family) -> impl Iterator<Item = IpAddr> {
        let nets = &self.settings.node_port_networks;
        let own = self.local.addresses.iter().copied();
        own.filter(move |ip| {
            Family::of(ip) == family && (nets.is_empty() || nets.iter().any(|net| net.contains(ip)))
        })
    }

    /// Why a frontend cannot be.
    fn refusal(self, wanted: &Wanted, group: &WantedGroup) -> Option<Remark> {
        let (frontend, kind) = (&wanted.frontend, wanted.kind.name());
        let refused =
            |reason, why: String| Some(Remark::refused(reason, format!("{kind} {frontend}: {why}")));
        if let Some(why) = unusable(frontend.addr) {
            return refused("UnusableAddress", why.to_owned());
        }
        let is_here = matches!(wanted.kind, Kind::NodePort | Kind::HostPort);
        if let Some(net) = self
            .local
            .pod_networks
            .containing(frontend.addr)
            .filter(|_| !is_here)
        {
            let why =
                format!("the address is in {net}, a network of pods; services need addresses of their own");
            return refused("PodAddress", why);
        }
        let is_nodes =
            self.local.addresses.contains(&frontend.addr) || self.local.nodes.contains(&frontend.addr);
        if wanted.kind == Kind::ClusterIp && is_nodes {
            return refused(
                "NodeAddress",
                "the address is a node's; services need addresses of their own".into(),
            );
        }
        let changes_port = |target: &&Target| target.port != frontend.port;
        let mut targets = wanted
            .lists
            .iter()
            .flat_map(|list| &group.lists[usize::from(*list)]);
        if frontend.transport == Transport::Sctp
            && let Some(target) = targets.find(changes_port)
        {
            let why = format!(
                "its backends listen at port {}: the checksum of SCTP (CRC32c over the whole packet) cannot be renewed where a port \
                 is changed; give both the same port",
                target.port
            );
            return refused("SctpPortChanged", why);
        }
        None
    }

    /// What a pod with ports of the node wants.
    pub(crate) fn of_pod(self, pod: &PodPorts) -> Desired {
        let mut desired = Desired::default();
        let each = pod
            .ports
            .iter()
            .flat_map(|port| pod.ips.iter().map(move |ip| (port, *ip)));
        for (port, ip) in each {
            let (family, all) = (Family::of(&ip), [Transport::Tcp, Transport::Udp, Transport::Sctp]);
            let Some(transport) = all.into_iter().find(|one| one.number() == port.proto) else {
                continue;
            };
            let group = WantedGroup {
                port: port
                    .addr
                    .map_or_else(|| port.port.to_string(), |addr| format!("{addr} {}", port.port))
                    .into(),
                transport,
                family,
                lists: [
                    vec![Target {
                        addr: ip,
                        port: port.to,
                    }],
                    Vec::new(),
                ],
                table: 0,
                flags: if transport == Transport::Udp {
                    Row::MEMBERS
                } else {
                    0
                },
                affinity_seconds: 0,
                ranges: Box::default(),
            };
            let place = u16::try_from(desired.groups.len()).unwrap_or(u16::MAX);
            let addresses = self
                .local
                .addresses
                .iter()
                .filter(|own| Family::of(own) == family);
            for own in addresses.filter(|own| port.addr.is_none_or(|addr| addr == **own)) {
                let wanted = Wanted {
                    frontend: Frontend {
                        addr: *own,
                        port: port.port,
                        transport,
                    },
                    kind: Kind::HostPort,
                    group: place,
                    lists: [CLUSTER, CLUSTER],
                    flags: Row::EXTERNAL | Row::KEEP_SOURCE,
                };
                match self.refusal(&wanted, &group) {
                    None => desired.frontends.push(wanted),
                    Some(remark) => desired.remarks.push(remark),
                }
            }
            desired.groups.push(group);
        }
        desired
    }
}

/// Addresses for outside and what they are.
trait Outside {
    fn addresses(&self) -> impl Iterator<Item = (Kind, IpAddr)>;
}

impl Outside for Exposure {
    fn addresses(&self) -> impl Iterator<Item = (Kind, IpAddr)> {
        let balancers = self.load_balancer_ips.iter().map(|ip| (Kind::LoadBalancer, *ip));
        balancers.chain(self.external_ips.iter().map(|ip| (Kind::ExternalIp, *ip)))
    }
}

/// Why packets can neither come to an address nor be sent to it.
fn unusable(addr: IpAddr) -> Option<&'static str> {
    let link_local = match addr {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.to_ipv4_mapped().is_some(),
    };
    [
        (addr.is_unspecified(), "it is no address"),
        (addr.is_loopback(), "it means another machine on each"),
        (addr.is_multicast(), "it is that of a group"),
        (link_local, "it is of use on one link only"),
    ]
    .into_iter()
    .find_map(|(so, why)| so.then_some(why))
}
