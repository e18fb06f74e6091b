// SPDX-License-Identifier: Apache-2.0
//! Many short connections to one server of the world, which is where masquerading runs out of ports.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::{IpAddr, TcpListener, TcpStream};

use tests_netns::{drops, listen_in_world, start, within};
use thalweg_tests_netns as tests_netns;

/// More than the node has ports (16,384), and fewer than a pod has.
const CONNECTIONS: usize = 20_500;
const PORTS: usize = 16_384;
/// At the same time, so that none waits for the scheduler alone.
const CLIENTS: usize = 4;

#[test]
fn connections_to_one_server_outnumber_the_ports_and_none_waits() {
    let Some(lab) = start("ports", |spec| {
        for (key, value) in [
            ("enableIPv4Masquerade", "true"),
            ("enableIPv6Masquerade", "true"),
            // What is closed is collected long after the test.
            ("conntrack.timeouts.closingSeconds", "600"),
        ] {
            spec.agent.insert(key.into(), value.into());
        }
    }) else {
        return;
    };
    let listener = listen_in_world(&lab, lab.api_addresses()[0]);
    let to = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || accept_all(&listener));
    let connect = || {
        for number in 0..CONNECTIONS / CLIENTS {
            if let Err(error) = TcpStream::connect_timeout(&to, tests_netns::LIMIT) {
                panic!("connection {number} to {to}: {error}");
            }
        }
    };
    within(&lab, "pod-1-1", || {
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(connect);
            }
        });
    });
    let (peers, ports) = server.join().expect("no panic").unwrap();
    let node = &lab.state().nodes[0].addresses;
    for peer in peers {
        assert!(
            node.iter().any(|net| net.addr() == peer),
            "{peer} is not the node"
        );
    }
    assert!(ports.len() <= PORTS, "{} ports", ports.len());
    assert_eq!(drops(&lab, "node-1", "NO_MAPPING_FOR_NAT_MASQUERADE"), 0);
}

/// Takes connections and lets their other end close first; returns who they are from.
fn accept_all(listener: &TcpListener) -> std::io::Result<(BTreeSet<IpAddr>, BTreeSet<u16>)> {
    let (mut peers, mut ports) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..CONNECTIONS {
        let (mut stream, peer) = listener.accept()?;
        peers.insert(peer.ip());
        ports.insert(peer.port());
        stream.read_to_end(&mut Vec::new())?;
    }
    Ok((peers, ports))
}
