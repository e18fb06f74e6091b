// SPDX-License-Identifier: Apache-2.0
//! What `kubectl exec` and `kubectl logs` need from whoever really runs the pods.

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

/// Runs commands in pods and reads their logs.
pub trait PodRuntime: Send + Sync + 'static {
    /// Starts a command in a pod's container.
    fn exec(&self, request: ExecRequest) -> BoxFuture<'static, Result<ExecSession, RuntimeError>>;
    /// Opens a container's log; the stream ends with the log, or never when `follow` is set and the pod lives on.
    fn logs(&self, request: LogRequest) -> BoxFuture<'static, Result<LogStream, RuntimeError>>;
}

/// The bytes of a container's log.
pub type LogStream = BoxStream<'static, std::io::Result<Bytes>>;

/// One command to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecRequest {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container; the pod's first one when the caller named none.
    pub container: String,
    /// Program and arguments; never empty.
    pub command: Vec<String>,
    /// Whether the caller sends standard input.
    pub stdin: bool,
    /// Whether the caller wants standard output.
    pub stdout: bool,
    /// Whether the caller wants standard error apart from standard output.
    pub stderr: bool,
    /// Whether the command gets a terminal; then standard error goes to standard output.
    pub tty: bool,
}

/// A running command. Absent streams are those that were not asked for; dropping the session ends the command.
pub struct ExecSession {
    /// Where the caller's input goes; closed at its end.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// The command's output.
    pub stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// The command's errors.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Where changes of the caller's terminal size go.
    pub resize: Option<mpsc::Sender<TerminalSize>>,
    /// Ends with the command's exit code.
    pub exit: BoxFuture<'static, Result<i32, RuntimeError>>,
}

impl std::fmt::Debug for ExecSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecSession").finish_non_exhaustive()
    }
}

/// The size of the caller's terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// One log to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogRequest {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container; the pod's first one when the caller named none.
    pub container: String,
    /// Keep the stream open for what comes.
    pub follow: bool,
    /// Only that many last lines.
    pub tail_lines: Option<u64>,
    /// Only that many bytes.
    pub limit_bytes: Option<u64>,
    /// Only what is younger than that.
    pub since_seconds: Option<u64>,
    /// Put the time before each line.
    pub timestamps: bool,
    /// The log of the container's previous run.
    pub previous: bool,
}

/// Why a runtime could not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuntimeError {
    /// The pod or the container is not running here.
    #[error("{0}")]
    NotFound(String),
    /// The pod is not in a state in which this can be done.
    #[error("{0}")]
    NotReady(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}
