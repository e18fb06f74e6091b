// SPDX-License-Identifier: Apache-2.0
//! The table of connections: reading it and collecting what is over.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use datapath_common::ct::{CtEntry, CtKey, State, Tuple};
use datapath_common::maps;

use crate::clock::{Clock, elapsed};
use crate::nat::{Masquerade, Nat, NatReport, Remotes};
use crate::{HashMap, MapError, Timeouts};

/// Connections that are looked at once more and deleted: so few that nothing happens to the last while the first are looked at.
const AT_ONCE: usize = 64;

/// A handle to the table, for any thread.
#[derive(Clone, Debug)]
pub struct Conntrack {
    map: HashMap<CtKey, CtEntry>,
    nat: Nat,
    clock: Clock,
}

/// A connection as people read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// A packet of the opener.
    pub tuple: Tuple,
    /// The row.
    pub entry: CtEntry,
    /// The node's address and port that the opener has outside, if it is masqueraded.
    pub masqueraded: Option<SocketAddr>,
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
    /// How much is masqueraded.
    pub nat: NatReport,
}

impl Conntrack {
    pub(crate) fn new(map: HashMap<CtKey, CtEntry>, nat: Nat, clock: Clock) -> Self {
        Self { map, nat, clock }
    }

    /// How the connections look outside of the node.
    #[must_use]
    pub fn nat(&self) -> &Nat {
        &self.nat
    }

    /// Says what new connections to the world get as their source; those that are open keep what they have.
    pub fn masquerade(&self, wanted: &Masquerade) -> Result<(), MapError> {
        self.nat.set(wanted, || {
            let mut used = 0;
            self.map.for_each(|_, entry| {
                let mapping = entry.mapping();
                used |= u32::from(mapping.is_some()) << mapping.slot();
            })?;
            Ok(used)
        })
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
        let (now, rate, slots) = (self.now()?, self.clock.rate(), self.nat.slots()?);
        self.map.for_each(|key, entry| {
            visit(Connection {
                tuple: key.tuple(entry.opener),
                entry: *entry,
                masqueraded: slots.socket(entry),
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
    /// Rows of `nat` go with their connections, and those that have lost theirs on their own.
    ///
    /// `fill` is the share of the table in use as the last report said, 0 at first: so that one walk does.
    pub fn collect_garbage(&self, timeouts: &Timeouts, last: &GcReport) -> Result<GcReport, MapError> {
        let max = f64::from(self.max_entries().max(1));
        let expected = last.entries as f64 / max;
        let (now, rate, slots) = (self.now()?, self.clock.rate(), self.nat.slots()?);
        let timeouts = timeouts.under_pressure(expected);
        let (mut scanned, mut over, mut reusable) = (0, Vec::new(), Remotes::default());
        self.map.for_each(|key, entry| {
            scanned += 1;
            if timeouts.expired(key, entry, now, rate) {
                over.push(*key);
            } else if entry.state == State::CLOSED {
                reusable.extend(slots.remote_of(key, entry));
            }
        })?;
        let mut removed = 0;
        for keys in over.chunks(AT_ONCE) {
            removed += self.remove_expired(keys, &timeouts)?;
        }
        let nat = self.nat.sweep(&self.map, &reusable, now, rate)?;
        Ok(GcReport {
            scanned,
            removed,
            entries: scanned.saturating_sub(removed),
            pressure: scanned as f64 / max,
            nat,
        })
    }

    /// Deletes those of a few connections that are still over: a pod may have used its port again since.
    fn remove_expired(&self, keys: &[CtKey], timeouts: &Timeouts) -> Result<usize, MapError> {
        let (now, rate) = (self.now()?, self.clock.rate());
        let mut over = Vec::with_capacity(keys.len());
        for key in keys {
            let entry = self.map.get(key)?;
            over.extend(
                entry
                    .filter(|entry| timeouts.expired(key, entry, now, rate))
                    .map(|entry| (*key, entry)),
            );
        }
        self.remove(&over)
    }

    /// Deletes connections, and then how they look outside: of those only that it has deleted itself. The port of one that a
    /// program has deleted is another's.
    ///
    /// A packet that comes between the two calls finds no connection and opens one, in mid-stream as after a restart, with another
    /// port: the old one is still taken. The other way round it would be sent with a port that nobody holds for it.
    fn remove(&self, connections: &[(CtKey, CtEntry)]) -> Result<usize, MapError> {
        let keys: Vec<_> = connections.iter().map(|(key, _)| *key).collect();
        let mut removed = Vec::with_capacity(connections.len());
        self.map.remove_each(&keys, |range| {
            removed.extend_from_slice(connections.get(range).unwrap_or_default());
        })?;
        self.nat.remove(&removed)?;
        Ok(removed.len())
    }

    /// Deletes the connections of addresses that are no longer pods', so that their next owners inherit none.
    pub fn remove_addresses(&self, ips: &BTreeSet<IpAddr>) -> Result<usize, MapError> {
        let mut over = Vec::new();
        self.map.for_each(|key, entry| {
            if key.addr.iter().any(|addr| ips.contains(&addr.to_ip())) {
                over.push((*key, *entry));
            }
        })?;
        self.remove(&over)
    }

    /// The same of one address.
    pub fn remove_address(&self, ip: IpAddr) -> Result<usize, MapError> {
        self.remove_addresses(&BTreeSet::from([ip]))
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
