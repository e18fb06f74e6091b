// SPDX-License-Identifier: Apache-2.0
//! Reviews: everybody who knows the token may do everything.

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use serde_json::json;

use super::{Context, FieldValidation, body, plain};
use crate::http::Body;
use crate::status::{ApiError, Result};

/// The one user.
const USER: &str = "thalweg-admin";

pub(super) fn handle(context: &Context, body: &Bytes) -> Result<Response<Body>> {
    if context.head.method != Method::POST || context.target.name.is_some() {
        return Err(ApiError::method_not_allowed());
    }
    let mut review = body::object(context, body, FieldValidation::Ignore)?.value;
    let user = json!({ "username": USER, "groups": ["system:masters", "system:authenticated"] });
    review["status"] = match context.resource.kind.as_str() {
        "SelfSubjectReview" => json!({ "userInfo": user }),
        "TokenReview" => {
            let known = review
                .pointer("/spec/token")
                .is_some_and(|t| *t == context.server.config.token.as_str());
            if known {
                json!({ "authenticated": true, "user": user })
            } else {
                json!({ "authenticated": false })
            }
        }
        "SelfSubjectRulesReview" => json!({
            "resourceRules": [{ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] }],
            "nonResourceRules": [{ "verbs": ["*"], "nonResourceURLs": ["*"] }],
            "incomplete": false,
        }),
        _ => json!({ "allowed": true }),
    };
    Ok(plain(StatusCode::CREATED, &review))
}
