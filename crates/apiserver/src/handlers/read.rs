// SPDX-License-Identifier: Apache-2.0
//! Get and list.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::Context;
use crate::http::{Body, bytes_response};
use crate::selectors::Selector;
use crate::status::{ApiError, Result};
use crate::store::{Key, Object, Scope, Snapshot};
use crate::value::Json;
use crate::view::ListMeta;

pub(super) fn get(context: &Context) -> Result<Response<Body>> {
    let object = context
        .server
        .store
        .get(&context.resource.storage, &context.key());
    let object = object.ok_or_else(|| context.not_found())?;
    Ok(bytes_response(StatusCode::OK, context.view()?.single(&object)))
}

/// What a list, a watch or a deletion of a collection is about.
pub(super) fn scope(context: &Context) -> Result<Scope> {
    let query = &context.head.query;
    let selector = Selector::parse(
        query.get("labelSelector"),
        query.get("fieldSelector"),
        &context.resource,
    )?;
    Ok(Scope {
        namespace: context.target.namespace.as_deref().map(Arc::from),
        selector: Arc::new(selector),
    })
}

/// The objects of a snapshot that are in scope, in order, from a key on.
pub(super) fn select<'a>(
    snapshot: &'a Snapshot,
    scope: &'a Scope,
    after: Option<&Key>,
) -> Box<dyn Iterator<Item = &'a Arc<Object>> + 'a> {
    let matching = move |o: &&Arc<Object>| scope.contains(o);
    if let (Some(namespace), Some(name), None) = (&scope.namespace, scope.selector.name(), after) {
        let key = Key {
            namespace: namespace.clone(),
            name: name.into(),
        };
        return Box::new(snapshot.objects.get(&key).into_iter().filter(matching));
    }
    let first = Key {
        namespace: scope.namespace.clone().unwrap_or_else(|| "".into()),
        name: "".into(),
    };
    let from = match after {
        Some(key) => (std::ops::Bound::Excluded(key.clone()), std::ops::Bound::Unbounded),
        None => (std::ops::Bound::Included(first), std::ops::Bound::Unbounded),
    };
    let in_namespace = move |key: &Key| scope.namespace.as_ref().is_none_or(|n| *n == key.namespace);
    let range = snapshot
        .objects
        .range(from)
        .take_while(move |(k, _)| in_namespace(k));
    Box::new(range.map(|(_, o)| o).filter(matching))
}

pub(super) fn list(context: &Context) -> Result<Response<Body>> {
    let scope = scope(context)?;
    let view = context.view()?;
    let snapshot = context.server.store.snapshot(&context.resource.storage);
    check_revision(context, snapshot.revision)?;
    let limit = context
        .head
        .query
        .number("limit")?
        .filter(|l| *l > 0)
        .and_then(|l| usize::try_from(l).ok());
    let cursor = context
        .head
        .query
        .get("continue")
        .map(|token| Cursor::parse(token, context))
        .transpose()?;
    // Later pages keep the first one's revision: a watch from there tells what changed between the pages.
    let revision = cursor.as_ref().map_or(snapshot.revision, |c| c.revision);
    let mut selected = select(&snapshot, &scope, cursor.as_ref().map(|c| &c.after));
    let Some(limit) = limit else {
        let meta = ListMeta {
            revision,
            ..ListMeta::default()
        };
        return Ok(bytes_response(StatusCode::OK, view.list(selected, &meta)));
    };
    let page: Vec<&Arc<Object>> = selected.by_ref().take(limit).collect();
    let remaining = selected.count();
    let next = page.last().filter(|_| remaining > 0).map(|o| {
        Cursor {
            revision,
            after: o.key.clone(),
        }
        .to_token()
    });
    let meta = ListMeta {
        revision,
        next,
        remaining,
    };
    Ok(bytes_response(StatusCode::OK, view.list(page.into_iter(), &meta)))
}

/// Refuses a revision that has not been reached, and an exact one that is gone.
fn check_revision(context: &Context, current: u64) -> Result<()> {
    let how = context.head.query.get("resourceVersionMatch");
    let Some(asked) = context.head.query.number("resourceVersion")? else {
        return match how {
            Some(_) => Err(ApiError::bad_request(
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
            )),
            None => Ok(()),
        };
    };
    let exact = how == Some("Exact");
    if asked > current {
        return Err(ApiError::timeout(format!(
            "Too large resource version: {asked}, current: {current}"
        )));
    }
    if exact && asked != current {
        return Err(ApiError::expired(format!(
            "The provided resource version {asked} is not available"
        )));
    }
    Ok(())
}

/// Where the next page of a list begins.
struct Cursor {
    revision: u64,
    after: Key,
}

impl Cursor {
    fn to_token(&self) -> String {
        let parts = json!([self.revision, &*self.after.namespace, &*self.after.name]);
        URL_SAFE_NO_PAD.encode(parts.to_string())
    }

    fn parse(token: &str, context: &Context) -> Result<Self> {
        let bad = || ApiError::bad_request("continue key is not valid: it is not one that this server gave");
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad())?;
        let parts: Value = serde_json::from_slice(&bytes).map_err(|_| bad())?;
        let revision = parts.at("/0").as_u64().ok_or_else(bad)?;
        if revision < context.server.store.compacted(&context.resource.storage) {
            return Err(ApiError::expired(
                "The provided continue parameter is too old to display a consistent list result. You can start a new \
                 list without the continue parameter.",
            ));
        }
        Ok(Self {
            revision,
            after: Key::new(parts.str_at("/1"), parts.str_at("/2")),
        })
    }
}
