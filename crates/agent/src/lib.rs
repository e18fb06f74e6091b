// SPDX-License-Identifier: Apache-2.0
//! The node agent: composition of tables, apply loop, CNI server and socket API.

pub mod events;
pub mod host;
pub mod lock;
