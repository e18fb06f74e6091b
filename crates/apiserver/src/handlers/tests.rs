// SPDX-License-Identifier: Apache-2.0
//! No request, whatever it says, may bring the server down: it lives in the lab's process.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Context, create, delete, patch, read, scale, update};
use crate::config::{Config, ServiceCidrs};
use crate::http::query::Query;
use crate::http::route::{Route, Target};
use crate::http::{Body, Head};
use crate::server::Server;
use crate::status::Result;

fn server() -> Arc<Server> {
    let cidrs = ServiceCidrs::Dual("10.96.0.0/24".parse().unwrap(), "fd00::/112".parse().unwrap());
    let server = Arc::new(Server::new(Config::new("t", cidrs)).unwrap());
    call(
        &server,
        Method::POST,
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        "",
        &seeds()[7].1,
    )
    .unwrap();
    server
}

fn call(
    server: &Arc<Server>,
    method: Method,
    path: &str,
    content_type: &str,
    body: &Value,
) -> Result<Response<Body>> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let Some(Route::Resource(target)) = Route::parse(path) else {
        panic!("{path}")
    };
    let Target {
        group,
        version,
        plural,
        ..
    } = &target;
    let resource = server
        .registry
        .load()
        .find(group, version, plural)
        .unwrap()
        .clone();
    let mut headers = HeaderMap::new();
    headers.extend(
        HeaderValue::from_str(content_type)
            .ok()
            .map(|t| (http::header::CONTENT_TYPE, t)),
    );
    let head = Head {
        method: method.clone(),
        headers,
        query: Query::parse(query),
    };
    let is_scale = target.subresource.as_deref() == Some("scale");
    let context = Context {
        server: server.clone(),
        resource,
        target,
        head,
    };
    let body = Bytes::from(body.to_string());
    match method {
        Method::POST => create::handle(&context, &body),
        Method::PUT if is_scale => scale::put(&context, &body),
        Method::PUT => update::handle(&context, &body),
        Method::PATCH => patch::handle(&context, &body),
        Method::DELETE => delete::handle(&context, &body),
        _ => read::get(&context),
    }
}

/// An object of each interesting kind, and where it is created.
fn seeds() -> Vec<(&'static str, Value)> {
    let template = json!({ "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [{ "name": "c", "image": "x",
        "ports": [{ "containerPort": 80, "name": "p" }], "env": [{ "name": "E", "value": "1" }],
        "resources": { "limits": { "cpu": "1" } }, "readinessProbe": { "httpGet": { "port": 80 } } }] } });
    let spec = json!({ "replicas": 1, "selector": { "matchLabels": { "a": "b" } }, "template": template });
    vec![
        (
            "/api/v1/namespaces/default/pods",
            json!({ "metadata": { "name": "a", "labels": { "a": "b" } }, "spec": template["spec"] }),
        ),
        (
            "/api/v1/namespaces/default/services",
            json!({ "metadata": { "name": "a" }, "spec": { "type": "LoadBalancer",
            "externalTrafficPolicy": "Local", "ipFamilyPolicy": "PreferDualStack", "sessionAffinity": "ClientIP",
            "ports": [{ "name": "p", "port": 80, "nodePort": 30000 }, { "name": "q", "port": 80, "protocol": "UDP" }] } }),
        ),
        (
            "/apis/apps/v1/namespaces/default/deployments",
            json!({ "metadata": { "name": "a" }, "spec": spec }),
        ),
        (
            "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies",
            json!({ "metadata": { "name": "a" },
            "spec": { "podSelector": {}, "ingress": [{ "from": [{ "ipBlock": { "cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"] } }],
            "ports": [{ "port": 1, "endPort": 2 }] }] } }),
        ),
        (
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
            json!({ "metadata": { "name": "a",
            "ownerReferences": [{ "apiVersion": "v1", "kind": "S", "name": "s", "uid": "u" }] }, "addressType": "IPv4",
            "endpoints": [{ "addresses": ["10.0.0.1"] }], "ports": [{ "port": 80 }] }),
        ),
        (
            "/api/v1/nodes",
            json!({ "metadata": { "name": "a" }, "spec": { "podCIDR": "10.1.0.0/24" },
            "status": { "addresses": [{ "type": "InternalIP", "address": "10.0.0.1" }] } }),
        ),
        (
            "/api/v1/namespaces/default/secrets",
            json!({ "metadata": { "name": "a" }, "stringData": { "a": "b" } }),
        ),
        (
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            json!({ "metadata": { "name": "ws.example.com" },
            "spec": { "group": "example.com", "scope": "Namespaced", "names": { "kind": "W", "plural": "ws" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "subresources": { "status": {}, "scale":
                { "specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size" } },
            "schema": { "openAPIV3Schema": { "type": "object", "properties": { "spec": { "type": "object", "properties": {
                "size": { "type": "integer" }, "list": { "type": "array", "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["k"], "items": { "type": "object", "properties": { "k": { "type": "string" } } } } } },
                "status": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } } } } }] } }),
        ),
        (
            "/apis/example.com/v1/namespaces/default/ws",
            json!({ "metadata": { "name": "a", "finalizers": ["x"] },
            "spec": { "size": 1, "list": [{ "k": "v" }] }, "status": {} }),
        ),
        (
            "/apis/events.k8s.io/v1/namespaces/default/events",
            json!({ "metadata": { "name": "a" }, "note": "n", "regarding": {} }),
        ),
        ("/api/v1/namespaces", json!({ "metadata": { "name": "a" } })),
    ]
}

/// Puts another value somewhere into an object.
fn mutate(value: &mut Value, path: &[prop::sample::Index], replacement: Value) {
    let size = |v: &Value| v.as_object().map_or(0, |m| m.len()) + v.as_array().map_or(0, Vec::len);
    let Some((index, rest)) = path.split_first().filter(|_| size(value) > 0) else {
        *value = replacement;
        return;
    };
    let nth = index.index(size(value));
    if let Some(map) = value.as_object_mut() {
        mutate(map.values_mut().nth(nth).unwrap(), rest, replacement);
    } else {
        mutate(&mut value[nth], rest, replacement);
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!({})),
        Just(json!([])),
        Just(json!([null, {}, [], "x"])),
        Just(json!({ "": null, "name": 1, "$patch": "delete", "$patch/": {}, "$setElementOrder/x": 1 })),
        Just(json!({ "$patch": "replace" })),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop::sample::select(vec![
            "",
            "a",
            "None",
            "ExternalName",
            "Ünïcode",
            "10.96.0.9",
            "fd00::9",
            "/",
            "v1"
        ])
        .prop_map(Value::from),
    ]
}

const PATCHES: [&str; 4] = [
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "application/json",
];

#[test]
fn good_objects_are_created_scaled_and_deleted() {
    let server = server();
    for (collection, object) in seeds().iter().filter(|(_, o)| o["metadata"]["name"] == "a") {
        let created = call(&server, Method::POST, collection, "", object).unwrap();
        assert_eq!(created.status(), 201, "{collection}");
        let path = format!("{collection}/a");
        if collection.ends_with("ws") || collection.ends_with("deployments") {
            let scaled = json!({ "spec": { "replicas": 3 } });
            call(&server, Method::PUT, &format!("{path}/scale"), "", &scaled).unwrap();
        }
        let add = json!([{ "op": "add", "path": "/metadata/annotations", "value": { "a": "b" } }]);
        call(&server, Method::PATCH, &path, "application/json-patch+json", &add).unwrap();
        call(&server, Method::DELETE, &path, "", &Value::Null).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_body_brings_the_server_down(
        seed in any::<prop::sample::Index>(),
        changes in prop::collection::vec((prop::collection::vec(any::<prop::sample::Index>(), 1..9), any_value()), 1..4),
    ) {
        let server = server();
        let all = seeds();
        let (collection, object) = &all[seed.index(all.len())];
        let object_path = format!("{collection}/{}", object["metadata"]["name"].as_str().unwrap());
        let mut changed = object.clone();
        for (path, replacement) in &changes {
            mutate(&mut changed, path, replacement.clone());
        }
        // First the changed object alone, then as a change of the good one; what comes of it is the server's business.
        let _ = call(&server, Method::POST, collection, "", &changed);
        let _ = call(&server, Method::DELETE, &object_path, "", &changed);
        let _ = call(&server, Method::POST, collection, "", object);
        for suffix in ["", "/status"] {
            let path = format!("{object_path}{suffix}");
            let _ = call(&server, Method::PUT, &path, "", &changed);
            for content_type in PATCHES {
                let mut typed = changed.clone();
                if typed.is_object() && content_type.contains("apply") {
                    let kind = server.registry.load();
                    let Some(Route::Resource(t)) = Route::parse(collection) else { unreachable!() };
                    let resource = kind.find(&t.group, &t.version, &t.plural).map(|r| (r.api_version(), r.kind.clone()));
                    if let Some((version, kind)) = resource {
                        typed["apiVersion"] = version.into();
                        typed["kind"] = kind.into();
                    }
                }
                let _ = call(&server, Method::PATCH, &format!("{path}?fieldManager=m&force=true&fieldValidation=Ignore"), content_type, &typed);
            }
        }
        let replace_all = json!([{ "op": "replace", "path": "", "value": changed }]);
        let _ = call(&server, Method::PATCH, &object_path, "application/json-patch+json", &replace_all);
        let _ = call(&server, Method::GET, &object_path, "", &Value::Null);
        let _ = call(&server, Method::DELETE, &object_path, "", &Value::Null);
    }

    #[test]
    fn no_bytes_bring_the_decoders_down(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = crate::fields::from_json(&bytes);
        let _ = crate::fields::from_yaml(&bytes);
        let _ = crate::protobuf::decode(&bytes);
        let meta = [&[10, 2][..], b"v1", &[18, 3], b"Pod"].concat();
        let envelope = [&b"k8s\0"[..], &[10, u8::try_from(meta.len()).unwrap()], &meta, &[18, u8::try_from(bytes.len()).unwrap_or(0)], &bytes];
        let _ = crate::protobuf::decode(&envelope.concat());
        let text = String::from_utf8_lossy(&bytes);
        let _ = Route::parse(&text);
        let _ = crate::crd::jsonpath::select(&json!({ "a": [1] }), &text);
    }
}
