// SPDX-License-Identifier: Apache-2.0
//! The list of settings.

/// A setting.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name in the file, such as `cni.confDir`.
    pub path: &'static str,
    /// Its default, as text.
    pub default: &'static str,
    /// What to write for the value in a help text.
    pub value: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

impl Key {
    /// The name of its flag without the dashes, such as `cni-conf-dir`.
    #[must_use]
    pub fn flag(&self) -> String {
        flag_of(self.path)
    }

    /// The name of its environment variable, such as `THALWEG_CNI_CONF_DIR`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!(
            "{VARIABLE_PREFIX}{}",
            self.flag().replace('-', "_").to_ascii_uppercase()
        )
    }

    /// The setting of this name.
    #[must_use]
    pub fn find(path: &str) -> Option<&'static Self> {
        find_in(KEYS, path)
    }
}

pub(super) fn flag_of(path: &str) -> String {
    let mut flag = String::with_capacity(path.len() + 4);
    let mut before = '.';
    for letter in path.chars() {
        match letter {
            '.' => flag.push('-'),
            upper if upper.is_ascii_uppercase() => {
                // A word in capitals, such as CIDRs, is one word.
                if !before.is_ascii_uppercase() {
                    flag.push('-');
                }
                flag.push(upper.to_ascii_lowercase());
            }
            other => flag.push(other),
        }
        before = letter;
    }
    flag
}

/// The setting of this name in a list.
pub(super) fn find_in(keys: &'static [Key], path: &str) -> Option<&'static Key> {
    keys.iter().find(|key| key.path == path)
}

/// What the names of our environment variables begin with.
pub(super) const VARIABLE_PREFIX: &str = "THALWEG_";

pub(super) const fn key(
    path: &'static str,
    default: &'static str,
    value: &'static str,
    meaning: &'static str,
) -> Key {
    Key {
        path,
        default,
        value,
        meaning,
    }
}

/// All settings.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key("nodeName", "", "NAME", "This node's name in Kubernetes; by default the machine's name"),
    key("lab", "", "NAME", "The lab that this node belongs to; shown in status and logs"),
    key("kubeconfig", "", "FILE", "How to reach Kubernetes; by default the pod's service account"),
    key("routingMode", "native", "MODE", "How pods' packets get to other nodes: native or tunnel"),
    key("tunnelProtocol", "vxlan", "WHICH", "What tunnels speak: vxlan or geneve; the same on all nodes"),
    key("tunnelPort", "0", "PORT", "The UDP port that tunnels end at; 0 is 8472 for vxlan, 6081 for geneve; the same on all nodes"),
    key("tunnelVni", "1", "NUMBER", "The tunnels' network identifier; the same on all nodes"),
    key("tunnelEncapsulation", "auto", "WHO", "Who wraps packets: kernel (its device), ebpf (the programs) or auto (the kernel if it can)"),
    key("underlayProtocol", "auto", "WHICH", "Addresses that tunnels are between: ipv4, ipv6 or auto (each node's first)"),
    key("ipam.mode", "kubernetes", "MODE", "Where pod addresses come from: kubernetes (Node.spec.podCIDRs) or cluster-pool (the operator)"),
    key("ipam.spareAddresses", "8", "COUNT", "With cluster-pool: how many free addresses a node keeps ready per pool and family"),
    key("devices", "", "LIST", "The devices towards other nodes; by default those with the node's addresses or a default route"),
    key("mtu", "0", "BYTES", "The packet size of pods; 0 takes it from the underlay"),
    key("autoDirectNodeRoutes", "auto", "WHICH", "Routes to other nodes' pods: auto (nodes on the same segment) or off"),
    key("hostRouting", "false", "BOOL", "Whether what leaves the node goes through the host's netfilter rules (kube-proxy, masquerading)"),
    key("enableIPv4Masquerade", "auto", "WHEN", "Whether the world sees the node's address instead of pods' IPv4: true, false or auto (with a tunnel)"),
    key("enableIPv6Masquerade", "auto", "WHEN", "The same of IPv6"),
    key("nonMasqueradeCIDRs", "", "LIST", "Networks beyond the cluster that see pods' own addresses"),
    key("masquerade.portRange", "49152-65535", "RANGE", "The node's ports that masqueraded connections get; they are reserved for them"),
    key("kubeProxyReplacement", "false", "BOOL", "Whether services are served by the programs, so that no kube-proxy is needed; none may run beside"),
    key("loadBalancer.algorithm", "random", "WHICH", "How a service's backend is chosen: random or maglev (by a hash that a change of backends disturbs little)"),
    key("loadBalancer.maglevTableSize", "251", "SLOTS", "The slots of each service's table with maglev: a prime, well above the number of backends"),
    key("loadBalancer.noBackend", "reject", "WHAT", "What becomes of packets to a service without a backend: reject (the client hears of it) or drop"),
    key("loadBalancer.servicesMax", "0", "COUNT", "How many frontends of services fit, and four times as many backends; 0 derives it from the machine's memory"),
    key("socketLB.enabled", "true", "BOOL", "Whether sockets of the node and its pods talk to services' backends themselves; without it their packets are translated"),
    key("cgroup.hostRoot", "", "DIR", "The cgroup2 hierarchy whose sockets these are; by default where one is mounted"),
    key("nodePort.range", "30000-32767", "RANGE", "The ports of services on every node, as the API server has it (--service-node-port-range)"),
    key("nodePort.addresses", "", "LIST", "Networks of the node's addresses that these ports are at, such as 10.0.0.0/8; by default all addresses"),
    key("cni.confDir", "/etc/cni/net.d", "DIR", "Where the container runtime looks for network configurations"),
    key("cni.binDir", "/opt/cni/bin", "DIR", "Where the container runtime looks for plugins"),
    key("cni.installPlugin", "false", "BOOL", "Whether the agent installs thalweg-cni, from beside its own program, in cni.binDir"),
    key("cni.socket", "", "FILE", "Where the plugin finds the agent; by default cni.sock in runDir"),
    key("cni.removeConfOnExit", "false", "BOOL", "Whether a stopping agent takes its network configuration away"),
    key("cni.exclusive", "false", "BOOL", "Whether other networks' configurations in cni.confDir are set aside while this agent is in charge"),
    key("cni.chainedPlugins", "", "LIST", "Plugins that the container runtime runs after ours, such as portmap,bandwidth"),
    key("cni.chainingMode", "none", "MODE", "The network that attaches pods before us: none, generic-veth, aws-cni or azure-cni"),
    key("cni.chainingTarget", "", "NAME", "The name of that network in its configuration; by default that of the mode"),
    key("runDir", "/run/thalweg", "DIR", "Where sockets, the lock and queued deletions are"),
    key("bpffs", "/sys/fs/bpf", "DIR", "Where the BPF filesystem is mounted"),
    key("conntrack.maxEntries", "0", "COUNT", "How many connections are tracked; 0 derives it from the machine's memory"),
    key("conntrack.gcIntervalSeconds", "10", "SECONDS", "The time between two collections of expired connections"),
    key("conntrack.timeouts.synSeconds", "60", "SECONDS", "When a silent TCP connection expires that was not established"),
    key("conntrack.timeouts.establishedSeconds", "21600", "SECONDS", "When a silent established TCP connection expires"),
    key("conntrack.timeouts.halfClosedSeconds", "120", "SECONDS", "When a silent TCP connection expires that one end has closed"),
    key("conntrack.timeouts.closingSeconds", "10", "SECONDS", "When a closed or reset TCP connection expires"),
    key("conntrack.timeouts.udpSeconds", "30", "SECONDS", "When an unanswered UDP exchange expires"),
    key("conntrack.timeouts.udpRepliedSeconds", "180", "SECONDS", "When an answered UDP exchange expires"),
    key("conntrack.timeouts.icmpSeconds", "30", "SECONDS", "When an ICMP echo expires"),
    key("events.ringBytes", "1048576", "BYTES", "The size of the ring that carries events from the kernel"),
    key("metricsAddress", "", "ADDR", "Where /metrics is served over TCP, such as 127.0.0.1:9964; by default nowhere"),
    key("health.enabled", "true", "BOOL", "Whether this node tries to reach the others and their pods, and answers them"),
    key("health.intervalSeconds", "60", "SECONDS", "The time between two tries of the same node"),
    key("health.port", "4240", "PORT", "The TCP port that agents answer each other on; the same on all nodes"),
    key("log.level", "info", "LEVEL", "What is logged: error, warn, info, debug or trace"),
    key("log.format", "text", "FORMAT", "How it is logged: text or json"),
];
