// SPDX-License-Identifier: Apache-2.0
//! Rows of an earlier version: a map whose row changes gets another name, and what the map of the former name holds is carried over.
//!
//! The programs of the earlier version go on with the former map until the last of them is replaced. So rows are copied three times: after
//! the present map is made, right before the first program is replaced, and after the last; what was opened or moved on
//! meanwhile is in the later passes. Then the former map loses its pin, and with the programs that used it, its memory.
//! An agent that dies in between leaves the pin, and the next one does it all again.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use datapath_common::maps::{Kind, Spec};
use tracing::{info, warn};

use crate::map::{Bytes, HashMap};
use crate::pins::{Examined, Pins, examine};
use crate::{LoadError, MapError, sys};

/// What a map's row was in an earlier version.
pub trait Former: 'static {
    /// The name that the map had then, which none has now.
    const NAME: &'static str;
    /// The map that has taken its place.
    const INTO: Spec;
    /// Its key then.
    type FormerKey: Bytes;
    /// Its row then.
    type FormerRow: Bytes;
    /// Its key now.
    type Key: Bytes;
    /// Its row now.
    type Row: Bytes;

    /// The same in the present shape; nothing for what has no place there.
    fn convert(key: &Self::FormerKey, row: &Self::FormerRow) -> Option<(Self::Key, Self::Row)>;

    /// Whether a converted row is to replace one that is in the present map already: it is the later one.
    fn supersedes(former: &Self::Row, present: &Self::Row) -> bool;
}

/// A [`Former`] without its types, so that there can be lists of several.
#[derive(Clone, Copy)]
pub struct Migration {
    former: Spec,
    into: &'static str,
    copy: fn(&OwnedFd, u32, OwnedFd) -> Result<Carried, MapError>,
}

impl fmt::Debug for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.former.name, self.into)
    }
}

impl Migration {
    /// Of these rows.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "rows have fewer than 2^32 bytes")]
    pub const fn of<F: Former>() -> Self {
        const {
            assert!(
                F::INTO.key_size as usize == size_of::<F::Key>()
                    && F::INTO.value_size as usize == size_of::<F::Row>(),
                "the present rows are those of the map that they go into"
            );
        }
        Self {
            former: Spec {
                name: F::NAME,
                kind: Kind::Hash,
                key_size: size_of::<F::FormerKey>() as u32,
                value_size: size_of::<F::FormerRow>() as u32,
                max_entries: 0,
                on_demand: false,
            },
            into: F::INTO.name,
            copy: copy::<F>,
        }
    }
}

/// Maps of earlier versions that an upgrade may find. Nothing was released before, so there are none.
///
/// Whoever changes a row of `conntrack` or `nat`: give the map another name, put what the row was here, and look at decision 0009.
pub const MIGRATIONS: &[Migration] = &[];

/// What became of the rows in one pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// New in the present map.
    pub added: usize,
    /// Over a row that was older.
    pub updated: usize,
    /// There already, and not older.
    pub kept: usize,
    /// Without a place in the present shape.
    pub dropped: usize,
    /// Did not fit.
    pub lost: usize,
}

/// A map of an earlier version that was found.
#[derive(Debug)]
pub(crate) struct Found {
    migration: Migration,
    path: PathBuf,
    map: OwnedFd,
    max_entries: u32,
}

/// Finds the maps of earlier versions. One that has the name and not the shape is removed: it is nothing that we could read.
pub(crate) fn find(pins: &Pins, migrations: &[Migration]) -> Result<Vec<Found>, LoadError> {
    let mut found = Vec::new();
    for migration in migrations {
        let path = pins.map(migration.former.name);
        match examine(&path, &migration.former) {
            Examined::Absent => {}
            Examined::OtherSize(map, max_entries) => found.push(Found {
                migration: *migration,
                path,
                map,
                max_entries,
            }),
            // No map has a size of 0.
            Examined::Fits => {}
            Examined::Unusable(what) => {
                warn!(path = %path.display(), "a map of an earlier version {what}; its rows are lost");
                remove(&path)?;
            }
        }
    }
    Ok(found)
}

impl Found {
    /// One pass over its rows.
    pub(crate) fn carry_over(&self, pins: &Pins) -> Result<Carried, LoadError> {
        let path = pins.map(self.migration.into);
        let present = sys::open_pin(&path).map_err(|source| LoadError::Io {
            operation: "open",
            path,
            source,
        })?;
        let carried = (self.migration.copy)(&self.map, self.max_entries, present)?;
        let (from, into) = (self.migration.former.name, self.migration.into);
        if carried.lost > 0 || carried.dropped > 0 {
            warn!(
                from,
                into,
                ?carried,
                "rows of an earlier version carried over, not all"
            );
        } else {
            info!(from, into, ?carried, "rows of an earlier version carried over");
        }
        Ok(carried)
    }

    /// Removes the pin: no attached program uses the map any more.
    pub(crate) fn remove(self) -> Result<(), LoadError> {
        remove(&self.path)
    }
}

fn remove(path: &PathBuf) -> Result<(), LoadError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(LoadError::Io {
            operation: "remove",
            path: path.clone(),
            source: error,
        }),
        _ => Ok(()),
    }
}

fn copy<F: Former>(former: &OwnedFd, max_entries: u32, present: OwnedFd) -> Result<Carried, MapError> {
    let failed = |source| MapError {
        operation: "open",
        map: F::NAME,
        source,
    };
    let former = former.try_clone().map_err(failed)?;
    let former = HashMap::<F::FormerKey, F::FormerRow>::new(former, F::NAME, max_entries);
    let present = HashMap::<F::Key, F::Row>::new(present, F::INTO.name, F::INTO.max_entries);
    let mut carried = Carried::default();
    former.for_each(|key, row| {
        let counter = match F::convert(key, row) {
            Some((key, row)) => match put::<F>(&present, &key, &row) {
                Ok(Put::Added) => &mut carried.added,
                Ok(Put::Updated) => &mut carried.updated,
                Ok(Put::Kept) => &mut carried.kept,
                Err(_) => &mut carried.lost,
            },
            None => &mut carried.dropped,
        };
        *counter += 1;
    })?;
    Ok(carried)
}

enum Put {
    Added,
    Updated,
    Kept,
}

fn put<F: Former>(present: &HashMap<F::Key, F::Row>, key: &F::Key, row: &F::Row) -> Result<Put, MapError> {
    if present.insert_new(key, row)? {
        return Ok(Put::Added);
    }
    match present.get(key)? {
        Some(there) if !F::supersedes(row, &there) => Ok(Put::Kept),
        Some(_) | None => present.insert(key, row).map(|()| Put::Updated),
    }
}
