// SPDX-License-Identifier: Apache-2.0
//! Names that many objects have: nodes, zones, ports. Each is in memory once.

use std::collections::HashSet;
use std::sync::Arc;

/// Names before the first look which of them nobody has any more.
const LEAST: usize = 1024;

/// The names that the objects of a watch share.
#[derive(Debug, Default)]
pub(crate) struct Names {
    known: HashSet<Arc<str>>,
    /// So many were left at the last look.
    kept: usize,
}

impl Names {
    /// The one copy of a name.
    pub(crate) fn share(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.known.get(name) {
            return known.clone();
        }
        if self.known.len() >= (2 * self.kept).max(LEAST) {
            self.known.retain(|name| Arc::strong_count(name) > 1);
            self.kept = self.known.len();
        }
        let name: Arc<str> = name.into();
        self.known.insert(name.clone());
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_once_and_not_for_longer_than_somebody_has_it() {
        let mut names = Names::default();
        let first = names.share("zone-a");
        assert!(Arc::ptr_eq(&first, &names.share("zone-a")));
        for number in 0..10 * LEAST {
            names.share(&format!("node-{number}"));
        }
        assert!(names.known.len() <= 2 * LEAST, "{}", names.known.len());
        assert!(Arc::ptr_eq(&first, &names.share("zone-a")), "somebody has it");
    }
}
