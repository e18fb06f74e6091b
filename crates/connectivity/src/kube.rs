// SPDX-License-Identifier: Apache-2.0
//! A real cluster, through its API: commands in its pods.

use std::path::Path;

use api::agent::Status;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config, ResourceExt};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::cluster::{Cluster, ClusterError, Output};

/// The label that the agents' pods carry.
pub const AGENT_LABEL: &str = "app.kubernetes.io/name=thalweg";
/// The namespace that the agents' pods are in unless told otherwise.
pub const AGENT_NAMESPACE: &str = "kube-system";

/// Why the cluster could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    /// The kubeconfig leads nowhere.
    #[error("cannot use the kubeconfig {path}: {source}")]
    Kubeconfig {
        /// The file.
        path: String,
        /// Why.
        source: Box<KubeconfigError>,
    },
    /// The API refused or could not be reached.
    #[error("cannot {action}: {source}")]
    Api {
        /// What was attempted.
        action: String,
        /// Why not.
        source: Box<kube::Error>,
    },
    /// A command in a pod did not run.
    #[error("cannot run {command} in pod {pod}: {reason}")]
    Exec {
        /// The command.
        command: String,
        /// The pod, as `namespace/name`.
        pod: String,
        /// Why not.
        reason: String,
    },
}

impl KubeError {
    pub(crate) fn api(action: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self::Api {
            action: action.into(),
            source: Box::new(source),
        }
    }
}

/// A client for the cluster that a kubeconfig leads to.
pub async fn client(kubeconfig: &Path, context: Option<&str>) -> Result<Client, KubeError> {
    let path = kubeconfig.display().to_string();
    let options = KubeConfigOptions {
        context: context.map(Into::into),
        ..KubeConfigOptions::default()
    };
    let config = async {
        let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
        Config::from_custom_kubeconfig(kubeconfig, &options).await
    };
    let config = config.await.map_err(|source| KubeError::Kubeconfig {
        path: path.clone(),
        source: Box::new(source),
    })?;
    Client::try_from(config).map_err(KubeError::api(format!("connect to the cluster of {path}")))
}

/// An agent's pod.
#[derive(Clone, Debug)]
pub struct AgentPod {
    /// The agent's node.
    pub node: String,
    name: String,
    pods: Api<Pod>,
}

/// The agents' pods, in the order of their nodes.
pub async fn agent_pods(client: &Client, namespace: &str) -> Result<Vec<AgentPod>, KubeError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let list = pods
        .list(&ListParams::default().labels(AGENT_LABEL))
        .await
        .map_err(KubeError::api(format!(
            "list the agents' pods in namespace {namespace}"
        )))?;
    let mut found: Vec<_> = list
        .into_iter()
        .filter_map(|pod| {
            let node = pod.spec.as_ref()?.node_name.clone()?;
            Some(AgentPod {
                node,
                name: pod.name_any(),
                pods: pods.clone(),
            })
        })
        .collect();
    found.sort_by(|a, b| a.node.cmp(&b.node));
    Ok(found)
}

impl AgentPod {
    /// Runs a command beside the agent; its standard output. A command that fails is an error.
    pub async fn run(&self, command: &[&str]) -> Result<Vec<u8>, KubeError> {
        let output = exec(&self.pods, &self.name, command).await?;
        if output.code == 0 {
            return Ok(output.stdout);
        }
        Err(KubeError::Exec {
            command: command.join(" "),
            pod: self.name.clone(),
            reason: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }
}

impl AgentPod {
    /// Runs a command beside the agent; its standard output as it comes.
    pub async fn follow(
        &self,
        command: &[&str],
    ) -> Result<impl tokio::io::AsyncRead + Unpin + use<>, KubeError> {
        let failed = |reason: String| KubeError::Exec {
            command: command.join(" "),
            pod: self.name.clone(),
            reason,
        };
        let parameters = AttachParams::default().stdin(false).stdout(true).stderr(false);
        let process = self
            .pods
            .exec(&self.name, command.iter().copied(), &parameters)
            .await;
        let mut process = process.map_err(|error| failed(error.to_string()))?;
        process
            .stdout()
            .ok_or_else(|| failed("it has no standard output".into()))
    }
}

/// A cluster that a kubeconfig leads to.
#[derive(Clone)]
pub struct KubeCluster {
    /// What it is called in headings.
    pub title: String,
    /// Its API.
    pub client: Client,
    /// The image of test pods.
    pub image: String,
    /// Where this program is in the image.
    pub program: String,
    /// The namespace of the agents' pods.
    pub agent_namespace: String,
}

impl std::fmt::Debug for KubeCluster {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("KubeCluster")
            .field("title", &self.title)
            .finish_non_exhaustive()
    }
}

impl Cluster for KubeCluster {
    fn title(&self) -> String {
        self.title.clone()
    }

    fn client(&self) -> Client {
        self.client.clone()
    }

    fn image(&self) -> String {
        self.image.clone()
    }

    fn program(&self) -> String {
        self.program.clone()
    }

    fn exec<'a>(
        &'a self,
        namespace: &'a str,
        pod: &'a str,
        command: &'a [String],
    ) -> BoxFuture<'a, Result<Output, ClusterError>> {
        Box::pin(async move {
            let pods = Api::namespaced(self.client.clone(), namespace);
            let command: Vec<_> = command.iter().map(String::as_str).collect();
            exec(&pods, pod, &command).await.map_err(ClusterError::new)
        })
    }

    fn status<'a>(&'a self, node: &'a str) -> BoxFuture<'a, Result<Option<Status>, ClusterError>> {
        Box::pin(async move {
            let pods = agent_pods(&self.client, &self.agent_namespace)
                .await
                .map_err(ClusterError::new)?;
            let Some(pod) = pods.iter().find(|pod| pod.node == node) else {
                return Ok(None);
            };
            let answer = pod
                .run(&["thalweg", "get-raw", "/v1/status"])
                .await
                .map_err(ClusterError::new)?;
            serde_json::from_slice(&answer)
                .map(Some)
                .map_err(ClusterError::new)
        })
    }
}

/// Runs a command in a pod's first container and waits for its end.
pub async fn exec(pods: &Api<Pod>, pod: &str, command: &[&str]) -> Result<Output, KubeError> {
    let failed = |reason: String| KubeError::Exec {
        command: command.join(" "),
        pod: pod.into(),
        reason,
    };
    let parameters = AttachParams::default().stdin(false).stdout(true).stderr(true);
    let mut process = pods
        .exec(pod, command.iter().copied(), &parameters)
        .await
        .map_err(|error| failed(error.to_string()))?;
    let (stdout, stderr, status) = (process.stdout(), process.stderr(), process.take_status());
    let (stdout, stderr) = tokio::join!(read(stdout), read(stderr));
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    let status = status.ok_or_else(|| failed("the connection ended before the command did".into()))?;
    let code = exit_code(&status).ok_or_else(|| failed(status.message.clone().unwrap_or_default()))?;
    Ok(Output { code, stdout, stderr })
}

async fn read(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        // What came before the connection broke is still worth having; the status tells that it broke.
        let _ = stream.read_to_end(&mut bytes).await;
    }
    bytes
}

/// `Success` is 0; otherwise the code is a cause of the status. Without one the command has not run.
fn exit_code(status: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Status) -> Option<i32> {
    if status.status.as_deref() == Some("Success") {
        return Some(0);
    }
    let causes = status.details.as_ref()?.causes.as_ref()?;
    let cause = causes
        .iter()
        .find(|cause| cause.reason.as_deref() == Some("ExitCode"))?;
    cause.message.as_ref()?.parse().ok()
}
