// SPDX-License-Identifier: Apache-2.0
//! What the programs know of this node.

use std::os::fd::OwnedFd;

use datapath_common::{LocalNode, maps};
use zerocopy::FromZeros;

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

    /// The row; all zero before it is first set.
    pub fn get(&self) -> Result<LocalNode, MapError> {
        Ok(self.0.get(&0)?.unwrap_or_else(LocalNode::new_zeroed))
    }
}
