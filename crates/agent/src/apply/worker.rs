// SPDX-License-Identifier: Apache-2.0
//! The loop and what it does with each command.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant, SystemTime};

use cni::protocol::{Call, Reply};
use cni::{Error, codes};
use datapath::common::{Addr, Prefix};
use datapath::{Carried, Datapath, LoadError};
use ipnet::IpNet;
use model::{EndpointId, Family, Mac, Node, RateLimits};
use routing::Mode;
use state::{Snapshot, Status, Table};
use tokio::sync::watch;
use tracing::{info, warn};

use super::client::Command;
use super::detour;
use super::host::{HOST_LINK, HOST_PEER, Host};
use super::path_mtu::PathMtus;
use super::pools::Pools;
use super::routes::{self, Wanted};
use super::services::Services;
use super::{Options, RESYNC, RouteStatus, StartError, View};
use crate::delete_queue::DeleteQueue;
use crate::endpoints::{Add, Endpoints, Kernel, endpoint_id, pod_ref};
use crate::masquerade;
use crate::tunnel::{self, TUNNEL_LINK, Tunnel};

/// The first pause after a failure; it doubles up to [`RESYNC`].
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// All that the apply thread owns.
pub(super) struct Worker {
    options: Options,
    kernel: Kernel,
    endpoints: Endpoints,
    nodes: Table<Node>,
    view: watch::Sender<View>,
    released: Sender<Vec<IpAddr>>,
    host: Host,
    routes: std::sync::Arc<[RouteStatus]>,
    masqueraded: Option<datapath::Masquerade>,
    path_mtus: PathMtus,
    pools: Pools,
    services: Option<Services>,
    /// DELs that stay queued, because they failed.
    queued: usize,
    /// Whether sockets are as they are to be.
    sockets: bool,
    /// Whether the detour is there, if that is known.
    detoured: Option<bool>,
    seen: Option<state::Revision>,
    due: Instant,
    pause: Duration,
}

impl Worker {
    pub(super) fn new(
        options: Options,
        kernel: Kernel,
        endpoints: Endpoints,
        (nodes, pools, services): (Table<Node>, Pools, Option<Services>),
        view: watch::Sender<View>,
        released: Sender<Vec<IpAddr>>,
    ) -> Self {
        Self {
            options,
            kernel,
            endpoints,
            nodes,
            view,
            released,
            host: Host::default(),
            routes: [].into(),
            masqueraded: None,
            path_mtus: PathMtus::default(),
            pools,
            services,
            queued: 0,
            sockets: false,
            detoured: None,
            seen: None,
            due: Instant::now(),
            pause: RETRY_FIRST,
        }
    }

    /// The way from a fresh process to one that may serve; no packet of a running pod is lost on it.
    pub(super) fn prepare(&mut self) -> Result<(), StartError> {
        // Programs are replaced between the two.
        self.carry_over(Datapath::carry_over);
        self.endpoints.restore(&mut self.kernel)?;
        let pods = self.endpoints.host_ifnames();
        self.host.update(&mut self.kernel, &self.options, None, &pods);
        self.carry_over(Datapath::finish_carry_over);
        let known = routes::local_networks(&mut self.kernel.netlink, self.host.link)?;
        self.pools.restore(&mut self.endpoints, known);
        // Where the node's own side could not be read, everything of it would look stray.
        if self.host.surveyed {
            self.sweep();
        }
        self.reconcile(Instant::now());
        Ok(())
    }

    /// Connections that cannot be carried over break; nothing else depends on it.
    fn carry_over(&mut self, pass: impl FnOnce(&mut Datapath) -> Result<Vec<Carried>, LoadError>) {
        if let Err(error) = pass(&mut self.kernel.datapath) {
            warn!(%error, "connections of the agent's earlier version are not carried over");
        }
    }

    pub(super) fn run(&mut self, inbox: &Receiver<Command>) {
        loop {
            let now = Instant::now();
            let patience = if self.services_behind() {
                Duration::ZERO
            } else {
                self.due.saturating_duration_since(now)
            };
            match inbox.recv_timeout(patience) {
                Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(command) => self.handle(command),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now = Instant::now();
            let nodes = self.nodes.snapshot();
            let can_begin = self
                .services
                .as_ref()
                .is_some_and(|services| services.can_begin(&nodes));
            let changed = self.seen != Some(nodes.revision()) || self.pools.is_behind() || can_begin;
            if now >= self.due || changed {
                self.reconcile(now);
            }
            if self.services_behind() {
                self.serve();
            }
        }
    }

    fn services_behind(&self) -> bool {
        let endpoints = self.endpoints.snapshot().revision();
        self.services
            .as_ref()
            .is_some_and(|services| services.is_behind(endpoints))
    }

    /// Some of what changed of services.
    fn serve(&mut self) {
        if let Some(services) = &mut self.services {
            services.pass(&mut self.kernel.datapath, self.endpoints.snapshot());
            self.publish();
        }
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Cni {
                call,
                netns,
                pool,
                reply,
                deadline,
            } => {
                // A call that waited for addresses finds them.
                if self.pools.is_behind() {
                    self.pools.take_grants(&mut self.endpoints);
                }
                let answer = self.answer(*call, netns, (pool, deadline));
                // First the answer, then the bookkeeping: a pod waits for it.
                let _ = reply.send(answer);
                self.forget_released();
                self.publish();
            }
            Command::Inspect(look) => look(&self.kernel.datapath),
            Command::Services(look) => look(self.services.as_ref().map(|services| &services.balancer)),
            Command::Rested(ips) => {
                self.endpoints.rested(&ips);
                self.note_released();
                self.publish();
            }
            Command::PathMtu(node, mtu) => {
                let now = Instant::now();
                if self.path_mtus.learn(node, mtu, self.host.underlay_mtu, now) {
                    self.due = now;
                }
            }
            Command::Refresh => self.due = Instant::now(),
            Command::Wake | Command::Stop => {}
        }
    }

    fn answer(
        &mut self,
        call: Call,
        netns: Option<OwnedFd>,
        (pool, deadline): (Option<String>, Instant),
    ) -> Reply {
        let done = match call {
            Call::Add {
                attachment,
                pod,
                netns: path,
                wishes,
                previous,
            } => {
                let asked = Asked {
                    attachment,
                    pod,
                    pool,
                    wishes,
                    previous,
                };
                return self
                    .add(asked, netns, (&path, deadline))
                    .unwrap_or_else(Reply::Failed);
            }
            Call::Del { attachment } => checked(&attachment)
                .and_then(|()| self.endpoints.remove(&mut self.kernel, &endpoint_id(attachment))),
            Call::Check {
                attachment,
                netns: path,
                addresses,
            } => checked(&attachment).and_then(|()| {
                let netns = netns.ok_or_else(no_descriptor)?;
                let id = endpoint_id(attachment);
                self.endpoints
                    .check(&mut self.kernel, &id, (netns.as_fd(), &path), &addresses)
            }),
            Call::Gc { network, valid } => self.collect(&network, valid),
            Call::Status => self.status(),
        };
        done.map_or_else(Reply::Failed, |()| Reply::Done)
    }

    fn add(
        &mut self,
        asked: Asked,
        netns: Option<OwnedFd>,
        (path, deadline): (&str, Instant),
    ) -> Result<Reply, Error> {
        let Asked {
            attachment,
            pod,
            pool,
            wishes,
            previous,
        } = asked;
        checked(&attachment)?;
        if Instant::now() >= deadline {
            return Err(Error::new(
                codes::TRY_AGAIN_LATER,
                "the call waited for too long",
                "the runtime tries again",
            ));
        }
        let netns = netns.ok_or_else(no_descriptor)?;
        // Container IDs come again (a container that is started anew): an older DEL must not take this one away later.
        self.queue()
            .forget(&cni::host_ifname(&attachment))
            .map_err(|error| not_forgotten(&attachment, &error))?;
        let add = Add {
            id: endpoint_id(attachment),
            pod: pod_ref(pod),
            netns: netns.as_fd(),
            netns_path: path,
            mtu: self.host.mtu,
            from: self.pools.from(pool),
            limits: self.options.limited.or(RateLimits {
                ingress: wishes.ingress_limited,
                egress: wishes.egress_limited,
            }),
            host_ports: wishes.host_ports,
            mac: hardware_address(self.given_mac(&wishes))?,
        };
        if add.limits.egress && self.options.masquerades() {
            // What such a pod sends to the world leaves by this way only.
            let made = detour::make(&mut self.kernel.netlink, self.host.link);
            made.map_err(|error| not_led_back(&add.id, &error))?;
            self.detoured = Some(true);
        }
        match (&self.options.behind, &previous) {
            (None, None) => self.endpoints.add(&mut self.kernel, &add).map(Reply::Added),
            (Some(_), Some(previous)) => {
                let adopted = self.endpoints.take_in(&mut self.kernel, &add, previous);
                adopted.map(|()| Reply::Done)
            }
            (behind, _) => Err(out_of_order(&add.id, behind.as_deref())),
        }
    }

    /// Behind another network the pod's device is made, and only a plugin after us changes its address.
    fn given_mac<'a>(&self, wishes: &'a cni::Wishes) -> Option<&'a str> {
        let is_set = self.options.behind.is_none() || self.options.tuned;
        wishes.mac.as_deref().filter(|_| is_set)
    }

    /// Aliases do not say which network an endpoint belongs to, so that GC of any other one must remove nothing.
    fn collect(&mut self, network: &str, valid: Vec<cni::Attachment>) -> Result<(), Error> {
        let own = self.options.behind.as_deref().unwrap_or(cni::NETWORK_NAME);
        if network != own {
            let msg = format!("GC of network {network:?}: this agent's network is {own:?}");
            return Err(Error::new(
                codes::INVALID_NETWORK_CONFIG,
                msg,
                "nothing was removed; correct the name",
            ));
        }
        let valid: BTreeSet<_> = valid.into_iter().map(endpoint_id).collect();
        let removed = self.endpoints.collect(&mut self.kernel, &valid)?;
        info!(removed, "endpoints that the runtime no longer knows are removed");
        Ok(())
    }

    fn status(&self) -> Result<(), Error> {
        if self.options.behind.is_none() {
            self.pools.status()?;
        }
        // Other problems are shown, but must not make the node NotReady: pods can be started.
        match (self.host.link, self.host.problems.first()) {
            (0, Some(problem)) => Err(Error::new(
                codes::NOT_AVAILABLE,
                problem,
                "see `thalweg status` on this node",
            )),
            _ => Ok(()),
        }
    }

    /// Has the connections of released addresses forgotten.
    fn forget_released(&mut self) {
        let released = self.endpoints.take_released();
        if !released.is_empty() {
            // Without its thread the addresses rest until the next start.
            let _ = self.released.send(released);
        }
    }

    /// Compares everything with the kernel and brings it in line.
    fn reconcile(&mut self, now: Instant) {
        let nodes = self.nodes.snapshot();
        let own = nodes.get(&self.options.node_name).cloned();
        let pods = self.endpoints.host_ifnames();
        self.host
            .update(&mut self.kernel, &self.options, own.as_ref(), &pods);
        self.path_mtus.forget(now);
        // Behind another network no address is ours to give, whatever the Node says.
        let giver = own.as_ref().filter(|_| self.options.behind.is_none());
        self.pools.update(&mut self.endpoints, giver, nodes.in_sync());
        self.work_queue_off();
        self.route(&nodes);
        self.note_released();
        self.masquerade(&nodes);
        self.follow_queues();
        self.endpoints.retry(&mut self.kernel);
        self.reconcile_services(&nodes);
        self.attach_sockets();
        self.seen = Some(nodes.revision());
        self.schedule(now);
        self.publish();
    }

    fn route(&mut self, nodes: &Snapshot<Node>) {
        let input = routing::Input {
            own_name: &self.options.node_name,
            devices: &self.host.devices,
            mode: match self.options.tunnel {
                Some(tunnel) => Mode::Tunnel {
                    underlay: tunnel.underlay(),
                },
                None => Mode::Native {
                    direct: self.options.direct_node_routes,
                },
            },
        };
        // Behind another network its routes lead everywhere.
        let counted = self.options.behind.is_none();
        let all: Vec<&Node> = nodes.iter().filter(|_| counted).collect();
        let rows = routing::plan(&input, all.iter().copied());
        self.write_prefixes(nodes.in_sync(), &all, &rows);
        let endpoints = self.endpoints.snapshot();
        let in_use = |net: &IpNet| {
            endpoints
                .iter()
                .flat_map(|endpoint| &endpoint.ips)
                .any(|ip| net.contains(ip))
        };
        let (known, tunnel, underlay) = (&self.path_mtus, self.options.tunnel, self.host.underlay_mtu);
        let mtu_to = |node: IpAddr| {
            known
                .of(node)
                .map(|_| u32::from(inner_mtu(known, tunnel, underlay, node)))
        };
        let wanted = Wanted {
            rows,
            mtu_to: &mtu_to,
            host_link: self.host.link,
            complete: nodes.in_sync(),
            in_use: &in_use,
        };
        self.routes = routes::reconcile(&mut self.kernel.netlink, wanted).into();
    }

    /// Not before it is known what is in the cluster: connections are decided on once. Until then, what an earlier agent wrote
    /// holds.
    fn masquerade(&mut self, nodes: &Snapshot<Node>) {
        let Some(masquerade) = self.options.masquerade.as_ref().filter(|_| nodes.in_sync()) else {
            return;
        };
        let own = nodes.get(&self.options.node_name);
        let pools = self.endpoints.usage();
        let pods: Vec<Family> = pools.iter().map(|pool| pool.family).collect();
        let (wanted, problems) = masquerade.wanted(own, &self.host.underlay_devices, &pods);
        self.host.problems.extend(problems);
        if let Err(error) = masquerade::reserve(wanted.ports) {
            self.host.problems.push(error.to_string());
        }
        match self.kernel.datapath.conntrack().masquerade(&wanted) {
            Ok(()) => self.masqueraded = self.options.masquerades().then_some(wanted),
            Err(error) => self.host.problems.push(error.to_string()),
        }
    }

    /// After the node's addresses, which services have ports at.
    fn reconcile_services(&mut self, nodes: &Snapshot<Node>) {
        let Some(services) = self.services.as_mut().filter(|_| self.host.surveyed) else {
            return;
        };
        let name = self.options.node_name.as_str();
        services.reconcile(&mut self.kernel.datapath, (name, nodes), &self.host.addresses);
    }

    /// Sockets reach services by themselves, once somebody has said so; without that their packets are translated.
    fn attach_sockets(&mut self) {
        if self.sockets {
            return;
        }
        let datapath = &mut self.kernel.datapath;
        let done = match &self.options.cgroup {
            Some(cgroup) => datapath.attach_sockets(cgroup).map(|()| true),
            None => datapath.detach_sockets(),
        };
        match done {
            Ok(_) => self.sockets = true,
            Err(error) => self.host.problems.push(error.to_string()),
        }
    }

    /// Where rates are limited, and the way that this takes.
    fn follow_queues(&mut self) {
        if let Err(error) = self.endpoints.follow_queues(&mut self.kernel) {
            self.host.problems.push(error.to_string());
        }
        let mut endpoints = self.endpoints.snapshot().iter();
        let wanted = self.options.masquerades() && endpoints.any(|endpoint| endpoint.limits.egress);
        let netlink = &mut self.kernel.netlink;
        let done = match (wanted, self.detoured) {
            (true, _) => detour::make(netlink, self.host.link),
            // What an earlier agent made is not known.
            (false, None | Some(true)) => detour::remove(netlink),
            (false, Some(false)) => Ok(()),
        };
        match done {
            Ok(()) => self.detoured = Some(wanted),
            Err(error) => self.host.problems.push(error.to_string()),
        }
    }

    /// Before the routes, by which the host's own packets come to need them.
    fn write_prefixes(&mut self, complete: bool, nodes: &[&Node], plan: &[routing::Row]) {
        let (own, devices) = (&self.options.node_name, &self.host.devices);
        let mtu_to = |node| inner_mtu(&self.path_mtus, self.options.tunnel, self.host.underlay_mtu, node);
        let mut wanted = tunnel::prefixes(self.options.tunnel.as_ref(), mtu_to, own, devices, nodes, plan);
        self.exclude(&mut wanted);
        // While the API is away, what the map says is better than what is known here.
        if !complete {
            return;
        }
        match self.kernel.datapath.prefixes().replace(&wanted) {
            Ok((0, 0)) => {}
            Ok((written, deleted)) => info!(written, deleted, "prefixes of other nodes"),
            Err(error) => self.host.problems.push(error.to_string()),
        }
    }

    /// The node's own pod networks, where an address may have no pod, and what is configured are not the world. Within a network
    /// that is in the cluster, there is nothing to say.
    fn exclude(&self, wanted: &mut BTreeMap<IpNet, Prefix>) {
        let Some(masquerade) = &self.options.masquerade else {
            return;
        };
        let own: Vec<IpNet> = self.endpoints.usage().iter().map(|pool| pool.cidr).collect();
        for net in masquerade.excluded.iter().chain(&own) {
            if !wanted.keys().any(|known| known.contains(net)) {
                wanted.insert(*net, Prefix::cluster(Addr::UNSPECIFIED));
            }
        }
    }

    /// The next pass comes soon while something fails, and in any case after [`RESYNC`].
    fn schedule(&mut self, now: Instant) {
        let route_failed = self
            .routes
            .iter()
            .any(|route| matches!(route.status, Status::Error(_)));
        let failing = route_failed
            || self.queued > 0
            || !self.host.problems.is_empty()
            || self.services.as_ref().is_some_and(Services::is_failing)
            || !self.endpoints.errors().is_empty();
        self.due = now + if failing { self.pause } else { RESYNC };
        self.pause = if failing {
            (self.pause * 2).min(RESYNC)
        } else {
            RETRY_FIRST
        };
    }

    fn note_released(&mut self) {
        let netlink = &mut self.kernel.netlink;
        self.pools.note_released(&self.endpoints, netlink, self.host.link);
    }

    /// Rows and pins of what is gone.
    fn sweep(&mut self) {
        match self
            .endpoints
            .sweep_rows(&mut self.kernel, &self.host.addresses, self.services.is_some())
        {
            Ok(0) => {}
            Ok(rows) => info!(rows, "rows of addresses that nobody has are removed"),
            Err(error) => warn!(%error, "stray rows could not be removed"),
        }
        let mut live = self.endpoints.host_ifnames();
        live.extend([HOST_LINK, HOST_PEER].map(str::to_owned));
        let tunnel = self.options.tunnel.filter(|tunnel| tunnel.device);
        live.extend(tunnel.map(|_| TUNNEL_LINK.to_owned()));
        live.extend(self.host.devices.iter().map(|device| device.name.clone()));
        match self.kernel.datapath.prune_links(&live) {
            Ok(0) => {}
            Ok(links) => info!(links, "programs of devices that are gone are removed"),
            Err(error) => warn!(%error, "stray program links could not be removed"),
        }
    }

    /// DELs that the plugin queued because no agent answered: while none ran, or in the moment in which this one began to
    /// listen or was too busy. One that fails stays for the next time.
    fn work_queue_off(&mut self) {
        let queued = self.queue().list(SystemTime::now()).unwrap_or_else(|error| {
            warn!(%error, "the queue of DELs cannot be read");
            Vec::new()
        });
        self.queued = 0;
        for one in queued {
            let (host, attachment) = (one.host_ifname.clone(), one.attachment.clone());
            let removed = match attachment.filter(|attachment| attachment.check().is_ok()) {
                Some(attachment) => self.endpoints.remove(&mut self.kernel, &endpoint_id(attachment)),
                None => self.endpoints.remove_by_host_ifname(&mut self.kernel, &host),
            };
            let done = removed.map_err(|error| error.to_string());
            match done.and_then(|()| one.done().map_err(|error| error.to_string())) {
                Ok(()) => info!(link = %host, "a queued DEL is done"),
                Err(error) => {
                    self.queued += 1;
                    warn!(link = %host, %error, "a queued DEL failed and stays queued");
                }
            }
        }
        self.forget_released();
    }

    fn queue(&self) -> DeleteQueue {
        DeleteQueue::beside(&self.options.cni_socket)
    }

    fn publish(&self) {
        self.view.send_modify(|view| {
            view.pools = self.endpoints.usage();
            view.endpoint_errors.clone_from(self.endpoints.errors());
            view.routes = self.routes.clone();
            view.masquerade = self.masqueraded;
            view.devices.clone_from(&self.host.underlay);
            view.mtu = self.host.mtu;
            view.queued_deletes = self.queued;
            view.problems.clone_from(&self.host.problems);
            view.problems.extend(self.pools.problem.clone());
            view.applied.clone_from(&self.pools.applied);
            let sockets = self.sockets && self.options.cgroup.is_some();
            view.services = self.services.as_ref().map(|services| services.view(sockets));
        });
    }
}

/// Bytes of the largest pod's packet that fits through the tunnel to a node.
fn inner_mtu(known: &PathMtus, tunnel: Option<Tunnel>, underlay: u32, node: IpAddr) -> u16 {
    let overhead = tunnel.map_or(0, |tunnel| tunnel.overhead(Family::of(&node)));
    let mtu = known.of(node).unwrap_or(underlay).saturating_sub(overhead);
    u16::try_from(mtu).unwrap_or(u16::MAX)
}

/// What an ADD is asked for.
struct Asked {
    attachment: cni::Attachment,
    pod: cni::Pod,
    pool: Option<String>,
    wishes: cni::Wishes,
    previous: Option<Box<cni::PrevResult>>,
}

/// The plugin has checked it, but it is a socket: others may write to it too.
fn checked(attachment: &cni::Attachment) -> Result<(), Error> {
    attachment.check()
}

fn not_forgotten(attachment: &cni::Attachment, error: &std::io::Error) -> Error {
    Error::new(
        codes::IO_FAILURE,
        format!(
            "{}/{}: an older DEL cannot be removed from the queue: {error}",
            attachment.container_id, attachment.ifname
        ),
        "see to the directory beside the CNI socket (cni.socket)",
    )
}

fn hardware_address(wish: Option<&str>) -> Result<Option<Mac>, Error> {
    let refuse = |text: &str| {
        Error::new(
            codes::INVALID_NETWORK_CONFIG,
            format!("mac {text:?} is not the hardware address of an interface"),
            "give six hexadecimal bytes such as 02:00:00:00:00:01, not of a group",
        )
    };
    let Some(text) = wish else { return Ok(None) };
    let mac: Mac = text.parse().map_err(|_| refuse(text))?;
    let is_of_one = mac.0[0] & 1 == 0 && mac != Mac::default();
    if is_of_one {
        Ok(Some(mac))
    } else {
        Err(refuse(text))
    }
}

fn not_led_back(id: &EndpointId, error: &netlink::Error) -> Error {
    Error::new(
        codes::KERNEL,
        format!("{id}: the way of what it sends to the world cannot be made: {error}"),
        "see the agent's log and the kernel's (dmesg) on this node",
    )
}

/// The list of plugins is not as the agent's settings say.
fn out_of_order(id: &EndpointId, behind: Option<&str>) -> Error {
    let (msg, remedy) = match behind {
        None => (
            format!(
                "{id}: got a prevResult: another plugin made the interface before {}",
                cni::PLUGIN_TYPE
            ),
            format!(
                "make {} the first plugin of the list, or set cni.chainingMode",
                cni::PLUGIN_TYPE
            ),
        ),
        Some(behind) => (
            format!(
                "{id}: there is no prevResult: no plugin made the interface before {}",
                cni::PLUGIN_TYPE
            ),
            format!(
                "cni.chainingMode says that {behind} attaches pods: put its plugins before ours, or set cni.chainingMode=none"
            ),
        ),
    };
    Error::new(codes::INVALID_NETWORK_CONFIG, msg, remedy)
}

fn no_descriptor() -> Error {
    Error::new(
        codes::PROTOCOL,
        "the plugin sent no descriptor of the pod's network namespace",
        "install thalweg-cni and thalweg of one release",
    )
}
