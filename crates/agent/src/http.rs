// SPDX-License-Identifier: Apache-2.0
//! The agent's own socket: what the command line and monitoring ask. Reads only.

mod events;
mod health;
mod services;
mod status;
mod views;

use std::fs;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use api::agent::{CONNTRACK_LIMIT, ErrorView, MapRowView, MapView};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::registry::Registry;
use serde::Deserialize;
use telemetry::bounded;
use tokio::net::{TcpListener, UnixListener};

use crate::observe::Observed;
use crate::readiness::first_missing;

/// How long the apply thread may take to answer a question.
const APPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// What the TCP listener lets in: a scrape takes milliseconds.
const METRICS_BOUNDS: bounded::Bounds = bounded::Bounds {
    connections: 32,
    time: Duration::from_secs(10),
};

/// What requests are answered from.
#[derive(Clone, Debug)]
pub struct Site {
    /// Everything that can be looked at.
    pub observed: Arc<Observed>,
    /// What `/metrics` says.
    pub registry: Arc<Registry>,
}

/// Listens on a Unix socket that only root may use, over one that a dead agent left.
///
/// # Errors
/// When the socket cannot be made; the text names it.
pub fn bind(path: &FilePath) -> io::Result<UnixListener> {
    let named = |error: io::Error| {
        io::Error::new(
            error.kind(),
            format!(
                "cannot listen on {}: {error}; see the setting runDir",
                path.display()
            ),
        )
    };
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(named(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(named)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(named)?;
    Ok(listener)
}

/// Listens on TCP for those who collect metrics.
///
/// # Errors
/// When the address cannot be used; the text names it.
pub async fn bind_metrics(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let text = format!("cannot listen on {address}: {error}; see the setting metricsAddress");
        io::Error::new(error.kind(), text)
    })
}

/// Answers requests on the agent's socket until `stop` is over.
pub async fn serve(listener: UnixListener, site: Site, stop: impl Future<Output = ()> + Send + 'static) {
    let served = axum::serve(listener, full(site))
        .with_graceful_shutdown(stop)
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the agent's socket is no longer served");
    }
}

/// Answers requests for metrics and health on TCP until it is dropped.
pub async fn serve_metrics(listener: TcpListener, site: Site) {
    bounded::serve(listener, open().with_state(site), METRICS_BOUNDS).await;
}

/// What anybody on the network may ask where `metricsAddress` is set.
fn open() -> Router<Site> {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}

fn full(site: Site) -> Router {
    open()
        .route("/v1/status", get(status::get))
        .route("/v1/endpoints", get(endpoints))
        .route("/v1/endpoints/{first}/{second}", get(endpoint))
        .route("/v1/nodes", get(nodes))
        .route("/v1/services", get(services::list))
        .route("/v1/services/{namespace}/{name}", get(services::get))
        .route("/v1/ipam", get(ipam))
        .route("/v1/maps", get(maps))
        .route("/v1/maps/{name}", get(map_rows))
        .route("/v1/conntrack", get(conntrack))
        .route("/v1/health", get(health::get))
        .route("/v1/events", get(events::get))
        .fallback(unknown)
        .with_state(site)
}

/// A request that cannot be answered.
#[derive(Debug)]
struct Failure(StatusCode, String);

impl Failure {
    fn not_found(text: String) -> Self {
        Self(StatusCode::NOT_FOUND, text)
    }

    fn internal(error: &dyn std::fmt::Display) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }

    fn busy() -> Self {
        Self(
            StatusCode::SERVICE_UNAVAILABLE,
            "the apply thread is busy or stopping; try again".to_owned(),
        )
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(ErrorView { error: self.1 })).into_response()
    }
}

type Answer<T> = Result<Json<T>, Failure>;

async fn unknown(uri: axum::http::Uri) -> Failure {
    Failure::not_found(format!(
        "there is no {}; agent and command line should be of one version",
        uri.path()
    ))
}

async fn healthz(State(site): State<Site>) -> (StatusCode, &'static str) {
    match ask(&site.observed, |_| ()).await {
        Ok(()) => (StatusCode::OK, "ok\n"),
        Err(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the apply thread does not answer\n",
        ),
    }
}

async fn readyz(State(site): State<Site>) -> (StatusCode, String) {
    let readiness = site.observed.readiness.borrow().clone();
    match readiness.is_ready() {
        true => (StatusCode::OK, "ok\n".to_owned()),
        false => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{}\n", first_missing(&readiness)),
        ),
    }
}

async fn metrics(State(site): State<Site>) -> Result<Response, Failure> {
    let text = telemetry::metrics::encode(&site.registry).map_err(|error| Failure::internal(&error))?;
    Ok(([(header::CONTENT_TYPE, telemetry::metrics::CONTENT_TYPE)], text).into_response())
}

async fn endpoints(State(site): State<Site>) -> Json<Vec<api::agent::EndpointView>> {
    Json(views::endpoints(&site.observed))
}

async fn endpoint(
    State(site): State<Site>,
    Path((first, second)): Path<(String, String)>,
) -> Answer<api::agent::EndpointView> {
    let all = views::endpoints(&site.observed).into_iter();
    let mut matching = all.filter(|endpoint| {
        let (id, pod) = (&endpoint.id, &endpoint.pod);
        (id.container_id == first && id.ifname == second) || (pod.namespace == first && pod.name == second)
    });
    matching.next().map(Json).ok_or_else(|| {
        Failure::not_found(format!(
            "this node has no endpoint {first}/{second}; see `thalweg endpoint list`"
        ))
    })
}

async fn nodes(State(site): State<Site>) -> Json<Vec<api::agent::NodeView>> {
    Json(views::nodes(&site.observed))
}

async fn ipam(State(site): State<Site>) -> Json<api::agent::IpamView> {
    Json(views::ipam(&site.observed))
}

async fn maps(State(site): State<Site>) -> Answer<Vec<MapView>> {
    let maps = ask(&site.observed, datapath::Datapath::maps)
        .await?
        .map_err(|error| Failure::internal(&error))?;
    Ok(Json(maps.iter().map(views::map).collect()))
}

async fn map_rows(State(site): State<Site>, Path(name): Path<String>) -> Answer<Vec<MapRowView>> {
    let rows = ask(&site.observed, {
        let name = name.clone();
        move |datapath| datapath.dump(&name)
    });
    match rows.await?.map_err(|error| Failure::internal(&error))? {
        Some(rows) => Ok(Json(rows.into_iter().map(views::map_row).collect())),
        None => Err(Failure::not_found(format!(
            "there is no map {name}; see `thalweg map list`"
        ))),
    }
}

#[derive(Debug, Deserialize)]
struct ConntrackQuery {
    limit: Option<usize>,
    ip: Option<IpAddr>,
}

/// Walking the table takes tens of milliseconds when it is large: not on the thread that everything else needs.
async fn conntrack(
    State(site): State<Site>,
    Query(query): Query<ConntrackQuery>,
) -> Answer<api::agent::ConntrackList> {
    let limit = query.limit.unwrap_or(CONNTRACK_LIMIT);
    let walk = tokio::task::spawn_blocking(move || views::conntrack(&site.observed, query.ip, limit));
    let list = walk.await.map_err(|error| Failure::internal(&error))?;
    list.map(Json).map_err(|error| Failure::internal(&error))
}

/// Asks the apply thread.
async fn ask<T: Send + 'static>(
    observed: &Observed,
    look: impl FnOnce(&datapath::Datapath) -> T + Send + 'static,
) -> Result<T, Failure> {
    let answer = tokio::time::timeout(APPLY_TIMEOUT, observed.apply.inspect(look)).await;
    answer.ok().flatten().ok_or_else(Failure::busy)
}
