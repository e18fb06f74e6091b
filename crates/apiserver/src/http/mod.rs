// SPDX-License-Identifier: Apache-2.0
//! One HTTP request: who asks, what for, and the answer's form.

pub(crate) mod accept;
pub(crate) mod body;
pub(crate) mod query;
pub(crate) mod route;

use std::convert::Infallible;
use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderValue, WARNING};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::Value;

pub(crate) use body::{Body, json_body};
use query::Query;
use route::Route;

use crate::server::Server;
use crate::status::{ApiError, Result};
use crate::{discovery, handlers, openapi};

/// A request without its body.
pub(crate) struct Head {
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) query: Query,
}

impl Head {
    pub(crate) fn header(&self, name: impl http::header::AsHeaderName) -> &str {
        self.headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
    }
}

/// Answers a request; errors have become answers too.
pub(crate) async fn answer(
    server: Arc<Server>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = dispatch(server, request)
        .await
        .unwrap_or_else(|error| error_response(&error));
    tracing::debug!(%method, path, status = response.status().as_u16(), "request");
    Ok(response)
}

async fn dispatch(server: Arc<Server>, request: Request<Incoming>) -> Result<Response<Body>> {
    let route = Route::parse(request.uri().path());
    if !matches!(route, Some(Route::Health | Route::Version))
        && !authenticated(&request, &server.config.token)
    {
        return Err(ApiError::unauthorized());
    }
    let head = Head {
        method: request.method().clone(),
        headers: request.headers().clone(),
        query: Query::parse(request.uri().query().unwrap_or_default()),
    };
    let registry = server.registry.load();
    let found = match route.ok_or_else(ApiError::no_such_path)? {
        Route::Health => return Ok(text(StatusCode::OK, "ok")),
        Route::Version => discovery::version(),
        Route::ApiVersions => discovery::api_versions(),
        Route::ApiGroups => discovery::api_groups(&registry),
        Route::ApiGroup { group } => {
            discovery::api_group(&registry, &group).ok_or_else(ApiError::no_such_path)?
        }
        Route::ApiResources { group, version } => {
            discovery::api_resources(&registry, &group, &version).ok_or_else(ApiError::no_such_path)?
        }
        Route::OpenApiIndex => openapi::index(&registry),
        Route::OpenApi { group, version } => {
            openapi::document(&registry, &group, &version).ok_or_else(ApiError::no_such_path)?
        }
        Route::Resource(target) => return handlers::handle(server, head, target, request).await,
    };
    Ok(json_response(StatusCode::OK, &found))
}

fn authenticated<B>(request: &Request<B>, token: &str) -> bool {
    let given = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    given
        .strip_prefix("Bearer ")
        .is_some_and(|t| same(t.trim().as_bytes(), token.as_bytes()))
}

/// Compares without telling by its time how much was right.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
}

pub(crate) fn json_response(status: StatusCode, value: &Value) -> Response<Body> {
    bytes_response(status, crate::value::bytes(value))
}

pub(crate) fn bytes_response(status: StatusCode, bytes: bytes::Bytes) -> Response<Body> {
    let mut response = Response::new(json_body(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

pub(crate) fn error_response(error: &ApiError) -> Response<Body> {
    json_response(error.code, &error.to_value())
}

pub(crate) fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(json_body(bytes::Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

/// Puts warnings into the headers that `kubectl` shows.
pub(crate) fn add_warnings(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
}
