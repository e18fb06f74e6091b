// SPDX-License-Identifier: Apache-2.0
//! A lab's directory under `/run/thalweg-lab` and the state file in it, which says what runs, so that every command works
//! without asking the daemon, and also when that is gone.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::error::{Doing as _, Error};
use crate::external::{self, API_CGROUP};
use crate::node::NodeHandle;
use crate::operators::OperatorState;
use crate::pods::{PodRecord, write_atomically};
use crate::spec::{ApiKind, Spec};
use crate::{Process, cgroup};

/// Where labs keep their files.
pub const BASE: &str = "/run/thalweg-lab";
const CGROUP_PREFIX: &str = "thalweg-lab-";

/// Where the files of a lab are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The lab's name.
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
}

impl Paths {
    /// The paths of the lab with this name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            dir: Path::new(BASE).join(name),
        }
    }

    /// The state file.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.dir.join("lab.json")
    }

    /// The kubeconfig for this machine.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// The log of `who`: `daemon` or `agent-NODE`.
    #[must_use]
    pub fn log(&self, who: &str) -> PathBuf {
        self.dir.join("log").join(format!("{who}.log"))
    }

    /// A node's directory.
    #[must_use]
    pub fn node(&self, node: &str) -> PathBuf {
        self.dir.join("nodes").join(node)
    }

    /// What the node sees as `/run`.
    #[must_use]
    pub fn node_run(&self, node: &str) -> PathBuf {
        self.node(node).join("run")
    }

    /// The lab's cgroup, where there is cgroup2.
    #[must_use]
    pub fn cgroup(&self) -> Option<PathBuf> {
        cgroup::root().map(|root| root.join(format!("{CGROUP_PREFIX}{}", self.name)))
    }

    /// The names of all labs of which there is a directory.
    #[must_use]
    pub fn names() -> Vec<String> {
        let entries = fs::read_dir(BASE).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }
}

/// How far a lab is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Not everything runs yet.
    Starting,
    /// `up` has succeeded.
    Ready,
}

/// What the daemon writes about its lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// What was asked for.
    pub spec: Spec,
    /// How far it is.
    pub phase: Phase,
    /// Seconds since 1970 at its start.
    pub created: u64,
    /// The daemon.
    pub daemon: Process,
    /// The program that daemon, holders and agents run.
    pub program: PathBuf,
    /// The holder of the underlay's network namespace.
    pub underlay: Option<Process>,
    /// The API server's URL for this machine.
    pub api_url: Option<String>,
    /// The nodes.
    pub nodes: Vec<NodeState>,
}

/// A node in the state file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeState {
    /// Its name.
    pub name: String,
    /// The holder of its namespaces.
    pub holder: Process,
    /// Its addresses on the underlay.
    pub addresses: Vec<IpNet>,
    /// The labels of its Node object.
    pub labels: BTreeMap<String, String>,
}

/// A node's agent, as its supervisor writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentState {
    /// The running process, or the last one.
    pub process: Process,
    /// How often it was started again.
    pub restarts: u32,
    /// How the previous process ended.
    pub last_exit: Option<String>,
}

impl State {
    /// Reads the state file; `None` when there is none (yet).
    ///
    /// # Errors
    /// When the file cannot be read or understood.
    pub fn load(paths: &Paths) -> Result<Option<Self>, Error> {
        let path = paths.state();
        match fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json).map(Some).map_err(|error| {
                Error::Failed(format!(
                    "{} is corrupt, or of another version of thalweg: {error}; `thalweg lab down --name {}` removes the lab",
                    path.display(),
                    paths.name
                ))
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::system(format!("read {}", path.display()), error)),
        }
    }

    /// Writes the state file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, paths: &Paths) -> Result<(), Error> {
        let path = paths.state();
        let json = serde_json::to_vec_pretty(self).map_err(io::Error::from);
        json.and_then(|json| write_atomically(&path, &json))
            .doing(|| format!("write {}", path.display()))
    }

    /// Where things of this node are.
    #[must_use]
    pub fn handle(&self, paths: &Paths, node: &NodeState) -> NodeHandle {
        let dir = paths.node(&node.name);
        let run_dir = paths.node_run(&node.name);
        let mut cni_bin_dirs: Vec<PathBuf> = self.program.parent().map(Path::to_owned).into_iter().collect();
        cni_bin_dirs.extend(["/opt/cni/bin", "/usr/lib/cni"].map(PathBuf::from));
        // Plugins that only this node has.
        cni_bin_dirs.push("/run/cni/bin".into());
        NodeHandle {
            lab_dir: paths.dir.clone(),
            name: node.name.clone(),
            addresses: node.addresses.iter().map(IpNet::addr).collect::<Vec<IpAddr>>(),
            labels: node.labels.clone(),
            netns: node.holder.namespace("net"),
            mntns: node.holder.namespace("mnt"),
            utsns: node.holder.namespace("uts"),
            cgroup: paths.cgroup().map(|lab| lab.join("nodes").join(&node.name)),
            cni_conf_dir: run_dir.join("cni/net.d"),
            run_dir,
            dir,
            cni_bin_dirs,
        }
    }

    /// What is missing for the lab to work, in a few words each; empty when nothing is.
    #[must_use]
    pub fn defects(&self, paths: &Paths) -> Vec<String> {
        let mut defects = Vec::new();
        if !self.daemon.is_alive() {
            defects.push("the daemon is gone".to_owned());
        }
        if self.underlay.is_some_and(|process| !process.is_alive()) {
            defects.push("the underlay is gone".to_owned());
        }
        let servers = paths.cgroup().map(|cgroup| cgroup.join(API_CGROUP));
        if self.phase == Phase::Ready
            && self.spec.api == ApiKind::External
            && self.spec.kubeconfig.is_none()
            && servers.is_some_and(|servers| cgroup::processes(&servers).len() < external::PROGRAMS.len())
        {
            defects.push("etcd or the kube-apiserver is gone".to_owned());
        }
        for node in &self.nodes {
            if !node.holder.is_alive() {
                defects.push(format!("{} is gone", node.name));
            } else if self.phase == Phase::Ready
                && AgentState::load(&paths.node(&node.name)).is_none_or(|agent| !agent.process.is_alive())
            {
                defects.push(format!("the agent of {} is not running", node.name));
            }
        }
        for operator in OperatorState::load_all(paths) {
            if self.phase == Phase::Ready && !operator.process.is_alive() {
                defects.push(format!("{} is not running", operator.name));
            }
        }
        defects
    }

    /// The pods of all nodes.
    #[must_use]
    pub fn pods(&self, paths: &Paths) -> Vec<PodRecord> {
        self.nodes
            .iter()
            .flat_map(|node| PodRecord::load_all(&paths.node(&node.name)))
            .collect()
    }
}

impl AgentState {
    fn path(node_dir: &Path) -> PathBuf {
        node_dir.join("agent.json")
    }

    /// Reads a node's agent state.
    #[must_use]
    pub fn load(node_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(Self::path(node_dir)).ok()?).ok()
    }

    /// Writes a node's agent state.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, node_dir: &Path) -> Result<(), Error> {
        let path = Self::path(node_dir);
        let json = serde_json::to_vec(self).map_err(io::Error::from);
        json.and_then(|json| write_atomically(&path, &json))
            .doing(|| format!("write {}", path.display()))
    }
}
