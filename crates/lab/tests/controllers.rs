// SPDX-License-Identifier: Apache-2.0
//! The controllers against the embedded API server, with a stand-in for kubelets that makes every pod ready at once. Needs
//! no privilege.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::net::TcpListener;
use std::time::Duration;

use apiserver::{ApiServer, Config, ServiceCidrs};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Event, Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Config as ClientConfig, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use thalweg_lab::controllers;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long anything may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

struct Cluster {
    client: Client,
    _server: ApiServer,
    _stop: DropGuard,
}

/// A server, all controllers, and so many ready nodes.
async fn cluster(nodes: usize) -> Cluster {
    let cidrs = ServiceCidrs::Dual(
        "10.96.0.0/16".parse().unwrap(),
        "fd74:7796::/112".parse().unwrap(),
    );
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let server = ApiServer::start(Config::new("token", cidrs), vec![listener]).unwrap();
    let kubeconfig = serde_yaml_ng::from_str(&server.kubeconfig("test", &url)).unwrap();
    let config = ClientConfig::from_custom_kubeconfig(kubeconfig, &Default::default())
        .await
        .unwrap();
    let client = Client::try_from(config).unwrap();
    let shutdown = CancellationToken::new();
    let pools = ["10.244.0.0/16", "fd74:7710::/48"]
        .map(|cidr| controllers::pod_cidrs::Pool::new(cidr.parse().unwrap()));
    let config = controllers::Config {
        pools: pools.to_vec(),
        nodes: (1..=nodes).map(|number| format!("node-{number}")).collect(),
        root_ca: Some("ca".into()),
    };
    tokio::spawn(controllers::run(client.clone(), config, shutdown.clone()));
    tokio::spawn(stand_in_for_kubelets(client.clone()));
    let cluster = Cluster {
        client,
        _server: server,
        _stop: shutdown.drop_guard(),
    };
    // Not in their order: that must make no difference.
    for number in (1..=nodes).rev() {
        cluster.add_node(&format!("node-{number}")).await;
    }
    cluster
}

/// Pods that are bound become ready, pods that are deleted go.
async fn stand_in_for_kubelets(client: Client) {
    let pods = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .applied_objects();
    pods.try_for_each(|pod| {
        let client = client.clone();
        async move {
            let api: Api<Pod> = Api::namespaced(client, &pod.namespace().unwrap());
            let bound = pod.spec.as_ref().unwrap().node_name.is_some();
            if pod.metadata.deletion_timestamp.is_some() {
                drop(
                    api.delete(&pod.name_any(), &DeleteParams::default().grace_period(0))
                        .await,
                );
            } else if bound && pod.status.as_ref().and_then(|s| s.pod_ip.as_ref()).is_none() {
                let number = u64::from_str_radix(&pod.uid().unwrap()[..4], 16).unwrap();
                let ips = [
                    format!("10.244.{}.{}", number >> 8, number & 255),
                    format!("fd74:7710::{number:x}"),
                ];
                let status = json!({ "status": { "phase": "Running", "podIP": ips[0],
                    "podIPs": [{ "ip": ips[0] }, { "ip": ips[1] }],
                    "conditions": [{ "type": "Ready", "status": "True" }] } });
                drop(
                    api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(status))
                        .await,
                );
            }
            Ok(())
        }
    })
    .await
    .unwrap();
}

impl Cluster {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn add_node(&self, name: &str) {
        let api: Api<Node> = Api::all(self.client.clone());
        let labels = json!({ "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": "east" });
        create(&api, json!({ "metadata": { "name": name, "labels": labels } })).await;
        let status = json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }] } });
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
    }

    /// The pods with that label, once there are so many ready ones and no others.
    async fn pods(&self, app: &str, count: usize) -> Vec<Pod> {
        let api: Api<Pod> = self.api();
        until(&api, &format!("app={app}"), |pods| {
            let ready = |pod: &&Pod| {
                pod.status
                    .as_ref()
                    .and_then(|status| status.pod_ip.as_ref())
                    .is_some()
            };
            pods.len() == count && pods.iter().filter(ready).count() == count
        })
        .await
    }
}

async fn create<K>(api: &Api<K>, object: Value) -> K
where
    K: Resource + Clone + Serialize + DeserializeOwned + Debug,
{
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap())
        .await
        .unwrap()
}

/// Waits, by watching, until the objects that a label selects are as they should be.
async fn until<K>(api: &Api<K>, labels: &str, good: impl Fn(&[K]) -> bool) -> Vec<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Default,
{
    let selection = watcher::Config::default().labels(labels);
    let mut changes = watcher(api.clone(), selection).default_backoff().boxed();
    let wait = async {
        loop {
            changes.next().await.unwrap().unwrap();
            let objects = api
                .list(&ListParams::default().labels(labels))
                .await
                .unwrap()
                .items;
            if good(&objects) {
                return objects;
            }
        }
    };
    match tokio::time::timeout(LIMIT, wait).await {
        Ok(objects) => objects,
        Err(_) => panic!(
            "not within {LIMIT:?}: {:#?}",
            api.list(&ListParams::default().labels(labels)).await
        ),
    }
}

fn deployment(replicas: u32, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web", "labels": { "app": "web" } },
        "spec": { "replicas": replicas, "selector": { "matchLabels": { "app": "web" } }, "template": {
            "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "name": "c", "image": image }] } } },
    })
}

fn nodes_of(pods: &[Pod]) -> BTreeSet<String> {
    pods.iter()
        .filter_map(|pod| pod.spec.as_ref()?.node_name.clone())
        .collect()
}

#[tokio::test]
async fn nodes_get_cidrs_by_their_order_and_a_released_one_is_kept_for_its_node() {
    let cluster = cluster(3).await;
    let api: Api<Node> = Api::all(cluster.client.clone());
    let cidrs = |node: &Node| {
        node.spec
            .as_ref()
            .and_then(|spec| spec.pod_cidrs.clone())
            .unwrap_or_default()
    };
    let nodes = until(&api, "", |nodes| {
        nodes.len() == 3 && nodes.iter().all(|node| cidrs(node).len() == 2)
    })
    .await;
    for (node, place) in nodes.iter().zip(0..) {
        let wanted = [
            format!("10.244.{place}.0/24"),
            format!("fd74:7710:0:{place}::/64").replace(":0:0::", "::"),
        ];
        assert_eq!(
            (node.name_any(), cidrs(node)),
            (format!("node-{}", place + 1), wanted.to_vec())
        );
    }

    let released = cidrs(&api.get("node-2").await.unwrap());
    api.delete("node-2", &DeleteParams::default()).await.unwrap();
    for (name, wanted) in [
        (
            "node-4",
            vec!["10.244.3.0/24".to_owned(), "fd74:7710:0:3::/64".to_owned()],
        ),
        ("node-2", released),
    ] {
        cluster.add_node(name).await;
        let nodes = until(&api, &format!("kubernetes.io/hostname={name}"), |nodes| {
            nodes.iter().any(|n| !cidrs(n).is_empty())
        })
        .await;
        assert_eq!(cidrs(&nodes[0]), wanted);
    }
}

#[tokio::test]
async fn a_deployment_is_spread_scaled_rolled_and_removed_with_all_that_it_owns() {
    let cluster = cluster(3).await;
    let api: Api<Deployment> = cluster.api();
    create(&api, deployment(3, "one")).await;
    assert_eq!(
        nodes_of(&cluster.pods("web", 3).await).len(),
        3,
        "replicas spread over the nodes"
    );
    until(&api, "app=web", |all| {
        all[0].status.as_ref().and_then(|s| s.available_replicas) == Some(3)
    })
    .await;

    let sized = |n: i32| Patch::Merge(json!({ "spec": { "replicas": n } }));
    api.patch("web", &PatchParams::default(), &sized(5))
        .await
        .unwrap();
    cluster.pods("web", 5).await;
    api.patch("web", &PatchParams::default(), &sized(2))
        .await
        .unwrap();
    let before = cluster.pods("web", 2).await;

    let patch = Patch::Strategic(deployment(2, "two"));
    api.patch("web", &PatchParams::default(), &patch).await.unwrap();
    let rolled = |all: &[Deployment]| {
        let status = all[0].status.clone().unwrap_or_default();
        let progress = status
            .conditions
            .iter()
            .flatten()
            .find(|c| c.type_ == "Progressing");
        status.observed_generation == all[0].metadata.generation
            && progress.and_then(|c| c.reason.as_deref()) == Some("NewReplicaSetAvailable")
    };
    until(&api, "app=web", rolled).await;
    let after = cluster.pods("web", 2).await;
    assert!(
        after
            .iter()
            .all(|pod| before.iter().all(|old| old.uid() != pod.uid()))
    );

    api.delete("web", &DeleteParams::background()).await.unwrap();
    cluster.pods("web", 0).await;
    until(&cluster.api::<ReplicaSet>(), "app=web", <[ReplicaSet]>::is_empty).await;
}

#[tokio::test]
async fn foreground_deletion_takes_all_and_orphans_stay() {
    let cluster = cluster(1).await;
    let api: Api<Deployment> = cluster.api();
    create(&api, deployment(2, "one")).await;
    cluster.pods("web", 2).await;
    api.delete("web", &DeleteParams::foreground()).await.unwrap();
    until(&api, "app=web", <[Deployment]>::is_empty).await;
    // Not soon: when the deployment is gone, its pods are.
    let of_web = ListParams::default().labels("app=web");
    let left = cluster.api::<Pod>().list(&of_web).await.unwrap();
    assert!(left.items.is_empty());

    create(&api, deployment(1, "one")).await;
    cluster.pods("web", 1).await;
    api.delete("web", &DeleteParams::orphan()).await.unwrap();
    until(&api, "app=web", <[Deployment]>::is_empty).await;
    let sets = cluster
        .api::<ReplicaSet>()
        .list(&ListParams::default().labels("app=web"))
        .await
        .unwrap();
    assert_eq!(sets.items.len(), 1);
    assert!(sets.items[0].owner_references().is_empty());
}

#[tokio::test]
async fn a_daemon_runs_once_on_every_node_also_on_later_ones() {
    let cluster = cluster(2).await;
    let mut daemon = deployment(0, "one");
    daemon["kind"] = "DaemonSet".into();
    daemon["spec"].as_object_mut().unwrap().remove("replicas");
    create(&cluster.api::<DaemonSet>(), daemon).await;
    assert_eq!(nodes_of(&cluster.pods("web", 2).await).len(), 2);
    cluster.add_node("node-3").await;
    assert_eq!(nodes_of(&cluster.pods("web", 3).await).len(), 3);
}

#[tokio::test]
async fn a_service_has_slices_of_both_families_that_follow_its_pods() {
    let cluster = cluster(2).await;
    create(&cluster.api::<Service>(), json!({
        "metadata": { "name": "web" }, "spec": { "selector": { "app": "web" }, "ipFamilyPolicy": "PreferDualStack",
            "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }] },
    }))
    .await;
    create(&cluster.api::<Deployment>(), deployment(2, "one")).await;
    let slices: Api<EndpointSlice> = cluster.api();
    let of_web = "kubernetes.io/service-name=web";
    let ready = |slice: &EndpointSlice| {
        slice
            .endpoints
            .iter()
            .filter(|e| e.conditions.as_ref().and_then(|c| c.ready) == Some(true))
            .count()
    };
    let both = until(&slices, of_web, |all| {
        all.len() == 2 && all.iter().all(|s| ready(s) == 2)
    })
    .await;
    let families: BTreeSet<&str> = both.iter().map(|slice| slice.address_type.as_str()).collect();
    assert_eq!(families, BTreeSet::from(["IPv4", "IPv6"]));
    assert!(
        both.iter()
            .flat_map(|s| &s.endpoints)
            .all(|e| e.zone.as_deref() == Some("east"))
    );
    assert_eq!(both[0].ports.as_ref().unwrap()[0].port, Some(8080));
    until(&cluster.api::<Endpoints>(), "", |all| {
        let web = all
            .iter()
            .find(|e| e.name_any() == "web")
            .and_then(|e| e.subsets.clone())
            .unwrap_or_default();
        web.iter()
            .flat_map(|subset| subset.addresses.iter().flatten())
            .count()
            == 2
    })
    .await;

    let unready = json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } });
    let pod = cluster.pods("web", 2).await[0].name_any();
    cluster
        .api::<Pod>()
        .patch_status(&pod, &PatchParams::default(), &Patch::Strategic(unready))
        .await
        .unwrap();
    until(&slices, of_web, |all| {
        all.iter().all(|s| ready(s) == 1 && s.endpoints.len() == 2)
    })
    .await;
    cluster
        .api::<Service>()
        .delete("web", &DeleteParams::default())
        .await
        .unwrap();
    until(&slices, of_web, <[EndpointSlice]>::is_empty).await;
}

#[tokio::test]
async fn a_pod_that_fits_nowhere_says_why_and_is_bound_when_a_node_comes() {
    let cluster = cluster(1).await;
    create(&cluster.api::<Pod>(), json!({
        "metadata": { "name": "p", "labels": { "app": "p" } },
        "spec": { "containers": [{ "name": "c", "image": "i" }], "nodeSelector": { "kubernetes.io/hostname": "node-2" } },
    }))
    .await;
    let refused = until(&cluster.api::<Pod>(), "app=p", |pods| {
        let conditions = pods[0]
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_ref());
        conditions
            .into_iter()
            .flatten()
            .any(|c| c.reason.as_deref() == Some("Unschedulable"))
    })
    .await;
    let events: Api<Event> = cluster.api();
    until(&events, "", |all| {
        all.iter()
            .any(|e| e.reason.as_deref() == Some("FailedScheduling"))
    })
    .await;
    assert!(refused[0].spec.as_ref().unwrap().node_name.is_none());
    cluster.add_node("node-2").await;
    assert_eq!(
        nodes_of(&cluster.pods("p", 1).await),
        BTreeSet::from(["node-2".to_owned()])
    );
}

#[tokio::test]
async fn a_namespace_is_furnished_and_emptied_before_it_goes() {
    let cluster = cluster(1).await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    create(
        &namespaces,
        json!({ "metadata": { "name": "team", "labels": { "team": "x" } } }),
    )
    .await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "team");
    until(&maps, "", |maps| {
        maps.iter().any(|map| map.name_any() == "kube-root-ca.crt")
    })
    .await;
    let mut web = deployment(2, "one");
    web["metadata"]["namespace"] = "team".into();
    create(
        &Api::<Deployment>::namespaced(cluster.client.clone(), "team"),
        web,
    )
    .await;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "team");
    until(&pods, "app=web", |pods| pods.len() == 2).await;

    namespaces.delete("team", &DeleteParams::default()).await.unwrap();
    until(&namespaces, "team=x", <[Namespace]>::is_empty).await;
    assert!(pods.list(&ListParams::default()).await.unwrap().items.is_empty());
}
