// SPDX-License-Identifier: Apache-2.0
//! How many addresses a node wants to have.

/// No node can want more addresses of a pool than this: far more than pods fit on a machine.
pub const WANTED_MAX: u32 = 16_384;

/// A node wants what it uses, what rests and what waits, and `spare` beyond that, so that it has grown before it is full and no pod
/// waits for the operator.
#[must_use]
pub fn wanted(used: u64, resting: u64, waiting: u64, spare: u32) -> u32 {
    let sum = used
        .saturating_add(resting)
        .saturating_add(waiting)
        .saturating_add(spare.into());
    u32::try_from(sum).unwrap_or(u32::MAX).min(WANTED_MAX)
}
