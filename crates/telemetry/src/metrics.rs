// SPDX-License-Identifier: Apache-2.0
//! The metrics registry as text. The registry itself is a value: made where a program is put together, then handed on.
//! Names are written out in full (`thalweg_…`), so that they can be searched for.

use std::fmt;

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

/// The media type of [`encode`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics as OpenMetrics text.
///
/// # Errors
/// When a collector fails.
pub fn encode(registry: &Registry) -> Result<String, fmt::Error> {
    let mut text = String::new();
    text::encode(&mut text, registry)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn the_text_ends_as_openmetrics_wants() {
        let mut registry = Registry::default();
        let counter = Counter::<u64>::default();
        registry.register("thalweg_things", "Things that happened", counter.clone());
        counter.inc_by(3);
        let text = encode(&registry).unwrap();
        assert!(text.contains("thalweg_things_total 3\n"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
