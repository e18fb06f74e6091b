// SPDX-License-Identifier: Apache-2.0
//! The Node object and its Lease.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node as NodeObject;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use nix::sys::utsname::uname;
use serde_json::{Value, json};
use tracing::debug;

use super::Node;
use super::network::NetworkState;
use crate::controllers::{has_code, pause_after};

const LEASE_NAMESPACE: &str = "kube-node-lease";
/// How long a Lease says that it is good for.
const LEASE_SECONDS: i32 = 40;
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(10);
/// The Kubernetes version that this kubelet claims: the one of the embedded API server, as a kubelet must not be newer.
const KUBELET_VERSION: &str = concat!("v1.32.0+thalweg-", env!("CARGO_PKG_VERSION"));
/// Pods that a node takes: as many as a /24 has addresses, as far as Kubernetes recommends.
const PODS_MAX: u32 = 250;

/// Registers the node and keeps its Ready condition and its Lease up to date until dropped.
pub(super) async fn keep(client: &Client, node: &Arc<Node>) {
    tokio::join!(keep_status(client, node), keep_lease(client, node));
}

async fn keep_status(client: &Client, node: &Arc<Node>) {
    let api: Api<NodeObject> = Api::all(client.clone());
    let mut network = node.network.clone();
    let mut failures = 0;
    loop {
        let state = network.borrow_and_update().clone();
        match publish(&api, node, &state).await {
            Ok(()) => {
                failures = 0;
                if network.changed().await.is_err() {
                    return;
                }
            }
            Err(error) => {
                failures += 1;
                debug!(%error, "node not written; trying again");
                tokio::time::sleep(pause_after(failures)).await;
            }
        }
    }
}

/// Creates the object when it is absent, and writes labels and status.
async fn publish(api: &Api<NodeObject>, node: &Node, state: &NetworkState) -> Result<(), kube::Error> {
    let name = &node.handle.name;
    let labels = labels(node);
    let known = match api.get_opt(name).await? {
        Some(known) => known,
        None => {
            let object =
                json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "labels": labels } });
            let object: NodeObject = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
            api.create(&PostParams::default(), &object).await?
        }
    };
    if labels
        .iter()
        .any(|(key, value)| known.labels().get(key) != Some(value))
    {
        let patch = Patch::Merge(json!({ "metadata": { "labels": labels } }));
        api.patch(name, &PatchParams::default(), &patch).await?;
    }
    let patch = Patch::Strategic(json!({ "status": status(node, &known, state) }));
    api.patch_status(name, &PatchParams::default(), &patch)
        .await
        .map(drop)
}

fn labels(node: &Node) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        ("kubernetes.io/hostname".to_owned(), node.handle.name.clone()),
        ("kubernetes.io/os".to_owned(), "linux".to_owned()),
        ("kubernetes.io/arch".to_owned(), architecture().to_owned()),
    ]);
    labels.extend(node.handle.labels.clone());
    labels
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn status(node: &Node, known: &NodeObject, state: &NetworkState) -> Value {
    let mut addresses: Vec<Value> = node
        .handle
        .addresses
        .iter()
        .map(|ip| json!({ "type": "InternalIP", "address": ip }))
        .collect();
    addresses.push(json!({ "type": "Hostname", "address": node.handle.name }));
    let capacity = capacity();
    json!({
        // Strategic merging would keep the addresses of an earlier lab of the same name.
        "addresses": std::iter::once(json!({ "$patch": "replace" })).chain(addresses).collect::<Vec<_>>(),
        "capacity": capacity,
        "allocatable": capacity,
        "conditions": conditions(known, state),
        "nodeInfo": node_info(node),
        "daemonEndpoints": { "kubeletEndpoint": { "Port": 0 } },
    })
}

fn capacity() -> Value {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    json!({ "cpu": cpus.to_string(), "memory": format!("{}Ki", total.unwrap_or("0").trim()), "pods": PODS_MAX.to_string() })
}

fn conditions(known: &NodeObject, state: &NetworkState) -> Vec<Value> {
    let ready = match state {
        NetworkState::Ready(_) => (
            "Ready",
            true,
            "KubeletReady",
            "kubelet is posting ready status".to_owned(),
        ),
        NetworkState::NotReady(why) => ("Ready", false, "KubeletNotReady", why.clone()),
    };
    let enough = |kind, reason, message: &str| (kind, false, reason, message.to_owned());
    let all = [
        enough(
            "MemoryPressure",
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
        ),
        enough(
            "DiskPressure",
            "KubeletHasNoDiskPressure",
            "kubelet has no disk pressure",
        ),
        enough(
            "PIDPressure",
            "KubeletHasSufficientPID",
            "kubelet has sufficient PID available",
        ),
        ready,
    ];
    let now = Time(Timestamp::now());
    let before = known
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    let condition = |(kind, is, reason, message): (&str, bool, &str, String)| {
        let status = if is { "True" } else { "False" };
        let same = before.iter().find(|c| c.type_ == kind && c.status == status);
        let since = same
            .and_then(|c| c.last_transition_time.clone())
            .unwrap_or_else(|| now.clone());
        json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": since,
        })
    };
    all.into_iter().map(condition).collect()
}

fn node_info(node: &Node) -> Value {
    let kernel = uname()
        .map(|names| names.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let release = read("/etc/os-release");
    let os = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .unwrap_or("Linux")
        .trim_matches('"');
    json!({
        "machineID": read("/etc/machine-id"), "systemUUID": node.handle.name,
        "bootID": read("/proc/sys/kernel/random/boot_id"), "kernelVersion": kernel, "osImage": os,
        "containerRuntimeVersion": concat!("thalweg-lab://", env!("CARGO_PKG_VERSION")),
        "kubeletVersion": KUBELET_VERSION, "kubeProxyVersion": "", "operatingSystem": "linux",
        "architecture": architecture(),
    })
}

async fn keep_lease(client: &Client, node: &Node) {
    let api: Api<Lease> = Api::namespaced(client.clone(), LEASE_NAMESPACE);
    let mut failures = 0;
    loop {
        let pause = match renew(&api, &node.handle.name).await {
            Ok(()) => {
                failures = 0;
                RENEWAL
            }
            Err(error) => {
                failures += 1;
                debug!(%error, "lease not renewed; trying again");
                pause_after(failures).min(RENEWAL)
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn renew(api: &Api<Lease>, name: &str) -> Result<(), kube::Error> {
    let spec = json!({
        "holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": MicroTime(Timestamp::now()),
    });
    match api
        .patch(
            name,
            &PatchParams::default(),
            &Patch::Merge(json!({ "spec": spec })),
        )
        .await
    {
        Err(error) if has_code(&error, 404) => {
            let lease = json!({ "metadata": { "name": name, "namespace": LEASE_NAMESPACE }, "spec": spec });
            let lease: Lease = serde_json::from_value(lease).map_err(kube::Error::SerdeError)?;
            api.create(&PostParams::default(), &lease).await.map(drop)
        }
        other => other.map(drop),
    }
}
