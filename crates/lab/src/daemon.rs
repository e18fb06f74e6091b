// SPDX-License-Identifier: Apache-2.0
//! The process behind a lab: starts everything in order, then supervises.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use futures::future::try_join_all;
use kube::Client;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::cluster::{Cluster, TestPods};
use crate::error::{Doing as _, Error};
use crate::hold::{Hold, READY};
use crate::node::{NodeHandle, adopt};
use crate::operators::{self, OPERATORS, Operator};
use crate::plan::{NodePlan, Plan};
use crate::progress::{Progress, Report, send};
use crate::spec::{Ipam, Pool, Routing, Spec, Topology};
use crate::state::{NodeState, Paths, Phase, State};
use crate::supervisor::{AgentFailure, Supervisor};
use crate::underlay::Underlay;
use crate::{Process, apply, cgroup, controllers, fabric, kubelet};

/// How long nodes and pods may take to become ready, on a machine that has much else to do: in any case, and more for each.
const READY_LIMIT: Duration = Duration::from_secs(150);
const READY_LIMIT_NODE: Duration = Duration::from_secs(3);
const READY_LIMIT_POD: Duration = Duration::from_millis(500);
/// An agent that failed this often before the lab was ready will not start.
const AGENT_ATTEMPTS: usize = 3;

/// Runs a lab until it is told to stop. Its directory must exist already and be empty of state.
///
/// # Errors
/// When the lab could not be started; `up` has been told as well.
pub fn run(spec: Spec) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .doing(|| "start the async runtime".to_owned())?;
    let result = runtime.block_on(async {
        let mut daemon = Daemon::new(spec)?;
        let progress = Progress::start();
        let mut stop = signal(SignalKind::terminate()).doing(|| "handle signals".to_owned())?;
        tokio::select! {
            started = daemon.start(&progress) => started?,
            _ = stop.recv() => return Err(Error::Failed("it was told to stop while it started".to_owned())),
        }
        send(&Report::Ready {
            milliseconds: progress.milliseconds(),
        });
        stop.recv().await;
        info!("stopping");
        daemon.shutdown.cancel();
        Ok(())
    });
    // What still runs in the background, such as a watch, does not keep the daemon.
    runtime.shutdown_background();
    result.inspect_err(|error| {
        send(&Report::Failed {
            text: error.to_string(),
        })
    })
}

struct Daemon {
    paths: Paths,
    plan: Plan,
    state: State,
    shutdown: CancellationToken,
    cluster: Option<Cluster>,
}

impl Daemon {
    fn new(spec: Spec) -> Result<Self, Error> {
        let paths = Paths::of(&spec.name);
        let plan = Plan::of(&spec)?;
        let created = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        let program = std::env::current_exe().doing(|| "find this program".to_owned())?;
        let state = State {
            spec,
            phase: Phase::Starting,
            created,
            daemon: Process::this(),
            program,
            underlay: None,
            api_url: None,
            nodes: Vec::new(),
        };
        join_cgroup(&paths)?;
        state.save(&paths)?;
        Ok(Self {
            paths,
            plan,
            state,
            shutdown: CancellationToken::new(),
            cluster: None,
        })
    }

    async fn start(&mut self, progress: &Progress) -> Result<(), Error> {
        self.hold().await?;
        progress.step(format!("namespaces of {} nodes", self.state.nodes.len()));
        let underlay = self.wire()?;
        progress.step(format!("underlay, {}", topology(self.plan.topology)));
        let cluster = Cluster::start(&self.paths, &self.state.spec, &self.plan, &underlay).await?;
        self.state.api_url = Some(cluster.url().to_owned());
        self.state.save(&self.paths)?;
        progress.step(format!("API server at {}", cluster.url()));
        let client = cluster.client().await?;
        let nodes = self.handles();
        cluster.set_nodes(&nodes);
        self.run_control_plane(&client, underlay, &cluster, &nodes);
        if self.state.spec.ipam == Ipam::ClusterPool {
            self.run_operators(&client).await?;
            progress.step(format!("{OPERATORS} operators"));
        }
        let failures = self.run_agents(&nodes, &cluster)?;
        self.cluster = Some(cluster);
        let ready = self.bring_up_pods(client, nodes, progress);
        tokio::select! {
            ready = tokio::time::timeout(ready_limit(&self.state.spec), ready) => ready.map_err(|_| self.too_slow())??,
            failure = repeated_failure(failures) => return Err(self.agent_failed(&failure)),
        }
        self.state.phase = Phase::Ready;
        self.state.save(&self.paths)
    }

    /// Starts the holders, all at once.
    async fn hold(&mut self) -> Result<(), Error> {
        let nodes = try_join_all(self.plan.nodes.iter().map(|node| self.hold_node(node)));
        let underlay = self.spawn_holder(&Hold::Network, "underlay".into());
        let (underlay, nodes) = tokio::try_join!(underlay, nodes)?;
        (self.state.underlay, self.state.nodes) = (Some(underlay), nodes);
        self.state.save(&self.paths)
    }

    async fn hold_node(&self, node: &NodePlan) -> Result<NodeState, Error> {
        let run_dir = self.paths.node_run(&node.name);
        std::fs::create_dir_all(&run_dir).doing(|| format!("create {}", run_dir.display()))?;
        let hold = Hold::Node {
            hostname: node.name.clone(),
            run_dir,
        };
        let holder = self
            .spawn_holder(&hold, PathBuf::from("nodes").join(&node.name).join("holder"))
            .await?;
        Ok(NodeState {
            name: node.name.clone(),
            holder,
            addresses: node.addresses.clone(),
            labels: node.labels.clone(),
        })
    }

    async fn spawn_holder(&self, hold: &Hold, cgroup: PathBuf) -> Result<Process, Error> {
        let mut command = Command::from(hold.command());
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let cgroup = self.paths.cgroup().map(|lab| lab.join(cgroup));
        adopt(command.as_std_mut(), &self.paths.dir, cgroup.as_deref())?;
        let operation = || format!("start the holder of {hold}");
        let mut child = command.spawn().doing(operation)?;
        let process = child.id().and_then(|pid| Process::of(pid.cast_signed()));
        let mut said = String::new();
        if let Some(mut stdout) = child.stdout.take() {
            stdout.read_to_string(&mut said).await.doing(operation)?;
        }
        process.filter(|_| said == READY).ok_or_else(|| {
            let log = self.paths.log("daemon");
            Error::Failed(format!("cannot {}: it ended; see {}", operation(), log.display()))
        })
    }

    fn wire(&self) -> Result<Underlay, Error> {
        let holder = self
            .state
            .underlay
            .ok_or_else(|| Error::Failed("there is no underlay".to_owned()))?;
        let mut underlay = Underlay::create(holder, &self.plan)?;
        for (node, state) in self.plan.nodes.iter().zip(&self.state.nodes) {
            underlay.connect(state.holder, node)?;
        }
        Ok(underlay)
    }

    fn handles(&self) -> Vec<NodeHandle> {
        self.state
            .nodes
            .iter()
            .map(|node| self.state.handle(&self.paths, node))
            .collect()
    }

    fn run_control_plane(
        &self,
        client: &Client,
        underlay: Underlay,
        cluster: &Cluster,
        nodes: &[NodeHandle],
    ) {
        let pod_cidrs = self.plan.pod_cidrs.iter();
        let pools = match self.state.spec.ipam {
            Ipam::Kubernetes => pod_cidrs
                .map(|cidr| controllers::pod_cidrs::Pool::new(*cidr))
                .collect(),
            Ipam::ClusterPool => Vec::new(),
        };
        let config = controllers::Config {
            pools,
            nodes: nodes.iter().map(|node| node.name.clone()).collect(),
            root_ca: cluster.root_ca(),
        };
        tokio::spawn(controllers::run(client.clone(), config, self.shutdown.clone()));
        // A fabric that knew the pods' addresses would hide a tunnel that does not carry them.
        if self.state.spec.routing == Routing::Native {
            tokio::spawn(fabric::run(
                client.clone(),
                self.state.spec.ipam,
                underlay.into_netlink(),
                self.shutdown.clone(),
            ));
        }
        for node in nodes {
            let config = kubelet::Config {
                node: node.clone(),
                hold: Hold::command,
            };
            tokio::spawn(kubelet::run(client.clone(), config, self.shutdown.clone()));
        }
    }

    /// The definitions first: a pool is applied before the operators have had time to.
    async fn run_operators(&self, client: &Client) -> Result<(), Error> {
        let failed = |error: &dyn std::fmt::Display| Error::Failed(format!("cannot make the pools: {error}"));
        k8s::ensure_definitions(client)
            .await
            .map_err(|error| failed(&error))?;
        let mut pools = self.state.spec.pools.clone();
        if pools.is_empty() {
            pools.push(Pool::usual(self.state.spec.family));
        }
        for pool in &pools {
            operators::apply_pool(client, pool).await?;
        }
        for number in 1..=OPERATORS {
            let operator = Operator::new(&self.paths, &self.state, &self.plan.service_cidrs, number);
            tokio::spawn(operator.run(self.shutdown.clone()));
        }
        Ok(())
    }

    fn run_agents(
        &self,
        nodes: &[NodeHandle],
        cluster: &Cluster,
    ) -> Result<mpsc::UnboundedReceiver<AgentFailure>, Error> {
        let (failures, receiver) = mpsc::unbounded_channel();
        for node in nodes {
            cluster.configure_agent(node, &self.state)?;
            let supervisor = Supervisor {
                node: node.clone(),
                lab: self.paths.name.clone(),
                program: self.state.program.clone(),
                log: self.paths.log(&format!("agent-{}", node.name)),
                failures: failures.clone(),
            };
            tokio::spawn(supervisor.run(self.shutdown.clone()));
        }
        Ok(receiver)
    }

    async fn bring_up_pods(
        &self,
        client: Client,
        nodes: Vec<NodeHandle>,
        progress: &Progress,
    ) -> Result<(), Error> {
        let pods = TestPods::new(client.clone(), &nodes, self.state.spec.pods_per_node);
        pods.create().await?;
        pods.nodes_ready().await?;
        progress.step(format!("{} agents and nodes ready", nodes.len()));
        pods.pods_ready().await?;
        progress.step(format!("{} pods ready", pods.len()));
        for manifest in &self.state.spec.manifests {
            let applied = apply::file(&client, manifest).await?;
            progress.step(format!("{} objects of {}", applied.len(), manifest.display()));
        }
        Ok(())
    }

    fn too_slow(&self) -> Error {
        let pods = self.state.pods(&self.paths);
        let missing: Vec<&str> = pods
            .iter()
            .filter(|pod| !pod.ready)
            .map(|pod| pod.name.as_str())
            .collect();
        let agents = self.handles();
        let agents: Vec<&str> = agents
            .iter()
            .filter(|node| !crate::supervisor::agent_is_ready(node))
            .map(|node| node.name.as_str())
            .collect();
        Error::Failed(format!(
            "not everything was ready after {} s; agents not ready: {agents:?}, pods not ready: {missing:?}; the logs are \
             in {}",
            ready_limit(&self.state.spec).as_secs(),
            self.paths.dir.join("log").display()
        ))
    }

    fn agent_failed(&self, failure: &AgentFailure) -> Error {
        let log = self.paths.log(&format!("agent-{}", failure.node));
        let tail = crate::up::tail(&log);
        Error::Failed(format!(
            "the agent of {} does not start ({}):\n{tail}",
            failure.node, failure.how
        ))
    }
}

fn ready_limit(spec: &Spec) -> Duration {
    let nodes = u32::try_from(spec.nodes.list().len()).unwrap_or(u32::MAX);
    let pods = nodes.saturating_mul(spec.pods_per_node);
    READY_LIMIT + READY_LIMIT_NODE * nodes + READY_LIMIT_POD * pods
}

fn topology(topology: Topology) -> &'static str {
    match topology {
        Topology::Flat => "one segment",
        Topology::Routed => "a segment per node behind a router",
    }
}

/// Moves this process into the lab's cgroup, so that everything it starts is in there too.
fn join_cgroup(paths: &Paths) -> Result<(), Error> {
    let Some(path) = paths.cgroup().map(|lab| lab.join("daemon")) else {
        return Ok(());
    };
    cgroup::create(&path)?;
    std::fs::write(path.join("cgroup.procs"), "0").doing(|| format!("enter the cgroup {}", path.display()))
}

/// Ends when one agent has failed too often; never when all of them run.
async fn repeated_failure(mut failures: mpsc::UnboundedReceiver<AgentFailure>) -> AgentFailure {
    let mut seen: Vec<AgentFailure> = Vec::new();
    while let Some(failure) = failures.recv().await {
        let earlier = seen.iter().filter(|earlier| earlier.node == failure.node).count();
        if earlier + 1 >= AGENT_ATTEMPTS {
            return failure;
        }
        seen.push(failure);
    }
    std::future::pending().await
}
