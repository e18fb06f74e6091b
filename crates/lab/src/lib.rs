// SPDX-License-Identifier: Apache-2.0
//! A multi-node cluster network on one machine, in network namespaces: the same agent, plugin and programs as on real
//! nodes, an embedded API server, and the small part of Kubernetes that makes pods of Pod objects.
//!
//! It is no Kubernetes distribution: there are no images and no isolation beyond the network.

pub mod cgroup;
pub mod controllers;
mod error;
pub mod hold;
pub mod kubelet;
pub mod node;
mod pods;
mod process;

pub use error::Error;
pub use node::{NodeHandle, Place};
pub use pods::PodRecord;
pub use process::Process;
