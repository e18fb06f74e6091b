// SPDX-License-Identifier: Apache-2.0
//! Blocking netlink: links, addresses, routes and neighbours of one network namespace, plus namespaces themselves and
//! the kernel's settings. Each call is one or two system calls and returns when the kernel has done it; several
//! [`Request`]s can share them ([`Netlink::apply`]).
//!
//! It keeps no state and decides nothing: what should exist is its callers' affair. No async runtime, no
//! subscriptions.
//!
//! Start from [`Netlink`].

mod address;
mod attributes;
mod error;
mod link;
mod neighbour;
pub mod netns;
mod nftables;
mod queue;
mod request;
mod route;
mod rule;
mod socket;
pub mod sysctl;
mod tunnel;

pub use address::{Address, AddressFlags};
pub use error::Error;
pub use link::{Link, Peer, Veth, VethPair};
pub use neighbour::Neighbour;
pub use nftables::nftables_chains;
pub use queue::Queue;
pub use request::Request;
pub use route::{ROUTE_PROTOCOL, Route, TABLE_MAIN};
pub use rule::Rule;
pub use socket::Netlink;
pub use tunnel::{Tunnel, TunnelKind};
