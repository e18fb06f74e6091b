// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Load-time constants: known to the verifier, which removes the branches that they rule out.

use crate::Be16;

row! {
    /// What is the same for every packet on the node. Changing it means loading the programs again.
    pub struct NodeConfig: 16 {
        /// Of [`IPV4`](NodeConfig::IPV4) and the constants below it.
        pub flags: u32,
        /// The tunnel's network identifier: 24 bits.
        pub vni: u32,
        /// The UDP port that tunnels end at.
        pub tunnel_port: Be16,
        /// Zero.
        pub _pad: u16,
        /// Zero.
        pub _reserved: u32,
    }
}

impl NodeConfig {
    /// The global of the eBPF objects that holds the configuration.
    pub const SYMBOL: &str = "CONFIG";

    /// Pods have IPv4 addresses; without it their IPv4 packets are dropped.
    pub const IPV4: u32 = 1;
    /// Pods have IPv6 addresses; without it their IPv6 packets are dropped.
    pub const IPV6: u32 = 2;
    /// What leaves the node goes through the host's stack and its netfilter rules, where kube-proxy and
    /// masquerading live, instead of straight to the neighbour.
    pub const HOST_ROUTING: u32 = 4;

    /// Pods of other nodes are reached through a tunnel.
    pub const TUNNEL: u32 = 8;
    /// The tunnel speaks Geneve (RFC 8926), not VXLAN (RFC 7348).
    pub const GENEVE: u32 = 16;
    /// The kernel's device wraps and unwraps; without it the programs do.
    pub const TUNNEL_DEVICE: u32 = 32;

    /// Another network made the pods' devices and routes, and answers for their gateway: programs look, track and leave all
    /// packets to the stack. Only together with [`HOST_ROUTING`](Self::HOST_ROUTING).
    pub const CHAINED: u32 = 64;

    /// Pods' connections to the world have the node's address outside, see [`nat`](crate::nat). Not together with
    /// [`HOST_ROUTING`](Self::HOST_ROUTING), where that is netfilter's work.
    pub const MASQUERADE: u32 = 256;

    /// What is sent to services goes to their backends, see [`service`](crate::service). Not together with
    /// [`HOST_ROUTING`](Self::HOST_ROUTING), where that is kube-proxy's work.
    pub const SERVICES: u32 = 512;
    /// Programs may say with which error a call fails (`bpf_set_retval`, of programs for addresses since 6.1). The loader finds out.
    pub const SET_RETVAL: u32 = 1024;

    /// With these flags, and no tunnel.
    #[must_use]
    pub const fn new(flags: u32) -> Self {
        Self {
            flags,
            vni: 0,
            tunnel_port: Be16::new(0),
            _pad: 0,
            _reserved: 0,
        }
    }

    /// Whether all of `flags` are set.
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, flags: u32) -> bool {
        self.flags & flags == flags
    }
}
