// SPDX-License-Identifier: Apache-2.0
//! The verbs.

mod body;
mod create;
mod delete;
mod patch;
mod pods;
mod read;
mod review;
mod scale;
mod update;
mod watch;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::Value;

use crate::http::query::Query;
use crate::http::route::Target;
use crate::http::{Body, Head, add_warnings, body as http_body, bytes_response};
use crate::resources::Resource;
use crate::server::Server;
use crate::status::{ApiError, Result};
use crate::store::{Key, Object};
use crate::view::View;

pub(crate) use create::create;

/// A request about a resource.
pub(crate) struct Context {
    pub(crate) server: Arc<Server>,
    pub(crate) resource: Arc<Resource>,
    pub(crate) target: Target,
    pub(crate) head: Head,
}

/// What a writer said about itself and about how to write.
#[derive(Debug, Clone)]
pub(crate) struct WriteOptions {
    pub(crate) manager: String,
    pub(crate) dry: bool,
    pub(crate) validation: FieldValidation,
    pub(crate) force: bool,
}

/// What to do about unknown and duplicate fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// What a write gives back.
pub(crate) struct Written {
    pub(crate) status: StatusCode,
    pub(crate) object: Arc<Object>,
    pub(crate) warnings: Vec<String>,
}

impl Context {
    pub(crate) fn key(&self) -> Key {
        let namespace = self.target.namespace.as_deref().unwrap_or_default();
        Key::new(namespace, self.target.name.as_deref().unwrap_or_default())
    }

    pub(crate) fn not_found(&self) -> ApiError {
        ApiError::not_found(
            &self.resource.group_resource,
            self.target.name.as_deref().unwrap_or_default(),
        )
    }

    fn view(&self) -> Result<View> {
        View::new(self.resource.clone(), &self.head)
    }

    pub(crate) fn write_options(&self) -> Result<WriteOptions> {
        WriteOptions::of(&self.head.query, self.head.header(http::header::USER_AGENT))
    }

    fn respond(&self, written: &Written) -> Result<Response<Body>> {
        let mut response = bytes_response(written.status, self.view()?.single(&written.object));
        add_warnings(&mut response, &written.warnings);
        Ok(response)
    }
}

impl WriteOptions {
    fn of(query: &Query, user_agent: &str) -> Result<Self> {
        let validation = match query.get("fieldValidation") {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Strict") => FieldValidation::Strict,
            Some("Ignore") => FieldValidation::Ignore,
            Some(other) => {
                return Err(ApiError::bad_request(format!(
                    "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
                )));
            }
        };
        let dry = match query.get("dryRun") {
            None => false,
            Some("All") => true,
            Some(other) => {
                return Err(ApiError::bad_request(format!(
                    "dryRun: Unsupported value: {other:?}: supported values: \"All\""
                )));
            }
        };
        let program = user_agent
            .split(['/', ' '])
            .next()
            .filter(|p| !p.is_empty())
            .unwrap_or("unknown");
        let manager = query.get("fieldManager").unwrap_or(program).to_owned();
        Ok(Self {
            manager,
            dry,
            validation,
            force: query.flag("force"),
        })
    }

    /// The server's own writes.
    pub(crate) fn internal() -> Self {
        Self {
            manager: "thalweg-apiserver".into(),
            dry: false,
            validation: FieldValidation::Strict,
            force: false,
        }
    }
}

/// Answers a request about a resource.
pub(crate) async fn handle(
    server: Arc<Server>,
    head: Head,
    target: Target,
    request: Request<Incoming>,
) -> Result<Response<Body>> {
    let found = server
        .registry
        .load()
        .find(&target.group, &target.version, &target.plural)
        .cloned();
    let resource = found.ok_or_else(ApiError::no_such_path)?;
    // An object of a namespaced kind has to be named with its namespace; a list over all namespaces has none.
    let misplaced = if resource.namespaced {
        target.namespace.is_none() && target.name.is_some()
    } else {
        target.namespace.is_some()
    };
    if misplaced {
        return Err(ApiError::no_such_path());
    }
    let context = Context {
        server,
        resource,
        target,
        head,
    };
    if let Some(subresource) = context.target.subresource.clone() {
        return subresource_request(context, &subresource, request).await;
    }
    if context.resource.review {
        return review::handle(&context, &read_body(request).await?);
    }
    match (context.head.method.clone(), context.target.name.is_some()) {
        (Method::GET | Method::HEAD, false) if context.head.query.flag("watch") => watch::watch(&context),
        (Method::GET | Method::HEAD, true) => read::get(&context),
        (Method::GET | Method::HEAD, false) => read::list(&context),
        (Method::POST, false) => create::handle(&context, &read_body(request).await?),
        (Method::PUT, true) => update::handle(&context, &read_body(request).await?),
        (Method::PATCH, true) => patch::handle(&context, &read_body(request).await?),
        (Method::DELETE, true) => delete::handle(&context, &read_body(request).await?),
        (Method::DELETE, false) => delete::collection(&context, &read_body(request).await?),
        _ => Err(ApiError::method_not_allowed()),
    }
}

async fn subresource_request(
    context: Context,
    subresource: &str,
    request: Request<Incoming>,
) -> Result<Response<Body>> {
    let pods = context.resource.is("pods");
    match (subresource, context.head.method.clone()) {
        ("exec", Method::GET | Method::POST) if pods => pods::exec(&context, request),
        ("log", Method::GET) if pods => pods::log(&context).await,
        ("binding", Method::POST) if pods => pods::bind(&context, &read_body(request).await?),
        ("eviction", Method::POST) if pods => pods::evict(&context, &read_body(request).await?),
        ("scale", method) if context.resource.scale.is_some() => match method {
            Method::GET => scale::get(&context),
            Method::PUT => scale::put(&context, &read_body(request).await?),
            Method::PATCH => scale::patch(&context, &read_body(request).await?),
            _ => Err(ApiError::method_not_allowed()),
        },
        ("finalize", Method::PUT) if context.resource.is("namespaces") => {
            update::handle(&context, &read_body(request).await?)
        }
        ("status", method) if context.resource.status => match method {
            Method::GET => read::get(&context),
            Method::PUT => update::handle(&context, &read_body(request).await?),
            Method::PATCH => patch::handle(&context, &read_body(request).await?),
            _ => Err(ApiError::method_not_allowed()),
        },
        _ => Err(ApiError::no_such_path()),
    }
}

async fn read_body(request: Request<Incoming>) -> Result<Bytes> {
    http_body::read(request.into_body()).await
}

/// An answer that is no stored object.
fn plain(status: StatusCode, value: &Value) -> Response<Body> {
    crate::http::json_response(status, value)
}
