// SPDX-License-Identifier: Apache-2.0
//! Which address a pod gets: pools of CIDRs, one address per family for each owner, all or nothing.
//!
//! Allocation goes round (next fit), and a released address rests until its connections are forgotten, so that a new pod does not
//! inherit the traffic of an old one. It keeps nothing on disk and knows no clock: the caller rebuilds it from the kernel and
//! says when an address has rested. Start with [`Allocator`].

mod allocator;
pub mod cluster;
mod pool;

pub use allocator::{AllocateError, Allocator, ClaimError};
pub use pool::{PoolError, PoolSpec, PoolUsage};

#[cfg(test)]
mod tests;
