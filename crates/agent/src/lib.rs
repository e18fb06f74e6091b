// SPDX-License-Identifier: Apache-2.0
//! The node agent: composition of tables, apply loop, CNI server and socket API.

pub mod apply;
pub mod cni_server;
pub mod conflist;
pub mod delete_queue;
pub mod endpoints;
pub mod events;
pub mod host;
pub mod lock;
