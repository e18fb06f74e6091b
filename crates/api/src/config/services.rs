// SPDX-License-Identifier: Apache-2.0
//! The settings of services.

use std::path::PathBuf;

use ipnet::IpNet;
use model::{Algorithm, MAGLEV_SIZES};

use super::{Config, Take, parse};

const ALGORITHMS: &[(&str, Algorithm)] = &[("random", Algorithm::Random), ("maglev", Algorithm::Maglev)];

/// How services are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Services {
    /// How backends are chosen where the service does not say.
    pub algorithm: Algorithm,
    /// Slots of a table of Maglev.
    pub maglev_table_size: u32,
    /// Whether packets vanish where there is no backend.
    pub silent: bool,
    /// How many frontends fit; nothing to derive it from the machine's memory.
    pub services_max: Option<u32>,
    /// The cgroup2 hierarchy whose sockets talk to backends themselves; nothing if packets are to be translated instead.
    pub sockets: Option<PathBuf>,
    /// The ports on every node, both ends included.
    pub node_ports: (u16, u16),
    /// Networks of the node's addresses that these are at; all addresses, if there are none.
    pub node_port_networks: Vec<IpNet>,
}

/// All settings are looked at, used or not: one that is wrong is said before it matters.
pub(super) fn take(take: &mut Take) -> Option<Services> {
    let on = take.value("kubeProxyReplacement", parse::boolean);
    let services = Services {
        algorithm: take.value("loadBalancer.algorithm", |raw| parse::one_of(raw, ALGORITHMS)),
        maglev_table_size: take.value("loadBalancer.maglevTableSize", |raw| {
            parse::one_of(raw, &MAGLEV_SIZES)
        }),
        silent: take.value("loadBalancer.noBackend", |raw| {
            parse::one_of(raw, &[("reject", false), ("drop", true)])
        }),
        services_max: take.value("loadBalancer.servicesMax", |raw| {
            parse::zero_or(raw, 16..=1 << 22)
        }),
        sockets: sockets(take),
        node_ports: take.value("nodePort.range", parse::node_port_range),
        node_port_networks: take.value("nodePort.addresses", parse::networks),
    };
    on.then_some(services)
}

fn sockets(take: &mut Take) -> Option<PathBuf> {
    let on = take.value("socketLB.enabled", parse::boolean);
    let root = take.value("cgroup.hostRoot", parse::optional_path);
    on.then(|| root.unwrap_or_else(default_root))
}

/// Where distributions mount the hierarchy; where both versions are mounted, it is a level below.
fn default_root() -> PathBuf {
    let below = PathBuf::from("/sys/fs/cgroup/unified");
    if below.is_dir() {
        below
    } else {
        PathBuf::from("/sys/fs/cgroup")
    }
}

/// What leaves no room for services in the programs.
pub(super) fn check(config: &Config, take: &mut Take) {
    let Some(services) = &config.services else { return };
    if config.cni.behind.is_some() {
        let expected =
            "false while cni.chainingMode is set: the network before us brings packets past our programs";
        take.refuse("kubeProxyReplacement", expected.to_owned());
    } else if config.host_routing {
        let expected =
            "false while hostRouting is true: there netfilter, and kube-proxy in it, serves services";
        take.refuse("kubeProxyReplacement", expected.to_owned());
    }
    let ((first, last), (from, to)) = (services.node_ports, config.masquerade.ports);
    // Connections that go on to another node's backend have ports of that range too.
    if first <= to && from <= last {
        let expected = format!(
            "apart from masquerade.portRange ({from}-{to}): a port is either a service's or masqueraded connections'"
        );
        take.refuse("nodePort.range", expected);
    }
}
