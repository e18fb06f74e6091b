// SPDX-License-Identifier: Apache-2.0
//! Small conveniences over `serde_json::Value`.

use bytes::Bytes;
use serde_json::{Map, Value};

static NULL: Value = Value::Null;

/// Reading and writing objects without a chain of `as_…`.
pub(crate) trait Json {
    /// A string of `metadata`, or "".
    fn meta_str(&self, key: &str) -> &str;
    /// A member of `metadata`, or null.
    fn meta(&self, key: &str) -> &Value;
    /// The string at a JSON pointer, or "".
    fn str_at(&self, pointer: &str) -> &str;
    /// The value at a JSON pointer, or null.
    fn at(&self, pointer: &str) -> &Value;
    /// The array at a JSON pointer, or nothing.
    fn list_at(&self, pointer: &str) -> &[Value];
    /// This as a map; what is no map becomes an empty one.
    fn map_mut(&mut self) -> &mut Map<String, Value>;
    /// Sets a member unless it is there and not null.
    fn default_to(&mut self, key: &str, value: impl Into<Value>);
    /// Whether `metadata.deletionTimestamp` is set.
    fn deleting(&self) -> bool;
}

impl Json for Value {
    fn meta_str(&self, key: &str) -> &str {
        self.meta(key).as_str().unwrap_or_default()
    }

    fn meta(&self, key: &str) -> &Value {
        self.get("metadata").and_then(|m| m.get(key)).unwrap_or(&NULL)
    }

    fn str_at(&self, pointer: &str) -> &str {
        self.at(pointer).as_str().unwrap_or_default()
    }

    fn at(&self, pointer: &str) -> &Value {
        self.pointer(pointer).unwrap_or(&NULL)
    }

    fn list_at(&self, pointer: &str) -> &[Value] {
        self.at(pointer).as_array().map_or(&[], Vec::as_slice)
    }

    fn map_mut(&mut self) -> &mut Map<String, Value> {
        if !self.is_object() {
            *self = Value::Object(Map::new());
        }
        match self {
            Value::Object(map) => map,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                unreachable!("made a map above")
            }
        }
    }

    fn default_to(&mut self, key: &str, value: impl Into<Value>) {
        let slot = self.map_mut().entry(key).or_insert(Value::Null);
        if slot.is_null() {
            *slot = value.into();
        }
    }

    fn deleting(&self) -> bool {
        !self.meta_str("deletionTimestamp").is_empty()
    }
}

/// A scalar as a selector or a column compares it.
pub(crate) fn scalar(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(s)) => s.clone(),
        Some(v @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_))) => v.to_string(),
    }
}

/// The value serialized; a `Value` always is.
pub(crate) fn bytes(value: &Value) -> Bytes {
    serde_json::to_vec(value).map(Bytes::from).unwrap_or_default()
}

/// Removes nulls from maps, as typed objects lose them.
pub(crate) fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
