// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::{Backoff, Change, Reconciler, Row, Snapshot, Status, Target, table};

const BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(1),
    most: Duration::from_secs(30),
};

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pair(u8, u8);

impl Row for Pair {
    type Key = u8;
    fn key(&self) -> u8 {
        self.0
    }
}

#[test]
fn a_snapshot_does_not_change_when_the_table_does() {
    let (mut writer, table) = table::<Pair>("pairs");
    writer.upsert(Pair(1, 1));
    let before = table.snapshot();
    writer.upsert(Pair(1, 2));
    writer.remove(&1);
    assert_eq!(before.get(&1), Some(&Pair(1, 1)));
    assert!(table.snapshot().is_empty());
}

#[test]
fn writing_what_is_there_already_does_not_wake_anybody() {
    let (mut writer, table) = table::<Pair>("pairs");
    assert!(writer.upsert(Pair(1, 1)));
    let revision = table.snapshot().revision();
    assert!(!writer.upsert(Pair(1, 1)));
    assert!(!writer.remove(&2));
    assert!(!writer.replace([Pair(1, 1)]));
    assert_eq!(table.snapshot().revision(), revision);
}

#[test]
fn a_thread_waits_for_a_revision() {
    let (mut writer, table) = table::<Pair>("pairs");
    assert_eq!(table.wait_newer(0, Duration::ZERO), 0);
    let waiter = std::thread::spawn({
        let table = table.clone();
        move || table.wait_newer(0, Duration::from_secs(60))
    });
    writer.upsert(Pair(1, 1));
    assert_eq!(waiter.join().unwrap(), 1);
}

#[test]
fn a_task_sees_the_content_and_then_each_change() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (mut writer, table) = table::<Pair>("pairs");
        let mut reader = table.reader();
        assert!(reader.changed().await.unwrap().is_empty());
        writer.upsert(Pair(1, 1));
        writer.upsert(Pair(2, 2));
        assert_eq!(reader.changed().await.unwrap().len(), 2);
        writer.set_in_sync();
        assert!(reader.in_sync().await.unwrap().in_sync());
        drop(writer);
        assert!(
            reader.changed().await.is_some(),
            "the change to in-sync was not yet seen"
        );
    });
}

#[test]
fn a_failed_row_is_tried_again_when_its_time_has_come_and_not_sooner() {
    let mut fake = Fake {
        refuse: Some(1),
        ..Fake::default()
    };
    let mut reconciler = Reconciler::new(BACKOFF);
    let desired: Snapshot<Pair> = [Pair(1, 1), Pair(2, 2)].into_iter().collect();
    let start = Instant::now();

    let report = reconciler.apply(&mut fake, &desired, start);
    assert_eq!((report.upserted, report.failed), (1, 1));
    assert_eq!(report.retry_at, Some(start + BACKOFF.first));
    assert_eq!(
        reconciler.status(&1),
        Status::Error("key 1 is refused".to_owned())
    );
    assert_eq!(reconciler.status(&2), Status::Done);

    fake.refuse = None;
    assert_eq!(reconciler.apply(&mut fake, &desired, start).upserted, 0);
    assert_eq!(
        reconciler
            .apply(&mut fake, &desired, start + BACKOFF.first)
            .upserted,
        1
    );
    assert_eq!(reconciler.status(&1), Status::Done);
}

#[test]
fn the_wait_between_attempts_doubles_up_to_a_limit() {
    assert_eq!(BACKOFF.after(1), Duration::from_secs(1));
    assert_eq!(BACKOFF.after(4), Duration::from_secs(8));
    assert_eq!(BACKOFF.after(7), Duration::from_secs(30));
    assert_eq!(BACKOFF.after(u32::MAX), Duration::from_secs(30));
}

#[test]
fn a_row_that_nobody_wants_any_more_is_removed_even_if_it_never_worked() {
    let mut fake = Fake {
        refuse: Some(1),
        ..Fake::default()
    };
    let mut reconciler = Reconciler::new(BACKOFF);
    reconciler.apply(&mut fake, &[Pair(1, 1)].into_iter().collect(), Instant::now());
    fake.refuse = None;
    let report = reconciler.apply(&mut fake, &Snapshot::empty(), Instant::now());
    assert_eq!((report.removed, report.retry_at), (1, None));
}

proptest! {
    #[test]
    fn changes_lead_from_one_snapshot_to_the_other(old: BTreeMap<u8, u8>, new: BTreeMap<u8, u8>) {
        let (older, newer): (Snapshot<Pair>, Snapshot<Pair>) = (rows(&old).collect(), rows(&new).collect());
        let mut replayed = old;
        for change in newer.changes_since(&older) {
            match change {
                Change::Upsert(row) => { replayed.insert(row.0, row.1); }
                Change::Remove(key) => { replayed.remove(&key); }
            }
        }
        prop_assert_eq!(replayed, new);
    }

    #[test]
    fn replace_publishes_exactly_the_new_rows_and_only_if_they_differ(old: BTreeMap<u8, u8>, new: BTreeMap<u8, u8>) {
        let (mut writer, table) = table::<Pair>("pairs");
        writer.replace(rows(&old));
        prop_assert_eq!(writer.replace(rows(&new)), old != new);
        prop_assert_eq!(table.snapshot().iter().map(|row| (row.0, row.1)).collect::<BTreeMap<_, _>>(), new);
    }

    #[test]
    fn a_target_that_never_fails_ends_up_equal_to_the_last_snapshot(steps: Vec<BTreeMap<u8, u8>>) {
        let (mut fake, mut reconciler) = (Fake::default(), Reconciler::new(BACKOFF));
        for step in &steps {
            reconciler.apply(&mut fake, &rows(step).collect(), Instant::now());
            prop_assert_eq!(&fake.rows, step);
        }
    }
}

fn rows(map: &BTreeMap<u8, u8>) -> impl Iterator<Item = Pair> {
    map.iter().map(|(key, value)| Pair(*key, *value))
}

#[derive(Default)]
struct Fake {
    rows: BTreeMap<u8, u8>,
    refuse: Option<u8>,
}

#[derive(Debug, PartialEq, Eq)]
struct Refused(u8);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "key {} is refused", self.0)
    }
}

impl std::error::Error for Refused {}

impl Target<Pair> for Fake {
    type Error = Refused;

    fn upsert(&mut self, row: &Pair) -> Result<(), Refused> {
        if self.refuse == Some(row.0) {
            return Err(Refused(row.0));
        }
        self.rows.insert(row.0, row.1);
        Ok(())
    }

    fn remove(&mut self, key: &u8) -> Result<(), Refused> {
        if self.refuse == Some(*key) {
            return Err(Refused(*key));
        }
        self.rows.remove(key);
        Ok(())
    }

    fn prune(&mut self, desired: &Snapshot<Pair>) -> Result<usize, Refused> {
        let before = self.rows.len();
        self.rows.retain(|key, _| desired.get(key).is_some());
        Ok(before - self.rows.len())
    }
}
