// SPDX-License-Identifier: Apache-2.0
//! The ring of events.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use aya::maps::{MapData, RingBuf};
use datapath_common::{DropEvent, PathMtu, event};
use zerocopy::FromBytes;

use crate::sys;

/// Something that the programs tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A packet was dropped.
    Drop(DropEvent),
    /// A router on the way to another node takes less than a packet of the tunnel has.
    PathMtu(PathMtu),
}

impl Event {
    /// Decodes a record; `None`: of a kind or version that this one does not know.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let [event::VERSION, kind, ..] = *bytes else {
            return None;
        };
        match kind {
            event::KIND_DROP => Some(Self::Drop(DropEvent::read_from_prefix(bytes).ok()?.0)),
            event::KIND_PATH_MTU => Some(Self::PathMtu(PathMtu::read_from_prefix(bytes).ok()?.0)),
            _ => None,
        }
    }
}

/// The only reader of the ring.
pub struct EventReader {
    ring: RingBuf<MapData>,
    unknown: u64,
}

impl std::fmt::Debug for EventReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventReader")
            .field("unknown", &self.unknown)
            .finish_non_exhaustive()
    }
}

impl EventReader {
    pub(crate) fn new(ring: RingBuf<MapData>) -> Self {
        Self { ring, unknown: 0 }
    }

    /// The next event; `None`: none came in this time.
    pub fn next(&mut self, timeout: Duration) -> io::Result<Option<Event>> {
        let deadline = Instant::now() + timeout;
        loop {
            while let Some(record) = self.ring.next() {
                match Event::decode(&record) {
                    Some(event) => return Ok(Some(event)),
                    None => self.unknown += 1,
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match sys::wait_readable(self.ring.as_fd(), left) {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Records of an unknown kind or version, which were skipped.
    #[must_use]
    pub fn unknown(&self) -> u64 {
        self.unknown
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::{FromZeros, IntoBytes};

    use super::*;

    #[test]
    fn a_record_that_is_short_or_foreign_is_not_decoded() {
        let mut drop = DropEvent::new_zeroed();
        assert_eq!(Event::decode(drop.as_bytes()), None);
        (drop.version, drop.kind) = (event::VERSION, event::KIND_DROP);
        assert_eq!(Event::decode(drop.as_bytes()), Some(Event::Drop(drop)));
        assert_eq!(Event::decode(&drop.as_bytes()[..63]), None);
    }
}
