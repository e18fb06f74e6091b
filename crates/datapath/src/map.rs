// SPDX-License-Identifier: Apache-2.0
//! A hash map of typed rows. Handles are cheap to clone and may be used from any thread: the kernel does the locking.

use std::io;
use std::marker::PhantomData;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::MapError;
use crate::sys;

/// Rows that one system call reads: keeps the buffers of a walk under a quarter of a megabyte.
const BATCH: usize = 2048;

/// A type that may be a key or a value.
pub trait Bytes: FromBytes + IntoBytes + Immutable + Copy {}

impl<T: FromBytes + IntoBytes + Immutable + Copy> Bytes for T {}

/// A BPF hash map.
#[derive(Debug)]
pub struct HashMap<K, V> {
    fd: Arc<OwnedFd>,
    name: &'static str,
    max_entries: u32,
    row: PhantomData<(K, V)>,
}

impl<K, V> Clone for HashMap<K, V> {
    fn clone(&self) -> Self {
        Self {
            fd: Arc::clone(&self.fd),
            ..*self
        }
    }
}

impl<K: Bytes, V: Bytes> HashMap<K, V> {
    pub(crate) fn new(fd: OwnedFd, name: &'static str, max_entries: u32) -> Self {
        Self {
            fd: Arc::new(fd),
            name,
            max_entries,
            row: PhantomData,
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn error(&self, operation: &'static str) -> impl FnOnce(io::Error) -> MapError {
        let map = self.name;
        move |source| MapError {
            operation,
            map,
            source,
        }
    }

    /// How many rows fit.
    #[must_use]
    pub fn max_entries(&self) -> u32 {
        self.max_entries
    }

    /// The row of a key.
    pub fn get(&self, key: &K) -> Result<Option<V>, MapError> {
        let mut value = V::new_zeroed();
        let found =
            sys::lookup(self.fd(), key.as_bytes(), value.as_mut_bytes()).map_err(self.error("read a row"))?;
        Ok(found.then_some(value))
    }

    /// Writes a row, over the one that is there.
    pub fn insert(&self, key: &K, value: &V) -> Result<(), MapError> {
        sys::update(self.fd(), key.as_bytes(), value.as_bytes()).map_err(self.error("write a row"))
    }

    /// Writes a row; `false`: there is one already, which stays.
    pub fn insert_new(&self, key: &K, value: &V) -> Result<bool, MapError> {
        sys::insert_new(self.fd(), key.as_bytes(), value.as_bytes()).map_err(self.error("write a row"))
    }

    /// Deletes a row; `false`: was absent.
    pub fn remove(&self, key: &K) -> Result<bool, MapError> {
        sys::delete(self.fd(), key.as_bytes()).map_err(self.error("delete a row"))
    }

    /// Calls `visit` with each row. Rows that come or go meanwhile may be missed or seen.
    pub fn for_each(&self, mut visit: impl FnMut(&K, &V)) -> Result<(), MapError> {
        // A bucket must fit in one batch whole; with as many buckets as rows, this many never meet in one.
        let (mut keys, mut values) = (vec![K::new_zeroed(); BATCH], vec![V::new_zeroed(); BATCH]);
        let mut cursor = None;
        loop {
            let (count, more) = sys::lookup_batch(self.fd(), &mut cursor, &mut keys, &mut values)
                .map_err(self.error("read rows"))?;
            for (key, value) in keys.iter().zip(&values).take(count) {
                visit(key, value);
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// The key after `key` in the map's own order, or the first. One that is gone begins the walk anew.
    pub(crate) fn next_key(&self, key: Option<&K>) -> Result<Option<K>, MapError> {
        let mut next = K::new_zeroed();
        let found = sys::next_key(self.fd(), key.map(K::as_bytes), next.as_mut_bytes())
            .map_err(self.error("read a key"))?;
        Ok(found.then_some(next))
    }

    /// All rows.
    pub fn rows(&self) -> Result<Vec<(K, V)>, MapError> {
        let mut rows = Vec::new();
        self.for_each(|key, value| rows.push((*key, *value)))?;
        Ok(rows)
    }

    /// How many rows there are.
    pub fn len(&self) -> Result<usize, MapError> {
        let mut count = 0;
        self.for_each(|_, _| count += 1)?;
        Ok(count)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> Result<bool, MapError> {
        self.len().map(|count| count == 0)
    }

    /// Writes many rows.
    pub fn insert_all(&self, rows: &[(K, V)]) -> Result<(), MapError> {
        for rows in rows.chunks(BATCH) {
            let (keys, values): (Vec<K>, Vec<V>) = rows.iter().copied().unzip();
            sys::update_batch(self.fd(), &keys, &values).map_err(self.error("write rows"))?;
        }
        Ok(())
    }

    /// Deletes many rows, of which some may be gone already; returns how many were there.
    pub fn remove_all(&self, keys: &[K]) -> Result<usize, MapError> {
        let mut removed = 0;
        self.remove_each(keys, |range| removed += range.len())?;
        Ok(removed)
    }

    /// The same, and tells which it was that deleted a row: ranges of the keys' places.
    pub(crate) fn remove_each(
        &self,
        keys: &[K],
        mut removed: impl FnMut(Range<usize>),
    ) -> Result<(), MapError> {
        let mut from = 0;
        while from < keys.len() {
            let batch = keys.get(from..keys.len().min(from + BATCH)).unwrap_or_default();
            let count = sys::delete_batch(self.fd(), batch).map_err(self.error("delete rows"))?;
            removed(from..from + count);
            from += count;
            if count < batch.len() {
                // The batch ended at an absent key, which is skipped.
                from += 1;
            }
        }
        Ok(())
    }
}
