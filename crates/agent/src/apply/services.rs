// SPDX-License-Identifier: Apache-2.0
//! Services: what the tables say into the maps. Which rows that are is `loadbalancer`'s to say.
//!
//! Nothing is touched until services, slices and nodes are known: what an earlier agent wrote holds until then. Then all rows are
//! compared with those of the maps, and afterwards only what changes is written; every [`COMPARE_EVERY`] they are compared again.

mod maps;
mod news;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datapath::{Datapath, MapError};
use loadbalancer::{Balancer, Batch, Local, Owner, PodPorts, Settings, Totals};
use model::{Endpoint, EndpointSlice, Node, ObjectName, Pod, Service};
use state::{Change, Revision, Snapshot, Table};
use tokio::sync::watch;
use tracing::{info, warn};

pub(crate) use maps::is_ours;
pub use news::News;
use news::Newsroom;

/// Services that are worked on between two looks at other commands: a few milliseconds.
const STEP: usize = 1000;
/// The maps are compared with what is wanted at least this often.
const COMPARE_EVERY: Duration = Duration::from_secs(600);
/// Of this many a status says what is wrong.
const PROBLEMS_MAX: usize = 8;

/// What services are made of.
#[derive(Clone, Debug)]
pub struct ServiceTables {
    /// The cluster's services.
    pub services: Table<Arc<Service>>,
    /// Who is behind them.
    pub slices: Table<Arc<EndpointSlice>>,
    /// The pods of this node: some have ports of the node.
    pub pods: Table<Pod>,
    /// Where events go.
    pub news: tokio::sync::mpsc::Sender<News>,
}

/// Where this node answers whether it has a backend of a service, and how many it has.
pub type HealthChecks = BTreeMap<u16, (ObjectName, usize)>;

/// Services in short.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicesView {
    /// How much there is.
    pub totals: Totals,
    /// Whether all rows have been compared with the maps since the start.
    pub in_sync: bool,
    /// Whether sockets of the node reach services.
    pub sockets: bool,
    /// How many frontends and how many slots fit.
    pub limits: [u32; 2],
    /// How often a map was found full.
    pub full: u64,
    /// Rows written and rows deleted since the start.
    pub rows: [u64; 2],
    /// Events that nobody had time for.
    pub news_lost: u64,
    /// What is wrong with some of them.
    pub problems: Vec<String>,
}

/// Services on their way into the maps.
#[derive(Debug)]
pub struct Services {
    tables: ServiceTables,
    seen: Seen,
    /// What all is made of, for those who look.
    pub(crate) balancer: Balancer,
    compared: Option<Instant>,
    /// Whether the maps may hold what is not wanted.
    doubtful: bool,
    view: ServicesView,
    newsroom: Newsroom,
    health_checks: watch::Sender<HealthChecks>,
}

/// What of the tables has been handed on.
#[derive(Debug)]
struct Seen {
    services: Snapshot<Arc<Service>>,
    slices: Snapshot<Arc<EndpointSlice>>,
    pods: (Revision, Revision),
}

impl Services {
    pub(super) fn new(
        settings: Settings,
        tables: ServiceTables,
        health_checks: watch::Sender<HealthChecks>,
        datapath: &Datapath,
    ) -> Self {
        let maps = datapath.services();
        let settings = Settings {
            hz: maps.ticks(Duration::from_secs(1)),
            ..settings
        };
        Self {
            newsroom: Newsroom::new(tables.news.clone()),
            tables,
            seen: Seen {
                services: Snapshot::empty(),
                slices: Snapshot::empty(),
                pods: (0, 0),
            },
            balancer: Balancer::new(settings),
            compared: None,
            doubtful: false,
            view: ServicesView {
                limits: [maps.frontends().max_entries(), maps.backends().max_entries()],
                ..ServicesView::default()
            },
            health_checks,
        }
    }

    /// Whether [`pass`](Self::pass) has something to do.
    pub(super) fn is_behind(&self, endpoints: Revision) -> bool {
        if self.compared.is_none() {
            return false;
        }
        let (services, slices) = (self.tables.services.snapshot(), self.tables.slices.snapshot());
        self.balancer.is_behind()
            || services.revision() != self.seen.services.revision()
            || slices.revision() != self.seen.slices.revision()
            || (self.tables.pods.snapshot().revision(), endpoints) != self.seen.pods
    }

    /// Whether everything is known that the start needs, and it has not been tried.
    pub(super) fn can_begin(&self, nodes: &Snapshot<Node>) -> bool {
        self.compared.is_none() && !self.doubtful && self.is_known(nodes)
    }

    fn is_known(&self, nodes: &Snapshot<Node>) -> bool {
        nodes.in_sync()
            && self.tables.services.snapshot().in_sync()
            && self.tables.slices.snapshot().in_sync()
    }

    /// Where we are. Once everything is known, this is the start; later it is the time to try again and to look whether all is as it should be.
    pub(super) fn reconcile(
        &mut self,
        datapath: &mut Datapath,
        (name, nodes): (&str, &Snapshot<Node>),
        own: &BTreeSet<IpAddr>,
    ) {
        if !self.is_known(nodes) {
            return;
        }
        self.balancer.set_local(local(name, nodes, own));
        if self.doubtful || self.compared.is_none_or(|last| last.elapsed() >= COMPARE_EVERY) {
            self.compare(datapath);
        }
        for owner in self.balancer.failing() {
            let again = self.balancer.again(&owner);
            self.apply_one(datapath, &owner, &again);
        }
    }

    fn compare(&mut self, datapath: &mut Datapath) {
        match maps::read(datapath) {
            Ok(former) => {
                self.follow_services();
                self.follow_slices();
                self.balancer.compare(former);
                (self.compared, self.doubtful) = (Some(Instant::now()), false);
            }
            Err(error) => {
                warn!(%error, "the maps of services cannot be read");
                self.doubtful = true;
            }
        }
    }

    /// Writes what changed, for some services at a time.
    pub(super) fn pass(&mut self, datapath: &mut Datapath, endpoints: &Snapshot<Endpoint>) {
        self.follow_services();
        self.follow_slices();
        self.follow_pods(endpoints);
        if self.balancer.is_behind() {
            let batch = self.balancer.step(STEP);
            self.apply(datapath, &batch);
        }
        if !self.balancer.is_behind() && !self.view.in_sync {
            let Totals {
                owners,
                frontends,
                backends,
                ..
            } = self.balancer.totals();
            info!(owners, frontends, backends, "services are in force");
            self.view.in_sync = true;
        }
        self.publish_health_checks();
        self.newsroom.tell(&mut self.balancer);
    }

    /// In short; `sockets`: whether those of the node reach services.
    pub(super) fn view(&self, sockets: bool) -> ServicesView {
        let failing = self.balancer.failing();
        let problem = |owner: &Owner| {
            let (_, failed) = self.balancer.remarks(owner);
            failed.map(|why| format!("{owner}: {why}"))
        };
        ServicesView {
            totals: self.balancer.totals(),
            problems: failing.iter().filter_map(problem).take(PROBLEMS_MAX).collect(),
            news_lost: self.newsroom.lost(),
            sockets,
            ..self.view.clone()
        }
    }

    /// Whether something failed and is to be tried again.
    pub(super) const fn is_failing(&self) -> bool {
        self.doubtful || self.balancer.totals().failed > 0
    }

    fn follow_services(&mut self) {
        let now = self.tables.services.snapshot();
        for change in now.changes_since(&self.seen.services) {
            match change {
                Change::Upsert(service) => self.balancer.set_service(service),
                Change::Remove(name) => self.balancer.remove_service(&name),
            }
        }
        self.seen.services = now;
    }

    fn follow_slices(&mut self) {
        let now = self.tables.slices.snapshot();
        for change in now.changes_since(&self.seen.slices) {
            let (name, after) = match change {
                Change::Upsert(slice) => (slice.name.clone(), Some(slice)),
                Change::Remove(name) => (name, None),
            };
            let before = self.seen.slices.get(&name).map(|before| &**before);
            self.balancer.change_slice(before, after);
        }
        self.seen.slices = now;
    }

    fn follow_pods(&mut self, endpoints: &Snapshot<Endpoint>) {
        let pods = self.tables.pods.snapshot();
        let now = (pods.revision(), endpoints.revision());
        if now == self.seen.pods {
            return;
        }
        self.seen.pods = now;
        self.balancer.set_pods(host_ports(&pods, endpoints));
    }

    fn apply(&mut self, datapath: &mut Datapath, batch: &Batch) {
        self.count(batch);
        match maps::write(datapath, batch) {
            Ok(()) => {
                self.balancer.confirm(&batch.owners);
                self.delete(batch, maps::delete(datapath, batch));
            }
            Err(error) => {
                warn!(%error, services = batch.owners.len(), "rows of services could not be written; one service after the other");
                self.delete(batch, maps::delete_frontends(datapath, batch));
                for owner in &batch.owners {
                    let again = self.balancer.again(owner);
                    self.apply_one(datapath, owner, &again);
                }
                // Slots of services that are no more are still there.
                self.doubtful = true;
            }
        }
    }

    fn delete(&mut self, batch: &Batch, done: Result<(), MapError>) {
        if let Err(error) = done {
            warn!(%error, rows = batch.deleted(), "rows of services could not be deleted; they are compared again later");
            self.doubtful = true;
        }
    }

    fn apply_one(&mut self, datapath: &mut Datapath, owner: &Owner, batch: &Batch) {
        let done = maps::write(datapath, batch).and_then(|()| maps::delete(datapath, batch));
        self.count(batch);
        let Err(error) = done else {
            return self.balancer.confirm(std::slice::from_ref(owner));
        };
        self.view.full += u64::from(is_full(&error));
        let undo = self.balancer.failed(owner, &describe(&error));
        if let Err(error) = maps::delete(datapath, &undo) {
            warn!(%error, %owner, "rows of a service that is not in force could not be deleted");
        }
    }

    fn count(&mut self, batch: &Batch) {
        let [written, deleted] = &mut self.view.rows;
        *written += u64::try_from(batch.written()).unwrap_or_default();
        *deleted += u64::try_from(batch.deleted()).unwrap_or_default();
    }

    fn publish_health_checks(&self) {
        let now = self.balancer.health_checks();
        self.health_checks.send_if_modified(|published| {
            let differs = published != now;
            if differs {
                published.clone_from(now);
            }
            differs
        });
    }
}

/// `E2BIG` of hash tables, `ENOSPC` of tries.
fn is_full(error: &MapError) -> bool {
    matches!(error.source.raw_os_error(), Some(libc::E2BIG | libc::ENOSPC))
}

fn describe(error: &MapError) -> String {
    if is_full(error) {
        return format!(
            "map {} is full: raise the setting loadBalancer.servicesMax (a quarter of the backends that fit) or have fewer services",
            error.map
        );
    }
    error.to_string()
}

fn local(name: &str, nodes: &Snapshot<Node>, own: &BTreeSet<IpAddr>) -> Local {
    Local {
        name: name.to_owned(),
        zone: nodes.get(&name.to_owned()).and_then(|node| node.zone.clone()),
        addresses: own.clone(),
        nodes: nodes.iter().flat_map(|node| &node.addresses).copied().collect(),
        pod_networks: nodes.iter().flat_map(|node| &node.pod_cidrs).copied().collect(),
    }
}

/// The pods of this node with ports of the node, as far as they are attached.
fn host_ports(pods: &Snapshot<Pod>, endpoints: &Snapshot<Endpoint>) -> BTreeMap<ObjectName, PodPorts> {
    let with_ports = pods.iter().filter(|pod| !pod.host_ports.is_empty());
    let attached = with_ports.filter_map(|pod| {
        let name = &pod.pod;
        let is_its = |one: &&Endpoint| {
            let named = (&one.pod.namespace, &one.pod.name) == (&name.namespace, &name.name);
            // A pod of the same name that was there before is another one.
            named && (one.pod.uid.is_empty() || name.uid.is_empty() || one.pod.uid == name.uid)
        };
        let endpoint = endpoints.iter().find(is_its)?;
        let ports = PodPorts {
            ips: endpoint.ips.clone(),
            ports: pod.host_ports.clone(),
        };
        Some((ObjectName::new(&name.namespace, &name.name), ports))
    });
    attached.collect()
}
