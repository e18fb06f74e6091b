// SPDX-License-Identifier: Apache-2.0
//! Services, on the side of the network: watches in, events and answers to load balancers out. The rows are the apply thread's.

mod health_checks;
mod news;

use k8s::{Api, Reporter, WatchStatus};
use loadbalancer::Settings;
use model::Pod;
use state::{Table, table};
use tokio::sync::{mpsc, watch};

use crate::apply::{self, Apply, ServiceTables};

/// Who signs events.
const COMPONENT: &str = "thalweg-agent";
/// News that may wait for the API.
const NEWS_MAX: usize = 256;

/// Begins to watch services and who is behind them.
pub(crate) fn watch(api: &Api, pods: &Table<Pod>) -> (ServiceTables, [watch::Receiver<WatchStatus>; 2]) {
    let (services_writer, services) = table("services");
    let (slices_writer, slices) = table("endpoint slices");
    let (services_status, services_watch) = watch::channel(WatchStatus::new("services"));
    let (slices_status, slices_watch) = watch::channel(WatchStatus::new("endpointslices"));
    tokio::task::spawn(k8s::watch_services(
        api.client.clone(),
        services_writer,
        services_status,
    ));
    tokio::task::spawn(k8s::watch_endpoint_slices(
        api.client.clone(),
        slices_writer,
        slices_status,
    ));
    let (news, inbox) = mpsc::channel(NEWS_MAX);
    tokio::task::spawn(news::report(Reporter::new(api.client.clone(), COMPONENT), inbox));
    let tables = ServiceTables {
        services,
        slices,
        pods: pods.clone(),
        news,
    };
    (tables, [services_watch, slices_watch])
}

/// Has the apply thread follow the tables, and load balancers answered.
pub(crate) fn follow(tables: &ServiceTables, apply: &Apply) {
    tokio::task::spawn(apply::forward(tables.services.clone(), apply.client.clone()));
    tokio::task::spawn(apply::forward(tables.slices.clone(), apply.client.clone()));
    tokio::task::spawn(apply::forward(tables.pods.clone(), apply.client.clone()));
    tokio::task::spawn(health_checks::keep(apply.health_checks.clone()));
}

/// What is decided once.
pub(crate) fn settings(config: &api::config::Services) -> Settings {
    Settings {
        algorithm: config.algorithm,
        maglev_size: config.maglev_table_size,
        silent: config.silent,
        node_ports: config.node_ports,
        node_port_networks: config.node_port_networks.clone(),
        ..Settings::default()
    }
}
