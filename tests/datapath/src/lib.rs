// SPDX-License-Identifier: Apache-2.0
//! A node for tests: its own network and mount namespace, a private BPF file system, the real programs on real devices, two
//! pods and a world outside. Needs root; see [`Node::up`].

mod node;
pub mod packet;
pub mod services;

pub use node::{Node, Pod, require_root};
