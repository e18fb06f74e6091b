// SPDX-License-Identifier: Apache-2.0
//! What clients do to connections.

#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

mod cluster;

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use cluster::{Cluster, config};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, ListParams, PostParams};
use thalweg_apiserver::{ApiServer, StartError};

#[tokio::test]
async fn clients_that_say_nothing_keep_nobody_out() {
    let cluster = Cluster::start(config());
    let address = cluster.server.addresses()[0];
    let silent: Vec<TcpStream> = (0..64).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut garbage = TcpStream::connect(address).unwrap();
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let namespaces: Api<Namespace> = Api::all(cluster.client().await);
    let listed = tokio::time::timeout(Duration::from_secs(5), namespaces.list(&ListParams::default())).await;
    assert_eq!(listed.unwrap().unwrap().items.len(), 4);
    drop(silent);
}

#[tokio::test]
async fn all_listeners_serve_the_same_objects() {
    let listeners = (0..2)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let server = ApiServer::start(config(), listeners).unwrap();
    for address in server.addresses() {
        let text = server.kubeconfig("x", &format!("https://{address}"));
        let kubeconfig = kube::config::Kubeconfig::from_yaml(&text).unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default())
            .await
            .unwrap();
        let namespaces: Api<Namespace> = Api::all(kube::Client::try_from(config).unwrap());
        assert!(namespaces.get("default").await.is_ok());
    }
    assert!(matches!(
        ApiServer::start(config(), Vec::new()),
        Err(StartError::NoListener)
    ));
}

/// Enough to see that a list is slow, few enough to be created by an unoptimized build.
const PODS: usize = 3_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_pods_are_listed_in_a_moment() {
    let cluster = Cluster::start(config());
    let pods: Api<Pod> = Api::default_namespaced(cluster.client().await);
    let create = async |i: usize| {
        let pod = serde_json::json!({ "metadata": { "name": format!("p{i}") },
            "spec": { "nodeName": format!("n{}", i % 100), "containers": [{ "name": "c", "image": "x" }] } });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        pods.create(&PostParams::default(), &pod).await.unwrap();
    };
    futures::StreamExt::for_each_concurrent(futures::stream::iter(0..PODS), 32, create).await;
    let start = std::time::Instant::now();
    let node = pods
        .list(&ListParams::default().fields("spec.nodeName=n7"))
        .await
        .unwrap();
    let by_node = start.elapsed();
    assert_eq!(node.items.len(), PODS / 100);
    // The server's part is a copy; parsing is the client's, so the bytes are taken raw.
    let start = std::time::Instant::now();
    let request = http::Request::get("/api/v1/pods").body(Vec::new()).unwrap();
    let client = cluster.client().await;
    let text = client.request_text(request).await.unwrap();
    let all = start.elapsed();
    assert!(text.len() > PODS * 500);
    eprintln!(
        "{PODS} pods: {all:?}, {} bytes; those of a node: {by_node:?}",
        text.len()
    );
    assert!(all < Duration::from_secs(1) && by_node < Duration::from_millis(500));
}
