// SPDX-License-Identifier: Apache-2.0
//! The connection to the Kubernetes API.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

use crate::watch::WATCH_SECONDS;

/// How long to wait for a connection before trying again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection with a request under way may be silent: longer than any watch.
const READ_TIMEOUT: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 15);

/// A client and where it connects to.
#[derive(Clone)]
pub struct Api {
    /// The client.
    pub client: Client,
    /// The server's address, for people.
    pub server: String,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

/// Why there is no client. A server that does not answer is not among the reasons: watches wait for it.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig cannot be used.
    #[error(
        "the kubeconfig {} cannot be used: {reason}; correct it or name another with --kubeconfig", path.display()
    )]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: KubeconfigError,
    },
    /// There is no kubeconfig and we are not in a pod.
    #[error("no kubeconfig is set and this is not a pod with a service account ({0}); set --kubeconfig FILE")]
    InCluster(kube::config::InClusterError),
    /// The credentials cannot be used.
    #[error("the credentials for {server} cannot be used: {reason}; correct them in the kubeconfig")]
    Credentials {
        /// The API's address.
        server: String,
        /// Why.
        reason: Box<kube::Error>,
    },
}

/// Makes a client from a kubeconfig, or from the pod's service account without one. Nothing is sent yet.
///
/// # Errors
/// When there are no usable settings or credentials.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Api, ConnectError> {
    let mut config = match kubeconfig {
        Some(path) => from_file(path).await?,
        None => Config::incluster().map_err(ConnectError::InCluster)?,
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    config.reset_reader_on_write = true;
    // The client would try again by itself for minutes, and nobody would hear of it.
    config.default_retry = false;
    let server = config.cluster_url.to_string();
    match Client::try_from(config) {
        Ok(client) => Ok(Api { client, server }),
        Err(reason) => Err(ConnectError::Credentials {
            server,
            reason: Box::new(reason),
        }),
    }
}

async fn from_file(path: &Path) -> Result<Config, ConnectError> {
    let error = |reason| ConnectError::Kubeconfig {
        path: path.to_owned(),
        reason,
    };
    let kubeconfig = Kubeconfig::read_from(path).map_err(error)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(error)
}
