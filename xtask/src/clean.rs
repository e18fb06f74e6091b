// SPDX-License-Identifier: Apache-2.0
//! `./dev clean`.

use std::fs;

use anyhow::{Context, Result};

/// Downloads that a plain clean keeps.
const KEPT: [&str; 2] = ["kernels", "tools"];

/// Empties `target`.
pub(crate) fn run(all: bool) -> Result<()> {
    let target = crate::root().join("target");
    let Ok(entries) = fs::read_dir(&target) else {
        return Ok(());
    };
    for entry in entries {
        let entry = entry?;
        if !all && KEPT.iter().any(|kept| entry.file_name() == *kept) {
            continue;
        }
        let path = entry.path();
        let removed = if entry.file_type()?.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}
