// SPDX-License-Identifier: Apache-2.0
//! The four kinds of patch.

pub(crate) mod apply;
pub(crate) mod field_set;
pub(crate) mod managed;
pub(crate) mod merge;
pub(crate) mod shape;
pub(crate) mod strategic;

use serde_json::Value;

use crate::status::{ApiError, Result};

/// A kind of patch, by its media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl Kind {
    pub(crate) fn of(content_type: &str) -> Option<Self> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Some(Self::Json),
            "application/merge-patch+json" => Some(Self::Merge),
            "application/strategic-merge-patch+json" => Some(Self::Strategic),
            "application/apply-patch+yaml" | "application/apply-patch+json" => Some(Self::Apply),
            _ => None,
        }
    }
}

/// RFC 6902. A test that fails leaves the document alone.
pub(crate) fn json(document: &mut Value, patch: Value) -> Result<()> {
    let patch: json_patch::Patch = serde_json::from_value(patch)
        .map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?;
    json_patch::patch(document, &patch)
        .map_err(|e| ApiError::unprocessable(format!("the patch cannot be applied: {e}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_json_patch_applies_whole_or_not_at_all() {
        let mut document = json!({ "a": 1, "b": [1, 2] });
        let failing = json!([{ "op": "replace", "path": "/a", "value": 2 }, { "op": "test", "path": "/b/0", "value": 9 }]);
        assert_eq!(json(&mut document, failing).unwrap_err().code, 422);
        assert_eq!(document, json!({ "a": 1, "b": [1, 2] }));
        let fine = json!([{ "op": "add", "path": "/b/-", "value": 3 }, { "op": "remove", "path": "/a" }]);
        json(&mut document, fine).unwrap();
        assert_eq!(document, json!({ "b": [1, 2, 3] }));
        assert_eq!(
            json(&mut document, json!({ "no": "list" })).unwrap_err().code,
            400
        );
    }

    #[test]
    fn kinds_are_known_by_media_type() {
        assert_eq!(
            Kind::of("application/apply-patch+yaml; charset=utf-8"),
            Some(Kind::Apply)
        );
        assert_eq!(Kind::of("application/json"), None);
    }
}
