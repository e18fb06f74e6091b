// SPDX-License-Identifier: Apache-2.0
//! The objects that every cluster has from its beginning.

use serde_json::{Value, json};

use crate::handlers::{WriteOptions, create};
use crate::server::Server;
use crate::status::{ApiError, Result};

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Creates the namespaces and the service `kubernetes`.
pub(crate) fn create_initial_objects(server: &Server) -> Result<()> {
    for name in NAMESPACES {
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        put(server, "namespaces", None, namespace)?;
    }
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "kubernetes", "namespace": "default",
                      "labels": { "component": "apiserver", "provider": "kubernetes" } },
        "spec": { "type": "ClusterIP",
                  "ports": [{ "name": "https", "port": 443, "targetPort": 6443, "protocol": "TCP" }] },
    });
    put(server, "services", Some("default"), service)
}

fn put(server: &Server, plural: &str, namespace: Option<&str>, value: Value) -> Result<()> {
    let registry = server.registry.load();
    let resource = registry
        .find("", "v1", plural)
        .ok_or_else(|| ApiError::internal(format!("no {plural}")))?;
    create(server, resource, namespace, value, &WriteOptions::internal()).map(drop)
}
