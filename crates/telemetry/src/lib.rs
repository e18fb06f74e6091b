// SPDX-License-Identifier: Apache-2.0
//! Logging set-up and the metrics registry.
//!
//! [`log`] installs the one global thing that `tracing` needs. [`metrics`] makes a registry, which is a value: whoever
//! counts something gets its handle through a constructor.
//!
//! [`bounded`] serves health and metrics to the network.
//!
//! What is logged and counted is the business of the crates that do it.

pub mod bounded;
pub mod log;
pub mod metrics;
