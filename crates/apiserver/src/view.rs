// SPDX-License-Identifier: Apache-2.0
//! Stored objects into the bytes of an answer: as they are, as tables, or as metadata only.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::convert;
use crate::http::Head;
use crate::http::accept::{Form, negotiate};
use crate::resources::Resource;
use crate::status::{ApiError, Result};
use crate::store::{Delivery, EventKind, Object};
use crate::table;
use crate::value::{self, Json};

/// How a client wants to see a resource's objects.
#[derive(Debug, Clone)]
pub(crate) struct View {
    resource: Arc<Resource>,
    form: Form,
    include: Include,
}

/// What a table's rows carry beside their cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Include {
    Nothing,
    Metadata,
    Object,
}

/// A list's own metadata.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListMeta {
    pub(crate) revision: u64,
    pub(crate) next: Option<String>,
    pub(crate) remaining: usize,
}

impl ListMeta {
    fn value(&self) -> Value {
        let mut meta = json!({ "resourceVersion": self.revision.to_string() });
        if let Some(next) = &self.next {
            meta["continue"] = next.clone().into();
            meta["remainingItemCount"] = self.remaining.into();
        }
        meta
    }
}

impl View {
    pub(crate) fn new(resource: Arc<Resource>, head: &Head) -> Result<Self> {
        let include = match head.query.get("includeObject") {
            None | Some("Metadata") => Include::Metadata,
            Some("None") => Include::Nothing,
            Some("Object") => Include::Object,
            Some(other) => {
                return Err(ApiError::bad_request(format!(
                    "unrecognized includeObject value: {other:?}"
                )));
            }
        };
        Ok(Self {
            resource,
            form: negotiate(head.header(http::header::ACCEPT))?,
            include,
        })
    }

    /// The object in the version that was asked for.
    fn converted(&self, object: &Object) -> Bytes {
        if !self.resource.converted() {
            return object.json.clone();
        }
        value::bytes(&self.value(object))
    }

    fn value(&self, object: &Object) -> Value {
        let mut value = object.value();
        convert::outward(&self.resource, &mut value);
        value
    }

    /// One object.
    pub(crate) fn single(&self, object: &Object) -> Bytes {
        match self.form {
            Form::Object => self.converted(object),
            Form::PartialMetadata => value::bytes(&partial(&object.value())),
            Form::Table => {
                let meta = json!({ "resourceVersion": object.revision.to_string() });
                value::bytes(&table::table(
                    &self.resource,
                    &[self.value(object)],
                    meta,
                    self.include,
                    true,
                ))
            }
        }
    }

    /// A list of objects.
    pub(crate) fn list<'a>(&self, objects: impl Iterator<Item = &'a Arc<Object>>, meta: &ListMeta) -> Bytes {
        let meta = meta.value();
        match self.form {
            Form::Object => self.object_list(objects, &meta),
            Form::PartialMetadata => {
                let items: Vec<Value> = objects.map(|o| partial(&o.value())).collect();
                value::bytes(
                    &json!({ "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                    "metadata": meta, "items": items }),
                )
            }
            Form::Table => {
                let values: Vec<Value> = objects.map(|o| self.value(o)).collect();
                value::bytes(&table::table(&self.resource, &values, meta, self.include, true))
            }
        }
    }

    fn object_list<'a>(&self, objects: impl Iterator<Item = &'a Arc<Object>>, meta: &Value) -> Bytes {
        let head = format!(
            "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{meta},\"items\":[",
            self.resource.kind,
            self.resource.api_version()
        );
        let mut list = head.into_bytes();
        for (i, object) in objects.enumerate() {
            if i > 0 {
                list.push(b',');
            }
            list.extend_from_slice(&self.converted(object));
        }
        list.extend_from_slice(b"]}\n");
        list.into()
    }

    /// A line of a watch. The first table of a watch carries the columns.
    pub(crate) fn event(&self, delivery: &Delivery, first: bool) -> Bytes {
        let event = &delivery.event;
        // An object that only stopped to match is told as deleted with its new state; that is all a client needs of it.
        if self.form == Form::Object && !self.resource.converted() && delivery.kind == event.kind {
            return event.line();
        }
        self.line(delivery.kind, &event.object, first)
    }

    /// A line of a watch about this object.
    pub(crate) fn line(&self, kind: EventKind, object: &Object, first: bool) -> Bytes {
        let object = match self.form {
            Form::Object => self.converted(object),
            Form::PartialMetadata => value::bytes(&partial(&object.value())),
            Form::Table => {
                let meta = json!({ "resourceVersion": object.revision.to_string() });
                value::bytes(&table::table(
                    &self.resource,
                    &[self.value(object)],
                    meta,
                    self.include,
                    first,
                ))
            }
        };
        crate::store::render_line(kind, &object)
    }

    /// A bookmark: nothing older than `revision` will come.
    pub(crate) fn bookmark(&self, revision: u64, initial_end: bool) -> Bytes {
        let mut metadata = json!({ "resourceVersion": revision.to_string(), "creationTimestamp": null });
        if initial_end {
            metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let object = match self.form {
            Form::Object => {
                json!({ "kind": self.resource.kind, "apiVersion": self.resource.api_version(), "metadata": metadata })
            }
            Form::PartialMetadata => {
                json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata })
            }
            Form::Table => {
                let mut table = table::table(&self.resource, &[], metadata, self.include, false);
                table["rows"] = json!([]);
                table
            }
        };
        let mut line = value::bytes(&json!({ "type": "BOOKMARK", "object": object })).to_vec();
        line.push(b'\n');
        line.into()
    }
}

/// Only the metadata of an object.
pub(crate) fn partial(object: &Value) -> Value {
    json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object.at("/metadata") })
}
