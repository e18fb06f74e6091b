// SPDX-License-Identifier: Apache-2.0
//! Rows to write and rows to delete.

use std::net::IpAddr;

use datapath_common::service::{Backend, BackendKey, MemberKey, Service, ServiceKey, SourceKey};

use crate::Owner;

/// Rows to write and rows to delete, in the order of the fields: no program then finds a row whose others are missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Slots.
    pub backends: Vec<(BackendKey, Backend)>,
    /// Who is in which set, and at which slot.
    pub members: Vec<(MemberKey, u32)>,
    /// Who may use services from outside.
    pub sources: Vec<SourceKey>,
    /// Frontends.
    pub frontends: Vec<(ServiceKey, Service)>,
    /// Addresses that services have and nobody else.
    pub addresses: Vec<IpAddr>,
    /// Addresses that services no longer have.
    pub gone_addresses: Vec<IpAddr>,
    /// Frontends that are no more.
    pub gone_frontends: Vec<ServiceKey>,
    /// Networks that no longer count.
    pub gone_sources: Vec<SourceKey>,
    /// Who is no longer in which set.
    pub gone_members: Vec<MemberKey>,
    /// Slots that no frontend counts any more.
    pub gone_backends: Vec<BackendKey>,
    /// Whose rows these are.
    pub owners: Vec<Owner>,
}

impl Batch {
    /// Rows that are written or deleted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.written() + self.deleted()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows that are written.
    #[must_use]
    pub fn written(&self) -> usize {
        self.backends.len()
            + self.members.len()
            + self.sources.len()
            + self.frontends.len()
            + self.addresses.len()
    }

    /// Rows that are deleted.
    #[must_use]
    pub fn deleted(&self) -> usize {
        self.gone_addresses.len()
            + self.gone_frontends.len()
            + self.gone_sources.len()
            + self.gone_members.len()
            + self.gone_backends.len()
    }
}
