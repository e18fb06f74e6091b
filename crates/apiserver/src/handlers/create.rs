// SPDX-License-Identifier: Apache-2.0
//! Creation.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{Context, WriteOptions, Written, body};
use crate::admission::{self, names};
use crate::http::Body;
use crate::patch::managed::{Identity, track_update};
use crate::patch::shape::Shape;
use crate::resources::Resource;
use crate::server::Server;
use crate::status::{ApiError, Result};
use crate::store::{Key, Object, Txn};
use crate::value::Json;
use crate::{convert, crd, time};

/// How often a generated name may be taken already.
const NAME_ATTEMPTS: usize = 8;

pub(super) fn handle(context: &Context, body: &Bytes) -> Result<Response<Body>> {
    let options = context.write_options()?;
    let mut decoded = body::object(context, body, options.validation)?;
    let (resource, namespace) = (&context.resource, context.target.namespace.as_deref());
    if resource.namespaced && namespace.is_none() {
        return Err(ApiError::method_not_allowed());
    }
    convert::inward(resource, &mut decoded.value);
    let object = create(&context.server, resource, namespace, decoded.value, &options)?;
    context.respond(&Written {
        status: StatusCode::CREATED,
        object,
        warnings: decoded.warnings,
    })
}

/// Creates an object that is one of its kind already.
pub(crate) fn create(
    server: &Server,
    resource: &Arc<Resource>,
    namespace: Option<&str>,
    value: Value,
    options: &WriteOptions,
) -> Result<Arc<Object>> {
    let mut txn = server.store.write(options.dry);
    let object = create_in(&mut txn, resource, namespace, value, options)?;
    if !options.dry {
        crd::after_write(server, &mut txn, resource, &object);
    }
    Ok(object)
}

/// Creates an object within a write that is under way.
pub(super) fn create_in(
    txn: &mut Txn<'_>,
    resource: &Arc<Resource>,
    namespace: Option<&str>,
    mut value: Value,
    options: &WriteOptions,
) -> Result<Arc<Object>> {
    place(resource, namespace, &mut value)?;
    name(txn, resource, &mut value)?;
    let key = Key::of(&value);
    check_namespace(txn, resource, &key)?;
    if txn.get(&resource.storage, &key).is_some() {
        return Err(ApiError::already_exists(&resource.group_resource, &key.name));
    }
    if !value.meta_str("resourceVersion").is_empty() {
        return Err(ApiError::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    set_system_metadata(resource, &mut value)?;
    admission::default_new(resource, &mut value);
    // The writer owns what it wrote and its defaults, but not what the server adds.
    if value.meta("managedFields").is_null() {
        let api_version = resource.api_version();
        let who = Identity {
            manager: &options.manager,
            apply: false,
            api_version: &api_version,
            subresource: "",
        };
        track_update(&Value::Null, &mut value, Shape::of(resource), &who);
    }
    admission::begin(resource, &mut value);
    admission::allocate(txn, resource, &mut value, None)?;
    admission::validate(resource, &value, None)?;
    Ok(txn.put(resource, value))
}

/// The path's namespace and the object's have to agree.
fn place(resource: &Resource, namespace: Option<&str>, value: &mut Value) -> Result<()> {
    let own = value.meta_str("namespace").to_owned();
    let metadata = value["metadata"].map_mut();
    match namespace {
        Some(namespace) if resource.namespaced => {
            if !own.is_empty() && own != namespace {
                return Err(ApiError::bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request",
                ));
            }
            metadata.insert("namespace".into(), namespace.into());
        }
        _ => drop(metadata.remove("namespace")),
    }
    Ok(())
}

fn name(txn: &Txn<'_>, resource: &Resource, value: &mut Value) -> Result<()> {
    if !value.meta_str("name").is_empty() {
        return Ok(());
    }
    let base = value.meta_str("generateName").to_owned();
    if base.is_empty() {
        return Err(admission::name_required(resource));
    }
    for _ in 0..NAME_ATTEMPTS {
        value["metadata"]["name"] = names::generate(&base).into();
        if txn.get(&resource.storage, &Key::of(value)).is_none() {
            return Ok(());
        }
    }
    Ok(())
}

/// Nothing is created in a namespace that is missing or on its way out.
fn check_namespace(txn: &Txn<'_>, resource: &Resource, key: &Key) -> Result<()> {
    if key.namespace.is_empty() {
        return Ok(());
    }
    let namespace = txn.get("namespaces", &Key::new("", &key.namespace));
    let namespace = namespace.ok_or_else(|| ApiError::not_found("namespaces", &key.namespace))?;
    if namespace.value().deleting() {
        return Err(ApiError::namespace_terminating(
            &resource.group_resource,
            &key.name,
            &key.namespace,
        ));
    }
    Ok(())
}

fn set_system_metadata(resource: &Resource, value: &mut Value) -> Result<()> {
    let uid = names::uid().map_err(|e| ApiError::internal(format!("no randomness for a uid: {e}")))?;
    let metadata = value["metadata"].map_mut();
    for key in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "resourceVersion",
    ] {
        metadata.remove(key);
    }
    metadata.insert("uid".into(), uid.into());
    metadata.insert("creationTimestamp".into(), time::now().into());
    if resource.generation {
        metadata.insert("generation".into(), json!(1));
    } else {
        metadata.remove("generation");
    }
    Ok(())
}
