// SPDX-License-Identifier: Apache-2.0
//! Which agents a verb asks, and how: those of a lab by their sockets, those of a cluster by running this program in
//! their pods, or the one on this node.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ::connectivity::kube::{self as cluster, AgentPod};
use anyhow::{Context, anyhow, bail};
use futures::future::join_all;
use futures::stream::{self, LocalBoxStream, Stream, StreamExt as _, TryStreamExt as _, select_all};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, BufReader};
use tokio_util::io::StreamReader;

use super::{http, output};

/// Where a node's agent listens.
const SOCKET: &str = "/run/thalweg/agent.sock";
/// Where labs are.
const LABS: &str = "/run/thalweg-lab";

/// Which agents to ask. Without any of these: the agents of the only running lab, or else the agent of this node.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct AgentArgs {
    /// The agents of this lab
    #[arg(help_heading = "Which agents", long, value_name = "NAME")]
    lab: Option<String>,
    /// The agents of the cluster that this file leads to
    #[arg(
        help_heading = "Which agents",
        long,
        value_name = "FILE",
        conflicts_with = "lab"
    )]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig, if not its current one
    #[arg(
        help_heading = "Which agents",
        long,
        value_name = "NAME",
        requires = "kubeconfig"
    )]
    context: Option<String>,
    /// The namespace of the agents' pods
    #[arg(help_heading = "Which agents", long, value_name = "NAME", requires = "kubeconfig", default_value = cluster::AGENT_NAMESPACE)]
    agent_namespace: String,
    /// The agent of this node, by its socket
    #[arg(help_heading = "Which agents", long, value_name = "FILE", conflicts_with_all = ["lab", "kubeconfig"])]
    socket: Option<PathBuf>,
    /// Only the agent of this node
    #[arg(help_heading = "Which agents", long, value_name = "NAME")]
    node: Option<String>,
}

/// Where the agents are that the arguments mean.
#[derive(Debug)]
pub(crate) enum Scope {
    /// In a lab.
    Lab(String),
    /// In a cluster.
    Cluster {
        /// The file that leads to it.
        kubeconfig: PathBuf,
        /// The file's context, if not its current one.
        context: Option<String>,
        /// The namespace of the agents' pods.
        namespace: String,
    },
    /// On this node.
    Socket(PathBuf),
}

/// What one agent answered.
#[derive(Debug)]
pub(crate) struct Answer<T> {
    /// The agent's node.
    pub(crate) node: String,
    /// The answer, or why there is none.
    pub(crate) result: Result<T, String>,
}

/// An agent that did not answer.
#[derive(Debug, Serialize)]
pub(crate) struct Unreachable {
    /// Its node.
    pub(crate) node: String,
    /// Why.
    pub(crate) error: String,
}

/// The agents to ask.
#[derive(Debug)]
pub(crate) struct Agents {
    /// What they are together, for headings: `lab demo`.
    pub(crate) title: String,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    node: String,
    via: Via,
}

#[derive(Clone, Debug)]
enum Via {
    Socket(PathBuf),
    Pod(Box<AgentPod>),
}

impl AgentArgs {
    /// Whether anybody said which.
    pub(crate) fn is_given(&self) -> bool {
        self.lab.is_some() || self.kubeconfig.is_some() || self.socket.is_some()
    }

    /// A client of the API of the lab or cluster that is meant; nothing for a single node.
    pub(crate) async fn api(&self) -> anyhow::Result<Option<kube::Client>> {
        if let Some(kubeconfig) = &self.kubeconfig {
            return Ok(Some(cluster::client(kubeconfig, self.context.as_deref()).await?));
        }
        let lab = match (&self.lab, &self.socket) {
            (Some(lab), _) => lab.clone(),
            (None, Some(_)) => return Ok(None),
            (None, None) => match running_labs().as_slice() {
                [lab] => lab.clone(),
                _ => return Ok(None),
            },
        };
        let kubeconfig = Path::new(LABS).join(lab).join("kubeconfig");
        Ok(Some(cluster::client(&kubeconfig, None).await?))
    }

    /// Finds the agents.
    pub(crate) async fn agents(&self) -> anyhow::Result<Agents> {
        let mut agents = self.find().await?;
        if let Some(node) = &self.node {
            agents.members.retain(|member| &member.node == node);
            if agents.members.is_empty() {
                bail!(
                    "{} has no node {node}; `thalweg node list` shows which there are",
                    agents.title
                );
            }
        }
        Ok(agents)
    }

    /// The node that is asked for, if not all are.
    pub(crate) fn only_node(&self) -> Option<&str> {
        self.node.as_deref()
    }

    /// Whether a node is among those that are asked for.
    pub(crate) fn takes(&self, node: &str) -> bool {
        self.node.as_deref().is_none_or(|wanted| wanted == node)
    }

    async fn find(&self) -> anyhow::Result<Agents> {
        match self.scope()? {
            Scope::Lab(lab) => lab_agents(&lab),
            Scope::Cluster {
                kubeconfig,
                context,
                namespace,
            } => cluster_agents(&kubeconfig, context.as_deref(), &namespace).await,
            Scope::Socket(socket) => Ok(local(&socket)),
        }
    }

    /// Where the agents are.
    pub(crate) fn scope(&self) -> anyhow::Result<Scope> {
        if let Some(kubeconfig) = &self.kubeconfig {
            return Ok(Scope::Cluster {
                kubeconfig: kubeconfig.clone(),
                context: self.context.clone(),
                namespace: self.agent_namespace.clone(),
            });
        }
        if let Some(socket) = &self.socket {
            return Ok(Scope::Socket(socket.clone()));
        }
        if let Some(lab) = &self.lab {
            return Ok(Scope::Lab(lab.clone()));
        }
        match running_labs().as_slice() {
            [lab] => Ok(Scope::Lab(lab.clone())),
            [] if Path::new(SOCKET).exists() => Ok(Scope::Socket(SOCKET.into())),
            [] => bail!(
                "no agent found: no lab is running ({LABS} is empty) and there is no {SOCKET}; start a lab with \
                 `thalweg lab up`, or say where to look with --lab, --kubeconfig or --socket"
            ),
            several => bail!(
                "several labs are running ({}); choose one with --lab NAME",
                several.join(", ")
            ),
        }
    }
}

fn local(socket: &Path) -> Agents {
    let via = Via::Socket(socket.to_owned());
    let node = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok());
    Agents {
        title: "this node".into(),
        members: vec![Member {
            node: node.unwrap_or_else(|| "-".into()),
            via,
        }],
    }
}

/// The names of the labs that are there, whole or not.
fn running_labs() -> Vec<String> {
    directories(Path::new(LABS))
}

fn lab_agents(lab: &str) -> anyhow::Result<Agents> {
    let nodes = Path::new(LABS).join(lab).join("nodes");
    let members: Vec<_> = directories(&nodes)
        .into_iter()
        .map(|node| {
            let socket = nodes.join(&node).join("run/thalweg/agent.sock");
            Member {
                node,
                via: Via::Socket(socket),
            }
        })
        .collect();
    if members.is_empty() {
        let running = running_labs();
        bail!(
            "there is no lab {lab} (looked in {}); running: {}",
            nodes.display(),
            if running.is_empty() {
                "none".to_owned()
            } else {
                running.join(", ")
            }
        );
    }
    Ok(Agents {
        title: format!("lab {lab}"),
        members,
    })
}

fn directories(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

async fn cluster_agents(kubeconfig: &Path, context: Option<&str>, namespace: &str) -> anyhow::Result<Agents> {
    let client = cluster::client(kubeconfig, context).await?;
    let pods = cluster::agent_pods(&client, namespace).await?;
    if pods.is_empty() {
        bail!(
            "no pods with the label {} in namespace {namespace}; is Thalweg installed in this cluster, in another \
             namespace perhaps (--agent-namespace)?",
            cluster::AGENT_LABEL
        );
    }
    let members = pods
        .into_iter()
        .map(|pod| Member {
            node: pod.node.clone(),
            via: Via::Pod(Box::new(pod)),
        })
        .collect();
    Ok(Agents {
        title: format!("cluster of {}", kubeconfig.display()),
        members,
    })
}

impl Agents {
    /// Asks all of them at once; answers in the order of the nodes.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Vec<Answer<T>> {
        let one = async |member: &Member| from_json(path, &member.bytes(path).await?);
        self.ask(one).await
    }

    /// Asks all of them at once for one item per line.
    pub(crate) async fn lines<T: DeserializeOwned>(&self, path: &str) -> Vec<Answer<Vec<T>>> {
        let one = async |member: &Member| {
            let bytes = member.bytes(path).await?;
            let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            lines.map(|line| from_json(path, line)).collect()
        };
        self.ask(one).await
    }

    async fn ask<T>(&self, one: impl AsyncFn(&Member) -> anyhow::Result<T>) -> Vec<Answer<T>> {
        join_all(self.members.iter().map(async |member| Answer {
            node: member.node.clone(),
            result: one(member).await.map_err(|error| format!("{error:#}")),
        }))
        .await
    }

    /// Follows all of them at once: one item per line, as they come. An agent that ends or fails gives an error as its last.
    pub(crate) fn follow<T: DeserializeOwned + 'static>(
        &self,
        path: &str,
    ) -> impl Stream<Item = Answer<T>> + use<T> {
        select_all(self.members.iter().map(|member| {
            let (node, path) = (member.node.clone(), path.to_owned());
            let via = member.via.clone();
            let lines = stream::once(async move { via.follow(path).await }).try_flatten();
            let end = stream::once(async { Err(anyhow!("the agent has ended")) });
            lines
                .chain(end)
                .map(move |line| Answer {
                    node: node.clone(),
                    result: line
                        .and_then(|line| from_json("the agent's stream", line.as_bytes()))
                        .map_err(|error| format!("{error:#}")),
                })
                .boxed_local()
        }))
    }
}

fn from_json<T: DeserializeOwned>(path: &str, bytes: &[u8]) -> anyhow::Result<T> {
    serde_json::from_slice(bytes)
        .with_context(|| format!("{path} was answered in a way that this version does not understand"))
}

impl Member {
    async fn bytes(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        Ok(match &self.via {
            Via::Socket(socket) => http::get(socket, path).await?.to_vec(),
            Via::Pod(pod) => pod.run(&["thalweg", "get-raw", path]).await?,
        })
    }
}

impl Via {
    /// The lines of an answer without an end.
    async fn follow(self, path: String) -> anyhow::Result<LocalBoxStream<'static, anyhow::Result<String>>> {
        match self {
            Self::Socket(socket) => {
                let pieces = http::follow(&socket, &path).await?;
                let reader = StreamReader::new(pieces.map_err(std::io::Error::other));
                Ok(lines(reader))
            }
            Self::Pod(pod) => {
                let command = ["thalweg", "get-raw", "--follow", &path];
                Ok(lines(BufReader::new(pod.follow(&command).await?)))
            }
        }
    }
}

fn lines(reader: impl AsyncBufRead + Unpin + 'static) -> LocalBoxStream<'static, anyhow::Result<String>> {
    let lines = stream::try_unfold(reader.lines(), |mut lines| async move {
        let line = lines.next_line().await?;
        Ok(line.map(|line| (line, lines)))
    });
    lines.boxed_local()
}

/// `thalweg get-raw`
#[derive(Debug, clap::Args)]
pub(crate) struct RawArgs {
    /// The path, with its query
    path: String,
    /// The agent's socket
    #[arg(help_heading = "Which agents", long, value_name = "FILE", default_value = SOCKET)]
    socket: PathBuf,
    /// The answer has no end: print it as it comes
    #[arg(long)]
    follow: bool,
}

impl RawArgs {
    /// Prints the answer as it comes.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        if self.follow {
            let mut pieces = Box::pin(http::follow(&self.socket, &self.path).await?);
            while let Some(piece) = pieces.try_next().await? {
                if !output::print_on(&String::from_utf8_lossy(&piece))? {
                    break;
                }
            }
            return Ok(ExitCode::SUCCESS);
        }
        let body = http::get(&self.socket, &self.path).await?;
        output::print(&String::from_utf8_lossy(&body))?;
        Ok(ExitCode::SUCCESS)
    }
}
