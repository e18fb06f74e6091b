// SPDX-License-Identifier: Apache-2.0
//! A histogram of durations with about 3 % resolution and no allocation while recording.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Each power of two is divided into this many buckets.
const SUBDIVISIONS: u64 = 1 << SUBDIVISION_BITS;
const SUBDIVISION_BITS: u32 = 5;
const BUCKETS: usize = (64 - SUBDIVISION_BITS as usize + 1) << SUBDIVISION_BITS;

/// How long things took, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// The median.
    pub p50_us: f64,
    /// 99 of 100 were faster.
    pub p99_us: f64,
    /// The slowest.
    pub max_us: f64,
}

/// Counts durations.
#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: Box<[u64]>,
    count: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: vec![0; BUCKETS].into_boxed_slice(),
            count: 0,
            max: 0,
        }
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get_mut(bucket_of(nanoseconds)) {
            *bucket += 1;
        }
        self.count += 1;
        self.max = self.max.max(nanoseconds);
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// The duration in nanoseconds below which `percent` of all lie.
    fn percentile(&self, percent: u64) -> u64 {
        let rank = (self.count * percent).div_ceil(100);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper_bound(index).min(self.max);
            }
        }
        self.max
    }

    /// The summary; nothing when nothing was counted.
    pub fn latency(&self) -> Option<Latency> {
        let microseconds = |nanoseconds: u64| Duration::from_nanos(nanoseconds).as_secs_f64() * 1e6;
        (self.count > 0).then(|| Latency {
            p50_us: microseconds(self.percentile(50)),
            p99_us: microseconds(self.percentile(99)),
            max_us: microseconds(self.max),
        })
    }
}

fn bucket_of(value: u64) -> usize {
    // Values below SUBDIVISIONS have a bucket each; above, the leading bits choose.
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(SUBDIVISION_BITS + 1);
    let index = u64::from(shift) * SUBDIVISIONS + (value >> shift);
    usize::try_from(index).unwrap_or(BUCKETS - 1)
}

fn upper_bound(index: usize) -> u64 {
    let index = index as u64;
    let shift = (index / SUBDIVISIONS).saturating_sub(1);
    let leading = index - shift * SUBDIVISIONS;
    ((leading + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_value_lies_within_three_percent_below_its_buckets_bound(value in 0u64..1 << 60) {
            let bound = upper_bound(bucket_of(value));
            prop_assert!(bound >= value);
            prop_assert!(bound - value <= value / SUBDIVISIONS + 1);
        }
    }

    #[test]
    fn percentiles_of_a_thousand_even_steps() {
        let mut histogram = Histogram::default();
        for microsecond in 1..=1000 {
            histogram.record(Duration::from_micros(microsecond));
        }
        let latency = histogram.latency().unwrap();
        assert!((latency.p50_us - 500.0).abs() < 20.0, "{latency:?}");
        assert!((latency.p99_us - 990.0).abs() < 35.0, "{latency:?}");
        assert!((latency.max_us - 1000.0).abs() < 0.01, "{latency:?}");
    }

    #[test]
    fn nothing_counted_has_no_latency() {
        assert_eq!(Histogram::default().latency(), None);
    }
}
