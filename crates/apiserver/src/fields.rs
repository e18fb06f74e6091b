// SPDX-License-Identifier: Apache-2.0
//! Bodies into values, finding fields that are there twice or that nobody knows.

use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// A parsed body and the paths of fields it has more than once.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) value: Value,
    pub(crate) duplicates: Vec<String>,
}

/// Parses JSON.
pub(crate) fn from_json(bytes: &[u8]) -> Result<Parsed, String> {
    let mut duplicates = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let seed = Seed {
        path: String::new(),
        duplicates: &mut duplicates,
    };
    let value = seed.deserialize(&mut deserializer).map_err(|e| e.to_string())?;
    deserializer.end().map_err(|e| e.to_string())?;
    Ok(Parsed { value, duplicates })
}

/// Parses YAML.
pub(crate) fn from_yaml(bytes: &[u8]) -> Result<Parsed, String> {
    let mut duplicates = Vec::new();
    let seed = Seed {
        path: String::new(),
        duplicates: &mut duplicates,
    };
    let value = seed
        .deserialize(serde_yaml_ng::Deserializer::from_slice(bytes))
        .map_err(|e| e.to_string())?;
    Ok(Parsed { value, duplicates })
}

/// Checks an object against a type; the paths of the fields that the type does not know.
pub(crate) fn check<T: DeserializeOwned>(value: &Value) -> Result<Vec<Vec<String>>, String> {
    let mut unknown = Vec::new();
    let found: Result<T, _> = serde_ignored::deserialize(value, |path| {
        let mut segments = Vec::new();
        collect(&path, &mut segments);
        unknown.push(segments);
    });
    found
        .map(|_| unknown)
        .map_err(|error| match serde_path_to_error::deserialize::<_, T>(value) {
            Err(error) => format!("{}: {}", error.path(), error.inner()),
            Ok(_) => error.to_string(),
        })
}

fn collect(path: &serde_ignored::Path<'_>, into: &mut Vec<String>) {
    use serde_ignored::Path;
    match path {
        Path::Root => {}
        Path::Seq { parent, index } => {
            collect(parent, into);
            into.push(index.to_string());
        }
        Path::Map { parent, key } => {
            collect(parent, into);
            into.push(key.clone());
        }
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            collect(parent, into);
        }
    }
}

/// Takes the field at a path out of a value.
pub(crate) fn remove(value: &mut Value, path: &[String]) {
    let Some((last, parents)) = path.split_last() else {
        return;
    };
    let parent = parents.iter().try_fold(value, |v, segment| match v {
        Value::Array(items) => segment.parse::<usize>().ok().and_then(|i| items.get_mut(i)),
        Value::Object(map) => map.get_mut(segment),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    });
    if let Some(Value::Object(map)) = parent {
        map.remove(last);
    }
}

/// `spec.containers[0].imag`, as Kubernetes writes paths.
pub(crate) fn display(path: &[String]) -> String {
    let mut text = String::new();
    for segment in path {
        if segment.parse::<usize>().is_ok() {
            text.push_str(&format!("[{segment}]"));
        } else {
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(segment);
        }
    }
    text
}

/// Deserializes any value, remembering keys that come twice; the last one wins, as in Go.
struct Seed<'a> {
    path: String,
    duplicates: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        self.deserialize(d)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Seed {
            path: format!("{}[{}]", self.path, items.len()),
            duplicates: &mut *self.duplicates,
        })? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let path = if self.path.is_empty() {
                key.clone()
            } else {
                format!("{}.{key}", self.path)
            };
            if map.contains_key(&key) {
                self.duplicates.push(path.clone());
            }
            let value = access.next_value_seed(Seed {
                path,
                duplicates: &mut *self.duplicates,
            })?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    #[test]
    fn duplicates_are_found_and_the_last_one_wins() {
        let parsed = from_json(br#"{"a":{"b":1,"b":2},"c":[{"d":1,"d":1}]}"#).unwrap();
        assert_eq!(parsed.duplicates, ["a.b", "c[0].d"]);
        assert_eq!(parsed.value, json!({ "a": { "b": 2 }, "c": [{ "d": 1 }] }));
    }

    #[test]
    fn unknown_fields_are_named_by_their_path() {
        let mut pod = json!({ "metadata": { "name": "a", "lables": {} }, "spec": { "containers": [{ "name": "c", "imag": "x" }] } });
        let unknown = check::<Pod>(&pod).unwrap();
        assert_eq!(
            unknown.iter().map(|p| display(p)).collect::<Vec<_>>(),
            ["metadata.lables", "spec.containers[0].imag"]
        );
        unknown.iter().for_each(|p| remove(&mut pod, p));
        assert!(check::<Pod>(&pod).unwrap().is_empty());
    }

    #[test]
    fn wrong_types_are_errors_that_name_the_field() {
        let error = check::<Pod>(&json!({ "spec": { "containers": [{ "name": true }] } })).unwrap_err();
        assert_eq!(
            error,
            "spec.containers[0].name: invalid type: boolean `true`, expected a string"
        );
    }

    #[test]
    fn yaml_is_read_too() {
        assert_eq!(
            from_yaml(b"a: 1\nb: [x, true, null]").unwrap().value,
            json!({ "a": 1, "b": ["x", true, null] })
        );
    }
}
