// SPDX-License-Identifier: Apache-2.0
//! What a server is started with, and the kubeconfig that leads to it.

use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::{Ipv4Net, Ipv6Net};

use crate::runtime::PodRuntime;

/// The range Kubernetes takes NodePorts from unless told otherwise.
pub const DEFAULT_NODE_PORTS: RangeInclusive<u16> = 30_000..=32_767;
/// How many past events of each resource a watch may start from; older resource versions get 410 Gone.
pub const DEFAULT_WATCH_HISTORY: usize = 4096;
/// How many events may wait for one slow watcher before its watch is ended.
pub const DEFAULT_WATCHER_QUEUE: usize = 4096;

/// Where ClusterIPs come from: one family or both. The first named family is the cluster's primary one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceCidrs {
    /// IPv4 only.
    V4(Ipv4Net),
    /// IPv6 only.
    V6(Ipv6Net),
    /// Both, IPv4 first: `SingleStack` services get IPv4.
    Dual(Ipv4Net, Ipv6Net),
}

/// What a server is started with.
#[derive(Clone)]
pub struct Config {
    /// The bearer token that every request has to carry.
    pub token: String,
    /// Names and addresses that the server certificate is valid for.
    pub sans: Vec<String>,
    /// Where ClusterIPs come from.
    pub service_cidrs: ServiceCidrs,
    /// Where NodePorts and health check ports come from.
    pub node_ports: RangeInclusive<u16>,
    /// Who runs `exec` and `logs`; without one they are answered with 501.
    pub runtime: Option<Arc<dyn PodRuntime>>,
    /// Events kept per resource, see [`DEFAULT_WATCH_HISTORY`].
    pub watch_history: usize,
    /// Events queued per watcher, see [`DEFAULT_WATCHER_QUEUE`].
    pub watcher_queue: usize,
}

impl Config {
    /// A configuration with the usual limits, valid for `localhost` and the loopback addresses.
    pub fn new(token: impl Into<String>, service_cidrs: ServiceCidrs) -> Self {
        Self {
            token: token.into(),
            sans: ["localhost", "127.0.0.1", "::1", "kubernetes.default.svc"]
                .map(String::from)
                .to_vec(),
            service_cidrs,
            node_ports: DEFAULT_NODE_PORTS,
            runtime: None,
            watch_history: DEFAULT_WATCH_HISTORY,
            watcher_queue: DEFAULT_WATCHER_QUEUE,
        }
    }

    /// Makes the certificate valid for one more name or address.
    #[must_use]
    pub fn san(mut self, name: impl Into<String>) -> Self {
        self.sans.push(name.into());
        self
    }

    /// Gives `exec` and `logs` to this runtime.
    #[must_use]
    pub fn runtime(mut self, runtime: Arc<dyn PodRuntime>) -> Self {
        self.runtime = Some(runtime);
        self
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("sans", &self.sans)
            .field("service_cidrs", &self.service_cidrs)
            .field("node_ports", &self.node_ports)
            .finish_non_exhaustive()
    }
}

/// What goes into a kubeconfig file.
#[derive(Debug, Clone, Copy)]
pub struct Kubeconfig<'a> {
    /// The name of the cluster, the user and the context.
    pub name: &'a str,
    /// `https://host:port`.
    pub server: &'a str,
    /// The CA certificate, PEM.
    pub ca_pem: &'a str,
    /// The bearer token.
    pub token: &'a str,
}

impl Kubeconfig<'_> {
    /// The file's text.
    pub fn render(&self) -> String {
        use base64::Engine as _;
        let ca = base64::engine::general_purpose::STANDARD.encode(self.ca_pem);
        let Self {
            name, server, token, ..
        } = self;
        // Quoted: a token or a name of digits alone would be a number to YAML, and kubectl refuses it.
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: \"{name}\"\n  cluster:\n    server: {server}\n    \
             certificate-authority-data: {ca}\nusers:\n- name: \"{name}\"\n  user:\n    token: \"{token}\"\ncontexts:\n\
             - name: \"{name}\"\n  context:\n    cluster: \"{name}\"\n    user: \"{name}\"\n    namespace: default\n\
             current-context: \"{name}\"\n"
        )
    }
}
