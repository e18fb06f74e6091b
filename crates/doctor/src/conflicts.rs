// SPDX-License-Identifier: Apache-2.0
//! Other networks' parts on a node: list, remove, restore, and the way back to the cloud's own network.
//!
//! [`list`] is computed from facts; [`remove`](remove::remove) keeps a copy of everything before it touches anything, and leaves alone
//! what running pods use; [`restore`](restore::restore) puts a copy back as far as that can be done, and says what cannot.

mod backup;
mod filter;
mod inventory;
pub mod remove;
pub mod restore;
pub mod rollback;

use std::io;
use std::path::{Path, PathBuf};

pub use backup::{Backup, Saved};
pub use inventory::{Item, Part, list};

use crate::facts::{Gathered, Rollback};

/// The directory of copies below the one for kept things.
const COPIES: &str = "conflicts";
/// The note of the last rehearsal.
const REHEARSAL: &str = "rehearsal.json";

/// What could not be done to a part; the rest was.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Trouble {
    /// The part.
    pub part: String,
    /// What happened.
    pub reason: String,
}

/// A step that did not work at all.
#[derive(Debug, thiserror::Error)]
pub enum ConflictError {
    /// A file.
    #[error("cannot {operation} {}: {source}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A copy that is none.
    #[error("{} is no copy of removed parts: {reason}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// There is nothing to go back to.
    #[error("{0}")]
    Refused(String),
}

impl ConflictError {
    pub(crate) fn file(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File {
            operation,
            path,
            source,
        }
    }
}

/// What there is for the way back, below the directory for kept things.
#[must_use]
pub fn kept(dir: &Path) -> Gathered<Rollback> {
    let copies = match copies(dir) {
        Ok(copies) => copies,
        Err(error) => return Gathered::unknown(error.to_string()),
    };
    let rehearsed = std::fs::read(dir.join(REHEARSAL)).ok();
    let rehearsed = rehearsed.and_then(|text| serde_json::from_slice::<rollback::Rehearsal>(&text).ok());
    Gathered::Known(Rollback {
        backups: copies.iter().map(|path| path.display().to_string()).collect(),
        rehearsed: rehearsed.map(|rehearsal| rehearsal.unix),
    })
}

/// Copies of removed parts, the newest last. No directory, no copies.
///
/// # Errors
/// When the directory is there but cannot be read.
pub fn copies(dir: &Path) -> Result<Vec<PathBuf>, ConflictError> {
    let dir = dir.join(COPIES);
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(ConflictError::file("read", &dir)(error)),
    };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    found.sort();
    Ok(found)
}
