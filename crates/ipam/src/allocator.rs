// SPDX-License-Identifier: Apache-2.0
//! Who has which address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use model::{EndpointId, Family};

use crate::pool::{Pool, PoolError, PoolSpec, PoolUsage};

/// Why no address was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllocateError {
    /// There is no pool at all.
    #[error(
        "this node has no pod CIDR yet, so there is no pool of addresses; see Node.spec.podCIDRs and who sets it"
    )]
    NoPool,
    /// The node has nothing of a pool.
    #[error("this node has no {family} addresses of pool {pool} yet; it has asked for some")]
    NoBlock {
        /// The pool.
        pool: String,
        /// The family.
        family: Family,
    },
    /// A family's pools are full.
    #[error(
        "no free {family} address in pool {pools}: {used} of {capacity} used, {resting} resting until their connections are \
         forgotten; delete pods on this node or give it more addresses"
    )]
    Exhausted {
        /// The family.
        family: Family,
        /// The family's pools.
        pools: String,
        /// Addresses given.
        used: u64,
        /// Addresses that can be given.
        capacity: u128,
        /// Addresses that rest.
        resting: u64,
    },
}

/// Why an address could not be claimed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// Somebody else has it.
    #[error("address {ip} of {wanted_by} is in use by {used_by}; delete one of the two pods")]
    AlreadyUsed {
        /// The address.
        ip: IpAddr,
        /// Who asked.
        wanted_by: EndpointId,
        /// Who has it.
        used_by: EndpointId,
    },
    /// No pool holds it.
    #[error("address {ip} is in none of the pools {pools}; use an address of this node's pod CIDRs")]
    OutOfPool {
        /// The address.
        ip: IpAddr,
        /// The pools.
        pools: String,
    },
}

/// The addresses of one node.
#[derive(Debug, Clone, Default)]
pub struct Allocator {
    pools: Vec<Pool>,
    owners: BTreeMap<IpAddr, EndpointId>,
    resting: BTreeSet<IpAddr>,
}

impl Allocator {
    /// No pools, no allocations.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the pools. What is allocated stays allocated, also outside the new pools; new addresses come from the new ones.
    ///
    /// # Errors
    /// When the list cannot be used; the old pools stay then.
    pub fn set_pools(&mut self, specs: &[PoolSpec]) -> Result<(), PoolError> {
        let mut pools: Vec<Pool> = Vec::with_capacity(specs.len());
        for spec in specs {
            let mut pool = Pool::new(spec.clone())?;
            if let Some(other) = pools.iter().find(|other| overlap(&other.spec.cidr, &spec.cidr)) {
                return Err(PoolError::Overlap(other.spec.cidr, spec.cidr));
            }
            if let Some(old) = self.pools.iter().find(|old| old.spec.cidr == spec.cidr) {
                pool.resume(old);
            }
            pools.push(pool);
        }
        self.pools = pools;
        Ok(())
    }

    /// Gives `owner` one address of each family that has a pool, or none at all. IPv4 comes first.
    ///
    /// # Errors
    /// When a family has no free address, or there is no pool.
    pub fn allocate(&mut self, owner: &EndpointId) -> Result<Vec<IpAddr>, AllocateError> {
        let has = |family: &Family| self.pools.iter().any(|pool| pool.family() == *family);
        let families: Vec<Family> = [Family::Ipv4, Family::Ipv6].into_iter().filter(has).collect();
        self.allocate_where(owner, &families, |_| true)
    }

    /// Gives `owner` one address of each of these families out of the node's CIDRs of one pool of the cluster, or none at all.
    ///
    /// # Errors
    /// When a family has no free address, or the node has no CIDR of that pool and family.
    pub fn allocate_from(
        &mut self,
        owner: &EndpointId,
        pool: &str,
        families: &[Family],
    ) -> Result<Vec<IpAddr>, AllocateError> {
        let of_pool = |one: &Pool| one.spec.pool == pool;
        let has = |family: Family| {
            let mut pools = self.pools.iter();
            pools.any(|one| of_pool(one) && one.family() == family && !one.spec.draining)
        };
        if let Some(family) = families.iter().find(|family| !has(**family)) {
            return Err(AllocateError::NoBlock {
                pool: pool.to_owned(),
                family: *family,
            });
        }
        self.allocate_where(owner, families, of_pool)
    }

    fn allocate_where(
        &mut self,
        owner: &EndpointId,
        families: &[Family],
        wanted: impl Fn(&Pool) -> bool,
    ) -> Result<Vec<IpAddr>, AllocateError> {
        let mut found = Vec::with_capacity(families.len());
        for family in families {
            found.push(self.find(*family, &wanted)?);
        }
        if found.is_empty() {
            return Err(AllocateError::NoPool);
        }
        for (index, ip) in &found {
            self.pools[*index].advance(*ip);
            self.owners.insert(*ip, owner.clone());
        }
        Ok(found.into_iter().map(|(_, ip)| ip).collect())
    }

    /// Gives `owner` this very address, which may rest. Claiming one's own again is success.
    ///
    /// # Errors
    /// When somebody else has it or no pool holds it.
    pub fn claim(&mut self, owner: &EndpointId, ip: IpAddr) -> Result<(), ClaimError> {
        if !self.in_pool(ip) {
            return Err(ClaimError::OutOfPool {
                ip,
                pools: self.pool_names(|_| true),
            });
        }
        self.restore(owner, ip)
    }

    /// Like [`Allocator::claim`] for an address that `owner` has in the kernel already: it stays valid whatever the pools
    /// are now.
    ///
    /// # Errors
    /// When somebody else has it.
    pub fn restore(&mut self, owner: &EndpointId, ip: IpAddr) -> Result<(), ClaimError> {
        if let Some(used_by) = self.owners.get(&ip).filter(|other| *other != owner) {
            return Err(ClaimError::AlreadyUsed {
                ip,
                wanted_by: owner.clone(),
                used_by: used_by.clone(),
            });
        }
        self.resting.remove(&ip);
        self.owners.insert(ip, owner.clone());
        // After a restart the search goes on behind what is in use, as it would have without one.
        if let Some(pool) = self.pools.iter_mut().find(|pool| pool.contains(ip)) {
            pool.advance(ip);
        }
        Ok(())
    }

    /// Takes all addresses from `owner` and lets them rest. An unknown owner has none: the answer is empty.
    pub fn release(&mut self, owner: &EndpointId) -> Vec<IpAddr> {
        let released: Vec<IpAddr> = self
            .owners
            .extract_if(.., |_, o| o == owner)
            .map(|(ip, _)| ip)
            .collect();
        self.resting.extend(&released);
        released
    }

    /// The connections of `ip` are forgotten: it may be given again. `false` if it did not rest.
    pub fn rested(&mut self, ip: IpAddr) -> bool {
        self.resting.remove(&ip)
    }

    /// Who has `ip`.
    #[must_use]
    pub fn owner(&self, ip: IpAddr) -> Option<&EndpointId> {
        self.owners.get(&ip)
    }

    /// Every allocation, in the order of addresses.
    pub fn allocations(&self) -> impl Iterator<Item = (IpAddr, &EndpointId)> {
        self.owners.iter().map(|(ip, owner)| (*ip, owner))
    }

    /// How full each pool is, in the order in which they are used.
    #[must_use]
    pub fn usage(&self) -> Vec<PoolUsage> {
        self.pools.iter().map(|pool| self.usage_of(pool)).collect()
    }

    fn find(&self, family: Family, wanted: impl Fn(&Pool) -> bool) -> Result<(usize, IpAddr), AllocateError> {
        let taken = |ip| self.owners.contains_key(&ip) || self.resting.contains(&ip);
        let eligible = |pool: &Pool| pool.family() == family && !pool.spec.draining && wanted(pool);
        let mut pools = self.pools.iter().enumerate().filter(|(_, pool)| eligible(pool));
        let found = pools.find_map(|(index, pool)| pool.find(taken).map(|ip| (index, ip)));
        found.ok_or_else(|| {
            let full = self.pools.iter().filter(|pool| eligible(pool));
            let full: Vec<PoolUsage> = full.map(|pool| self.usage_of(pool)).collect();
            AllocateError::Exhausted {
                family,
                pools: self.pool_names(eligible),
                used: full.iter().map(|usage| usage.used).sum(),
                capacity: full.iter().map(|usage| usage.capacity).sum(),
                resting: full.iter().map(|usage| usage.resting).sum(),
            }
        })
    }

    fn usage_of(&self, pool: &Pool) -> PoolUsage {
        let within = pool.first_address()..=pool.last_address();
        PoolUsage {
            pool: pool.spec.pool.clone(),
            cidr: pool.spec.cidr,
            family: pool.family(),
            capacity: pool.capacity(),
            used: self.owners.range(within.clone()).count() as u64,
            resting: self.resting.range(within).count() as u64,
            draining: pool.spec.draining,
        }
    }

    fn in_pool(&self, ip: IpAddr) -> bool {
        self.pools.iter().any(|pool| pool.contains(ip))
    }

    fn pool_names(&self, wanted: impl Fn(&Pool) -> bool) -> String {
        let names: Vec<String> = self
            .pools
            .iter()
            .filter(|pool| wanted(pool))
            .map(|p| p.spec.cidr.to_string())
            .collect();
        names.join(", ")
    }
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}
