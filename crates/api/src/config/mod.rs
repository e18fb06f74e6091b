// SPDX-License-Identifier: Apache-2.0
//! The agent's configuration: one value, checked once, handed on by value.
//!
//! Settings come from flags, the environment (`THALWEG_…`), a YAML file and defaults, in this order of precedence.
//! [`Config::load`] looks at all of them, reports everything that is wrong at once, and remembers where each value
//! came from. The settings themselves are listed in [`KEYS`].

mod chained;
mod keys;
mod layers;
mod operator;
mod parse;
mod problem;
mod services;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

pub use chained::PluginSection;
pub use keys::{KEYS, Key};
pub use layers::{File, Source};
pub use operator::{OPERATOR_FILE, OPERATOR_KEYS, OperatorConfig};
pub use problem::{ConfigError, Problem};
pub use services::Services;

use layers::{Layers, Raw};
use parse::Parsed;

/// The file that is read when no other is named.
pub const DEFAULT_FILE: &str = "/etc/thalweg/config.yaml";

/// The largest configuration file.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// The longest path of a Unix socket: `sun_path` without its terminating zero.
const SOCKET_PATH_MAX: usize = 107;

/// How pods' packets get to other nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RoutingMode {
    /// The network between the nodes carries pod addresses.
    #[default]
    Native,
    /// The network between the nodes carries packets from node to node, and these carry those of the pods.
    Tunnel,
}

/// What tunnels speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TunnelProtocol {
    /// RFC 7348.
    #[default]
    Vxlan,
    /// RFC 8926.
    Geneve,
}

/// Who wraps packets for the tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encapsulation {
    /// The kernel's device; where the kernel has none, the eBPF programs.
    #[default]
    Auto,
    /// The kernel's device.
    Kernel,
    /// The eBPF programs.
    Ebpf,
}

/// Which addresses of nodes packets in a tunnel are sent to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnderlayProtocol {
    /// The first address of the other node of a family that this one has too.
    #[default]
    Auto,
    /// IPv4 addresses.
    Ipv4,
    /// IPv6 addresses.
    Ipv6,
}

/// Where pod addresses come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IpamMode {
    /// `Node.spec.podCIDRs`.
    #[default]
    Kubernetes,
    /// The operator, which hands blocks of ThalwegPools to nodes.
    ClusterPool,
}

/// Which other nodes get a route of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DirectNodeRoutes {
    /// Those on a segment with this node; the network knows the way to the others.
    #[default]
    Auto,
    /// None: the network knows the way to all of them.
    Off,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs, one object per line.
    Json,
}

/// What is worth a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are the usual ones")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// The agent's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's name in Kubernetes.
    pub node_name: String,
    /// The lab that this node belongs to; empty on a real one.
    pub lab: String,
    /// How to reach Kubernetes; nothing for the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// How pods' packets get to other nodes.
    pub routing_mode: RoutingMode,
    /// The tunnel between nodes; of no effect in native routing.
    pub tunnel: Tunnel,
    /// Where pod addresses come from.
    pub ipam_mode: IpamMode,
    /// With cluster pools: how many free addresses the node keeps ready per pool and family.
    pub ipam_spare: u32,
    /// The devices towards other nodes; empty to find them.
    pub devices: Vec<String>,
    /// The packet size of pods; nothing to take it from the underlay.
    pub mtu: Option<u32>,
    /// The container runtime's side.
    pub cni: Cni,
    /// Where sockets, lock and queued deletions are.
    pub run_dir: PathBuf,
    /// Where the BPF filesystem is mounted.
    pub bpffs: PathBuf,
    /// Connection tracking.
    pub conntrack: Conntrack,
    /// The size of the ring that carries events from the kernel.
    pub event_ring_bytes: u32,
    /// Where `/metrics` is served over TCP; nothing for the Unix socket only.
    pub metrics_address: Option<SocketAddr>,
    /// Whether and how nodes try to reach each other; nothing where they do not.
    pub health: Option<Health>,
    /// What is worth a log line.
    pub log_level: LogLevel,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// Which other nodes get a route of their own.
    pub direct_node_routes: DirectNodeRoutes,
    /// Whether what leaves the node goes through the host's stack and its netfilter rules.
    pub host_routing: bool,
    /// Pods and the world.
    pub masquerade: Masquerade,
    /// How services are served, if not by kube-proxy.
    pub services: Option<Services>,
    /// Every setting as it is in force, in the order of [`KEYS`].
    pub effective: Vec<Effective>,
    /// Things that are probably mistakes.
    pub warnings: Vec<String>,
}

/// Whether and how pods' connections to the world have the node's address there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masquerade {
    /// IPv4 is masqueraded.
    pub ipv4: bool,
    /// IPv6 is masqueraded.
    pub ipv6: bool,
    /// Networks beyond the cluster for which nothing is.
    pub excluded: Vec<IpNet>,
    /// The node's ports for it, both ends included.
    pub ports: (u16, u16),
}

impl Masquerade {
    /// Whether anything is masqueraded.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.ipv4 || self.ipv6
    }
}

/// The tunnel between nodes. All nodes must have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// What it speaks.
    pub protocol: TunnelProtocol,
    /// The UDP port that it ends at.
    pub port: u16,
    /// Its network identifier: 24 bits.
    pub vni: u32,
    /// Who wraps.
    pub encapsulation: Encapsulation,
    /// Which addresses of nodes it is between.
    pub underlay: UnderlayProtocol,
}

/// The container runtime's side.
#[derive(Clone, Debug)]
pub struct Cni {
    /// Where the container runtime looks for network configurations.
    pub conf_dir: PathBuf,
    /// Where the container runtime looks for plugins.
    pub bin_dir: PathBuf,
    /// Whether the agent installs the plugin there.
    pub install_plugin: bool,
    /// Where the plugin finds the agent.
    pub socket: PathBuf,
    /// Whether a stopping agent takes its network configuration away, so that no pod is started without it.
    pub remove_conf_on_exit: bool,
    /// Whether other networks' configurations are set aside.
    pub exclusive: bool,
    /// The plugins that run after ours.
    pub chained: Vec<PluginSection>,
    /// The network that makes pods' devices and gives them their addresses, if it is not us: its name, as its configuration has it.
    pub behind: Option<String>,
}

/// How nodes try to reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// The time between two tries of the same node.
    pub interval: Duration,
    /// The TCP port that agents answer each other on. All nodes must have the same.
    pub port: u16,
}

/// Connection tracking.
#[derive(Clone, Debug)]
pub struct Conntrack {
    /// How many connections fit; nothing to derive it from the machine's memory.
    pub max_entries: Option<u32>,
    /// The time between two collections of expired connections.
    pub gc_interval: Duration,
    /// When silent connections expire.
    pub timeouts: ConntrackTimeouts,
}

/// When silent connections expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConntrackTimeouts {
    /// TCP, not yet established.
    pub syn: Duration,
    /// TCP, established.
    pub established: Duration,
    /// TCP, closed by one end.
    pub half_closed: Duration,
    /// TCP, closed by both ends or reset.
    pub closing: Duration,
    /// UDP and others, unanswered.
    pub udp: Duration,
    /// UDP and others, answered.
    pub udp_replied: Duration,
    /// ICMP echo.
    pub icmp: Duration,
}

/// A setting as it is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// Its key.
    pub key: &'static str,
    /// Its value as text.
    pub value: String,
    /// Where the value came from.
    pub source: Source,
}

/// Everything that settings can come from.
#[derive(Debug, Default)]
pub struct Inputs<'a> {
    /// The configuration file, if there is one.
    pub file: Option<File<'a>>,
    /// The environment; names that do not start with `THALWEG_` are ignored.
    pub environment: Vec<(OsString, OsString)>,
    /// Keys and values of flags.
    pub flags: Vec<(&'static str, String)>,
    /// The machine's name: the default of `nodeName`.
    pub hostname: Option<&'a str>,
}

impl Config {
    /// Reads, checks and combines all settings.
    ///
    /// # Errors
    /// Everything that is wrong: key, value, where it came from, what is expected and what to do.
    pub fn load(inputs: Inputs<'_>) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let layers = Layers::collect(KEYS, inputs, &mut problems);
        let mut take = Take {
            layers,
            effective: Vec::new(),
            problems,
        };
        let mut config = build(&mut take);
        check_sockets(&config, &mut take);
        check_chaining(&config, &mut take);
        services::check(&config, &mut take);
        if take.problems.is_empty() {
            take.effective
                .sort_by_key(|effective| KEYS.iter().position(|key| key.path == effective.key));
            config.effective = take.effective;
            config.warnings = take.layers.warnings;
            Ok(config)
        } else {
            Err(ConfigError {
                problems: take.problems,
            })
        }
    }

    /// Reads and checks the content of a configuration file alone.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_yaml(content: &[u8]) -> Result<Self, ConfigError> {
        let file = File {
            path: Path::new(DEFAULT_FILE),
            content,
        };
        Self::load(Inputs {
            file: Some(file),
            hostname: Some("localhost"),
            ..Inputs::default()
        })
    }

    /// Where a setting came from.
    #[must_use]
    pub fn source(&self, key: &str) -> &Source {
        self.effective
            .iter()
            .find(|effective| effective.key == key)
            .map_or(&Source::Default, |found| &found.source)
    }

    /// The settings in force as a configuration file, each with where it came from.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        yaml(&self.effective)
    }

    /// Where the agent's own socket is.
    #[must_use]
    pub fn agent_socket(&self) -> PathBuf {
        self.run_dir.join(crate::agent::SOCKET_NAME)
    }
}

fn yaml(effective: &[Effective]) -> String {
    let line = |effective: &Effective| {
        let value = serde_json::Value::from(effective.value.as_str());
        format!("{}: {value}  # {}\n", effective.key, effective.source)
    };
    effective.iter().map(line).collect()
}

fn build(take: &mut Take) -> Config {
    let run_dir: PathBuf = take.value("runDir", parse::path);
    let routing_mode = take.value("routingMode", |raw| parse::one_of(raw, ROUTING_MODES));
    let behind = behind(take);
    let host_routing = take.value("hostRouting", parse::boolean) || behind.is_some();
    Config {
        node_name: take.value("nodeName", parse::node_name),
        lab: take.value("lab", parse::label),
        kubeconfig: take.value("kubeconfig", parse::optional_path),
        routing_mode,
        tunnel: tunnel(take),
        ipam_mode: take.value("ipam.mode", |raw| {
            parse::one_of(
                raw,
                &[
                    ("kubernetes", IpamMode::Kubernetes),
                    ("cluster-pool", IpamMode::ClusterPool),
                ],
            )
        }),
        ipam_spare: take.value("ipam.spareAddresses", |raw| parse::count(raw, 1..=4096)),
        devices: take.value("devices", parse::devices),
        mtu: take.value("mtu", |raw| parse::zero_or(raw, 1280..=65535)),
        cni: Cni {
            conf_dir: take.value("cni.confDir", parse::path),
            bin_dir: take.value("cni.binDir", parse::path),
            install_plugin: take.value("cni.installPlugin", parse::boolean),
            socket: take
                .value("cni.socket", parse::optional_path)
                .unwrap_or_else(|| run_dir.join("cni.sock")),
            remove_conf_on_exit: take.value("cni.removeConfOnExit", parse::boolean),
            exclusive: take.value("cni.exclusive", parse::boolean),
            chained: take.value("cni.chainedPlugins", chained::plugins),
            behind,
        },
        run_dir,
        bpffs: take.value("bpffs", parse::path),
        conntrack: Conntrack {
            max_entries: take.value("conntrack.maxEntries", |raw| parse::zero_or(raw, 16..=1 << 24)),
            gc_interval: take.value("conntrack.gcIntervalSeconds", |raw| parse::seconds(raw, 1..=3600)),
            timeouts: timeouts(take),
        },
        event_ring_bytes: take.value("events.ringBytes", parse::ring_bytes),
        metrics_address: take.value("metricsAddress", parse::optional_socket_address),
        health: health(take),
        log_level: take.value("log.level", |raw| parse::one_of(raw, LOG_LEVELS)),
        log_format: take.value("log.format", |raw| parse::one_of(raw, LOG_FORMATS)),
        direct_node_routes: take.value("autoDirectNodeRoutes", |raw| {
            parse::one_of(raw, DIRECT_NODE_ROUTES)
        }),
        host_routing,
        masquerade: masquerade(take, routing_mode, host_routing),
        services: services::take(take),
        effective: Vec::new(),
        warnings: Vec::new(),
    }
}

/// The network before us, by the chaining mode: the well-known ones have a name.
fn behind(take: &mut Take) -> Option<String> {
    let mode: Option<&str> = take.value("cni.chainingMode", |raw| parse::one_of(raw, CHAINING_MODES));
    let target: String = take.value("cni.chainingTarget", parse::label);
    let name = match (mode, target.is_empty()) {
        (None, true) => return None,
        (None, false) => {
            take.refuse(
                "cni.chainingTarget",
                "of any use without cni.chainingMode".to_owned(),
            );
            return None;
        }
        (Some(""), true) => {
            let expected = "the name of the network before us, which cni.chainingMode generic-veth needs";
            take.refuse("cni.chainingTarget", expected.to_owned());
            return None;
        }
        (Some(usual), true) => usual.to_owned(),
        (Some(_), false) => target,
    };
    Some(name)
}

/// The name that each network's own configuration has; none where any may be meant.
const CHAINING_MODES: &[(&str, Option<&str>)] = &[
    ("none", None),
    ("generic-veth", Some("")),
    ("aws-cni", Some("aws-cni")),
    ("azure-cni", Some("azure")),
];

/// What another network before us leaves no room for.
fn check_chaining(config: &Config, take: &mut Take) {
    if config.cni.behind.is_none() {
        return;
    }
    let alone = "while cni.chainingMode is set: the network before us";
    if config.routing_mode == RoutingMode::Tunnel {
        take.refuse(
            "routingMode",
            format!("native {alone} brings packets to other nodes"),
        );
    }
    if config.ipam_mode == IpamMode::ClusterPool {
        take.refuse("ipam.mode", format!("kubernetes {alone} gives the addresses"));
    }
    if config.cni.exclusive {
        take.refuse(
            "cni.exclusive",
            format!("false {alone} must keep its configuration"),
        );
    }
}

/// The ports of the field: that of Linux's VXLAN device, which Cilium and Flannel use too, and the assigned one of Geneve.
const VXLAN_PORT: u16 = 8472;
const GENEVE_PORT: u16 = 6081;

const ROUTING_MODES: &[(&str, RoutingMode)] =
    &[("native", RoutingMode::Native), ("tunnel", RoutingMode::Tunnel)];

/// By default where pods' addresses mean nothing outside: with a tunnel. The netfilter rules of the host, where packets go through
/// them, do it themselves or not.
fn masquerade(take: &mut Take, routing_mode: RoutingMode, host_routing: bool) -> Masquerade {
    let mut on = |key: &'static str| {
        let set = take.value(key, |raw| {
            parse::one_of(
                raw,
                &[("auto", None), ("true", Some(true)), ("false", Some(false))],
            )
        });
        if set == Some(true) && host_routing {
            let expected = "auto or false while hostRouting is true: netfilter masquerades there";
            take.refuse(key, expected.to_owned());
        }
        set.unwrap_or(routing_mode == RoutingMode::Tunnel && !host_routing)
    };
    Masquerade {
        ipv4: on("enableIPv4Masquerade"),
        ipv6: on("enableIPv6Masquerade"),
        excluded: take.value("nonMasqueradeCIDRs", parse::networks),
        ports: take.value("masquerade.portRange", parse::port_range),
    }
}

fn tunnel(take: &mut Take) -> Tunnel {
    let protocol = take.value("tunnelProtocol", |raw| {
        parse::one_of(
            raw,
            &[
                ("vxlan", TunnelProtocol::Vxlan),
                ("geneve", TunnelProtocol::Geneve),
            ],
        )
    });
    let port = take.value("tunnelPort", |raw| parse::zero_or(raw, 1..=65535));
    let default = match protocol {
        TunnelProtocol::Vxlan => VXLAN_PORT,
        TunnelProtocol::Geneve => GENEVE_PORT,
    };
    Tunnel {
        protocol,
        port: port.and_then(|port| u16::try_from(port).ok()).unwrap_or(default),
        vni: take.value("tunnelVni", |raw| parse::count(raw, 1..=0x00ff_ffff)),
        encapsulation: take.value("tunnelEncapsulation", |raw| parse::one_of(raw, ENCAPSULATIONS)),
        underlay: take.value("underlayProtocol", |raw| parse::one_of(raw, UNDERLAY_PROTOCOLS)),
    }
}

const ENCAPSULATIONS: &[(&str, Encapsulation)] = &[
    ("auto", Encapsulation::Auto),
    ("kernel", Encapsulation::Kernel),
    ("ebpf", Encapsulation::Ebpf),
];
const UNDERLAY_PROTOCOLS: &[(&str, UnderlayProtocol)] = &[
    ("auto", UnderlayProtocol::Auto),
    ("ipv4", UnderlayProtocol::Ipv4),
    ("ipv6", UnderlayProtocol::Ipv6),
];

fn health(take: &mut Take) -> Option<Health> {
    let enabled = take.value("health.enabled", parse::boolean);
    let health = Health {
        interval: take.value("health.intervalSeconds", |raw| parse::seconds(raw, 5..=3600)),
        port: take.value("health.port", parse::port),
    };
    enabled.then_some(health)
}

/// Connections keep time in 32 bits of the kernel's ticks, half of which are the past. At 1,000 ticks a second that is 24.8 days:
/// one that may be silent for longer would never expire.
const TIMEOUT_SECONDS_MAX: u32 = 24 * 86_400;

fn timeouts(take: &mut Take) -> ConntrackTimeouts {
    let mut seconds = |key| take.value(key, |raw| parse::seconds(raw, 1..=TIMEOUT_SECONDS_MAX));
    ConntrackTimeouts {
        syn: seconds("conntrack.timeouts.synSeconds"),
        established: seconds("conntrack.timeouts.establishedSeconds"),
        half_closed: seconds("conntrack.timeouts.halfClosedSeconds"),
        closing: seconds("conntrack.timeouts.closingSeconds"),
        udp: seconds("conntrack.timeouts.udpSeconds"),
        udp_replied: seconds("conntrack.timeouts.udpRepliedSeconds"),
        icmp: seconds("conntrack.timeouts.icmpSeconds"),
    }
}

const LOG_LEVELS: &[(&str, LogLevel)] = &[
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];
const LOG_FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
const DIRECT_NODE_ROUTES: &[(&str, DirectNodeRoutes)] =
    &[("auto", DirectNodeRoutes::Auto), ("off", DirectNodeRoutes::Off)];

fn check_sockets(config: &Config, take: &mut Take) {
    for (key, path) in [
        ("runDir", config.agent_socket()),
        ("cni.socket", config.cni.socket.clone()),
    ] {
        if path.as_os_str().len() > SOCKET_PATH_MAX {
            let expected = format!("a path that makes a socket name of at most {SOCKET_PATH_MAX} bytes");
            take.refuse(key, expected);
        }
    }
}

/// Takes one setting after the other out of the layers.
struct Take {
    layers: Layers,
    effective: Vec<Effective>,
    problems: Vec<Problem>,
}

impl Take {
    /// A setting's value. One that is wrong is noted, and the type's default stands in until all have been looked at.
    fn value<T: Default>(&mut self, path: &'static str, parse: impl Fn(&Raw) -> Parsed<T>) -> T {
        let (raw, source) = self.layers.winner(path);
        self.effective.push(Effective {
            key: path,
            value: raw.to_string(),
            source,
        });
        parse(&raw).unwrap_or_else(|expected| {
            self.refuse(path, expected);
            T::default()
        })
    }

    fn refuse(&mut self, key: &str, expected: String) {
        let Some(effective) = self.effective.iter().find(|effective| effective.key == key) else {
            return;
        };
        self.problems.push(Problem::Value {
            key: effective.key,
            value: effective.value.clone(),
            source: effective.source.clone(),
            expected,
        });
    }
}

#[cfg(test)]
mod tests;
