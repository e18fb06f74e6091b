// SPDX-License-Identifier: Apache-2.0
//! Which network a part on a node belongs to, by the names that each network gives its parts.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::facts::{Chain, RuleFacts};

/// Somebody who leaves parts on nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Owner {
    /// The Amazon VPC CNI (`aws-node`).
    VpcCni,
    /// Azure CNI and its container network service.
    AzureCni,
    /// kube-proxy, in any of its modes.
    KubeProxy,
    /// Calico.
    Calico,
    /// Flannel.
    Flannel,
    /// Cilium.
    Cilium,
    /// Weave Net.
    Weave,
    /// kube-router.
    KubeRouter,
    /// Another network, by a configuration whose plugins nobody here knows.
    Other,
}

impl Owner {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::VpcCni,
        Self::AzureCni,
        Self::KubeProxy,
        Self::Calico,
        Self::Flannel,
        Self::Cilium,
        Self::Weave,
        Self::KubeRouter,
        Self::Other,
    ];

    /// Its name on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::VpcCni => "vpc-cni",
            Self::AzureCni => "azure-cni",
            Self::KubeProxy => "kube-proxy",
            Self::Calico => "calico",
            Self::Flannel => "flannel",
            Self::Cilium => "cilium",
            Self::Weave => "weave",
            Self::KubeRouter => "kube-router",
            Self::Other => "other",
        }
    }

    /// The owner with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|owner| owner.as_str() == name)
    }

    /// Names of its processes on nodes, as far as the kernel keeps them (15 bytes).
    #[must_use]
    pub const fn processes(self) -> &'static [&'static str] {
        match self {
            Self::VpcCni => &["aws-k8s-agent", "aws-vpc-cni", "aws-eks-na-cli"],
            Self::AzureCni => &["azure-cns", "azure-npm"],
            Self::KubeProxy => &["kube-proxy"],
            Self::Calico => &["calico-node", "calico-felix"],
            Self::Flannel => &["flanneld"],
            Self::Cilium => &["cilium-agent"],
            Self::Weave => &["weaver"],
            Self::KubeRouter => &["kube-router"],
            Self::Other => &[],
        }
    }

    /// Whose a DaemonSet is, by its name; the images decide nothing, as they may be mirrored.
    #[must_use]
    pub fn of_daemon_set(name: &str) -> Option<Self> {
        Some(match name {
            "aws-node" => Self::VpcCni,
            "azure-cns" | "azure-cni" | "azure-cni-networkmonitor" | "azure-npm" => Self::AzureCni,
            "kube-proxy" => Self::KubeProxy,
            "calico-node" | "canal" => Self::Calico,
            "kube-flannel-ds" | "kube-flannel" => Self::Flannel,
            "cilium" | "anetd" => Self::Cilium,
            "weave-net" => Self::Weave,
            "kube-router" => Self::KubeRouter,
            _ => return None,
        })
    }

    /// Whose an iptables chain is. Chains of the kubelet and of the plugin `portmap` are nobody's leftovers.
    #[must_use]
    pub fn of_chain(name: &str) -> Option<Self> {
        // The kubelet makes these itself, with and without kube-proxy.
        const KUBELET: [&str; 4] = [
            "KUBE-KUBELET-CANARY",
            "KUBE-FIREWALL",
            "KUBE-IPTABLES-HINT",
            "KUBE-MARK-DROP",
        ];
        if KUBELET.contains(&name) {
            return None;
        }
        const PREFIXES: [(&str, Owner); 12] = [
            ("AWS-SNAT-CHAIN", Owner::VpcCni),
            ("AWS-CONNMARK-CHAIN", Owner::VpcCni),
            ("AZURE-NPM", Owner::AzureCni),
            ("SWIFT", Owner::AzureCni),
            ("KUBE-ROUTER-", Owner::KubeRouter),
            ("KUBE-NWPLCY-", Owner::KubeRouter),
            ("KUBE-POD-FW-", Owner::KubeRouter),
            ("KUBE-", Owner::KubeProxy),
            ("cali-", Owner::Calico),
            ("FLANNEL-", Owner::Flannel),
            ("CILIUM_", Owner::Cilium),
            ("WEAVE", Owner::Weave),
        ];
        by_prefix(name, &PREFIXES).or_else(|| name.starts_with("OLD_CILIUM_").then_some(Self::Cilium))
    }

    /// Comments of rules that it puts into chains which are not its own.
    #[must_use]
    pub const fn comments(self) -> &'static [&'static str] {
        match self {
            Self::VpcCni => &["\"AWS, ", "\"AWS SNAT"],
            Self::Calico => &["\"cali:"],
            Self::Flannel => &["flanneld "],
            Self::Cilium => &["\"cilium: "],
            Self::AzureCni | Self::KubeProxy | Self::Weave | Self::KubeRouter | Self::Other => &[],
        }
    }

    /// Whose a chain is, or the rules in it.
    #[must_use]
    pub fn of_rules(chain: &Chain) -> Option<Self> {
        chain.stray_of.or_else(|| Self::of_chain(&chain.name))
    }

    /// Whose a table of nftables is, written as `family name`.
    #[must_use]
    pub fn of_nft_table(table: &str) -> Option<Self> {
        match table.split_once(' ')?.1 {
            "kube-proxy" => Some(Self::KubeProxy),
            "calico" => Some(Self::Calico),
            "flannel-ipv4" | "flannel-ipv6" => Some(Self::Flannel),
            _ => None,
        }
    }

    /// Whose a network device is.
    #[must_use]
    pub fn of_link(name: &str, kind: Option<&str>) -> Option<Self> {
        let exact = match name {
            "pod-id-link" | "dummyeni" => Some(Self::VpcCni),
            "azure0" => Some(Self::AzureCni),
            "kube-ipvs0" => Some(Self::KubeProxy),
            "vxlan.calico" | "vxlan-v6.calico" | "wireguard.cali" | "wg-v6.cali" | "bpfin.cali"
            | "bpfout.cali" => Some(Self::Calico),
            "cilium_host" | "cilium_net" | "cilium_vxlan" | "cilium_geneve" | "cilium_wg0" | "lxc_health" => {
                Some(Self::Cilium)
            }
            "cni0" if kind == Some("bridge") => Some(Self::Flannel),
            "weave" | "vxlan-6784" => Some(Self::Weave),
            "kube-bridge" | "kube-dummy-if" => Some(Self::KubeRouter),
            _ => None,
        };
        exact.or_else(|| of_numbered_link(name, kind))
    }

    /// Whose a network configuration is, by the types of its plugins; `None` for ours.
    #[must_use]
    pub fn of_plugins(plugins: &[String]) -> Option<Self> {
        if plugins.first().is_some_and(|plugin| plugin == cni::PLUGIN_TYPE) {
            return None;
        }
        const TYPES: [(&str, Owner); 11] = [
            ("aws-cni", Owner::VpcCni),
            ("aws-vpc", Owner::VpcCni),
            ("ipam:azure-ipam", Owner::AzureCni),
            ("azure-vnet", Owner::AzureCni),
            ("azure-cns", Owner::AzureCni),
            ("calico", Owner::Calico),
            ("flannel", Owner::Flannel),
            ("cilium-cni", Owner::Cilium),
            ("weave-net", Owner::Weave),
            ("kube-router", Owner::KubeRouter),
            ("ipam:calico-ipam", Owner::Calico),
        ];
        let known = TYPES
            .into_iter()
            .find(|(kind, _)| plugins.iter().any(|plugin| plugin == kind));
        Some(known.map_or(Self::Other, |(_, owner)| owner))
    }

    /// Whose a pin on the BPF file system is, by its path from the root.
    #[must_use]
    pub fn of_pin(path: &str) -> Option<Self> {
        const PREFIXES: [(&str, Owner); 8] = [
            ("globals/aws/", Owner::VpcCni),
            ("tc/globals/cilium_", Owner::Cilium),
            ("cilium/", Owner::Cilium),
            ("xdp/globals/cilium_", Owner::Cilium),
            ("tc/globals/cali_", Owner::Calico),
            ("calico/", Owner::Calico),
            ("tc/calico/", Owner::Calico),
            ("tc/globals/calico", Owner::Calico),
        ];
        by_prefix(path, &PREFIXES)
    }

    /// Whose a routing rule is, by the priorities and words that the VPC CNI and Cilium use (`pkg/networkutils` in
    /// aws/amazon-vpc-cni-k8s: 512 to pods, 1024 for the main interface's mark, 1536 from pods).
    #[must_use]
    pub fn of_rule(rule: &RuleFacts) -> Option<Self> {
        let mark = |mark: &str| rule.text.contains(&format!("fwmark {mark}"));
        match rule.priority {
            512 if rule.text.contains(" to ") && rule.text.contains("lookup main") => Some(Self::VpcCni),
            1024 if mark("0x80/0x80") => Some(Self::VpcCni),
            1536 if rule.text.contains("from ") => Some(Self::VpcCni),
            9 if mark("0x200/0xf00") => Some(Self::Cilium),
            10 if mark("0xa00/0xf00") => Some(Self::Cilium),
            _ => None,
        }
    }

    /// Whose a route is: by its protocol (80: Felix) or by the device that it leads through.
    #[must_use]
    pub fn of_route(protocol: u8, device: Option<&str>, device_kind: Option<&str>) -> Option<Self> {
        /// `RTPROT_KERNEL`: it comes and goes with an address.
        const KERNEL: u8 = 2;
        const FELIX: u8 = 80;
        if protocol == KERNEL {
            return None;
        }
        if protocol == FELIX {
            return Some(Self::Calico);
        }
        device.and_then(|name| Self::of_link(name, device_kind))
    }
}

fn of_numbered_link(name: &str, kind: Option<&str>) -> Option<Owner> {
    let hex =
        |rest: &str, length: usize| rest.len() == length && rest.bytes().all(|byte| byte.is_ascii_hexdigit());
    let digits = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    let veth = kind == Some("veth");
    if let Some(rest) = name.strip_prefix("eni") {
        return (veth && hex(rest, 11)).then_some(Owner::VpcCni);
    }
    if let Some(rest) = name.strip_prefix("vlan.eth.") {
        return digits(rest).then_some(Owner::VpcCni);
    }
    if let Some(rest) = name.strip_prefix("cali") {
        return (veth && hex(rest, 11)).then_some(Owner::Calico);
    }
    if let Some(rest) = name.strip_prefix("lxc") {
        return (veth && rest.len() >= 5 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .then_some(Owner::Cilium);
    }
    if name
        .strip_prefix("flannel.")
        .or_else(|| name.strip_prefix("flannel-v6."))
        .is_some_and(digits)
    {
        return Some(Owner::Flannel);
    }
    if name.starts_with("azv") && veth {
        return Some(Owner::AzureCni);
    }
    if name.starts_with("vethwe-") || name.starts_with("vethwepl") {
        return Some(Owner::Weave);
    }
    None
}

fn by_prefix(name: &str, prefixes: &[(&str, Owner)]) -> Option<Owner> {
    let found = prefixes.iter().find(|(prefix, _)| name.starts_with(prefix));
    found.map(|(_, owner)| *owner)
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::VpcCni => "the VPC CNI",
            Self::AzureCni => "Azure CNI",
            Self::KubeProxy => "kube-proxy",
            Self::Calico => "Calico",
            Self::Flannel => "Flannel",
            Self::Cilium => "Cilium",
            Self::Weave => "Weave Net",
            Self::KubeRouter => "kube-router",
            Self::Other => "another network",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_known_by_their_names() {
        assert_eq!(Owner::of_chain("AWS-SNAT-CHAIN-0"), Some(Owner::VpcCni));
        assert_eq!(Owner::of_chain("KUBE-SVC-ABC"), Some(Owner::KubeProxy));
        assert_eq!(Owner::of_chain("KUBE-ROUTER-INPUT"), Some(Owner::KubeRouter));
        assert_eq!(
            Owner::of_link("eni0123456789a", Some("veth")),
            Some(Owner::VpcCni)
        );
        assert_eq!(Owner::of_link("flannel.1", Some("vxlan")), Some(Owner::Flannel));
        assert_eq!(Owner::of_pin("tc/globals/cilium_ct4_global"), Some(Owner::Cilium));
        assert_eq!(Owner::of_nft_table("ip6 kube-proxy"), Some(Owner::KubeProxy));
        assert_eq!(
            Owner::of_plugins(&["aws-cni".into(), "portmap".into()]),
            Some(Owner::VpcCni)
        );
        assert_eq!(Owner::of_plugins(&["macvlan".into()]), Some(Owner::Other));
    }

    #[test]
    fn what_is_ours_or_nobodys_belongs_to_nobody() {
        assert_eq!(Owner::of_plugins(&["thalweg-cni".into()]), None);
        for chain in [
            "POSTROUTING",
            "KUBE-FIREWALL",
            "KUBE-KUBELET-CANARY",
            "CNI-HOSTPORT-DNAT",
            "DOCKER",
        ] {
            assert_eq!(Owner::of_chain(chain), None, "{chain}");
        }
        for link in [
            "eth0",
            "eni",
            "ens5",
            "enp0s3",
            "thalweg_host",
            "tw0123456789ab",
            "docker0",
            "lo",
            "calico",
        ] {
            assert_eq!(Owner::of_link(link, Some("veth")), None, "{link}");
        }
        assert_eq!(Owner::of_pin("thalweg/conntrack"), None);
        let rule = |priority, text: &str| RuleFacts {
            priority,
            text: text.into(),
        };
        assert_eq!(
            Owner::of_rule(&rule(512, "from all to 10.0.1.5 lookup main")),
            Some(Owner::VpcCni)
        );
        assert_eq!(Owner::of_rule(&rule(1024, "from all fwmark 0x1 lookup 7")), None);
    }

    #[test]
    fn names_lead_back_to_owners() {
        for owner in Owner::ALL {
            assert_eq!(Owner::named(owner.as_str()), Some(owner));
        }
    }
}
