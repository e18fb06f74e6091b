// SPDX-License-Identifier: Apache-2.0
//! The server as a kube-rs client meets it.

#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]
#![allow(clippy::too_many_lines, reason = "a story reads best whole")]

mod cluster;

use std::time::Duration;

use cluster::{Cluster, TOKEN, config};
use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Service};
use k8s_openapi::api::events::v1::Event;
use kube::api::{
    Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy,
    WatchEvent, WatchParams,
};
use kube::core::{PartialObjectMeta, Status};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Error, ResourceExt};
use serde_json::{Value, json};

fn parse<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn config_map(name: &str, value: &str) -> ConfigMap {
    parse(json!({ "metadata": { "name": name }, "data": { "k": value } }))
}

fn pod(name: &str) -> Pod {
    parse(json!({ "metadata": { "name": name, "labels": { "app": name } },
        "spec": { "containers": [{ "name": "c", "image": "x" }] } }))
}

fn service(name: &str, spec: Value) -> Service {
    parse(json!({ "metadata": { "name": name }, "spec": spec }))
}

fn status<T: std::fmt::Debug>(result: Result<T, Error>) -> Status {
    let Err(Error::Api(status)) = result else {
        panic!("not refused by the server: {result:?}")
    };
    *status
}

async fn next<S: Stream + Unpin>(stream: &mut S) -> S::Item {
    tokio::time::timeout(Duration::from_secs(10), stream.next())
        .await
        .expect("an event in time")
        .expect("an event")
}

fn create() -> PostParams {
    PostParams::default()
}

#[tokio::test]
async fn only_the_token_opens_the_door() {
    let cluster = Cluster::start(config());
    let client = cluster.client().await;
    assert_eq!(client.apiserver_version().await.unwrap().major, "1");
    let kubeconfig = std::fs::read_to_string(cluster.home.path().join("kubeconfig")).unwrap();
    let wrong = kubeconfig.replace(TOKEN, "another");
    let wrong = kube::config::Kubeconfig::from_yaml(&wrong).unwrap();
    let wrong = kube::Config::from_custom_kubeconfig(wrong, &Default::default())
        .await
        .unwrap();
    let pods: Api<Pod> = Api::all(Client::try_from(wrong).unwrap());
    assert_eq!(status(pods.list(&ListParams::default()).await).code, 401);
}

#[tokio::test]
async fn writes_conflict_as_in_kubernetes() {
    let cluster = Cluster::start(config());
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client().await);
    let created = maps.create(&create(), &config_map("a", "1")).await.unwrap();
    let again = status(maps.create(&create(), &config_map("a", "1")).await);
    assert_eq!((again.code, again.reason.as_str()), (409, "AlreadyExists"));
    assert_eq!(again.message, "configmaps \"a\" already exists");

    let mut newer = created.clone();
    newer.data = config_map("a", "2").data;
    let newer = maps.replace("a", &create(), &newer).await.unwrap();
    assert_ne!(newer.resource_version(), created.resource_version());
    let stale = status(maps.replace("a", &create(), &created).await);
    assert_eq!((stale.code, stale.reason.as_str()), (409, "Conflict"));

    let same = maps.replace("a", &create(), &newer).await.unwrap();
    assert_eq!(
        same.resource_version(),
        newer.resource_version(),
        "a write that changes nothing is none"
    );
    let missing = status(maps.get("b").await);
    assert_eq!(
        (missing.code, missing.message.as_str()),
        (404, "configmaps \"b\" not found")
    );
    let preconditions = Preconditions {
        uid: Some("other".into()),
        resource_version: None,
    };
    let uid = DeleteParams {
        preconditions: Some(preconditions),
        ..Default::default()
    };
    assert_eq!(status(maps.delete("a", &uid).await).code, 409);
}

#[tokio::test]
async fn a_watch_tells_what_happens_and_resumes_where_it_was() {
    let cluster = Cluster::start(config());
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client().await);
    let start = maps
        .list(&ListParams::default())
        .await
        .unwrap()
        .metadata
        .resource_version
        .unwrap();
    let created = maps.create(&create(), &config_map("a", "1")).await.unwrap();
    maps.patch(
        "a",
        &PatchParams::default(),
        &Patch::Merge(json!({ "data": { "k": "2" } })),
    )
    .await
    .unwrap();
    maps.delete("a", &DeleteParams::default()).await.unwrap();

    let mut events = maps.watch(&WatchParams::default(), &start).await.unwrap().boxed();
    assert!(
        matches!(next(&mut events).await.unwrap(), WatchEvent::Added(m) if m.data.as_ref().unwrap()["k"] == "1")
    );
    assert!(
        matches!(next(&mut events).await.unwrap(), WatchEvent::Modified(m) if m.data.as_ref().unwrap()["k"] == "2")
    );
    assert!(matches!(next(&mut events).await.unwrap(), WatchEvent::Deleted(_)));

    let later = created.resource_version().unwrap();
    let mut events = maps.watch(&WatchParams::default(), &later).await.unwrap().boxed();
    assert!(matches!(
        next(&mut events).await.unwrap(),
        WatchEvent::Modified(_)
    ));
}

#[tokio::test]
async fn a_watch_with_a_selector_sees_objects_come_and_go() {
    let cluster = Cluster::start(config());
    let pods: Api<Pod> = Api::default_namespaced(cluster.client().await);
    let mut mine = pods
        .watch(&WatchParams::default().fields("spec.nodeName=n1"), "0")
        .await
        .unwrap()
        .boxed();
    let mut labelled = pods
        .watch(&WatchParams::default().labels("app in (a,c)"), "0")
        .await
        .unwrap()
        .boxed();
    pods.create(&create(), &pod("a")).await.unwrap();
    pods.create(&create(), &pod("b")).await.unwrap();
    let bind =
        |name: &str| json!({ "metadata": { "name": name }, "target": { "kind": "Node", "name": "n1" } });
    let _: Value = pods
        .create_subresource("binding", "b", &create(), &bind("b"))
        .await
        .unwrap();
    assert!(matches!(next(&mut mine).await.unwrap(), WatchEvent::Added(p) if p.name_any() == "b"));
    assert!(matches!(next(&mut labelled).await.unwrap(), WatchEvent::Added(p) if p.name_any() == "a"));
    let relabel = Patch::Merge(json!({ "metadata": { "labels": { "app": "z" } } }));
    pods.patch("a", &PatchParams::default(), &relabel).await.unwrap();
    assert!(matches!(next(&mut labelled).await.unwrap(), WatchEvent::Deleted(p) if p.name_any() == "a"));
    let twice: Result<Value, _> = pods
        .create_subresource("binding", "b", &create(), &bind("b"))
        .await;
    assert_eq!(status(twice).code, 409);
    let unknown = status(pods.list(&ListParams::default().fields("spec.colour=red")).await);
    assert_eq!(
        (unknown.code, unknown.message.as_str()),
        (400, "field label not supported: spec.colour")
    );
}

#[tokio::test]
async fn history_that_is_gone_is_410() {
    let mut config = config();
    config.watch_history = 4;
    let cluster = Cluster::start(config);
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client().await);
    let first = maps
        .create(&create(), &config_map("a", "0"))
        .await
        .unwrap()
        .resource_version()
        .unwrap();
    for i in 1..9 {
        let patch = Patch::Merge(json!({ "data": { "k": i.to_string() } }));
        maps.patch("a", &PatchParams::default(), &patch).await.unwrap();
    }
    let Err(Error::Api(gone)) = maps.watch(&WatchParams::default(), &first).await.map(drop) else {
        panic!()
    };
    assert_eq!((gone.code, gone.reason.as_str()), (410, "Expired"));
    let Err(Error::Api(future)) = maps.watch(&WatchParams::default(), "99999").await.map(drop) else {
        panic!()
    };
    assert_eq!(future.code, 410, "a revision of another server's life");
}

#[tokio::test]
async fn a_slow_watcher_is_cut_off_and_nobody_waits_for_it() {
    let mut config = config();
    config.watcher_queue = 2;
    let cluster = Cluster::start(config);
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client().await);
    let created = maps.create(&create(), &config_map("a", "0")).await.unwrap();
    let slow = maps
        .watch(&WatchParams::default(), &created.resource_version().unwrap())
        .await
        .unwrap();
    let large = "x".repeat(1 << 20);
    for i in 0..40 {
        let patch = Patch::Merge(json!({ "data": { "k": format!("{i}{large}") } }));
        maps.patch("a", &PatchParams::default(), &patch).await.unwrap();
    }
    let events = tokio::time::timeout(Duration::from_secs(20), slow.try_collect::<Vec<_>>()).await;
    let count = events
        .expect("the watch ends by itself")
        .map(|e| e.len())
        .unwrap_or_default();
    assert!(count < 40, "{count} events");
}

#[tokio::test]
async fn reflectors_work_by_list_and_by_streaming_and_over_metadata() {
    let cluster = Cluster::start(config());
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client().await);
    for i in 0..5 {
        maps.create(&create(), &config_map(&format!("m{i}"), "x"))
            .await
            .unwrap();
    }
    let paged = watcher::Config::default().page_size(2);
    let streaming = watcher::Config::default().streaming_lists();
    for (value, config) in [("paged", paged), ("streaming", streaming)] {
        let mut stream = watcher(maps.clone(), config).applied_objects().boxed();
        for i in 0..5 {
            assert_eq!(next(&mut stream).await.unwrap().name_any(), format!("m{i}"));
        }
        let touch = Patch::Merge(json!({ "data": { value: "1" } }));
        maps.patch("m0", &PatchParams::default(), &touch).await.unwrap();
        assert_eq!(next(&mut stream).await.unwrap().name_any(), "m0");
    }
    let metadata: Api<PartialObjectMeta<ConfigMap>> = Api::default_namespaced(cluster.client().await);
    let mut metadata = watcher(metadata, watcher::Config::default())
        .applied_objects()
        .boxed();
    assert_eq!(next(&mut metadata).await.unwrap().name_any(), "m0");
}

#[tokio::test]
async fn lists_come_in_pages() {
    let cluster = Cluster::start(config());
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client().await);
    for i in 0..5 {
        maps.create(&create(), &config_map(&format!("m{i}"), "x"))
            .await
            .unwrap();
    }
    let first = maps.list(&ListParams::default().limit(2)).await.unwrap();
    assert_eq!(
        (first.items.len(), first.metadata.remaining_item_count),
        (2, Some(3))
    );
    let token = first.metadata.continue_.unwrap();
    let rest = maps
        .list(&ListParams::default().limit(9).continue_token(&token))
        .await
        .unwrap();
    assert_eq!(
        rest.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>(),
        ["m2", "m3", "m4"]
    );
    assert_eq!(rest.metadata.resource_version, first.metadata.resource_version);
    assert_eq!(rest.metadata.continue_.unwrap_or_default(), "");
    assert_eq!(
        status(maps.list(&ListParams::default().continue_token("nonsense")).await).code,
        400
    );
}

#[tokio::test]
async fn server_side_apply_creates_owns_and_conflicts() {
    let cluster = Cluster::start(config());
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client().await);
    let wanted = |value: &str| json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" }, "data": { "k": value } });
    let created = maps
        .patch("a", &PatchParams::apply("one"), &Patch::Apply(wanted("1")))
        .await
        .unwrap();
    assert_eq!(created.managed_fields()[0].manager.as_deref(), Some("one"));
    let unchanged = maps
        .patch("a", &PatchParams::apply("one"), &Patch::Apply(wanted("1")))
        .await
        .unwrap();
    assert_eq!(unchanged.resource_version(), created.resource_version());
    let conflict = status(
        maps.patch("a", &PatchParams::apply("two"), &Patch::Apply(wanted("2")))
            .await,
    );
    assert_eq!(conflict.code, 409);
    assert_eq!(
        conflict.message,
        "Apply failed with 1 conflict: conflict with \"one\" using v1: .data.k"
    );
    let forced = maps
        .patch(
            "a",
            &PatchParams::apply("two").force(),
            &Patch::Apply(wanted("2")),
        )
        .await
        .unwrap();
    assert_eq!(forced.data.unwrap()["k"], "2");
    let dry = PatchParams::apply("three").force().dry_run();
    assert_eq!(
        maps.patch("a", &dry, &Patch::Apply(wanted("3")))
            .await
            .unwrap()
            .data
            .unwrap()["k"],
        "3"
    );
    assert_eq!(
        maps.get("a").await.unwrap().data.unwrap()["k"],
        "2",
        "a dry run changes nothing"
    );
}

#[tokio::test]
async fn services_get_addresses_and_ports() {
    let cluster = Cluster::start(config());
    let services: Api<Service> = Api::default_namespaced(cluster.client().await);
    let port = || json!([{ "port": 80 }]);
    let make = async |name: &str, spec: Value| services.create(&create(), &service(name, spec)).await;
    let single = make("single", json!({ "ports": port() }))
        .await
        .unwrap()
        .spec
        .unwrap();
    assert_eq!(
        single.cluster_ips.unwrap(),
        ["10.96.0.2"],
        "the first address is the server's own service's"
    );
    let dual = make(
        "dual",
        json!({ "ports": port(), "ipFamilyPolicy": "RequireDualStack", "type": "NodePort" }),
    )
    .await;
    let dual = dual.unwrap().spec.unwrap();
    assert_eq!(dual.cluster_ips.unwrap(), ["10.96.0.3", "fd00:96::1"]);
    assert_eq!(dual.ports.unwrap()[0].node_port, Some(30_000));
    let v6 = make("v6", json!({ "ports": port(), "ipFamilies": ["IPv6"] }))
        .await
        .unwrap()
        .spec
        .unwrap();
    assert_eq!(v6.cluster_ip.unwrap(), "fd00:96::2");
    let headless = make("headless", json!({ "clusterIP": "None" }))
        .await
        .unwrap()
        .spec
        .unwrap();
    assert_eq!(headless.cluster_ips.unwrap(), ["None"]);
    let balancer = json!({ "ports": port(), "type": "LoadBalancer", "externalTrafficPolicy": "Local" });
    let balancer = make("balancer", balancer).await.unwrap().spec.unwrap();
    assert_eq!(balancer.health_check_node_port, Some(30_002));

    for (spec, expected) in [
        (
            json!({ "ports": port(), "clusterIP": "10.96.0.2" }),
            "already allocated",
        ),
        (
            json!({ "ports": port(), "clusterIP": "10.1.0.2" }),
            "not in the valid range",
        ),
        (
            json!({ "ports": [{ "port": 80, "nodePort": 30_000 }], "type": "NodePort" }),
            "port is already allocated",
        ),
        (
            json!({ "ports": [{ "port": 80, "nodePort": 99 }], "type": "NodePort" }),
            "range of valid ports is 30000-32767",
        ),
        (
            json!({ "ports": [{ "port": 80 }, { "port": 81 }] }),
            "spec.ports[0].name: Required value",
        ),
        (json!({}), "spec.ports: Required value"),
        (
            json!({ "ports": port(), "type": "Other" }),
            "Unsupported value: \"Other\"",
        ),
    ] {
        let refused = status(make("bad", spec).await);
        assert!(
            refused.code == 422 && refused.message.contains(expected),
            "{}",
            refused.message
        );
    }

    let change = async |name: &str, patch: Value| {
        services
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
    };
    let moved = status(
        change(
            "single",
            json!({ "spec": { "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"] } }),
        )
        .await,
    );
    assert!(
        moved.message.contains("may not change once set"),
        "{}",
        moved.message
    );
    let upgraded = change(
        "single",
        json!({ "spec": { "ipFamilyPolicy": "PreferDualStack" } }),
    )
    .await
    .unwrap();
    assert_eq!(upgraded.spec.unwrap().cluster_ips.unwrap().len(), 2);
    let plain = change("dual", json!({ "spec": { "type": "ClusterIP" } }))
        .await
        .unwrap()
        .spec
        .unwrap();
    assert_eq!(plain.ports.unwrap()[0].node_port, None);
    services.delete("dual", &DeleteParams::default()).await.unwrap();
    let again = json!({ "ports": [{ "port": 80, "nodePort": 30_000 }], "type": "NodePort", "clusterIP": "10.96.0.3" });
    make("again", again).await.unwrap();
}

#[tokio::test]
async fn pods_on_a_node_wait_for_their_kubelet() {
    let cluster = Cluster::start(config());
    let pods: Api<Pod> = Api::default_namespaced(cluster.client().await);
    let free = pods.create(&create(), &pod("free")).await.unwrap();
    assert_eq!(free.status.unwrap().phase.unwrap(), "Pending");
    pods.delete("free", &DeleteParams::default()).await.unwrap();
    assert_eq!(status(pods.get("free").await).code, 404);

    let mut bound = pod("bound");
    bound.spec.as_mut().unwrap().node_name = Some("n1".into());
    pods.create(&create(), &bound).await.unwrap();
    let pending = pods
        .delete("bound", &DeleteParams::default())
        .await
        .unwrap()
        .left()
        .unwrap();
    assert!(pending.metadata.deletion_timestamp.is_some());
    assert_eq!(pending.metadata.deletion_grace_period_seconds, Some(30));
    let elsewhere = Patch::Merge(json!({ "spec": { "nodeName": "n2" } }));
    assert_eq!(
        status(pods.patch("bound", &PatchParams::default(), &elsewhere).await).code,
        422
    );
    let running = Patch::Merge(
        json!({ "status": { "phase": "Running", "podIP": "10.0.0.1" }, "spec": { "nodeName": "n9" } }),
    );
    let patched = pods
        .patch_status("bound", &PatchParams::default(), &running)
        .await
        .unwrap();
    assert_eq!(
        patched.spec.unwrap().node_name.unwrap(),
        "n1",
        "a status patch changes the status only"
    );
    assert_eq!(patched.status.unwrap().pod_ip.unwrap(), "10.0.0.1");
    pods.delete("bound", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    assert_eq!(status(pods.get("bound").await).code, 404);
}

#[tokio::test]
async fn finalizers_hold_and_owners_take_their_dependents_along() {
    let cluster = Cluster::start(config());
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client().await);
    let owner = maps.create(&create(), &config_map("owner", "1")).await.unwrap();
    let owned = |name: &str| -> ConfigMap {
        parse(
            json!({ "metadata": { "name": name, "ownerReferences": [{ "apiVersion": "v1", "kind": "ConfigMap",
            "name": "owner", "uid": owner.uid().unwrap() }] } }),
        )
    };
    maps.create(&create(), &owned("plain")).await.unwrap();
    let mut held = owned("held");
    held.metadata.finalizers = Some(vec!["example.com/hold".into()]);
    maps.create(&create(), &held).await.unwrap();
    maps.delete("owner", &DeleteParams::background()).await.unwrap();
    assert_eq!(status(maps.get("plain").await).code, 404);
    assert!(
        maps.get("held")
            .await
            .unwrap()
            .metadata
            .deletion_timestamp
            .is_some()
    );
    let release = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    maps.patch("held", &PatchParams::default(), &release)
        .await
        .unwrap();
    assert_eq!(status(maps.get("held").await).code, 404);

    let owner = maps.create(&create(), &config_map("owner", "1")).await.unwrap();
    let mut orphan = owned("orphan");
    orphan.metadata.owner_references.as_mut().unwrap()[0].uid = owner.uid().unwrap();
    maps.create(&create(), &orphan).await.unwrap();
    let orphaning = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Orphan),
        ..Default::default()
    };
    maps.delete("owner", &orphaning).await.unwrap();
    assert!(maps.get("orphan").await.unwrap().owner_references().is_empty());
}

#[tokio::test]
async fn an_owner_deleted_in_the_foreground_goes_last() {
    let cluster = Cluster::start(config());
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client().await);
    let owner = maps.create(&create(), &config_map("owner", "1")).await.unwrap();
    let other = maps.create(&create(), &config_map("other", "1")).await.unwrap();
    let owned = |name: &str, owners: &[&ConfigMap], finalizers: &[&str]| -> ConfigMap {
        let owners: Vec<_> = owners
            .iter()
            .map(|owner| {
                json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": owner.metadata.name,
                    "uid": owner.uid().unwrap(), "blockOwnerDeletion": true })
            })
            .collect();
        parse(json!({ "metadata": { "name": name, "ownerReferences": owners, "finalizers": finalizers } }))
    };
    for map in [
        owned("plain", &[&owner], &[]),
        owned("held", &[&owner], &["example.com/hold"]),
        owned("shared", &[&owner, &other], &[]),
    ] {
        maps.create(&create(), &map).await.unwrap();
    }
    let waiting = maps
        .delete("owner", &DeleteParams::foreground())
        .await
        .unwrap()
        .left()
        .expect("it is still there");
    assert_eq!(waiting.finalizers(), ["foregroundDeletion"]);
    assert_eq!(status(maps.get("plain").await).code, 404);
    let still = |name: &'static str| {
        let maps = maps.clone();
        async move { maps.get(name).await.unwrap() }
    };
    assert!(still("held").await.metadata.deletion_timestamp.is_some());
    // What somebody else owns as well stays, and is no longer this owner's.
    let shared = still("shared").await;
    assert!(shared.metadata.deletion_timestamp.is_none());
    assert_eq!(shared.owner_references().len(), 1);
    assert_eq!(shared.owner_references()[0].name, "other");
    still("owner").await;

    let release = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    maps.patch("held", &PatchParams::default(), &release)
        .await
        .unwrap();
    assert_eq!(status(maps.get("held").await).code, 404);
    assert_eq!(status(maps.get("owner").await).code, 404);

    // Without dependents there is nothing to wait for; the last one takes its owner along at once.
    maps.create(&create(), &owned("last", &[&other], &[]))
        .await
        .unwrap();
    maps.delete("shared", &DeleteParams::foreground()).await.unwrap();
    maps.delete("other", &DeleteParams::foreground()).await.unwrap();
    for name in ["last", "other", "shared"] {
        assert_eq!(status(maps.get(name).await).code, 404);
    }
}

#[tokio::test]
async fn a_match_of_versions_needs_a_version() {
    let cluster = Cluster::start(config());
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client().await);
    let exact = ListParams {
        version_match: Some(kube::api::VersionMatch::Exact),
        ..ListParams::default()
    };
    // kube-rs refuses it by itself, so it is asked as any other client would.
    assert!(maps.list(&exact).await.is_err());
    let request = http::Request::get("/api/v1/pods?resourceVersionMatch=Exact")
        .body(Vec::new())
        .unwrap();
    let refused = maps.into_client().request_text(request).await;
    assert_eq!(status(refused).code, 400);
}

#[tokio::test]
async fn numbers_that_no_clock_counts_to_break_nothing() {
    let cluster = Cluster::start(config());
    let client = cluster.client().await;
    let watch = format!("/api/v1/pods?watch=true&timeoutSeconds={}", u64::MAX);
    let request = http::Request::get(watch).body(Vec::new()).unwrap();
    let mut lines = client.request_events::<Pod>(request).await.unwrap().boxed();
    let pods: Api<Pod> = Api::default_namespaced(client);
    let pod = json!({ "metadata": { "name": "p" }, "spec": { "nodeName": "n", "containers": [{ "name": "c", "image": "i" }] } });
    pods.create(&create(), &parse(pod)).await.unwrap();
    assert!(lines.next().await.unwrap().is_ok());
    let forever = json!({ "gracePeriodSeconds": i64::MAX });
    let request = http::Request::delete("/api/v1/namespaces/default/pods/p")
        .header("content-type", "application/json")
        .body(serde_json::to_vec(&forever).unwrap())
        .unwrap();
    pods.clone().into_client().request_text(request).await.unwrap();
    assert!(pods.get("p").await.unwrap().metadata.deletion_timestamp.is_some());
}

#[tokio::test]
async fn namespaces_are_left_to_their_controller() {
    let cluster = Cluster::start(config());
    let client = cluster.client().await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let maps: Api<ConfigMap> = Api::namespaced(client, "a");
    let missing = status(maps.create(&create(), &config_map("x", "1")).await);
    assert_eq!(
        (missing.code, missing.message.as_str()),
        (404, "namespaces \"a\" not found")
    );
    let namespace: Namespace = parse(json!({ "metadata": { "name": "a" } }));
    namespaces.create(&create(), &namespace).await.unwrap();
    maps.create(&create(), &config_map("x", "1")).await.unwrap();
    let deleted = namespaces
        .delete("a", &DeleteParams::default())
        .await
        .unwrap()
        .left()
        .unwrap();
    assert_eq!(deleted.status.unwrap().phase.unwrap(), "Terminating");
    let late = status(maps.create(&create(), &config_map("y", "1")).await);
    assert_eq!((late.code, late.reason.as_str()), (403, "Forbidden"));
    maps.delete_collection(&DeleteParams::default(), &ListParams::default())
        .await
        .unwrap();
    let finalized: Namespace = parse(json!({ "metadata": { "name": "a" }, "spec": { "finalizers": [] } }));
    namespaces
        .replace_subresource("finalize", "a", &create(), &finalized)
        .await
        .unwrap();
    assert_eq!(status(namespaces.get("a").await).code, 404);
    assert_eq!(
        status(namespaces.delete("default", &DeleteParams::default()).await).code,
        403
    );
}

#[tokio::test]
async fn events_are_the_same_in_both_their_versions() {
    let cluster = Cluster::start(config());
    let client = cluster.client().await;
    let new: Api<Event> = Api::default_namespaced(client.clone());
    let event: Event = parse(
        json!({ "metadata": { "name": "e" }, "eventTime": "2026-01-01T00:00:00.000000Z", "action": "a",
        "reason": "Tested", "note": "a note", "type": "Normal", "reportingController": "t", "reportingInstance": "i",
        "regarding": { "kind": "Pod", "name": "p", "namespace": "default" } }),
    );
    new.create(&create(), &event).await.unwrap();
    let old: Api<k8s_openapi::api::core::v1::Event> = Api::default_namespaced(client);
    let about = ListParams::default().fields("involvedObject.name=p");
    let found = old.list(&about).await.unwrap().items.remove(0);
    assert_eq!(
        (found.message.as_deref(), found.reporting_component.as_deref()),
        (Some("a note"), Some("t"))
    );
    let noted = Patch::Merge(json!({ "note": "another" }));
    let noted = new.patch("e", &PatchParams::default(), &noted).await.unwrap();
    assert_eq!(
        (
            noted.note.as_deref(),
            old.get("e").await.unwrap().message.as_deref()
        ),
        (Some("another"), Some("another"))
    );
}

#[tokio::test]
async fn shutdown_ends_watches_and_connections() {
    let cluster = Cluster::start(config());
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client().await);
    let events = maps.watch(&WatchParams::default(), "0").await.unwrap();
    cluster.server.shutdown().await;
    let ended = tokio::time::timeout(Duration::from_secs(5), events.collect::<Vec<_>>()).await;
    assert!(ended.is_ok(), "the watch ends with its server");
    assert!(maps.list(&ListParams::default()).await.is_err());
}
