// SPDX-License-Identifier: Apache-2.0
//! The `scale` subresource.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::update::Change;
use super::{Context, body, plain};
use crate::http::Body;
use crate::patch::{self, Kind, merge};
use crate::resources::ScalePaths;
use crate::status::{ApiError, FieldError, Result};
use crate::value::Json;

pub(super) fn get(context: &Context) -> Result<Response<Body>> {
    let object = context
        .server
        .store
        .get(&context.resource.storage, &context.key());
    let value = object.ok_or_else(|| context.not_found())?.value();
    Ok(plain(StatusCode::OK, &scale_of(&value, paths(context)?)))
}

pub(super) fn put(context: &Context, body: &Bytes) -> Result<Response<Body>> {
    let wanted = body::parse(context.head.header(CONTENT_TYPE), body)?.value;
    change(context, |_| Ok(wanted))
}

pub(super) fn patch(context: &Context, body: &Bytes) -> Result<Response<Body>> {
    let content_type = context.head.header(CONTENT_TYPE);
    let kind = Kind::of(content_type).filter(|k| *k != Kind::Apply);
    let kind =
        kind.ok_or_else(|| ApiError::unsupported_media(content_type, "application/merge-patch+json"))?;
    let patch = body::parse(content_type, body)?.value;
    change(context, |mut scale| {
        match kind {
            Kind::Json => patch::json(&mut scale, patch)?,
            // A Scale has no lists, so the two are the same.
            Kind::Merge | Kind::Strategic | Kind::Apply => merge::merge(&mut scale, patch),
        }
        Ok(scale)
    })
}

fn paths(context: &Context) -> Result<&ScalePaths> {
    context.resource.scale.as_ref().ok_or_else(ApiError::no_such_path)
}

fn change(context: &Context, wanted: impl FnOnce(Value) -> Result<Value>) -> Result<Response<Body>> {
    let (options, paths) = (context.write_options()?, paths(context)?);
    let mut txn = context.server.store.write(options.dry);
    let old = txn
        .get(&context.resource.storage, &context.key())
        .ok_or_else(|| context.not_found())?;
    let mut new = old.value();
    let wanted = wanted(scale_of(&new, paths))?;
    let replicas = wanted.at("/spec/replicas").as_i64().unwrap_or(0);
    if replicas < 0 {
        let error = FieldError::invalid(
            "spec.replicas",
            &json!(replicas),
            "must be greater than or equal to 0",
        );
        return Err(ApiError::invalid("Scale", "autoscaling", &old.key.name, &[error]));
    }
    set(&mut new, &paths.spec, replicas.into());
    new["metadata"]["resourceVersion"] = wanted.meta("resourceVersion").clone();
    let change = Change {
        subresource: "",
        ..Change::of(context, &options, false)
    };
    let object = change.commit(&mut txn, &old, new)?;
    drop(txn);
    Ok(plain(StatusCode::OK, &scale_of(&object.value(), paths)))
}

/// Sets the value at a JSON pointer, making the maps on the way.
fn set(value: &mut Value, pointer: &str, to: Value) {
    let mut place = value;
    for segment in pointer.split('/').skip(1) {
        place = place.map_mut().entry(segment).or_insert(Value::Null);
    }
    *place = to;
}

fn scale_of(object: &Value, paths: &ScalePaths) -> Value {
    let mut metadata = json!({});
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if !object.meta(key).is_null() {
            metadata[key] = object.meta(key).clone();
        }
    }
    let selector = paths.selector.as_ref().map(|p| selector_text(object.at(p)));
    let mut scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": { "replicas": object.at(&paths.spec).as_i64().unwrap_or(0) },
        "status": { "replicas": object.at(&paths.status).as_i64().unwrap_or(0) },
    });
    if let Some(selector) = selector {
        scale["status"]["selector"] = selector.into();
    }
    scale
}

/// A label selector as text: `a=b,c in (d,e)`.
fn selector_text(selector: &Value) -> String {
    if let Some(text) = selector.as_str() {
        return text.to_owned();
    }
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    let mut parts: Vec<String> = labels
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    for expression in selector.list_at("/matchExpressions") {
        let key = expression.str_at("/key");
        let values: Vec<&str> = expression
            .list_at("/values")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        parts.push(match expression.str_at("/operator") {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    parts.join(",")
}
