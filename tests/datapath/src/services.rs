// SPDX-License-Identifier: Apache-2.0
//! A node with services.

use std::net::{IpAddr, SocketAddr};

use datapath::common::nat::Ports;
use datapath::common::packet::proto;
use datapath::common::service::{BackendKey, MemberKey, SOURCE_SERVICE_BITS, SourceKey};
use datapath::common::{Addr, Backend, Be16, Endpoint, NodeConfig, Service, ServiceKey};
use ipnet::IpNet;

use crate::Node;

/// A service as a test wants it.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What clients connect to.
    pub frontend: SocketAddr,
    /// IP protocol.
    pub proto: u8,
    /// Numbers the service and its sets: that of clients of the cluster is twice this, that of others one more.
    pub id: u32,
    /// For clients of the cluster.
    pub inside: Vec<SocketAddr>,
    /// For clients from outside.
    pub outside: Vec<SocketAddr>,
    /// Of `Service`.
    pub flags: u16,
    /// Ticks.
    pub affinity: u32,
}

impl Wanted {
    /// A service of TCP with one and the same backends for all.
    #[must_use]
    pub fn tcp(id: u32, frontend: &str, backends: &[SocketAddr]) -> Self {
        Self {
            frontend: frontend.parse().expect("address and port"),
            proto: proto::TCP,
            id,
            inside: backends.to_vec(),
            outside: backends.to_vec(),
            flags: Service::EXTERNAL,
            affinity: 0,
        }
    }

    /// The same of UDP, whose clients find out when their backend is gone.
    #[must_use]
    pub fn udp(id: u32, frontend: &str, backends: &[SocketAddr]) -> Self {
        Self {
            proto: proto::UDP,
            flags: Service::EXTERNAL | Service::MEMBERS,
            ..Self::tcp(id, frontend, backends)
        }
    }

    fn sets(&self) -> [u32; 2] {
        [self.id * 2, self.id * 2 + 1]
    }

    fn count(&self) -> [u32; 2] {
        [&self.inside, &self.outside].map(|set| u32::try_from(set.len()).expect("few"))
    }
}

impl Node {
    /// A node that translates services; otherwise as [`masquerading`](Self::masquerading).
    #[must_use]
    pub fn with_services(more: u32) -> Self {
        let flags = NodeConfig::IPV4 | NodeConfig::IPV6 | NodeConfig::SERVICES | more;
        let mut node = Self::with(flags, |_| {});
        node.in_the_cluster();
        let ports = Ports {
            first: 50_000,
            last: 50_999,
        };
        node.masquerade(ports, [Self::V4.into(), Self::V6.into()]);
        for address in [IpAddr::from(Self::V4), Self::V6.into()] {
            let mut own = Endpoint::host();
            own.flags |= Endpoint::SERVICE;
            node.datapath.endpoints().upsert(address, &own).expect("row");
        }
        node
    }

    /// Writes a service, over the one of the same frontend.
    pub fn serve(&mut self, wanted: &Wanted) {
        let services = self.datapath.services().clone();
        for (set, backends) in wanted.sets().into_iter().zip([&wanted.inside, &wanted.outside]) {
            for (slot, backend) in (0..).zip(backends) {
                let (addr, port) = end(backend);
                let row = Backend {
                    addr,
                    port,
                    _pad: [0; 6],
                };
                services
                    .backends()
                    .insert(&BackendKey { set, slot }, &row)
                    .expect("backend");
                services
                    .members()
                    .insert(&member(set, backend), &slot)
                    .expect("member");
            }
        }
        let (addr, port) = end(&wanted.frontend);
        let key = ServiceKey {
            addr,
            port,
            proto: wanted.proto,
            _pad: [0; 5],
        };
        let row = Service {
            sets: wanted.sets(),
            counts: wanted.count(),
            affinity: wanted.affinity,
            id: wanted.id,
            flags: wanted.flags,
            _pad: [0; 3],
            _reserved: 0,
        };
        services.frontends().insert(&key, &row).expect("frontend");
        let ip = wanted.frontend.ip();
        let rows = self.datapath.endpoints();
        if rows.get(ip).expect("endpoints").is_none() {
            let mut row = Endpoint::service();
            row.flags |= Endpoint::CLUSTER_IP;
            rows.upsert(ip, &row).expect("row");
        }
    }

    /// Takes a backend out of the members of a service's sets.
    pub fn forget_member(&self, wanted: &Wanted, backend: &SocketAddr) {
        for set in wanted.sets() {
            self.datapath
                .services()
                .members()
                .remove(&member(set, backend))
                .expect("member");
        }
    }

    /// Lets clients of a network use a service from outside.
    pub fn allow(&self, service: u32, net: &str) {
        let net: IpNet = net.parse().expect("network");
        let bits = u32::from(net.prefix_len()) + if net.addr().is_ipv4() { 96 } else { 0 };
        let key = SourceKey {
            length: SOURCE_SERVICE_BITS + bits,
            service,
            addr: Addr::from(net.network()).quarters(),
        };
        self.datapath
            .services()
            .sources()
            .insert(&key, &0)
            .expect("source");
    }
}

fn member(set: u32, backend: &SocketAddr) -> MemberKey {
    let (addr, port) = end(backend);
    MemberKey {
        addr,
        set,
        port,
        _pad: 0,
    }
}

fn end(end: &SocketAddr) -> (Addr, Be16) {
    (end.ip().into(), Be16::new(end.port()))
}
