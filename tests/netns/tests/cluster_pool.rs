// SPDX-License-Identifier: Apache-2.0
//! Addresses from pools of the cluster: real agents, two real operators, many pods, small blocks.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use api::crd::{PoolRange, PoolSpec};
use lab::spec::{Families, Ipam, Nodes, Pool};
use lab::{Guard, Lab};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests_netns::objects::{self, kill_leader, kubectl};
use tests_netns::{assert_pings, assert_tcp, eventually, eventually_within, said, start, thalweg};
use thalweg_tests_netns as tests_netns;

/// Another operator takes over after six seconds in a lab; pods may have to wait that long, and for a runtime's next attempt.
const FAILOVER: Duration = Duration::from_secs(60);

#[test]
fn nodes_grow_beyond_their_first_block_while_operators_die_and_give_back_what_they_no_longer_need() {
    let Some(lab) = start_pools("grow", &["10.32.0.0/25"], |_| ()) else {
        return;
    };
    assert!(
        lab.pod_ips("pod-1-1").unwrap()[0]
            .to_string()
            .starts_with("10.32.0.")
    );
    for node in [1, 2] {
        make_pods(&lab, node, "a", 12, None);
    }
    // In the midst of it, and the next one as soon as it leads.
    kill_leader(&lab);
    for node in [1, 2] {
        make_pods(&lab, node, "b", 12, None);
    }
    eventually_within(FAILOVER, "all pods get addresses", || running(&lab) == 52);
    kill_leader(&lab);
    let all: Vec<IpAddr> = lab.pods().iter().flat_map(|pod| pod.ips.clone()).collect();
    let different: BTreeSet<&IpAddr> = all.iter().collect();
    assert_eq!(
        (all.len(), different.len()),
        (104, 104),
        "two families, no address twice"
    );
    // The last pod of each node is in a block that the node got late.
    for (from, to) in [("pod-1-1", "b-2-12"), ("b-2-12", "b-1-12"), ("node-1", "b-2-11")] {
        for ip in lab.pod_ips(to).unwrap() {
            assert_pings(&lab, from, ip);
            assert_tcp(&lab, from, to, ip);
        }
    }
    let blocks = |node: &str| object(&lab, "thalwegnode", node)["spec"]["pools"][0]["cidrs"].clone();
    assert!(
        blocks("node-1").as_array().unwrap().len() >= 6,
        "{}",
        blocks("node-1")
    );
    assert_no_block_twice(&lab);
    for node in ["node-1", "node-2"] {
        lab.restart_agent(node, Signal::SIGKILL).unwrap();
    }
    assert_pings(&lab, "pod-1-1", lab.pod_ips("b-2-12").unwrap()[0]);
    let after: Vec<IpAddr> = lab.pods().iter().flat_map(|pod| pod.ips.clone()).collect();
    assert_eq!(all, after, "pods keep their addresses");

    kubectl(
        &lab,
        &[
            "delete",
            "pods",
            "-l",
            "group in (a,b)",
            "--grace-period=0",
            "--force",
        ],
    );
    eventually_within(FAILOVER, "blocks are given back", || {
        assert_no_block_twice(&lab);
        let left = |node: &str| blocks(node).as_array().map_or(0, Vec::len);
        left("node-1") <= 4 && left("node-2") <= 4
    });
    eventually("the ledger says the same", || {
        let ledger = object(&lab, "thalwegpool", "default")["status"]["blocks"].clone();
        let granted = ["node-1", "node-2"].map(|node| blocks(node).as_array().unwrap().len());
        ledger.as_object().unwrap().len() == granted.iter().sum::<usize>()
    });
}

#[test]
fn a_pool_that_runs_dry_says_so_and_recovers_when_it_is_widened() {
    let Some(lab) = start_pools("dry", &["10.32.0.0/28"], |_| ()) else {
        return;
    };
    make_pods(&lab, 1, "a", 6, None);
    let event = || {
        let events = kubectl(&lab, &["get", "events", "-A", "-o", "json"]);
        let events: Value = serde_json::from_str(&events).unwrap();
        let items = events["items"].as_array().cloned().unwrap_or_default();
        let find = |reason: &str| {
            let mut found = items.iter().filter(|one| one["reason"] == reason);
            found.find_map(|one| one["message"].as_str().map(str::to_owned))
        };
        (find("FailedCreatePodSandBox"), find("PoolExhausted"))
    };
    eventually_within(FAILOVER, "the pool is said to be dry", || {
        matches!(event(), (Some(_), Some(_)))
    });
    let (pod, pool) = event();
    let pod = pod.unwrap();
    assert!(
        pod.contains("no free /29 of ipv4 left (2 of 2 handed out)")
            && pod.contains("add a network to ThalwegPool default"),
        "{pod}"
    );
    assert!(pool.unwrap().contains("pool default has no free /29"));
    let status = said(&thalweg(&["ipam", "status", "--lab", lab.name()]));
    assert!(
        status.contains("Pools of the cluster") && status.contains("no free /29"),
        "{status}"
    );
    let status = thalweg(&["ipam", "status", "--lab", lab.name(), "-o", "json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["clusterPools"][0]["blocksHeld"], 2);
    assert_eq!(status["clusterNodes"].as_array().unwrap().len(), 2);

    let wider = json!({"spec": {"ipv4": {"cidrs": ["10.32.0.0/28", "10.32.1.0/24"]}}}).to_string();
    kubectl(
        &lab,
        &["patch", "thalwegpool", "default", "--type=merge", "-p", &wider],
    );
    eventually_within(FAILOVER, "the pods run", || running(&lab) == 10);
    assert_pings(&lab, "pod-2-1", lab.pod_ips("a-1-6").unwrap()[0]);
}

#[test]
fn pods_choose_pools_and_pools_that_overlap_are_refused() {
    let Some(lab) = start_pools("choose", &["10.32.0.0/24"], |_| ()) else {
        return;
    };
    let pool = |name: &str, cidr: &str| {
        let pool = json!({
            "apiVersion": "thalweg.io/v1alpha1", "kind": "ThalwegPool", "metadata": {"name": name},
            "spec": {"ipv4": {"cidrs": [cidr], "nodeMaskSize": 29}},
        });
        apply(&lab, &[pool]);
    };
    pool("blue", "10.48.0.0/24");
    pool("rival", "10.32.0.128/25");
    pool("node", "172.30.0.0/24");
    pool("service", "10.96.0.0/24");
    let reason = |name: &str| {
        let conditions = object(&lab, "thalwegpool", name)["status"]["conditions"].clone();
        let conditions = conditions.as_array().cloned().unwrap_or_default();
        let accepted = conditions.into_iter().find(|one| one["type"] == "Accepted");
        accepted
            .map(|one| (one["reason"].clone(), one["message"].to_string()))
            .unwrap_or_default()
    };
    for (name, expected, both) in [
        ("blue", "Accepted", ["", ""]),
        (
            "rival",
            "OverlapsPool",
            ["10.32.0.128/25", "10.32.0.0/24 of ThalwegPool default"],
        ),
        ("node", "ContainsNode", ["172.30.0.0/24", "node node-1"]),
        ("service", "OverlapsServices", ["10.96.0.0/24", "10.96.0.0/16"]),
    ] {
        eventually(&format!("pool {name} is judged"), || reason(name).0 == expected);
        assert!(
            both.iter().all(|text| reason(name).1.contains(text)),
            "{}",
            reason(name).1
        );
    }
    make_pods(&lab, 1, "own", 1, Some("blue"));
    apply(
        &lab,
        &[json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "sea", "annotations": {"ipam.thalweg.io/pool": "blue"}},
        })],
    );
    let mut pod = pod("inherited", 2, "sea", None);
    pod["metadata"]["namespace"] = "sea".into();
    apply(&lab, &[pod]);
    let ips = |namespace: &str, name: &str| lab.pod(namespace, name).map(|pod| pod.ips).unwrap_or_default();
    eventually("both run", || {
        !ips("default", "own-1-1").is_empty() && !ips("sea", "inherited").is_empty()
    });
    for (namespace, name) in [("default", "own-1-1"), ("sea", "inherited")] {
        let ips = ips(namespace, name);
        assert!(
            ips.len() == 1 && ips[0].to_string().starts_with("10.48.0."),
            "{name}: {ips:?}"
        );
    }
    assert_pings(&lab, "pod-2-1", ips("default", "own-1-1")[0]);
    assert_pings(&lab, "own-1-1", ips("sea", "inherited")[0]);
}

/// A lab of two nodes whose default pool has these networks, in blocks of six addresses.
fn start_pools(test: &str, cidrs: &[&str], edit: impl FnOnce(&mut lab::Spec)) -> Option<Guard> {
    start(test, |spec| {
        spec.ipam = Ipam::ClusterPool;
        spec.nodes = Nodes::Count(2);
        let mut pool = Pool::usual(Families::Dual);
        pool.spec = PoolSpec {
            ipv4: Some(PoolRange {
                cidrs: cidrs.iter().map(|&cidr| cidr.to_owned()).collect(),
                node_mask_size: 29,
            }),
            ..pool.spec
        };
        spec.pools = vec![pool];
        spec.agent.insert("ipam.spareAddresses".into(), 2.into());
        spec.operator.insert("ipam.releaseAfterSeconds".into(), 2.into());
        edit(spec);
    })
}

fn pod(name: &str, node: u32, group: &str, pool: Option<&str>) -> Value {
    let annotations = pool.map(|pool| json!({"ipam.thalweg.io/pool": pool}));
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"group": group},
                     "annotations": annotations.unwrap_or_else(|| json!({}))},
        "spec": {"nodeName": format!("node-{node}"), "terminationGracePeriodSeconds": 0,
                 "containers": [{"name": "main", "image": "host", "command": ["sleep", "infinity"]}]},
    })
}

fn make_pods(lab: &Lab, node: u32, group: &str, count: u32, pool: Option<&str>) {
    let pods: Vec<Value> = (1..=count)
        .map(|number| pod(&format!("{group}-{node}-{number}"), node, group, pool))
        .collect();
    apply(lab, &pods);
}

fn apply(lab: &Lab, objects: &[Value]) {
    let documents: Vec<String> = objects.iter().map(Value::to_string).collect();
    objects::apply(lab, &documents.join("\n---\n"));
}

fn object(lab: &Lab, kind: &str, name: &str) -> Value {
    serde_json::from_str(&kubectl(lab, &["get", kind, name, "-o", "json"])).unwrap()
}

fn running(lab: &Lab) -> usize {
    lab.pods().iter().filter(|pod| pod.ready).count()
}

fn assert_no_block_twice(lab: &Lab) {
    let nodes: Value = serde_json::from_str(&kubectl(lab, &["get", "thalwegnodes", "-o", "json"])).unwrap();
    let mut seen = BTreeSet::new();
    for node in nodes["items"].as_array().unwrap() {
        for pool in node["spec"]["pools"].as_array().unwrap() {
            for block in pool["cidrs"].as_array().unwrap() {
                assert!(
                    seen.insert(block["cidr"].to_string()),
                    "{block} is at two nodes: {nodes}"
                );
            }
        }
    }
}
