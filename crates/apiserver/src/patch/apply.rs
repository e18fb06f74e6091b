// SPDX-License-Identifier: Apache-2.0
//! Server-side apply: a structured merge of what one manager wants into what is there.

use serde_json::Value;

use super::field_set::{FieldSet, position};
use super::managed::{Identity, Managers};
use super::shape::{ListKind, Shape, same_item};
use crate::status::{ApiError, Result};
use crate::value::Json;

/// Merges a configuration into a live object; without force, a field that another manager set to another value is a
/// conflict. The result carries the new `managedFields`.
pub(crate) fn apply(
    live: &Value,
    config: &Value,
    shape: Shape<'_>,
    who: &Identity<'_>,
    force: bool,
) -> Result<Value> {
    let mut managers = Managers::of(live);
    let wanted = FieldSet::of_object(config, shape);
    let different = FieldSet::changed(live, config, shape);
    let conflicts = managers.conflicts(who, &wanted.intersection(&different));
    if !force && !conflicts.is_empty() {
        return Err(ApiError::apply_conflict(&conflicts));
    }
    managers.take(who, &wanted.intersection(&different));
    let previous = managers.replace(who, wanted.clone());

    let mut merged = merge(live, config, shape);
    let mut gone = previous;
    gone.subtract(&wanted);
    let others = managers.owned_by_others(who);
    remove(&mut merged, &gone, &others);
    managers.keep_existing(&merged);
    managers.store(&mut merged);
    Ok(merged)
}

fn merge(live: &Value, config: &Value, shape: Shape<'_>) -> Value {
    match (live, config) {
        (Value::Object(live), Value::Object(config)) if !shape.atomic_map() => {
            let mut merged = live.clone();
            for (key, value) in config {
                let before = live.get(key).unwrap_or(&Value::Null);
                merged.insert(key.clone(), merge(before, value, shape.member(key)));
            }
            Value::Object(merged)
        }
        (Value::Array(live), Value::Array(config)) => match shape.list_kind() {
            ListKind::Atomic => Value::Array(config.clone()),
            ListKind::Set => {
                let mut merged = live.clone();
                merged.extend(config.iter().filter(|i| !live.contains(i)).cloned());
                Value::Array(merged)
            }
            ListKind::Keyed(keys) => {
                let mut merged = live.clone();
                for item in config {
                    match merged.iter_mut().find(|m| same_item(m, item, &keys)) {
                        Some(slot) => *slot = merge(slot, item, shape.item()),
                        None => merged.push(item.clone()),
                    }
                }
                Value::Array(merged)
            }
        },
        (_, config) => config.clone(),
    }
}

/// Takes the fields out that the manager has given up and that nobody else owns.
fn remove(value: &mut Value, gone: &FieldSet, others: &FieldSet) {
    let nobody = FieldSet::default();
    for (key, child) in &gone.children {
        let owned_by_others = others.children.get(key).unwrap_or(&nobody);
        let whole = child.owned && owned_by_others.is_empty();
        if let Some(name) = key.strip_prefix("f:") {
            let Some(map) = value.as_object_mut() else {
                continue;
            };
            let Some(member) = map.get_mut(name) else { continue };
            if !whole {
                remove(member, child, owned_by_others);
            }
            if whole || is_bare(member) {
                map.remove(name);
            }
        } else if let Some(place) = position(value, key)
            && let Some(items) = value.as_array_mut()
        {
            if whole {
                items.remove(place);
            } else {
                remove(&mut items[place], child, owned_by_others);
            }
        }
    }
}

/// Whether removals have left nothing of a map or a list.
fn is_bare(value: &Value) -> bool {
    value.as_object().is_some_and(serde_json::Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

/// What an applied configuration may not hold.
pub(crate) fn check_config(config: &Value) -> Result<()> {
    if !config.meta("managedFields").is_null() {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SHAPE: Shape<'static> = Shape::Builtin {
        kind: "Deployment",
        parent: "",
        field: "",
    };

    fn who(manager: &str) -> Identity<'_> {
        Identity {
            manager,
            apply: true,
            api_version: "apps/v1",
            subresource: "",
        }
    }

    fn applied(live: &Value, config: &Value, manager: &str) -> Value {
        apply(live, config, SHAPE, &who(manager), false).unwrap()
    }

    fn plain(mut value: Value) -> Value {
        value["metadata"].as_object_mut().unwrap().remove("managedFields");
        value
    }

    #[test]
    fn what_a_manager_no_longer_wants_goes() {
        let first = json!({ "metadata": { "labels": { "a": "1", "b": "2" } }, "spec": { "replicas": 1 } });
        let live = applied(&Value::Null, &first, "me");
        let live = applied(
            &live,
            &json!({ "metadata": { "labels": { "a": "1" } }, "spec": { "replicas": 1 } }),
            "me",
        );
        assert_eq!(
            plain(live),
            json!({ "metadata": { "labels": { "a": "1" } }, "spec": { "replicas": 1 } })
        );
    }

    #[test]
    fn what_another_manager_owns_too_stays() {
        let config = json!({ "metadata": { "labels": { "a": "1" } }, "spec": { "replicas": 1 } });
        let live = applied(&applied(&Value::Null, &config, "me"), &config, "you");
        let live = applied(&live, &json!({ "metadata": { "labels": { "a": "1" } } }), "me");
        assert_eq!(plain(live)["spec"]["replicas"], 1);
    }

    #[test]
    fn a_field_of_another_value_is_a_conflict_unless_forced() {
        let live = applied(
            &Value::Null,
            &json!({ "metadata": {}, "spec": { "replicas": 1 } }),
            "me",
        );
        let config = json!({ "spec": { "replicas": 2 } });
        let error = apply(&live, &config, SHAPE, &who("you"), false).unwrap_err();
        assert_eq!(error.code, 409);
        assert_eq!(
            error.message,
            "Apply failed with 1 conflict: conflict with \"me\" using apps/v1: .spec.replicas"
        );
        let live = apply(&live, &config, SHAPE, &who("you"), true).unwrap();
        assert_eq!(live["spec"]["replicas"], 2);
        let managers = live["metadata"]["managedFields"].as_array().unwrap();
        assert_eq!((managers.len(), &managers[0]["manager"]), (1, &json!("you")));
    }

    #[test]
    fn containers_are_merged_by_name_and_leave_with_their_manager() {
        let mine = json!({ "metadata": {}, "spec": { "containers": [{ "name": "a", "image": "1" }] } });
        let yours = json!({ "spec": { "containers": [{ "name": "b", "image": "2", "ports": [{ "containerPort": 80 }] }] } });
        let live = applied(&applied(&Value::Null, &mine, "me"), &yours, "you");
        assert_eq!(live["spec"]["containers"].as_array().unwrap().len(), 2);
        let live = applied(&live, &json!({ "spec": { "replicas": 1 } }), "you");
        assert_eq!(
            plain(live)["spec"]["containers"],
            json!([{ "name": "a", "image": "1" }])
        );
    }

    #[test]
    fn the_same_configuration_twice_changes_nothing() {
        let config =
            json!({ "metadata": { "labels": { "a": "1" } }, "spec": { "containers": [{ "name": "a" }] } });
        let live = applied(&Value::Null, &config, "me");
        assert_eq!(applied(&live, &config, "me"), live);
    }
}
