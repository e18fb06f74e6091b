// SPDX-License-Identifier: Apache-2.0
//! Patches, of all kinds.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};
use serde_json::Value;

use super::update::Change;
use super::{Context, WriteOptions, Written, body, create};
use crate::convert;
use crate::crd;
use crate::fields::Parsed;
use crate::http::Body;
use crate::patch::managed::Identity;
use crate::patch::shape::Shape;
use crate::patch::{self, Kind, apply, merge, strategic};
use crate::status::{ApiError, Result};
use crate::store::{Object, Txn};
use crate::value::Json;

pub(super) fn handle(context: &Context, body: &Bytes) -> Result<Response<Body>> {
    let content_type = context.head.header(CONTENT_TYPE);
    let kind = Kind::of(content_type).filter(|k| *k != Kind::Strategic || context.resource.custom.is_none());
    let kind = kind.ok_or_else(|| unsupported(context, content_type))?;
    let options = context.write_options()?;
    let parsed = body::parse(content_type, body)?;
    let mut txn = context.server.store.write(options.dry);
    let old = txn.get(&context.resource.storage, &context.key());
    let written = if kind == Kind::Apply {
        apply_patch(context, &mut txn, old.as_ref(), parsed, &options)?
    } else {
        let old = old.ok_or_else(|| context.not_found())?;
        modify(context, &mut txn, &old, kind, parsed, &options)?
    };
    drop(txn);
    context.respond(&written)
}

fn unsupported(context: &Context, content_type: &str) -> ApiError {
    let strategic = if context.resource.custom.is_none() {
        ", application/strategic-merge-patch+json"
    } else {
        ""
    };
    let supported = format!(
        "application/json-patch+json, application/merge-patch+json{strategic}, application/apply-patch+yaml"
    );
    ApiError::unsupported_media(content_type, &supported)
}

/// A JSON, merge or strategic merge patch of an object that is there.
fn modify(
    context: &Context,
    txn: &mut Txn<'_>,
    old: &Arc<Object>,
    kind: Kind,
    parsed: Parsed,
    options: &WriteOptions,
) -> Result<Written> {
    let mut new = old.value();
    convert::outward(&context.resource, &mut new);
    match kind {
        Kind::Json => patch::json(&mut new, parsed.value)?,
        Kind::Merge => merge::merge(&mut new, parsed.value),
        Kind::Strategic | Kind::Apply => {
            strategic::merge(&mut new, parsed.value, Shape::of(&context.resource))?
        }
    }
    body::check_kind(&context.resource, &new)?;
    let warnings = body::conform(
        &context.resource,
        &mut new,
        &parsed.duplicates,
        options.validation,
    )?;
    convert::inward(&context.resource, &mut new);
    let object = Change::of(context, options, false).commit(txn, old, new)?;
    Ok(Written {
        status: StatusCode::OK,
        object,
        warnings,
    })
}

/// Server-side apply, to an object that may not be there yet.
fn apply_patch(
    context: &Context,
    txn: &mut Txn<'_>,
    old: Option<&Arc<Object>>,
    parsed: Parsed,
    options: &WriteOptions,
) -> Result<Written> {
    if context.head.query.get("fieldManager").is_none() {
        return Err(ApiError::bad_request(
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ));
    }
    let resource = &context.resource;
    let mut config = parsed.value;
    body::check_kind(resource, &config)?;
    check_identity(context, &config)?;
    apply::check_config(&config)?;
    let warnings = body::conform(resource, &mut config, &parsed.duplicates, options.validation)?;
    let subresource = context.target.subresource.as_deref().unwrap_or_default();
    reset_fields(resource.status, subresource, &mut config);
    let mut live = old.map_or(Value::Null, |o| o.value());
    if old.is_some() {
        convert::outward(resource, &mut live);
    } else if !subresource.is_empty() {
        return Err(context.not_found());
    }
    let api_version = resource.api_version();
    let who = Identity {
        manager: &options.manager,
        apply: true,
        api_version: &api_version,
        subresource,
    };
    let mut new = apply::apply(&live, &config, Shape::of(resource), &who, options.force)?;
    convert::inward(resource, &mut new);
    match old {
        Some(old) => {
            let object = Change::of(context, options, true).commit(txn, old, new)?;
            Ok(Written {
                status: StatusCode::OK,
                object,
                warnings,
            })
        }
        None => {
            let namespace = context.target.namespace.as_deref();
            let object = create::create_in(txn, resource, namespace, new, options)?;
            if !options.dry {
                crd::after_write(&context.server, txn, resource, &object);
            }
            Ok(Written {
                status: StatusCode::CREATED,
                object,
                warnings,
            })
        }
    }
}

/// An applied configuration has to say what it is.
fn check_identity(context: &Context, config: &Value) -> Result<()> {
    let path_name = context.target.name.as_deref().unwrap_or_default();
    let name = config.meta_str("name");
    if config.str_at("/kind").is_empty() || config.str_at("/apiVersion").is_empty() {
        return Err(ApiError::bad_request(
            "an applied object has to have an apiVersion and a kind",
        ));
    }
    if !name.is_empty() && name != path_name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({path_name})"
        )));
    }
    Ok(())
}

/// What cannot be set at this place is neither set nor owned.
fn reset_fields(has_status: bool, subresource: &str, config: &mut Value) {
    let path_parts = config.map_mut();
    if subresource == "status" {
        path_parts.retain(|k, _| matches!(k.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
    } else if has_status {
        path_parts.remove("status");
    }
}
