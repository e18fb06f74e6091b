// SPDX-License-Identifier: Apache-2.0
//! How long each step of ADD takes.

use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// 50 µs to 0.8 s.
const FIRST_BUCKET: f64 = 50e-6;
const BUCKETS: u16 = 15;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    step: &'static str,
}

/// A histogram per step.
#[derive(Debug, Clone)]
pub struct Steps(Family<Label, Histogram>);

impl Default for Steps {
    fn default() -> Self {
        Self(Family::new_with_constructor(|| {
            Histogram::new(exponential_buckets(FIRST_BUCKET, 2.0, BUCKETS))
        }))
    }
}

impl Steps {
    /// Adds the histograms to a registry.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Time of each step of CNI ADD";
        registry.register("thalweg_cni_add_seconds", help, self.0.clone());
    }

    pub(super) fn start(&self) -> Stopwatch {
        let now = Instant::now();
        Stopwatch {
            steps: self.clone(),
            begin: now,
            last: now,
        }
    }
}

/// Measures one ADD.
#[derive(Debug)]
pub(super) struct Stopwatch {
    steps: Steps,
    begin: Instant,
    last: Instant,
}

impl Stopwatch {
    /// The step that ends now.
    pub(super) fn lap(&mut self, step: &'static str) {
        let now = Instant::now();
        self.observe(step, now - self.last);
        self.last = now;
    }

    /// The whole, which ends now.
    pub(super) fn total(&self) {
        self.observe("total", self.begin.elapsed());
    }

    fn observe(&self, step: &'static str, time: std::time::Duration) {
        self.steps
            .0
            .get_or_create(&Label { step })
            .observe(time.as_secs_f64());
    }
}
