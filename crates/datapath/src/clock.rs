// SPDX-License-Identifier: Apache-2.0
//! The kernel's jiffies, in which connection rows keep time.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use datapath_common::packet::ETH_LEN;

use crate::sys;

/// Tick rates that kernels are configured with.
const RATES: [u32; 9] = [24, 48, 100, 128, 200, 250, 256, 300, 1000];
/// How far jiffies may be from what the monotonic clock and a rate predict: ticks lost in early boot or by a
/// hypervisor. A wrong rate is further off by a multiple of the time since boot plus five minutes.
const TOLERANCE_SECONDS: i64 = 20;

/// Reads jiffies by running the program `clock`, and knows how long one is.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    program: Arc<OwnedFd>,
    rate: u32,
}

impl Clock {
    pub(crate) fn calibrate(program: OwnedFd) -> Result<Self, String> {
        let mut clock = Self {
            program: Arc::new(program),
            rate: 0,
        };
        let jiffies = clock
            .jiffies()
            .map_err(|error| format!("running the program `clock` failed: {error}"))?;
        clock.rate = rate(jiffies, sys::monotonic_ns())
            .ok_or_else(|| format!("jiffies {jiffies} fit none of {RATES:?} per second"))?;
        Ok(clock)
    }

    /// The low half of jiffies.
    pub(crate) fn jiffies(&self) -> io::Result<u32> {
        sys::test_run(self.program.as_fd(), &[0; ETH_LEN], &[], 1).map(|output| output.retval)
    }

    /// Jiffies per second.
    #[must_use]
    pub(crate) fn rate(&self) -> u32 {
        self.rate
    }
}

/// The rate at which `jiffies` is what the kernel's counter shows now. It starts at minus five minutes
/// (`INITIAL_JIFFIES`) and follows the monotonic clock, so one reading tells.
#[expect(
    clippy::cast_possible_truncation,
    reason = "jiffies are truncated in the same way"
)]
fn rate(jiffies: u32, monotonic_ns: u64) -> Option<u32> {
    let error = |rate: u32| {
        let since_boot = u128::from(monotonic_ns) * u128::from(rate) / 1_000_000_000;
        let expected = (since_boot as u32).wrapping_sub(300 * rate);
        i64::from(jiffies.wrapping_sub(expected).cast_signed()).abs() / i64::from(rate)
    };
    RATES
        .into_iter()
        .min_by_key(|&rate| error(rate))
        .filter(|&rate| error(rate) <= TOLERANCE_SECONDS)
}

/// The time from one reading to another; zero if `then` is the later.
pub(crate) fn elapsed(then: u32, now: u32, rate: u32) -> Duration {
    let ticks = now.wrapping_sub(then).cast_signed().max(0).cast_unsigned();
    Duration::from_secs(u64::from(ticks)) / rate.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_found_from_one_reading() {
        for uptime in [0_u64, 3, 299, 300, 86_400, 500 * 86_400] {
            for expected in RATES {
                let since_boot = uptime * u64::from(expected);
                let jiffies = u32::try_from(since_boot % (1 << 32))
                    .unwrap()
                    .wrapping_sub(300 * expected);
                assert_eq!(
                    rate(jiffies, uptime * 1_000_000_000),
                    Some(expected),
                    "{uptime} s at {expected}"
                );
            }
        }
    }

    #[test]
    fn a_reading_that_fits_no_rate_is_refused() {
        assert_eq!(rate(0, 86_400_000_000_000), None);
    }

    #[test]
    fn time_passes_over_the_wrap_of_the_counter() {
        assert_eq!(elapsed(u32::MAX - 99, 150, 250), Duration::from_secs(1));
        assert_eq!(elapsed(150, 100, 250), Duration::ZERO);
    }
}
