// SPDX-License-Identifier: Apache-2.0
//! Structural schemas: pruning, defaulting and validation of custom objects.
//!
//! Rules in CEL (`x-kubernetes-validations`) and string formats are not evaluated.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Map, Value};

use crate::status::FieldError;
use crate::value::Json;

/// A version's schema, its patterns compiled.
#[derive(Debug)]
pub(crate) struct Schema {
    root: Value,
    patterns: BTreeMap<String, Regex>,
}

/// What every object has, whatever its schema says.
const OBJECT_MEMBERS: [&str; 3] = ["apiVersion", "kind", "metadata"];

impl Schema {
    pub(crate) fn new(root: Value) -> Self {
        let mut patterns = BTreeMap::new();
        each_pattern(&root, &mut |pattern| {
            if let Ok(regex) = Regex::new(pattern) {
                patterns.insert(pattern.to_owned(), regex);
            }
        });
        Self { root, patterns }
    }

    pub(crate) fn root(&self) -> &Value {
        &self.root
    }

    pub(crate) fn prune(&self, value: &mut Value) -> Vec<String> {
        let mut pruned = Vec::new();
        prune(&self.root, value, "", true, &mut pruned);
        pruned
    }

    pub(crate) fn default(&self, value: &mut Value) {
        default(&self.root, value);
    }

    pub(crate) fn validate(&self, value: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        self.check(&self.root, value, "", true, &mut errors);
        errors
    }

    fn check(&self, schema: &Value, value: &Value, path: &str, root: bool, errors: &mut Vec<FieldError>) {
        if value.is_null() && schema["nullable"] == true {
            return;
        }
        if !check_type(schema, value, path, errors) {
            return;
        }
        self.check_scalar(schema, value, path, errors);
        match value {
            Value::Object(map) => self.check_object(schema, map, path, root, errors),
            Value::Array(items) => self.check_array(schema, items, value, path, errors),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
        self.check_junctions(schema, value, path, errors);
    }

    fn check_scalar(&self, schema: &Value, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
        let mut fail = |detail: String| {
            errors.push(FieldError::invalid(
                path,
                value,
                format!("{path} in body {detail}"),
            ))
        };
        if let Some(number) = value.as_f64() {
            let bound = |key: &str| schema[key].as_f64();
            if let Some(least) = bound("minimum") {
                if schema["exclusiveMinimum"] == true && number <= least {
                    fail(format!("should be greater than {}", schema["minimum"]));
                } else if number < least {
                    fail(format!(
                        "should be greater than or equal to {}",
                        schema["minimum"]
                    ));
                }
            }
            if let Some(most) = bound("maximum") {
                if schema["exclusiveMaximum"] == true && number >= most {
                    fail(format!("should be less than {}", schema["maximum"]));
                } else if number > most {
                    fail(format!("should be less than or equal to {}", schema["maximum"]));
                }
            }
            if let Some(step) = bound("multipleOf")
                && (number / step).fract() != 0.0
            {
                fail(format!("should be a multiple of {}", schema["multipleOf"]));
            }
        }
        if let Some(text) = value.as_str() {
            let length = u64::try_from(text.chars().count()).unwrap_or(u64::MAX);
            if schema["minLength"].as_u64().is_some_and(|least| length < least) {
                fail(format!("should be at least {} chars long", schema["minLength"]));
            }
            if schema["maxLength"].as_u64().is_some_and(|most| length > most) {
                fail(format!("should be at most {} chars long", schema["maxLength"]));
            }
            if let Some(pattern) = schema["pattern"].as_str()
                && self
                    .patterns
                    .get(pattern)
                    .is_some_and(|regex| !regex.is_match(text))
            {
                fail(format!("should match '{pattern}'"));
            }
        }
        if let Some(allowed) = schema["enum"].as_array()
            && !allowed.contains(value)
        {
            let names: Vec<String> = allowed
                .iter()
                .map(|a| a.as_str().map_or_else(|| a.to_string(), str::to_owned))
                .collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            errors.push(FieldError::unsupported(path, value, &names));
        }
    }

    fn check_object(
        &self,
        schema: &Value,
        map: &Map<String, Value>,
        path: &str,
        root: bool,
        errors: &mut Vec<FieldError>,
    ) {
        for required in schema.list_at("/required").iter().filter_map(Value::as_str) {
            if !map.contains_key(required) {
                errors.push(FieldError::required(join(path, required), ""));
            }
        }
        let count = u64::try_from(map.len()).unwrap_or(u64::MAX);
        if schema["maxProperties"].as_u64().is_some_and(|most| count > most) {
            let detail = format!("must have at most {} properties", schema["maxProperties"]);
            errors.push(FieldError::invalid(path, &Value::Object(map.clone()), detail));
        }
        if schema["minProperties"]
            .as_u64()
            .is_some_and(|least| count < least)
        {
            let detail = format!("must have at least {} properties", schema["minProperties"]);
            errors.push(FieldError::invalid(path, &Value::Object(map.clone()), detail));
        }
        for (key, value) in map {
            if root && OBJECT_MEMBERS.contains(&key.as_str()) {
                continue;
            }
            if let Some(member) = member(schema, key) {
                self.check(member, value, &join(path, key), false, errors);
            }
        }
    }

    fn check_array(
        &self,
        schema: &Value,
        items: &[Value],
        whole: &Value,
        path: &str,
        errors: &mut Vec<FieldError>,
    ) {
        let count = u64::try_from(items.len()).unwrap_or(u64::MAX);
        if schema["maxItems"].as_u64().is_some_and(|most| count > most) {
            let detail = format!("{path} in body should have at most {} items", schema["maxItems"]);
            errors.push(FieldError::invalid(path, whole, detail));
        }
        if schema["minItems"].as_u64().is_some_and(|least| count < least) {
            let detail = format!("{path} in body should have at least {} items", schema["minItems"]);
            errors.push(FieldError::invalid(path, whole, detail));
        }
        let keys: Vec<&str> = schema
            .list_at("/x-kubernetes-list-map-keys")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let set = schema["x-kubernetes-list-type"] == "set";
        for (i, item) in items.iter().enumerate() {
            let path = format!("{path}[{i}]");
            let same = |other: &Value| {
                if keys.is_empty() {
                    set && other == item
                } else {
                    keys.iter().all(|k| other[*k] == item[*k])
                }
            };
            if items[..i].iter().any(same) {
                errors.push(FieldError::duplicate(&path, item));
            }
            if let Some(schema) = schema.get("items") {
                self.check(schema, item, &path, false, errors);
            }
        }
    }

    fn check_junctions(&self, schema: &Value, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
        let holds = |schema: &Value| {
            let mut found = Vec::new();
            self.check(schema, value, path, false, &mut found);
            found.is_empty()
        };
        let mut fail =
            |detail: &str| errors.push(FieldError::invalid(path, value, format!("{path:?} {detail}")));
        let (any, one) = (schema.list_at("/anyOf"), schema.list_at("/oneOf"));
        if !any.is_empty() && !any.iter().any(holds) {
            fail("must validate at least one schema (anyOf)");
        }
        if !one.is_empty() && one.iter().filter(|s| holds(s)).count() != 1 {
            fail("must validate one and only one schema (oneOf)");
        }
        if schema.get("not").is_some_and(holds) {
            fail("must not validate the schema (not)");
        }
        for schema in schema.list_at("/allOf") {
            self.check(schema, value, path, false, errors);
        }
    }
}

/// Whether the value has the schema's type, as far as it names one.
fn check_type(schema: &Value, value: &Value, path: &str, errors: &mut Vec<FieldError>) -> bool {
    if schema["x-kubernetes-int-or-string"] == true {
        if value.is_string() || is_integer(value) {
            return true;
        }
        errors.push(FieldError::type_invalid(
            path,
            value,
            format!("{path} in body must be of type integer or string"),
        ));
        return false;
    }
    let Some(wanted) = schema["type"].as_str() else {
        return true;
    };
    let fits = match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => is_integer(value),
        "number" => value.is_number(),
        _ => true,
    };
    if !fits {
        let is = Value::from(name_of_type(value));
        errors.push(FieldError::type_invalid(
            path,
            &is,
            format!("{path} in body must be of type {wanted}: {is}"),
        ));
    }
    fits
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|f| f.fract() == 0.0)
}

fn name_of_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_integer(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// The schema of a member.
fn member<'s>(schema: &'s Value, key: &str) -> Option<&'s Value> {
    let named = schema.get("properties").and_then(|p| p.get(key));
    named.or_else(|| schema.get("additionalProperties").filter(|a| a.is_object()))
}

fn prune(schema: &Value, value: &mut Value, path: &str, root: bool, pruned: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let keep_all = schema["x-kubernetes-preserve-unknown-fields"] == true
                || schema["additionalProperties"] == true
                || schema["x-kubernetes-int-or-string"] == true;
            let exempt = root || schema["x-kubernetes-embedded-resource"] == true;
            map.retain(|key, value| {
                if exempt && OBJECT_MEMBERS.contains(&key.as_str()) {
                    return true;
                }
                let path = join(path, key);
                match member(schema, key) {
                    Some(schema) => prune(schema, value, &path, false, pruned),
                    None if keep_all => {}
                    None => {
                        pruned.push(path);
                        return false;
                    }
                }
                true
            });
        }
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                for (i, item) in items.iter_mut().enumerate() {
                    prune(schema, item, &format!("{path}[{i}]"), false, pruned);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn default(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
                let Some(default) = schema.get("default") else {
                    continue;
                };
                let absent = map
                    .get(key)
                    .is_none_or(|v| v.is_null() && schema["nullable"] != true);
                if absent {
                    map.insert(key.clone(), default.clone());
                }
            }
            for (key, value) in map.iter_mut() {
                if let Some(schema) = member(schema, key) {
                    default(schema, value);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                items.iter_mut().for_each(|item| default(schema, item));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn each_pattern(schema: &Value, found: &mut impl FnMut(&str)) {
    match schema {
        Value::Object(map) => {
            if let Some(pattern) = map.get("pattern").and_then(Value::as_str) {
                found(pattern);
            }
            map.values().for_each(|s| each_pattern(s, found));
        }
        Value::Array(items) => items.iter().for_each(|s| each_pattern(s, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The patterns of a schema that are no regular expressions.
pub(crate) fn bad_patterns(schema: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    each_pattern(schema, &mut |pattern| {
        if let Err(error) = Regex::new(pattern) {
            let path = format!("{path}.schema.openAPIV3Schema");
            errors.push(FieldError::invalid(
                path,
                &pattern.into(),
                format!("must be a valid regular expression: {error}"),
            ));
        }
    });
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Schema {
        Schema::new(
            json!({ "type": "object", "required": ["spec"], "properties": { "spec": {
            "type": "object", "required": ["image"], "properties": {
                "image": { "type": "string", "pattern": "^[a-z]+$" },
                "replicas": { "type": "integer", "minimum": 1, "maximum": 10, "default": 2 },
                "mode": { "type": "string", "enum": ["a", "b"] },
                "port": { "x-kubernetes-int-or-string": true },
                "list": { "type": "array", "maxItems": 1, "items": { "type": "object", "properties": { "x": { "type": "string", "default": "y" } } } },
                "free": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
                "labels": { "type": "object", "additionalProperties": { "type": "string" } },
            } } } }),
        )
    }

    fn errors(spec: Value) -> Vec<String> {
        let value = json!({ "metadata": { "name": "a" }, "spec": spec });
        schema()
            .validate(&value)
            .iter()
            .map(|e| format!("{e:?}"))
            .collect()
    }

    #[test]
    fn violations_are_named() {
        assert!(
            errors(json!({ "image": "abc", "replicas": 3, "port": "http", "labels": { "a": "b" } }))
                .is_empty()
        );
        for (bad, expected) in [
            (json!({}), "spec.image"),
            (json!({ "image": "ABC" }), "should match"),
            (
                json!({ "image": "a", "replicas": 11 }),
                "less than or equal to 10",
            ),
            (
                json!({ "image": "a", "replicas": "x" }),
                "must be of type integer",
            ),
            (json!({ "image": "a", "mode": "c" }), "Unsupported value"),
            (json!({ "image": "a", "port": {} }), "integer or string"),
            (json!({ "image": "a", "list": [{}, {}] }), "at most 1 items"),
            (json!({ "image": "a", "labels": { "x": 1 } }), "spec.labels.x"),
        ] {
            let found = errors(bad);
            assert!(found.len() == 1 && found[0].contains(expected), "{found:?}");
        }
    }

    #[test]
    fn unknown_fields_go_and_defaults_come() {
        let mut value = json!({ "metadata": { "x": 1 }, "other": 1,
            "spec": { "image": "a", "foo": 1, "free": { "any": 1 }, "list": [{ "z": 1 }] } });
        assert_eq!(
            schema().prune(&mut value),
            ["other", "spec.foo", "spec.list[0].z"]
        );
        schema().default(&mut value);
        let spec = json!({ "image": "a", "free": { "any": 1 }, "list": [{ "x": "y" }], "replicas": 2 });
        assert_eq!(value, json!({ "metadata": { "x": 1 }, "spec": spec }));
    }
}
