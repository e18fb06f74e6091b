// SPDX-License-Identifier: Apache-2.0
//! A node for one test: namespaces, an underlay device, a datapath, an apply thread.

#![allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "each test program uses a part of it"
)]

use std::io::IoSlice;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cni::protocol::{self, Call, Reply, Request};
use cni::{Attachment, Error, Pod};
use datapath::common::NodeConfig;
use datapath::{AttachMode, Datapath, Timeouts};
use netlink::{AddressFlags, Netlink, Peer, Veth, netns};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use state::{Table, Writer, table};
use thalweg_agent::apply::{self, Apply, News, Options, Parts, ServiceTables, View};
use thalweg_agent::cni_server::{self, Server};
use thalweg_agent::endpoints::Steps;
use tokio::sync::mpsc;

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long one datagram may take there, or back.
const ATTEMPT: Duration = Duration::from_millis(100);
const OWN_NAME: &str = "own";
const POOLS: [&str; 2] = ["10.244.1.0/24", "fd74:7710::/64"];

/// Returns from the test without root, or fails where it must have been there.
macro_rules! privileged {
    () => {
        if !nix::unistd::geteuid().is_root() {
            assert!(
                std::env::var_os("REQUIRE_PRIVILEGED").is_none(),
                "REQUIRE_PRIVILEGED is set, but this is not root"
            );
            eprintln!("skipped: needs root");
            return;
        }
    };
}
pub(crate) use privileged;

pub(crate) struct Node {
    dir: tempfile::TempDir,
    apply: Option<Apply>,
    nodes: Writer<model::Node>,
    endpoints: Table<model::Endpoint>,
    /// The network that attaches pods before us; counts from the next start on.
    pub(crate) behind: Option<String>,
    /// What services are made of, where they are the agent's to serve.
    pub(crate) serving: Option<Serving>,
    /// How programs are attached; counts from the next start on.
    pub(crate) attach: AttachMode,
}

/// The tables of services, and what the agent says about them.
pub(crate) struct Serving {
    pub(crate) services: Writer<Arc<model::Service>>,
    pub(crate) slices: Writer<Arc<model::EndpointSlice>>,
    pub(crate) pods: Writer<model::Pod>,
    pub(crate) news: mpsc::Receiver<News>,
    settings: loadbalancer::Settings,
    max: u32,
    sender: mpsc::Sender<News>,
}

impl Node {
    pub(crate) fn up() -> Self {
        Self::with_pools(&POOLS)
    }

    /// One that serves services, of which so many fit.
    pub(crate) fn serving(settings: loadbalancer::Settings, max: u32) -> Self {
        let ((services, _), (slices, _), (pods, _)) = (table("services"), table("slices"), table("pods"));
        let (sender, news) = mpsc::channel(64);
        let serving = Serving {
            services,
            slices,
            pods,
            news,
            settings,
            max,
            sender,
        };
        Self::make(&POOLS, Some(serving))
    }

    pub(crate) fn with_pools(pools: &[&str]) -> Self {
        Self::make(pools, None)
    }

    fn make(pools: &[&str], serving: Option<Serving>) -> Self {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            None::<&str>,
        )
        .unwrap();
        let dir = tempfile::tempdir().unwrap();
        mount(
            Some("bpf"),
            dir.path(),
            Some("bpf"),
            MsFlags::empty(),
            None::<&str>,
        )
        .unwrap();
        underlay();
        let (mut nodes, _) = table("nodes");
        nodes.replace([own(pools)]);
        nodes.set_in_sync();
        let (_, endpoints) = table("endpoints");
        let mut node = Self {
            dir,
            apply: None,
            nodes,
            endpoints,
            behind: None,
            serving,
            attach: AttachMode::Auto,
        };
        node.start();
        node
    }

    /// Starts the agent anew.
    pub(crate) fn start(&mut self) {
        let mut flags = NodeConfig::IPV4 | NodeConfig::IPV6;
        if self.behind.is_some() {
            flags |= NodeConfig::CHAINED | NodeConfig::HOST_ROUTING;
        }
        if self.serving.is_some() {
            flags |= NodeConfig::SERVICES;
        }
        let mut load = datapath::Options {
            attach: self.attach,
            ..datapath::Options::new(self.dir.path(), NodeConfig::new(flags))
        };
        load.limits.services_max = self.serving.as_ref().map_or(0, |serving| serving.max);
        let datapath = Datapath::load(&load).unwrap();
        let (writer, endpoints) = table("endpoints");
        let parts = Parts {
            datapath,
            nodes: self.nodes.table(),
            granted: None,
            services: self.serving.as_ref().map(Serving::tables),
            endpoints: writer,
            steps: Steps::default(),
        };
        let options = Options {
            services: self.serving.as_ref().map(|serving| serving.settings.clone()),
            masquerade: None,
            cgroup: None,
            limited: model::RateLimits::default(),
            tuned: false,
            behind: self.behind.clone(),
            node_name: OWN_NAME.into(),
            devices: Vec::new(),
            mtu: None,
            direct_node_routes: true,
            tunnel: None,
            cni_socket: self.queue_dir().with_file_name("cni.sock"),
            run_dir: self.dir.path().with_extension("run"),
            gc_interval: Duration::from_secs(3600),
            timeouts: Timeouts::default(),
        };
        self.endpoints = endpoints;
        self.apply = Some(apply::start(options, parts).unwrap());
        assert_eq!(self.view(|view| view.problems.clone()), [] as [String; 0]);
    }

    /// Ends the agent, lets `meanwhile` happen, starts another one.
    pub(crate) fn restart(&mut self, meanwhile: impl FnOnce()) {
        self.stop();
        meanwhile();
        self.start();
    }

    /// Ends the agent.
    pub(crate) fn stop(&mut self) {
        self.apply.take().unwrap().stop();
    }

    pub(crate) fn queue_dir(&self) -> PathBuf {
        // The directory is a BPF file system, which takes no files.
        self.dir
            .path()
            .with_extension("run")
            .join(cni::protocol::DELETE_QUEUE_DIR)
    }

    /// Where its BPF file system is.
    pub(crate) fn bpffs(&self) -> &Path {
        self.dir.path()
    }

    /// Whether a device has a program of ours.
    pub(crate) fn has_program(&self, device: &str) -> bool {
        self.dir.path().join("thalweg/links").join(device).exists()
    }

    /// The devices that have a program of ours.
    pub(crate) fn programs(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path().join("thalweg/links")).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    /// Serves the plugin's socket.
    pub(crate) fn serve(&self) -> (Server, PathBuf) {
        let path = self.queue_dir().with_file_name("cni.sock");
        let server = cni_server::bind(&path)
            .unwrap()
            .serve(self.apply.as_ref().unwrap().client.clone(), None);
        (server.unwrap(), path)
    }

    pub(crate) fn netns(&self) -> OwnedFd {
        netns::create().unwrap()
    }

    pub(crate) fn call(&self, call: Call, netns: Option<&OwnedFd>) -> Reply {
        let netns = netns.map(|netns| netns.try_clone().unwrap());
        self.apply.as_ref().unwrap().client.call(call, netns)
    }

    /// Attaches a pod and returns its addresses.
    pub(crate) fn add(&self, id: &str, netns: &OwnedFd) -> Vec<String> {
        match self.call(add_of(attachment(id)), Some(netns)) {
            Reply::Added(result) => result
                .ips
                .iter()
                .map(|ip| ip.address.addr().to_string())
                .collect(),
            other @ (Reply::Done | Reply::Failed(_)) => panic!("{other:?}"),
        }
    }

    pub(crate) fn del(&self, id: &str) -> Result<(), Error> {
        match self.call(
            Call::Del {
                attachment: attachment(id),
            },
            None,
        ) {
            Reply::Done => Ok(()),
            Reply::Failed(error) => Err(error),
            Reply::Added(_) => panic!("an ADD's answer to a DEL"),
        }
    }

    pub(crate) fn fail(&self, call: Call, netns: Option<&OwnedFd>) -> Error {
        match self.call(call, netns) {
            Reply::Failed(error) => error,
            other @ (Reply::Added(_) | Reply::Done) => panic!("{other:?}"),
        }
    }

    /// Has everything compared with the kernel now.
    pub(crate) fn compare(&self) {
        self.apply.as_ref().unwrap().client.refresh();
    }

    /// The same, and returns when it is done: commands are worked off in their order, and a comparison comes right after its own.
    pub(crate) fn compare_and_wait(&self) {
        self.compare();
        self.dump();
        self.dump();
    }

    pub(crate) fn set_nodes(&mut self, own_cidrs: &[&str], others: &[(&str, &str, &str)]) {
        let other = |(name, address, cidr): &(&str, &str, &str)| model::Node {
            name: (*name).into(),
            addresses: vec![address.parse().unwrap()],
            pod_cidrs: vec![cidr.parse().unwrap()],
            zone: None,
        };
        self.nodes
            .replace(std::iter::once(own(own_cidrs)).chain(others.iter().map(other)));
        self.apply.as_ref().unwrap().client.wake();
    }

    pub(crate) fn view<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        look(&self.apply.as_ref().unwrap().view.borrow())
    }

    /// Waits until what is published is so.
    pub(crate) fn wait(&self, is_so: impl FnMut(&View) -> bool) {
        self.wait_for(PATIENCE, is_so);
    }

    /// The same, of what takes long.
    pub(crate) fn wait_for(&self, patience: Duration, is_so: impl FnMut(&View) -> bool) {
        let mut view = self.apply.as_ref().unwrap().view.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let waited = runtime.block_on(async {
            tokio::time::timeout(patience, view.wait_for(is_so))
                .await
                .map(drop)
        });
        waited.unwrap();
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.endpoints
            .snapshot()
            .iter()
            .map(|endpoint| endpoint.id.to_string())
            .collect()
    }

    pub(crate) fn links(&self) -> Vec<String> {
        Netlink::open()
            .unwrap()
            .links()
            .unwrap()
            .into_iter()
            .map(|link| link.name)
            .collect()
    }

    pub(crate) fn rows(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.dump().into_iter().map(|(key, _)| key).collect();
        keys.sort();
        keys
    }

    /// Looks at the datapath.
    pub(crate) fn look<T: Send + 'static>(&self, look: impl FnOnce(&Datapath) -> T + Send + 'static) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let answer = self.apply.as_ref().unwrap().client.inspect(look);
        runtime.block_on(answer).unwrap()
    }

    /// Tells the agent that a table has changed.
    pub(crate) fn wake(&self) {
        self.apply.as_ref().unwrap().client.wake();
    }

    /// What the row of an address says.
    pub(crate) fn row(&self, ip: &str) -> String {
        let found = self.dump().into_iter().find(|(key, _)| key == ip);
        found.map(|(_, value)| value).unwrap_or_default()
    }

    fn dump(&self) -> Vec<(String, String)> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let dump = self
            .apply
            .as_ref()
            .unwrap()
            .client
            .inspect(|datapath| datapath.dump("endpoints").unwrap().unwrap());
        let rows = runtime.block_on(dump).unwrap();
        let text = |value: &dyn std::fmt::Display| value.to_string().replace('"', "");
        rows.iter()
            .map(|row| (text(&row.key), text(&row.value)))
            .collect()
    }

    pub(crate) fn routes(&self, device: &str) -> Vec<String> {
        let mut netlink = Netlink::open().unwrap();
        let index = netlink.link(device).unwrap().unwrap().index;
        let routes = netlink.routes(Some(netlink::ROUTE_PROTOCOL)).unwrap();
        let mut routes: Vec<String> = routes
            .iter()
            .filter(|route| route.oif == Some(index))
            .map(|route| route.dst.to_string())
            .collect();
        routes.sort();
        routes
    }
}

impl Serving {
    fn tables(&self) -> ServiceTables {
        ServiceTables {
            services: self.services.table(),
            slices: self.slices.table(),
            pods: self.pods.table(),
            news: self.sender.clone(),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(apply) = self.apply.take() {
            apply.stop();
        }
        let _ = std::fs::remove_dir_all(self.dir.path().with_extension("run"));
        let _ = nix::mount::umount2(self.dir.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

pub(crate) fn attachment(id: &str) -> Attachment {
    Attachment {
        container_id: id.into(),
        ifname: "eth0".into(),
    }
}

pub(crate) fn add_of(attachment: Attachment) -> Call {
    let pod = Pod {
        namespace: "default".into(),
        name: attachment.container_id.clone(),
        uid: "u".into(),
    };
    Call::Add {
        attachment,
        pod,
        netns: "/test".into(),
        wishes: cni::Wishes::default(),
        previous: None,
    }
}

/// A pair in the caller's namespace.
pub(crate) fn veth(name: &str, peer: &str) {
    let peer = Peer {
        name: peer,
        mac: None,
        mtu: None,
        netns: None,
    };
    let veth = Veth {
        name,
        mac: None,
        mtu: None,
        alias: None,
        up: true,
        link_local: false,
        peer,
    };
    let pair = Netlink::open().unwrap().create_veth(&veth).unwrap();
    Netlink::open().unwrap().set_up(pair.peer_index).unwrap();
}

/// Sends a datagram to `to` and gets it back; `None` is the node itself.
///
/// It is sent again when no answer comes: the kernel makes the local route of a new IPv6 address from a work queue, some
/// time after the address itself.
pub(crate) fn exchange(from: Option<&OwnedFd>, at: Option<&OwnedFd>, to: &str) {
    let ip: IpAddr = to.parse().unwrap();
    let any = if ip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let server = within(at, || UdpSocket::bind((ip, 0)).unwrap());
    let client = within(from, || UdpSocket::bind(any).unwrap());
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(ATTEMPT)).unwrap();
    }
    let answered = || {
        client.send_to(b"there", server.local_addr()?)?;
        let (_, sender) = server.recv_from(&mut [0; 5])?;
        server.send_to(b"back", sender)?;
        client.recv_from(&mut [0; 4])
    };
    let attempts = PATIENCE.as_millis() / ATTEMPT.as_millis();
    assert!((0..attempts).any(|_| answered().is_ok()), "no answer from {to}");
}

fn within<T: Send>(netns: Option<&OwnedFd>, work: impl FnOnce() -> T + Send) -> T {
    match netns {
        Some(netns) => netns::run_in(netns.as_fd(), work).unwrap(),
        None => work(),
    }
}

/// One request on the plugin's socket, with descriptors.
pub(crate) fn request(path: &Path, call: Call, fds: &[&OwnedFd]) -> Reply {
    let frame = protocol::encode(&Request {
        version: protocol::VERSION,
        call,
    })
    .unwrap();
    let mut stream = UnixStream::connect(path).unwrap();
    let fds: Vec<_> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
    let sent = sendmsg::<UnixAddr>(
        stream.as_raw_fd(),
        &[IoSlice::new(&frame)],
        control,
        MsgFlags::empty(),
        None,
    );
    match sent {
        Ok(bytes) => assert_eq!(bytes, frame.len()),
        // A server that refuses answers and closes without reading; the answer waits in the socket.
        Err(errno) => assert_eq!(errno, Errno::EPIPE),
    }
    protocol::read(&mut stream).unwrap()
}

fn own(cidrs: &[&str]) -> model::Node {
    model::Node {
        name: OWN_NAME.into(),
        addresses: vec!["172.30.0.1".parse().unwrap(), "fd74:77::1".parse().unwrap()],
        pod_cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
        zone: None,
    }
}

fn underlay() {
    let mut netlink = Netlink::open().unwrap();
    netlink.set_up(1).unwrap();
    veth("eth0", "wire");
    let index = netlink.link("eth0").unwrap().unwrap().index;
    for net in ["172.30.0.1/24", "fd74:77::1/64"] {
        netlink
            .add_address(index, net.parse().unwrap(), AddressFlags { nodad: true })
            .unwrap();
    }
}
