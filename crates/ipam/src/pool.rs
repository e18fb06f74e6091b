// SPDX-License-Identifier: Apache-2.0
//! One CIDR and where the search in it goes on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use model::Family;

/// A CIDR to give addresses from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSpec {
    /// The pool of the cluster that it is of; empty where there are none.
    pub pool: String,
    /// The CIDR.
    pub cidr: IpNet,
    /// How many of its first usable addresses are never given.
    pub reserve_first: u32,
    /// Whether it is to be given back: no new address comes from it.
    pub draining: bool,
}

impl From<IpNet> for PoolSpec {
    fn from(cidr: IpNet) -> Self {
        Self {
            pool: String::new(),
            cidr,
            reserve_first: 0,
            draining: false,
        }
    }
}

/// A list of pools that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Two pools share addresses.
    #[error(
        "pools {0} and {1} overlap: an address would be given twice; give the node CIDRs that do not overlap"
    )]
    Overlap(IpNet, IpNet),
    /// Nothing is left after the reserved addresses.
    #[error("pool {0} has no usable address; give the node a larger CIDR")]
    Empty(IpNet),
}

/// How full a pool is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolUsage {
    /// The pool of the cluster that it is of; empty where there are none.
    pub pool: String,
    /// The addresses.
    pub cidr: IpNet,
    /// Its family.
    pub family: Family,
    /// Addresses that can be given.
    pub capacity: u128,
    /// Addresses that are given.
    pub used: u64,
    /// Addresses that rest after their release.
    pub resting: u64,
    /// Whether it is to be given back.
    pub draining: bool,
}

impl PoolUsage {
    /// Addresses that could be given now.
    #[must_use]
    pub fn free(&self) -> u128 {
        self.capacity
            .saturating_sub(u128::from(self.used) + u128::from(self.resting))
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Pool {
    pub(crate) spec: PoolSpec,
    first: u128,
    last: u128,
    next: u128,
}

impl Pool {
    pub(crate) fn new(spec: PoolSpec) -> Result<Self, PoolError> {
        let cidr = spec.cidr;
        let (network, broadcast) = (to_number(cidr.network()), to_number(cidr.broadcast()));
        let pair_or_single = cidr.max_prefix_len() - cidr.prefix_len() <= 1;
        let (first, last) = match cidr {
            _ if pair_or_single => (network, broadcast),
            IpNet::V4(_) => (network + 1, broadcast - 1),
            // The first address is every router's (RFC 4291 §2.6.1).
            IpNet::V6(_) => (network + 1, broadcast),
        };
        let first = first
            .checked_add(u128::from(spec.reserve_first))
            .filter(|first| *first <= last);
        let first = first.ok_or(PoolError::Empty(cidr))?;
        Ok(Self {
            spec,
            first,
            last,
            next: first,
        })
    }

    pub(crate) fn family(&self) -> Family {
        Family::of_net(&self.spec.cidr)
    }

    pub(crate) fn capacity(&self) -> u128 {
        (self.last - self.first).saturating_add(1)
    }

    pub(crate) fn contains(&self, ip: IpAddr) -> bool {
        Family::of(&ip) == self.family() && (self.first..=self.last).contains(&to_number(ip))
    }

    pub(crate) fn first_address(&self) -> IpAddr {
        from_number(self.first, self.family())
    }

    pub(crate) fn last_address(&self) -> IpAddr {
        from_number(self.last, self.family())
    }

    /// The next address that `taken` does not hold, after the one that was found last. Ends after as many steps as there are
    /// taken addresses, at most.
    pub(crate) fn find(&self, taken: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        (self.next..=self.last)
            .chain(self.first..self.next)
            .map(|n| from_number(n, self.family()))
            .find(|ip| !taken(*ip))
    }

    /// The search goes on after `ip`.
    pub(crate) fn advance(&mut self, ip: IpAddr) {
        let number = to_number(ip);
        self.next = if number >= self.last {
            self.first
        } else {
            number + 1
        };
    }

    /// Goes on where the same CIDR's pool was.
    pub(crate) fn resume(&mut self, old: &Self) {
        if (self.first..=self.last).contains(&old.next) {
            self.next = old.next;
        }
    }
}

fn to_number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn from_number(number: u128, family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX))),
        Family::Ipv6 => IpAddr::V6(Ipv6Addr::from_bits(number)),
    }
}
