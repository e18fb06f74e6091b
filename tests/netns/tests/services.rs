// SPDX-License-Identifier: Apache-2.0
//! Services on real nodes: what Kubernetes documents of them, and that nobody notices when agents restart and backends come
//! and go.

#![expect(clippy::unwrap_used, reason = "this is a test")]

#[path = "services/bed.rs"]
mod bed;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bed::{Client, Served, Server, wait_for};
use connectivity::perf::ask::{self, Answers};
use connectivity::perf::{DEFAULT_PORT, Ports};
use lab::spec::Nodes;
use lab::{Lab, Spec};
use nix::sys::signal::Signal;
use serde_json::Value;
use tests_netns::examine::json;
use tests_netns::{LIMIT, eventually, start, thalweg, within};
use thalweg_tests_netns as tests_netns;

/// How many scenarios of services concern pods, all families.
const SCENARIOS: u64 = 30;
/// A lab's table of connections is small, and clients here open ten thousand a second.
const ROOM: u32 = 1 << 19;
/// Between two restarts.
const PACE: Duration = Duration::from_secs(2);
const CONNECTIONS: usize = 1000;
const CHURN: Duration = Duration::from_secs(10);
/// How many changes there are at least, however long they take on a busy machine.
const CHANGES: usize = 300;

#[test]
fn what_kubernetes_documents_of_services_holds_for_pods_whose_packets_are_translated() {
    let edit = |spec: &mut Spec| {
        (spec.nodes, spec.pods_per_node) = (Nodes::Count(2), 0);
        spec.agent.insert("socketLB.enabled".into(), false.into());
    };
    let Some(lab) = start("services-packets", edit) else {
        return;
    };
    let found: Value = json(&thalweg(&[
        "connectivity",
        "test",
        "--lab",
        lab.name(),
        "--filter",
        "service",
        "-o",
        "json",
    ]));
    let tests = found["tests"].as_array().unwrap();
    let failed: Vec<_> = tests.iter().filter(|test| test["result"] == "failed").collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(found["passed"].as_u64().unwrap() >= SCENARIOS, "{found:#}");
}

#[test]
fn agents_restart_and_are_killed_while_services_are_called_and_no_request_fails() {
    let Some(lab) = start("services-restart", with_room) else {
        return;
    };
    let pods = ["pod-1-2", "pod-2-1", "pod-2-2"];
    let _servers = pods.map(|pod| Server::start(&lab, pod));
    let [v4, v6] = ["IPv4", "IPv6"].map(|family| {
        let of = pods.map(|pod| ip(&lab, pod, family));
        Served::create(&lab, &format!("all-{}", family.to_lowercase()), family, &of)
    });
    let [node_v4, node_v6]: [IpAddr; 2] = lab.node("node-1").unwrap().addresses.try_into().unwrap();
    let node_ports = [
        SocketAddr::new(node_v4, v4.node_port),
        SocketAddr::new(node_v6, v6.node_port),
    ];
    let clients = [
        Client::packets("pod-1-1", v4.who()),
        Client::packets("node-2", node_ports[1]),
        Client::sockets("pod-1-1", v6.who()),
        Client::sockets("pod-1-2", node_ports[0]),
    ];
    wait_for(&lab, &clients);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = clients.map(|client| client.ask_on(&lab, scope, &stop));
        for signal in [
            Signal::SIGTERM,
            Signal::SIGTERM,
            Signal::SIGTERM,
            Signal::SIGTERM,
            Signal::SIGKILL,
        ] {
            thread::sleep(PACE);
            restart_both(&lab, signal);
        }
        thread::sleep(PACE);
        stop.store(true, Ordering::Relaxed);
        for asking in asking {
            let (client, all) = asking.join().unwrap();
            assert_served(client, &all, &pods);
        }
    });
}

fn with_room(spec: &mut Spec) {
    spec.agent.insert("conntrack.maxEntries".into(), ROOM.into());
}

/// Both agents at once: at times there is none at all.
fn restart_both(lab: &Lab, signal: Signal) {
    thread::scope(|scope| {
        for node in ["node-1", "node-2"] {
            scope.spawn(move || lab.restart_agent(node, signal).expect("the agent comes back"));
        }
    });
}

/// Everything was answered, a lot of it, and by the expected only.
fn assert_served(client: Client<'_>, all: &[Answers], expected: &[&str]) {
    for answers in all {
        assert_eq!(answers.unanswered(), 0, "{client:?}: {answers:?}");
    }
    let answered: u64 = all.iter().map(Answers::answered).sum();
    assert!(answered >= 1000, "{client:?}: only {answered}");
    let servers: BTreeSet<&str> = all
        .iter()
        .flat_map(|answers| answers.servers.keys().map(String::as_str))
        .collect();
    let expected: BTreeSet<&str> = expected.iter().copied().collect();
    let wrong: Vec<_> = servers.difference(&expected).collect();
    assert!(wrong.is_empty(), "{client:?}: answered by {wrong:?}");
}

#[test]
fn a_backend_goes_while_a_thousand_connections_are_held_and_the_others_keep_theirs() {
    let Some(lab) = start("services-leave", |_| ()) else {
        return;
    };
    let pods = ["pod-1-2", "pod-2-1", "pod-2-2"];
    let servers = pods.map(|pod| Server::start(&lab, pod));
    let [near, leaving, far] = pods.map(|pod| ip(&lab, pod, "IPv4"));
    let service = Served::create(&lab, "leave", "IPv4", &[near, leaving, far]);
    let client = Client::packets("pod-1-1", service.who());
    wait_for(&lab, &[client]);
    let mut held: Vec<TcpStream> = within(&lab, client.at, || {
        let open = |_| TcpStream::connect_timeout(&service.echo(), LIMIT).unwrap();
        (0..CONNECTIONS).map(open).collect()
    });
    assert!(held.iter_mut().all(is_alive), "all carry data at first");
    let holds = pods.map(|pod| held_by(&lab, pod));
    assert_eq!(holds.iter().sum::<usize>(), CONNECTIONS, "{holds:?}");
    assert!(holds.iter().all(|holds| *holds > CONNECTIONS / 5), "{holds:?}");

    service.change(&[near, far]);
    eventually("new connections go to others", || {
        !client.ask(&lab).servers.contains_key("pod-2-1")
    });
    let [one, gone, other] = servers;
    drop(gone);
    for client in [client, client.udp(), Client::sockets("pod-1-1", service.who())] {
        let all: Vec<Answers> = (0..4).map(|_| client.ask(&lab)).collect();
        assert_served(client, &all, &["pod-1-2", "pod-2-2"]);
    }
    let alive = held
        .iter_mut()
        .filter_map(|stream| is_alive(stream).then_some(()))
        .count();
    assert_eq!(alive, holds[0] + holds[2], "{holds:?}");
    drop((one, other));
}

/// Whether a connection carries data.
fn is_alive(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut back = [0; 4];
    stream.write_all(b"ping").is_ok() && stream.read_exact(&mut back).is_ok() && &back == b"ping"
}

/// How many connections a pod's server holds.
fn held_by(lab: &Lab, pod: &str) -> usize {
    let own = SocketAddr::new(ip(lab, pod, "IPv4"), Ports::new(DEFAULT_PORT).whoami());
    let ask = || ask::once(own, ask::Protocol::Tcp, LIMIT);
    within(lab, pod, ask).unwrap().held
}

#[test]
fn backends_come_and_go_as_fast_as_the_api_takes_it_and_no_wrong_one_ever_answers() {
    let edit = |spec: &mut Spec| {
        spec.pods_per_node = 4;
        with_room(spec);
    };
    let Some(lab) = start("services-churn", edit) else {
        return;
    };
    let [retired, of_a, of_b] = [
        ["pod-1-2", "pod-2-4"],
        ["pod-1-3", "pod-2-1"],
        ["pod-1-4", "pod-2-2"],
    ];
    let _servers = [retired, of_a, of_b].map(|pods| pods.map(|pod| Server::start(&lab, pod)));
    let ips = |pods: [&str; 2]| pods.map(|pod| ip(&lab, pod, "IPv4"));
    let (old, [a, b]) = (ips(retired), [of_a, of_b].map(ips));
    let served_a = Served::create(&lab, "a", "IPv4", &[old[0], a[0], old[1], a[1]]);
    let served_b = Served::create(&lab, "b", "IPv4", &b);
    let clients = [(&served_a, of_a), (&served_b, of_b)];
    for (service, _) in clients {
        wait_for(&lab, &[Client::packets("pod-1-1", service.who())]);
    }
    served_a.change(&a);
    eventually("those that have left answer no more, on both nodes", || {
        ["pod-1-1", "pod-2-3"].iter().all(|at| {
            let answers = Client::packets(at, served_a.who()).ask(&lab);
            !answers
                .servers
                .keys()
                .any(|name| retired.contains(&name.as_str()))
        })
    });
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking: Vec<_> = clients
            .into_iter()
            .flat_map(|(service, expected)| {
                let packets = Client::packets("pod-1-1", service.who());
                let sockets = Client::sockets("pod-2-3", service.who());
                [packets, packets.udp(), sockets].map(|client| (client, expected))
            })
            .map(|(client, expected)| (client.ask_on(&lab, scope, &stop), expected))
            .collect();
        churn(&[(&served_a, a), (&served_b, b)]);
        stop.store(true, Ordering::Relaxed);
        for (asking, expected) in asking {
            let (client, all) = asking.join().unwrap();
            assert_served(client, &all, &expected);
        }
    });
    assert_last_one_remains(&lab, &served_a, of_a[0]);
}

/// Each service has one of its backends, the other, or both, in turns.
fn churn(services: &[(&Served, [IpAddr; 2])]) {
    let begin = Instant::now();
    let mut changes = 0;
    while begin.elapsed() < CHURN || changes < CHANGES {
        for (service, [one, other]) in services {
            for backends in [&[*one][..], &[*other], &[*other, *one], &[*one, *other]] {
                service.change(backends);
                changes += 1;
            }
        }
    }
    services[0].0.change(&services[0].1[..1]);
}

/// What is in force in the end is what was written last.
fn assert_last_one_remains(lab: &Lab, service: &Served, last: &str) {
    for client in [
        Client::packets("pod-1-1", service.who()),
        Client::sockets("pod-2-3", service.who()),
    ] {
        eventually("the last one alone answers", || {
            client.ask(lab).servers.keys().eq([last])
        });
    }
}

fn ip(lab: &Lab, pod: &str, family: &str) -> IpAddr {
    let mut ips = lab.pod_ips(pod).unwrap().into_iter();
    ips.find(|ip| ip.is_ipv4() == (family == "IPv4")).unwrap()
}
