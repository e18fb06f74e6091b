// SPDX-License-Identifier: Apache-2.0
//! The maps of services. Which rows they have is the agent's to say.

use std::time::Duration;

use datapath_common::service::{
    Affinity, AffinityKey, Backend, BackendKey, MemberKey, Service, ServiceKey, SocketKey, SocketPeer,
    SourceKey,
};

use crate::{HashMap, MapError};

/// Handles to the maps of services. Write in this order, so that no program finds a row whose others are missing: backends, members and
/// sources, then the frontend, then the address in `endpoints`; and delete in the other.
#[derive(Clone, Debug)]
pub struct Services {
    pub(crate) frontends: HashMap<ServiceKey, Service>,
    pub(crate) backends: HashMap<BackendKey, Backend>,
    pub(crate) members: HashMap<MemberKey, u32>,
    pub(crate) affinity: HashMap<AffinityKey, Affinity>,
    pub(crate) sources: HashMap<SourceKey, u32>,
    pub(crate) sockets: HashMap<SocketKey, SocketPeer>,
    /// Ticks of the kernel's clock in a second.
    pub(crate) hz: u32,
}

impl Services {
    /// What clients connect to.
    #[must_use]
    pub const fn frontends(&self) -> &HashMap<ServiceKey, Service> {
        &self.frontends
    }

    /// Who answers.
    #[must_use]
    pub const fn backends(&self) -> &HashMap<BackendKey, Backend> {
        &self.backends
    }

    /// Who is in which set.
    #[must_use]
    pub const fn members(&self) -> &HashMap<MemberKey, u32> {
        &self.members
    }

    /// Who had which backend last.
    #[must_use]
    pub const fn affinity(&self) -> &HashMap<AffinityKey, Affinity> {
        &self.affinity
    }

    /// Who may use services from outside. The map is a trie: only single rows can be read, written, deleted and walked.
    #[must_use]
    pub const fn sources(&self) -> &HashMap<SourceKey, u32> {
        &self.sources
    }

    /// The networks of clients that have a row.
    pub fn source_keys(&self) -> Result<Vec<SourceKey>, MapError> {
        let mut keys: Vec<SourceKey> = Vec::new();
        // Only the apply loop removes rows, and it does not while it reads; the bound is for a map that others write to.
        for _ in 0..=self.sources.max_entries() {
            let Some(next) = self.sources.next_key(keys.last())? else {
                break;
            };
            keys.push(next);
        }
        Ok(keys)
    }

    /// Sockets that believe to talk to a service.
    #[must_use]
    pub const fn sockets(&self) -> &HashMap<SocketKey, SocketPeer> {
        &self.sockets
    }

    /// A time in ticks of the kernel's clock, as rows have it.
    #[must_use]
    pub fn ticks(&self, time: Duration) -> u32 {
        u32::try_from(time.as_millis() * u128::from(self.hz) / 1000).unwrap_or(u32::MAX)
    }
}
