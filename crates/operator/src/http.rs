// SPDX-License-Identifier: Apache-2.0
//! Health and metrics, on a Unix socket and, if asked for, to the network.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use k8s::{Standing, WatchStatus};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use telemetry::bounded;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

use crate::elect::leads;
use crate::reconcile::Shown;

/// What the TCP listener lets in: a scrape takes milliseconds.
const BOUNDS: bounded::Bounds = bounded::Bounds {
    connections: 32,
    time: Duration::from_secs(10),
};

/// What requests are answered from.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) registry: Arc<Registry>,
    pub(crate) standing: watch::Receiver<Standing>,
    pub(crate) shown: Arc<Mutex<Shown>>,
    pub(crate) watches: Vec<watch::Receiver<WatchStatus>>,
}

/// Listens on a Unix socket that only root may use, over one that a dead operator left.
///
/// # Errors
/// When the socket cannot be made; the text names it.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    let named = |error: io::Error| {
        let text = format!(
            "cannot listen on {}: {error}; see the setting socket",
            path.display()
        );
        io::Error::new(error.kind(), text)
    };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(named)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(named(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(named)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(named)?;
    Ok(listener)
}

/// Listens on TCP.
///
/// # Errors
/// When the address cannot be used; the text names it.
pub(crate) async fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let text = format!("cannot listen on {address}: {error}; see the setting metricsAddress");
        io::Error::new(error.kind(), text)
    })
}

/// Answers on the Unix socket until `stop` is over.
pub(crate) async fn serve(
    listener: UnixListener,
    site: Site,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let served = axum::serve(listener, router(site)).with_graceful_shutdown(stop);
    if let Err(error) = served.await {
        tracing::error!(%error, "the operator's socket is no longer served");
    }
}

/// Answers on TCP until it is dropped.
pub(crate) async fn serve_tcp(listener: TcpListener, site: Site) {
    bounded::serve(listener, router(site), BOUNDS).await;
}

fn router(site: Site) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(site)
}

/// A follower is ready when it could lead at once; a leader when it has been through all of it once.
async fn readyz(State(site): State<Site>) -> (StatusCode, String) {
    let waiting = site.watches.iter().find_map(|watch| {
        let status = watch.borrow().clone();
        let error = status.last_error.map(|(_, error)| format!(" ({error})"));
        (!status.in_sync).then(|| format!("waiting for {}{}", status.resource, error.unwrap_or_default()))
    });
    if let Some(waiting) = waiting {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("{waiting}\n"));
    }
    match leads(&site.standing.borrow().clone()) {
        Some(term) if !site.shown.lock().passed => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("leading in term {term}, not through the first pass yet\n"),
        ),
        Some(term) => (StatusCode::OK, format!("ok, leading in term {term}\n")),
        None => (StatusCode::OK, "ok, following\n".to_owned()),
    }
}

async fn metrics(State(site): State<Site>) -> Response {
    match telemetry::metrics::encode(&site.registry) {
        Ok(text) => ([(header::CONTENT_TYPE, telemetry::metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
