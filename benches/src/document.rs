// SPDX-License-Identifier: Apache-2.0
//! `docs/benchmarks.md`: the part between two marks is written anew, the rest is by hand.

use std::path::Path;

use anyhow::{Context, Result};

use crate::report;
use crate::results::Results;

const BEGIN: &str = "<!-- figures: begin -->";
const END: &str = "<!-- figures: end -->";

/// Puts the results into the document.
pub(crate) fn update(path: &Path, results: &Results) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let text = replace(&text, &figures(results))
        .with_context(|| format!("{} lacks the marks {BEGIN} and {END}", path.display()))?;
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

fn figures(results: &Results) -> String {
    let conditions: String = results
        .conditions
        .iter()
        .map(|(name, value)| format!("- {name}: {value}\n"))
        .collect();
    format!(
        "{conditions}\n![ratios](benchmarks.svg)\n\n{}",
        report::markdown(results, None)
    )
}

fn replace(text: &str, figures: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", figures.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let text = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        assert_eq!(
            replace(&text, "new\n").unwrap(),
            format!("a\n{BEGIN}\n\nnew\n\n{END}\nb\n")
        );
        assert_eq!(replace("no marks", "new"), None);
    }
}
