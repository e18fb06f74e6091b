// SPDX-License-Identifier: Apache-2.0
//! `./dev fuzz`.

use anyhow::Result;

/// How long one target runs if nobody says.
pub(crate) const DEFAULT_SECONDS: u64 = 60;

/// The verb.
pub(crate) fn run(_target: Option<&str>, _seconds: u64) -> Result<()> {
    Ok(())
}
