// SPDX-License-Identifier: Apache-2.0
//! Replacing an object, and what every change of an existing object goes through.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::Value;

use super::{Context, WriteOptions, Written, body, delete};
use crate::admission;
use crate::http::Body;
use crate::patch::managed::{Identity, track_update};
use crate::patch::shape::Shape;
use crate::resources::Resource;
use crate::server::Server;
use crate::status::{ApiError, Result};
use crate::store::{Object, Txn};
use crate::value::Json;
use crate::{convert, crd};

pub(super) fn handle(context: &Context, body: &Bytes) -> Result<Response<Body>> {
    let options = context.write_options()?;
    let mut decoded = body::object(context, body, options.validation)?;
    convert::inward(&context.resource, &mut decoded.value);
    let mut txn = context.server.store.write(options.dry);
    let old = txn
        .get(&context.resource.storage, &context.key())
        .ok_or_else(|| context.not_found())?;
    let object = Change::of(context, &options, false).commit(&mut txn, &old, decoded.value)?;
    drop(txn);
    context.respond(&Written {
        status: StatusCode::OK,
        object,
        warnings: decoded.warnings,
    })
}

/// A change of an existing object.
pub(super) struct Change<'a> {
    pub(super) server: &'a Server,
    pub(super) resource: &'a Arc<Resource>,
    pub(super) subresource: &'a str,
    pub(super) options: &'a WriteOptions,
    /// By server-side apply, which has written the managers already.
    pub(super) apply: bool,
}

impl<'a> Change<'a> {
    pub(super) fn of(context: &'a Context, options: &'a WriteOptions, apply: bool) -> Self {
        Self {
            server: &context.server,
            resource: &context.resource,
            subresource: context.target.subresource.as_deref().unwrap_or_default(),
            options,
            apply,
        }
    }

    /// Makes `new` the object's state, if it may be that.
    pub(super) fn commit(
        &self,
        txn: &mut Txn<'_>,
        stored: &Arc<Object>,
        mut new: Value,
    ) -> Result<Arc<Object>> {
        let resource = self.resource;
        let old = stored.value();
        self.check_preconditions(&old, &new)?;
        self.restrict(&old, &mut new);
        carry_system_metadata(&old, &mut new);
        admission::on_update(resource, &mut new, &old);
        if !self.apply {
            let api_version = resource.api_version();
            let (manager, subresource) = (&self.options.manager, self.subresource);
            let who = Identity {
                manager,
                apply: false,
                api_version: &api_version,
                subresource,
            };
            track_update(&old, &mut new, Shape::of(resource), &who);
        }
        admission::allocate(txn, resource, &mut new, Some(&old))?;
        admission::validate(resource, &new, Some(&old))?;
        if resource.generation
            && self.subresource.is_empty()
            && desired(resource, &old) != desired(resource, &new)
        {
            let generation = old.meta("generation").as_u64().unwrap_or(0) + 1;
            new["metadata"]["generation"] = generation.into();
        }
        if new == old {
            return Ok(stored.clone());
        }
        if delete::finished(resource, &new) {
            return Ok(delete::remove(self.server, txn, resource, new));
        }
        let object = txn.put(resource, new);
        if !txn.dry() {
            crd::after_write(self.server, txn, resource, &object);
        }
        Ok(object)
    }

    fn check_preconditions(&self, old: &Value, new: &Value) -> Result<()> {
        let (resource, name) = (&self.resource.group_resource, old.meta_str("name"));
        for key in ["name", "namespace"] {
            let (was, is) = (old.meta_str(key), new.meta_str(key));
            if !is.is_empty() && is != was {
                return Err(ApiError::bad_request(format!(
                    "the {key} of the object ({is}) does not match the {key} on the URL ({was})"
                )));
            }
        }
        let uid = new.meta_str("uid");
        if !uid.is_empty() && uid != old.meta_str("uid") {
            let why = format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                old.meta_str("uid")
            );
            return Err(ApiError::conflict(resource, name, why));
        }
        let revision = new.meta_str("resourceVersion");
        if !matches!(revision, "" | "0") && revision != old.meta_str("resourceVersion") {
            return Err(ApiError::stale(resource, name));
        }
        Ok(())
    }

    /// A subresource changes its part only, and the main resource all but those parts.
    fn restrict(&self, old: &Value, new: &mut Value) {
        let keep = |new: &mut Value, key: &str| match old.get(key) {
            Some(value) => drop(new.map_mut().insert(key.into(), value.clone())),
            None => drop(new.map_mut().remove(key)),
        };
        match self.subresource {
            "" if self.resource.status => keep(new, "status"),
            "status" => {
                let members: Vec<String> = old
                    .as_object()
                    .into_iter()
                    .chain(new.as_object())
                    .flat_map(|m| m.keys().cloned())
                    .filter(|k| !matches!(k.as_str(), "status" | "metadata" | "apiVersion" | "kind"))
                    .collect();
                members.iter().for_each(|m| keep(new, m));
                if self.resource.custom.is_some() {
                    let managed = new.meta("managedFields").clone();
                    keep(new, "metadata");
                    new["metadata"]["managedFields"] = managed;
                }
            }
            "finalize" => {
                let finalizers = new.at("/spec/finalizers").clone();
                keep(new, "status");
                keep(new, "spec");
                new["spec"]["finalizers"] = finalizers;
            }
            _ => {}
        }
        if self.resource.is("namespaces") && self.subresource.is_empty() {
            // Only `finalize` changes these.
            keep(new, "spec");
        }
    }
}

/// The part of an object whose changes count as generations.
fn desired(resource: &Resource, object: &Value) -> Value {
    let mut part = object.clone();
    let map = part.map_mut();
    map.remove("metadata");
    if resource.status {
        map.remove("status");
    }
    part
}

/// What only the server sets stays as it was.
fn carry_system_metadata(old: &Value, new: &mut Value) {
    let metadata = new["metadata"].map_mut();
    for key in [
        "name",
        "namespace",
        "generateName",
        "uid",
        "creationTimestamp",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "resourceVersion",
        "selfLink",
    ] {
        let was = old.meta(key);
        if was.is_null() {
            metadata.remove(key);
        } else {
            metadata.insert(key.into(), was.clone());
        }
    }
}
