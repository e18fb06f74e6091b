// SPDX-License-Identifier: Apache-2.0
//! Listeners, connections and their end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::admission::alloc::Allocator;
use crate::config::{Config, Kubeconfig};
use crate::resources::SharedRegistry;
use crate::store::{Limits, Store};
use crate::tls::{self, TlsError};
use crate::{bootstrap, http};

/// How long a client may take to finish its TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to send a request's headers. It also ends idle connections, so it is longer than the 90 s
/// for which the usual clients keep theirs: they never meet a connection that we are just closing.
const HEADER_TIMEOUT: Duration = Duration::from_secs(100);
/// How many connections there may be; further ones wait in the listener's queue.
const MAX_CONNECTIONS: usize = 8192;
/// How long `shutdown` waits for requests that are being answered.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);
/// A pause after an accept that failed for want of something, so as not to spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The certificate or TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A listener cannot be used by tokio.
    #[error("cannot use the listener: {0}")]
    Listener(#[from] std::io::Error),
    /// There is nothing to listen on.
    #[error("no listener was given: pass at least one bound TcpListener")]
    NoListener,
    /// An object that every cluster has could not be made: the configuration contradicts itself.
    #[error("cannot create the initial objects: {0}: check the service CIDRs and the NodePort range")]
    Bootstrap(String),
}

/// What all requests share.
pub(crate) struct Server {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) registry: SharedRegistry,
    pub(crate) stopping: CancellationToken,
}

impl Server {
    /// A server with the objects that every cluster has.
    pub(crate) fn new(config: Config) -> Result<Self, StartError> {
        let limits = Limits {
            history: config.watch_history,
            queue: config.watcher_queue,
        };
        let allocator = Allocator::new(config.service_cidrs, config.node_ports.clone());
        let server = Self {
            config,
            store: Store::new(limits, allocator),
            registry: SharedRegistry::new(),
            stopping: CancellationToken::new(),
        };
        bootstrap::create_initial_objects(&server).map_err(|e| StartError::Bootstrap(e.message))?;
        Ok(server)
    }
}

/// A running API server. Dropping it stops the server without waiting.
#[derive(Debug)]
pub struct ApiServer {
    addresses: Vec<SocketAddr>,
    ca_pem: String,
    token: String,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

impl ApiServer {
    /// Starts a server on these listeners, within the current tokio runtime. They may have been bound in other network
    /// namespaces.
    pub fn start(config: Config, listeners: Vec<std::net::TcpListener>) -> Result<Self, StartError> {
        if listeners.is_empty() {
            return Err(StartError::NoListener);
        }
        let identity = tls::identity(&config.sans)?;
        let (token, tasks) = (config.token.clone(), TaskTracker::new());
        let server = Arc::new(Server::new(config)?);
        let addresses = listeners
            .iter()
            .map(std::net::TcpListener::local_addr)
            .collect::<Result<Vec<_>, _>>()?;
        bootstrap::publish_addresses(&server, &addresses).map_err(|e| StartError::Bootstrap(e.message))?;
        let stopping = server.stopping.clone();
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        for listener in listeners {
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            let acceptor = Acceptor {
                server: server.clone(),
                tls: identity.acceptor.clone(),
                connections: connections.clone(),
                tasks: tasks.clone(),
            };
            tasks.spawn(acceptor.run(listener));
        }
        Ok(Self {
            addresses,
            ca_pem: identity.ca_pem,
            token,
            stopping,
            tasks,
        })
    }

    /// Where it listens, in the order of the listeners.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The certificate authority, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The text of a kubeconfig for this server; `server` is the URL as its user reaches it.
    pub fn kubeconfig(&self, name: &str, server: &str) -> String {
        Kubeconfig {
            name,
            server,
            ca_pem: &self.ca_pem,
            token: &self.token,
        }
        .render()
    }

    /// Stops: no more connections, watches end, requests under way get a moment to finish.
    pub async fn shutdown(self) {
        self.stopping.cancel();
        self.tasks.close();
        if timeout(SHUTDOWN_GRACE, self.tasks.wait()).await.is_err() {
            warn!(
                connections = self.tasks.len(),
                "api server stopped with requests under way"
            );
        }
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

struct Acceptor {
    server: Arc<Server>,
    tls: TlsAcceptor,
    connections: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl Acceptor {
    async fn run(self, listener: TcpListener) {
        loop {
            let Ok(permit) = self.connections.clone().acquire_owned().await else {
                return;
            };
            let accepted = tokio::select! {
                () = self.server.stopping.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let (server, tls) = (self.server.clone(), self.tls.clone());
                    self.tasks.spawn(async move {
                        serve(server, tls, stream, peer).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }
}

/// One connection, from its handshake to its end.
async fn serve(server: Arc<Server>, tls: TlsAcceptor, stream: TcpStream, peer: SocketAddr) {
    let _ = stream.set_nodelay(true);
    let stopping = server.stopping.clone();
    let stream = tokio::select! {
        () = stopping.cancelled() => return,
        stream = timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)) => match stream {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return debug!(%peer, %error, "TLS handshake failed"),
            Err(_) => return debug!(%peer, "TLS handshake took too long"),
        },
    };
    let service = service_fn(move |request| http::answer(server.clone(), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(SHUTDOWN_GRACE, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        debug!(%peer, %error, "connection ended");
    }
}
