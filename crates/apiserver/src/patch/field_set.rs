// SPDX-License-Identifier: Apache-2.0
//! Sets of fields, in the encoding of `fieldsV1`: who owns what.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::shape::{ListKind, Shape, key_value, same_item};

/// A set of fields. Keys are path elements as `fieldsV1` writes them: `f:name`, `k:{"name":"x"}`, `v:"x"`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FieldSet {
    /// Whether the field itself is in the set, apart from what is below it.
    pub(crate) owned: bool,
    pub(crate) children: BTreeMap<String, FieldSet>,
}

/// What nobody owns: who an object is, and what the server keeps.
const UNOWNED_ROOT: [&str; 2] = ["apiVersion", "kind"];
const UNOWNED_METADATA: [&str; 10] = [
    "name",
    "namespace",
    "generateName",
    "uid",
    "creationTimestamp",
    "generation",
    "resourceVersion",
    "managedFields",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

impl FieldSet {
    fn leaf() -> Self {
        Self {
            owned: true,
            children: BTreeMap::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.owned && self.children.is_empty()
    }

    pub(crate) fn to_json(&self) -> Value {
        let mut map: Map<String, Value> = self
            .children
            .iter()
            .map(|(k, v)| (k.clone(), v.to_json()))
            .collect();
        if self.owned && !map.is_empty() {
            map.insert(".".into(), json!({}));
        }
        Value::Object(map)
    }

    pub(crate) fn from_json(value: &Value) -> Self {
        let map = value.as_object();
        let children: BTreeMap<String, Self> = map
            .into_iter()
            .flatten()
            .filter(|(k, _)| *k != ".")
            .map(|(k, v)| (k.clone(), Self::from_json(v)))
            .collect();
        let owned = children.is_empty() || value.get(".").is_some();
        Self { owned, children }
    }

    /// All fields of an object.
    pub(crate) fn of_object(object: &Value, shape: Shape<'_>) -> Self {
        changed(&Value::Null, &owned_part(object), shape)
    }

    /// The fields that a new state of an object has otherwise than the old one.
    pub(crate) fn changed(old: &Value, new: &Value, shape: Shape<'_>) -> Self {
        changed(&owned_part(old), &owned_part(new), shape)
    }

    pub(crate) fn union(&mut self, other: &Self) {
        self.owned |= other.owned;
        for (key, child) in &other.children {
            self.children.entry(key.clone()).or_default().union(child);
        }
    }

    pub(crate) fn subtract(&mut self, other: &Self) {
        self.owned &= !other.owned;
        for (key, child) in &other.children {
            if let Some(mine) = self.children.get_mut(key) {
                mine.subtract(child);
                if mine.is_empty() {
                    self.children.remove(key);
                }
            }
        }
    }

    pub(crate) fn intersection(&self, other: &Self) -> Self {
        let both = |(k, mine): (&String, &Self)| {
            let common = mine.intersection(other.children.get(k)?);
            (!common.is_empty()).then(|| (k.clone(), common))
        };
        Self {
            owned: self.owned && other.owned,
            children: self.children.iter().filter_map(both).collect(),
        }
    }

    /// Forgets the fields that a value does not have.
    pub(crate) fn keep_existing(&mut self, value: &Value) {
        self.children.retain(|key, child| match find(value, key) {
            Some(found) => {
                child.keep_existing(found);
                !child.is_empty()
            }
            None => false,
        });
    }

    /// The paths of the set's fields as messages name them.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_paths("", &mut paths);
        paths
    }

    fn collect_paths(&self, prefix: &str, paths: &mut Vec<String>) {
        if self.owned {
            paths.push(prefix.to_owned());
        }
        for (key, child) in &self.children {
            child.collect_paths(&format!("{prefix}{}", display(key)), paths);
        }
    }
}

/// An object without what nobody owns.
fn owned_part(object: &Value) -> Value {
    let mut part = object.clone();
    if let Some(map) = part.as_object_mut() {
        map.retain(|k, _| !UNOWNED_ROOT.contains(&k.as_str()));
        if let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|k, _| !UNOWNED_METADATA.contains(&k.as_str()));
            if metadata.is_empty() {
                map.remove("metadata");
            }
        }
    }
    part
}

fn changed(old: &Value, new: &Value, shape: Shape<'_>) -> FieldSet {
    if old == new {
        return FieldSet::default();
    }
    match new {
        Value::Object(map) if !map.is_empty() && !shape.atomic_map() => {
            let mut set = FieldSet::default();
            for (key, value) in map {
                let before = old.get(key).unwrap_or(&Value::Null);
                add(
                    &mut set,
                    format!("f:{key}"),
                    changed(before, value, shape.member(key)),
                );
            }
            set
        }
        Value::Array(items) => changed_list(old, items, shape),
        Value::Null => FieldSet::default(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => FieldSet::leaf(),
    }
}

fn changed_list(old: &Value, items: &[Value], shape: Shape<'_>) -> FieldSet {
    let before = old.as_array().map_or(&[][..], Vec::as_slice);
    let mut set = FieldSet::default();
    match shape.list_kind() {
        ListKind::Atomic => return FieldSet::leaf(),
        _ if items.is_empty() => return FieldSet::leaf(),
        ListKind::Set => {
            for item in items.iter().filter(|i| !before.contains(i)) {
                add(&mut set, format!("v:{item}"), FieldSet::leaf());
            }
        }
        ListKind::Keyed(keys) => {
            for item in items {
                let same = before.iter().find(|b| same_item(b, item, &keys));
                let mut fields = changed(same.unwrap_or(&Value::Null), item, shape.item());
                fields.owned |= same.is_none();
                add(&mut set, item_key(item, &keys), fields);
            }
        }
    }
    set
}

fn add(set: &mut FieldSet, key: String, child: FieldSet) {
    if !child.is_empty() {
        set.children.insert(key, child);
    }
}

/// `k:{"name":"x"}`.
fn item_key(item: &Value, keys: &[&str]) -> String {
    let key: Map<String, Value> = keys
        .iter()
        .map(|k| ((*k).to_owned(), key_value(item, k)))
        .collect();
    format!("k:{}", Value::Object(key))
}

/// What a path element leads to.
fn find<'v>(value: &'v Value, element: &str) -> Option<&'v Value> {
    if let Some(name) = element.strip_prefix("f:") {
        return value.get(name).filter(|v| !v.is_null());
    }
    let position = position(value, element)?;
    value.get(position)
}

/// The place of a list's item that a path element names.
pub(super) fn position(value: &Value, element: &str) -> Option<usize> {
    let items = value.as_array()?;
    if let Some(text) = element.strip_prefix("v:") {
        let wanted: Value = serde_json::from_str(text).ok()?;
        return items.iter().position(|i| *i == wanted);
    }
    let wanted: Value = serde_json::from_str(element.strip_prefix("k:")?).ok()?;
    let wanted = wanted.as_object()?;
    items
        .iter()
        .position(|i| wanted.iter().all(|(k, v)| key_value(i, k) == *v))
}

/// A path element as messages write it.
fn display(element: &str) -> String {
    if let Some(name) = element.strip_prefix("f:") {
        return format!(".{name}");
    }
    if let Some(value) = element.strip_prefix("v:") {
        return format!("[={value}]");
    }
    let key: Value = element
        .strip_prefix("k:")
        .and_then(|k| serde_json::from_str(k).ok())
        .unwrap_or_default();
    let parts: Vec<String> = key
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    format!("[{}]", parts.join(","))
}
