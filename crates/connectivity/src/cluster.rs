// SPDX-License-Identifier: Apache-2.0
//! What scenarios need from a cluster: its API, a way to run commands in pods, and, where Thalweg's agents can be
//! asked, what they say.

use api::agent::Status;
use futures::future::BoxFuture;

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its exit code.
    pub code: i32,
    /// What it printed.
    pub stdout: Vec<u8>,
    /// What it complained about.
    pub stderr: Vec<u8>,
}

/// Why a cluster did not do what was asked. The text says what, where and why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ClusterError(pub String);

impl ClusterError {
    /// From any error, with its causes.
    pub fn new(error: impl std::error::Error) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        Self(text)
    }
}

/// A cluster to try out.
pub trait Cluster: Send + Sync {
    /// What it is, for headings: `lab demo`.
    fn title(&self) -> String;

    /// Its API.
    fn client(&self) -> kube::Client;

    /// The image of test pods. It must have this program, `ping` of iputils and `ip` of iproute2.
    fn image(&self) -> String;

    /// Where this program is inside test pods.
    fn program(&self) -> String;

    /// Runs a command in a pod and waits for its end.
    fn exec<'a>(
        &'a self,
        namespace: &'a str,
        pod: &'a str,
        command: &'a [String],
    ) -> BoxFuture<'a, Result<Output, ClusterError>>;

    /// What the agent of a node says; nothing when the cluster has no agents of Thalweg.
    fn status<'a>(&'a self, node: &'a str) -> BoxFuture<'a, Result<Option<Status>, ClusterError>>;
}
