// SPDX-License-Identifier: Apache-2.0
//! The objects that every cluster has from its beginning.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::handlers::{WriteOptions, create};
use crate::server::Server;
use crate::status::{ApiError, Result};

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Creates the namespaces and the service `kubernetes`.
pub(crate) fn create_initial_objects(server: &Server) -> Result<()> {
    for name in NAMESPACES {
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        put(server, "", "namespaces", None, namespace)?;
    }
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "kubernetes", "namespace": "default",
                      "labels": { "component": "apiserver", "provider": "kubernetes" } },
        "spec": { "type": "ClusterIP",
                  "ports": [{ "name": "https", "port": 443, "targetPort": 6443, "protocol": "TCP" }] },
    });
    put(server, "", "services", Some("default"), service)
}

/// Says in EndpointSlices of the service `kubernetes` where the server listens: one slice per
/// address. Loopback addresses
/// are of no use to pods.
pub(crate) fn publish_addresses(server: &Server, addresses: &[SocketAddr]) -> Result<()> {
    let reachable = addresses.iter().filter(|address| !address.ip().is_loopback());
    for (index, address) in reachable.enumerate() {
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": { "name": format!("kubernetes-{index}"), "namespace": "default",
                          "labels": { "kubernetes.io/service-name": "kubernetes" } },
            "addressType": family,
            "endpoints": [{ "addresses": [address.ip()], "conditions": { "ready": true } }],
            "ports": [{ "name": "https", "port": address.port(), "protocol": "TCP" }],
        });
        put(
            server,
            "discovery.k8s.io",
            "endpointslices",
            Some("default"),
            slice,
        )?;
    }
    Ok(())
}

fn put(server: &Server, group: &str, plural: &str, namespace: Option<&str>, value: Value) -> Result<()> {
    let registry = server.registry.load();
    let resource = registry
        .find(group, "v1", plural)
        .ok_or_else(|| ApiError::internal(format!("no {plural}")))?;
    create(server, resource, namespace, value, &WriteOptions::internal()).map(drop)
}
