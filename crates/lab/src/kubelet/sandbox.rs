// SPDX-License-Identifier: Apache-2.0
//! A pod's sandbox: its namespaces, the process that holds them, and its attachment to the network.

use std::fs;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use netlink::netns;
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::{Map, Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tracing::{debug, warn};

use super::cni::{self, Attachment, Conflist};
use super::{Node, blocking, env};
use crate::hold::{Hold, READY};
use crate::{Error, Place, Process};

/// The interface that a pod's network is on.
const IFNAME: &str = "eth0";
/// Where network namespaces have names, as a node sees it.
const NETNS_DIR: &str = "/run/netns";

/// Why a sandbox cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum SandboxError {
    /// A namespace or a process.
    #[error(transparent)]
    System(#[from] Error),
    /// The network.
    #[error("failed to setup network for sandbox: {0}")]
    Network(#[from] cni::Error),
    /// The plugin returned something without an address.
    #[error("failed to setup network for sandbox: the result of the CNI plugins names no address: {0}")]
    NoAddress(Value),
}

/// Namespaces, and who keeps them.
#[derive(Debug)]
pub(super) struct Sandbox {
    /// The pod's addresses, primary first.
    pub(super) ips: Vec<IpAddr>,
    /// The process that holds the namespaces; none for a pod in its node's network.
    pub(super) process: Option<Process>,
    holder: Option<Child>,
}

impl Sandbox {
    /// Where the pod's processes go: its namespaces, and the cgroup of one of its containers.
    pub(super) fn place(&self, pod_uid: &str, container: &str) -> Place {
        let of = |kind: &str| {
            self.process
                .map(|process| PathBuf::from(format!("/proc/{}/ns/{kind}", process.pid)))
        };
        Place {
            netns: of("net"),
            utsns: of("uts"),
            cgroup: Path::new("pods").join(pod_uid).join(container),
            ..Place::default()
        }
    }

    /// Waits until the sandbox is gone by itself, which it should not be.
    pub(super) async fn lost(&mut self) {
        match &mut self.holder {
            Some(holder) => drop(holder.wait().await),
            None => std::future::pending().await,
        }
    }
}

/// Makes a sandbox for the pod. What a failure leaves behind is removed by [`detach`] and the pod's cgroup.
pub(super) async fn create(node: &Arc<Node>, pod: &Pod, network: &Conflist) -> Result<Sandbox, SandboxError> {
    let spec = pod.spec.as_ref();
    if spec.and_then(|spec| spec.host_network) == Some(true) {
        return Ok(Sandbox {
            ips: node.handle.addresses.clone(),
            process: None,
            holder: None,
        });
    }
    let container_id = random_hex(4);
    let name = format!("cni-{container_id:.32}");
    let holder = hold(node, pod).await?;
    let process = holder.id().and_then(|pid| Process::of(i32::try_from(pid).ok()?));
    let process = process
        .ok_or_else(|| Error::Failed("the process that holds the pod's namespaces ended at once".into()))?;
    let mntns = node.handle.mntns.clone();
    let path = Path::new(NETNS_DIR).join(&name);
    let bound = path.clone();
    blocking(move || in_mounts_of(&mntns, || bind(process.pid, &bound))).await??;
    let attachment = Attachment {
        args: cni_args(pod, &container_id),
        capabilities: capabilities(pod),
        container_id,
        netns: path.display().to_string(),
        ifname: IFNAME.into(),
    };
    let result = node.cni(network).add(&attachment).await?;
    let ips = addresses(&result);
    if ips.is_empty() {
        return Err(SandboxError::NoAddress(result));
    }
    debug!(?ips, "attached");
    Ok(Sandbox {
        ips,
        process: Some(process),
        holder: Some(holder),
    })
}

/// Detaches everything that the pod was ever attached by and removes the names of its namespaces. True when nothing is left.
pub(super) async fn detach(node: &Arc<Node>, pod_uid: &str) -> bool {
    let is_ours = |cached: &cni::CachedAttachment| uid_of(&cached.attachment) == Some(pod_uid);
    let mut clean = true;
    for cached in attachments(node).into_iter().filter(is_ours) {
        clean &= detach_one(node, &cached).await;
    }
    clean
}

/// Detaches one attachment and removes the name of its namespace.
pub(super) async fn detach_one(node: &Arc<Node>, cached: &cni::CachedAttachment) -> bool {
    if let Err(error) = node.cni(&cached.conflist()).del(&cached.attachment).await {
        warn!(%error, container = cached.attachment.container_id, "not detached; trying again");
        return false;
    }
    unname(node, &cached.attachment).await;
    true
}

/// Removes the name of a namespace; the namespace goes with its last process.
pub(super) async fn unname(node: &Node, attachment: &Attachment) {
    let (mntns, path) = (node.handle.mntns.clone(), PathBuf::from(&attachment.netns));
    let unbound = blocking(move || in_mounts_of(&mntns, || netns::unbind(&path))).await;
    // After the node's holder died there are no mounts to remove.
    if let Ok(Err(error)) = unbound {
        warn!(%error, "name of the network namespace not removed");
    }
}

/// Attachments on record, of pods that are or were here.
pub(super) fn attachments(node: &Node) -> Vec<cni::CachedAttachment> {
    cni::Network::<Arc<Node>>::cached(&node.cni_cache)
}

/// The UID of the pod that an attachment was made for.
pub(super) fn uid_of(attachment: &Attachment) -> Option<&str> {
    attachment
        .args
        .iter()
        .find(|(key, _)| key == "K8S_POD_UID")
        .map(|(_, uid)| uid.as_str())
}

/// Starts the process that makes and keeps the pod's namespaces, and waits until they are ready.
async fn hold(node: &Arc<Node>, pod: &Pod) -> Result<Child, Error> {
    let mut command = Command::from((node.hold)(&Hold::Pod {
        hostname: env::hostname(pod),
    }));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let place = Place {
        unshare: Some(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS),
        cgroup: Path::new("pods")
            .join(pod.uid().unwrap_or_default())
            .join("sandbox"),
        ..Place::default()
    };
    let mut holder = node.spawn(command, place).await?;
    let mut ready = vec![0; READY.len()];
    let said = match holder.stdout.take() {
        Some(mut stdout) => stdout.read_exact(&mut ready).await.is_ok() && ready == READY.as_bytes(),
        None => false,
    };
    if said {
        return Ok(holder);
    }
    let mut why = String::new();
    if let Some(mut stderr) = holder.stderr.take() {
        // Its exit is the news; why is a courtesy.
        let _ = stderr.read_to_string(&mut why).await;
    }
    Err(Error::Failed(format!(
        "cannot make the pod's namespaces: {}",
        why.trim()
    )))
}

fn bind(pid: i32, path: &Path) -> Result<(), Error> {
    fs::create_dir_all(NETNS_DIR)
        .map_err(|error| Error::system(format!("create {NETNS_DIR} in the node"), error))?;
    let namespace = netns::open(Path::new(&format!("/proc/{pid}/ns/net")))?;
    Ok(netns::bind(std::os::fd::AsFd::as_fd(&namespace), path)?)
}

/// Does something to the mounts of a node, on a thread of its own that ends with it.
fn in_mounts_of<T: Send>(mntns: &Path, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    let operation = || format!("enter the mount namespace {}", mntns.display());
    let enter = || {
        let namespace = fs::File::open(mntns).map_err(|error| Error::system(operation(), error))?;
        // A thread that shares its working directory with others cannot change its mounts.
        unshare(CloneFlags::CLONE_FS).map_err(|error| Error::system(operation(), error))?;
        setns(namespace, CloneFlags::CLONE_NEWNS).map_err(|error| Error::system(operation(), error))
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| enter().map(|()| work()));
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn cni_args(pod: &Pod, container_id: &str) -> Vec<(String, String)> {
    let args = [
        ("IgnoreUnknown", "1".to_owned()),
        ("K8S_POD_NAMESPACE", pod.namespace().unwrap_or_default()),
        ("K8S_POD_NAME", pod.name_any()),
        ("K8S_POD_INFRA_CONTAINER_ID", container_id.to_owned()),
        ("K8S_POD_UID", pod.uid().unwrap_or_default()),
    ];
    args.into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

/// What plugins may want to know of the pod: host ports, bandwidth.
fn capabilities(pod: &Pod) -> Map<String, Value> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let mappings: Vec<Value> = ports
        .filter_map(|port| {
            Some(json!({
                "hostPort": port.host_port.filter(|port| *port > 0)?, "containerPort": port.container_port,
                "protocol": port.protocol.as_deref().unwrap_or("TCP").to_lowercase(),
                "hostIP": port.host_ip.clone().unwrap_or_default(),
            }))
        })
        .collect();
    let mut capabilities = Map::new();
    if !mappings.is_empty() {
        capabilities.insert("portMappings".into(), Value::Array(mappings));
    }
    let rate = |direction: &str| {
        let text = pod
            .annotations()
            .get(&format!("kubernetes.io/{direction}-bandwidth"))?;
        bits_per_second(text)
    };
    let mut bandwidth = Map::new();
    for direction in ["ingress", "egress"] {
        if let Some(rate) = rate(direction) {
            bandwidth.insert(format!("{direction}Rate"), json!(rate));
            // What Kubernetes' runtimes pass: no limit on bursts but that of the field.
            bandwidth.insert(format!("{direction}Burst"), json!(i32::MAX));
        }
    }
    if !bandwidth.is_empty() {
        capabilities.insert("bandwidth".into(), Value::Object(bandwidth));
    }
    capabilities
}

/// A Kubernetes quantity of bits per second: digits and a decimal or binary suffix.
fn bits_per_second(quantity: &str) -> Option<u64> {
    let digits = quantity
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(quantity.len());
    let factor = match &quantity[digits..] {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return None,
    };
    quantity[..digits].parse::<u64>().ok()?.checked_mul(factor)
}

/// The addresses of a CNI result, in its order; those of other interfaces than the pod's are left out.
fn addresses(result: &Value) -> Vec<IpAddr> {
    let interfaces = result.get("interfaces").and_then(Value::as_array);
    let in_pod = |index: &Value| {
        let interface = index
            .as_u64()
            .and_then(|index| interfaces?.get(usize::try_from(index).ok()?));
        interface.is_none_or(|interface| interface.get("name").and_then(Value::as_str) == Some(IFNAME))
    };
    let ips = result.get("ips").and_then(Value::as_array).into_iter().flatten();
    ips.filter(|ip| ip.get("interface").is_none_or(in_pod))
        .filter_map(|ip| ip.get("address")?.as_str()?.parse::<IpNet>().ok())
        .map(|net| net.addr())
        .collect()
}

/// So many random words of 64 bits, in hexadecimal.
pub(super) fn random_hex(words: usize) -> String {
    (0..words)
        .map(|_| format!("{:016x}", RandomState::new().build_hasher().finish()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_are_those_of_the_pods_interface() {
        let result = json!({
            "interfaces": [{ "name": "tw1" }, { "name": "eth0", "sandbox": "/run/netns/x" }],
            "ips": [{ "address": "10.1.0.2/32", "interface": 1 }, { "address": "192.0.2.1/24", "interface": 0 },
                { "address": "fd00::2/128" }],
        });
        let ips: Vec<String> = addresses(&result).iter().map(ToString::to_string).collect();
        assert_eq!(ips, ["10.1.0.2", "fd00::2"]);
    }

    #[test]
    fn host_ports_and_bandwidth_become_capabilities() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "annotations": { "kubernetes.io/egress-bandwidth": "10M" } },
            "spec": { "containers": [{ "name": "c", "ports": [{ "containerPort": 80, "hostPort": 8080 },
                { "containerPort": 81 }] }] },
        }))
        .unwrap();
        let all = capabilities(&pod);
        assert_eq!(all["portMappings"].as_array().unwrap().len(), 1);
        assert_eq!(all["portMappings"][0]["protocol"], "tcp");
        assert_eq!(all["bandwidth"]["egressRate"], 10_000_000);
        assert_eq!(bits_per_second("1Ki"), Some(1024));
        assert_eq!(bits_per_second("fast"), None);
    }
}
