// SPDX-License-Identifier: Apache-2.0
//! One stored object.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::resources::Resource;
use crate::value::{self, Json};

/// Where an object is within its resource. Objects without a namespace have the empty one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
}

impl Key {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    pub(crate) fn of(value: &Value) -> Self {
        Self::new(value.meta_str("namespace"), value.meta_str("name"))
    }
}

/// An object as it is sent, and what selectors ask about it.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) key: Key,
    pub(crate) revision: u64,
    pub(crate) uid: Box<str>,
    /// The uids of its owners.
    pub(crate) owners: Vec<Box<str>>,
    pub(crate) labels: BTreeMap<Box<str>, Box<str>>,
    /// The values of the resource's selectable fields, in its order.
    pub(crate) fields: Vec<Box<str>>,
    pub(crate) json: Bytes,
}

impl Object {
    pub(super) fn new(resource: &Resource, value: &Value, revision: u64) -> Self {
        let labels = value["metadata"]["labels"].as_object().into_iter().flatten();
        Self {
            key: Key::of(value),
            revision,
            uid: value.meta_str("uid").into(),
            owners: value
                .list_at("/metadata/ownerReferences")
                .iter()
                .map(|o| o["uid"].as_str().unwrap_or_default().into())
                .collect(),
            labels: labels
                .map(|(k, v)| (k.as_str().into(), v.as_str().unwrap_or_default().into()))
                .collect(),
            fields: resource
                .fields
                .iter()
                .map(|f| value::scalar(value.pointer(&f.pointer)).into())
                .collect(),
            json: value::bytes(value),
        }
    }

    /// The parsed object.
    pub(crate) fn value(&self) -> Value {
        // The bytes were serialized from a value by `new`.
        serde_json::from_slice(&self.json).unwrap_or_default()
    }
}
