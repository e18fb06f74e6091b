// SPDX-License-Identifier: Apache-2.0
//! The operators of a lab: replicas as in a Deployment, kept running, on the machine's own network.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use api::crd;
use ipnet::IpNet;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use serde_json::json;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::Process;
use crate::cluster::write_private;
use crate::error::{Doing as _, Error};
use crate::node::adopt;
use crate::spec::Pool;
use crate::state::{AgentState, Paths, State};
use crate::supervisor::{BACKOFF_FIRST, BACKOFF_MAX, RESTART_PAUSE, STABLE, get, was_stopped};

/// How many replicas a lab has.
pub(crate) const OPERATORS: u32 = 2;
/// Labs are small and people impatient: another operator takes over after this many seconds.
const LEASE_SECONDS: u32 = 6;
const FIELD_MANAGER: &str = "thalweg-lab";

/// An operator, as seen by commands and tests.
#[derive(Debug, Clone)]
pub struct OperatorState {
    /// Its name.
    pub name: String,
    /// The running process, or the last one.
    pub process: Process,
    /// Where it answers.
    pub socket: PathBuf,
    /// How often it was started again.
    pub restarts: u32,
}

impl OperatorState {
    /// The operators of a lab; none where addresses come from Nodes.
    #[must_use]
    pub fn load_all(paths: &Paths) -> Vec<Self> {
        let one = |number| {
            let dir = directory(paths, number);
            let state = AgentState::load(&dir)?;
            Some(Self {
                name: name(number),
                process: state.process,
                socket: dir.join(SOCKET),
                restarts: state.restarts,
            })
        };
        (1..=OPERATORS).filter_map(one).collect()
    }

    /// Whether it says that it leads.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.process.is_alive()
            && get(&self.socket, "/readyz")
                .is_ok_and(|(status, body)| status == 200 && body.contains("leading"))
    }
}

const SOCKET: &str = "operator.sock";

fn name(number: u32) -> String {
    format!("operator-{number}")
}

fn directory(paths: &Paths, number: u32) -> PathBuf {
    paths.dir.join("operators").join(number.to_string())
}

/// What to run.
#[derive(Debug)]
pub(crate) struct Operator {
    name: String,
    dir: PathBuf,
    lab_dir: PathBuf,
    cgroup: Option<PathBuf>,
    program: PathBuf,
    log: PathBuf,
    config: serde_json::Value,
}

impl Operator {
    pub(crate) fn new(paths: &Paths, state: &State, service_cidrs: &[IpNet], number: u32) -> Self {
        let (name, dir) = (name(number), directory(paths, number));
        let mut config = json!({
            "lab": paths.name,
            "identity": name,
            "kubeconfig": paths.kubeconfig(),
            "socket": dir.join(SOCKET),
            "lease.durationSeconds": LEASE_SECONDS,
            "ipam.serviceCIDRs": service_cidrs,
        });
        for (key, value) in &state.spec.operator {
            config[key] = value.clone();
        }
        Self {
            lab_dir: paths.dir.clone(),
            cgroup: paths.cgroup().map(|lab| lab.join("operators").join(&name)),
            program: state.program.clone(),
            log: paths.log(&name),
            name,
            dir,
            config,
        }
    }

    /// Runs it, again and again, until the shutdown.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let (mut restarts, mut backoff) = (0, BACKOFF_FIRST);
        loop {
            let started = tokio::time::Instant::now();
            let outcome = tokio::select! {
                () = shutdown.cancelled() => return,
                outcome = self.run_once(restarts) => outcome,
            };
            let on_purpose = matches!(&outcome, Ok(status) if was_stopped(*status));
            let how = outcome.map_or_else(|error| error.to_string(), |status| status.to_string());
            let pause = if on_purpose || started.elapsed() >= STABLE {
                backoff = BACKOFF_FIRST;
                RESTART_PAUSE
            } else {
                backoff = (backoff * 2).min(BACKOFF_MAX);
                backoff
            };
            if on_purpose {
                info!(operator = self.name, how, "operator ended; starting it again");
            } else {
                warn!(
                    operator = self.name,
                    how,
                    ?pause,
                    "operator failed; starting it again"
                );
            }
            restarts += 1;
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn run_once(&self, restarts: u32) -> Result<ExitStatus, Error> {
        let config = self.dir.join("operator.yaml");
        // JSON is YAML.
        write_private(&config, &format!("{:#}\n", self.config))?;
        let open = || format!("open {}", self.log.display());
        let mut log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .doing(open)?;
        if restarts > 0 {
            // A log that cannot be written is no reason not to run.
            let _ = writeln!(log, "--- restart {restarts} ---");
        }
        let mut command = Command::new(&self.program);
        command.args([Path::new("operator"), Path::new("--config"), &config]);
        let again = log.try_clone().doing(open)?;
        command.stdin(Stdio::null()).stdout(log).stderr(again);
        adopt(command.as_std_mut(), &self.lab_dir, self.cgroup.as_deref())?;
        let mut child = command.spawn().doing(|| format!("start {}", self.name))?;
        if let Some(process) = child.id().and_then(|pid| Process::of(pid.cast_signed())) {
            AgentState {
                process,
                restarts,
                last_exit: None,
            }
            .save(&self.dir)?;
        }
        child.wait().await.doing(|| format!("wait for {}", self.name))
    }
}

/// Makes a pool as the lab describes it.
pub(crate) async fn apply_pool(client: &Client, pool: &Pool) -> Result<(), Error> {
    let kind = GroupVersionKind::gvk(crd::GROUP, crd::VERSION, crd::POOL_KIND);
    let resource = ApiResource::from_gvk_with_plural(&kind, crd::POOL_PLURAL);
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let object = json!({
        "apiVersion": kind.api_version(),
        "kind": crd::POOL_KIND,
        "metadata": { "name": pool.name },
        "spec": pool.spec,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    api.patch(&pool.name, &params, &Patch::Apply(&object))
        .await
        .map(drop)
        .map_err(|error| Error::kubernetes(format!("apply the pool {}", pool.name), error))
}
