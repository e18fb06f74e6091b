// SPDX-License-Identifier: Apache-2.0
//! Real traffic through the real programs on real devices.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

use datapath::common::Reason;
use netlink::netns;
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
        .send_to(b"question", server.local_addr().expect("address"))
        .expect("send");
    let mut bytes = [0; 64];
    let (_, from) = server.recv_from(&mut bytes).expect("question");
    server.send_to(b"answer", from).expect("send");
    let count = client.recv(&mut bytes).expect("answer");
    assert_eq!(&bytes[..count], b"answer");
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
    let to = to.to_string();
    let output = netns::run_in(client.as_fd(), || {
        Command::new("ping")
            .args(["-c", "2", "-i", "0.1", "-W", "2", &to])
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
