// SPDX-License-Identifier: Apache-2.0
//! Drives a target towards a snapshot.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use crate::{Change, Row, Snapshot};

/// Where rows take effect: a kernel map, a route table, an API.
pub trait Target<R: Row> {
    /// Why a row could not be written.
    type Error: std::error::Error;

    /// Writes a row; writing it again does no harm.
    ///
    /// # Errors
    /// Why the row is not in force; it is tried again later.
    fn upsert(&mut self, row: &R) -> Result<(), Self::Error>;

    /// Removes a row; one that is absent is a success.
    ///
    /// # Errors
    /// Why the row may still be in force; it is tried again later.
    fn remove(&mut self, key: &R::Key) -> Result<(), Self::Error>;

    /// Removes what nobody wants and says how much that was. The target is read anew: it is never remembered.
    ///
    /// # Errors
    /// Why the target could not be read or cleaned.
    fn prune(&mut self, desired: &Snapshot<R>) -> Result<usize, Self::Error>;
}

/// How far a row has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// It has not been tried yet.
    Pending,
    /// It is in force.
    Done,
    /// It failed, for this reason, and will be tried again.
    Error(String),
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending => f.write_str("pending"),
            Self::Done => f.write_str("done"),
            Self::Error(reason) => write!(f, "error: {reason}"),
        }
    }
}

/// A row of a table of statuses, for those who publish them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowStatus<K> {
    /// Whose status it is.
    pub key: K,
    /// The status.
    pub status: Status,
}

impl<K: Ord + Clone + Send + Sync + 'static> Row for RowStatus<K> {
    type Key = K;

    fn key(&self) -> K {
        self.key.clone()
    }
}

/// How long to wait before a row that failed is tried again: doubling from `first` up to `most`.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The wait after the first failure.
    pub first: Duration,
    /// The longest wait.
    pub most: Duration,
}

impl Backoff {
    pub(crate) fn after(&self, failures: u32) -> Duration {
        let factor = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.most)
    }
}

/// What one pass did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Rows written.
    pub upserted: usize,
    /// Rows removed.
    pub removed: usize,
    /// Rows that failed in this pass.
    pub failed: usize,
    /// When to call again even if nothing changes.
    pub retry_at: Option<Instant>,
}

/// Remembers what a [`Target`] was last told, what failed, and when to try again.
#[derive(Debug)]
pub struct Reconciler<R: Row> {
    applied: Snapshot<R>,
    failing: BTreeMap<R::Key, Failure>,
    backoff: Backoff,
}

#[derive(Clone, Debug)]
struct Failure {
    reason: String,
    count: u32,
    retry_at: Instant,
}

impl<R: Row> Reconciler<R> {
    /// Starts from nothing: the first pass writes every row.
    #[must_use]
    pub fn new(backoff: Backoff) -> Self {
        Self {
            applied: Snapshot::empty(),
            failing: BTreeMap::new(),
            backoff,
        }
    }

    /// Brings the target from the snapshot of the last pass to `desired`: removals first, then rows that are new or
    /// different, then failed rows whose time has come. One row's failure does not hold up another.
    pub fn apply<T: Target<R>>(&mut self, target: &mut T, desired: &Snapshot<R>, now: Instant) -> Report {
        let mut report = Report::default();
        let (mut removals, mut upserts) = (Vec::new(), Vec::new());
        for change in desired.changes_since(&self.applied) {
            match change {
                Change::Remove(key) => removals.push(key),
                Change::Upsert(row) => upserts.push(row),
            }
        }
        let changed: Vec<R::Key> = removals
            .iter()
            .cloned()
            .chain(upserts.iter().map(Row::key))
            .collect();
        let due = self
            .failing
            .iter()
            .filter(|(_, failure)| failure.retry_at <= now)
            .map(|(key, _)| key.clone());
        for key in due.filter(|key| !changed.contains(key)) {
            match desired.get(&key) {
                Some(row) => upserts.push(row.clone()),
                None => removals.push(key),
            }
        }
        for key in removals {
            let result = target.remove(&key).map_err(|error| error.to_string());
            self.record(key, result, now, &mut report.removed, &mut report.failed);
        }
        for row in upserts {
            let result = target.upsert(&row).map_err(|error| error.to_string());
            self.record(row.key(), result, now, &mut report.upserted, &mut report.failed);
        }
        self.applied = desired.clone();
        report.retry_at = self.failing.values().map(|failure| failure.retry_at).min();
        report
    }

    /// Makes the next pass write every row again, for a target that may have been changed behind our back.
    pub fn forget(&mut self) {
        self.applied = Snapshot::empty();
    }

    /// How far a row has come.
    #[must_use]
    pub fn status(&self, key: &R::Key) -> Status {
        match (self.failing.get(key), self.applied.get(key)) {
            (Some(failure), _) => Status::Error(failure.reason.clone()),
            (None, Some(_)) => Status::Done,
            (None, None) => Status::Pending,
        }
    }

    /// The rows that fail, and why.
    pub fn errors(&self) -> impl Iterator<Item = (&R::Key, &str)> {
        self.failing
            .iter()
            .map(|(key, failure)| (key, failure.reason.as_str()))
    }

    fn record(
        &mut self,
        key: R::Key,
        result: Result<(), String>,
        now: Instant,
        done: &mut usize,
        failed: &mut usize,
    ) {
        match result {
            Ok(()) => {
                *done += 1;
                self.failing.remove(&key);
            }
            Err(reason) => {
                *failed += 1;
                let count = self
                    .failing
                    .get(&key)
                    .map_or(0, |failure| failure.count)
                    .saturating_add(1);
                let retry_at = now + self.backoff.after(count);
                self.failing.insert(
                    key,
                    Failure {
                        reason,
                        count,
                        retry_at,
                    },
                );
            }
        }
    }
}
