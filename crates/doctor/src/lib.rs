// SPDX-License-Identifier: Apache-2.0
//! The doctor: what is wrong with a node, a cluster or its cloud, or will be after the next upgrade, said with evidence, the reason
//! why it matters and the command that mends it. In three steps that do not mix: [`gather`] reads the world into plain data
//! ([`facts::Facts`]), [`checks`] are pure functions over it, and what acts ([`conflicts`]) acts on a plan that was shown before.
//!
//! It keeps nothing, watches nothing and repairs nothing by itself. What could not be found out is never taken for well: it is
//! reported as unknown, with the reason.
//!
//! Start from [`checks::examine`].

pub mod checks;
pub mod compatibility;
pub mod conflicts;
pub mod facts;
pub mod finding;
pub mod gather;
pub mod owner;
pub mod record;
pub mod upgrade;
pub mod version;
