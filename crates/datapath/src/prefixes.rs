// SPDX-License-Identifier: Apache-2.0
//! What lies behind other nodes, by prefix.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use datapath_common::{Prefix, PrefixKey, maps};
use ipnet::IpNet;

use crate::MapError;
use crate::map::HashMap;

/// The trie of `prefixes`: few rows, changed seldom.
#[derive(Debug)]
pub struct PrefixesMap(HashMap<PrefixKey, Prefix>);

impl PrefixesMap {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        let spec = maps::PREFIXES;
        Self(HashMap::new(fd, spec.name, spec.max_entries))
    }

    /// Writes a prefix's row, over the one that is there.
    pub fn upsert(&mut self, net: &IpNet, row: &Prefix) -> Result<(), MapError> {
        self.0.insert(&key(net), row)
    }

    /// Deletes a prefix's row; `false`: was absent.
    pub fn remove(&mut self, net: &IpNet) -> Result<bool, MapError> {
        self.0.remove(&key(net))
    }

    /// All rows. Tries have batches only since 5.14, so they are read one by one.
    pub fn rows(&self) -> Result<BTreeMap<IpNet, Prefix>, MapError> {
        let mut rows = BTreeMap::new();
        let mut last = None;
        // Only the apply loop removes rows, and it does not while it reads; the bound is for a map that others write to.
        for _ in 0..=self.0.max_entries() {
            let Some(next) = self.0.next_key(last.as_ref())? else {
                break;
            };
            if let Some(row) = self.0.get(&next)? {
                let (addr, length) = next.split();
                rows.extend(IpNet::new(addr.to_ip(), length).ok().map(|net| (net, row)));
            }
            last = Some(next);
        }
        Ok(rows)
    }

    /// Makes the rows these and no others; returns how many were written and how many deleted.
    pub fn replace(&mut self, wanted: &BTreeMap<IpNet, Prefix>) -> Result<(usize, usize), MapError> {
        let current = self.rows()?;
        let (mut written, mut deleted) = (0, 0);
        for (net, row) in wanted {
            if current.get(net) != Some(row) {
                self.upsert(net, row)?;
                written += 1;
            }
        }
        for net in current.keys().filter(|net| !wanted.contains_key(net)) {
            deleted += usize::from(self.remove(net)?);
        }
        Ok((written, deleted))
    }
}

fn key(net: &IpNet) -> PrefixKey {
    PrefixKey::prefix(&net.network().into(), net.prefix_len())
}
