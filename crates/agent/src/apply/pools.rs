// SPDX-License-Identifier: Apache-2.0
//! Where the node's addresses come from: its Node's pod CIDRs, or the blocks that the operator has granted.

use std::collections::{BTreeMap, BTreeSet};

use cni::{Error, codes};
use ipam::PoolSpec;
use ipnet::IpNet;
use model::{DEFAULT_POOL, Family, Node, NodePools};
use netlink::Netlink;
use state::{Revision, Table};
use tracing::{info, warn};

use super::routes;
use crate::endpoints::{Endpoints, From};

/// What the apply thread acts on, for the node's report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The UID of the node's object; empty while there is none.
    pub uid: String,
    /// The generation of its specification.
    pub generation: i64,
    /// Blocks that are wanted back and with which the node has done.
    pub released: BTreeSet<IpNet>,
}

/// The node's pools as they are in force.
pub(super) struct Pools {
    node: String,
    /// What the operator has granted; nothing where addresses come from the Node.
    granted: Option<Table<NodePools>>,
    seen: Option<Revision>,
    specs: Vec<PoolSpec>,
    families: BTreeMap<String, Vec<Family>>,
    pub(super) applied: Applied,
    pub(super) problem: Option<String>,
}

impl Pools {
    pub(super) fn new(node: &str, granted: Option<Table<NodePools>>) -> Self {
        Self {
            node: node.to_owned(),
            granted,
            seen: None,
            specs: Vec::new(),
            families: BTreeMap::new(),
            applied: Applied::default(),
            problem: None,
        }
    }

    /// At the start: the networks that the kernel's routes remember, until the API says more. A block that was given back has no
    /// route any more. Which pool each is of is not remembered: they count as the default pool's.
    pub(super) fn restore(&mut self, endpoints: &mut Endpoints, networks: Vec<IpNet>) {
        let pool = self.granted.as_ref().map_or("", |_| DEFAULT_POOL);
        let spec = |cidr: IpNet| PoolSpec {
            pool: pool.to_owned(),
            ..cidr.into()
        };
        self.set(endpoints, networks.into_iter().map(spec).collect());
    }

    /// Whether the operator has granted something else than what is in force.
    pub(super) fn is_behind(&self) -> bool {
        let granted = self.granted.as_ref().map(Table::snapshot);
        granted.is_some_and(|granted| granted.in_sync() && self.seen != Some(granted.revision()))
    }

    /// Brings the pools in line with the Node or the grants; `own` counts only once the nodes are known.
    pub(super) fn update(&mut self, endpoints: &mut Endpoints, own: Option<&Node>, known: bool) {
        match &self.granted {
            None if known => {
                let cidrs = own.map(|node| node.pod_cidrs.clone()).unwrap_or_default();
                self.set(endpoints, cidrs.into_iter().map(Into::into).collect());
            }
            None => {}
            Some(_) => self.take_grants(endpoints),
        }
    }

    /// Brings the pools in line with the grants.
    pub(super) fn take_grants(&mut self, endpoints: &mut Endpoints) {
        let Some(granted) = self.granted.as_ref().map(Table::snapshot) else {
            return;
        };
        if !granted.in_sync() {
            return;
        }
        let own = granted.get(&self.node);
        let specs = own.into_iter().flat_map(specs).collect();
        self.seen = Some(granted.revision());
        if !self.set(endpoints, specs) {
            return;
        }
        let grants = own.map(|own| own.grants.as_slice()).unwrap_or_default();
        self.families = grants
            .iter()
            .map(|grant| (grant.pool.clone(), grant.families.clone()))
            .collect();
        let (uid, generation) = own.map_or_else(Default::default, |own| (own.uid.clone(), own.generation));
        if (&self.applied.uid, self.applied.generation) != (&uid, generation) {
            self.applied = Applied {
                uid,
                generation,
                released: BTreeSet::new(),
            };
        }
    }

    /// Looks which blocks that are wanted back are free of everything, after the routes were brought in line.
    pub(super) fn note_released(&mut self, endpoints: &Endpoints, netlink: &mut Netlink, host_link: u32) {
        let draining = || self.specs.iter().filter(|spec| spec.draining);
        if draining().next().is_none() {
            self.applied.released.clear();
            return;
        }
        // Without the routes nothing is certain, and nothing is given back.
        let Ok(routed) = routes::local_networks(netlink, host_link) else {
            return;
        };
        let usage = endpoints.usage();
        let idle = |cidr: &IpNet| {
            let one = usage.iter().find(|one| one.cidr == *cidr);
            one.is_some_and(|one| one.used == 0 && one.resting == 0)
        };
        self.applied.released = draining()
            .map(|spec| spec.cidr)
            .filter(|cidr| idle(cidr) && !routed.contains(cidr))
            .collect();
    }

    /// Whether an address can be given at all.
    pub(super) fn status(&self) -> Result<(), Error> {
        if self.specs.iter().any(|spec| !spec.draining) {
            return Ok(());
        }
        let (msg, remedy) = match self.granted {
            None => (
                "this node has no pod CIDR yet",
                "see Node.spec.podCIDRs and who sets it",
            ),
            Some(_) => (
                "the operator has not handed this node any addresses yet",
                "see `thalweg ipam status`, and whether the operator runs",
            ),
        };
        Err(Error::new(codes::NOT_AVAILABLE, msg, remedy))
    }

    /// Where a pod's addresses come from.
    pub(super) fn from(&self, pool: Option<String>) -> From {
        let Some(pool) = pool.filter(|_| self.granted.is_some()) else {
            return From::Anywhere;
        };
        let families = self.families.get(&pool).cloned().unwrap_or_else(|| {
            let of_pool = self.specs.iter().filter(|spec| spec.pool == pool);
            let families: BTreeSet<Family> = of_pool.map(|spec| Family::of_net(&spec.cidr)).collect();
            families.into_iter().collect()
        });
        From::Pool { pool, families }
    }

    fn set(&mut self, endpoints: &mut Endpoints, specs: Vec<PoolSpec>) -> bool {
        if specs == self.specs {
            self.problem = None;
            return true;
        }
        match endpoints.set_pools(&specs) {
            Ok(()) => {
                let cidrs: Vec<_> = specs.iter().map(|spec| spec.cidr.to_string()).collect();
                info!(pools = ?cidrs, "addresses come from these networks");
                (self.specs, self.problem) = (specs, None);
                true
            }
            Err(error) => {
                warn!(%error, "the node's networks cannot be used");
                self.problem = Some(error.to_string());
                false
            }
        }
    }
}

fn specs(own: &NodePools) -> impl Iterator<Item = PoolSpec> {
    own.grants.iter().flat_map(|grant| {
        grant.blocks.iter().map(|block| PoolSpec {
            pool: grant.pool.clone(),
            draining: block.releasing,
            ..block.cidr.into()
        })
    })
}
