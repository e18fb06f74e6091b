// SPDX-License-Identifier: Apache-2.0
//! Which connections are over: pure.

use std::time::Duration;

use datapath_common::ct::{self, CtEntry, CtKey, Lifetime};

use crate::clock::elapsed;

/// How long a connection may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP before the handshake is done.
    pub tcp_half_open: Duration,
    /// TCP while both ends may send.
    pub tcp_established: Duration,
    /// TCP when one end has closed.
    pub tcp_half_closed: Duration,
    /// TCP after its end.
    pub tcp_closed: Duration,
    /// UDP and other protocols without an answer.
    pub unreplied: Duration,
    /// The same with one.
    pub replied: Duration,
    /// Echo of ICMP and ICMPv6.
    pub icmp: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            tcp_half_open: seconds(60),
            tcp_established: seconds(6 * 3600),
            tcp_half_closed: seconds(120),
            tcp_closed: seconds(10),
            unreplied: seconds(30),
            replied: seconds(180),
            icmp: seconds(30),
        }
    }
}

/// Up to this share of a full table nothing is shortened.
const PRESSURE_FROM: f64 = 0.5;
/// From this share on everything is shortened as far as it goes.
const PRESSURE_FULL: f64 = 0.95;
/// What remains of a timeout under full pressure: rows that a flood can make, and rows of real connections.
const CHEAP_REMAINS: f64 = 1.0 / 16.0;
const DEAR_REMAINS: f64 = 1.0 / 4.0;

impl Timeouts {
    /// Shorter timeouts for a table of which the share `fill` is used.
    #[must_use]
    pub fn under_pressure(&self, fill: f64) -> Self {
        let pressure = ((fill - PRESSURE_FROM) / (PRESSURE_FULL - PRESSURE_FROM)).clamp(0.0, 1.0);
        let cheap = |timeout: Duration| timeout.mul_f64(1.0 - pressure * (1.0 - CHEAP_REMAINS));
        let dear = |timeout: Duration| timeout.mul_f64(1.0 - pressure * (1.0 - DEAR_REMAINS));
        Self {
            tcp_half_open: cheap(self.tcp_half_open),
            tcp_established: dear(self.tcp_established),
            tcp_half_closed: dear(self.tcp_half_closed),
            tcp_closed: cheap(self.tcp_closed),
            unreplied: cheap(self.unreplied),
            replied: dear(self.replied),
            icmp: cheap(self.icmp),
        }
    }

    /// The timeout of a row.
    #[must_use]
    pub const fn of(&self, key: &CtKey, entry: &CtEntry) -> Duration {
        match ct::lifetime(key.proto, entry.state) {
            Lifetime::TcpHalfOpen => self.tcp_half_open,
            Lifetime::TcpEstablished => self.tcp_established,
            Lifetime::TcpHalfClosed => self.tcp_half_closed,
            Lifetime::TcpClosed => self.tcp_closed,
            Lifetime::Unreplied => self.unreplied,
            Lifetime::Replied => self.replied,
            Lifetime::Icmp => self.icmp,
        }
    }

    /// Whether a row has been silent for too long.
    #[must_use]
    pub fn expired(&self, key: &CtKey, entry: &CtEntry, now: u32, rate: u32) -> bool {
        elapsed(entry.last_seen, now, rate) >= self.of(key, entry)
    }
}

#[cfg(test)]
mod tests {
    use datapath_common::ct::State;
    use datapath_common::packet::{proto, tcp};
    use datapath_common::{Addr, Tuple};

    use super::*;

    const RATE: u32 = 250;

    fn row(proto: u8, state: State) -> (CtKey, CtEntry) {
        let (source, destination) = (Addr::v4([10, 0, 0, 1]), Addr::v4([10, 0, 0, 2]));
        let port = datapath_common::Be16::new(1);
        let (key, side) = Tuple {
            source,
            destination,
            source_port: port,
            destination_port: port,
            proto,
        }
        .key();
        let mut entry = CtEntry::open(1000, side, proto, tcp::SYN, 60);
        entry.state = state;
        (key, entry)
    }

    #[test]
    fn each_state_has_its_timeout() {
        let timeouts = Timeouts::default();
        for (proto, state, seconds) in [
            (proto::TCP, State::SYN_SENT, 60),
            (proto::TCP, State::SYN_RECEIVED, 60),
            (proto::TCP, State::ESTABLISHED, 6 * 3600),
            (proto::TCP, State::HALF_CLOSED, 120),
            (proto::TCP, State::CLOSED, 10),
            (proto::UDP, State::UNREPLIED, 30),
            (proto::UDP, State::REPLIED, 180),
            (proto::ICMPV6, State::REPLIED, 30),
        ] {
            let (key, entry) = row(proto, state);
            assert!(
                !timeouts.expired(&key, &entry, 1000 + seconds * RATE - 1, RATE),
                "{state}"
            );
            assert!(
                timeouts.expired(&key, &entry, 1000 + seconds * RATE, RATE),
                "{state}"
            );
        }
    }

    #[test]
    fn pressure_shortens_what_a_flood_makes_most() {
        let timeouts = Timeouts::default();
        assert_eq!(timeouts.under_pressure(0.5), timeouts);
        let pressed = timeouts.under_pressure(1.0);
        assert_eq!(pressed.tcp_half_open, Duration::from_millis(3750));
        assert_eq!(pressed.tcp_established, Duration::from_secs(90 * 60));
        let some = timeouts.under_pressure(0.8);
        assert!(some.tcp_closed < timeouts.tcp_closed && some.tcp_closed > pressed.tcp_closed);
    }

    #[test]
    fn a_row_seen_after_the_walk_began_stays() {
        let (key, entry) = row(proto::TCP, State::CLOSED);
        assert!(!Timeouts::default().expired(&key, &entry, 990, RATE));
    }
}
