// SPDX-License-Identifier: Apache-2.0
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use datapath::common::event::Hook;
use datapath::common::nat::Ports;
use datapath::common::packet::{GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6};
use datapath::common::{Addr, Endpoint, Mac, NodeConfig, Prefix, Reason};
use datapath::{Datapath, Event, EventReader, Limits, Masquerade, Options, TestRunOutput};
use ipnet::IpNet;
use netlink::{AddressFlags, Netlink, Peer, Request, Route, Veth, netns, sysctl};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

/// Whether the test may go on: not without root, which is a visible skip, or a failure with `REQUIRE_PRIVILEGED`.
#[must_use]
#[expect(clippy::print_stdout, reason = "a skip must be seen")]
pub fn require_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    assert!(
        root || std::env::var_os("REQUIRE_PRIVILEGED").is_none(),
        "root is required for this test"
    );
    if !root {
        println!("SKIPPED: needs root");
    }
    root
}

/// A pod with a network namespace.
#[derive(Debug)]
pub struct Pod {
    /// Its namespace.
    pub netns: OwnedFd,
    /// Its addresses.
    pub v4: Ipv4Addr,
    /// Its addresses.
    pub v6: Ipv6Addr,
    /// Its MAC.
    pub mac: Mac,
    /// The host end.
    pub ifindex: u32,
    /// The host end.
    pub ifname: String,
}

/// A node, on the calling thread's own namespaces.
#[derive(Debug)]
pub struct Node {
    /// The subject.
    pub datapath: Datapath,
    /// What it tells.
    pub events: EventReader,
    /// In the node's namespace.
    pub netlink: Netlink,
    /// Two pods.
    pub pods: [Pod; 2],
    /// Outside: another node, and what lies behind it.
    pub world: OwnedFd,
    /// The underlay device.
    pub wire: u32,
    /// The device to the pods.
    pub host: u32,
    /// The BPF file system.
    pub bpffs: TempDir,
}

impl Node {
    /// The node's own address.
    pub const V4: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);
    /// The node's own address.
    pub const V6: Ipv6Addr = Ipv6Addr::new(0xfd74, 0x77, 0, 0, 0, 0, 0, 1);
    /// The neighbour on the wire.
    pub const NEIGHBOUR_V4: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 2);
    /// The neighbour on the wire.
    pub const NEIGHBOUR_V6: Ipv6Addr = Ipv6Addr::new(0xfd74, 0x77, 0, 0, 0, 0, 0, 2);
    /// A pod of another node, behind the neighbour.
    pub const REMOTE_V4: Ipv4Addr = Ipv4Addr::new(10, 244, 2, 1);
    /// A pod of another node, behind the neighbour.
    pub const REMOTE_V6: Ipv6Addr = Ipv6Addr::new(0xfd74, 0x7710, 0, 2, 0, 0, 0, 1);
    /// MTU of the underlay; pods have the usual 1500.
    pub const MTU: u32 = 1400;
    /// Connections that fit.
    pub const CONNECTIONS: u32 = 4096;

    /// Builds everything. Each test is a process of its own (`cargo nextest`); what it makes goes with its namespaces.
    #[must_use]
    pub fn up() -> Self {
        Self::with(NodeConfig::IPV4 | NodeConfig::IPV6, |_| {})
    }

    /// The same with other settings.
    #[must_use]
    pub fn with(flags: u32, change: impl FnOnce(&mut Options)) -> Self {
        let bpffs = private_bpffs();
        let mut options = Options::new(bpffs.path(), NodeConfig::new(flags));
        options.limits = Limits {
            conntrack_max: Self::CONNECTIONS,
            ..Limits::default()
        };
        change(&mut options);
        let mut datapath = Datapath::load(&options).expect("load");
        let events = datapath.take_events().expect("events");
        let mut netlink = Netlink::open().expect("netlink");
        sysctl::write("net/ipv4/ip_forward", "1").expect("forwarding");
        sysctl::write("net/ipv6/conf/all/forwarding", "1").expect("forwarding");
        let lo = netlink.link("lo").expect("lo").expect("lo").index;
        netlink.set_up(lo).expect("lo up");
        let (world, wire) = wire(&mut netlink);
        let host = host_pair(&mut netlink);
        let pods = [pod(&mut netlink, 1), pod(&mut netlink, 2)];
        for pod in &pods {
            let row = Endpoint::pod(pod.ifindex, pod.mac);
            datapath.endpoints().upsert(pod.v4.into(), &row).expect("row");
            datapath.endpoints().upsert(pod.v6.into(), &row).expect("row");
        }
        for address in [IpAddr::from(Self::V4), Self::V6.into()] {
            datapath
                .endpoints()
                .upsert(address, &Endpoint::host())
                .expect("row");
        }
        Self {
            datapath,
            events,
            netlink,
            pods,
            world,
            wire,
            host,
            bpffs,
        }
    }

    /// A node whose pods' connections to the world have its own addresses, with these ports. The neighbour is the world;
    /// [`REMOTE_V4`](Self::REMOTE_V4) and its like are in the cluster.
    #[must_use]
    pub fn masquerading(ports: Ports) -> Self {
        let flags = NodeConfig::IPV4 | NodeConfig::IPV6 | NodeConfig::MASQUERADE;
        let mut node = Self::with(flags, |_| {});
        node.masquerade(ports, [Self::V4.into(), Self::V6.into()]);
        node.in_the_cluster();
        node
    }

    /// Says that the other node's pods are in the cluster.
    pub(crate) fn in_the_cluster(&mut self) {
        for net in ["10.244.2.0/24", "fd74:7710:0:2::/64"] {
            let net = net.parse().expect("prefix");
            let row = Prefix::cluster(Addr::UNSPECIFIED);
            self.datapath.prefixes().upsert(&net, &row).expect("row");
        }
    }

    /// Takes the world's routes to pods away, and gives pods the packet size of the underlay, as the agent does.
    pub fn forget_pods(&self) {
        for pod in &self.pods {
            let mut inside = Netlink::open_in(pod.netns.as_fd()).expect("netlink");
            let eth0 = inside.link("eth0").expect("eth0").expect("eth0").index;
            inside.apply(&[Request::set_mtu(eth0, Self::MTU)]).expect("mtu");
        }
        let mut world = Netlink::open_in(self.world.as_fd()).expect("netlink");
        for route in world.routes(None).expect("routes") {
            if route.gateway.is_some() {
                world.delete_route(&route).expect("route");
            }
        }
    }

    /// Changes what new connections get.
    pub fn masquerade(&self, ports: Ports, addresses: [IpAddr; 2]) {
        let wanted = Masquerade {
            addresses: addresses.map(Some),
            ports,
            world: [true; 2],
        };
        self.datapath.conntrack().masquerade(&wanted).expect("addresses");
    }

    /// Attaches the programs to the devices; without it nothing moves but what [`run`](Self::run) runs.
    pub fn attach(&mut self) {
        for pod in &self.pods {
            self.datapath
                .attach_pod(&pod.ifname, pod.ifindex)
                .expect("attach");
        }
        self.datapath.attach_wire("wire", self.wire).expect("attach");
        self.datapath
            .attach_host("thalweg_host", self.host)
            .expect("attach");
    }

    /// Runs a program on a frame that comes from the given device.
    pub fn run(&mut self, hook: Hook, ifindex: u32, frame: &[u8]) -> TestRunOutput {
        self.run_gso(hook, ifindex, frame, 0)
    }

    /// The same on a packet that stands for several with so much payload each.
    pub fn run_gso(&mut self, hook: Hook, ifindex: u32, frame: &[u8], gso_size: u32) -> TestRunOutput {
        let program = self.datapath.program(hook).expect("program");
        datapath::test_run(program.as_fd(), frame, &Self::context(ifindex, gso_size), 1).expect("test run")
    }

    /// What the kernel is to know of a packet of a test run: the device that it comes from, and how it is cut.
    #[must_use]
    pub fn context(ifindex: u32, gso_size: u32) -> [u8; 192] {
        /// Where `struct __sk_buff` has them.
        const IFINDEX: usize = 40;
        const GSO_SIZE: usize = 176;
        let mut context = [0_u8; 192];
        context[IFINDEX..IFINDEX + 4].copy_from_slice(&ifindex.to_ne_bytes());
        context[GSO_SIZE..GSO_SIZE + 4].copy_from_slice(&gso_size.to_ne_bytes());
        context
    }

    /// Runs `from_pod` as for a pod.
    pub fn from_pod(&mut self, pod: usize, frame: &[u8]) -> TestRunOutput {
        self.run(Hook::FromPod, self.pods[pod].ifindex, frame)
    }

    /// Packets counted for a reason, both directions together.
    #[must_use]
    pub fn count(&self, reason: Reason) -> u64 {
        let rows = self.datapath.counters().rows().expect("counters");
        rows.iter()
            .filter(|row| row.reason == reason)
            .map(|row| row.packets)
            .sum()
    }

    /// The next event of a drop, which must be there already.
    pub fn drop_event(&mut self) -> Option<datapath::common::DropEvent> {
        self.events
            .next(Duration::ZERO)
            .expect("ring")
            .and_then(|event| match event {
                Event::Drop(drop) => Some(drop),
                Event::PathMtu(_) => None,
            })
    }
}

/// Enters new namespaces on this thread and mounts a BPF file system that nobody else sees.
fn private_bpffs() -> TempDir {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("namespaces");
    let nothing: Option<&str> = None;
    mount(
        nothing,
        "/",
        nothing,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        nothing,
    )
    .expect("private mounts");
    let directory = tempfile::tempdir().expect("directory");
    mount(
        Some("bpf"),
        directory.path(),
        Some("bpf"),
        MsFlags::empty(),
        nothing,
    )
    .expect("bpffs");
    directory
}

fn net(ip: impl Into<IpAddr>, prefix: u8) -> IpNet {
    IpNet::new(ip.into(), prefix).expect("prefix")
}

fn at_once() -> AddressFlags {
    AddressFlags { nodad: true }
}

/// The underlay: one neighbour, which routes to a pod of its own.
fn wire(netlink: &mut Netlink) -> (OwnedFd, u32) {
    let world = netns::create().expect("namespace");
    let peer = Peer {
        name: "eth0",
        mac: None,
        mtu: Some(Node::MTU),
        netns: Some(world.as_fd()),
    };
    let veth = Veth {
        name: "wire",
        mac: None,
        mtu: Some(Node::MTU),
        alias: None,
        up: true,
        link_local: true,
        peer,
    };
    let pair = netlink.create_veth(&veth).expect("veth");
    netlink
        .add_address(pair.index, net(Node::V4, 24), at_once())
        .expect("address");
    netlink
        .add_address(pair.index, net(Node::V6, 64), at_once())
        .expect("address");
    let mut inside = Netlink::open_in(world.as_fd()).expect("netlink");
    let lo = inside.link("lo").expect("lo").expect("lo").index;
    for index in [pair.peer_index, lo] {
        inside.set_up(index).expect("up");
    }
    for (index, address) in [
        (pair.peer_index, net(Node::NEIGHBOUR_V4, 24)),
        (pair.peer_index, net(Node::NEIGHBOUR_V6, 64)),
        (lo, net(Node::REMOTE_V4, 32)),
        (lo, net(Node::REMOTE_V6, 128)),
    ] {
        inside.add_address(index, address, at_once()).expect("address");
    }
    let via = |dst: &str, gateway: IpAddr| Route {
        gateway: Some(gateway),
        ..Route::to(dst.parse().expect("prefix"))
    };
    netlink
        .replace_route(&via("10.244.2.0/24", Node::NEIGHBOUR_V4.into()))
        .expect("route");
    netlink
        .replace_route(&via("fd74:7710:0:2::/64", Node::NEIGHBOUR_V6.into()))
        .expect("route");
    inside
        .replace_route(&via("10.244.1.0/24", Node::V4.into()))
        .expect("route");
    inside
        .replace_route(&via("fd74:7710:0:1::/64", Node::V6.into()))
        .expect("route");
    (world, pair.index)
}

/// The veth through which the host's stack reaches its pods.
fn host_pair(netlink: &mut Netlink) -> u32 {
    let peer = Peer {
        name: "thalweg_net",
        mac: None,
        mtu: None,
        netns: None,
    };
    let veth = Veth {
        name: "thalweg_host",
        mac: None,
        mtu: None,
        alias: None,
        up: false,
        link_local: false,
        peer,
    };
    let pair = netlink.create_veth(&veth).expect("veth");
    for index in [pair.index, pair.peer_index] {
        netlink.set_noarp(index).expect("noarp");
        netlink.set_up(index).expect("up");
    }
    for prefix in ["10.244.1.0/24", "fd74:7710:0:1::/64"] {
        let route = Route {
            oif: Some(pair.index),
            ..Route::to(prefix.parse().expect("prefix"))
        };
        netlink.replace_route(&route).expect("route");
    }
    pair.index
}

fn pod(netlink: &mut Netlink, number: u8) -> Pod {
    let netns = netns::create().expect("namespace");
    let (v4, v6) = (
        Ipv4Addr::new(10, 244, 1, number),
        Ipv6Addr::new(0xfd74, 0x7710, 0, 1, 0, 0, 0, number.into()),
    );
    let mac = Mac([0x0a, 0x58, 10, 244, 1, number]);
    let ifname = format!("tw{number:012x}");
    let peer = Peer {
        name: "eth0",
        mac: Some(model::Mac(mac.0)),
        mtu: None,
        netns: Some(netns.as_fd()),
    };
    let gateway_mac = model::Mac(GATEWAY_MAC.0);
    let veth = Veth {
        name: &ifname,
        mac: Some(gateway_mac),
        mtu: None,
        alias: None,
        up: true,
        link_local: false,
        peer,
    };
    let pair = netlink.create_veth(&veth).expect("veth");
    sysctl::write(&format!("net/ipv4/conf/{ifname}/rp_filter"), "0").expect("rp_filter");
    let mut inside = Netlink::open_in(netns.as_fd()).expect("netlink");
    inside.set_up(pair.peer_index).expect("up");
    inside
        .add_address(pair.peer_index, net(v4, 32), at_once())
        .expect("address");
    inside
        .add_address(pair.peer_index, net(v6, 128), at_once())
        .expect("address");
    for (gateway, all) in [
        (IpAddr::from(GATEWAY_V4), "0.0.0.0/0"),
        (IpAddr::from(GATEWAY_V6), "::/0"),
    ] {
        let default = Route {
            gateway: Some(gateway),
            oif: Some(pair.peer_index),
            onlink: true,
            ..Route::to(all.parse().expect("prefix"))
        };
        inside.replace_route(&default).expect("route");
    }
    Pod {
        netns,
        v4,
        v6,
        mac,
        ifindex: pair.index,
        ifname,
    }
}
