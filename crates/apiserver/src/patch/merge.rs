// SPDX-License-Identifier: Apache-2.0
//! RFC 7386.

use serde_json::Value;

use crate::value::Json;

/// Applies a merge patch.
pub(crate) fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    let target = target.map_mut();
    for (key, value) in patch {
        if value.is_null() {
            target.remove(&key);
        } else {
            merge(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_examples_of_the_rfc_hold() {
        for (mut target, patch, expected) in [
            (json!({ "a": "b" }), json!({ "a": "c" }), json!({ "a": "c" })),
            (
                json!({ "a": "b", "b": "c" }),
                json!({ "a": null }),
                json!({ "b": "c" }),
            ),
            (json!({ "a": ["b"] }), json!({ "a": "c" }), json!({ "a": "c" })),
            (
                json!({ "a": { "b": "c" } }),
                json!({ "a": { "b": "d", "c": null } }),
                json!({ "a": { "b": "d" } }),
            ),
            (
                json!({ "a": [{ "b": "c" }] }),
                json!({ "a": [1] }),
                json!({ "a": [1] }),
            ),
            (json!(["a", "b"]), json!(["c"]), json!(["c"])),
            (
                json!({ "e": null }),
                json!({ "a": 1 }),
                json!({ "e": null, "a": 1 }),
            ),
            (json!([1, 2]), json!({ "a": "b", "c": null }), json!({ "a": "b" })),
            (
                json!({}),
                json!({ "a": { "bb": { "ccc": null } } }),
                json!({ "a": { "bb": {} } }),
            ),
        ] {
            merge(&mut target, patch);
            assert_eq!(target, expected);
        }
    }
}
