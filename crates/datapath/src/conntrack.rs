// SPDX-License-Identifier: Apache-2.0
//! The table of connections: reading it and collecting what is over.

use std::net::IpAddr;
use std::time::Duration;

use datapath_common::ct::{CtEntry, CtKey, Tuple};
use datapath_common::{Addr, maps};

use crate::clock::{Clock, elapsed};
use crate::{HashMap, MapError, Timeouts};

/// A handle to the table, for any thread.
#[derive(Clone, Debug)]
pub struct Conntrack {
    map: HashMap<CtKey, CtEntry>,
    clock: Clock,
}

/// A connection as people read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// A packet of the opener.
    pub tuple: Tuple,
    /// The row.
    pub entry: CtEntry,
    /// Since the first packet.
    pub age: Duration,
    /// Since the last packet.
    pub idle: Duration,
}

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GcReport {
    /// Rows looked at.
    pub scanned: usize,
    /// Rows deleted.
    pub removed: usize,
    /// Rows that remain.
    pub entries: usize,
    /// The share of the table that was used when the collection began.
    pub pressure: f64,
}

impl Conntrack {
    pub(crate) fn new(map: HashMap<CtKey, CtEntry>, clock: Clock) -> Self {
        Self { map, clock }
    }

    /// The rows as they are.
    #[must_use]
    pub fn map(&self) -> &HashMap<CtKey, CtEntry> {
        &self.map
    }

    /// How many connections fit.
    #[must_use]
    pub fn max_entries(&self) -> u32 {
        self.map.max_entries()
    }

    /// How many there are; walks the table.
    pub fn len(&self) -> Result<usize, MapError> {
        self.map.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> Result<bool, MapError> {
        self.map.is_empty()
    }

    /// Calls `visit` with each connection.
    pub fn for_each(&self, mut visit: impl FnMut(Connection)) -> Result<(), MapError> {
        let (now, rate) = (self.now()?, self.clock.rate());
        self.map.for_each(|key, entry| {
            visit(Connection {
                tuple: key.tuple(entry.opener),
                entry: *entry,
                age: elapsed(entry.created, now, rate),
                idle: elapsed(entry.last_seen, now, rate),
            });
        })
    }

    /// All connections.
    pub fn entries(&self) -> Result<Vec<Connection>, MapError> {
        let mut connections = Vec::new();
        self.for_each(|connection| connections.push(connection))?;
        Ok(connections)
    }

    /// Deletes the connections that are over; under pressure, sooner.
    ///
    /// `fill` is the share of the table in use as the last report said, 0 at first: so that one walk does.
    pub fn collect_garbage(&self, timeouts: &Timeouts, last: &GcReport) -> Result<GcReport, MapError> {
        let max = f64::from(self.max_entries().max(1));
        let expected = last.entries as f64 / max;
        let (now, rate) = (self.now()?, self.clock.rate());
        let timeouts = timeouts.under_pressure(expected);
        let (mut scanned, mut over) = (0, Vec::new());
        self.map.for_each(|key, entry| {
            scanned += 1;
            if timeouts.expired(key, entry, now, rate) {
                over.push(*key);
            }
        })?;
        // A packet that comes between the two calls finds no row and opens one, in mid-stream as after a restart.
        let removed = self.map.remove_all(&over)?;
        Ok(GcReport {
            scanned,
            removed,
            entries: scanned.saturating_sub(removed),
            pressure: scanned as f64 / max,
        })
    }

    /// Deletes the connections of an address that is no longer a pod's, so that its next owner inherits none.
    pub fn remove_address(&self, ip: IpAddr) -> Result<usize, MapError> {
        let addr = Addr::from(ip);
        let mut keys = Vec::new();
        self.map.for_each(|key, _| {
            if key.addr.contains(&addr) {
                keys.push(*key);
            }
        })?;
        self.map.remove_all(&keys)
    }

    fn now(&self) -> Result<u32, MapError> {
        let map = maps::CONNTRACK.name;
        self.clock.jiffies().map_err(|source| MapError {
            operation: "read the clock",
            map,
            source,
        })
    }
}
