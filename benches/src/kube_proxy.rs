// SPDX-License-Identifier: Apache-2.0
//! What kube-proxy writes for services: the same chains, maps and rules (`pkg/proxy/iptables/proxier.go` and `pkg/proxy/nftables/proxier.go` of
//! Kubernetes 1.33), with the kernel's conntrack, on a node with two routed pods.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use anyhow::Result;

use crate::load::{BACKENDS, PORT, PORT_STEP};
use crate::namespace::Namespace;
use crate::reference::{self, Frontend, Path};

/// The service that is measured, at both ports that the load generator uses.
pub(crate) const MEASURED: Ipv4Addr = Ipv4Addr::new(10, 96, 200, 200);
const PORTS: [u16; 2] = [PORT, PORT + 1];
const POD_NETWORK: &str = "10.99.0.0/16";

/// A service of those that are there as well, and its backends: addresses of pods that nobody has.
pub(crate) fn other(number: u32) -> (Ipv4Addr, [Ipv4Addr; BACKENDS as usize]) {
    let backend = |index: u32| {
        let pod = (number * u32::from(BACKENDS) + index) % PODS;
        Ipv4Addr::from_bits(FIRST_POD.to_bits() + pod)
    };
    let address = Ipv4Addr::from_bits(FIRST_SERVICE.to_bits() + number);
    (address, [0, 1, 2, 3].map(backend))
}

/// Of the others; there is room for 50,000 before the measured one, in the lab's network of services.
const FIRST_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 1, 0);

/// The pods that nobody is.
const FIRST_POD: Ipv4Addr = Ipv4Addr::new(10, 244, 64, 0);
const PODS: u32 = 1 << 15;

/// One port of a service.
struct ServicePort {
    address: Ipv4Addr,
    port: u16,
    backends: Vec<(Ipv4Addr, u16)>,
}

/// So many services, the measured one in the middle, where the search of a list ends on average.
fn services(count: u32, server: Ipv4Addr) -> Vec<ServicePort> {
    let others = |range: std::ops::Range<u32>| {
        range.map(|number| {
            let (address, backends) = other(number);
            ServicePort {
                address,
                port: 80,
                backends: backends.map(|backend| (backend, 8080)).to_vec(),
            }
        })
    };
    let measured = PORTS.map(|port| ServicePort {
        address: MEASURED,
        port,
        backends: (0..BACKENDS)
            .map(|index| (server, port + index * PORT_STEP))
            .collect(),
    });
    let mut all: Vec<_> = others(0..count / 2).collect();
    all.extend(measured);
    all.extend(others(count / 2..count.saturating_sub(1)));
    all
}

/// Which of its two ways kube-proxy writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Iptables,
    Nftables,
}

/// From a pod through a service to a pod of the same node.
pub(crate) fn path(backend: Backend, count: u32) -> Result<Path> {
    let mut path = reference::routed_same_node()?;
    let server = match path.target {
        std::net::IpAddr::V4(ip) => ip,
        std::net::IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    };
    let services = services(count, server);
    let node: &Namespace = path.node()?;
    match backend {
        Backend::Iptables => node.iptables(&iptables(&services))?,
        Backend::Nftables => node.nft(&nftables(&services))?,
    }
    path.service = Some(Frontend {
        address: MEASURED.into(),
        cgroup: None,
    });
    Ok(path)
}

fn iptables(services: &[ServicePort]) -> String {
    let mut chains =
        String::from("*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-POSTROUTING - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n");
    let mut rules = String::from(
        "-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING\n\
         -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
         -A KUBE-POSTROUTING -j MARK --xor-mark 0x4000\n\
         -A KUBE-POSTROUTING -j MASQUERADE --random-fully\n\
         -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n",
    );
    for (number, service) in services.iter().enumerate() {
        let ServicePort {
            address,
            port,
            backends,
        } = service;
        // Writing to a string does not fail.
        let _ = writeln!(chains, ":KUBE-SVC-{number:016X} - [0:0]");
        let _ = writeln!(
            rules,
            "-A KUBE-SERVICES -d {address}/32 -p tcp -m comment --comment \"bench/s{number} cluster IP\" -m tcp --dport {port} -j KUBE-SVC-{number:016X}\n\
             -A KUBE-SVC-{number:016X} ! -s {POD_NETWORK} -d {address}/32 -p tcp -m comment --comment \"bench/s{number} cluster IP\" -m tcp --dport {port} -j KUBE-MARK-MASQ"
        );
        for (index, (backend, port)) in backends.iter().enumerate() {
            let left = backends.len() - index;
            let dice = if left > 1 {
                format!(
                    "-m statistic --mode random --probability {:.10} ",
                    1.0 / left as f64
                )
            } else {
                String::new()
            };
            let _ = writeln!(chains, ":KUBE-SEP-{number:014X}{index:02} - [0:0]");
            let _ = writeln!(
                rules,
                "-A KUBE-SVC-{number:016X} -m comment --comment \"bench/s{number} -> {backend}:{port}\" {dice}-j KUBE-SEP-{number:014X}{index:02}\n\
                 -A KUBE-SEP-{number:014X}{index:02} -s {backend}/32 -m comment --comment bench/s{number} -j KUBE-MARK-MASQ\n\
                 -A KUBE-SEP-{number:014X}{index:02} -p tcp -m comment --comment bench/s{number} -m tcp -j DNAT --to-destination {backend}:{port}"
            );
        }
    }
    format!(
        "{chains}{rules}COMMIT\n*filter\n:KUBE-FORWARD - [0:0]\n\
         -A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD\n\
         -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n\
         -A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT\n\
         -A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\nCOMMIT\n"
    )
}

fn nftables(services: &[ServicePort]) -> String {
    let (mut chains, mut elements) = (String::new(), Vec::new());
    for (number, service) in services.iter().enumerate() {
        let ServicePort {
            address,
            port,
            backends,
        } = service;
        let mut choices = Vec::new();
        for (index, (backend, port)) in backends.iter().enumerate() {
            let _ = writeln!(
                chains,
                "chain endpoint-{number}-{index} {{ ip saddr {backend} jump mark-for-masquerade; meta l4proto tcp dnat to {backend}:{port}; }}"
            );
            choices.push(format!("{index} : goto endpoint-{number}-{index}"));
        }
        let _ = writeln!(
            chains,
            "chain service-{number} {{ ip daddr {address} tcp dport {port} ip saddr != {POD_NETWORK} jump mark-for-masquerade; \
             numgen random mod {} vmap {{ {} }}; }}",
            backends.len(),
            choices.join(", ")
        );
        elements.push(format!("{address} . tcp . {port} : goto service-{number}"));
    }
    format!(
        "table ip kube-proxy {{
            chain mark-for-masquerade {{ meta mark set meta mark or 0x4000; }}
            {chains}
            map service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; elements = {{ {} }}; }}
            chain services {{ ip daddr . meta l4proto . th dport vmap @service-ips; }}
            chain masquerading {{ meta mark & 0x4000 == 0 return; meta mark set meta mark ^ 0x4000; masquerade fully-random; }}
            chain nat-prerouting {{ type nat hook prerouting priority dstnat; policy accept; jump services; }}
            chain nat-output {{ type nat hook output priority -100; policy accept; jump services; }}
            chain nat-postrouting {{ type nat hook postrouting priority srcnat; policy accept; jump masquerading; }}
        }}",
        elements.join(", ")
    )
}
