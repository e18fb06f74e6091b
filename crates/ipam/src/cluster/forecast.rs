// SPDX-License-Identifier: Apache-2.0
//! When a pool will be full if it goes on like this.

use std::collections::VecDeque;

/// How far back it looks, in seconds.
const WINDOW: u64 = 3600;
/// The least time between two samples, in seconds.
const SPACING: u64 = 10;
/// A forecast needs samples over at least this time, in seconds.
const SPAN_MIN: u64 = 60;
/// A forecast further away than this says nothing: ten years, in seconds.
const FAR: f64 = 10.0 * 365.0 * 86_400.0;

/// How many addresses were in use when; at most one hour, at most 361 samples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    samples: VecDeque<(u64, u64)>,
}

impl History {
    /// Takes a sample, unless the last one is quite new. `now` is in seconds of any clock that goes forward.
    pub fn sample(&mut self, now: u64, used: u64) {
        if let Some((last, _)) = self.samples.back()
            && now < last + SPACING
        {
            return;
        }
        self.samples.push_back((now, used));
        while self.samples.front().is_some_and(|(then, _)| then + WINDOW < now) {
            self.samples.pop_front();
        }
    }

    /// Seconds from the last sample until `capacity` is used up, by the straight line that fits the samples best; nothing while there
    /// are too few samples, or when use does not grow.
    #[must_use]
    pub fn exhausted_in(&self, capacity: u64) -> Option<u64> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        if last.0 - first.0 < SPAN_MIN {
            return None;
        }
        let per_second = self.slope(first.0)?;
        let free = capacity.saturating_sub(last.1) as f64;
        let seconds = free / per_second;
        // Below FAR it fits.
        (per_second > 0.0 && seconds < FAR).then(|| std::time::Duration::from_secs_f64(seconds).as_secs())
    }

    fn slope(&self, origin: u64) -> Option<f64> {
        let points = || {
            let point = |(then, used): &(u64, u64)| ((then - origin) as f64, *used as f64);
            self.samples.iter().map(point)
        };
        let count = self.samples.len() as f64;
        let (mean_x, mean_y) = points().fold((0.0, 0.0), |(x, y), (px, py)| (x + px / count, y + py / count));
        let (covariance, variance) = points().fold((0.0, 0.0), |(c, v), (x, y)| {
            (c + (x - mean_x) * (y - mean_y), v + (x - mean_x).powi(2))
        });
        (variance > 0.0).then_some(covariance / variance)
    }
}
