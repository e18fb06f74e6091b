// SPDX-License-Identifier: Apache-2.0
//! A node without a kernel: real watches and logic, a route table that is a map.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use k8s::WatchStatus;
use model::{Node, Pod};
use routing::{Device, Way};
use serde::Deserialize as _;
use serde_json::Value;
use state::{Backoff, Reconciler, Row, Snapshot, Status, Table, Target, table};
use thalweg_agent::apply::{RouteStatus, View};
use thalweg_agent::readiness::{Facts, conditions};
use tokio::sync::watch;

use crate::api::FakeApi;

const BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(1),
    most: Duration::from_secs(1),
};

pub(crate) struct World {
    config: ::api::config::Config,
    devices: Vec<Device>,
    api: FakeApi,
    nodes: Table<Node>,
    pods: Table<Pod>,
    watches: Vec<watch::Receiver<WatchStatus>>,
    sent: BTreeMap<String, u64>,
    routes: FakeRoutes,
    reconciler: Reconciler<RouteRow>,
}

impl World {
    /// Lines `device NAME NETWORK…`, the others are settings of the configuration.
    pub(crate) fn begin(text: &str) -> Self {
        let (devices, settings): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.starts_with("device "));
        let config = ::api::config::Config::from_yaml(settings.join("\n").as_bytes()).unwrap();
        let api = FakeApi::new();
        let (nodes_writer, nodes) = table("nodes");
        let (pods_writer, pods) = table("pods");
        let (nodes_status, nodes_watch) = watch::channel(WatchStatus::new("nodes"));
        let (pods_status, pods_watch) = watch::channel(WatchStatus::new("pods"));
        tokio::spawn(k8s::watch_nodes(api.client(), nodes_writer, nodes_status));
        let (client, name) = (api.client(), config.node_name.clone());
        tokio::spawn(async move { k8s::watch_pods(client, &name, pods_writer, pods_status).await });
        Self {
            config,
            devices: devices
                .iter()
                .zip(2..)
                .map(|(line, index)| device(line, index))
                .collect(),
            api,
            nodes,
            pods,
            watches: vec![nodes_watch, pods_watch],
            sent: BTreeMap::new(),
            routes: FakeRoutes::default(),
            reconciler: Reconciler::new(BACKOFF),
        }
    }

    pub(crate) async fn apply(&mut self, yaml: &str) {
        self.in_sync().await;
        for document in serde_yaml_ng::Deserializer::from_str(yaml) {
            let resource = self.api.apply(Value::deserialize(document).unwrap());
            *self.sent.entry(resource).or_default() += 1;
        }
        self.seen().await;
    }

    pub(crate) async fn delete(&mut self, paths: &str) {
        self.in_sync().await;
        for path in paths.lines() {
            let resource = self.api.delete(path);
            *self.sent.entry(resource).or_default() += 1;
        }
        self.seen().await;
    }

    async fn in_sync(&mut self) {
        for watch in &mut self.watches {
            watch.wait_for(|status| status.in_sync).await.unwrap();
        }
    }

    /// Waits until the watches have taken in everything.
    async fn seen(&mut self) {
        for watch in &mut self.watches {
            let sent = self
                .sent
                .get(watch.borrow().resource)
                .copied()
                .unwrap_or_default();
            watch.wait_for(|status| status.events >= sent).await.unwrap();
        }
    }

    pub(crate) fn dump(&mut self) -> String {
        let nodes = self.nodes.snapshot();
        let listed: Vec<&Node> = nodes.iter().collect();
        let input = routing::Input {
            own_name: &self.config.node_name,
            devices: &self.devices,
            mode: routing::Mode::Native { direct: true },
        };
        let rows = routing::plan(&input, listed.iter().copied());
        let wanted = rows.iter().filter(|row| {
            matches!(
                row.way,
                Way::Local { .. } | Way::Direct { .. } | Way::Tunnel { .. }
            )
        });
        let wanted: Snapshot<RouteRow> = wanted.cloned().map(RouteRow).collect();
        self.reconciler.apply(&mut self.routes, &wanted, Instant::now());
        let mut text = String::new();
        self.dump_tables(&mut text);
        writeln!(text, "changes of routes").unwrap();
        self.routes
            .journal
            .drain(..)
            .for_each(|line| writeln!(text, "  {line}").unwrap());
        writeln!(text, "ways").unwrap();
        for row in &rows {
            writeln!(
                text,
                "  {} of {}: {}",
                row.destination,
                row.node,
                describe(&row.way)
            )
            .unwrap();
        }
        self.dump_conditions(&mut text, rows, &nodes);
        text
    }

    fn dump_tables(&self, text: &mut String) {
        writeln!(text, "nodes").unwrap();
        for node in self.nodes.snapshot().iter() {
            writeln!(text, "  {} {:?} {:?}", node.name, node.addresses, node.pod_cidrs).unwrap();
        }
        writeln!(text, "pods").unwrap();
        for pod in self.pods.snapshot().iter() {
            writeln!(text, "  {} {:?}", pod.pod, pod.labels).unwrap();
        }
        writeln!(text, "skipped").unwrap();
        for watch in &self.watches {
            let status = watch.borrow();
            let skipped = status.skipped.iter();
            skipped
                .for_each(|(name, reason)| writeln!(text, "  {} {name}: {reason}", status.resource).unwrap());
        }
    }

    fn dump_conditions(&self, text: &mut String, rows: Vec<routing::Row>, nodes: &Snapshot<Node>) {
        let status = |row: routing::Row| {
            let status = match &row.way {
                Way::Refused(refusal) => Status::Error(refusal.to_string()),
                Way::Network => Status::Done,
                Way::Local { .. } | Way::Direct { .. } | Way::Tunnel { .. } => {
                    self.reconciler.status(&row.destination)
                }
            };
            RouteStatus { row, status }
        };
        let view = View {
            routes: rows.into_iter().map(status).collect(),
            devices: self.devices.iter().map(|device| device.name.clone()).collect(),
            ..View::default()
        };
        let watches: Vec<WatchStatus> = self.watches.iter().map(|watch| watch.borrow().clone()).collect();
        let facts = Facts {
            config: &self.config,
            api_server: "the API",
            watches: &watches,
            nodes,
            view: &view,
        };
        writeln!(text, "conditions").unwrap();
        for condition in conditions(&facts) {
            let mark = if condition.ok { "yes" } else { "no " };
            writeln!(text, "  {mark} {}: {}", condition.name, condition.message).unwrap();
        }
    }
}

fn device(line: &str, index: u32) -> Device {
    let mut words = line.split_whitespace().skip(1);
    let name = words.next().unwrap().to_owned();
    Device {
        index,
        name,
        addresses: words.map(|net| net.parse().unwrap()).collect(),
    }
}

fn describe(way: &Way) -> String {
    match way {
        Way::Local { source: Some(source) } => format!("local, from {source}"),
        Way::Local { source: None } => "local".to_owned(),
        Way::Direct {
            gateway, device_name, ..
        } => format!("via {gateway} on {device_name}"),
        Way::Tunnel { node, .. } => format!("tunnel to {node}"),
        Way::Network => "left to the network".to_owned(),
        Way::Refused(refusal) => format!("refused: {refusal}"),
    }
}

#[derive(Clone, Debug, PartialEq)]
struct RouteRow(routing::Row);

impl Row for RouteRow {
    type Key = ipnet::IpNet;

    fn key(&self) -> ipnet::IpNet {
        self.0.destination
    }
}

/// A route table that is a map, and remembers what was done to it.
#[derive(Default)]
struct FakeRoutes {
    rows: BTreeMap<ipnet::IpNet, String>,
    journal: Vec<String>,
}

impl Target<RouteRow> for FakeRoutes {
    type Error = Infallible;

    fn upsert(&mut self, row: &RouteRow) -> Result<(), Infallible> {
        let way = describe(&row.0.way);
        self.journal.push(format!("set {} {way}", row.0.destination));
        self.rows.insert(row.0.destination, way);
        Ok(())
    }

    fn remove(&mut self, key: &ipnet::IpNet) -> Result<(), Infallible> {
        self.journal.push(format!("remove {key}"));
        self.rows.remove(key);
        Ok(())
    }

    fn prune(&mut self, desired: &Snapshot<RouteRow>) -> Result<usize, Infallible> {
        let before = self.rows.len();
        self.rows.retain(|key, _| desired.get(key).is_some());
        Ok(before - self.rows.len())
    }
}
