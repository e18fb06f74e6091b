// SPDX-License-Identifier: Apache-2.0
//! Clusters from one file. `platform.yaml` says which clusters there are to be; from it come the address plan and what
//! is to be known before it hurts ([`plan`]), infrastructure code ([`render`]), a comparison with what is there
//! ([`verify`]), migrations ([`migrate`]), alert rules ([`alerts`]) and a rehearsal ([`rehearse`]).
//!
//! Everything here is pure: text and data in, values and text out. It talks to no cloud and no cluster, and it applies
//! nothing; `verify` compares answers that somebody recorded. Start at [`Platform::parse`].

pub mod address;
pub mod alerts;
pub mod catalogue;
mod file;
pub mod migrate;
pub mod plan;
pub mod rehearse;
pub mod render;
pub mod verify;

pub use file::{
    CLUSTERS_MAX, Cloud, Cluster, Connect, Egress, FILE_BYTES_MAX, Features, GitOps, Identity, Mode,
    NodeGroup, Platform, Pools, Problem, Refused, Tunnel, Version, Zones,
};

#[cfg(test)]
mod sample;
