// SPDX-License-Identifier: Apache-2.0
//! Kubernetes watches into tables, status out.
//!
//! [`connect`] makes a client, [`watch_nodes`] and [`watch_pods`] keep a table equal to what the API says and never
//! give up. Objects become values of `model` here, with as little as possible kept of them on the way: of a Node of
//! twenty kilobytes we need its name, its addresses and its pod CIDRs.
//!
//! [`IpPools`] writes pools of addresses, [`Election`] holds a lease, [`Reporter`] writes events,
//! [`remove_taint`] lets pods onto a node.
//!
//! Nothing here decides anything. An object that cannot be understood is reported in the [`WatchStatus`] and skipped;
//! what was known of it before stays.

mod client;
mod definitions;
mod events;
mod ippools;
mod lease;
mod names;
mod objects;
mod services;
mod taint;
mod watch;

pub use client::{Api, ConnectError, connect};
pub use definitions::{DefinitionError, ensure_definitions};
pub use events::{Reporter, Severity};
pub use ippools::{IpPools, ListError, ReportError, service_cidrs};
pub use lease::{Election, LeaseTimes, Standing};
pub use taint::remove_taint;
pub use watch::{
    WatchStatus, watch_endpoint_slices, watch_machines, watch_namespaces, watch_node_pools, watch_nodes,
    watch_pods, watch_pools, watch_services,
};
