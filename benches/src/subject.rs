// SPDX-License-Identifier: Apache-2.0
//! Thalweg itself: labs of the release build, as they come.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path as FilePath, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use api::agent::Status;
use lab::state::Phase;
use lab::{Lab, NodeHandle};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::namespace::Namespace;
use crate::reference::Path;

/// How long a lab may take to start or to end.
const LAB_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// The programs under test.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// `thalweg`
    pub(crate) thalweg: PathBuf,
    /// `thalweg-cni`
    pub(crate) cni: PathBuf,
}

/// A lab that ends when it is dropped, or when this process ends.
#[derive(Debug)]
pub(crate) struct Subject {
    child: Child,
    /// The lab.
    pub(crate) lab: Lab,
    /// How long it took until its pods were ready.
    pub(crate) up: Duration,
}

impl Subject {
    /// Starts a lab.
    pub(crate) fn start(programs: &Programs, nodes: usize, pods: usize) -> Result<Self> {
        Self::start_as("bench", programs, nodes, pods, &[])
    }

    /// Starts a lab under a name that begins so, with more arguments.
    pub(crate) fn start_as(
        prefix: &str,
        programs: &Programs,
        nodes: usize,
        pods: usize,
        arguments: &[&str],
    ) -> Result<Self> {
        let name = format!("{prefix}-{}", std::process::id());
        let mut command = Command::new(&programs.thalweg);
        command.args(["lab", "run", "--name", &name]);
        command.args(["--nodes", &nodes.to_string(), "--pods", &pods.to_string()]);
        command.args(arguments);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        // SAFETY: between fork and exec only one system call is made, and it does not allocate.
        unsafe {
            command.pre_exec(|| Ok(prctl::set_pdeathsig(Signal::SIGTERM)?));
        }
        let begin = Instant::now();
        let mut child = command
            .spawn()
            .with_context(|| format!("run {}", programs.thalweg.display()))?;
        let lab = wait_until_ready(&mut child, &name, begin)?;
        Ok(Self {
            child,
            lab,
            up: begin.elapsed(),
        })
    }

    /// Fails unless the agent of every node is ready: a dead agent's datapath goes on, and looks faster.
    pub(crate) fn check_alive(&self) -> Result<()> {
        for node in self.lab.nodes() {
            ensure!(
                self.lab.agent_is_ready(&node),
                "the agent of {} is not ready; the figures are void",
                node.name
            );
        }
        Ok(())
    }

    /// The path between two pods.
    pub(crate) fn path(&self, client: &str, server: &str) -> Result<Path> {
        let target = self
            .lab
            .pod_ips(server)?
            .into_iter()
            .find(std::net::IpAddr::is_ipv4);
        let target = target.with_context(|| format!("pod {server} has no IPv4 address"))?;
        Ok(Path {
            client: self.pod(client)?,
            server: self.pod(server)?,
            target,
            between: Vec::new(),
            service: None,
        })
    }

    /// The path from a pod to the underlay's own address, which is no node's.
    pub(crate) fn path_to_world(&self, client: &str) -> Result<Path> {
        let addresses = self.lab.api_addresses();
        let target = addresses.into_iter().find(std::net::IpAddr::is_ipv4);
        let underlay = self.lab.state().underlay.context("the lab has no underlay")?;
        Ok(Path {
            client: self.pod(client)?,
            server: Namespace::open(&underlay.namespace("net"))?,
            target: target.context("the underlay has no IPv4 address")?,
            between: Vec::new(),
            service: None,
        })
    }

    fn pod(&self, name: &str) -> Result<Namespace> {
        let pod = self.lab.pod("default", name)?;
        Namespace::open(
            &pod.netns()
                .with_context(|| format!("pod {name} has no network of its own"))?,
        )
    }

    /// The first node.
    pub(crate) fn node(&self) -> Result<NodeHandle> {
        self.lab.nodes().into_iter().next().context("the lab has no node")
    }

    /// What a node's agent says of itself.
    pub(crate) fn status(&self, node: &str) -> Result<Status> {
        let body = get(&self.lab.agent_socket(node)?, "/v1/status")?;
        Ok(serde_json::from_str(&body)?)
    }
}

fn wait_until_ready(child: &mut Child, name: &str, begin: Instant) -> Result<Lab> {
    loop {
        if let Ok(lab) = Lab::open(name)
            && lab.state().phase == Phase::Ready
        {
            return Ok(lab);
        }
        if child.try_wait()?.is_some() || begin.elapsed() > LAB_TIMEOUT {
            // Whatever it is, it is said on its standard error, which ends with it.
            let _ = child.kill();
            let mut complaint = String::new();
            if let Some(mut stderr) = child.stderr.take() {
                stderr.read_to_string(&mut complaint)?;
            }
            bail!("the lab did not start: {}", complaint.trim());
        }
        thread::sleep(POLL);
    }
}

/// One request, in HTTP's oldest form: the answer ends with the connection.
fn get(socket: &FilePath, path: &str) -> Result<String> {
    let mut stream =
        UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nhost: agent\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    ensure!(head.contains(" 200 "), "{path}: {head}");
    Ok(body.to_owned())
}

impl Drop for Subject {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // Already gone is as good.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let begin = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && begin.elapsed() < LAB_TIMEOUT {
            thread::sleep(POLL);
        }
        let _ = self.child.kill();
        // What a lab that was killed has left.
        let _ = lab::remove(self.lab.name());
    }
}
