// SPDX-License-Identifier: Apache-2.0
//! Blocks that are taken, and the search for one that is not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::PoolRange;

/// Networks that are taken, by their first address; none of them overlaps another.
#[derive(Debug, Clone, Default)]
pub(super) struct Taken {
    by_start: BTreeMap<IpAddr, IpNet>,
}

impl Taken {
    pub(super) fn add(&mut self, cidr: IpNet) {
        if self.overlapping(&cidr).is_some_and(|other| other.contains(&cidr)) {
            return;
        }
        let inside: Vec<IpAddr> = self
            .by_start
            .range(cidr.network()..=cidr.broadcast())
            .map(|(start, _)| *start)
            .collect();
        for start in inside {
            self.by_start.remove(&start);
        }
        self.by_start.insert(cidr.network(), cidr);
    }

    /// What shares addresses with `cidr`: something that begins inside, or the last one before that reaches into it.
    pub(super) fn overlapping(&self, cidr: &IpNet) -> Option<IpNet> {
        let inside = self.by_start.range(cidr.network()..=cidr.broadcast()).next();
        let before = self.by_start.range(..cidr.network()).next_back();
        let reaching = before.filter(|(_, net)| net.contains(cidr));
        inside.or(reaching).map(|(_, net)| *net)
    }

    /// The first block of a range that shares no address with what is taken and is not in `avoid`; with nothing else left, one of
    /// `avoid`.
    pub(super) fn first_free(&self, range: &PoolRange, avoid: &BTreeSet<IpNet>) -> Option<IpNet> {
        let mut second_best = None;
        for cidr in &range.cidrs {
            let mut candidate = subnet_at(cidr, to_number(cidr.network()), range.block_len);
            while let Some(block) = candidate {
                let skip_to = match self.overlapping(&block) {
                    None if avoid.contains(&block) => {
                        second_best = second_best.or(Some(block));
                        to_number(block.broadcast())
                    }
                    None => return Some(block),
                    Some(other) => to_number(other.broadcast()).max(to_number(block.broadcast())),
                };
                candidate = skip_to
                    .checked_add(1)
                    .and_then(|next| subnet_at(cidr, next, range.block_len));
            }
        }
        second_best
    }
}

/// How many blocks a range has; saturates.
pub(super) fn count(range: &PoolRange) -> u64 {
    let of = |cidr: &IpNet| {
        let bits = u32::from(range.block_len.saturating_sub(cidr.prefix_len()));
        1_u64.checked_shl(bits).unwrap_or(u64::MAX)
    };
    range.cidrs.iter().map(of).fold(0, u64::saturating_add)
}

/// The block that begins at or after `number`, rounded up to a whole block, if it is inside `cidr`.
fn subnet_at(cidr: &IpNet, number: u128, len: u8) -> Option<IpNet> {
    let size = 1_u128.checked_shl(u32::from(cidr.max_prefix_len().checked_sub(len)?))?;
    let start = number.checked_add(size - 1)? / size * size;
    let block = match cidr {
        IpNet::V4(_) => {
            let start = Ipv4Addr::from_bits(u32::try_from(start).ok()?);
            IpNet::V4(Ipv4Net::new(start, len).ok()?)
        }
        IpNet::V6(_) => IpNet::V6(Ipv6Net::new(Ipv6Addr::from_bits(start), len).ok()?),
    };
    cidr.contains(&block).then_some(block)
}

fn to_number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}
