// SPDX-License-Identifier: Apache-2.0
//! Keeps a node's agent running, as the kubelet does with a DaemonSet's pod on a real node.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::error::{Doing as _, Error};
use crate::node::{NodeHandle, Place};
use crate::process::Process;
use crate::state::AgentState;

/// The pause before an agent that was stopped on purpose starts again.
pub(crate) const RESTART_PAUSE: Duration = Duration::from_millis(10);
/// The first pause after a failure; it doubles up to [`BACKOFF_MAX`].
pub(crate) const BACKOFF_FIRST: Duration = Duration::from_millis(100);
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// An agent that ran this long has not failed to start.
pub(crate) const STABLE: Duration = Duration::from_secs(10);
/// How long a local agent may take to answer whether it is ready.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// The agent's configuration as its node sees it.
pub(crate) const CONFIG: &str = "/run/thalweg-lab/agent.yaml";
/// The agent's kubeconfig as its node sees it.
pub(crate) const KUBECONFIG: &str = "/run/thalweg-lab/kubeconfig";
/// The agent's socket as its node sees it.
const AGENT_SOCKET: &str = "/run/thalweg/agent.sock";

/// An agent that ended although nobody stopped it.
#[derive(Debug)]
pub(crate) struct AgentFailure {
    pub(crate) node: String,
    pub(crate) how: String,
}

/// What to run, where.
#[derive(Debug)]
pub(crate) struct Supervisor {
    pub(crate) node: NodeHandle,
    pub(crate) lab: String,
    pub(crate) program: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) failures: mpsc::UnboundedSender<AgentFailure>,
}

impl Supervisor {
    /// Runs the agent, again and again, until the shutdown.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let (mut restarts, mut last_exit, mut backoff) = (0, None, BACKOFF_FIRST);
        loop {
            let started = tokio::time::Instant::now();
            let outcome = tokio::select! {
                () = shutdown.cancelled() => return,
                outcome = self.run_once(restarts, last_exit.take()) => outcome,
            };
            let (how, on_purpose) = match &outcome {
                Ok(status) => (status.to_string(), was_stopped(*status)),
                Err(error) => (error.to_string(), false),
            };
            let pause = if on_purpose || started.elapsed() >= STABLE {
                RESTART_PAUSE
            } else {
                backoff
            };
            backoff = if pause == backoff {
                (backoff * 2).min(BACKOFF_MAX)
            } else {
                BACKOFF_FIRST
            };
            if on_purpose {
                info!(node = %self.node.name, %how, "agent ended; starting it again");
            } else {
                warn!(node = %self.node.name, %how, ?pause, "agent failed; starting it again");
                // Once the lab is up nobody listens any more.
                let _ = self.failures.send(AgentFailure {
                    node: self.node.name.clone(),
                    how: how.clone(),
                });
            }
            (restarts, last_exit) = (restarts + 1, Some(how));
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn run_once(&self, restarts: u32, last_exit: Option<String>) -> Result<ExitStatus, Error> {
        let open = || File::options().create(true).append(true).open(&self.log);
        let mut log = open().doing(|| format!("open {}", self.log.display()))?;
        let again = log.try_clone().doing(|| format!("open {}", self.log.display()))?;
        if let Some(how) = &last_exit {
            // A log that cannot be written is no reason not to run.
            let _ = writeln!(log, "--- restart {restarts} after {how} ---");
        }
        let mut command = Command::new(&self.program);
        command.args(["agent", "--config", CONFIG, "--lab", &self.lab]);
        command.stdin(Stdio::null()).stdout(log).stderr(again);
        let mut child = self.node.spawn_in(
            command,
            &Place {
                cgroup: "agent".into(),
                ..Place::default()
            },
        )?;
        let process = child.id().and_then(|pid| Process::of(pid.cast_signed()));
        if let Some(process) = process {
            AgentState {
                process,
                restarts,
                last_exit,
            }
            .save(&self.node.dir)?;
        }
        child.wait().await.doing(|| "wait for the agent".to_owned())
    }
}

/// Whether somebody ended it: exit 0 answers a signal, SIGKILL and SIGTERM come from outside.
pub(crate) fn was_stopped(status: ExitStatus) -> bool {
    status.success()
        || matches!(
            status.signal(),
            Some(libc::SIGKILL | libc::SIGTERM | libc::SIGINT)
        )
}

/// The agent's socket of a node, as the host sees it.
#[must_use]
pub(crate) fn agent_socket(node: &NodeHandle) -> PathBuf {
    node.host_path(Path::new(AGENT_SOCKET))
}

/// Whether the node's agent says that it is ready.
#[must_use]
pub(crate) fn agent_is_ready(node: &NodeHandle) -> bool {
    get(&agent_socket(node), "/readyz").is_ok_and(|(status, _)| status == 200)
}

/// Asks a local socket; status and body.
pub(crate) fn get(socket: &Path, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    stream.set_write_timeout(Some(ANSWER_LIMIT))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: local\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.unwrap_or_default(), body.to_owned()))
}
