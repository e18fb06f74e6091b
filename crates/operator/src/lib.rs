// SPDX-License-Identifier: Apache-2.0
//! The cluster's operator: hands blocks of address pools to nodes.
//!
//! Several replicas run; a Lease says which one works. What it decides is in `ipam::cluster`, pure and simulated; what is here
//! watches, elects, carries out and shows. Begin at [`run`](run::run).
//!
//! Nothing that the operator knows is lost with it: ledgers and grants are in the API's objects.

mod elect;
mod http;
mod metrics;
mod news;
mod reconcile;
pub mod run;
mod seen;
