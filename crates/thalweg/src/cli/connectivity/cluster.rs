// SPDX-License-Identifier: Apache-2.0
//! Which cluster to try out: a lab, or what a kubeconfig leads to.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use ::connectivity::cluster::{Cluster, ClusterError, Output};
use ::connectivity::kube::{self, KubeCluster};
use anyhow::bail;
use api::agent::Status;
use futures::future::BoxFuture;
use lab::{Lab, Target};

use crate::cli::http;

/// Which cluster.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ClusterArgs {
    /// This lab; if there is only one, that is it
    #[arg(help_heading = "Which cluster", long, value_name = "NAME")]
    lab: Option<String>,
    /// The cluster that this file leads to
    #[arg(
        help_heading = "Which cluster",
        long,
        value_name = "FILE",
        conflicts_with = "lab",
        requires = "image"
    )]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig, if not its current one
    #[arg(
        help_heading = "Which cluster",
        long,
        value_name = "NAME",
        requires = "kubeconfig"
    )]
    context: Option<String>,
    /// The namespace of the agents' pods
    #[arg(help_heading = "Which cluster", long, value_name = "NAME", requires = "kubeconfig", default_value = kube::AGENT_NAMESPACE)]
    agent_namespace: String,
    /// The image of test pods; see below
    #[arg(
        help_heading = "Which cluster",
        long,
        value_name = "IMAGE",
        requires = "kubeconfig"
    )]
    image: Option<String>,
    /// Where this program is in the image
    #[arg(
        help_heading = "Which cluster",
        long,
        value_name = "FILE",
        requires = "image",
        default_value = "thalweg"
    )]
    image_program: String,
}

impl ClusterArgs {
    /// The cluster.
    pub(super) async fn cluster(&self) -> anyhow::Result<Arc<dyn Cluster>> {
        if let Some(kubeconfig) = &self.kubeconfig {
            let Some(image) = self.image.clone() else {
                bail!("--image is needed for a cluster's test pods")
            };
            let client = kube::client(kubeconfig, self.context.as_deref()).await?;
            let title = format!("cluster of {}", kubeconfig.display());
            let agent_namespace = self.agent_namespace.clone();
            return Ok(Arc::new(KubeCluster {
                title,
                client,
                image,
                program: self.image_program.clone(),
                agent_namespace,
            }));
        }
        let lab = match &self.lab {
            Some(name) => Lab::open(name)?,
            None => Lab::only()?,
        };
        let client = lab.client().await?;
        let program = std::env::current_exe()?.display().to_string();
        Ok(Arc::new(LabCluster { lab, client, program }))
    }
}

/// A lab: commands run in a pod's namespaces without the API in between, and agents are asked by their sockets.
struct LabCluster {
    lab: Lab,
    client: ::kube::Client,
    program: String,
}

impl Cluster for LabCluster {
    fn title(&self) -> String {
        format!("lab {}", self.lab.name())
    }

    fn client(&self) -> ::kube::Client {
        self.client.clone()
    }

    fn image(&self) -> String {
        "host".into()
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
            let target = Target::Pod {
                namespace: namespace.into(),
                name: pod.into(),
            };
            let [program, arguments @ ..] = command else {
                return Err(ClusterError("no command".into()));
            };
            let command = self
                .lab
                .command(&target, program, arguments)
                .map_err(ClusterError::new)?;
            let mut command = tokio::process::Command::from(command);
            let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
            let output = output
                .map_err(|error| ClusterError(format!("cannot run {program} in pod {pod}: {error}")))?;
            let code = output.status.code().unwrap_or(-1);
            Ok(Output {
                code,
                stdout: output.stdout,
                stderr: output.stderr,
            })
        })
    }

    fn status<'a>(&'a self, node: &'a str) -> BoxFuture<'a, Result<Option<Status>, ClusterError>> {
        Box::pin(async move {
            let socket = self.lab.agent_socket(node).map_err(ClusterError::new)?;
            let body = http::get(&socket, "/v1/status").await;
            let body = body.map_err(|error| ClusterError(format!("agent of {node}: {error:#}")))?;
            serde_json::from_slice(&body).map(Some).map_err(ClusterError::new)
        })
    }
}
