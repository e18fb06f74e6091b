// SPDX-License-Identifier: Apache-2.0
//! The lab's Kubernetes: API server, kubeconfigs, the agents' configuration, the test pods.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use apiserver::{ApiServer, Config, ServiceCidrs};
use futures::StreamExt as _;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Container, Node, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::error::{Doing as _, Error};
use crate::external::External;
use crate::kubelet;
use crate::node::{CNI_CONF_DIR, NodeHandle};
use crate::plan::{API_PORT, Plan, api_url};
use crate::spec::{ApiKind, Ipam, Routing, Spec};
use crate::state::{Paths, State};
use crate::supervisor::{CONFIG, KUBECONFIG};
use crate::underlay::{NODE_DEVICE, Underlay};

/// Labs are small: so are their agents' connection tables.
const CONNTRACK_ENTRIES: u32 = 65_536;
/// The namespace of the test pods.
const POD_NAMESPACE: &str = "default";

/// The API server of a lab.
pub(crate) struct Cluster {
    /// Serves as long as it is kept.
    _server: Option<ApiServer>,
    runtime: Arc<kubelet::Runtime>,
    url: String,
    root_ca: Option<String>,
    kubeconfig: String,
    node_kubeconfig: String,
}

impl Cluster {
    /// Starts the API server, or finds the external one, and writes the kubeconfig for this machine.
    pub(crate) async fn start(
        paths: &Paths,
        spec: &Spec,
        plan: &Plan,
        underlay: &Underlay,
    ) -> Result<Self, Error> {
        let inside = plan
            .api
            .first()
            .ok_or_else(|| Error::Failed("the underlay has no address".to_owned()))?;
        let inside = api_url(inside.addr(), API_PORT);
        let mut listeners = underlay.listen(plan, API_PORT)?;
        let cluster = match spec.api {
            ApiKind::Embedded => Self::embedded(paths, plan, listeners, &inside)?,
            ApiKind::External => {
                let external = match &spec.kubeconfig {
                    Some(path) => External::from_kubeconfig(path)?,
                    None => External::start(paths, plan).await?,
                };
                if let Some(port) = external.advertised_port() {
                    listeners.extend(underlay.listen(plan, port)?);
                }
                external
                    .forward(listeners)
                    .doing(|| "forward to the API server".to_owned())?;
                Self {
                    _server: None,
                    runtime: Arc::default(),
                    root_ca: None,
                    kubeconfig: external.kubeconfig.to_string(),
                    node_kubeconfig: external.node_kubeconfig(&inside).to_string(),
                    url: external.url,
                }
            }
        };
        write_private(&paths.kubeconfig(), &cluster.kubeconfig)?;
        Ok(cluster)
    }

    fn embedded(
        paths: &Paths,
        plan: &Plan,
        inside_listeners: Vec<TcpListener>,
        inside: &str,
    ) -> Result<Self, Error> {
        let runtime = Arc::new(kubelet::Runtime::default());
        let mut config = Config::new(token()?, service_cidrs(&plan.service_cidrs)?).runtime(runtime.clone());
        for address in &plan.api {
            config = config.san(address.addr().to_string());
        }
        let local = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .doing(|| "listen on 127.0.0.1 for the API server".to_owned())?;
        let port = local
            .local_addr()
            .doing(|| "listen on 127.0.0.1".to_owned())?
            .port();
        let mut listeners = vec![local];
        listeners.extend(inside_listeners);
        let server = ApiServer::start(config, listeners)
            .map_err(|error| Error::Failed(format!("cannot start the API server: {error}")))?;
        let url = api_url(Ipv4Addr::LOCALHOST.into(), port);
        let context = format!("thalweg-lab-{}", paths.name);
        Ok(Self {
            runtime,
            root_ca: Some(server.ca_pem().to_owned()),
            kubeconfig: server.kubeconfig(&context, &url),
            node_kubeconfig: server.kubeconfig(&context, inside),
            url,
            _server: Some(server),
        })
    }

    /// The API server's URL for this machine.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The certificate authority, PEM, to be published to pods; a real API server publishes its own.
    pub(crate) fn root_ca(&self) -> Option<String> {
        self.root_ca.clone()
    }

    /// Tells the API server's `exec` and `logs` where the pods are.
    pub(crate) fn set_nodes(&self, nodes: &[NodeHandle]) {
        self.runtime.set_nodes(nodes.to_vec());
    }

    /// A client for the daemon itself.
    pub(crate) async fn client(&self) -> Result<Client, Error> {
        crate::lab::client_from(&self.kubeconfig).await
    }

    /// Writes what a node's agent needs: its configuration and its kubeconfig.
    pub(crate) fn configure_agent(&self, node: &NodeHandle, state: &State) -> Result<(), Error> {
        let bin_dir = state
            .program
            .parent()
            .unwrap_or_else(|| Path::new("/usr/lib/cni"));
        let mut config = json!({
            "nodeName": node.name,
            "kubeconfig": KUBECONFIG,
            "devices": [NODE_DEVICE],
            "cni.confDir": CNI_CONF_DIR,
            "cni.binDir": bin_dir,
            "conntrack.maxEntries": CONNTRACK_ENTRIES,
            "kubeProxyReplacement": state.spec.serves_services(),
        });
        match state.spec.routing {
            Routing::Native => {}
            Routing::Vxlan | Routing::Geneve => {
                config["routingMode"] = "tunnel".into();
                config["tunnelProtocol"] = json!(state.spec.routing);
            }
        }
        if state.spec.ipam == Ipam::ClusterPool {
            config["ipam.mode"] = "cluster-pool".into();
        }
        if let Some(cgroup) = &node.cgroup {
            config["cgroup.hostRoot"] = json!(cgroup);
        }
        for (key, value) in &state.spec.agent {
            set(&mut config, key, value);
        }
        write_private(&node.host_path(Path::new(KUBECONFIG)), &self.node_kubeconfig)?;
        // JSON is YAML.
        write_private(&node.host_path(Path::new(CONFIG)), &format!("{config:#}\n"))
    }
}

/// A setting over the one that is there, however it is nested.
fn set(config: &mut Value, key: &str, value: &Value) {
    match value {
        Value::Object(nested) => {
            for (inner, value) in nested {
                set(config, &format!("{key}.{inner}"), value);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            config[key] = value.clone();
        }
    }
}

fn service_cidrs(cidrs: &[IpNet]) -> Result<ServiceCidrs, Error> {
    match cidrs {
        [IpNet::V4(v4)] => Ok(ServiceCidrs::V4(*v4)),
        [IpNet::V6(v6)] => Ok(ServiceCidrs::V6(*v6)),
        [IpNet::V4(v4), IpNet::V6(v6)] => Ok(ServiceCidrs::Dual(*v4, *v6)),
        other => Err(Error::Refused(format!(
            "serviceCIDRs: {other:?} is not one CIDR per family, IPv4 first"
        ))),
    }
}

/// A random bearer token.
pub(crate) fn token() -> Result<String, Error> {
    use std::io::Read as _;
    let mut bytes = [0u8; 16];
    let mut random = std::fs::File::open("/dev/urandom").doing(|| "open /dev/urandom".to_owned())?;
    random
        .read_exact(&mut bytes)
        .doing(|| "read /dev/urandom".to_owned())?;
    // Digits alone would be a number in YAML.
    Ok(format!("lab-{:032x}", u128::from_ne_bytes(bytes)))
}

/// Writes a file that only root may read.
pub(crate) fn write_private(path: &Path, content: &str) -> Result<(), Error> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let operation = || format!("write {}", path.display());
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).doing(operation)?;
    }
    let file = std::fs::File::options()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    file.and_then(|mut file| file.write_all(content.as_bytes()))
        .doing(operation)
}

/// The pods that a lab starts with.
pub(crate) struct TestPods {
    client: Client,
    nodes: BTreeSet<String>,
    pods: Vec<Pod>,
}

impl TestPods {
    /// `pod-N-1`, `pod-N-2`, … on the N-th node.
    pub(crate) fn new(client: Client, nodes: &[NodeHandle], per_node: u32) -> Self {
        let pods = nodes.iter().zip(1..).flat_map(|(node, number)| {
            (1..=per_node).map(move |index| test_pod(format!("pod-{number}-{index}"), &node.name))
        });
        Self {
            client,
            nodes: nodes.iter().map(|node| node.name.clone()).collect(),
            pods: pods.collect(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.pods.len()
    }

    pub(crate) async fn create(&self) -> Result<(), Error> {
        let api = Api::<Pod>::namespaced(self.client.clone(), POD_NAMESPACE);
        let parameters = PostParams::default();
        let all = self.pods.iter().map(|pod| api.create(&parameters, pod));
        futures::future::try_join_all(all)
            .await
            .map(drop)
            .map_err(|error| Error::kubernetes("create the test pods", error))
    }

    /// Waits until every node is ready.
    pub(crate) async fn nodes_ready(&self) -> Result<(), Error> {
        let is_ready = |node: &Node| {
            let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
            conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
        };
        wait_for(Api::all(self.client.clone()), self.nodes.clone(), is_ready).await
    }

    /// Waits until every test pod is ready.
    pub(crate) async fn pods_ready(&self) -> Result<(), Error> {
        let is_ready = |pod: &Pod| {
            let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
            conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
        };
        let names = self
            .pods
            .iter()
            .filter_map(|pod| pod.metadata.name.clone())
            .collect();
        wait_for(
            Api::namespaced(self.client.clone(), POD_NAMESPACE),
            names,
            is_ready,
        )
        .await
    }
}

fn test_pod(name: String, node: &str) -> Pod {
    let container = Container {
        name: "main".to_owned(),
        image: Some("host".to_owned()),
        command: Some(["sleep", "infinity"].map(String::from).to_vec()),
        ..Container::default()
    };
    Pod {
        metadata: ObjectMeta {
            labels: Some(
                [
                    ("app".to_owned(), "thalweg-lab".to_owned()),
                    ("pod".to_owned(), name.clone()),
                ]
                .into(),
            ),
            name: Some(name),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            node_name: Some(node.to_owned()),
            containers: vec![container],
            termination_grace_period_seconds: Some(0),
            ..PodSpec::default()
        }),
        ..Pod::default()
    }
}

/// Watches until all objects with these names fulfil the condition.
async fn wait_for<K>(api: Api<K>, mut names: BTreeSet<String>, done: impl Fn(&K) -> bool) -> Result<(), Error>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let objects = watcher(api, watcher::Config::default())
        .default_backoff()
        .applied_objects();
    let mut objects = std::pin::pin!(objects);
    while !names.is_empty() {
        match objects.next().await {
            Some(Ok(object)) if done(&object) => {
                names.remove(object.meta().name.as_deref().unwrap_or_default());
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => tracing::debug!(%error, "watching; trying again"),
            None => return Err(Error::Failed("the API server ended a watch for good".to_owned())),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_replace_those_of_the_lab_in_either_form() {
        let mut config = json!({ "conntrack.maxEntries": 1, "mtu": 0 });
        set(
            &mut config,
            "conntrack",
            &json!({ "maxEntries": 2, "gcInterval": 3 }),
        );
        set(&mut config, "cni.chained", &json!([{ "type": "portmap" }]));
        let expected = json!({
            "conntrack.maxEntries": 2, "conntrack.gcInterval": 3, "mtu": 0, "cni.chained": [{ "type": "portmap" }],
        });
        assert_eq!(config, expected);
    }
}
