// SPDX-License-Identifier: Apache-2.0
//! Packets and bytes by reason and direction.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use datapath_common::{Counter, Direction, Reason, maps, metrics};
use zerocopy::{FromZeros, IntoBytes};

use crate::{MapError, sys};

/// A handle to the counters, for any thread.
#[derive(Clone, Debug)]
pub struct Counters {
    fd: Arc<OwnedFd>,
    cpus: usize,
}

/// The sum over all CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterRow {
    /// Why; [`Reason::FORWARDED`] for packets that went on.
    pub reason: Reason,
    /// Which way.
    pub direction: Direction,
    /// Packets; a GSO packet is one.
    pub packets: u64,
    /// Bytes with Ethernet headers.
    pub bytes: u64,
}

impl Counters {
    pub(crate) fn new(fd: OwnedFd, cpus: usize) -> Self {
        Self {
            fd: Arc::new(fd),
            cpus,
        }
    }

    /// One counter.
    pub fn get(&self, reason: Reason, direction: Direction) -> Result<CounterRow, MapError> {
        let mut per_cpu = vec![Counter::new_zeroed(); self.cpus];
        let key = metrics::index(reason, direction);
        sys::lookup(self.fd.as_fd(), key.as_bytes(), per_cpu.as_mut_bytes()).map_err(|source| MapError {
            operation: "read a row",
            map: maps::METRICS.name,
            source,
        })?;
        Ok(CounterRow {
            reason,
            direction,
            packets: per_cpu.iter().map(|counter| counter.packets).sum(),
            bytes: per_cpu.iter().map(|counter| counter.bytes).sum(),
        })
    }

    /// Events that found the ring full.
    pub fn events_lost(&self) -> Result<u64, MapError> {
        let lost = Direction::ALL.map(|direction| self.get(Reason::EVENT_LOST, direction));
        lost.into_iter().map(|row| row.map(|row| row.packets)).sum()
    }

    /// Every known reason in both directions, also where nothing was counted.
    pub fn rows(&self) -> Result<Vec<CounterRow>, MapError> {
        let reasons = Reason::ALL.iter();
        let each = reasons.flat_map(|&reason| Direction::ALL.map(|direction| (reason, direction)));
        each.map(|(reason, direction)| self.get(reason, direction))
            .collect()
    }
}
