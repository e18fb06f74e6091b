// SPDX-License-Identifier: Apache-2.0
//! Free space as aligned blocks.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// What is still free of some networks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Free {
    /// Disjoint, by address.
    blocks: BTreeSet<(u32, u8)>,
}

impl Free {
    /// All of these networks; those that contain each other count once.
    pub(crate) fn of(networks: &[Ipv4Net]) -> Self {
        let mut free = Self::default();
        for net in Ipv4Net::aggregate(&networks.to_vec()) {
            free.blocks.insert((net.network().to_bits(), net.prefix_len()));
        }
        free
    }

    /// Takes a network away, whether or not it was free.
    pub(crate) fn remove(&mut self, net: Ipv4Net) {
        let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
        let touched: Vec<(u32, u8)> = self
            .blocks
            .range(..=(last, 32))
            .rev()
            .take_while(|block| end(**block) >= first)
            .copied()
            .collect();
        for block in touched {
            self.blocks.remove(&block);
            self.keep_outside(block, net);
        }
    }

    /// Puts back what is left of `block` when `net` is taken out of it.
    fn keep_outside(&mut self, block: (u32, u8), net: Ipv4Net) {
        if block.1 >= net.prefix_len() {
            return;
        }
        let mut length = block.1;
        while length < net.prefix_len() {
            length += 1;
            let half = net.network().to_bits() & mask(length);
            let buddy = half ^ bit(length);
            self.blocks.insert((buddy, length));
        }
    }

    /// Takes the first free network of this length, from the smallest block that it fits into among equals in order of
    /// addresses: the same requests in the same order give the same networks.
    pub(crate) fn take(&mut self, length: u8) -> Option<Ipv4Net> {
        let fits = self.blocks.iter().filter(|block| block.1 <= length);
        let block = *fits.max_by_key(|block| (block.1, std::cmp::Reverse(block.0)))?;
        let net = Ipv4Net::new(Ipv4Addr::from_bits(block.0), length).ok()?;
        self.remove(net);
        Some(net)
    }

    /// The largest network that could still be taken.
    pub(crate) fn largest(&self) -> Option<u8> {
        self.blocks.iter().map(|block| block.1).min()
    }

    /// How many addresses are free.
    pub(crate) fn addresses(&self) -> u64 {
        self.blocks
            .iter()
            .map(|block| 1_u64 << (32 - u32::from(block.1)))
            .sum()
    }
}

fn mask(length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
}

fn bit(length: u8) -> u32 {
    1_u32.checked_shl(32 - u32::from(length)).unwrap_or(0)
}

fn end(block: (u32, u8)) -> u32 {
    block.0 | !mask(block.1)
}
