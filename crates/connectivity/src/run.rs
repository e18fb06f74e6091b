// SPDX-License-Identifier: Apache-2.0
//! Runs tests, several at a time: they share the test bed but nothing that one could spoil for another.

use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream;

use crate::bed::Bed;
use crate::report::{Outcome, Report, TestResult};
use crate::scenarios::{Problem, Test};

/// How many tests run at once.
const AT_ONCE: usize = 8;
/// A test that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Runs the tests; `progress` hears of each one's end.
pub async fn run(bed: &Bed, tests: &[Test], mut progress: impl FnMut(&TestResult)) -> Report {
    let mut results = stream::iter(tests.iter().enumerate())
        .map(|(index, test)| async move { (index, one(bed, test).await) })
        .buffer_unordered(AT_ONCE);
    let mut ended = Vec::with_capacity(tests.len());
    while let Some((index, result)) = results.next().await {
        progress(&result);
        ended.push((index, result));
    }
    ended.sort_by_key(|(index, _)| *index);
    Report::new(ended.into_iter().map(|(_, result)| result).collect())
}

async fn one(bed: &Bed, test: &Test) -> TestResult {
    let begin = Instant::now();
    let verdict = tokio::time::timeout(TIMEOUT, test.run(bed)).await;
    let verdict = verdict.unwrap_or_else(|_| Err(Problem::Failed(format!("not finished after {TIMEOUT:?}"))));
    let (result, message) = match verdict {
        Ok(detail) => (Outcome::Passed, detail),
        Err(Problem::Failed(reason)) => (Outcome::Failed, reason),
        Err(Problem::Skipped(reason)) => (Outcome::Skipped, reason),
    };
    let duration_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
    TestResult {
        name: test.name(),
        result,
        duration_ms,
        proves: test.proves(),
        message,
    }
}
