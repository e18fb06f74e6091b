// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! What the eBPF programs and user space say to each other: map rows, events, drop reasons and load-time
//! configuration; and the packet arithmetic that both sides (and the tests) run, as pure functions.
//!
//! It does no I/O, holds no state and allocates nothing. Rows are plain bytes: every bit pattern is valid, none has
//! padding (the derives of `zerocopy` refuse it), and `testdata/abi.txt` holds their layout. A changed row of a
//! pinned map changes the map's name.
//!
//! Begin at [`Endpoint`] and [`CtEntry`], the two rows that each packet meets.

#![cfg_attr(not(test), no_std)]

#[macro_use]
mod row;

mod addr;
pub mod checksum;
pub mod config;
pub mod ct;
pub mod drop;
mod endpoint;
pub mod event;
mod fragment;
pub mod maps;
pub mod metrics;
pub mod nat;
mod node;
pub mod packet;
mod prefix;
pub mod service;
mod way;

#[cfg(test)]
mod abi_test;

pub use addr::{Addr, Be16, Mac};
pub use config::NodeConfig;
pub use ct::{CtEntry, CtKey, Tuple};
pub use drop::Reason;
pub use endpoint::Endpoint;
pub use event::{DropEvent, PathMtu};
pub use fragment::{FragmentEntry, FragmentKey};
pub use metrics::{Counter, Direction};
pub use nat::{Mapping, NatAddress, NatEntry};
pub use node::LocalNode;
pub use prefix::{Prefix, PrefixKey};
pub use row::{Field, Row};
pub use service::{Backend, BackendKey, Service, ServiceKey};
pub use way::{WAYS, Way};
