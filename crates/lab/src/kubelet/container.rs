// SPDX-License-Identifier: Apache-2.0
//! One container of a pod: its process, its restarts, its state for the API.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Container as Spec, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, Pod,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use nix::sys::signal::Signal;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::warn;

use super::env::{self, Addresses};
use super::sandbox::{Sandbox, random_hex};
use super::{Node, blocking, log, log_dirs, probe};
use crate::{Process, cgroup};

/// The pause before the second restart in a row; it doubles up to [`BACKOFF_MAX`]. The first restart comes at once.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// The longest pause between restarts.
const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// A container that ran so long begins again without a pause.
const STABLE_AFTER: Duration = Duration::from_secs(600);
/// What a container without a command runs.
const SLEEP: [&str; 2] = ["sleep", "infinity"];
/// The exit code of a program that could not be run, as shells have it.
const CANNOT_RUN: i32 = 128;

/// When a container runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// To its end, before the others.
    Init,
    /// From before the others to after them.
    Sidecar,
    /// With the others.
    Main,
}

/// What happens to a container, with the run that it happened to.
#[derive(Debug)]
pub(super) struct Event {
    /// Which container, by its place in the pod.
    pub(super) container: usize,
    /// Which run of it.
    pub(super) run: u32,
    /// What.
    pub(super) news: News,
}

/// What happened.
#[derive(Debug)]
pub(super) enum News {
    /// Its process ended.
    Exited(ExitStatus),
    /// Its startup probe succeeded, or it has none.
    Started,
    /// Its readiness changed.
    Ready(bool),
    /// A probe failed.
    Unhealthy {
        /// `Readiness`, `Liveness`, `Startup`.
        probe: &'static str,
        /// Why.
        message: String,
        /// Whether it failed so often that the container is to be restarted.
        restart: bool,
    },
}

/// Where a container's news go.
#[derive(Debug, Clone)]
pub(super) struct Reports {
    /// Which container.
    pub(super) container: usize,
    /// Which run.
    pub(super) run: u32,
    /// To whom.
    pub(super) to: mpsc::Sender<Event>,
}

impl Reports {
    /// Sends news; when nobody listens the pod is gone.
    pub(super) async fn send(&self, news: News) {
        // The worker that would read it has ended.
        let _ = self
            .to
            .send(Event {
                container: self.container,
                run: self.run,
                news,
            })
            .await;
    }
}

/// What a container is started in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Surroundings<'a> {
    /// The node.
    pub(super) node: &'a Arc<Node>,
    /// The pod.
    pub(super) pod: &'a Pod,
    /// Its UID.
    pub(super) uid: &'a str,
    /// Its sandbox.
    pub(super) sandbox: &'a Sandbox,
}

/// A container of a pod.
#[derive(Debug)]
pub(super) struct Container {
    /// What the pod says.
    pub(super) spec: Spec,
    /// When it runs.
    pub(super) role: Role,
    /// How often it was started.
    pub(super) run: u32,
    /// Its environment in this run.
    pub(super) environment: BTreeMap<String, String>,
    state: ContainerState,
    last: Option<ContainerStateTerminated>,
    id: String,
    started: bool,
    ready: bool,
    process: Option<Process>,
    began: Option<Instant>,
    short_runs: u32,
    next_start: Option<Instant>,
    probes: Option<AbortHandle>,
}

impl Container {
    /// A container that was not started yet.
    pub(super) fn new(spec: Spec, role: Role) -> Self {
        Self {
            spec,
            role,
            run: 0,
            environment: BTreeMap::new(),
            state: waiting("ContainerCreating", ""),
            last: None,
            id: String::new(),
            started: false,
            ready: false,
            process: None,
            began: None,
            short_runs: 0,
            next_start: None,
            probes: None,
        }
    }

    /// Whether its process runs.
    pub(super) fn is_running(&self) -> bool {
        self.state.running.is_some()
    }

    /// Whether it is past its startup probe.
    pub(super) fn is_started(&self) -> bool {
        self.started && self.is_running()
    }

    /// Its exit code, when it has ended and will not be started again.
    pub(super) fn ended_with(&self) -> Option<i32> {
        self.state.terminated.as_ref().map(|end| end.exit_code)
    }

    /// When it is to be started: now, later, or (`None`) never.
    pub(super) fn start_at(&self) -> Option<Instant> {
        if self.is_running() || self.state.terminated.is_some() {
            return None;
        }
        Some(self.next_start.unwrap_or_else(Instant::now))
    }

    /// Starts it. A failure is its state, and counts as a run that failed.
    pub(super) async fn start(
        &mut self,
        index: usize,
        around: Surroundings<'_>,
        to: &mpsc::Sender<Event>,
        restart: bool,
    ) {
        self.run += 1;
        let reports = Reports {
            container: index,
            run: self.run,
            to: to.clone(),
        };
        self.next_start = None;
        self.began = Some(Instant::now());
        match self.launch(around, reports).await {
            Ok(process) => {
                self.process = process;
                self.state = ContainerState {
                    running: Some(ContainerStateRunning {
                        started_at: Some(now()),
                    }),
                    ..ContainerState::default()
                };
            }
            Err(StartError::Config(message)) => {
                // It will not become right by trying.
                self.state = waiting("CreateContainerConfigError", &message);
                self.next_start = Some(Instant::now() + BACKOFF_MAX);
            }
            Err(StartError::Run(message)) => {
                let end = ended(
                    CANNOT_RUN,
                    None,
                    "StartError",
                    Some(message),
                    &self.id,
                    Some(now()),
                );
                self.ended(end, restart);
            }
        }
    }

    async fn launch(
        &mut self,
        around: Surroundings<'_>,
        reports: Reports,
    ) -> Result<Option<Process>, StartError> {
        let Surroundings {
            node,
            pod,
            uid,
            sandbox,
        } = around;
        let addresses = Addresses {
            pod: &sandbox.ips,
            host: &node.handle.addresses,
        };
        self.environment = env::environment(pod, &self.spec, addresses).map_err(StartError::Config)?;
        self.id = random_hex(4);
        let words = command(&self.spec, &self.environment);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_clear().envs(&self.environment);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let place = sandbox.place(uid, &self.spec.name);
        let run = |error: &dyn std::fmt::Display| StartError::Run(error.to_string());
        let mut child = node
            .spawn(command, place.clone())
            .await
            .map_err(|error| run(&error))?;
        let process = child.id().and_then(|pid| Process::of(i32::try_from(pid).ok()?));
        let logs = node.log_dir(pod);
        if let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) {
            let path = log::path(&logs, &self.spec.name, self.run);
            log::write(path, stdout, stderr)
                .await
                .map_err(|error| run(&error))?;
        }
        log_dirs::save_environment(&logs, &self.spec.name, &self.environment).map_err(|error| run(&error))?;
        let target = probe::Target {
            node: Arc::clone(node),
            place,
            environment: self.environment.clone(),
            ip: sandbox.ips.first().copied(),
        };
        let probes = tokio::spawn(probe::watch(self.spec.clone(), target, reports.clone()));
        self.probes = Some(probes.abort_handle());
        tokio::spawn(async move {
            if let Ok(status) = child.wait().await {
                reports.send(News::Exited(status)).await;
            }
        });
        // None when it has ended by now: the news of that is on its way.
        Ok(process)
    }

    /// Takes in the end of its process.
    pub(super) fn exited(&mut self, status: ExitStatus, restart: impl FnOnce(i32) -> bool) {
        let code = status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
        let reason = if code == 0 { "Completed" } else { "Error" };
        let began = self.state.running.take().and_then(|running| running.started_at);
        let end = ended(code, status.signal(), reason, None, &self.id, began);
        self.ended(end, restart(code));
    }

    fn ended(&mut self, end: ContainerStateTerminated, restart: bool) {
        self.quiet();
        self.process = None;
        if !restart {
            self.state = ContainerState {
                terminated: Some(end),
                ..ContainerState::default()
            };
            return;
        }
        if self.began.is_some_and(|began| began.elapsed() >= STABLE_AFTER) {
            self.short_runs = 0;
        }
        let pause = backoff(self.short_runs);
        self.short_runs += 1;
        self.next_start = Some(Instant::now() + pause);
        let message = format!(
            "back-off {} s restarting failed container={}",
            pause.as_secs(),
            self.spec.name
        );
        self.state = waiting("CrashLoopBackOff", &message);
        self.last = Some(end);
    }

    /// Ends probing; what probes said counts no more.
    fn quiet(&mut self) {
        if let Some(probes) = self.probes.take() {
            probes.abort();
        }
        self.started = false;
        self.ready = false;
    }

    /// The container is told to end; it is neither probed nor restarted.
    pub(super) fn stop_probes(&mut self) {
        if let Some(probes) = self.probes.take() {
            probes.abort();
        }
    }

    /// Takes in what a probe found.
    pub(super) fn probed(&mut self, news: &News) {
        match news {
            News::Started => self.started = true,
            News::Ready(ready) => self.ready = *ready,
            News::Exited(_) | News::Unhealthy { .. } => {}
        }
    }

    /// Sends a signal to its process.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            // Gone is what is wanted.
            let _ = process.signal(signal);
        }
    }

    /// Kills its process and all that this one started.
    pub(super) async fn kill(&self, node: &Node, uid: &str) {
        self.signal(Signal::SIGKILL);
        let Some(own) = &node.handle.cgroup else { return };
        let path = own.join("pods").join(uid).join(&self.spec.name);
        if let Err(error) = blocking(move || cgroup::destroy(&path)).await {
            warn!(%error, container = self.spec.name, "processes of a container not removed");
        }
    }

    /// Its status for the API.
    pub(super) fn status(&self) -> ContainerStatus {
        ContainerStatus {
            name: self.spec.name.clone(),
            image: self.spec.image.clone().unwrap_or_default(),
            image_id: String::new(),
            container_id: (!self.id.is_empty()).then(|| format!("thalweg-lab://{}", self.id)),
            ready: match self.role {
                Role::Init => self.ended_with() == Some(0),
                Role::Sidecar | Role::Main => self.ready,
            },
            started: Some(self.started),
            restart_count: i32::try_from(self.run.saturating_sub(1)).unwrap_or(i32::MAX),
            state: Some(self.state.clone()),
            last_state: self.last.clone().map(|end| ContainerState {
                terminated: Some(end),
                ..ContainerState::default()
            }),
            ..ContainerStatus::default()
        }
    }
}

enum StartError {
    Config(String),
    Run(String),
}

/// Program and arguments, with variables put in.
fn command(spec: &Spec, environment: &BTreeMap<String, String>) -> Vec<String> {
    let given = spec.command.as_deref().unwrap_or_default();
    if given.is_empty() {
        return SLEEP.map(str::to_owned).to_vec();
    }
    let args = spec.args.as_deref().unwrap_or_default();
    given
        .iter()
        .chain(args)
        .map(|word| env::expand(word, environment))
        .collect()
}

fn backoff(short_runs: u32) -> Duration {
    match short_runs {
        0 => Duration::ZERO,
        n => BACKOFF_MIN.saturating_mul(1 << (n - 1).min(16)).min(BACKOFF_MAX),
    }
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    let message = Some(message.to_owned()).filter(|text| !text.is_empty());
    let waiting = ContainerStateWaiting {
        reason: Some(reason.into()),
        message,
    };
    ContainerState {
        waiting: Some(waiting),
        ..ContainerState::default()
    }
}

fn ended(
    exit_code: i32,
    signal: Option<i32>,
    reason: &str,
    message: Option<String>,
    id: &str,
    started_at: Option<Time>,
) -> ContainerStateTerminated {
    ContainerStateTerminated {
        container_id: Some(format!("thalweg-lab://{id}")),
        exit_code,
        signal,
        reason: Some(reason.into()),
        message,
        started_at,
        finished_at: Some(now()),
    }
}

fn now() -> Time {
    Time(Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_is_immediate_and_pauses_double_up_to_the_limit() {
        assert_eq!(backoff(0), Duration::ZERO);
        assert_eq!(backoff(1), BACKOFF_MIN);
        assert_eq!(backoff(3), BACKOFF_MIN * 4);
        assert_eq!(backoff(90), BACKOFF_MAX);
    }

    #[test]
    fn a_container_without_a_command_sleeps_and_others_get_their_variables() {
        let env = BTreeMap::from([("A".to_owned(), "b".to_owned())]);
        assert_eq!(
            command(
                &Spec {
                    args: Some(vec!["x".into()]),
                    ..Spec::default()
                },
                &env
            ),
            SLEEP
        );
        let spec = Spec {
            command: Some(vec!["echo".into()]),
            args: Some(vec!["$(A)".into()]),
            ..Spec::default()
        };
        assert_eq!(command(&spec, &env), ["echo", "b"]);
    }

    #[test]
    fn an_exit_ends_or_restarts_as_told() {
        let mut container = Container::new(
            Spec {
                name: "c".into(),
                ..Spec::default()
            },
            Role::Main,
        );
        container.exited(ExitStatus::from_raw(0), |code| code != 0);
        assert_eq!(container.ended_with(), Some(0));
        assert_eq!(container.start_at(), None);

        let mut container = Container::new(
            Spec {
                name: "c".into(),
                ..Spec::default()
            },
            Role::Main,
        );
        container.exited(ExitStatus::from_raw(9), |code| code == 137);
        assert_eq!(container.ended_with(), None);
        assert!(container.start_at().is_some());
        let last = container.status().last_state.unwrap().terminated.unwrap();
        assert_eq!((last.exit_code, last.signal), (137, Some(9)));
    }
}
