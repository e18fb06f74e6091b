// SPDX-License-Identifier: Apache-2.0
//! The test bed: on each node two pods and one in the node's own network, each answering the load generator's clients.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::agent::DropView;
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use model::Family;
use tokio::sync::OnceCell;

use crate::cluster::{Cluster, ClusterError, Output};
use crate::objects::{self, Network, Server};

/// The namespace of test pods unless told otherwise.
pub const NAMESPACE: &str = "thalweg-test";
/// How many nodes are tried unless told otherwise: the number of pairs grows with its square.
pub const NODES: usize = 4;
/// How long test pods may take to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
/// How long namespaces may take to be gone.
const GONE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a new namespace may take to accept pods: its service account is made by a controller.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(20);
/// What a container waits for that does not come by waiting.
const HOPELESS: [&str; 6] = [
    "CrashLoopBackOff",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "CreateContainerConfigError",
    "CreateContainerError",
];
const POLL: Duration = Duration::from_millis(50);

/// How to set the test bed up.
#[derive(Clone, Debug)]
pub struct Options {
    /// The namespace of test pods; deleted before and after.
    pub namespace: String,
    /// Whether what was made stays when the set-up fails.
    pub keep: bool,
    /// At most so many nodes.
    pub nodes: usize,
}

/// A test pod.
#[derive(Clone, Debug)]
pub struct TestPod {
    /// Its name.
    pub name: String,
    /// Its node's name.
    pub node: String,
    /// Its addresses; its node's for a pod in its node's network.
    pub ips: Vec<IpAddr>,
}

impl TestPod {
    /// Its address of a family.
    pub fn ip(&self, family: Family) -> Option<IpAddr> {
        self.ips.iter().copied().find(|ip| Family::of(ip) == family)
    }
}

/// What there is on one node.
#[derive(Clone, Debug)]
pub struct TestNode {
    /// The node's name.
    pub name: String,
    /// The node's addresses.
    pub addresses: Vec<IpAddr>,
    /// A pod.
    pub first: TestPod,
    /// Another pod.
    pub second: TestPod,
    /// A pod in the node's network.
    pub host: TestPod,
}

/// The test bed.
pub struct Bed {
    cluster: Arc<dyn Cluster>,
    namespace: String,
    /// The nodes.
    pub nodes: Vec<TestNode>,
    /// Where the API server listens, without any service in between.
    pub api: Vec<SocketAddr>,
    /// Whether the nodes' agents are Thalweg's.
    pub thalweg: bool,
    /// Whether these serve services.
    pub serves: bool,
    /// Whether sockets of the nodes reach them.
    pub node_sockets: bool,
    /// Whether anybody does, once that was tried.
    pub(crate) served: OnceCell<bool>,
}

impl std::fmt::Debug for Bed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Bed")
            .field("namespace", &self.namespace)
            .field("nodes", &self.nodes)
            .finish()
    }
}

impl Bed {
    /// Sets it up; when that fails, removes what there is of it.
    pub async fn prepare(cluster: Arc<dyn Cluster>, options: &Options) -> Result<Self, ClusterError> {
        remove(&cluster.client(), &options.namespace).await?;
        let made = Self::make(Arc::clone(&cluster), options).await;
        if made.is_err() && !options.keep {
            // The first error is the one to know.
            let _ = remove(&cluster.client(), &options.namespace).await;
        }
        made
    }

    async fn make(cluster: Arc<dyn Cluster>, options: &Options) -> Result<Self, ClusterError> {
        let client = cluster.client();
        let all: Vec<_> = nodes(&client)
            .await?
            .into_iter()
            .take(options.nodes.max(1))
            .collect();
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let namespace = objects::namespace(&options.namespace);
        namespaces
            .create(&PostParams::default(), &namespace)
            .await
            .map_err(|error| {
                ClusterError(format!("cannot create namespace {}: {error}", options.namespace))
            })?;
        let pods: Api<Pod> = Api::namespaced(client.clone(), &options.namespace);
        let made = all
            .iter()
            .zip(1..)
            .map(|(node, number)| test_node(&*cluster, &pods, node, number));
        let nodes = try_join_all(made).await?;
        let first = nodes
            .first()
            .ok_or_else(|| ClusterError("the cluster has no ready node".into()))?;
        let status = cluster.status(&first.name).await?;
        let thalweg = status.is_some();
        let services = status.and_then(|status| status.services);
        let api = api_endpoints(&client).await?;
        Ok(Self {
            cluster,
            namespace: options.namespace.clone(),
            nodes,
            api,
            thalweg,
            serves: services.is_some(),
            node_sockets: services.is_none_or(|services| services.sockets),
            served: OnceCell::new(),
        })
    }

    /// Removes everything it made.
    pub async fn clean(&self) -> Result<(), ClusterError> {
        remove(&self.cluster.client(), &self.namespace).await
    }

    /// Runs a command in a test pod.
    pub async fn exec(&self, pod: &TestPod, command: &[String]) -> Result<Output, ClusterError> {
        self.cluster.exec(&self.namespace, &pod.name, command).await
    }

    /// Runs this program in a test pod.
    pub async fn perf(&self, pod: &TestPod, arguments: &[&str]) -> Result<Output, ClusterError> {
        let program = [self.cluster.program(), "perf".into()];
        let command: Vec<_> = program
            .into_iter()
            .chain(arguments.iter().map(|argument| (*argument).to_owned()))
            .collect();
        self.exec(pod, &command).await
    }

    /// What the agent of a node has dropped.
    pub async fn drops(&self, node: &str) -> Result<Option<Vec<DropView>>, ClusterError> {
        let status = self.cluster.status(node).await?;
        Ok(status.map(|status| status.drops))
    }

    /// The API, and the namespace in which the bed may make what it wants.
    pub(crate) fn api<T>(&self) -> Api<T>
    where
        T: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        T::DynamicType: Default,
    {
        Api::namespaced(self.cluster.client(), &self.namespace)
    }

    /// Starts one more pod, which goes with the bed.
    pub(crate) async fn start(&self, server: &Server<'_>) -> Result<TestPod, ClusterError> {
        let pod = server.pod(&self.cluster.image(), &self.cluster.program());
        start(&self.api(), pod, server).await
    }

    /// What is being tried.
    pub fn title(&self) -> String {
        self.cluster.title()
    }
}

/// The nodes that are ready, by name, with their addresses.
async fn nodes(client: &kube::Client) -> Result<Vec<(String, Vec<IpAddr>)>, ClusterError> {
    let list = Api::<Node>::all(client.clone())
        .list(&ListParams::default())
        .await;
    let list = list.map_err(|error| ClusterError(format!("cannot list nodes: {error}")))?;
    let mut nodes: Vec<_> = list
        .into_iter()
        .filter(is_ready)
        .map(|node| {
            let addresses = node.status.as_ref().and_then(|status| status.addresses.as_ref());
            let internal = addresses
                .into_iter()
                .flatten()
                .filter(|address| address.type_ == "InternalIP");
            (
                node.name_any(),
                internal
                    .filter_map(|address| address.address.parse().ok())
                    .collect(),
            )
        })
        .collect();
    nodes.sort();
    Ok(nodes)
}

/// A node whose readiness nobody reports counts as ready.
fn is_ready(node: &Node) -> bool {
    let unschedulable = node
        .spec
        .as_ref()
        .and_then(|spec| spec.unschedulable)
        .unwrap_or(false);
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition.type_ == "Ready");
    !unschedulable && ready.is_none_or(|condition| condition.status == "True")
}

async fn test_node(
    cluster: &dyn Cluster,
    pods: &Api<Pod>,
    (node, addresses): &(String, Vec<IpAddr>),
    number: usize,
) -> Result<TestNode, ClusterError> {
    let make = |kind: &'static str, network| {
        let name = format!("{kind}-{number}");
        async move {
            let backend = if network == Network::Pod { "yes" } else { "no" };
            let labels = [("pod", name.as_str()), ("kind", kind), ("backend", backend)];
            let server = Server {
                network,
                ..Server::new(&name, node, &labels)
            };
            let pod = server.pod(&cluster.image(), &cluster.program());
            start(pods, pod, &server).await
        }
    };
    let (first, second, mut host) = futures::try_join!(
        make("first", Network::Pod),
        make("second", Network::Pod),
        make("host", Network::Host)
    )?;
    host.ips.clone_from(addresses);
    Ok(TestNode {
        name: node.clone(),
        addresses: addresses.clone(),
        first,
        second,
        host,
    })
}

/// Creates a pod and waits until it is ready, or runs if it is not to be ready.
async fn start(pods: &Api<Pod>, pod: Pod, server: &Server<'_>) -> Result<TestPod, ClusterError> {
    let (name, node) = (server.name, server.node);
    let begin = Instant::now();
    while let Err(error) = pods.create(&PostParams::default(), &pod).await {
        if begin.elapsed() > ACCEPT_TIMEOUT || !is_forbidden(&error) {
            return Err(ClusterError(format!("cannot create pod {name}: {error}")));
        }
        tokio::time::sleep(POLL).await;
    }
    loop {
        let now = pods.get(name).await;
        let now = now.map_err(|error| ClusterError(format!("cannot read pod {name}: {error}")))?;
        let ips = if server.ready {
            ready_ips(&now)
        } else {
            running_ips(&now)
        };
        if let Some(ips) = ips {
            return Ok(TestPod {
                name: name.into(),
                node: node.into(),
                ips,
            });
        }
        let state = state_of(&now);
        if begin.elapsed() > READY_TIMEOUT || HOPELESS.iter().any(|reason| state.starts_with(reason)) {
            return Err(ClusterError(format!(
                "pod {name} on node {node} is not ready after {} s: {state}; --keep leaves it there, for `kubectl \
                 describe pod` and `kubectl logs`; the agent's log on that node may say more",
                begin.elapsed().as_secs()
            )));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

fn ready_ips(pod: &Pod) -> Option<Vec<IpAddr>> {
    let status = pod.status.as_ref()?;
    let ready = status
        .conditions
        .as_ref()?
        .iter()
        .find(|condition| condition.type_ == "Ready")?;
    running_ips(pod).filter(|_| ready.status == "True")
}

fn running_ips(pod: &Pod) -> Option<Vec<IpAddr>> {
    let status = pod.status.as_ref()?;
    let addresses = status.pod_ips.as_ref()?.iter();
    let ips: Vec<_> = addresses.filter_map(|address| address.ip.parse().ok()).collect();
    (status.phase.as_deref() == Some("Running") && !ips.is_empty()).then_some(ips)
}

/// The most telling words of a pod's status.
fn state_of(pod: &Pod) -> String {
    let Some(status) = &pod.status else {
        return "no status".into();
    };
    let waiting = status.container_statuses.iter().flatten().find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        Some(format!(
            "{} {}",
            waiting.reason.as_deref()?,
            waiting.message.as_deref().unwrap_or_default()
        ))
    });
    waiting
        .or_else(|| status.message.clone())
        .or_else(|| status.phase.clone())
        .unwrap_or_default()
}

/// Where the service `kubernetes` leads.
async fn api_endpoints(client: &kube::Client) -> Result<Vec<SocketAddr>, ClusterError> {
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), "default");
    let list = slices
        .list(&ListParams::default().labels("kubernetes.io/service-name=kubernetes"))
        .await;
    let list =
        list.map_err(|error| ClusterError(format!("cannot list the API server's endpoints: {error}")))?;
    let mut all = Vec::new();
    for slice in list {
        let ports: Vec<_> = slice
            .ports
            .iter()
            .flatten()
            .filter_map(|port| u16::try_from(port.port?).ok())
            .collect();
        let addresses = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
        for ip in addresses.filter_map(|address| address.parse().ok()) {
            all.extend(ports.iter().map(|port| SocketAddr::new(ip, *port)));
        }
    }
    Ok(all)
}

/// Deletes a namespace and waits until it is gone; the absent is success.
pub async fn remove(client: &kube::Client, name: &str) -> Result<(), ClusterError> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let failed = |error: kube::Error| ClusterError(format!("cannot delete namespace {name}: {error}"));
    let begin = Instant::now();
    if namespaces.get_opt(name).await.map_err(failed)?.is_none() {
        return Ok(());
    }
    match namespaces.delete(name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
        other => drop(other.map_err(failed)?),
    }
    while namespaces.get_opt(name).await.map_err(failed)?.is_some() {
        if begin.elapsed() > GONE_TIMEOUT {
            return Err(ClusterError(format!(
                "namespace {name} is still there after {GONE_TIMEOUT:?}; `kubectl get namespace {name} -o yaml` says \
                 what holds it"
            )));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}
