// SPDX-License-Identifier: Apache-2.0
//! Puts the agent together, starts it in order and stops it in reverse.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use api::config::{Config, DirectNodeRoutes, IpamMode, RoutingMode};
use datapath::common::NodeConfig;
use datapath::common::nat::Ports;
use datapath::{AttachMode, Conntrack, Counters, Datapath, Features, Limits, Timeouts};
use k8s::{Api, WatchStatus};
use model::{Endpoint, Node, NodePools, Pod, RateLimits};
use netlink::Netlink;
use prometheus_client::registry::Registry;
use state::{Table, Writer, table};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

use crate::apply::{self, Apply, Parts, ServiceTables};
use crate::cluster_pool::{self, ClusterPool};
use crate::cni_server::{self, SocketFile};
use crate::conflist::Conflist;
use crate::endpoints::Steps;
use crate::events::{EventLog, EventThread};
use crate::health;
use crate::http::{self, Site};
use crate::kube_proxy;
use crate::lock::Lock;
use crate::masquerade::Masquerade;
use crate::metrics::Scrape;
use crate::observe::Observed;
use crate::plugin::Plugin;
use crate::privileges;
use crate::readiness::{self, Readiness, Runtime};
use crate::services;
use crate::taint;
use crate::tunnel::Tunnel;

/// How long answers under way on the agent's socket may take when the agent stops.
const HTTP_DRAIN: Duration = Duration::from_millis(300);

/// Threads for questions that take long, such as a walk over all connections.
const BLOCKING_THREADS_MAX: usize = 2;

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// When the agent cannot start; the text says why and what to do.
pub fn run(config: Config) -> anyhow::Result<()> {
    let started = Instant::now();
    for warning in &config.warnings {
        warn!("{warning}");
    }
    info!(
        version = env!("CARGO_PKG_VERSION"),
        node = config.node_name,
        lab = config.lab,
        "starting"
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build()
        .context("no asynchronous runtime can be made")?;
    let result = runtime.block_on(start_and_serve(config, started));
    // Nothing that still runs in the background may hold up the end.
    runtime.shutdown_background();
    result
}

async fn start_and_serve(config: Config, started: Instant) -> anyhow::Result<()> {
    let mut stop = Stop::new().context("signals cannot be handled")?;
    privileges::check()?;
    if config.services.is_some() {
        kube_proxy::check()?;
    }
    let _lock = Lock::take(&config.run_dir)?;
    // The run directory may be this agent's own, and the programs another's: seen before the plugin's socket is taken from that one.
    let _programs = Datapath::lock(&config.bpffs)?;
    let api = k8s::connect(config.kubeconfig.as_deref()).await?;
    // The watches are on their way while the kernel's side is being restored.
    let tables = Tables::watch(&config, &api);
    // Plugins that call from now on wait; one that queued its DEL before is seen when the queue is worked off.
    let listener = cni_server::bind(&config.cni.socket)?;
    let socket = listener.file().clone();
    let kernel = tokio::task::spawn_blocking({
        let (config, nodes, granted) = (config.clone(), tables.nodes.clone(), tables.granted());
        let services = tables.services.clone();
        move || Kernel::start(&config, (nodes, granted, services))
    });
    let kernel = tokio::select! {
        kernel = kernel => kernel??,
        // What is half done is completed or swept by the next start, as after a crash.
        () = stop.requested() => return Ok(()),
    };
    let chooser = tables.cluster_pool.as_ref().map(|pool| pool.chooser.clone());
    let cni = listener.serve(kernel.apply.client.clone(), chooser)?;
    tokio::task::spawn(apply::forward(tables.nodes.clone(), kernel.apply.client.clone()));
    if let Some(pool) = &tables.cluster_pool {
        tokio::task::spawn(apply::forward(pool.granted.clone(), kernel.apply.client.clone()));
        pool.report(kernel.apply.view.clone());
    }
    if let Some(services) = &tables.services {
        services::follow(services, &kernel.apply);
    }
    let agent_socket = http::bind(&config.agent_socket())?;
    let metrics_socket = match config.metrics_address {
        Some(address) => Some(http::bind_metrics(address).await?),
        None => None,
    };
    let runtime = runtime(&config, socket, kernel.features.tcx);
    let conflist = runtime.conflist.clone();
    let remove_conflist = config.cni.remove_conf_on_exit;
    let (readiness, ready) = watch::channel(Readiness::default());
    tokio::task::spawn(taint::keep(api.clone(), config.node_name.clone(), ready.clone()));
    let observed = Arc::new(observed(config, started, &api, &tables, &kernel, ready));
    let site = Site {
        observed: observed.clone(),
        registry: Arc::new(registry(&kernel, &tables, observed.clone())),
    };
    let (stop_http, http_stopped) = oneshot::channel::<()>();
    let served = http::serve(
        agent_socket,
        site.clone(),
        async move { drop(http_stopped.await) },
    );
    let http = tokio::task::spawn(served);
    if let Some(listener) = metrics_socket {
        tokio::task::spawn(http::serve_metrics(listener, site));
    }
    tokio::select! {
        () = readiness::keep(&observed, runtime, readiness) => {}
        () = stop.requested() => {}
    }
    if remove_conflist && let Err(error) = conflist.remove() {
        warn!(%error, "the network configuration stays");
    }
    drop(stop_http);
    // A follower of events does not end by itself.
    let _ = tokio::time::timeout(HTTP_DRAIN, http).await;
    kernel.stop(cni);
    info!("stopped; programs, links and routes stay as they are");
    Ok(())
}

fn runtime(config: &Config, socket: SocketFile, tcx: bool) -> Runtime {
    let api::config::Cni {
        conf_dir,
        bin_dir,
        chained,
        behind,
        ..
    } = &config.cni;
    Runtime {
        conflist: Conflist::new(conf_dir, &config.cni.socket, chained, behind.as_deref()),
        plugin: Plugin::new(bin_dir, config.cni.install_plugin),
        exclusive: config.cni.exclusive,
        socket,
        tcx,
    }
}

/// The tables that Kubernetes fills.
struct Tables {
    nodes: Table<Node>,
    pods: Table<Pod>,
    watches: Vec<watch::Receiver<WatchStatus>>,
    /// Where the operator hands addresses out.
    cluster_pool: Option<ClusterPool>,
    /// Where services are ours to serve.
    services: Option<ServiceTables>,
}

impl Tables {
    fn granted(&self) -> Option<Table<NodePools>> {
        self.cluster_pool.as_ref().map(|pool| pool.granted.clone())
    }

    fn watch(config: &Config, api: &Api) -> Self {
        let (nodes_writer, nodes) = table("nodes");
        let (pods_writer, pods) = table("pods");
        let (nodes_status, nodes_watch) = watch::channel(WatchStatus::new("nodes"));
        let (pods_status, pods_watch) = watch::channel(WatchStatus::new("pods"));
        tokio::task::spawn(k8s::watch_nodes(api.client.clone(), nodes_writer, nodes_status));
        let (client, name) = (api.client.clone(), config.node_name.clone());
        tokio::task::spawn(async move { k8s::watch_pods(client, &name, pods_writer, pods_status).await });
        let mut watches = vec![nodes_watch, pods_watch];
        let services = config.services.is_some().then(|| {
            let (services, more) = services::watch(api, &pods);
            watches.extend(more);
            services
        });
        match config.ipam_mode {
            IpamMode::Kubernetes => Self {
                nodes,
                pods,
                watches,
                cluster_pool: None,
                services,
            },
            IpamMode::ClusterPool => {
                let pool = cluster_pool::start(config, api, nodes, pods.clone());
                watches.extend(pool.watches.iter().cloned());
                Self {
                    nodes: pool.nodes.clone(),
                    pods,
                    watches,
                    cluster_pool: Some(pool),
                    services,
                }
            }
        }
    }
}

/// The threads that work on the kernel, and handles into it.
struct Kernel {
    apply: Apply,
    events: Option<EventThread>,
    log: EventLog,
    endpoints: Table<Endpoint>,
    conntrack: Conntrack,
    counters: Counters,
    features: Features,
    timeouts: Timeouts,
    steps: Steps,
    /// Taken for as long as the agent runs.
    _tunnel_port: Option<UdpSocket>,
}

impl Kernel {
    fn start(
        config: &Config,
        (nodes, granted, services): (Table<Node>, Option<Table<NodePools>>, Option<ServiceTables>),
    ) -> anyhow::Result<Self> {
        let tunnel = tunnel(config)?;
        let tunnel_port = tunnel.map(|tunnel| tunnel.reserve_port()).transpose()?.flatten();
        let mut datapath = Datapath::load(&datapath_options(config, tunnel.as_ref()))?;
        let (conntrack, counters) = (datapath.conntrack(), datapath.counters());
        let (features, reader) = (datapath.features().clone(), datapath.take_events());
        let (writer, endpoints): (Writer<Endpoint>, Table<Endpoint>) = table("endpoints");
        let (timeouts, steps) = (timeouts(config), Steps::default());
        let parts = Parts {
            datapath,
            nodes,
            granted,
            services,
            endpoints: writer,
            steps: steps.clone(),
        };
        let apply = apply::start(apply_options(config, tunnel, timeouts), parts)?;
        let log = EventLog::default();
        let events = reader
            .map(|reader| EventThread::start(reader, log.clone(), apply.client.clone()))
            .transpose();
        let events = events.context("no thread for events can be started")?;
        Ok(Self {
            apply,
            events,
            log,
            endpoints,
            conntrack,
            counters,
            features,
            timeouts,
            steps,
            _tunnel_port: tunnel_port,
        })
    }

    /// Ends calls first, then what they work with.
    fn stop(self, cni: cni_server::Server) {
        cni.stop();
        self.apply.stop();
        if let Some(events) = self.events {
            events.stop();
        }
    }
}

/// Whether there is a tunnel and who wraps: what the programs are loaded with depends on it.
fn tunnel(config: &Config) -> anyhow::Result<Option<Tunnel>> {
    match config.routing_mode {
        RoutingMode::Native => Ok(None),
        RoutingMode::Tunnel => Ok(Some(Tunnel::prepare(&mut Netlink::open()?, config.tunnel)?)),
    }
}

fn datapath_options(config: &Config, tunnel: Option<&Tunnel>) -> datapath::Options {
    let host_routing = if config.host_routing {
        NodeConfig::HOST_ROUTING
    } else {
        0
    };
    let masquerade = if config.masquerade.is_on() {
        NodeConfig::MASQUERADE
    } else {
        0
    };
    let chained = if config.cni.behind.is_some() {
        NodeConfig::CHAINED
    } else {
        0
    };
    let families = NodeConfig::IPV4 | NodeConfig::IPV6;
    let services = if config.services.is_some() {
        NodeConfig::SERVICES
    } else {
        0
    };
    let node = NodeConfig::new(families | host_routing | masquerade | chained | services);
    datapath::Options {
        bpffs: config.bpffs.clone(),
        node: tunnel.map_or(node, |tunnel| tunnel.configure(node)),
        limits: Limits {
            conntrack_max: config.conntrack.max_entries.unwrap_or(0),
            endpoints_max: 0,
            services_max: config
                .services
                .as_ref()
                .and_then(|services| services.services_max)
                .unwrap_or(0),
            events_bytes: config.event_ring_bytes,
        },
        attach: AttachMode::Auto,
        former: datapath::MIGRATIONS,
    }
}

fn apply_options(config: &Config, tunnel: Option<Tunnel>, timeouts: Timeouts) -> apply::Options {
    apply::Options {
        node_name: config.node_name.clone(),
        devices: config.devices.clone(),
        mtu: config.mtu,
        direct_node_routes: config.direct_node_routes == DirectNodeRoutes::Auto,
        tunnel,
        masquerade: masquerade(config),
        services: config.services.as_ref().map(services::settings),
        cgroup: config
            .services
            .as_ref()
            .and_then(|services| services.sockets.clone()),
        cni_socket: config.cni.socket.clone(),
        limited: limited(config),
        tuned: config.cni.chained.iter().any(|one| one.kind() == "tuning"),
        behind: config.cni.behind.clone(),
        run_dir: config.run_dir.clone(),
        gc_interval: config.conntrack.gc_interval,
        timeouts,
    }
}

/// What a section of `bandwidth` gives to all pods.
fn limited(config: &Config) -> RateLimits {
    let bandwidth = config.cni.chained.iter().filter(|one| one.kind() == "bandwidth");
    bandwidth.fold(RateLimits::default(), |limits, one| {
        limits.or(RateLimits {
            ingress: one.rate("ingressRate") > 0,
            egress: one.rate("egressRate") > 0,
        })
    })
}

fn masquerade(config: &Config) -> Option<Masquerade> {
    let api::config::Masquerade {
        ipv4,
        ipv6,
        excluded,
        ports: (first, last),
    } = &config.masquerade;
    let services = config.services.is_some();
    (services || config.masquerade.is_on()).then(|| Masquerade {
        ipv4: *ipv4,
        ipv6: *ipv6,
        services,
        excluded: excluded.clone(),
        ports: Ports {
            first: *first,
            last: *last,
        },
    })
}

fn timeouts(config: &Config) -> Timeouts {
    let timeouts = &config.conntrack.timeouts;
    Timeouts {
        tcp_half_open: timeouts.syn,
        tcp_established: timeouts.established,
        tcp_half_closed: timeouts.half_closed,
        tcp_closed: timeouts.closing,
        unreplied: timeouts.udp,
        replied: timeouts.udp_replied,
        icmp: timeouts.icmp,
    }
}

fn observed(
    config: Config,
    started: Instant,
    api: &Api,
    tables: &Tables,
    kernel: &Kernel,
    readiness: watch::Receiver<Readiness>,
) -> Observed {
    let health = config.health.map(|settings| {
        let (nodes, endpoints) = (tables.nodes.clone(), kernel.endpoints.clone());
        health::start(&settings, &config.node_name, nodes, endpoints)
    });
    Observed {
        config,
        health,
        started,
        api_server: api.server.clone(),
        nodes: tables.nodes.clone(),
        pods: tables.pods.clone(),
        endpoints: kernel.endpoints.clone(),
        watches: tables.watches.clone(),
        view: kernel.apply.view.clone(),
        apply: kernel.apply.client.clone(),
        conntrack: kernel.conntrack.clone(),
        timeouts: kernel.timeouts,
        counters: kernel.counters.clone(),
        features: kernel.features.clone(),
        events: kernel.log.clone(),
        readiness,
    }
}

fn registry(kernel: &Kernel, tables: &Tables, observed: Arc<Observed>) -> Registry {
    let mut registry = Registry::default();
    kernel.steps.register(&mut registry);
    if let Some(pool) = &tables.cluster_pool {
        pool.counts.register(&mut registry);
    }
    kernel.apply.client.calls().register(&mut registry);
    if let Some(health) = &observed.health {
        health.counts.register(&mut registry);
    }
    registry.register_collector(Box::new(Scrape(observed)));
    registry
}

/// The signals that end the agent.
struct Stop {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Stop {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn requested(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        info!("stopping");
    }
}
