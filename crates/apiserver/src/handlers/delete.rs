// SPDX-License-Identifier: Apache-2.0
//! Deletion: graceful for pods that run, pending while there are finalizers, cascading to what the object owned.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{Context, body, plain, read};
use crate::http::{Body, bytes_response};
use crate::resources::Resource;
use crate::server::Server;
use crate::status::{ApiError, Result};
use crate::store::{Object, Txn};
use crate::value::Json;
use crate::view::ListMeta;
use crate::{crd, time};

/// Namespaces that every cluster has.
const IMMORTAL_NAMESPACES: [&str; 3] = ["default", "kube-system", "kube-public"];

/// The finalizer of an owner that waits for its dependents to go.
const FOREGROUND: &str = "foregroundDeletion";

/// What the caller wants of a deletion.
#[derive(Debug, Clone, Default)]
pub(super) struct DeleteOptions {
    grace: Option<i64>,
    uid: Option<String>,
    revision: Option<String>,
    orphan: bool,
    foreground: bool,
    dry: bool,
}

impl DeleteOptions {
    /// From the body, where there is one, else from the query.
    fn of(context: &Context, bytes: &Bytes) -> Result<Self> {
        let query = &context.head.query;
        let parsed = if bytes.is_empty() {
            Value::Null
        } else {
            body::parse(context.head.header(CONTENT_TYPE), bytes)?.value
        };
        Self::from_value(
            &parsed,
            query.get("propagationPolicy"),
            query.get("gracePeriodSeconds"),
            query.get("dryRun"),
        )
    }

    pub(super) fn from_value(
        body: &Value,
        policy: Option<&str>,
        grace: Option<&str>,
        dry: Option<&str>,
    ) -> Result<Self> {
        let policy = body["propagationPolicy"]
            .as_str()
            .or(policy)
            .unwrap_or("Background");
        if !matches!(policy, "Background" | "Foreground" | "Orphan") {
            return Err(ApiError::bad_request(format!(
                "propagationPolicy: Unsupported value: {policy:?}"
            )));
        }
        let grace = body["gracePeriodSeconds"]
            .as_i64()
            .or_else(|| grace.and_then(|g| g.parse().ok()));
        let text = |pointer| body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        Ok(Self {
            grace: grace.map(|g| g.max(0)),
            uid: text("/preconditions/uid"),
            revision: text("/preconditions/resourceVersion"),
            foreground: policy == "Foreground",
            orphan: policy == "Orphan" || body["orphanDependents"] == true,
            dry: body.list_at("/dryRun").iter().any(|d| d == "All") || dry == Some("All"),
        })
    }
}

pub(super) fn handle(context: &Context, body: &Bytes) -> Result<Response<Body>> {
    let options = DeleteOptions::of(context, body)?;
    let (object, gone) = delete_named(context, &options)?;
    if !gone || context.resource.is("pods") {
        return Ok(bytes_response(StatusCode::OK, context.view()?.single(&object)));
    }
    let value = object.value();
    let details = json!({ "name": value.meta_str("name"), "group": context.resource.group,
        "kind": context.resource.plural, "uid": value.meta_str("uid") });
    let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details });
    Ok(plain(StatusCode::OK, &status))
}

/// Deletes the object that the path names; whether it is gone already.
pub(super) fn delete_named(context: &Context, options: &DeleteOptions) -> Result<(Arc<Object>, bool)> {
    let mut txn = context.server.store.write(options.dry);
    let object = txn
        .get(&context.resource.storage, &context.key())
        .ok_or_else(|| context.not_found())?;
    delete(&context.server, &mut txn, &context.resource, &object, options)
}

pub(super) fn collection(context: &Context, body: &Bytes) -> Result<Response<Body>> {
    let options = DeleteOptions::of(context, body)?;
    let (scope, view) = (read::scope(context)?, context.view()?);
    let snapshot = context.server.store.snapshot(&context.resource.storage);
    let mut deleted = Vec::new();
    for object in read::select(&snapshot, &scope, None) {
        // One write each, so that readers get their turn.
        let mut txn = context.server.store.write(options.dry);
        if let Some(object) = txn.get(&context.resource.storage, &object.key) {
            deleted.push(delete(&context.server, &mut txn, &context.resource, &object, &options)?.0);
        }
    }
    let meta = ListMeta {
        revision: context.server.store.revision(),
        ..ListMeta::default()
    };
    Ok(bytes_response(StatusCode::OK, view.list(deleted.iter(), &meta)))
}

/// Deletes an object: marks it, or removes it at once when nothing holds it.
fn delete(
    server: &Server,
    txn: &mut Txn<'_>,
    resource: &Arc<Resource>,
    object: &Arc<Object>,
    options: &DeleteOptions,
) -> Result<(Arc<Object>, bool)> {
    let mut value = object.value();
    check_preconditions(resource, &value, options)?;
    if resource.is("namespaces") && IMMORTAL_NAMESPACES.contains(&value.meta_str("name")) {
        return Err(ApiError::forbidden(
            "namespaces",
            value.meta_str("name"),
            "this namespace may not be deleted",
        ));
    }
    if options.orphan {
        orphan_dependents(server, txn, &value);
    }
    let grace = grace(resource, &value, options);
    let before = value.clone();
    if options.foreground {
        await_dependents(server, txn, &mut value);
    }
    mark(resource, &mut value, grace);
    if finished(resource, &value) {
        return Ok((remove(server, txn, resource, value), true));
    }
    if value == before {
        return Ok((object.clone(), false));
    }
    let uid = value.meta_str("uid").to_owned();
    let marked = txn.put(resource, value);
    if options.foreground && !txn.dry() {
        delete_dependents(server, txn, &uid);
        // The last of them may have taken it along.
        return Ok(match txn.get(&resource.storage, &marked.key) {
            Some(left) if left.uid == marked.uid => (left, false),
            _ => (marked, true),
        });
    }
    Ok((marked, false))
}

/// Keeps an owner until those of its dependents are gone that it must not go before.
fn await_dependents(server: &Server, txn: &Txn<'_>, value: &mut Value) {
    let uid = value.meta_str("uid");
    let waits = dependents(server, txn, uid)
        .iter()
        .any(|(_, dependent)| blocks(&dependent.value(), uid));
    let finalizers = value.list_at("/metadata/finalizers");
    if waits && !finalizers.iter().any(|finalizer| finalizer == FOREGROUND) {
        let mut finalizers = finalizers.to_vec();
        finalizers.push(FOREGROUND.into());
        value["metadata"]["finalizers"] = finalizers.into();
    }
}

/// Whether an object keeps this owner of it from going before it.
fn blocks(dependent: &Value, owner: &str) -> bool {
    let mut owners = dependent.list_at("/metadata/ownerReferences").iter();
    owners.any(|reference| reference["uid"] == owner && reference["blockOwnerDeletion"] == true)
}

/// Deletes in the foreground what nobody but this owner has.
fn delete_dependents(server: &Server, txn: &mut Txn<'_>, owner: &str) {
    let options = DeleteOptions {
        foreground: true,
        ..DeleteOptions::default()
    };
    for (resource, object) in dependents(server, txn, owner) {
        if is_anothers(txn, &object, owner) {
            disown(txn, &resource, &object, owner);
        } else {
            // Preconditions are not asked for, so nothing can be refused but an immortal namespace, which stays.
            let _ = delete(server, txn, &resource, &object, &options);
        }
    }
}

/// Whether an object has another owner than this one.
fn is_anothers(txn: &Txn<'_>, object: &Object, owner: &str) -> bool {
    object
        .owners
        .iter()
        .any(|other| &**other != owner && txn.uid_exists(other))
}

/// Lets owners go that waited for this dependent alone.
fn release_owners(server: &Server, txn: &mut Txn<'_>, dependent: &Object) {
    for uid in &dependent.owners {
        let waits = dependents(server, txn, uid)
            .iter()
            .any(|(_, other)| blocks(&other.value(), uid));
        let owner = txn.by_uid(uid).filter(|_| !waits);
        let Some((storage, key)) = owner else { continue };
        let registry = server.registry.load();
        let resource = registry
            .iter()
            .find(|r| r.storage == storage && !r.converted())
            .cloned();
        let Some((resource, object)) = resource.zip(txn.get(&storage, &key)) else {
            continue;
        };
        let mut value = object.value();
        let finalizers = value.list_at("/metadata/finalizers");
        let kept: Vec<Value> = finalizers.iter().filter(|f| *f != FOREGROUND).cloned().collect();
        if !value.deleting() || kept.len() == finalizers.len() {
            continue;
        }
        value["metadata"]["finalizers"] = kept.into();
        if finished(&resource, &value) {
            remove(server, txn, &resource, value);
        } else {
            txn.put(&resource, value);
        }
    }
}

fn check_preconditions(resource: &Resource, value: &Value, options: &DeleteOptions) -> Result<()> {
    let mismatch = |what: &str, wanted: &Option<String>, is: &str| match wanted {
        Some(wanted) if wanted != is => Err(ApiError::conflict(
            &resource.group_resource,
            value.meta_str("name"),
            format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {is}"),
        )),
        _ => Ok(()),
    };
    mismatch("UID", &options.uid, value.meta_str("uid"))?;
    mismatch(
        "ResourceVersion",
        &options.revision,
        value.meta_str("resourceVersion"),
    )
}

/// The seconds that a pod on a node has to end; nothing else is given any.
fn grace(resource: &Resource, value: &Value, options: &DeleteOptions) -> i64 {
    let running = !value.str_at("/spec/nodeName").is_empty()
        && !matches!(value.str_at("/status/phase"), "Succeeded" | "Failed");
    if !resource.is("pods") || !running {
        return 0;
    }
    let default = value
        .at("/spec/terminationGracePeriodSeconds")
        .as_i64()
        .unwrap_or(30);
    options.grace.unwrap_or(default)
}

/// Sets what says that an object is being deleted. A second deletion can only make it quicker.
fn mark(resource: &Resource, value: &mut Value, grace: i64) {
    let already = value.deleting();
    let sooner = value
        .meta("deletionGracePeriodSeconds")
        .as_i64()
        .is_none_or(|g| grace < g);
    if !already || (resource.is("pods") && sooner) {
        value["metadata"]["deletionTimestamp"] = time::in_seconds(grace).into();
        value["metadata"]["deletionGracePeriodSeconds"] = grace.into();
        if resource.generation {
            let generation = value.meta("generation").as_u64().unwrap_or(0) + 1;
            value["metadata"]["generation"] = generation.into();
        }
    }
    if resource.is("namespaces") {
        value["status"]["phase"] = "Terminating".into();
    }
}

/// Whether an object that is being deleted is held by nothing any more.
pub(super) fn finished(resource: &Resource, value: &Value) -> bool {
    value.deleting()
        && value.list_at("/metadata/finalizers").is_empty()
        && (!resource.is("pods") || value.meta("deletionGracePeriodSeconds").as_i64().unwrap_or(0) == 0)
        && (!resource.is("namespaces") || value.list_at("/spec/finalizers").is_empty())
}

/// Removes an object and deletes what it owned.
pub(super) fn remove(
    server: &Server,
    txn: &mut Txn<'_>,
    resource: &Arc<Resource>,
    value: Value,
) -> Arc<Object> {
    let uid = value.meta_str("uid").to_owned();
    let last = txn.remove(resource, value);
    if txn.dry() {
        return last;
    }
    crd::after_remove(server, txn, resource, &last);
    for (dependent_resource, object) in dependents(server, txn, &uid) {
        if !is_anothers(txn, &object, &uid) {
            // Preconditions are not asked for, so nothing can be refused but an immortal namespace, which stays.
            let _ = delete(
                server,
                txn,
                &dependent_resource,
                &object,
                &DeleteOptions::default(),
            );
        }
    }
    release_owners(server, txn, &last);
    last
}

fn dependents(server: &Server, txn: &Txn<'_>, uid: &str) -> Vec<(Arc<Resource>, Arc<Object>)> {
    let registry = server.registry.load();
    let resolve = |(storage, key): (Arc<str>, crate::store::Key)| {
        let object = txn.get(&storage, &key)?;
        let resource = registry.iter().find(|r| r.storage == storage && !r.converted())?;
        Some((resource.clone(), object))
    };
    txn.dependents(uid).into_iter().filter_map(resolve).collect()
}

/// Makes an object's dependents nobody's.
fn orphan_dependents(server: &Server, txn: &mut Txn<'_>, owner: &Value) {
    let uid = owner.meta_str("uid");
    for (resource, object) in dependents(server, txn, uid) {
        disown(txn, &resource, &object, uid);
    }
}

/// Removes an owner from an object.
fn disown(txn: &mut Txn<'_>, resource: &Resource, object: &Object, owner: &str) {
    let mut value = object.value();
    if let Some(owners) = value
        .pointer_mut("/metadata/ownerReferences")
        .and_then(Value::as_array_mut)
    {
        owners.retain(|o| o["uid"] != owner);
    }
    txn.put(resource, value);
}
