// SPDX-License-Identifier: Apache-2.0
//! Which node gets which block of which pool: what the operator decides.
//!
//! Every pool keeps a ledger, block by holder, and what a node is granted is the ledger's projection. A [`Pass`] looks at the
//! world, says what is to be written, is told what became of each write, and ends when nothing is left to do. Its order of
//! writes is what keeps two nodes from ever having one block, with several operators, crashes and lost answers:
//!
//! 1. A block is entered into the ledger before it is granted, and struck out only after the node's object is known not to have
//!    it. Every write names the version that it replaces, so that of two writers one is refused.
//! 2. A new term first writes into every ledger. From then on writes of earlier terms meet another version, and whoever reads
//!    a ledger of a later term than its own stops.
//! 3. After an answer that did not come the ledger counts as unknown until a write to it has succeeded: then the lost one has
//!    either happened or never will.
//! 4. A node gives a block back in two steps: the operator marks it, the node says that it has done with it under that very
//!    generation of its specification, and only then it is taken.

mod blocks;
mod demand;
mod forecast;
mod judge;
mod pass;
mod project;
#[cfg(test)]
mod sim;
mod summary;
#[cfg(test)]
mod tests;
mod world;

pub use demand::{WANTED_MAX, wanted};
pub use forecast::History;
pub use judge::{Refusal, judge};
pub use pass::{Deposed, Outcome, Pass, PoolWrite, Write, is_exhausted};
pub use project::{HOLD, Memory, NODE_BLOCKS_MAX, QUIET};
pub use summary::{ACCEPTED, EXHAUSTED, summarise};
pub use world::World;
