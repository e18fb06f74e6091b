// SPDX-License-Identifier: Apache-2.0
//! Tables with one writer, cheap snapshots and a status per row.
//!
//! A [`Table`] is what everybody reads; its only [`Writer`] moves into the component that owns the table, so "who may
//! change this?" is answered by the type system. A [`Snapshot`] is an immutable value: taking one costs a pointer, and
//! two of them can be compared cheaply. A [`Reconciler`] drives a [`Target`] (a kernel table, an API) towards
//! snapshots and keeps a [`Status`] per row.
//!
//! It is not a database: no queries, no secondary indexes, no transactions over several tables, nothing on disk.

mod reconcile;
mod rows;
mod table;

pub use reconcile::{Backoff, Reconciler, Report, RowStatus, Status, Target};
pub use rows::PodKey;
pub use table::{Change, Reader, Revision, Row, Snapshot, Table, Writer, table};

#[cfg(test)]
mod tests;
