// SPDX-License-Identifier: Apache-2.0
//! `./dev check`: what a machine can say about the source.

use anyhow::{Result, bail};

use crate::setup::{self, Need};
use crate::{run, tidy};

type Check = fn() -> Result<()>;

/// The verb: runs every check and names those that failed.
pub(crate) fn run() -> Result<()> {
    setup::ensure(Need::Check)?;
    let checks: [(&str, Check); 4] = [
        ("fmt", fmt),
        ("tidy", tidy::run),
        ("clippy", clippy),
        ("deny", deny),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        if let Err(error) = check() {
            eprintln!("{name}: {error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    println!("all checks passed");
    Ok(())
}

fn fmt() -> Result<()> {
    run::step("fmt", run::cargo().args(["fmt", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    let arguments = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ];
    run::step("clippy", run::cargo().args(arguments))
}

/// The advisories live in a Git repository that not every machine can reach; the rest needs nothing but crates.io.
fn deny() -> Result<()> {
    run::step(
        "deny bans licenses sources",
        run::cargo().args(["deny", "check", "bans", "licenses", "sources"]),
    )?;
    if run::output(run::cargo().args(["deny", "fetch", "db"])).is_err() {
        println!("  deny advisories: NOT checked, the advisory database cannot be reached from here");
        return Ok(());
    }
    run::step(
        "deny advisories",
        run::cargo().args(["deny", "check", "advisories"]),
    )
}
