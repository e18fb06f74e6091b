// SPDX-License-Identifier: Apache-2.0

use std::time::SystemTime;

use routing::{Refusal, Row};

use super::*;
use crate::apply::RouteStatus;

#[test]
fn a_node_with_everything_in_place_is_ready() {
    let world = World::default();
    assert_eq!(world.missing(), Vec::<String>::new());
}

#[test]
fn an_api_that_never_answered_is_named_with_its_error() {
    let mut world = World::default();
    world.watches[0].in_sync = false;
    world.watches[0].connected = false;
    world.watches[0].last_error = Some((SystemTime::UNIX_EPOCH, "connection refused".to_owned()));
    assert_eq!(
        world.missing(),
        ["waiting for https://api (nodes: connection refused); see the setting kubeconfig"]
    );
}

#[test]
fn an_api_that_goes_away_later_does_not_take_readiness_away() {
    let mut world = World::default();
    world.watches[0].connected = false;
    assert_eq!(world.missing(), Vec::<String>::new());
    let conditions = world.conditions();
    assert!(
        conditions[0].message.contains("does not answer now"),
        "{}",
        conditions[0].message
    );
}

#[test]
fn a_node_that_kubernetes_does_not_know_is_named_with_the_source_of_its_name() {
    let mut world = World {
        nodes: [Node {
            name: "b".to_owned(),
            ..node()
        }]
        .into_iter()
        .collect(),
        ..World::default()
    };
    world.view.routes = [].into();
    let missing = world.missing();
    assert_eq!(
        missing[0],
        "there is no node localhost in Kubernetes; correct nodeName (from default) or start its kubelet"
    );
}

#[test]
fn a_node_without_pod_cidrs_says_who_should_set_them() {
    let mut world = World {
        nodes: [Node {
            pod_cidrs: vec![],
            zone: None,
            ..node()
        }]
        .into_iter()
        .collect(),
        ..World::default()
    };
    world.view.routes = [].into();
    assert!(world.missing()[0].contains("--allocate-node-cidrs"));
}

#[test]
fn what_plugins_around_us_cannot_do_on_this_kernel_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("cni.sock");
    let listener = crate::cni_server::bind(&socket).unwrap();
    let list = r#"{"name": "other", "plugins": [{"type": "ptp"}, {"type": "bandwidth"}]}"#;
    std::fs::write(dir.path().join("10-other.conflist"), list).unwrap();
    let mut runtime = Runtime {
        conflist: Conflist::new(dir.path(), &socket, &[], Some("other")),
        plugin: Plugin::new(dir.path(), false),
        exclusive: false,
        socket: listener.file().clone(),
        tcx: false,
    };
    let cni = |runtime: &Runtime| runtime.conflist(true, &mut Files::default());
    assert!(cni(&runtime).ok);
    let message = cni(&runtime).message;
    assert!(
        message.contains("egress `bandwidth` limits are refused"),
        "{message}"
    );
    runtime.tcx = true;
    assert!(!cni(&runtime).message.contains("bandwidth"));
}

#[test]
fn problems_of_the_host_are_all_shown() {
    let mut world = World::default();
    world.view.problems = vec!["one".to_owned(), "two".to_owned()];
    assert_eq!(world.missing(), ["one; two"]);
}

#[test]
fn a_refused_network_of_this_node_is_missing_and_one_of_another_node_is_not() {
    let refusal = Refusal::OverlapsNode {
        node: "b".to_owned(),
        network: "10.244.0.0/16".parse().unwrap(),
    };
    let refused = |node: &str| RouteStatus {
        row: Row {
            node: node.to_owned(),
            destination: "10.244.0.0/24".parse().unwrap(),
            way: Way::Refused(refusal.clone()),
        },
        status: Status::Error(refusal.to_string()),
    };
    let mut world = World::default();
    world.view.routes = [local(), refused("b")].into();
    assert_eq!(world.missing(), Vec::<String>::new());
    world.view.routes = [refused("localhost")].into();
    assert!(world.missing()[0].contains("overlaps 10.244.0.0/16 of node b"));
}

#[test]
fn routes_that_have_not_been_tried_yet_are_missing() {
    let mut world = World::default();
    world.view.routes = [].into();
    assert_eq!(
        world.missing(),
        ["the routes to this node's pods are not in force yet"]
    );
}

struct World {
    config: Config,
    watches: Vec<WatchStatus>,
    nodes: Snapshot<Node>,
    view: View,
}

impl Default for World {
    fn default() -> Self {
        let watch = WatchStatus {
            connected: true,
            in_sync: true,
            ..WatchStatus::new("nodes")
        };
        let view = View {
            devices: vec!["eth0".to_owned()],
            routes: [local()].into(),
            ..View::default()
        };
        let nodes = [node()].into_iter().collect();
        Self {
            config: Config::from_yaml(b"").unwrap(),
            watches: vec![watch],
            nodes,
            view,
        }
    }
}

impl World {
    fn conditions(&self) -> Vec<Condition> {
        let Self {
            config,
            watches,
            nodes,
            view,
        } = self;
        conditions(&Facts {
            config,
            api_server: "https://api",
            watches,
            nodes,
            view,
        })
    }

    fn missing(&self) -> Vec<String> {
        self.conditions()
            .into_iter()
            .filter(|one| !one.ok)
            .map(|one| one.message)
            .collect()
    }
}

fn node() -> Node {
    Node {
        name: "localhost".to_owned(),
        addresses: vec!["172.30.0.11".parse().unwrap()],
        pod_cidrs: vec!["10.244.0.0/24".parse().unwrap()],
        zone: None,
    }
}

fn local() -> RouteStatus {
    let row = Row {
        node: "localhost".to_owned(),
        destination: "10.244.0.0/24".parse().unwrap(),
        way: Way::Local { source: None },
    };
    RouteStatus {
        row,
        status: Status::Done,
    }
}
