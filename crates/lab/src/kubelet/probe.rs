// SPDX-License-Identifier: Apache-2.0
//! Startup, readiness and liveness probes, made from the node as a kubelet does.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use netlink::netns;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::Command;

use super::container::{News, Reports};
use super::{Node, blocking};
use crate::Place;

/// Between the attempts of a readiness probe that has not succeeded yet: a probe's period is for finding out that
/// something broke, and too long to wait for a start.
const FIRST_ATTEMPTS: Duration = Duration::from_millis(100);
/// The most that is read of an HTTP answer: the status line is enough.
const HTTP_HEAD_MAX: usize = 1024;

/// What a container's probes need to reach it.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// The node that probes.
    pub(super) node: Arc<Node>,
    /// Where the container runs.
    pub(super) place: Place,
    /// Its environment.
    pub(super) environment: BTreeMap<String, String>,
    /// The pod's address.
    pub(super) ip: Option<IpAddr>,
}

/// Probes a container until dropped, and reports what it finds.
pub(super) async fn watch(spec: Container, target: Target, reports: Reports) {
    if let Some(probe) = &spec.startup_probe {
        let mut check = Check::new("Startup", probe, &spec, &target);
        loop {
            match check.next(&reports, check.period).await {
                Verdict::Good => break,
                Verdict::Bad => return,
                Verdict::Same => {}
            }
        }
    }
    reports.send(News::Started).await;
    tokio::join!(
        readiness(&spec, &target, &reports),
        liveness(&spec, &target, &reports)
    );
}

async fn readiness(spec: &Container, target: &Target, reports: &Reports) {
    let Some(probe) = &spec.readiness_probe else {
        return reports.send(News::Ready(true)).await;
    };
    let mut check = Check::new("Readiness", probe, spec, target);
    let mut was_ready = false;
    loop {
        let pause = if was_ready {
            check.period
        } else {
            check.period.min(FIRST_ATTEMPTS)
        };
        match check.next(reports, pause).await {
            Verdict::Good => {
                was_ready = true;
                reports.send(News::Ready(true)).await;
            }
            Verdict::Bad => reports.send(News::Ready(false)).await,
            Verdict::Same => {}
        }
    }
}

async fn liveness(spec: &Container, target: &Target, reports: &Reports) {
    let Some(probe) = &spec.liveness_probe else { return };
    let mut check = Check::new("Liveness", probe, spec, target);
    while !matches!(check.next(reports, check.period).await, Verdict::Bad) {}
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It became good.
    Good,
    /// It became bad.
    Bad,
    /// No change.
    Same,
}

/// A probe with its counts.
struct Check<'a> {
    kind: &'static str,
    probe: &'a Probe,
    spec: &'a Container,
    target: &'a Target,
    period: Duration,
    initial_delay: Option<Duration>,
    counts: Counts,
}

impl<'a> Check<'a> {
    fn new(kind: &'static str, probe: &'a Probe, spec: &'a Container, target: &'a Target) -> Self {
        let counts = Counts::new(
            at_least_one(probe.success_threshold, 1),
            at_least_one(probe.failure_threshold, 3),
        );
        Self {
            kind,
            probe,
            spec,
            target,
            period: seconds(at_least_one(probe.period_seconds, 10)),
            initial_delay: probe
                .initial_delay_seconds
                .and_then(|s| u32::try_from(s).ok())
                .map(seconds),
            counts,
        }
    }

    /// Waits (the first time: for the initial delay), probes once, and says what that changes.
    async fn next(&mut self, reports: &Reports, pause: Duration) -> Verdict {
        let wait = if self.counts.is_new() {
            self.initial_delay.take().unwrap_or_default()
        } else {
            pause
        };
        tokio::time::sleep(wait).await;
        let limit = seconds(at_least_one(self.probe.timeout_seconds, 1));
        let outcome = match tokio::time::timeout(limit, attempt(self.probe, self.spec, self.target)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no answer within {} s", limit.as_secs())),
        };
        let verdict = self.counts.count(outcome.is_ok());
        if let Err(why) = outcome {
            // While it starts, a container that is not ready is no news.
            if self.kind != "Readiness" || self.counts.was_good {
                let message = format!("{} probe failed: {why}", self.kind);
                let restart = verdict == Verdict::Bad && self.kind != "Readiness";
                reports
                    .send(News::Unhealthy {
                        probe: self.kind,
                        message,
                        restart,
                    })
                    .await;
            }
        }
        verdict
    }
}

/// Consecutive successes and failures against their thresholds.
#[derive(Debug)]
struct Counts {
    success: u32,
    failure: u32,
    in_a_row: (bool, u32),
    verdict: Option<bool>,
    was_good: bool,
}

impl Counts {
    fn new(success: u32, failure: u32) -> Self {
        Self {
            success,
            failure,
            in_a_row: (false, 0),
            verdict: None,
            was_good: false,
        }
    }

    fn is_new(&self) -> bool {
        self.in_a_row.1 == 0
    }

    fn count(&mut self, good: bool) -> Verdict {
        let before = if self.in_a_row.0 == good {
            self.in_a_row.1
        } else {
            0
        };
        self.in_a_row = (good, before.saturating_add(1));
        let threshold = if good { self.success } else { self.failure };
        if self.in_a_row.1 < threshold || self.verdict == Some(good) {
            return Verdict::Same;
        }
        self.verdict = Some(good);
        self.was_good |= good;
        if good { Verdict::Good } else { Verdict::Bad }
    }
}

async fn attempt(probe: &Probe, spec: &Container, target: &Target) -> Result<(), String> {
    if let Some(exec) = &probe.exec {
        return run(exec.command.as_deref().unwrap_or_default(), target).await;
    }
    if let Some(action) = &probe.tcp_socket {
        return connect(action, spec, target).await.map(drop);
    }
    match &probe.http_get {
        Some(action) => get(action, spec, target).await,
        None => Err("this kind of probe is not supported here; use exec, tcpSocket or httpGet".into()),
    }
}

/// Runs a command in the container; its exit code is the verdict.
pub(super) async fn run(words: &[String], target: &Target) -> Result<(), String> {
    let (program, args) = words.split_first().ok_or("the command is empty")?;
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .envs(&target.environment)
        .kill_on_drop(true);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = target
        .node
        .spawn(command, target.place.clone())
        .await
        .map_err(|error| error.to_string())?;
    let output = child
        .wait_with_output()
        .await
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(format!(
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&text[..text.len().min(HTTP_HEAD_MAX)]).trim()
    ))
}

async fn connect(action: &TCPSocketAction, spec: &Container, target: &Target) -> Result<TcpStream, String> {
    let address = address(action.host.as_deref(), &action.port, spec, target)?;
    open(address, target)
        .await
        .map_err(|error| format!("connect to {address}: {error}"))
}

/// Connects from the node's network.
async fn open(address: SocketAddr, target: &Target) -> std::io::Result<TcpStream> {
    let node = Arc::clone(&target.node);
    let socket = blocking(move || socket_in(&node, address)).await?;
    let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(socket));
    socket.connect(address).await
}

fn socket_in(node: &Node, address: SocketAddr) -> std::io::Result<OwnedFd> {
    let family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let netns = netns::open(&node.handle.netns).map_err(std::io::Error::other)?;
    let made = netns::run_in(netns.as_fd(), || socket(family, SockType::Stream, flags, None));
    made.map_err(std::io::Error::other)?.map_err(std::io::Error::from)
}

async fn get(action: &HTTPGetAction, spec: &Container, target: &Target) -> Result<(), String> {
    if action
        .scheme
        .as_deref()
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"))
    {
        return Err("HTTPS probes are not supported here; use tcpSocket or exec".into());
    }
    let address = address(action.host.as_deref(), &action.port, spec, target)?;
    let mut stream = open(address, target)
        .await
        .map_err(|error| format!("connect to {address}: {error}"))?;
    let path = action
        .path
        .as_deref()
        .filter(|path| !path.is_empty())
        .unwrap_or("/");
    let mut request =
        format!("GET {path} HTTP/1.1\r\nConnection: close\r\nUser-Agent: kube-probe/1.32\r\nAccept: */*\r\n");
    let headers = action.http_headers.as_deref().unwrap_or_default();
    if !headers
        .iter()
        .any(|header| header.name.eq_ignore_ascii_case("host"))
    {
        request.push_str(&format!("Host: {address}\r\n"));
    }
    for header in headers {
        request.push_str(&format!("{}: {}\r\n", header.name, header.value));
    }
    request.push_str("\r\n");
    let io = |error: std::io::Error| format!("GET http://{address}{path}: {error}");
    stream.write_all(request.as_bytes()).await.map_err(io)?;
    let mut head = Vec::with_capacity(HTTP_HEAD_MAX);
    while !head.contains(&b'\n') && head.len() < HTTP_HEAD_MAX {
        if stream.read_buf(&mut head).await.map_err(io)? == 0 {
            break;
        }
    }
    match status_code(&head) {
        Some(200..=399) => Ok(()),
        Some(code) => Err(format!("HTTP probe failed with statuscode: {code}")),
        None => Err(format!("GET http://{address}{path}: the answer is not HTTP")),
    }
}

fn status_code(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?;
    line.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()
}

fn address(
    host: Option<&str>,
    port: &IntOrString,
    spec: &Container,
    target: &Target,
) -> Result<SocketAddr, String> {
    let ip = match host.filter(|host| !host.is_empty()) {
        Some(host) => host
            .parse()
            .map_err(|_| format!("host {host:?} is no IP address"))?,
        None => target.ip.ok_or("the pod has no address")?,
    };
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = spec
                .ports
                .iter()
                .flatten()
                .find(|port| port.name.as_ref() == Some(name));
            named
                .map(|port| port.container_port)
                .or_else(|| name.parse().ok())
        }
    };
    let number = number.and_then(|number| u16::try_from(number).ok());
    Ok(SocketAddr::new(
        ip,
        number.ok_or_else(|| format!("port {port:?} is not one of the container"))?,
    ))
}

fn at_least_one(value: Option<i32>, otherwise: u32) -> u32 {
    value
        .and_then(|value| u32::try_from(value).ok())
        .filter(|value| *value > 0)
        .unwrap_or(otherwise)
}

fn seconds(number: u32) -> Duration {
    Duration::from_secs(number.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_needs_its_threshold_in_a_row() {
        let mut counts = Counts::new(1, 3);
        let seen: Vec<Verdict> = [true, false, false, true, false, false, false, true]
            .into_iter()
            .map(|good| counts.count(good))
            .collect();
        use Verdict::{Bad, Good, Same};
        assert_eq!(seen, [Good, Same, Same, Same, Same, Same, Bad, Good]);
    }

    #[test]
    fn only_http_answers_have_a_status() {
        assert_eq!(status_code(b"HTTP/1.1 204 No Content\r\n"), Some(204));
        assert_eq!(status_code(b"HTTP/1.0 500\r\n"), Some(500));
        assert_eq!(status_code(b"SSH-2.0-OpenSSH\r\n"), None);
        assert_eq!(status_code(b""), None);
    }
}
