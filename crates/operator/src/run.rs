// SPDX-License-Identifier: Apache-2.0
//! Puts the operator together, starts it in order and stops it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use api::config::OperatorConfig;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s::{Api, Election, IpPools, Reporter, WatchStatus};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use state::table;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::elect::{self, Candidate};
use crate::http::{self, Site};
use crate::metrics::{Counts, Scrape};
use crate::reconcile::{self, Shown, Worker};
use crate::seen::Tables;

/// The pause before the definitions are tried again.
const RETRY: Duration = Duration::from_secs(2);
/// How long the end may take: giving the lease up, answering what is under way.
const END_LIMIT: Duration = Duration::from_secs(2);
/// What signs events.
const COMPONENT: &str = "thalweg-operator";

/// Runs the operator until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start; the text says why and what to do.
pub fn run(config: OperatorConfig) -> anyhow::Result<()> {
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let version = env!("CARGO_PKG_VERSION");
    info!(version, identity = config.identity, lab = config.lab, "starting");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no asynchronous runtime can be made")?;
    let result = runtime.block_on(start_and_serve(config));
    runtime.shutdown_background();
    result
}

async fn start_and_serve(config: OperatorConfig) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("signals cannot be handled")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("signals cannot be handled")?;
    let api = k8s::connect(config.kubeconfig.as_deref()).await?;
    let socket = http::bind(&config.socket)?;
    let tcp = match config.metrics_address {
        Some(address) => Some(http::bind_tcp(address).await?),
        None => None,
    };
    let (stop, stopped) = watch::channel(false);
    let (parts, ends) = assemble(&config, &api, stopped.clone());
    let serve = http::serve(socket, parts.site.clone(), until(stopped));
    let served = tokio::spawn(serve);
    if let Some(listener) = tcp {
        tokio::spawn(http::serve_tcp(listener, parts.site));
    }
    if config.install_definitions {
        tokio::select! {
            () = install(&api) => {}
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        }
    }
    let work: Vec<_> = parts.work.into_iter().map(tokio::spawn).collect();
    let candidate = tokio::spawn(ends);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    info!("stopping");
    // First nothing more is written, then the lease is given up.
    work.iter().for_each(tokio::task::JoinHandle::abort);
    futures::future::join_all(work).await;
    stop.send_replace(true);
    let _ = tokio::time::timeout(END_LIMIT, futures::future::join(candidate, served)).await;
    info!("stopped");
    Ok(())
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // A sender that is gone means the same.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Until they are there nothing else makes sense.
async fn install(api: &Api) {
    let begin = Instant::now();
    while let Err(error) = k8s::ensure_definitions(&api.client).await {
        warn!(error = telemetry::log::with_causes(&error), waited = ?begin.elapsed(), "trying again");
        tokio::time::sleep(RETRY).await;
    }
}

/// What runs until the end, and what is shown of it.
struct Parts {
    work: Vec<BoxFuture<'static, ()>>,
    site: Site,
}

fn assemble(
    config: &OperatorConfig,
    api: &Api,
    stopped: watch::Receiver<bool>,
) -> (Parts, BoxFuture<'static, ()>) {
    let client = || api.client.clone();
    let ((pools_writer, pools), (nodes_writer, nodes), (machines_writer, machines)) =
        (table("thalwegpools"), table("thalwegnodes"), table("nodes"));
    let tables = Tables {
        pools,
        nodes,
        machines,
    };
    let [(pools_status, a), (nodes_status, b), (machines_status, c)] =
        ["thalwegpools", "thalwegnodes", "nodes"].map(|name| watch::channel(WatchStatus::new(name)));
    let (services, service_cidrs) = watch::channel(config.service_cidrs.clone());
    let (standing_sender, standing) = watch::channel(elect::nobody());
    let (deposed_sender, deposed) = watch::channel(0);
    let candidate = Candidate {
        election: Election::new(
            client(),
            (&config.lease_namespace, &config.lease_name),
            unique(&config.identity),
            elect::times(config.lease_duration),
        ),
        duration: config.lease_duration,
        pools: tables.pools.clone(),
        nodes: tables.nodes.clone(),
        standing: standing_sender,
        deposed,
    };
    let (counts, shown) = (Counts::default(), Arc::new(Mutex::new(Shown::default())));
    let worker = Worker {
        tables,
        api: IpPools::new(client()),
        reporter: Reporter::new(client(), COMPONENT),
        standing: standing.clone(),
        deposed: deposed_sender,
        service_cidrs,
        release_after: config.release_after,
        counts: counts.clone(),
        shown: shown.clone(),
    };
    let watches = vec![a, b, c];
    let mut registry = Registry::default();
    counts.register(&mut registry);
    registry.register_collector(Box::new(Scrape {
        standing: standing.clone(),
        shown: shown.clone(),
        watches: watches.clone(),
    }));
    let site = Site {
        registry: Arc::new(registry),
        standing,
        shown,
        watches,
    };
    let machines = client();
    let work: Vec<BoxFuture<'static, ()>> = vec![
        k8s::watch_pools(client(), pools_writer, pools_status).boxed(),
        k8s::watch_node_pools(client(), nodes_writer, nodes_status).boxed(),
        async move { k8s::watch_machines(machines, None, machines_writer, machines_status).await }.boxed(),
        reconcile::watch_services(api.clone(), config.service_cidrs.clone(), services).boxed(),
        worker.run().boxed(),
    ];
    (Parts { work, site }, candidate.run(stopped).boxed())
}

/// Another process of the same name is another candidate.
fn unique(identity: &str) -> String {
    use std::hash::{BuildHasher as _, RandomState};
    format!(
        "{identity}_{:08x}",
        RandomState::new().hash_one(std::process::id()) >> 32
    )
}
