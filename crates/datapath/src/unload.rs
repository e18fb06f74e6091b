// SPDX-License-Identifier: Apache-2.0
//! Removing everything, for `thalweg cleanup`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::attach::detach_clsact;
use crate::pins::Pins;

/// What could not be removed; the rest was.
#[derive(Debug, thiserror::Error)]
#[error("cannot remove {}", failures(.0))]
pub struct UnloadError(pub Vec<(PathBuf, io::Error)>);

fn failures(failed: &[(PathBuf, io::Error)]) -> String {
    let each: Vec<String> = failed
        .iter()
        .map(|(path, error)| format!("{}: {error}", path.display()))
        .collect();
    each.join("; ")
}

/// Detaches all programs of this network namespace and removes all pins; returns what was removed. Goes on after an error.
/// Nothing to remove is no error.
///
/// # Errors
///
/// All that could not be removed.
pub fn unload(bpffs: &Path) -> Result<Vec<String>, UnloadError> {
    let pins = Pins::new(bpffs);
    let (mut removed, mut failed) = (Vec::new(), Vec::new());
    for ifname in devices() {
        if detach_clsact(&ifname) {
            removed.push(format!("filters of {ifname}"));
        }
    }
    // Links first: a program goes before the maps that it uses.
    for directory in [pins.links(), pins.cgroup(), pins.root().to_owned()] {
        remove_directory(&directory, &mut removed, &mut failed);
    }
    if failed.is_empty() {
        Ok(removed)
    } else {
        Err(UnloadError(failed))
    }
}

fn remove_directory(directory: &Path, removed: &mut Vec<String>, failed: &mut Vec<(PathBuf, io::Error)>) {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => return failed.push((directory.to_owned(), error)),
    };
    let paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    for path in paths {
        let result = if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        match result {
            Ok(()) => removed.push(path.display().to_string()),
            Err(error) => failed.push((path, error)),
        }
    }
    match fs::remove_dir(directory) {
        Ok(()) => removed.push(directory.display().to_string()),
        Err(error) => failed.push((directory.to_owned(), error)),
    }
}

/// The devices of this thread's network namespace.
fn devices() -> Vec<String> {
    let table = fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    table
        .lines()
        .filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()))
        .collect()
}
