// SPDX-License-Identifier: Apache-2.0
//! The addresses that live here.

use std::net::IpAddr;

use datapath_common::{Addr, Endpoint};

use crate::{HashMap, MapError};

/// Rows of local pods and of the node's own addresses.
#[derive(Clone, Debug)]
pub struct EndpointsMap(pub(crate) HashMap<Addr, Endpoint>);

impl EndpointsMap {
    /// Writes an address's row.
    pub fn upsert(&mut self, ip: IpAddr, endpoint: &Endpoint) -> Result<(), MapError> {
        self.0.insert(&ip.into(), endpoint)
    }

    /// Deletes an address's row; `false`: was absent.
    pub fn remove(&mut self, ip: IpAddr) -> Result<bool, MapError> {
        self.0.remove(&ip.into())
    }

    /// An address's row.
    pub fn get(&self, ip: IpAddr) -> Result<Option<Endpoint>, MapError> {
        self.0.get(&ip.into())
    }

    /// All rows.
    pub fn rows(&self) -> Result<Vec<(IpAddr, Endpoint)>, MapError> {
        Ok(self
            .0
            .rows()?
            .into_iter()
            .map(|(addr, endpoint)| (addr.to_ip(), endpoint))
            .collect())
    }

    /// How many rows fit.
    #[must_use]
    pub fn max_entries(&self) -> u32 {
        self.0.max_entries()
    }
}
