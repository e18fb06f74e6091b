// SPDX-License-Identifier: Apache-2.0
//! Facts of all nodes at once: each node runs this program's `doctor gather` itself, and the cluster's API is asked meanwhile.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use connectivity::kube as cluster;
use doctor::facts::{ClusterFacts, Facts, Gathered, NodeFacts, SCHEMA};
use doctor::gather::{self, Places};
use futures::future::join_all;
use lab::{Lab, NodeHandle, Target};
use serde::de::DeserializeOwned;

use crate::cli::agents::{AgentArgs, Scope};

/// A node that has not answered after this long is left out, with the reason.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Where a container has the node's root directory mounted.
const MOUNTED_ROOT: &str = "/host";

/// Where things are on this node.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct NodeArgs {
    /// The node's name [default: this host's]
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// The node's root directory [default: /host where that is one, else /]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Where the container runtime looks for network configurations
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    cni_conf_dir: PathBuf,
    /// Where the BPF file system is
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf")]
    bpffs: PathBuf,
    /// The agent's socket
    #[arg(long, value_name = "FILE", default_value = "/run/thalweg/agent.sock")]
    agent_socket: PathBuf,
    /// Where copies of removed parts of other networks are kept
    #[arg(long, value_name = "DIR", default_value = "/var/lib/thalweg")]
    keep_dir: PathBuf,
}

impl NodeArgs {
    /// The same as a value.
    pub(crate) fn places(&self) -> Places {
        let mounted = || PathBuf::from(MOUNTED_ROOT).join("etc").is_dir();
        let root = self.root.clone();
        Places {
            node: self.node_name.clone().unwrap_or_else(host_name),
            root: root.unwrap_or_else(|| PathBuf::from(if mounted() { MOUNTED_ROOT } else { "/" })),
            cni_conf_dir: self.cni_conf_dir.clone(),
            bpffs: self.bpffs.clone(),
            agent_socket: self.agent_socket.clone(),
            kept: self.keep_dir.clone(),
        }
    }
}

fn host_name() -> String {
    let name = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok());
    name.unwrap_or_else(|| "-".into())
}

/// The arguments that a lab's nodes need: their directories are not the usual ones.
pub(crate) fn lab_arguments(node: &str) -> Vec<String> {
    let pairs = [
        ("--node-name", node),
        ("--root", "/"),
        ("--cni-conf-dir", lab::node::CNI_CONF_DIR),
        ("--keep-dir", "/run/thalweg-kept"),
    ];
    pairs
        .iter()
        .flat_map(|(name, value)| [(*name).to_owned(), (*value).to_owned()])
        .collect()
}

/// Everything about the nodes that the arguments mean.
pub(crate) async fn scope_facts(agents: &AgentArgs) -> anyhow::Result<Facts> {
    let began_ms = gather::now_ms();
    let scope = agents.scope()?;
    let mut nodes_unknown = None;
    let (title, nodes, cluster) = match &scope {
        Scope::Lab(name) => {
            let lab = Lab::open(name)?;
            let (nodes, cluster) = tokio::join!(lab_nodes(&lab, agents), lab_cluster(&lab));
            (format!("lab {name}"), nodes, cluster)
        }
        Scope::Cluster {
            kubeconfig,
            context,
            namespace,
        } => {
            let client = cluster::client(kubeconfig, context.as_deref()).await?;
            let (nodes, facts) = tokio::join!(
                cluster_nodes(&client, namespace, agents),
                gather::cluster(&client)
            );
            let nodes = nodes.unwrap_or_else(|reason| {
                nodes_unknown = Some(reason);
                Vec::new()
            });
            (format!("cluster of {}", kubeconfig.display()), nodes, facts)
        }
        Scope::Socket(socket) => {
            let mut places = default_places();
            places.agent_socket.clone_from(socket);
            let node = tokio::task::spawn_blocking(move || gather::node(&places)).await?;
            let reason = "no cluster was asked; say which with --kubeconfig FILE";
            ("this node".to_owned(), vec![node], no_cluster(reason))
        }
    };
    let only_node = agents.only_node().map(str::to_owned);
    if let Some(only) = &only_node
        && !matches!(scope, Scope::Socket(_))
        && nodes_unknown.is_none()
        && nodes.is_empty()
    {
        anyhow::bail!("{title} has no node {only} with an agent; `thalweg node list` shows which there are");
    }
    Ok(Facts {
        schema: SCHEMA,
        nodes_unknown,
        only_node,
        title,
        began_ms,
        ended_ms: gather::now_ms(),
        cloud: gather::cloud(&cluster, &nodes),
        nodes,
        cluster,
    })
}

fn default_places() -> Places {
    #[derive(clap::Parser)]
    struct Defaults {
        #[command(flatten)]
        node: NodeArgs,
    }
    <Defaults as clap::Parser>::parse_from(["thalweg"]).node.places()
}

fn no_cluster(reason: &str) -> ClusterFacts {
    fn no<T>(reason: &str) -> Gathered<T> {
        Gathered::unknown(reason)
    }
    ClusterFacts {
        version: no(reason),
        skew: no(reason),
        nodes: no(reason),
        daemon_sets: no(reason),
        pods: no(reason),
        pods_per_node: no(reason),
        services: no(reason),
        service_cidrs: no(reason),
        budgets: no(reason),
        webhooks: no(reason),
        crd_groups: no(reason),
        deprecated: no(reason),
        security_group_policies: no(reason),
    }
}

async fn lab_cluster(lab: &Lab) -> ClusterFacts {
    match lab.client().await {
        Ok(client) => gather::cluster(&client).await,
        Err(error) => no_cluster(&error.to_string()),
    }
}

async fn lab_nodes(lab: &Lab, agents: &AgentArgs) -> Vec<NodeFacts> {
    let nodes = lab.nodes();
    let wanted = nodes.iter().filter(|node| agents.takes(&node.name));
    join_all(wanted.map(|node| async move {
        let arguments = [
            vec!["doctor".to_owned(), "gather".to_owned()],
            lab_arguments(&node.name),
        ]
        .concat();
        let facts = run_in_lab(lab, node, &arguments).await;
        facts.unwrap_or_else(|error| NodeFacts::unknown(&node.name, &format!("{error:#}")))
    }))
    .await
}

/// Runs this program in a node of a lab and reads its answer.
pub(crate) async fn run_in_lab<T: DeserializeOwned>(
    lab: &Lab,
    node: &NodeHandle,
    arguments: &[String],
) -> anyhow::Result<T> {
    let program = std::env::current_exe().context("cannot find this program's file")?;
    let command = lab.command(
        &Target::Node(node.name.clone()),
        &program.to_string_lossy(),
        arguments,
    )?;
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(TIMEOUT, command.output()).await;
    let output =
        output.with_context(|| format!("the node has not answered in {} s", TIMEOUT.as_secs()))??;
    if !output.status.success() {
        anyhow::bail!(
            "{}",
            String::from_utf8_lossy(&output.stderr)
                .trim()
                .trim_start_matches("error: ")
        );
    }
    serde_json::from_slice(&output.stdout).context("its answer is not understood")
}

async fn cluster_nodes(
    client: &kube::Client,
    namespace: &str,
    agents: &AgentArgs,
) -> Result<Vec<NodeFacts>, String> {
    let pods = cluster::agent_pods(client, namespace).await;
    let pods = pods.map_err(|error| error.to_string())?;
    let wanted = pods.iter().filter(|pod| agents.takes(&pod.node));
    Ok(join_all(wanted.map(|pod| async move {
        let arguments = ["thalweg", "doctor", "gather", "--node-name", &pod.node];
        let answer = tokio::time::timeout(TIMEOUT, pod.run(&arguments)).await;
        let facts = match answer {
            Ok(Ok(json)) => serde_json::from_slice(&json)
                .map_err(|error| format!("its answer is not understood: {error}")),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("the node has not answered in {} s", TIMEOUT.as_secs())),
        };
        facts.unwrap_or_else(|reason| NodeFacts::unknown(&pod.node, &reason))
    }))
    .await)
}
