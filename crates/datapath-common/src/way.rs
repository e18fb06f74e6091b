// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! An answer of the kernel's routing and neighbour tables, good for one tick of the clock.

use crate::{Addr, Be16, Mac, Tuple};

row! {
    /// A row of `ways`: where the kernel's tables sent a packet of a flow, and at which tick.
    ///
    /// The question is repeated whole, so that rules by source, protocol or port and equal-cost paths are answered as the
    /// kernel would; a change of its tables is seen at the next tick, after 10 ms at most.
    pub struct Way: 64 {
        /// The flow.
        pub source: Addr,
        /// The flow.
        pub destination: Addr,
        /// The flow.
        pub ports: [Be16; 2],
        /// The flow.
        pub proto: u8,
        /// Zero.
        pub _pad: u8,
        /// Bytes of a packet that the route takes; perhaps it takes more.
        pub length: u16,
        /// The device that received the packet.
        pub from: u32,
        /// The low half of jiffies.
        pub at: u32,
        /// The device that sends.
        pub to: u32,
        /// The Ethernet addresses to write: destination, source.
        pub macs: [Mac; 2],
    }
}

/// Rows for each CPU. Flows that share one ask the kernel in turn.
pub const WAYS: u32 = 1024;

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Way {
    /// The row of a flow.
    #[inline(always)]
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the upper bits of a product are its best"
    )]
    pub const fn slot(tuple: &Tuple) -> u32 {
        let ports = (tuple.source_port.raw() as u64) << 16 | tuple.destination_port.raw() as u64;
        let ([s, t], [d, e]) = (tuple.source.words(), tuple.destination.words());
        let mixed = (s ^ t) ^ (d ^ e).rotate_left(21) ^ tuple.proto as u64;
        // Fibonacci hashing, twice: 2^64 over the golden ratio.
        let mixed = (mixed ^ ports.wrapping_mul(GOLDEN)).wrapping_mul(GOLDEN);
        ((mixed ^ mixed >> 32).wrapping_mul(GOLDEN) >> (64 - WAYS.ilog2())) as u32
    }

    /// Whether this is the answer to the same question in the same tick.
    #[inline(always)]
    #[must_use]
    pub fn answers(&self, tuple: &Tuple, from: u32, length: u16, now: u32) -> bool {
        self.at == now
            && self.from == from
            && length <= self.length
            && self.ports[0].raw() == tuple.source_port.raw()
            && self.ports[1].raw() == tuple.destination_port.raw()
            && self.proto == tuple.proto
            && self.source == tuple.source
            && self.destination == tuple.destination
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_spread_over_the_rows() {
        let tuple = |port: u16| Tuple {
            source: Addr::v4([10, 244, 1, 1]),
            destination: Addr::v4([10, 244, 2, 1]),
            source_port: Be16::new(port),
            destination_port: Be16::new(80),
            proto: 6,
        };
        let slots: std::collections::BTreeSet<_> =
            (30_000..31_024).map(|port| Way::slot(&tuple(port))).collect();
        assert!(slots.iter().all(|slot| *slot < WAYS));
        assert!(slots.len() > 512, "{}", slots.len());
    }
}
