// SPDX-License-Identifier: Apache-2.0
//! A multi-node cluster network on one machine, in network namespaces: the same agent, plugin and programs as on real
//! nodes, an embedded API server, and the small part of Kubernetes that makes pods of Pod objects.
//!
//! It is no Kubernetes distribution: there are no images and no isolation beyond the network.
//!
//! Commands and tests start from [`Lab`]; the process behind a lab is [`daemon::run`].

pub mod apply;
pub mod cgroup;
mod cluster;
pub mod controllers;
pub mod daemon;
mod down;
mod error;
mod external;
mod fabric;
pub mod hold;
pub mod kubelet;
mod lab;
pub mod node;
mod operators;
mod owner;
mod plan;
mod pods;
mod preflight;
mod process;
mod progress;
pub mod spec;
pub mod state;
mod supervisor;
mod underlay;
mod up;

pub use down::remove;
pub use error::Error;
pub use lab::{Guard, Lab, Summary, Target};
pub use node::{NodeHandle, Place};
pub use operators::OperatorState;
pub use owner::inherit;
pub use pods::PodRecord;
pub use process::Process;
pub use progress::Report;
pub use spec::Spec;
pub use up::Options;
