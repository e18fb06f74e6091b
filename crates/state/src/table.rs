// SPDX-License-Identifier: Apache-2.0
//! The table, its writer and its snapshots.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

/// How often a table has changed; grows by one with every published change.
pub type Revision = u64;

/// What a table holds.
pub trait Row: Clone + PartialEq + Send + Sync + 'static {
    /// What tells rows apart.
    type Key: Ord + Clone + Send + Sync + 'static;

    /// The row's key.
    fn key(&self) -> Self::Key;
}

/// Makes an empty table: the one writer, and a reader that may be cloned.
#[must_use]
pub fn table<R: Row>(name: &'static str) -> (Writer<R>, Table<R>) {
    let shared = Arc::new(Shared {
        name,
        current: ArcSwap::from_pointee(Snapshot::empty()),
        revision: Mutex::new(0),
        changed: Condvar::new(),
        watch: watch::Sender::new(0),
    });
    (
        Writer {
            current: Snapshot::empty(),
            shared: shared.clone(),
        },
        Table { shared },
    )
}

struct Shared<R: Row> {
    name: &'static str,
    current: ArcSwap<Snapshot<R>>,
    revision: Mutex<Revision>,
    changed: Condvar,
    watch: watch::Sender<Revision>,
}

/// The reading side of a table.
pub struct Table<R: Row> {
    shared: Arc<Shared<R>>,
}

impl<R: Row> Clone for Table<R> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
        }
    }
}

impl<R: Row> fmt::Debug for Table<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let snapshot = self.snapshot();
        f.debug_struct("Table")
            .field("name", &self.shared.name)
            .field("rows", &snapshot.len())
            .field("revision", &snapshot.revision)
            .finish()
    }
}

impl<R: Row> Table<R> {
    /// The table's name, for status and logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.shared.name
    }

    /// The table as it is now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot<R> {
        Snapshot::clone(&self.shared.current.load())
    }

    /// Blocks until the table is newer than `seen` or the deadline passes; returns the revision then. For threads;
    /// asynchronous code uses [`Table::reader`].
    #[must_use]
    pub fn wait_newer(&self, seen: Revision, timeout: Duration) -> Revision {
        let deadline = Instant::now() + timeout;
        let mut revision = self.shared.revision.lock();
        while *revision <= seen {
            if self
                .shared
                .changed
                .wait_until(&mut revision, deadline)
                .timed_out()
            {
                break;
            }
        }
        *revision
    }

    /// A cursor for asynchronous code that wants every change; it starts out as having seen nothing.
    #[must_use]
    pub fn reader(&self) -> Reader<R> {
        let mut watch = self.shared.watch.subscribe();
        watch.mark_changed();
        Reader {
            table: self.clone(),
            watch,
        }
    }
}

/// A cursor over a table's changes for asynchronous code.
pub struct Reader<R: Row> {
    table: Table<R>,
    watch: watch::Receiver<Revision>,
}

impl<R: Row> fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("table", &self.table).finish()
    }
}

impl<R: Row> Reader<R> {
    /// Waits for the next change and returns the table as it is then; `None` when the writer is gone. Changes that
    /// happened in between are seen as one. Dropping the future loses nothing.
    pub async fn changed(&mut self) -> Option<Snapshot<R>> {
        self.watch.changed().await.ok()?;
        self.watch.borrow_and_update();
        Some(self.table.snapshot())
    }

    /// Waits until the first full content of the source is in the table; `None` when the writer is gone before.
    pub async fn in_sync(&mut self) -> Option<Snapshot<R>> {
        loop {
            let snapshot = self.table.snapshot();
            if snapshot.in_sync() {
                return Some(snapshot);
            }
            self.watch.changed().await.ok()?;
        }
    }
}

/// A table at one moment; immutable, cheap to take, to clone and to compare.
pub struct Snapshot<R: Row> {
    rows: OrdMap<R::Key, R>,
    revision: Revision,
    in_sync: bool,
}

/// How a row differs between two snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<R: Row> {
    /// The row is new or different.
    Upsert(R),
    /// There is no such row any more.
    Remove(R::Key),
}

impl<R: Row> Clone for Snapshot<R> {
    fn clone(&self) -> Self {
        Self {
            rows: self.rows.clone(),
            revision: self.revision,
            in_sync: self.in_sync,
        }
    }
}

impl<R: Row> fmt::Debug for Snapshot<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("rows", &self.rows.len())
            .field("revision", &self.revision)
            .finish()
    }
}

impl<R: Row> Snapshot<R> {
    /// A snapshot without rows.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            rows: OrdMap::new(),
            revision: 0,
            in_sync: false,
        }
    }

    /// The row of a key.
    #[must_use]
    pub fn get(&self, key: &R::Key) -> Option<&R> {
        self.rows.get(key)
    }

    /// All rows in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = &R> {
        self.rows.values()
    }

    /// The number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How often the table had changed.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// Whether the first full content of the source had arrived. Before that, a missing row means nothing.
    #[must_use]
    pub const fn in_sync(&self) -> bool {
        self.in_sync
    }

    /// What turns `older` into `self`, in the order of the keys. Costs no more than what differs when one snapshot
    /// descends from the other.
    #[must_use]
    pub fn changes_since(&self, older: &Self) -> Vec<Change<R>> {
        older
            .rows
            .diff(&self.rows)
            .map(|item| match item {
                DiffItem::Add(_, row) | DiffItem::Update { new: (_, row), .. } => Change::Upsert(row.clone()),
                DiffItem::Remove(key, _) => Change::Remove(key.clone()),
            })
            .collect()
    }
}

impl<R: Row> FromIterator<R> for Snapshot<R> {
    fn from_iter<I: IntoIterator<Item = R>>(rows: I) -> Self {
        let rows = rows.into_iter().map(|row| (row.key(), row)).collect();
        Self {
            rows,
            revision: 0,
            in_sync: true,
        }
    }
}

/// The writing side of a table. There is one, and it cannot be cloned: whoever has it owns the table.
pub struct Writer<R: Row> {
    current: Snapshot<R>,
    shared: Arc<Shared<R>>,
}

impl<R: Row> fmt::Debug for Writer<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("name", &self.shared.name)
            .field("current", &self.current)
            .finish()
    }
}

impl<R: Row> Writer<R> {
    /// A reader of this table.
    #[must_use]
    pub fn table(&self) -> Table<R> {
        Table {
            shared: self.shared.clone(),
        }
    }

    /// Adds a row or replaces the one with its key; publishes and returns true if that changed anything.
    pub fn upsert(&mut self, row: R) -> bool {
        let key = row.key();
        if self.current.rows.get(&key) == Some(&row) {
            return false;
        }
        self.current.rows.insert(key, row);
        self.publish();
        true
    }

    /// Removes a row; publishes and returns true if there was one.
    pub fn remove(&mut self, key: &R::Key) -> bool {
        if self.current.rows.remove(key).is_none() {
            return false;
        }
        self.publish();
        true
    }

    /// Makes the table hold exactly these rows, in one step; publishes and returns true if that changed anything.
    /// Rows that stay equal keep their place in memory, so that snapshots still compare cheaply.
    pub fn replace(&mut self, rows: impl IntoIterator<Item = R>) -> bool {
        let wanted: OrdMap<R::Key, R> = rows.into_iter().map(|row| (row.key(), row)).collect();
        let gone: Vec<R::Key> = self
            .current
            .rows
            .keys()
            .filter(|key| !wanted.contains_key(*key))
            .cloned()
            .collect();
        let mut changed = !gone.is_empty();
        for key in gone {
            self.current.rows.remove(&key);
        }
        for (key, row) in wanted {
            if self.current.rows.get(&key) != Some(&row) {
                self.current.rows.insert(key, row);
                changed = true;
            }
        }
        if changed {
            self.publish();
        }
        changed
    }

    /// Declares that the first full content of the source is in the table.
    pub fn set_in_sync(&mut self) {
        if !self.current.in_sync {
            self.current.in_sync = true;
            self.publish();
        }
    }

    /// The table as it is now.
    #[must_use]
    pub const fn snapshot(&self) -> &Snapshot<R> {
        &self.current
    }

    fn publish(&mut self) {
        self.current.revision += 1;
        self.shared.current.store(Arc::new(self.current.clone()));
        *self.shared.revision.lock() = self.current.revision;
        self.shared.changed.notify_all();
        self.shared.watch.send_replace(self.current.revision);
    }
}
