// SPDX-License-Identifier: Apache-2.0
//! Planning before it hurts: pods per node, how long a subnet lasts, which mode fits, which permissions a mode needs.
//!
//! Pure: text and numbers in, plain values out; no clock, no input or output. Facts of others are dated data files with
//! their sources; what no source knows is said to be unknown, never guessed. Start with [`capacity`].

pub mod advise;
pub mod capacity;
pub mod chart;
pub mod cloud;
pub mod data;
pub mod date;
pub mod iam;
pub mod instance;
pub mod price;
pub mod refresh;
pub mod subnet;

pub use capacity::{Capacity, Mode, Network, Request, capacity};
pub use instance::{Instance, InstanceTable};
