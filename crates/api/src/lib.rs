// SPDX-License-Identifier: Apache-2.0
//! The agent's configuration and the types of the agent socket.
//!
//! [`agent`] holds what the agent answers on its socket and what the command line shows. Nothing here does
//! anything: no sockets and no kernel.

pub mod agent;
