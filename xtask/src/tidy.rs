// SPDX-License-Identifier: Apache-2.0
//! `./dev tidy`: the project's own rules, which neither the compiler nor clippy knows.

use anyhow::{Context, Result, bail};

use crate::run;

mod files;
mod layers;

/// The verb: prints every breach and fails if there is one.
pub(crate) fn run() -> Result<()> {
    let root = crate::root();
    let metadata =
        run::output(run::cargo().args(["metadata", "--format-version", "1", "--no-deps", "--locked"]))?;
    let packages = layers::packages(&metadata)?;
    let mut breaches = layers::check(&packages);
    let map = std::fs::read_to_string(root.join("ARCHITECTURE.md")).context("cannot read ARCHITECTURE.md")?;
    breaches.extend(layers::unnamed(&packages, &map));

    let listed = run::output(run::in_root("git").args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    for path in listed.split('\0').filter(|path| !path.is_empty()) {
        // A file that was deleted but not yet committed, or that is not text, has no rules to keep.
        let Ok(text) = std::fs::read_to_string(root.join(path)) else {
            continue;
        };
        breaches.extend(files::check(path, &text));
        if let Some(warning) = files::warn(path, &text) {
            eprintln!("  tidy: warning: {warning}");
        }
    }
    if breaches.is_empty() {
        eprintln!("  tidy: {} crates and their files are in order", packages.len());
        return Ok(());
    }
    for breach in &breaches {
        eprintln!("  tidy: {breach}");
    }
    bail!("{} breaches", breaches.len())
}
