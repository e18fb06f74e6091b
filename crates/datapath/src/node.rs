// SPDX-License-Identifier: Apache-2.0
//! What the programs know of this node.

use std::os::fd::OwnedFd;

use datapath_common::{LocalNode, maps};

use crate::MapError;
use crate::map::HashMap;

/// The one row of `node`.
#[derive(Debug)]
pub struct NodeRow(HashMap<u32, LocalNode>);

impl NodeRow {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self(HashMap::new(fd, maps::NODE.name, maps::NODE.max_entries))
    }

    /// Writes the row.
    pub fn set(&mut self, row: &LocalNode) -> Result<(), MapError> {
        self.0.insert(&0, row)
    }

    /// The row; always there.
    pub fn get(&self) -> Result<Option<LocalNode>, MapError> {
        self.0.get(&0)
    }
}
