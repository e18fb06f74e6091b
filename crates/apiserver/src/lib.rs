// SPDX-License-Identifier: Apache-2.0
//! A small embedded Kubernetes API server for the lab and for tests.
//!
//! It keeps objects in memory and serves them as Kubernetes does: discovery, the usual verbs, every kind of patch, watches,
//! tables for `kubectl`, custom resources, ClusterIPs and NodePorts. An unmodified `kubectl` and any client-go or kube-rs
//! program work against it.
//!
//! It is deliberately no cluster: it persists nothing, authorizes everything for the one token that it knows, and runs no
//! controllers (whoever embeds it schedules pods, makes endpoints, empties namespaces); only what an object owned goes with
//! it, at once. It converts between versions of a custom resource only by name, evaluates no CEL, and calls no webhooks.
//!
//! Start at [`ApiServer::start`] with a [`Config`].

mod admission;
mod bootstrap;
mod config;
mod convert;
mod crd;
mod discovery;
mod exec;
mod fields;
mod handlers;
mod http;
mod openapi;
mod patch;
mod protobuf;
mod resources;
mod runtime;
mod selectors;
mod server;
mod status;
mod store;
mod table;
mod time;
mod tls;
mod value;
mod view;

pub use admission::names::{is_label_value, is_qualified};
pub use config::{
    Config, DEFAULT_NODE_PORTS, DEFAULT_WATCH_HISTORY, DEFAULT_WATCHER_QUEUE, Kubeconfig, ServiceCidrs,
};
pub use runtime::{ExecRequest, ExecSession, LogRequest, LogStream, PodRuntime, RuntimeError, TerminalSize};
pub use server::{ApiServer, StartError};
pub use tls::TlsError;
