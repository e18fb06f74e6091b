// SPDX-License-Identifier: Apache-2.0
//! What of a service is in the maps.

use crate::frontend::Kind;
use crate::resolve::{Remark, Wanted};
use crate::sets::Group;
use crate::{Frontend, Totals};

/// A service as it was last emitted.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    pub(crate) created: i64,
    pub(crate) groups: Box<[Group]>,
    /// Those that are ours.
    pub(crate) frontends: Box<[Wanted]>,
    /// Those that another has.
    pub(crate) lost: Box<[(Frontend, Kind)]>,
    pub(crate) remarks: Box<[Remark]>,
    pub(crate) health_check_port: u16,
    /// Whether all rows have been written once.
    pub(crate) in_force: bool,
    /// Why not all rows could be written.
    pub(crate) failed: Option<Box<str>>,
}

impl Entry {
    pub(crate) fn add_to(&self, totals: &mut Totals) {
        totals.owners += usize::from(!self.frontends.is_empty());
        totals.frontends += self.frontends.len();
        totals.backends += self.slots();
        totals.refused += usize::from(self.is_refused());
        totals.failed += usize::from(self.failed.is_some());
    }

    pub(crate) fn take_from(&self, totals: &mut Totals) {
        totals.owners -= usize::from(!self.frontends.is_empty());
        totals.frontends -= self.frontends.len();
        totals.backends -= self.slots();
        totals.refused -= usize::from(self.is_refused());
        totals.failed -= usize::from(self.failed.is_some());
    }

    fn slots(&self) -> usize {
        let sets = self.groups.iter().flat_map(|group| &group.sets);
        sets.map(|set| set.count() as usize).sum()
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.remarks
            .iter()
            .any(|remark| remark.weight == crate::Weight::Refused)
    }

    pub(crate) fn claims(&self) -> impl Iterator<Item = (Frontend, Kind)> {
        let own = self.frontends.iter().map(|wanted| (wanted.frontend, wanted.kind));
        own.chain(self.lost.iter().copied())
    }
}
