// SPDX-License-Identifier: Apache-2.0
//! The apply thread: the only writer to the kernel. It owns the netlink socket, the datapath, the endpoints and the pools.
//!
//! It takes [`Command`]s from a bounded channel, one at a time, and brings host devices, routes and map rows in line with the table
//! of nodes whenever that changes, when something failed before, and every [`RESYNC`]. What fails becomes a status and
//! is tried again; nothing stops the loop. Begin at [`start`].

mod client;
mod collector;
mod detour;
mod forwarding;
mod host;
mod path_mtu;
mod pools;
mod routes;
mod services;
mod survey;
mod worker;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use datapath::{Datapath, GcReport, Timeouts};
use ipam::PoolUsage;
use model::{Endpoint, EndpointId, Node, NodePools, RateLimits};
use netlink::{Netlink, netns};
use state::{Row, Status, Table, Writer};
use tokio::sync::watch;

use crate::endpoints::{Endpoints, Expedite, Kernel, NamespaceId, Steps};
use crate::masquerade::Masquerade;
use crate::tunnel::Tunnel;

pub use client::{Calls, Client, Command, LookAtServices};
pub use detour::is_detour;
pub use host::{HOST_LINK, HOST_PEER};
pub use pools::Applied;
use pools::Pools;
pub(crate) use services::is_ours as is_service;
pub use services::{HealthChecks, News, ServiceTables, Services, ServicesView};
use worker::Worker;

/// Commands that may wait; the CNI server lets fewer calls in.
pub const COMMANDS_MAX: usize = 512;
/// The kernel is compared with what is wanted at least this often.
pub const RESYNC: Duration = Duration::from_secs(30);

/// What the apply thread is told once.
#[derive(Debug)]
pub struct Options {
    /// This node's name.
    pub node_name: String,
    /// The devices towards other nodes; empty to find them.
    pub devices: Vec<String>,
    /// The packet size of pods; nothing to take it from the underlay.
    pub mtu: Option<u32>,
    /// Whether nodes on a segment with this one get a direct route; of no effect with a tunnel.
    pub direct_node_routes: bool,
    /// The tunnel to other nodes; nothing in native routing.
    pub tunnel: Option<Tunnel>,
    /// Whether and how pods' connections to the world have the node's address there.
    pub masquerade: Option<Masquerade>,
    /// How services are served, if that is ours to do.
    pub services: Option<loadbalancer::Settings>,
    /// The cgroup whose sockets talk to backends of services themselves, if they are to.
    pub cgroup: Option<PathBuf>,
    /// Where the rates of all pods are limited.
    pub limited: RateLimits,
    /// Whether a plugin after ours gives pods the hardware address that they are to have (`tuning`).
    pub tuned: bool,
    /// The network that makes pods' devices and gives their addresses, if it is not us.
    pub behind: Option<String>,
    /// The plugin's socket: queued DELs are beside it.
    pub cni_socket: PathBuf,
    /// Where the agent keeps its lock and its mark of what it has switched on.
    pub run_dir: PathBuf,
    /// The time between two collections of expired connections.
    pub gc_interval: Duration,
    /// When silent connections expire.
    pub timeouts: Timeouts,
}

impl Options {
    /// Whether pods' connections to the world have the node's address there.
    fn masquerades(&self) -> bool {
        self.masquerade.as_ref().is_some_and(Masquerade::is_on)
    }
}

/// What the apply thread works with.
#[derive(Debug)]
pub struct Parts {
    /// The loaded datapath.
    pub datapath: Datapath,
    /// The cluster's nodes.
    pub nodes: Table<Node>,
    /// What the operator has granted this node; nothing where addresses come from its Node.
    pub granted: Option<Table<NodePools>>,
    /// What services are made of; of no use without the option.
    pub services: Option<ServiceTables>,
    /// Where endpoints are published.
    pub endpoints: Writer<Endpoint>,
    /// The histograms of ADD.
    pub steps: Steps,
}

/// What the apply thread publishes beside the table of endpoints.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// How full the pools are.
    pub pools: Vec<PoolUsage>,
    /// Which grants of the operator are in force.
    pub applied: Applied,
    /// Endpoints that are not in force, and why.
    pub endpoint_errors: BTreeMap<EndpointId, String>,
    /// The way to every pod network.
    pub routes: Arc<[RouteStatus]>,
    /// The devices towards other nodes that have a program.
    pub devices: Vec<String>,
    /// The packet size of pods.
    pub mtu: u32,
    /// DELs that the plugin queued and that failed so far.
    pub queued_deletes: usize,
    /// What is wrong with the node itself and is tried again.
    pub problems: Vec<String>,
    /// The last collection of expired connections.
    pub conntrack: GcReport,
    /// What new connections of pods to the world get, if they are masqueraded.
    pub masquerade: Option<datapath::Masquerade>,
    /// Services, if they are ours to serve.
    pub services: Option<ServicesView>,
}

/// The way to a pod network, and whether it is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteStatus {
    /// What was planned.
    pub row: routing::Row,
    /// How far it is.
    pub status: Status,
}

/// The running apply thread and its collector of connections.
#[derive(Debug)]
pub struct Apply {
    /// For commands.
    pub client: Client,
    /// What is published.
    pub view: watch::Receiver<View>,
    /// What load balancers may ask this node.
    pub health_checks: watch::Receiver<HealthChecks>,
    thread: JoinHandle<()>,
    collector: JoinHandle<()>,
}

/// Why the apply thread could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The node's devices cannot be read.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// The node's network namespace cannot be told.
    #[error("cannot tell the node's network namespace: {0}; mount /proc")]
    Namespace(#[from] nix::Error),
    /// No thread.
    #[error("cannot start a thread: {0}; raise the limit on processes")]
    Thread(#[from] std::io::Error),
}

/// Rebuilds endpoints and pools from the kernel, relinks every veth, works queued DELs off, then starts the thread.
///
/// # Errors
/// When the kernel cannot be read at all.
pub fn start(options: Options, parts: Parts) -> Result<Apply, StartError> {
    let own_netns = NamespaceId::of(std::os::fd::AsFd::as_fd(&netns::current()?))?;
    let conntrack = parts.datapath.conntrack();
    let kernel = Kernel {
        netlink: Netlink::open()?,
        datapath: parts.datapath,
        own_netns,
        expedite: Expedite::open(&options.run_dir),
    };
    let (commands, inbox) = mpsc::sync_channel(COMMANDS_MAX);
    let client = Client::new(commands);
    let (published, view) = watch::channel(View::default());
    let schedule = collector::Schedule {
        interval: options.gc_interval,
        timeouts: options.timeouts,
    };
    let (forget, collector) = collector::start(conntrack, schedule, client.clone(), published.clone())?;
    let endpoints = Endpoints::new(parts.endpoints, parts.steps, options.behind.is_some());
    let pools = Pools::new(&options.node_name, parts.granted);
    let (health_checks, checked) = watch::channel(HealthChecks::new());
    let settings = options.services.clone().zip(parts.services);
    let services =
        settings.map(|(settings, tables)| Services::new(settings, tables, health_checks, &kernel.datapath));
    let mut worker = Worker::new(
        options,
        kernel,
        endpoints,
        (parts.nodes, pools, services),
        published,
        forget,
    );
    worker.prepare()?;
    let thread = std::thread::Builder::new()
        .name("apply".into())
        .spawn(move || worker.run(&inbox))?;
    Ok(Apply {
        client,
        view,
        health_checks: checked,
        thread,
        collector,
    })
}

impl Apply {
    /// Finishes the command under way and ends both threads. Everything in the kernel stays.
    pub fn stop(self) {
        self.client.stop();
        for thread in [self.thread, self.collector] {
            if thread.join().is_err() {
                tracing::error!("a thread of the apply loop had panicked");
            }
        }
    }
}

/// Wakes the apply thread whenever a table changes. Runs until the table's writer or the apply thread is gone.
pub async fn forward<R: Row>(table: Table<R>, client: Client) {
    let mut reader = table.reader();
    while reader.changed().await.is_some() {
        client.wake();
    }
}
