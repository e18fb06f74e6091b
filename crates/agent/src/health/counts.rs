// SPDX-License-Identifier: Apache-2.0
//! How often what was tried, and with which result.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::{Kind, Outcome};

/// Tries by kind and result.
#[derive(Clone, Debug, Default)]
pub struct Counts(Family<Label, Counter>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    kind: &'static str,
    result: &'static str,
}

impl Counts {
    /// Adds the counters to a registry.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Tries to reach other nodes and their pods";
        registry.register("thalweg_health_probes", help, self.0.clone());
    }

    pub(super) fn count(&self, kind: Kind, outcome: &Outcome) {
        let result = if outcome.is_ok() { "ok" } else { "failed" };
        let label = Label {
            kind: kind.name(),
            result,
        };
        self.0.get_or_create(&label).inc();
    }
}
