// SPDX-License-Identifier: Apache-2.0
//! The load generator against itself, on loopback.

use std::net::Ipv4Addr;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::thread;

use super::server::Server;
use super::*;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

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
    assert_eq!(probe::whoami(LOOPBACK, port).unwrap().ip(), LOOPBACK);
    assert_eq!(probe::bulk(LOOPBACK, port, 1_000_003).unwrap().bytes, 1_000_003);
    assert_eq!(probe::many(LOOPBACK, port, 50).unwrap().connections, 50);
    assert_eq!(probe::datagrams(LOOPBACK, port, 3000, 5).unwrap().received, 5);
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
            server.start().unwrap();
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
