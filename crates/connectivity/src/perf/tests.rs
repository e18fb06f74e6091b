// SPDX-License-Identifier: Apache-2.0
//! The load generator against itself, on loopback.

use std::net::Ipv4Addr;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::thread;

use super::server::Server;
use super::*;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const NAME: &str = "me";

#[test]
fn every_kind_of_work_is_counted() {
    let port = server();
    for kind in [Kind::TcpRr, Kind::UdpRr, Kind::TcpCrr, Kind::TcpStream] {
        let report = client::run(&workload(kind, port, 1)).unwrap();
        assert!(report.rate() > 0.0, "{report:?}");
        assert_eq!(report.latency.is_some(), kind != Kind::TcpStream, "{report:?}");
        assert!((report.seconds - 0.1).abs() < 0.1, "{report:?}");
    }
}

#[test]
fn several_flows_add_up() {
    let report = client::run(&workload(Kind::TcpCrr, server(), 3)).unwrap();
    assert_eq!(report.flows, 3);
    assert!(report.transactions > 3, "{report:?}");
}

#[test]
fn a_closed_port_is_told_from_silence() {
    let closed = SocketAddr::new(LOOPBACK, 1);
    assert_eq!(
        probe::connect_once(closed, Duration::from_secs(1)).unwrap(),
        probe::Connect::Refused
    );
}

#[test]
fn probes_see_an_honest_server() {
    let port = server();
    let who = probe::whoami(LOOPBACK, port).unwrap();
    assert_eq!((who.peer.ip(), who.server.as_str()), (LOOPBACK, NAME));
    assert_eq!(probe::bulk(LOOPBACK, port, 1_000_003).unwrap().bytes, 1_000_003);
    assert_eq!(probe::many(LOOPBACK, port, 50).unwrap().connections, 50);
    assert_eq!(probe::datagrams(LOOPBACK, port, 3000, 5).unwrap().received, 5);
}

#[test]
fn questions_are_answered_by_name_over_both_protocols_and_refusals_are_counted() {
    let port = server();
    let whoami = SocketAddr::new(LOOPBACK, Ports::new(port).whoami());
    for protocol in [ask::Protocol::Tcp, ask::Protocol::Udp] {
        let answers = ask::many(whoami, protocol, 10);
        assert_eq!(answers.servers, [(NAME.to_owned(), 10)].into(), "{answers:?}");
        assert_eq!(answers.peers, [LOOPBACK].into());
        let closed = ask::many(SocketAddr::new(LOOPBACK, 1), protocol, 3);
        assert_eq!((closed.answered(), closed.refused), (0, 3), "{closed:?}");
    }
}

#[test]
fn who_lingers_keeps_a_connection_and_sees_whom_new_ones_go_to() {
    let ports = Ports::new(server());
    let [echo, whoami] = [ports.echo(), ports.whoami()].map(|port| SocketAddr::new(LOOPBACK, port));
    let found = ask::linger(echo, whoami, NAME, Duration::from_secs(10)).unwrap();
    assert!(found.moved && found.broken.is_none(), "{found:?}");
    assert!(found.exchanges >= 20, "{found:?}");
    let found = ask::linger(echo, whoami, "another", Duration::from_millis(200)).unwrap();
    assert!(!found.moved, "{found:?}");
}

#[test]
fn a_soak_of_a_healthy_path_is_clean() {
    let soak = soak::Soak {
        target: LOOPBACK,
        port: server(),
        connections: 5,
        interval: Duration::from_millis(1),
        udp_interval: Duration::from_millis(1),
    };
    let ready = soak::open(soak).unwrap();
    static STOP: AtomicBool = AtomicBool::new(false);
    let (done, report) = mpsc::channel();
    thread::spawn(move || done.send(ready.run(&STOP)));
    assert!(report.recv_timeout(Duration::from_millis(200)).is_err());
    STOP.store(true, std::sync::atomic::Ordering::Relaxed);
    let report = report.recv().unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert!(report.tcp.exchanges > 5 && report.udp.received > 5, "{report:?}");
}

/// A server on ports that are free now.
fn server() -> u16 {
    for base in (20_000..60_000).step_by(usize::from(Ports::COUNT)) {
        if let Ok(server) = Server::bind(&[LOOPBACK], base) {
            server.start(NAME).unwrap();
            return base;
        }
    }
    panic!("no free ports");
}

fn workload(kind: Kind, port: u16, flows: usize) -> Workload {
    Workload {
        kind,
        target: LOOPBACK,
        port,
        flows,
        warmup: Duration::from_millis(20),
        duration: Duration::from_millis(100),
        cpu: None,
    }
}
