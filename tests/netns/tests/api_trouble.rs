// SPDX-License-Identifier: Apache-2.0
//! The API server is away, slow, or says what is not so. Traffic, ADD and DEL go on; afterwards everything is as it should be.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "api_trouble/proxy.rs"]
mod proxy;

use std::net::{IpAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::path::Path;

use lab::spec::Ipam;
use lab::{Guard, Lab};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests_netns::hitless::Traffic;
use tests_netns::objects::{kubectl, kubectl_fed};
use tests_netns::{agent_status, assert_pings, eventually, run, said, start, thalweg};
use thalweg_tests_netns as tests_netns;

use proxy::{Fault, Proxy};

const FAULTS: [Fault; 6] = [
    Fault::Away,
    Fault::Hang,
    Fault::Busy,
    Fault::Broken,
    Fault::Garbage,
    Fault::Gone,
];

#[test]
fn pods_come_and_go_and_nodes_are_learnt_of_afterwards_whatever_the_api_does() {
    let Some((lab, proxy)) = lab_behind_proxy("api-native", |_| ()) else {
        return;
    };
    let traffic = traffic(&lab);
    ghost(&lab, "ghost-0", 200);
    eventually("the node is learnt of", || {
        way(&lab, 0).as_deref() == Some("172.30.0.200")
    });
    for (fault, number) in FAULTS.into_iter().zip(1..) {
        proxy.set(fault);
        eventually("the agents meet it", || proxy.spoiled() >= 2);
        // In the meantime: a node comes, another goes and comes back under its name with another address; a third takes over its address.
        ghost(&lab, &format!("ghost-{number}"), 100 + number);
        forget(&lab, "ghost-0");
        ghost(&lab, "ghost-0", 200 + number);
        ghost(&lab, "heir", 199 + number);
        pod_comes_and_goes(&lab, number.into());
        if matches!(fault, Fault::Away | Fault::Busy | Fault::Broken | Fault::Garbage) {
            eventually("it is said", || {
                !agent_status(&lab, "node-1").kubernetes.connected
            });
        }
        assert!(agent_status(&lab, "node-1").ready, "{fault:?}");

        proxy.set(Fault::None);
        let wanted =
            |network: u8, address: u8| way(&lab, network).as_deref() == Some(&*format!("172.30.0.{address}"));
        eventually(&format!("all nodes are known after {fault:?}"), || {
            wanted(number, 100 + number) && wanted(0, 200 + number) && wanted(99, 199 + number)
        });
        eventually("the API is heard again", || {
            agent_status(&lab, "node-1").kubernetes.connected
        });
        forget(&lab, "heir");
        eventually("what is gone is gone", || way(&lab, 99).is_none());
    }
    assert_unharmed(traffic);
}

#[test]
fn pods_come_and_go_from_known_blocks_whatever_the_api_does() {
    let Some((lab, proxy)) = lab_behind_proxy("api-pool", |spec| spec.ipam = Ipam::ClusterPool) else {
        return;
    };
    let traffic = traffic(&lab);
    for (fault, number) in FAULTS.into_iter().zip(1..) {
        proxy.set(fault);
        eventually("the agents meet it", || proxy.spoiled() >= 2);
        pod_comes_and_goes(&lab, number);
        assert!(agent_status(&lab, "node-1").ready, "{fault:?}");
        proxy.set(Fault::None);
        eventually("the API is heard again", || {
            agent_status(&lab, "node-1").kubernetes.connected
        });
    }
    assert_unharmed(traffic);
}

#[test]
fn pods_deleted_while_the_agent_is_down_leave_nothing_with_node_networks() {
    nothing_is_left("down-native", Ipam::Kubernetes);
}

#[test]
fn pods_deleted_while_the_agent_is_down_leave_nothing_with_pools() {
    nothing_is_left("down-pool", Ipam::ClusterPool);
}

fn nothing_is_left(test: &str, ipam: Ipam) {
    let Some(lab) = start(test, |spec| spec.ipam = ipam) else {
        return;
    };
    for round in 0..3 {
        for number in 0..4 {
            make_pod(&lab, &format!("brief-{round}-{number}"));
        }
        let agent = agent_status(&lab, "node-1").pid.to_string();
        // Stopped, it does not answer the plugin, and is not started anew.
        assert!(run(&lab, "node-1", &["kill", "-STOP", &agent]).status.success());
        let label = format!("round={round}");
        kubectl(
            &lab,
            &[
                "delete",
                "pods",
                "-l",
                &label,
                "--grace-period=0",
                "--force",
                "--wait=false",
            ],
        );
        std::thread::scope(|scope| {
            // Dead in the midst of its DELs.
            scope.spawn(|| lab.restart_agent("node-1", Signal::SIGKILL).unwrap());
        });
        eventually("nothing of them is left", || {
            let status = agent_status(&lab, "node-1");
            let used = |pool: &api::agent::PoolView| pool.used;
            let used: u64 = status.ipam.iter().map(used).sum();
            (status.endpoints.total, used, devices(&lab)) == (2, 4, 2) && rows(&lab) == 4
        });
    }
    let far = lab.pod_ips("pod-2-1").unwrap()[0];
    assert_pings(&lab, "pod-1-1", far);
}

/// Host ends of pods on the first node.
fn devices(lab: &Lab) -> usize {
    let links = said(&run(lab, "node-1", &["ip", "-o", "link"]));
    links.lines().filter(|line| line.contains(": tw")).count()
}

/// Pods' addresses in the first node's datapath.
fn rows(lab: &Lab) -> usize {
    let output = thalweg(&[
        "map",
        "dump",
        "endpoints",
        "--lab",
        lab.name(),
        "--node",
        "node-1",
        "-o",
        "json",
    ]);
    let list: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    let values = list["items"].as_array().unwrap().iter().map(|row| &row["value"]);
    let pods = values.filter(|value| value.as_str().is_some_and(|value| value.starts_with("pod ")));
    pods.count()
}

/// A lab whose agents reach the API through a proxy in the underlay.
fn lab_behind_proxy(test: &str, edit: impl FnOnce(&mut lab::Spec)) -> Option<(Guard, Proxy)> {
    let lab = start(test, edit)?;
    let proxy = put_proxy_before(&lab);
    Some((lab, proxy))
}

fn put_proxy_before(lab: &Lab) -> Proxy {
    let network = netlink::netns::open(&lab.state().underlay.unwrap().namespace("net")).unwrap();
    let address = lab.api_addresses()[0];
    let listener = netlink::netns::run_in(network.as_fd(), move || TcpListener::bind((address, 0)));
    let proxy = Proxy::start(listener.unwrap().unwrap(), &lab.kubeconfig());
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
        "clusters": [{"name": "proxy", "cluster": {"server": format!("http://{}", proxy.address)}}],
        "users": [{"name": "proxy", "user": {}}],
        "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
    });
    for node in lab.nodes() {
        let path = node.host_path(Path::new("/run/thalweg-lab/kubeconfig"));
        std::fs::write(path, kubeconfig.to_string()).unwrap();
        lab.restart_agent(&node.name, Signal::SIGTERM).unwrap();
        let server = agent_status(lab, &node.name).kubernetes.server;
        assert!(server.contains(&proxy.address.to_string()), "{server}");
    }
    proxy
}

fn traffic(lab: &Lab) -> Traffic {
    let mut traffic = Traffic::new();
    for family in [0, 1] {
        traffic.connect(
            lab,
            "pod-1-1",
            "pod-1-2",
            lab.pod_ips("pod-1-2").unwrap()[family],
            5,
        );
        traffic.connect(
            lab,
            "pod-1-1",
            "pod-2-1",
            lab.pod_ips("pod-2-1").unwrap()[family],
            5,
        );
    }
    traffic.stream(lab, "pod-1-1", "pod-2-1", lab.pod_ips("pod-2-1").unwrap()[0]);
    traffic
}

fn assert_unharmed(traffic: Traffic) {
    let report = traffic.finish();
    assert_eq!(report.broken, [""; 0]);
    assert_eq!(report.sent, report.received, "datagrams were lost");
}

/// Both kinds of objects that are made here come from standard input.
const CREATE: [&str; 3] = ["apply", "-f", "-"];

/// On the first node; the kubelet has an API that works.
fn pod_comes_and_goes(lab: &Lab, number: u32) {
    let name = format!("brief-{number}-0");
    let before = agent_status(lab, "node-1").endpoints.total;
    let ip = make_pod(lab, &name);
    assert_pings(lab, "pod-2-1", ip);
    kubectl(lab, &["delete", "pod", &name, "--grace-period=0", "--force"]);
    eventually("its DEL is done", || {
        agent_status(lab, "node-1").endpoints.total == before
    });
}

/// Runs a pod on the first node; its first address.
fn make_pod(lab: &Lab, name: &str) -> IpAddr {
    let round = name.split('-').nth(1).unwrap();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"round": round}},
        "spec": {"nodeName": "node-1", "terminationGracePeriodSeconds": 0,
                 "containers": [{"name": "main", "image": "host", "command": ["sleep", "infinity"]}]},
    });
    kubectl_fed(lab, &CREATE, &pod.to_string());
    let ip = || lab.pod_ips(name).ok().and_then(|ips| ips.first().copied());
    eventually(&format!("pod {name} runs"), || ip().is_some());
    ip().unwrap()
}

/// A node that is but an object: 172.30.0.`host`, with pods in 10.250.`number`.0/24, 99 for the heir.
fn ghost(lab: &Lab, name: &str, host: u8) {
    let number = name
        .strip_prefix("ghost-")
        .map_or(99, |number| number.parse().unwrap());
    let cidr = format!("10.250.{number}.0/24");
    let address = json!([{"type": "InternalIP", "address": format!("172.30.0.{host}")}]);
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "spec": {"podCIDR": &cidr, "podCIDRs": [&cidr]},
    });
    kubectl_fed(lab, &CREATE, &node.to_string());
    let status = json!({"status": {"addresses": address}}).to_string();
    kubectl(
        lab,
        &[
            "patch",
            "node",
            name,
            "--subresource=status",
            "--type=merge",
            "-p",
            &status,
        ],
    );
}

fn forget(lab: &Lab, node: &str) {
    kubectl(lab, &["delete", "node", node]);
}

/// Where the first node sends packets for 10.250.`number`.0/24.
fn way(lab: &Lab, number: u8) -> Option<String> {
    let routes = said(&run(lab, "node-1", &["ip", "-4", "route"]));
    let mut lines = routes.lines();
    let line = lines.find(|line| line.starts_with(&format!("10.250.{number}.0/24 ")))?;
    let mut words = line.split(' ').skip_while(|word| *word != "via");
    words.nth(1).map(str::to_owned)
}
