// SPDX-License-Identifier: Apache-2.0
//! Rounds of load over several paths in turn: the subject first, then what it is compared with, and again. Figures are
//! compared within a round only, since the machine is not the same a minute later.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, bail};
use connectivity::perf::{Kind, Report};
use serde::Serialize;

use crate::reference::Path;

/// The first port of servers on one path; of those behind a service, each is this far from the one before.
pub(crate) const PORT: u16 = 4780;
pub(crate) const PORT_STEP: u16 = 10;
/// Servers behind a service.
pub(crate) const BACKENDS: u16 = 4;

/// What is done, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Work {
    /// What is measured.
    pub(crate) kind: Kind,
    /// How many connections at once.
    pub(crate) flows: usize,
    /// The client's CPU.
    pub(crate) client_cpu: usize,
    /// The server's CPU.
    pub(crate) server_cpu: usize,
}

impl Work {
    /// What it is called in tables.
    pub(crate) fn label(&self) -> String {
        match (self.kind, self.flows) {
            (Kind::TcpStream, flows) => format!("{} x{flows}", self.kind.label()),
            (Kind::TcpRr | Kind::UdpRr | Kind::TcpCrr, _) => self.kind.label().into(),
        }
    }

    /// What its rates are counted in.
    pub(crate) fn unit(&self) -> &'static str {
        match self.kind {
            Kind::TcpStream => "Gbit/s",
            Kind::TcpRr | Kind::UdpRr | Kind::TcpCrr => "1/s",
        }
    }
}

/// How long everything takes.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Effort {
    /// Rounds.
    pub(crate) rounds: usize,
    /// Seconds per measurement.
    pub(crate) seconds: f64,
}

/// The rates of one round, in the order of the paths.
pub(crate) type Round = Vec<f64>;

/// Measures all paths in turn, round after round.
pub(crate) fn rounds(paths: &[&Path], work: Work, effort: Effort) -> Result<Vec<Round>> {
    // Two paths may lead to one server.
    let mut started = BTreeSet::new();
    let mut servers = Vec::new();
    for path in paths {
        let count = if path.service.is_some() { BACKENDS } else { 1 };
        for port in (0..count).map(|index| PORT + index * PORT_STEP) {
            if started.insert((path.server.id()?, port)) {
                servers.push(Server::start(path, port, work.server_cpu)?);
            }
        }
    }
    let round = |_| {
        paths
            .iter()
            .map(|path| measure(path, work, effort.seconds))
            .collect()
    };
    let rounds = (0..effort.rounds).map(round).collect();
    drop(servers);
    rounds
}

fn measure(path: &Path, work: Work, seconds: f64) -> Result<f64> {
    let cgroup = path
        .service
        .as_ref()
        .and_then(|service| service.cgroup.as_deref());
    let mut client = path.client.command_in(this_program()?, cgroup)?;
    let target = path
        .service
        .as_ref()
        .map_or(path.target, |service| service.address);
    client.args([
        "perf",
        "client",
        work.kind.argument(),
        &target.to_string(),
        "--port",
        &PORT.to_string(),
    ]);
    client.args([
        "--flows",
        &work.flows.to_string(),
        "--cpu",
        &work.client_cpu.to_string(),
    ]);
    client.args(["--duration", &seconds.to_string()]);
    let output = client.stderr(Stdio::piped()).output()?;
    if !output.status.success() {
        bail!(
            "{} to {}: {}",
            work.label(),
            target,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let report: Report = serde_json::from_slice(&output.stdout)?;
    Ok(report.rate())
}

/// This program makes the load, too: `perf …` as its arguments.
fn this_program() -> Result<std::path::PathBuf> {
    Ok(std::env::current_exe()?)
}

/// A server that ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
}

impl Server {
    /// Starts one at the end of a path, and waits until it listens.
    fn start(path: &Path, port: u16, cpu: usize) -> Result<Self> {
        let listen: IpAddr = path.target;
        let mut command = path.server.command(this_program()?);
        command.args([
            "perf",
            "server",
            "--port",
            &port.to_string(),
            "--listen",
            &listen.to_string(),
        ]);
        command.args(["--cpu", &cpu.to_string()]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().context("a child's output is piped")?;
        let server = Self { child };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        if !line.contains("listening") {
            bail!("the server of {listen} did not start");
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
