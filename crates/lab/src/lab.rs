// SPDX-License-Identifier: Apache-2.0
//! A running lab, for commands and tests.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::down;
use crate::error::{Doing as _, Error};
use crate::node::{NodeHandle, Place};
use crate::operators::OperatorState;
use crate::plan::Plan;
use crate::pods::PodRecord;
use crate::state::{AgentState, Paths, Phase, State};
use crate::supervisor::{agent_is_ready, agent_socket};

/// How long an agent may take to be ready again after a restart.
const RESTART_LIMIT: Duration = Duration::from_secs(90);
/// How often it is asked.
const RESTART_POLL: Duration = Duration::from_millis(10);
const DEFAULT_NAMESPACE: &str = "default";

/// A lab that was started.
#[derive(Debug, Clone)]
pub struct Lab {
    paths: Paths,
    state: State,
}

/// Where `lab exec` runs a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// In a node's namespaces.
    Node(String),
    /// In a pod's.
    Pod {
        /// Its Kubernetes namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

impl Lab {
    /// Opens a lab by name.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(name: &str) -> Result<Self, Error> {
        let paths = Paths::of(name);
        match State::load(&paths)? {
            Some(state) => Ok(Self { paths, state }),
            None => Err(Error::Refused(format!(
                "there is no lab {name}; {}",
                what_there_is()
            ))),
        }
    }

    /// Opens the only lab there is.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn only() -> Result<Self, Error> {
        match Paths::names().as_slice() {
            [name] => Self::open(name),
            _ => Err(Error::Refused(what_there_is())),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.paths.name
    }

    /// Where its files are.
    #[must_use]
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// What runs, as of when it was opened.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Its nodes.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeHandle> {
        self.state
            .nodes
            .iter()
            .map(|node| self.state.handle(&self.paths, node))
            .collect()
    }

    /// A node by name.
    ///
    /// # Errors
    /// When the lab has no such node.
    pub fn node(&self, name: &str) -> Result<NodeHandle, Error> {
        let nodes = self.nodes();
        let names: Vec<String> = nodes.iter().map(|node| node.name.clone()).collect();
        nodes.into_iter().find(|node| node.name == name).ok_or_else(|| {
            Error::Refused(format!(
                "lab {} has no node {name}; it has {}",
                self.name(),
                names.join(", ")
            ))
        })
    }

    /// Its pods, as they are now.
    #[must_use]
    pub fn pods(&self) -> Vec<PodRecord> {
        self.state.pods(&self.paths)
    }

    /// A pod by name.
    ///
    /// # Errors
    /// When no such pod runs.
    pub fn pod(&self, namespace: &str, name: &str) -> Result<PodRecord, Error> {
        let pods = self.pods();
        let names: Vec<String> = pods.iter().map(|pod| pod.name.clone()).collect();
        pods.into_iter()
            .find(|pod| pod.namespace == namespace && pod.name == name)
            .ok_or_else(|| {
                Error::Refused(format!(
                    "lab {} runs no pod {namespace}/{name}; it runs {}",
                    self.name(),
                    if names.is_empty() {
                        "none".to_owned()
                    } else {
                        names.join(", ")
                    }
                ))
            })
    }

    /// The addresses of a pod in the namespace `default`.
    ///
    /// # Errors
    /// When no such pod runs.
    pub fn pod_ips(&self, name: &str) -> Result<Vec<IpAddr>, Error> {
        self.pod(DEFAULT_NAMESPACE, name).map(|pod| pod.ips)
    }

    /// Its operators, as they are now; none where addresses come from Nodes.
    #[must_use]
    pub fn operators(&self) -> Vec<OperatorState> {
        OperatorState::load_all(&self.paths)
    }

    /// The kubeconfig for this machine.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.paths.kubeconfig()
    }

    /// Where pods and nodes reach the API server, the primary family first.
    #[must_use]
    pub fn api_addresses(&self) -> Vec<IpAddr> {
        let plan = Plan::of(&self.state.spec);
        plan.map(|plan| plan.api.iter().map(ipnet::IpNet::addr).collect())
            .unwrap_or_default()
    }

    /// A client of the lab's API server, within a tokio runtime.
    ///
    /// # Errors
    /// When the kubeconfig cannot be read.
    pub async fn client(&self) -> Result<kube::Client, Error> {
        let path = self.kubeconfig();
        let text = std::fs::read_to_string(&path).doing(|| format!("read {}", path.display()))?;
        client_from(&text).await
    }

    /// The socket of a node's agent.
    ///
    /// # Errors
    /// When the lab has no such node.
    pub fn agent_socket(&self, node: &str) -> Result<PathBuf, Error> {
        self.node(node).map(|node| agent_socket(&node))
    }

    /// What a word on the command line means: a node, or a pod of `namespace`.
    #[must_use]
    pub fn target(&self, namespace: Option<&str>, word: &str) -> Target {
        if namespace.is_none() && self.state.nodes.iter().any(|node| node.name == word) {
            return Target::Node(word.to_owned());
        }
        Target::Pod {
            namespace: namespace.unwrap_or(DEFAULT_NAMESPACE).to_owned(),
            name: word.to_owned(),
        }
    }

    /// A command that will run in a node or a pod, in the lab's cgroup, in the caller's directory.
    ///
    /// # Errors
    /// When the target is not there or its namespaces are gone.
    pub fn command(&self, target: &Target, program: &str, arguments: &[String]) -> Result<Command, Error> {
        let mut command = Command::new(program);
        command.args(arguments);
        let mut place = Place {
            cgroup: "exec".into(),
            keep_directory: true,
            ..Place::default()
        };
        let node = match target {
            Target::Node(node) => self.node(node)?,
            Target::Pod { namespace, name } => {
                let pod = self.pod(namespace, name)?;
                if pod.sandbox.is_some_and(|sandbox| !sandbox.is_alive()) {
                    return Err(Error::Failed(format!(
                        "the sandbox of pod {namespace}/{name} is gone"
                    )));
                }
                (place.netns, place.utsns, place.cgroup) =
                    (pod.netns(), pod.utsns(), pod.cgroup().join("exec"));
                self.node(&pod.node)?
            }
        };
        node.prepare(&mut command, &place)?;
        Ok(command)
    }

    /// Runs a command in a pod of the namespace `default` and collects what it says.
    ///
    /// # Errors
    /// When it cannot be run. That it ends with an error is no error.
    pub fn exec_in_pod(&self, pod: &str, argv: &[&str]) -> Result<Output, Error> {
        let target = Target::Pod {
            namespace: DEFAULT_NAMESPACE.to_owned(),
            name: pod.to_owned(),
        };
        self.output(&target, argv)
    }

    /// Runs a command on a node and collects what it says.
    ///
    /// # Errors
    /// When it cannot be run. That it ends with an error is no error.
    pub fn exec_in_node(&self, node: &str, argv: &[&str]) -> Result<Output, Error> {
        self.output(&Target::Node(node.to_owned()), argv)
    }

    fn output(&self, target: &Target, argv: &[&str]) -> Result<Output, Error> {
        let [program, arguments @ ..] = argv else {
            return Err(Error::Refused("a command is needed".to_owned()));
        };
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut command = self.command(target, program, &arguments)?;
        command
            .stdin(Stdio::null())
            .output()
            .doing(|| format!("run {program} in {target}"))
    }

    /// Ends a node's agent by a signal and waits until its supervisor has started another one that is ready.
    ///
    /// # Errors
    /// When none was running or none becomes ready.
    pub fn restart_agent(&self, node: &str, signal: Signal) -> Result<Duration, Error> {
        let node = self.node(node)?;
        let begin = Instant::now();
        let before = AgentState::load(&node.dir).filter(|agent| agent.process.signal(signal));
        let before = before.ok_or_else(|| Error::Failed(format!("no agent is running on {}", node.name)))?;
        while begin.elapsed() < RESTART_LIMIT {
            let now = AgentState::load(&node.dir).is_some_and(|now| now.process != before.process);
            if now && agent_is_ready(&node) {
                return Ok(begin.elapsed());
            }
            std::thread::sleep(RESTART_POLL);
        }
        let log = self.paths.log(&format!("agent-{}", node.name));
        Err(Error::Failed(format!(
            "no ready agent on {} after {} s; see {}",
            node.name,
            RESTART_LIMIT.as_secs(),
            log.display()
        )))
    }

    /// Whether a node's agent says that it is ready.
    #[must_use]
    pub fn agent_is_ready(&self, node: &NodeHandle) -> bool {
        agent_is_ready(node)
    }

    /// Removes the lab.
    ///
    /// # Errors
    /// When something could not be removed.
    pub fn down(&self) -> Result<bool, Error> {
        down::remove(self.name())
    }

    /// What `lab list` says of every lab.
    #[must_use]
    pub fn list() -> Vec<Summary> {
        Paths::names().into_iter().map(Summary::of).collect()
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node {node}"),
            Self::Pod { namespace, name } => write!(f, "pod {namespace}/{name}"),
        }
    }
}

/// A client by the text of a kubeconfig.
pub(crate) async fn client_from(kubeconfig: &str) -> Result<kube::Client, Error> {
    let failed =
        |error: &dyn std::fmt::Display| Error::Failed(format!("the lab's kubeconfig is unusable: {error}"));
    let kubeconfig = kube::config::Kubeconfig::from_yaml(kubeconfig).map_err(|error| failed(&error))?;
    let options = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
    let config = config.map_err(|error| failed(&error))?;
    kube::Client::try_from(config).map_err(|error| failed(&error))
}

fn what_there_is() -> String {
    match Paths::names().as_slice() {
        [] => "no lab is running; start one with `thalweg lab up`".to_owned(),
        names => format!("these are running: {}; name one of them", names.join(", ")),
    }
}

/// A lab in one line.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Summary {
    /// Its name.
    pub name: String,
    /// How far it is; none when not even that can be found out.
    pub phase: Option<Phase>,
    /// What is wrong with it.
    pub defects: Vec<String>,
    /// How many nodes it has.
    pub nodes: usize,
    /// How many pods run.
    pub pods: usize,
    /// Seconds since 1970 at its start.
    pub created: Option<u64>,
}

impl Summary {
    fn of(name: String) -> Self {
        let paths = Paths::of(&name);
        let absent = |defect: String| Self {
            name: name.clone(),
            phase: None,
            defects: vec![defect],
            nodes: 0,
            pods: 0,
            created: None,
        };
        match State::load(&paths) {
            Ok(Some(state)) => Self {
                name: name.clone(),
                phase: Some(state.phase),
                defects: state.defects(&paths),
                nodes: state.nodes.len(),
                pods: state.pods(&paths).len(),
                created: Some(state.created),
            },
            Ok(None) => absent("it is just starting, or died at its start".to_owned()),
            Err(error) => absent(error.to_string()),
        }
    }
}

/// A lab that is removed when its guard is dropped, for tests. With `KEEP=1` in the environment it stays, and how to look
/// into it is printed.
#[derive(Debug)]
pub struct Guard(Lab);

impl Lab {
    /// Removes the lab at the end of the scope.
    #[must_use]
    pub fn guard(self) -> Guard {
        Guard(self)
    }

    /// Shell commands that lead into the nodes.
    #[must_use]
    pub fn ways_in(&self) -> Vec<String> {
        let way = |node: &crate::state::NodeState| format!("nsenter -t {} -m -n -u", node.holder.pid);
        self.state.nodes.iter().map(way).collect()
    }
}

impl std::ops::Deref for Guard {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.0
    }
}

impl Drop for Guard {
    #[expect(clippy::print_stderr, reason = "tests show their standard error")]
    fn drop(&mut self) {
        if std::env::var_os("KEEP").is_some_and(|keep| keep == "1") {
            eprintln!(
                "lab {} is kept ({}):",
                self.name(),
                Path::new(&self.paths.dir).display()
            );
            for way in self.ways_in() {
                eprintln!("  {way}");
            }
        } else if let Err(error) = self.down() {
            eprintln!("lab {} was not removed: {error}", self.name());
        }
    }
}
