// SPDX-License-Identifier: Apache-2.0
//! What a run found, and how it is written down.

use std::fmt::Write as _;

use serde::Serialize;

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It holds.
    Passed,
    /// It does not hold.
    Failed,
    /// It could not be tried here.
    Skipped,
}

/// One test's result.
#[derive(Clone, Debug, Serialize)]
pub struct TestResult {
    /// The test's name.
    pub name: String,
    /// How it ended.
    pub result: Outcome,
    /// How long it took.
    pub duration_ms: u64,
    /// What it proves.
    pub proves: &'static str,
    /// What was found, what was wrong, or why it was skipped.
    pub message: String,
}

/// All results.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// How many hold.
    pub passed: usize,
    /// How many do not.
    pub failed: usize,
    /// How many could not be tried.
    pub skipped: usize,
    /// Each of them, in the order of the catalogue.
    pub tests: Vec<TestResult>,
}

impl Report {
    /// Counts results.
    pub fn new(tests: Vec<TestResult>) -> Self {
        let count = |outcome| tests.iter().filter(|test| test.result == outcome).count();
        Self {
            passed: count(Outcome::Passed),
            failed: count(Outcome::Failed),
            skipped: count(Outcome::Skipped),
            tests,
        }
    }

    /// The format that build servers read.
    pub fn junit(&self, suite: &str) -> String {
        let total: u64 = self.tests.iter().map(|test| test.duration_ms).sum();
        let mut xml = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"{}\" tests=\"{}\" \
             failures=\"{}\" skipped=\"{}\" time=\"{}\">\n",
            escape(suite),
            self.tests.len(),
            self.failed,
            self.skipped,
            seconds(total)
        );
        for test in &self.tests {
            let (name, message) = (escape(&test.name), escape(&test.message));
            let inner = match test.result {
                Outcome::Passed => format!("<system-out>{message}</system-out>"),
                Outcome::Failed => format!("<failure message=\"{message}\"/>"),
                Outcome::Skipped => format!("<skipped message=\"{message}\"/>"),
            };
            let time = seconds(test.duration_ms);
            // Writing to a string cannot fail.
            let _ = writeln!(
                xml,
                "    <testcase classname=\"thalweg.connectivity\" name=\"{name}\" time=\"{time}\">{inner}</testcase>"
            );
        }
        xml.push_str("  </testsuite>\n</testsuites>\n");
        xml
    }
}

fn seconds(milliseconds: u64) -> String {
    format!("{}.{:03}", milliseconds / 1000, milliseconds % 1000)
}

/// For XML text and attributes; control characters, which XML cannot hold, become blanks.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            control if control.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let test = |name: &str, result, message: &str| TestResult {
            name: name.into(),
            result,
            duration_ms: 1234,
            proves: "that",
            message: message.into(),
        };
        Report::new(vec![
            test("a", Outcome::Passed, ""),
            test("b", Outcome::Failed, "x < \"y\"\n"),
            test("c", Outcome::Skipped, "one node"),
        ])
    }

    #[test]
    fn json_has_the_documented_shape() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(
            (&json["passed"], &json["failed"], &json["skipped"]),
            (&1.into(), &1.into(), &1.into())
        );
        assert_eq!(json["tests"][1]["result"], "failed");
        assert_eq!(json["tests"][1]["duration_ms"], 1234);
    }

    #[test]
    fn junit_is_escaped() {
        let xml = report().junit("lab \"x\"");
        assert!(
            xml.contains(
                "name=\"lab &quot;x&quot;\" tests=\"3\" failures=\"1\" skipped=\"1\" time=\"3.702\""
            )
        );
        assert!(
            xml.contains("<failure message=\"x &lt; &quot;y&quot; \"/>"),
            "{xml}"
        );
    }
}
