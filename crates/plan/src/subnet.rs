// SPDX-License-Identifier: Apache-2.0
//! How long a subnet lasts, and how many /28 prefixes can still be had from it.
//!
//! A prefix needs sixteen neighbouring free addresses that begin at a multiple of sixteen, so a subnet with plenty of free
//! addresses may have none left. The clouds do not document which free address they take next, so the simulation takes them
//! in one of three orders, of which one is the best that can be and one the worst. Start with [`Subnet`] and [`forecast`].

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::Serialize;

use crate::capacity::PREFIX_SIZE;

mod demand;
mod forecast;

pub use demand::{DemandError, NodeDemand, Warm};
pub use forecast::{
    Exhausted, Forecast, Growth, GrowthError, Month, NodeRanges, Short, forecast, node_ranges,
};

/// Addresses that AWS and Azure keep of each subnet: the first four and the last.
const KEPT_FIRST: usize = 4;
const KEPT_LAST: usize = 1;
/// Addresses in a block that can be a prefix.
const BLOCK: usize = 16;

/// In which order free addresses are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "order")]
pub enum Fragmentation {
    /// From below, without gaps: the most prefixes that can be left.
    Packed,
    /// Anywhere, drawn from this seed: what a subnet looks like after a while.
    Random {
        /// Two runs with one seed are equal.
        seed: u64,
    },
    /// One in each block before a second in any: the fewest prefixes that can be left.
    Spread,
}

/// Why a subnet cannot be looked at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// Clouds have none of this size.
    #[error("{0} is no subnet of a cloud: those are /16 to /28 (Azure's to /29, too small for nodes)")]
    Size(Ipv4Net),
    /// Smaller than a node's share of it.
    #[error("{cidr} is smaller than the /{node_mask} that each node gets of it; take a larger one")]
    NoRange {
        /// The pod CIDR.
        cidr: Ipv4Net,
        /// A node's share.
        node_mask: u8,
    },
    /// Not the first address.
    #[error("{given} is not a subnet's first address; the subnet is {meant}")]
    NotFirst {
        /// What was given.
        given: Ipv4Net,
        /// What it lies in.
        meant: Ipv4Net,
    },
    /// More than there are.
    #[error("{used} addresses are said to be used, but {cidr} has {usable} at most (the cloud keeps 5)")]
    TooMany {
        /// The subnet.
        cidr: Ipv4Net,
        /// What was said.
        used: u32,
        /// What there is.
        usable: u32,
    },
    /// An address elsewhere.
    #[error("{address} is not in {cidr}")]
    Outside {
        /// The address.
        address: Ipv4Addr,
        /// The subnet.
        cidr: Ipv4Net,
    },
}

/// A subnet's addresses, used and free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    cidr: Ipv4Net,
    /// One bit per address, a word per block.
    blocks: Vec<u16>,
    /// The order in which single addresses are taken; everything before `next` is used.
    order: Vec<u32>,
    next: usize,
    free: u32,
    free_blocks: u32,
    /// No block before this one is free.
    first_block: usize,
}

impl Subnet {
    /// An empty subnet.
    ///
    /// # Errors
    /// Not the size of a cloud's subnet, or not its first address.
    pub fn new(cidr: Ipv4Net, fragmentation: Fragmentation) -> Result<Self, SubnetError> {
        if cidr.trunc() != cidr {
            return Err(SubnetError::NotFirst {
                given: cidr,
                meant: cidr.trunc(),
            });
        }
        if !(16..=28).contains(&cidr.prefix_len()) {
            return Err(SubnetError::Size(cidr));
        }
        let size = 1_usize << (32 - cidr.prefix_len());
        let mut subnet = Self {
            cidr,
            blocks: vec![0; size / BLOCK],
            order: order(size, fragmentation),
            next: 0,
            free: u32::try_from(size).unwrap_or(u32::MAX),
            free_blocks: u32::try_from(size / BLOCK).unwrap_or(u32::MAX),
            first_block: 0,
        };
        for index in (0..KEPT_FIRST).chain(size - KEPT_LAST..size) {
            subnet.mark(index);
        }
        Ok(subnet)
    }

    /// Takes this many addresses in the subnet's order.
    ///
    /// # Errors
    /// There are not as many.
    pub fn take(&mut self, used: u32) -> Result<(), SubnetError> {
        if used > self.free {
            return Err(SubnetError::TooMany {
                cidr: self.cidr,
                used,
                usable: self.free,
            });
        }
        for _ in 0..used {
            self.take_one();
        }
        Ok(())
    }

    /// Takes exactly these addresses; those taken already stay so.
    ///
    /// # Errors
    /// One lies elsewhere.
    pub fn take_these(&mut self, addresses: &[Ipv4Addr]) -> Result<(), SubnetError> {
        for address in addresses {
            if !self.cidr.contains(address) {
                return Err(SubnetError::Outside {
                    address: *address,
                    cidr: self.cidr,
                });
            }
            let index = address.to_bits() - self.cidr.network().to_bits();
            self.mark(index as usize);
        }
        Ok(())
    }

    /// The subnet.
    #[must_use]
    pub fn cidr(&self) -> Ipv4Net {
        self.cidr
    }

    /// Free addresses.
    #[must_use]
    pub fn free(&self) -> u32 {
        self.free
    }

    /// Addresses that the cloud does not keep, used or not.
    #[must_use]
    pub fn usable(&self) -> u32 {
        let kept = KEPT_FIRST + KEPT_LAST;
        u32::try_from(self.blocks.len() * BLOCK - kept).unwrap_or(u32::MAX)
    }

    /// Used ones among them.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.usable() - self.free
    }

    /// /28 prefixes that could be had now.
    #[must_use]
    pub fn prefixes(&self) -> u32 {
        self.free_blocks
    }

    /// Free addresses that no prefix can be made of.
    #[must_use]
    pub fn stranded(&self) -> u32 {
        self.free - self.free_blocks * PREFIX_SIZE
    }

    /// Takes the next address of the order; whether there was one.
    fn take_one(&mut self) -> bool {
        while let Some(index) = self.order.get(self.next).copied() {
            self.next += 1;
            if self.mark(index as usize) {
                return true;
            }
        }
        false
    }

    /// Takes the lowest free block; whether there was one.
    fn take_prefix(&mut self) -> bool {
        let rest = self.blocks.get(self.first_block..).unwrap_or_default();
        let Some(ahead) = rest.iter().position(|block| *block == 0) else {
            return false;
        };
        let block = self.first_block + ahead;
        self.first_block = block + 1;
        if let Some(bits) = self.blocks.get_mut(block) {
            *bits = u16::MAX;
        }
        self.free_blocks -= 1;
        self.free -= PREFIX_SIZE;
        true
    }

    /// Marks an address used; whether it was free.
    fn mark(&mut self, index: usize) -> bool {
        let bit = 1_u16 << (index % BLOCK);
        let Some(block) = self.blocks.get_mut(index / BLOCK) else {
            return false;
        };
        if *block & bit != 0 {
            return false;
        }
        self.free_blocks -= u32::from(*block == 0);
        self.free -= 1;
        *block |= bit;
        true
    }
}

fn order(size: usize, fragmentation: Fragmentation) -> Vec<u32> {
    let count = u32::try_from(size).unwrap_or(u32::MAX);
    let mut order: Vec<u32> = (0..count).collect();
    match fragmentation {
        Fragmentation::Packed => {}
        // The blocks at both ends are no prefixes anyway, for what the cloud keeps of them: they come last.
        Fragmentation::Spread => {
            let block = PREFIX_SIZE;
            let end = |index: u32| index < block || index >= count - block;
            order.sort_by_key(|index| ((index + 8) % block, end(*index), *index));
        }
        Fragmentation::Random { seed } => shuffle(&mut order, seed),
    }
    order
}

/// Fisher and Yates' shuffle with the generator SplitMix64; the remainder's bias is below 2^-48 here.
fn shuffle(order: &mut [u32], seed: u64) {
    let mut state = seed;
    for last in (1..order.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let other = usize::try_from(mixed % (last as u64 + 1)).unwrap_or(0);
        order.swap(last, other);
    }
}

#[cfg(test)]
mod tests;
