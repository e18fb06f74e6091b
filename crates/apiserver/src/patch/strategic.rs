// SPDX-License-Identifier: Apache-2.0
//! Strategic merge patches: merge patches that know which lists are keyed, with their directives.

use serde_json::{Map, Value};

use super::shape::{ListKind, Shape};
use crate::status::{ApiError, Result};
use crate::value::Json;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

/// Applies a strategic merge patch.
pub(crate) fn merge(target: &mut Value, patch: Value, shape: Shape<'_>) -> Result<()> {
    let Value::Object(patch) = patch else {
        return Err(ApiError::bad_request(
            "a strategic merge patch has to be an object",
        ));
    };
    merge_map(target, patch, shape)
}

fn merge_map(target: &mut Value, mut patch: Map<String, Value>, shape: Shape<'_>) -> Result<()> {
    match patch
        .remove(DIRECTIVE)
        .as_ref()
        .map(|d| d.as_str().unwrap_or_default())
    {
        None | Some("merge") => {}
        Some("replace") => {
            *target = Value::Object(patch);
            return Ok(());
        }
        Some("delete") => {
            *target = Value::Object(Map::new());
            return Ok(());
        }
        Some(other) => {
            return Err(ApiError::bad_request(format!(
                "unrecognized {DIRECTIVE} directive {other:?}"
            )));
        }
    }
    let target = target.map_mut();
    if let Some(keep) = patch.remove(RETAIN_KEYS) {
        let keep: Vec<&str> = keep
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        target.retain(|key, _| keep.contains(&key.as_str()));
    }
    let (directives, members): (Vec<_>, Vec<_>) =
        patch.into_iter().partition(|(key, _)| key.starts_with('$'));
    for (key, value) in &directives {
        if let Some(list) = key.strip_prefix(DELETE_FROM)
            && let Some(items) = target.get_mut(list).and_then(Value::as_array_mut)
        {
            let gone = value.as_array().map_or(&[][..], Vec::as_slice);
            items.retain(|item| !gone.contains(item));
        }
    }
    for (key, value) in members {
        merge_member(target, &key, value, shape.member(&key))?;
    }
    for (key, order) in directives {
        if let Some(list) = key.strip_prefix(ELEMENT_ORDER)
            && let Some(items) = target.get_mut(list).and_then(Value::as_array_mut)
        {
            set_order(
                items,
                order.as_array().map_or(&[], Vec::as_slice),
                &shape.member(list).list_kind(),
            );
        }
    }
    Ok(())
}

fn merge_member(target: &mut Map<String, Value>, key: &str, value: Value, shape: Shape<'_>) -> Result<()> {
    match value {
        Value::Null => {
            target.remove(key);
            Ok(())
        }
        Value::Object(patch) => merge_map(target.entry(key).or_insert(Value::Null), patch, shape),
        Value::Array(patch) => {
            let slot = target.entry(key).or_insert(Value::Null);
            let current = match slot.take() {
                Value::Array(items) => items,
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
                    Vec::new()
                }
            };
            *slot = Value::Array(merge_list(current, patch, shape)?);
            Ok(())
        }
        scalar @ (Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
            target.insert(key.into(), scalar);
            Ok(())
        }
    }
}

fn merge_list(mut current: Vec<Value>, patch: Vec<Value>, shape: Shape<'_>) -> Result<Vec<Value>> {
    if patch
        .iter()
        .any(|p| p.get(DIRECTIVE).is_some_and(|d| d == "replace"))
    {
        return Ok(patch.into_iter().filter(|p| p.get(DIRECTIVE).is_none()).collect());
    }
    match shape.list_kind() {
        ListKind::Atomic => Ok(patch),
        ListKind::Set => {
            for item in patch {
                if !current.contains(&item) {
                    current.push(item);
                }
            }
            Ok(current)
        }
        ListKind::Keyed(keys) => {
            let key = keys.first().copied().unwrap_or_default();
            for item in patch {
                merge_item(&mut current, item, key, shape)?;
            }
            Ok(current)
        }
    }
}

fn merge_item(current: &mut Vec<Value>, item: Value, key: &str, shape: Shape<'_>) -> Result<()> {
    let id = item.get(key).cloned().filter(|id| !id.is_null()).ok_or_else(|| {
        ApiError::bad_request(format!("map: {item} does not contain declared merge key: {key}"))
    })?;
    let same = |i: &Value| i.get(key) == Some(&id);
    if item.get(DIRECTIVE).is_some_and(|d| d == "delete") {
        current.retain(|i| !same(i));
        return Ok(());
    }
    let Value::Object(patch) = item else { return Ok(()) };
    match current.iter_mut().find(|i| same(i)) {
        Some(existing) => merge_map(existing, patch, shape.item()),
        None => {
            let mut fresh = Value::Object(Map::new());
            merge_map(&mut fresh, patch, shape.item())?;
            current.push(fresh);
            Ok(())
        }
    }
}

/// Puts the items that the order names into that order; the others keep their places.
fn set_order(items: &mut [Value], order: &[Value], kind: &ListKind<'_>) {
    let rank = |item: &Value| match kind {
        ListKind::Keyed(keys) => {
            let key = keys.first().copied().unwrap_or_default();
            order
                .iter()
                .position(|o| o.get(key).is_some() && o.get(key) == item.get(key))
        }
        ListKind::Atomic | ListKind::Set => order.iter().position(|o| o == item),
    };
    let places: Vec<usize> = (0..items.len()).filter(|i| rank(&items[*i]).is_some()).collect();
    let mut named: Vec<Value> = places.iter().map(|i| items[*i].clone()).collect();
    named.sort_by_key(|item| rank(item));
    for (place, item) in places.into_iter().zip(named) {
        items[place] = item;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(mut target: Value, patch: Value) -> Value {
        let shape = Shape::Builtin {
            kind: "Deployment",
            parent: "",
            field: "",
        };
        merge(&mut target, patch, shape).unwrap();
        target
    }

    #[test]
    fn keyed_lists_are_merged_and_atomic_ones_replaced() {
        let target = json!({ "spec": { "containers": [{ "name": "a", "image": "1", "args": ["x"] }, { "name": "b" }] } });
        let patch = json!({ "spec": { "containers": [{ "name": "a", "image": "2", "args": ["y"] }, { "name": "c" }] } });
        let expected = json!({ "spec": { "containers": [{ "name": "a", "image": "2", "args": ["y"] }, { "name": "b" }, { "name": "c" }] } });
        assert_eq!(patched(target, patch), expected);
    }

    #[test]
    fn directives_delete_and_replace() {
        let target = || json!({ "spec": { "volumes": [{ "name": "a" }, { "name": "b" }], "nodeSelector": { "x": "1" } } });
        let delete = json!({ "spec": { "volumes": [{ "name": "a", "$patch": "delete" }] } });
        assert_eq!(
            patched(target(), delete).pointer("/spec/volumes"),
            Some(&json!([{ "name": "b" }]))
        );
        let replace = json!({ "spec": { "volumes": [{ "$patch": "replace" }, { "name": "z" }] } });
        assert_eq!(
            patched(target(), replace).pointer("/spec/volumes"),
            Some(&json!([{ "name": "z" }]))
        );
        let replace = json!({ "spec": { "nodeSelector": { "$patch": "replace", "y": "2" } } });
        assert_eq!(
            patched(target(), replace).pointer("/spec/nodeSelector"),
            Some(&json!({ "y": "2" }))
        );
        let retain = json!({ "spec": { "volumes": [{ "name": "a", "$retainKeys": ["name", "emptyDir"], "emptyDir": {} }] } });
        let with_host_path = json!({ "spec": { "volumes": [{ "name": "a", "hostPath": { "path": "/" } }] } });
        assert_eq!(
            patched(with_host_path, retain).pointer("/spec/volumes"),
            Some(&json!([{ "name": "a", "emptyDir": {} }]))
        );
    }

    #[test]
    fn primitive_lists_grow_and_shrink() {
        let target = json!({ "metadata": { "finalizers": ["a", "b"] } });
        let patch =
            json!({ "metadata": { "$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"] } });
        assert_eq!(
            patched(target, patch),
            json!({ "metadata": { "finalizers": ["b", "c"] } })
        );
    }

    #[test]
    fn the_element_order_is_honoured() {
        let target = json!({ "spec": { "containers": [{ "name": "a" }, { "name": "b" }] } });
        let patch = json!({ "spec": { "$setElementOrder/containers": [{ "name": "c" }, { "name": "b" }, { "name": "a" }],
                                      "containers": [{ "name": "c" }] } });
        let names = json!([{ "name": "c" }, { "name": "b" }, { "name": "a" }]);
        assert_eq!(patched(target, patch).pointer("/spec/containers"), Some(&names));
    }

    #[test]
    fn an_item_without_its_key_is_refused() {
        let shape = Shape::Builtin {
            kind: "Pod",
            parent: "",
            field: "",
        };
        let patch = json!({ "spec": { "containers": [{ "image": "x" }] } });
        assert!(
            merge(&mut json!({}), patch, shape)
                .unwrap_err()
                .message
                .contains("merge key: name")
        );
    }
}
