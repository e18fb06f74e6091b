// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! What the datapath knows of its own node.

use crate::Addr;

row! {
    /// The one row of `node`: what may change while the programs are loaded.
    pub struct LocalNode: 40 {
        /// The node's IPv4 and IPv6 address on the underlay; unspecified where it has none.
        pub addresses: [Addr; 2],
        /// The kernel's tunnel device; 0 where there is none.
        pub tunnel_ifindex: u32,
        /// Zero.
        pub _reserved: u32,
    }
}

impl LocalNode {
    /// The node's underlay address of a family.
    #[inline(always)]
    #[must_use]
    pub const fn address(&self, v4: bool) -> Addr {
        if v4 { self.addresses[0] } else { self.addresses[1] }
    }
}
