// SPDX-License-Identifier: Apache-2.0
//! `kubectl exec` and `kubectl logs`: commands in the pods of all nodes, and their logs. It reads what kubelets leave in
//! their nodes' directories, and so needs to know nothing of them.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use apiserver::{ExecRequest, ExecSession, LogRequest, LogStream, PodRuntime, RuntimeError, TerminalSize};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use nix::pty::{OpenptyResult, Winsize, openpty};
use tokio::fs::File;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::log::{self, Selection};
use super::log_dirs;
use crate::{NodeHandle, PodRecord};

/// How many changes of a terminal's size may wait.
const SIZES_WAITING: usize = 4;
/// The exit code of a process that a signal ended, less the signal's number.
const SIGNALLED: i32 = 128;

/// Exec and logs for the pods of all nodes of a lab.
#[derive(Debug, Default)]
pub struct Runtime {
    nodes: Arc<OnceLock<Vec<NodeHandle>>>,
}

impl Runtime {
    /// Tells where the nodes are; before that there are no pods. The first call counts.
    pub fn set_nodes(&self, nodes: Vec<NodeHandle>) {
        // A second call would be a second lab in one process, which there is not.
        let _ = self.nodes.set(nodes);
    }
}

impl PodRuntime for Runtime {
    fn exec(&self, request: ExecRequest) -> BoxFuture<'static, Result<ExecSession, RuntimeError>> {
        let nodes = Arc::clone(&self.nodes);
        Box::pin(async move {
            let (node, pod) = find(
                nodes.get().map_or(&[], Vec::as_slice),
                &request.namespace,
                &request.pod,
            )?;
            let command = command(
                &request,
                &log_dirs::of(&node.dir, &pod.namespace, &pod.name, &pod.uid),
            )?;
            super::blocking(move || {
                if request.tty {
                    with_terminal(command, &node, &pod, &request)
                } else {
                    with_pipes(command, &node, &pod, &request)
                }
            })
            .await
        })
    }

    fn logs(&self, request: LogRequest) -> BoxFuture<'static, Result<LogStream, RuntimeError>> {
        let nodes = Arc::clone(&self.nodes);
        Box::pin(async move {
            let nodes = nodes.get().map_or(&[][..], Vec::as_slice);
            let path = find_log(nodes, &request)?;
            let age = request
                .since_seconds
                .and_then(|seconds| i64::try_from(seconds).ok());
            let selection = Selection {
                follow: request.follow,
                tail: request.tail_lines,
                since: age.map(|seconds| Timestamp::now() - SignedDuration::from_secs(seconds)),
                timestamps: request.timestamps,
                limit: request.limit_bytes,
            };
            let log = log::read(path, selection)
                .await
                .map_err(|error| failed("read the log", &error))?;
            Ok(log.boxed())
        })
    }
}

fn failed(what: &str, error: &dyn std::fmt::Display) -> RuntimeError {
    RuntimeError::Failed(format!("cannot {what}: {error}"))
}

fn find(nodes: &[NodeHandle], namespace: &str, name: &str) -> Result<(NodeHandle, PodRecord), RuntimeError> {
    let running = |node: &NodeHandle| {
        let mut pods = PodRecord::load_all(&node.dir).into_iter();
        pods.find(|pod| pod.namespace == namespace && pod.name == name)
    };
    let found = nodes.iter().find_map(|node| Some((node.clone(), running(node)?)));
    found.ok_or_else(|| RuntimeError::NotReady(format!("pod {namespace}/{name} is not running")))
}

fn find_log(nodes: &[NodeHandle], request: &LogRequest) -> Result<PathBuf, RuntimeError> {
    let LogRequest {
        namespace,
        pod,
        container,
        previous,
        ..
    } = request;
    let dirs = nodes
        .iter()
        .filter_map(|node| log_dirs::latest(&node.dir, namespace, pod));
    let mut logs = dirs.filter_map(|dir| log::latest(&dir, container, *previous));
    logs.next().ok_or_else(|| match previous {
        true => RuntimeError::NotFound(format!(
            "previous terminated container {container:?} in pod {pod:?} not found"
        )),
        false => RuntimeError::NotReady(format!(
            "container {container:?} in pod {pod:?} is waiting to start"
        )),
    })
}

fn command(request: &ExecRequest, pod_logs: &Path) -> Result<Command, RuntimeError> {
    let saved = std::fs::read(log_dirs::environment_file(pod_logs, &request.container));
    let saved = saved
        .map_err(|_| RuntimeError::NotReady(format!("container {:?} is not running", request.container)))?;
    let variables: BTreeMap<String, String> =
        serde_json::from_slice(&saved).map_err(|error| failed("read the container's environment", &error))?;
    let (program, args) = request
        .command
        .split_first()
        .ok_or_else(|| RuntimeError::Failed("there is no command".into()))?;
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(variables).kill_on_drop(true);
    Ok(command)
}

fn place(pod: &PodRecord, container: &str) -> crate::Place {
    crate::Place {
        netns: pod.netns(),
        utsns: pod.utsns(),
        cgroup: pod.cgroup().join(container),
        ..crate::Place::default()
    }
}

fn with_pipes(
    mut command: Command,
    node: &NodeHandle,
    pod: &PodRecord,
    request: &ExecRequest,
) -> Result<ExecSession, RuntimeError> {
    let pipe = |wanted| if wanted { Stdio::piped() } else { Stdio::null() };
    command
        .stdin(pipe(request.stdin))
        .stdout(pipe(request.stdout))
        .stderr(pipe(request.stderr));
    let mut child = node
        .spawn_in(command, &place(pod, &request.container))
        .map_err(|e| RuntimeError::Failed(e.to_string()))?;
    Ok(ExecSession {
        stdin: child.stdin.take().map(|pipe| Box::new(pipe) as _),
        stdout: child.stdout.take().map(|pipe| Box::new(pipe) as _),
        stderr: child.stderr.take().map(|pipe| Box::new(pipe) as _),
        resize: None,
        exit: Box::pin(exit(child)),
    })
}

fn with_terminal(
    mut command: Command,
    node: &NodeHandle,
    pod: &PodRecord,
    request: &ExecRequest,
) -> Result<ExecSession, RuntimeError> {
    let io = |error: io::Error| failed("make a terminal", &error);
    let OpenptyResult { master, slave } = openpty(None, None).map_err(|errno| io(errno.into()))?;
    let end = || slave.try_clone().map(Stdio::from).map_err(io);
    command.stdin(end()?).stdout(end()?).stderr(end()?);
    if !command.as_std().get_envs().any(|(name, _)| name == "TERM") {
        command.env("TERM", "xterm");
    }
    // SAFETY: between fork and exec only two system calls are made; neither touches memory.
    unsafe { command.pre_exec(own_terminal) };
    let child = node
        .spawn_in(command, &place(pod, &request.container))
        .map_err(|e| RuntimeError::Failed(e.to_string()))?;
    drop(slave);
    let master = std::fs::File::from(master);
    let (sizes, changes) = mpsc::channel(SIZES_WAITING);
    tokio::spawn(resize(master.try_clone().map_err(io)?, changes));
    let reader = File::from_std(master.try_clone().map_err(io)?);
    let writer = File::from_std(master);
    Ok(ExecSession {
        stdin: request.stdin.then(|| Box::new(writer) as _),
        stdout: Some(Box::new(Terminal(reader))),
        stderr: None,
        resize: Some(sizes),
        exit: Box::pin(exit(child)),
    })
}

/// Makes standard input the terminal that the process and its children are on.
fn own_terminal() -> io::Result<()> {
    nix::unistd::setsid()?;
    // SAFETY: the request takes an integer.
    match unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

async fn resize(master: std::fs::File, mut changes: mpsc::Receiver<TerminalSize>) {
    while let Some(TerminalSize { width, height }) = changes.recv().await {
        let size = Winsize {
            ws_row: height,
            ws_col: width,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: the request reads a `winsize`, which outlives the call.
        // A terminal that cannot be resized works on in its old size.
        let _ = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    }
}

async fn exit(mut child: Child) -> Result<i32, RuntimeError> {
    use std::os::unix::process::ExitStatusExt as _;
    let status = child
        .wait()
        .await
        .map_err(|error| failed("wait for the command", &error))?;
    Ok(status
        .code()
        .unwrap_or_else(|| SIGNALLED + status.signal().unwrap_or_default()))
}

/// A terminal's master end: when the last process is off the terminal, reading fails with EIO, which is its end.
struct Terminal(File);

impl AsyncRead for Terminal {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.0).poll_read(cx, buf) {
            Poll::Ready(Err(error)) if error.raw_os_error() == Some(libc::EIO) => Poll::Ready(Ok(())),
            result @ (Poll::Ready(_) | Poll::Pending) => result,
        }
    }
}
