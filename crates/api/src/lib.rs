// SPDX-License-Identifier: Apache-2.0
//! The agent's configuration and the types of the agent socket.
//!
//! [`config::Config`] is what an operator decides, checked. [`agent`] is what the agent answers on its socket and
//! what the command line shows. [`crd`] are our own kinds of Kubernetes objects. Nothing here acts: no file is opened, no environment read, no socket made.

pub mod agent;
pub mod config;
pub mod crd;

/// The taint that keeps pods off a new node until its agent is ready, which takes it away.
pub const NOT_READY_TAINT: &str = "node.thalweg.io/agent-not-ready";

/// On a Service: how its backends are chosen, `random` or `maglev`, if not as the agent's setting `loadBalancer.algorithm` says.
pub const ALGORITHM_ANNOTATION: &str = "service.thalweg.io/lb-algorithm";
