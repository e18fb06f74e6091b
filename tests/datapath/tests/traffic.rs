// SPDX-License-Identifier: Apache-2.0
//! Real traffic through the real programs on real devices.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::time::{Duration, Instant};

use datapath::common::Reason;
use datapath::common::nat::Ports;
use netlink::netns;
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockType};
use thalweg_tests_datapath::packet::Path;
use thalweg_tests_datapath::{Node, require_root};

const PATIENCE: Duration = Duration::from_secs(5);
/// Enough for many GSO packets.
const BULK: usize = 8 << 20;

/// Serves one TCP connection in a namespace, and sends bulk to it from another.
fn transfer(server: impl AsFd + Sync, at: IpAddr, client: impl AsFd + Sync) {
    let (ready, bound) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            netns::run_in(server.as_fd(), move || {
                let listener = TcpListener::bind((at, 0)).expect("bind");
                ready
                    .send(listener.local_addr().expect("address"))
                    .expect("client");
                let (mut stream, _) = listener.accept().expect("accept");
                stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
                let mut all = Vec::new();
                stream.read_to_end(&mut all).expect("bulk");
                assert_eq!(all.len(), BULK);
                stream.write_all(b"done").expect("answer");
            })
            .expect("namespace");
        });
        let address = bound.recv_timeout(PATIENCE).expect("server");
        netns::run_in(client.as_fd(), move || {
            let mut stream = TcpStream::connect_timeout(&address, PATIENCE).expect("connect");
            stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
            stream.write_all(&vec![7; BULK]).expect("bulk");
            stream.shutdown(std::net::Shutdown::Write).expect("shutdown");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("answer");
            assert_eq!(answer, "done");
        })
        .expect("namespace");
    });
}

fn datagram(server: impl AsFd + Sync, at: IpAddr, client: impl AsFd + Sync) {
    datagram_of(server, at, client, 8);
}

/// A question of so many bytes and its answer; returns whom the server saw.
fn datagram_of(server: impl AsFd + Sync, at: IpAddr, client: impl AsFd + Sync, length: usize) -> SocketAddr {
    let message = vec![0x5a; length];
    let bind = |netns: &(dyn AsFdSync + '_), at: SocketAddr| {
        let socket =
            netns::run_in(netns.as_fd_sync(), move || UdpSocket::bind(at).expect("bind")).expect("namespace");
        socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
        socket
    };
    let any: SocketAddr = if at.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }
        .parse()
        .expect("address");
    let (server, client) = (bind(&server, (at, 0).into()), bind(&client, any));
    client
        .send_to(&message, server.local_addr().expect("address"))
        .expect("send");
    let mut bytes = vec![0; length + 1];
    let (_, from) = server.recv_from(&mut bytes).expect("question");
    server.send_to(&message, from).expect("send");
    let count = client.recv(&mut bytes).expect("answer");
    assert_eq!(bytes[..count], message);
    from
}

trait AsFdSync: Sync {
    fn as_fd_sync(&self) -> std::os::fd::BorrowedFd<'_>;
}

impl<T: AsFd + Sync> AsFdSync for T {
    fn as_fd_sync(&self) -> std::os::fd::BorrowedFd<'_> {
        self.as_fd()
    }
}

fn ping(client: impl AsFd + Sync, to: IpAddr) {
    ping_of(client, to, 56);
}

fn ping_of(client: impl AsFd + Sync, to: IpAddr, bytes: usize) {
    let (to, bytes) = (to.to_string(), bytes.to_string());
    let output = netns::run_in(client.as_fd(), || {
        Command::new("ping")
            .args(["-c", "2", "-i", "0.1", "-W", "2", "-s", &bytes, &to])
            .output()
            .expect("ping")
    });
    let output = output.expect("namespace");
    assert!(
        output.status.success(),
        "ping {to}: {}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn pods_talk_to_each_other_to_the_host_and_to_other_nodes() {
    if !require_root() {
        return;
    }
    let mut node = Node::up();
    node.attach();
    let here = netns::current().expect("namespace");
    let [a, b] = &node.pods;
    for (from, at, address) in [
        (&a.netns, &b.netns, IpAddr::from(b.v4)),
        (&a.netns, &b.netns, b.v6.into()),
        (&a.netns, &here, Node::V4.into()),
        (&a.netns, &here, Node::V6.into()),
        (&here, &a.netns, a.v4.into()),
        (&here, &a.netns, a.v6.into()),
        (&a.netns, &node.world, Node::REMOTE_V4.into()),
        (&a.netns, &node.world, Node::REMOTE_V6.into()),
        (&node.world, &b.netns, b.v4.into()),
        (&node.world, &b.netns, b.v6.into()),
    ] {
        ping(from, address);
        datagram(at, address, from);
        transfer(at, address, from);
    }
    let drops: Vec<_> = node.datapath.counters().rows().expect("counters");
    for row in drops.iter().filter(|row| row.packets > 0) {
        assert!(
            matches!(row.reason, Reason::FORWARDED | Reason::LINK_LOCAL_CHATTER),
            "{row:?}"
        );
    }
}

/// Addresses of the world that know no way to pods: what they see must be the node.
fn worlds() -> [(IpAddr, IpAddr); 2] {
    [
        (Node::NEIGHBOUR_V4.into(), Node::V4.into()),
        (Node::NEIGHBOUR_V6.into(), Node::V6.into()),
    ]
}

#[test]
fn pods_talk_to_the_world_as_the_node() {
    if !require_root() {
        return;
    }
    let mut node = Node::masquerading(Ports::DEFAULT);
    node.forget_pods();
    node.attach();
    let [a, b] = &node.pods;
    for (world, own) in worlds() {
        for pod in [a, b] {
            ping(&pod.netns, world);
            transfer(&node.world, world, &pod.netns);
            // In fragments, both ways.
            ping_of(&pod.netns, world, 4000);
            let seen = datagram_of(&node.world, world, &pod.netns, 8000);
            assert_eq!(seen.ip(), own);
        }
    }
    let rows = node.datapath.counters().rows().expect("counters");
    for row in rows.iter().filter(|row| row.packets > 0) {
        assert!(
            matches!(row.reason, Reason::FORWARDED | Reason::LINK_LOCAL_CHATTER),
            "{row:?}"
        );
    }
}

#[test]
fn a_closed_port_of_the_world_refuses_a_pod_at_once() {
    if !require_root() {
        return;
    }
    let mut node = Node::masquerading(Ports::DEFAULT);
    node.forget_pods();
    node.attach();
    for (world, _) in worlds() {
        let refused = netns::run_in(node.pods[0].netns.as_fd(), move || {
            let tcp = TcpStream::connect_timeout(&(world, 9).into(), PATIENCE).map(drop);
            let udp = UdpSocket::bind((if world.is_ipv4() { "0.0.0.0" } else { "::" }, 0)).expect("bind");
            udp.set_read_timeout(Some(PATIENCE)).expect("timeout");
            udp.connect((world, 9)).expect("connect");
            udp.send(b"anybody?").expect("send");
            // The ICMP error comes to the socket that sent.
            (tcp, udp.recv(&mut [0; 8]).map(drop))
        })
        .expect("namespace");
        let kind = |result: std::io::Result<()>| result.expect_err("refused").kind();
        assert_eq!(kind(refused.0), std::io::ErrorKind::ConnectionRefused);
        assert_eq!(kind(refused.1), std::io::ErrorKind::ConnectionRefused);
    }
}

/// Open at once towards one remote address and port, from both pods.
const CONCURRENT: usize = 2000;

#[test]
fn two_thousand_connections_to_one_remote_do_not_get_into_each_others_way() {
    if !require_root() {
        return;
    }
    let mut node = Node::masquerading(Ports::DEFAULT);
    node.forget_pods();
    node.attach();
    for (world, own) in worlds() {
        let listener = netns::run_in(node.world.as_fd(), move || {
            let socket = TcpListener::bind((world, 7007)).expect("bind");
            nix::sys::socket::listen(&socket, nix::sys::socket::Backlog::MAXCONN).expect("backlog");
            socket
        })
        .expect("namespace");
        let echo = std::thread::spawn(move || {
            let mut seen = std::collections::BTreeSet::new();
            let mut open = Vec::new();
            for _ in 0..CONCURRENT {
                let (mut stream, from) = listener.accept().expect("accept");
                let mut word = [0; 8];
                stream.read_exact(&mut word).expect("word");
                stream.write_all(&word).expect("echo");
                assert!(seen.insert(from), "{from} twice");
                open.push(stream);
            }
            seen
        });
        let clients: Vec<_> = (0..CONCURRENT)
            .map(|number| {
                let pod = node.pods[number % 2].netns.as_fd();
                netns::run_in(pod, move || {
                    let mut stream =
                        TcpStream::connect_timeout(&(world, 7007).into(), PATIENCE).expect("connect");
                    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
                    stream.write_all(&(number as u64).to_be_bytes()).expect("word");
                    stream
                })
                .expect("namespace")
            })
            .collect();
        for (number, mut client) in clients.iter().enumerate() {
            let mut word = [0; 8];
            client.read_exact(&mut word).expect("echo");
            assert_eq!(u64::from_be_bytes(word), number as u64);
        }
        let seen = echo.join().expect("server");
        assert!(seen.iter().all(|from| from.ip() == own));
    }
}

#[test]
fn a_pod_cannot_reach_a_vlan_and_what_comes_of_one_is_left_to_its_device() {
    if !require_root() {
        return;
    }
    let mut node = Node::up();
    node.attach();
    let pod = &node.pods[0];
    // Nobody answers an answer.
    let frame = Path::new(pod.mac, pod.v4, Node::REMOTE_V4).echo(7, true);
    for tag in [7, 0, 0xe007] {
        send(&pod.netns, &tagged(&frame, tag));
    }
    send(&pod.netns, &frame);
    eventually(|| node.count(Reason::FORWARDED) > 0);
    assert_eq!(node.count(Reason::VLAN_FILTERED), 3);

    let own = node.netlink.link("wire").expect("link").expect("wire").mac;
    let mut frame = Path::new(pod.mac, Node::REMOTE_V4, pod.v4).echo(7, true);
    frame[..6].copy_from_slice(&own.expect("a MAC").0);
    let received = node.count(Reason::FORWARDED);
    send(&node.world, &tagged(&frame, 7));
    // No VLAN, but a priority.
    send(&node.world, &tagged(&frame, 0xe000));
    eventually(|| node.count(Reason::FORWARDED) > received);
    assert_eq!(node.count(Reason::FORWARDED), received + 1);
}

/// A frame with a tag of IEEE 802.1Q: three bits of priority, one that is not used, twelve that name the VLAN.
fn tagged(frame: &[u8], tag: u16) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(12);
    [addresses, &[0x81, 0], &tag.to_be_bytes(), rest].concat()
}

/// Sends a frame as it is out of `eth0`.
fn send(netns: impl AsFd, frame: &[u8]) {
    let frame = frame.to_vec();
    netns::run_in(netns.as_fd(), move || {
        let device = nix::ifaddrs::getifaddrs().expect("devices").find_map(|one| {
            let address = one.address.filter(|_| one.interface_name == "eth0")?;
            address.as_link_addr().copied()
        });
        let (family, kind) = (AddressFamily::Packet, SockType::Raw);
        let socket = socket::socket(family, kind, SockFlag::empty(), None).expect("socket");
        socket::bind(socket.as_raw_fd(), &device.expect("eth0")).expect("bind");
        socket::send(socket.as_raw_fd(), &frame, MsgFlags::empty()).expect("send");
    })
    .expect("namespace");
}

fn eventually(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "it does not come");
        std::thread::yield_now();
    }
}
