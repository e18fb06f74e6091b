// SPDX-License-Identifier: Apache-2.0
//! Connectivity scenarios and performance runs over a [`cluster::Cluster`] trait, and the load generator that both
//! use inside pods.
//!
//! This crate knows no lab and prints nothing: the command line does.

pub mod bed;
pub mod cluster;
pub mod kube;
mod objects;
pub mod perf;
pub mod report;
pub mod run;
pub mod scenarios;
pub mod throughput;
