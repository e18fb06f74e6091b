// SPDX-License-Identifier: Apache-2.0
//! The node agent: composition of tables, apply loop, CNI server and socket API.
//!
//! Begin at [`run`](run::run), which puts everything together with plain constructors. What decides is elsewhere, in
//! pure crates; what is here connects them.

pub mod apply;
pub mod cluster_pool;
pub mod cni_server;
pub mod conflist;
pub mod delete_queue;
pub mod endpoints;
pub mod events;
pub mod health;
pub mod http;
pub mod kube_proxy;
pub mod lock;
pub mod masquerade;
pub mod metrics;
pub mod observe;
pub mod plugin;
pub mod privileges;
pub mod readiness;
pub mod run;
mod services;
mod taint;
pub mod tunnel;
