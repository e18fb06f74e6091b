// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Load-time constants: known to the verifier, which removes the branches that they rule out.

row! {
    /// What is the same for every packet on the node. Changing it means loading the programs again.
    pub struct NodeConfig: 8 {
        /// Of [`IPV4`](NodeConfig::IPV4), [`IPV6`](NodeConfig::IPV6), [`HOST_ROUTING`](NodeConfig::HOST_ROUTING).
        pub flags: u32,
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

    /// With these flags.
    #[must_use]
    pub const fn new(flags: u32) -> Self {
        Self { flags, _reserved: 0 }
    }

    /// Whether all of `flags` are set.
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, flags: u32) -> bool {
        self.flags & flags == flags
    }
}
