// SPDX-License-Identifier: Apache-2.0
//! The kernel's jiffies, in which connection rows keep time.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use datapath_common::packet::ETH_LEN;

use crate::sys;

/// Tick rates that kernels for x86 and ARM are configured with.
const RATES: [u32; 4] = [100, 250, 300, 1000];
/// How far jiffies may be from what the monotonic clock and a rate predict: ticks lost in early boot or by a hypervisor.
const TOLERANCE_SECONDS: i64 = 5;
/// Long enough to tell the rates apart by counting.
const MEASURE: Duration = Duration::from_millis(100);

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
        let failed = |error: io::Error| format!("running the program `clock` failed: {error}");
        let (first, at) = (clock.jiffies().map_err(failed)?, sys::monotonic_ns());
        clock.rate = match predict(first, at) {
            Some(rate) => rate,
            None => {
                std::thread::sleep(MEASURE);
                let ticks = clock.jiffies().map_err(failed)?.wrapping_sub(first);
                measure(ticks, sys::monotonic_ns() - at)
            }
        };
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

/// The one rate at which `jiffies` is what the kernel's counter shows now, if there is just one.
///
/// The counter starts at minus five minutes (`INITIAL_JIFFIES`) and follows the monotonic clock, so one reading tells, except
/// around five minutes after boot, when the counter is near zero at any rate.
#[expect(
    clippy::cast_possible_truncation,
    reason = "jiffies are truncated in the same way"
)]
fn predict(jiffies: u32, monotonic_ns: u64) -> Option<u32> {
    let fits = |rate: &u32| {
        let since_boot = u128::from(monotonic_ns) * u128::from(*rate) / 1_000_000_000;
        let expected = (since_boot as u32).wrapping_sub(300 * rate);
        let error = i64::from(jiffies.wrapping_sub(expected).cast_signed());
        error.abs() <= TOLERANCE_SECONDS * i64::from(*rate)
    };
    let mut fitting = RATES.into_iter().filter(fits);
    fitting.next().filter(|_| fitting.next().is_none())
}

/// The rate closest to what was counted.
fn measure(ticks: u32, elapsed_ns: u64) -> u32 {
    let error = |rate: &u32| (u64::from(*rate) * elapsed_ns / 1_000_000_000).abs_diff(u64::from(ticks));
    RATES.into_iter().min_by_key(error).unwrap_or(250)
}

/// The time from one reading to another; zero if `then` is the later.
pub(crate) fn elapsed(then: u32, now: u32, rate: u32) -> Duration {
    let ticks = now.wrapping_sub(then).cast_signed().max(0).cast_unsigned();
    Duration::from_secs(u64::from(ticks)) / rate.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jiffies(uptime: u64, rate: u32) -> u32 {
        let since_boot = uptime * u64::from(rate);
        u32::try_from(since_boot % (1 << 32))
            .unwrap()
            .wrapping_sub(300 * rate)
    }

    #[test]
    fn the_rate_is_found_from_one_reading() {
        for uptime in [0, 3, 200, 400, 86_400, 500 * 86_400] {
            for rate in RATES {
                let found = predict(jiffies(uptime, rate), uptime * 1_000_000_000);
                assert_eq!(found, Some(rate), "{uptime} s at {rate}");
            }
        }
    }

    #[test]
    fn a_reading_that_fits_no_rate_or_several_is_not_believed() {
        assert_eq!(predict(0, 86_400_000_000_000), None);
        assert_eq!(predict(jiffies(299, 250), 299_000_000_000), None);
    }

    #[test]
    fn rates_are_told_apart_by_counting() {
        for (ticks, rate) in [
            (10, 100),
            (11, 100),
            (25, 250),
            (26, 250),
            (30, 300),
            (29, 300),
            (101, 1000),
        ] {
            assert_eq!(measure(ticks, 100_200_000), rate, "{ticks} ticks");
        }
    }

    #[test]
    fn time_passes_over_the_wrap_of_the_counter() {
        assert_eq!(elapsed(u32::MAX - 99, 150, 250), Duration::from_secs(1));
        assert_eq!(elapsed(150, 100, 250), Duration::ZERO);
    }
}
