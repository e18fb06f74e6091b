// SPDX-License-Identifier: Apache-2.0
//! Sockets that talk to services: real ones, in a cgroup of the test's own.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use datapath::Datapath;
use datapath::Options;
use datapath::common::{NodeConfig, Service};
use thalweg_tests_datapath::services::Wanted;
use thalweg_tests_datapath::{Node, require_root};

/// A cgroup that this process is in; it leaves and removes it at the end.
struct Cgroup {
    path: PathBuf,
    root: PathBuf,
}

impl Cgroup {
    fn enter() -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let root = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let path = fields.next()?;
            (fields.next()? == "cgroup2").then(|| PathBuf::from(path))
        });
        let root = root.expect("cgroup2 is mounted");
        let path = root.join(format!("thalweg-sockets-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        fs::write(path.join("cgroup.procs"), "0").unwrap();
        Self { path, root }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::write(self.root.join("cgroup.procs"), "0");
        let _ = fs::remove_dir(&self.path);
    }
}

fn up() -> (Node, Cgroup) {
    let cgroup = Cgroup::enter();
    let mut node = Node::with_services(0);
    node.datapath.attach_sockets(&cgroup.path).unwrap();
    (node, cgroup)
}

/// Says which server it is, once for each connection.
fn server(at: IpAddr, name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((at, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            client.unwrap().write_all(name.as_bytes()).unwrap();
        }
    });
    address
}

/// Answers each datagram with its name.
fn udp_server(at: IpAddr, name: &'static str) -> SocketAddr {
    let socket = UdpSocket::bind((at, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, client)) = socket.recv_from(&mut buffer) {
            socket.send_to(name.as_bytes(), client).unwrap();
        }
    });
    address
}

fn ask(service: SocketAddr) -> String {
    let mut stream = TcpStream::connect(service).unwrap();
    assert_eq!(stream.peer_addr().unwrap(), service, "as the socket believes");
    let mut name = String::new();
    stream.read_to_string(&mut name).unwrap();
    name
}

fn ask_udp(socket: &UdpSocket, service: SocketAddr) -> String {
    socket.send_to(b"who?", service).unwrap();
    let mut buffer = [0; 64];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!(from, service, "as the socket believes");
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

fn udp(any: IpAddr) -> UdpSocket {
    let socket = UdpSocket::bind((any, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const LOOPBACK_V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const ANY_V6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

#[test]
fn a_connection_goes_to_a_backend_and_the_socket_does_not_notice() {
    if !require_root() {
        return;
    }
    let (mut node, _cgroup) = up();
    for (id, service, at) in [
        (1, "10.96.0.10:80", LOOPBACK),
        (2, "[fd74:96::10]:80", LOOPBACK_V6),
    ] {
        let backends = [server(at, "one"), server(at, "two")];
        let wanted = Wanted::tcp(id, service, &backends);
        node.serve(&wanted);
        let mut names: Vec<String> = (0..64).map(|_| ask(wanted.frontend)).collect();
        names.sort();
        names.dedup();
        assert_eq!(names, ["one", "two"], "both answer");
    }
    assert!(
        node.datapath.conntrack().nat().map().is_empty().unwrap(),
        "nothing is translated"
    );
}

#[test]
fn a_socket_of_ipv6_reaches_a_service_of_ipv4() {
    if !require_root() {
        return;
    }
    let (mut node, _cgroup) = up();
    let wanted = Wanted::tcp(1, "10.96.0.10:80", &[server(LOOPBACK, "one")]);
    node.serve(&wanted);
    assert_eq!(ask("[::ffff:10.96.0.10]:80".parse().unwrap()), "one");
}

#[test]
fn what_is_no_service_is_left_alone() {
    if !require_root() {
        return;
    }
    let (mut node, _cgroup) = up();
    let plain = server(LOOPBACK, "plain");
    node.serve(&Wanted::tcp(1, "10.96.0.10:80", &[server(LOOPBACK, "one")]));
    assert_eq!(ask(plain), "plain");
}

#[test]
fn without_backends_a_call_is_refused() {
    if !require_root() {
        return;
    }
    let (mut node, _cgroup) = up();
    let mut wanted = Wanted::tcp(1, "10.96.0.10:80", &[]);
    node.serve(&wanted);
    let error = TcpStream::connect(wanted.frontend).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    let dns = Wanted::udp(2, "10.96.0.10:53", &[]);
    node.serve(&dns);
    let error = udp(ANY).send_to(b"who?", dns.frontend).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    wanted.flags |= Service::SILENT;
    node.serve(&wanted);
    let error = TcpStream::connect_timeout(&wanted.frontend, Duration::from_millis(300)).unwrap_err();
    assert_ne!(error.kind(), ErrorKind::ConnectionRefused, "silence");
}

#[test]
fn datagrams_of_a_socket_stay_with_a_backend_until_it_no_longer_serves() {
    if !require_root() {
        return;
    }
    let (mut node, _cgroup) = up();
    for (id, service, at, any) in [
        (1, "10.96.0.10:53", LOOPBACK, ANY),
        (2, "[fd74:96::10]:53", LOOPBACK_V6, ANY_V6),
    ] {
        let backends = [udp_server(at, "one"), udp_server(at, "two")];
        let wanted = Wanted::udp(id, service, &backends);
        node.serve(&wanted);
        let socket = udp(any);
        let first = ask_udp(&socket, wanted.frontend);
        for _ in 0..20 {
            assert_eq!(ask_udp(&socket, wanted.frontend), first);
        }
        let gone = backends[usize::from(first == "two")];
        node.forget_member(&wanted, &gone);
        let moved = (0..40).any(|_| ask_udp(&socket, wanted.frontend) != first);
        assert!(moved, "to the backend that serves");
        let connected = udp(any);
        connected.connect(wanted.frontend).unwrap();
        assert_eq!(connected.peer_addr().unwrap(), wanted.frontend);
        connected.send(b"who?").unwrap();
        let (_, from) = connected.recv_from(&mut [0; 64]).unwrap();
        assert_eq!(from, wanted.frontend);
    }
}

#[test]
fn a_namespaces_sockets_keep_their_backend_for_the_time_of_the_affinity() {
    if !require_root() {
        return;
    }
    let (mut node, _cgroup) = up();
    let backends = [server(LOOPBACK, "one"), server(LOOPBACK, "two")];
    let mut wanted = Wanted::tcp(1, "10.96.0.10:80", &backends);
    wanted.flags |= Service::MEMBERS;
    wanted.affinity = 100_000;
    node.serve(&wanted);
    let first = ask(wanted.frontend);
    for _ in 0..30 {
        assert_eq!(ask(wanted.frontend), first);
    }
}

#[test]
fn a_restart_replaces_the_programs_in_place_and_cleanup_leaves_none() {
    if !require_root() {
        return;
    }
    let (mut node, cgroup) = up();
    let wanted = Wanted::tcp(1, "10.96.0.10:80", &[server(LOOPBACK, "one")]);
    node.serve(&wanted);
    let bpffs = node.bpffs.path().to_owned();
    let flags = NodeConfig::IPV4 | NodeConfig::IPV6 | NodeConfig::SERVICES;
    let mut options = Options::new(&bpffs, NodeConfig::new(flags));
    options.limits.conntrack_max = Node::CONNECTIONS;
    let pins = fs::read_dir(bpffs.join("thalweg/cgroup")).unwrap().count();
    assert_eq!(pins, 8);
    let mut second = Datapath::load(&options).unwrap();
    second.attach_sockets(&cgroup.path).unwrap();
    drop(node.datapath);
    assert_eq!(ask(wanted.frontend), "one");
    datapath::unload(&bpffs).unwrap();
    drop(second);
    let error = TcpStream::connect_timeout(&wanted.frontend, Duration::from_millis(200)).unwrap_err();
    assert_ne!(error.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_cgroup_that_is_not_there_is_named() {
    if !require_root() {
        return;
    }
    let mut node = Node::with_services(0);
    let error = node
        .datapath
        .attach_sockets("/nowhere/at/all".as_ref())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("/nowhere/at/all") && error.contains("cgroup.hostRoot"),
        "{error}"
    );
}
