// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! What the datapath knows of addresses that are not on this node, by prefix.

use crate::Addr;

row! {
    /// The key of `prefixes`: a longest-prefix match (`struct bpf_lpm_trie_key`).
    pub struct PrefixKey: 20 {
        /// Leading bits of `addr` that count; those of an IPv4 prefix are 96 more than its own.
        pub length: u32,
        /// The 16 bytes of an [`Addr`], as four words: a row's key has no alignment of its own in the kernel.
        pub addr: [u32; 4],
    }
}

row! {
    /// A row of `prefixes`: pods of other nodes, the other nodes themselves, and networks that are to be treated like
    /// the inside of the cluster.
    pub struct Prefix: 32 {
        /// The underlay address of the node that has it; unspecified if none has.
        pub node: Addr,
        /// The identity of all of it; 0 while there is no policy.
        pub identity: u64,
        /// Bytes of the largest IP packet that fits through the tunnel to `node`.
        pub mtu: u16,
        /// Of [`TUNNEL`](Prefix::TUNNEL) and [`CLUSTER`](Prefix::CLUSTER).
        pub flags: u16,
        /// Zero.
        pub _reserved: u32,
    }
}

/// Bits by which the v4-mapped form of an IPv4 prefix is longer than the prefix.
const V4_MAPPED_BITS: u32 = 96;

impl PrefixKey {
    /// Bits of the longest prefix.
    pub const LENGTH_MAX: u32 = 128;

    /// The key that finds the longest prefix of an address.
    #[inline(always)]
    #[must_use]
    pub const fn of(addr: &Addr) -> Self {
        Self {
            length: Self::LENGTH_MAX,
            addr: addr.quarters(),
        }
    }

    /// The key of a prefix, `length` bits of an address of its family.
    #[must_use]
    pub const fn prefix(addr: &Addr, length: u8) -> Self {
        let more = if addr.is_v4() { V4_MAPPED_BITS } else { 0 };
        Self {
            length: more + length as u32,
            ..Self::of(addr)
        }
    }

    /// The address and the prefix length in its own family.
    #[must_use]
    pub fn split(&self) -> (Addr, u8) {
        let addr = Addr::from_quarters(self.addr);
        let more = if addr.is_v4() && self.length >= V4_MAPPED_BITS {
            V4_MAPPED_BITS
        } else {
            0
        };
        (addr, u8::try_from(self.length - more).unwrap_or(u8::MAX))
    }
}

impl Prefix {
    /// Packets go to `node` through the tunnel, and come from it through the tunnel only.
    pub const TUNNEL: u16 = 1;
    /// Inside the cluster, or to be treated so: packets to it keep the pod's own source address.
    pub const CLUSTER: u16 = 2;

    /// Behind the tunnel to a node.
    #[must_use]
    pub const fn tunnel(node: Addr, mtu: u16) -> Self {
        Self {
            node,
            identity: 0,
            mtu,
            flags: Self::TUNNEL | Self::CLUSTER,
            _reserved: 0,
        }
    }

    /// Inside the cluster, by the network's own routes.
    #[must_use]
    pub const fn cluster(node: Addr) -> Self {
        Self {
            node,
            identity: 0,
            mtu: 0,
            flags: Self::CLUSTER,
            _reserved: 0,
        }
    }

    /// Whether all of `flags` are set.
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, flags: u16) -> bool {
        self.flags & flags == flags
    }
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::*;

    #[test]
    fn a_prefix_survives_the_round_trip_in_its_own_family() {
        for (ip, length) in [("10.244.0.0", 24), ("0.0.0.0", 0), ("fd74:7710::", 48), ("::", 0)] {
            let addr = Addr::from(ip.parse::<IpAddr>().unwrap());
            assert_eq!(PrefixKey::prefix(&addr, length).split(), (addr, length), "{ip}");
        }
    }

    #[test]
    fn ipv4_lies_behind_the_mapped_prefix() {
        let addr = Addr::v4([10, 244, 0, 0]);
        assert_eq!(PrefixKey::prefix(&addr, 24).length, 120);
        assert_eq!(PrefixKey::of(&addr).length, 128);
    }
}
