// SPDX-License-Identifier: Apache-2.0
//! What only pods have: binding, eviction, exec and log.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use super::delete::{DeleteOptions, delete_named};
use super::update::Change;
use super::{Context, body, plain};
use crate::exec;
use crate::http::Body;
use crate::http::body::stream_body;
use crate::runtime::{ExecRequest, LogRequest, PodRuntime, RuntimeError};
use crate::status::{ApiError, Result};
use crate::time;
use crate::value::Json;

fn success() -> Response<Body> {
    let status =
        json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 });
    plain(StatusCode::CREATED, &status)
}

/// The scheduler's word: this pod runs there.
pub(super) fn bind(context: &Context, body: &Bytes) -> Result<Response<Body>> {
    let options = context.write_options()?;
    let binding = body::parse(context.head.header(CONTENT_TYPE), body)?.value;
    let node = binding.str_at("/target/name");
    if node.is_empty() {
        return Err(ApiError::bad_request("target.name: Required value"));
    }
    let mut txn = context.server.store.write(options.dry);
    let old = txn
        .get(&context.resource.storage, &context.key())
        .ok_or_else(|| context.not_found())?;
    let mut pod = old.value();
    let refuse = |why: String| ApiError::conflict("pods/binding", &old.key.name, why);
    if pod.deleting() {
        return Err(refuse(format!(
            "pod {} is being deleted, cannot be assigned to a host",
            old.key.name
        )));
    }
    let taken = pod.str_at("/spec/nodeName");
    if !taken.is_empty() {
        return Err(refuse(format!(
            "pod {} is already assigned to node {taken:?}",
            old.key.name
        )));
    }
    pod["spec"]["nodeName"] = node.into();
    let scheduled = json!({ "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": time::now() });
    let mut conditions = pod.list_at("/status/conditions").to_vec();
    conditions.retain(|c| c["type"] != "PodScheduled");
    conditions.push(scheduled);
    pod["status"]["conditions"] = conditions.into();
    // A binding writes both halves of the pod.
    Change {
        subresource: "binding",
        ..Change::of(context, &options, false)
    }
    .commit(&mut txn, &old, pod)?;
    Ok(success())
}

/// A deletion by another name; disruption budgets are kept by nobody here.
pub(super) fn evict(context: &Context, body: &Bytes) -> Result<Response<Body>> {
    let eviction = body::parse(context.head.header(CONTENT_TYPE), body)?.value;
    delete_named(
        context,
        &DeleteOptions::from_value(eviction.at("/deleteOptions"), None, None, None)?,
    )?;
    Ok(success())
}

/// The pod, the container that the query names or else its first, and who runs them.
fn container(context: &Context) -> Result<(String, Arc<dyn PodRuntime>)> {
    let object = context
        .server
        .store
        .get(&context.resource.storage, &context.key());
    let pod = object.ok_or_else(|| context.not_found())?.value();
    let lists = [
        "/spec/containers",
        "/spec/initContainers",
        "/spec/ephemeralContainers",
    ];
    let mut names = lists
        .iter()
        .flat_map(|l| pod.list_at(l))
        .map(|c| c.str_at("/name"));
    let name = context.target.name.as_deref().unwrap_or_default();
    let found = match context.head.query.get("container") {
        Some(wanted) => names.find(|n| *n == wanted).ok_or_else(|| {
            ApiError::bad_request(format!("container {wanted} is not valid for pod {name}"))
        })?,
        None => names.next().unwrap_or_default(),
    };
    if pod.str_at("/spec/nodeName").is_empty() {
        return Err(ApiError::bad_request(format!(
            "pod {name} does not have a host assigned"
        )));
    }
    let runtime = context.server.config.runtime.clone();
    let runtime = runtime.ok_or_else(|| ApiError::not_implemented("this API server runs no pods"))?;
    Ok((found.to_owned(), runtime))
}

pub(super) async fn log(context: &Context) -> Result<Response<Body>> {
    let (container, runtime) = container(context)?;
    let query = &context.head.query;
    let key = context.key();
    let request = LogRequest {
        namespace: key.namespace.to_string(),
        pod: key.name.to_string(),
        container,
        follow: query.flag("follow"),
        tail_lines: query.number("tailLines")?,
        limit_bytes: query.number("limitBytes")?,
        since_seconds: query.number("sinceSeconds")?,
        timestamps: query.flag("timestamps"),
        previous: query.flag("previous"),
    };
    let stream = runtime.logs(request).await.map_err(|e| runtime_error(&e))?;
    let stopping = context.server.stopping.clone();
    let mut response = Response::new(stream_body(stream.take_until(stopping.cancelled_owned())));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

fn runtime_error(error: &RuntimeError) -> ApiError {
    match error {
        RuntimeError::NotFound(why) | RuntimeError::NotReady(why) => ApiError::bad_request(why.clone()),
        RuntimeError::Failed(why) => ApiError::internal(why),
    }
}

pub(super) fn exec(context: &Context, request: Request<Incoming>) -> Result<Response<Body>> {
    let (container, runtime) = container(context)?;
    let query = &context.head.query;
    let key = context.key();
    let flag = |name: &str| query.flag(name);
    let exec_request = ExecRequest {
        namespace: key.namespace.to_string(),
        pod: key.name.to_string(),
        container,
        command: query.all("command").map(str::to_owned).collect(),
        stdin: flag("stdin"),
        stdout: flag("stdout"),
        // With a terminal there is one stream.
        stderr: flag("stderr") && !flag("tty"),
        tty: flag("tty"),
    };
    if exec_request.command.is_empty() {
        return Err(ApiError::bad_request(
            "you must specify at least 1 command for the container",
        ));
    }
    exec::upgrade(request, runtime, exec_request, context.server.stopping.clone())
}
