// SPDX-License-Identifier: Apache-2.0
//! What the loader is told.

use std::path::PathBuf;

use datapath_common::{NodeConfig, maps};

use crate::{MIGRATIONS, Migration};

/// The settings of the datapath.
#[derive(Clone, Debug)]
pub struct Options {
    /// A mounted BPF file system; the pins are in its directory `thalweg`.
    pub bpffs: PathBuf,
    /// Load-time constants.
    pub node: NodeConfig,
    /// Sizes of the maps.
    pub limits: Limits,
    /// How programs are attached.
    pub attach: AttachMode,
    /// Maps of earlier versions whose rows are carried over; in the order in which rows need each other.
    pub former: &'static [Migration],
}

impl Options {
    /// With sizes from memory and the best way to attach.
    #[must_use]
    pub fn new(bpffs: impl Into<PathBuf>, node: NodeConfig) -> Self {
        Self {
            bpffs: bpffs.into(),
            node,
            limits: Limits::default(),
            attach: AttachMode::Auto,
            former: MIGRATIONS,
        }
    }
}

/// How programs are attached to devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// By tcx where the kernel has it (6.6), else by clsact.
    Auto,
    /// By clsact.
    Clsact,
}

/// Sizes of the maps; 0 chooses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Connections; chosen from memory.
    pub conntrack_max: u32,
    /// Local pods and addresses of the node.
    pub endpoints_max: u32,
    /// Frontends of services; chosen from memory. (Backends: four times as many.)
    pub services_max: u32,
    /// Bytes of the ring of events; a power of two of at least a page.
    pub events_bytes: u32,
}

/// Memory per connection that is offered for each of [`Limits::conntrack_max`]: a row takes 152 bytes of it.
const MEMORY_PER_CONNECTION: u64 = 64 << 10;
const CONNTRACK_LEAST: u64 = 1 << 16;
const CONNTRACK_MOST: u64 = 1 << 22;

impl Limits {
    /// With every 0 replaced, on a machine with this much memory.
    #[must_use]
    pub fn resolve(self, memory_bytes: u64) -> Self {
        let or = |value: u32, default: u32| if value == 0 { default } else { value };
        let by_memory = (memory_bytes / MEMORY_PER_CONNECTION).clamp(CONNTRACK_LEAST, CONNTRACK_MOST);
        // Hash tables have a power of two of buckets: any other number of rows wastes some.
        let by_memory = u32::try_from(1_u64 << by_memory.ilog2()).unwrap_or(u32::MAX);
        Self {
            conntrack_max: or(self.conntrack_max, by_memory),
            services_max: or(self.services_max, by_memory),
            endpoints_max: or(self.endpoints_max, maps::ENDPOINTS.max_entries),
            events_bytes: or(self.events_bytes, maps::EVENTS.max_entries)
                .max(4096)
                .next_power_of_two(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_connections_follows_memory_within_bounds() {
        let connections = |gib: u64| Limits::default().resolve(gib << 30).conntrack_max;
        assert_eq!(connections(1), 65_536);
        assert_eq!(connections(16), 262_144);
        assert_eq!(connections(24), 262_144);
        assert_eq!(connections(4096), 1 << 22);
    }

    #[test]
    fn what_is_set_stays() {
        let limits = Limits {
            conntrack_max: 1000,
            endpoints_max: 10,
            services_max: 20,
            events_bytes: 5000,
        }
        .resolve(1 << 34);
        assert_eq!(
            limits,
            Limits {
                conntrack_max: 1000,
                endpoints_max: 10,
                services_max: 20,
                events_bytes: 8192
            }
        );
    }
}
