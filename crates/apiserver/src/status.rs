// SPDX-License-Identifier: Apache-2.0
//! Errors as Kubernetes words them: `Status` objects.

use http::StatusCode;
use serde_json::{Value, json};

pub(crate) type Result<T, E = ApiError> = std::result::Result<T, E>;

/// An error that becomes a `Status` object.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    pub(crate) code: StatusCode,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    details: Option<Box<Value>>,
}

/// One reason for which an object is invalid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FieldError {
    reason: &'static str,
    path: String,
    message: String,
}

impl FieldError {
    pub(crate) fn required(path: impl Into<String>, detail: &str) -> Self {
        let message = if detail.is_empty() {
            "Required value".into()
        } else {
            format!("Required value: {detail}")
        };
        Self {
            reason: "FieldValueRequired",
            path: path.into(),
            message,
        }
    }

    pub(crate) fn invalid(path: impl Into<String>, value: &Value, detail: impl std::fmt::Display) -> Self {
        Self {
            reason: "FieldValueInvalid",
            path: path.into(),
            message: format!("Invalid value: {}: {detail}", shown(value)),
        }
    }

    pub(crate) fn unsupported(path: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let list = supported
            .iter()
            .map(|s| format!("\"{s}\""))
            .collect::<Vec<_>>()
            .join(", ");
        let message = format!("Unsupported value: {}: supported values: {list}", shown(value));
        Self {
            reason: "FieldValueNotSupported",
            path: path.into(),
            message,
        }
    }

    pub(crate) fn duplicate(path: impl Into<String>, value: &Value) -> Self {
        Self {
            reason: "FieldValueDuplicate",
            path: path.into(),
            message: format!("Duplicate value: {}", shown(value)),
        }
    }

    pub(crate) fn forbidden(path: impl Into<String>, detail: impl std::fmt::Display) -> Self {
        Self {
            reason: "FieldValueForbidden",
            path: path.into(),
            message: format!("Forbidden: {detail}"),
        }
    }

    pub(crate) fn type_invalid(
        path: impl Into<String>,
        value: &Value,
        detail: impl std::fmt::Display,
    ) -> Self {
        Self {
            reason: "FieldValueTypeInvalid",
            path: path.into(),
            message: format!("Invalid value: {}: {detail}", shown(value)),
        }
    }
}

/// A value as it stands in a message; objects and lists are only named, as Kubernetes does for long ones.
fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => "\"object\"".into(),
        Value::Array(_) => "\"array\"".into(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

impl ApiError {
    fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: None,
        }
    }

    fn about(mut self, resource: &str, name: &str) -> Self {
        let (kind, group) = resource.split_once('.').unwrap_or((resource, ""));
        let mut details = json!({ "name": name, "kind": kind });
        if !group.is_empty() {
            details["group"] = group.into();
        }
        self.details = Some(Box::new(details));
        self
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    /// `resource` is the group-resource: `pods`, `deployments.apps`.
    pub(crate) fn not_found(resource: &str, name: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            format!("{resource} \"{name}\" not found"),
        )
        .about(resource, name)
    }

    /// With details although there are none: `kubectl debug` looks into them unasked.
    pub(crate) fn no_such_path() -> Self {
        let mut error = Self::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            "the server could not find the requested resource",
        );
        error.details = Some(Box::new(json!({})));
        error
    }

    pub(crate) fn already_exists(resource: &str, name: &str) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "AlreadyExists",
            format!("{resource} \"{name}\" already exists"),
        )
        .about(resource, name)
    }

    pub(crate) fn conflict(resource: &str, name: &str, why: impl std::fmt::Display) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} \"{name}\": {why}");
        Self::new(StatusCode::CONFLICT, "Conflict", message).about(resource, name)
    }

    pub(crate) fn stale(resource: &str, name: &str) -> Self {
        Self::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// The conflicts of a server-side apply: `(manager, field)` pairs.
    pub(crate) fn apply_conflict(conflicts: &[(String, String)]) -> Self {
        let count = conflicts.len();
        let mut by_manager: Vec<(&str, Vec<&str>)> = Vec::new();
        for (manager, field) in conflicts {
            match by_manager.iter_mut().find(|(m, _)| m == manager) {
                Some((_, fields)) => fields.push(field),
                None => by_manager.push((manager, vec![field])),
            }
        }
        let plural = if count == 1 { "" } else { "s" };
        let message = match by_manager.as_slice() {
            [(manager, fields)] if fields.len() == 1 => {
                format!(
                    "Apply failed with 1 conflict: conflict with {manager}: {}",
                    fields.join("")
                )
            }
            _ => {
                let list = by_manager
                    .iter()
                    .map(|(m, fields)| {
                        format!(
                            "conflicts with {m}:\n{}",
                            fields
                                .iter()
                                .map(|f| format!("- {f}"))
                                .collect::<Vec<_>>()
                                .join("\n")
                        )
                    })
                    .collect::<Vec<_>>()
                    .join("\n");
                format!("Apply failed with {count} conflict{plural}: {list}")
            }
        };
        let causes = conflicts
            .iter()
            .map(|(m, f)| json!({ "reason": "FieldManagerConflict", "message": format!("conflict with {m}"), "field": f }))
            .collect::<Vec<_>>();
        let mut error = Self::new(StatusCode::CONFLICT, "Conflict", message);
        error.details = Some(Box::new(json!({ "causes": causes })));
        error
    }

    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    pub(crate) fn invalid(kind: &str, group: &str, name: &str, errors: &[FieldError]) -> Self {
        let qualified = if group.is_empty() {
            kind.to_owned()
        } else {
            format!("{kind}.{group}")
        };
        let mut list = errors
            .iter()
            .map(|e| format!("{}: {}", e.path, e.message))
            .collect::<Vec<_>>();
        list.dedup();
        let list = if list.len() == 1 {
            list.concat()
        } else {
            format!("[{}]", list.join(", "))
        };
        let mut error = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Invalid",
            format!("{qualified} \"{name}\" is invalid: {list}"),
        );
        let causes = errors
            .iter()
            .map(|e| json!({ "reason": e.reason, "message": e.message, "field": e.path }))
            .collect::<Vec<_>>();
        error.details = Some(Box::new(
            json!({ "name": name, "group": group, "kind": kind, "causes": causes }),
        ));
        error
    }

    pub(crate) fn forbidden(resource: &str, name: &str, why: impl std::fmt::Display) -> Self {
        let message = format!("{resource} \"{name}\" is forbidden: {why}");
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).about(resource, name)
    }

    /// The answer to a creation in a namespace that is being deleted; clients look for the cause.
    pub(crate) fn namespace_terminating(resource: &str, name: &str, namespace: &str) -> Self {
        let mut error = Self::forbidden(
            resource,
            name,
            format!("unable to create new content in namespace {namespace} because it is being terminated"),
        );
        if let Some(details) = &mut error.details {
            details["causes"] = json!([{ "reason": "NamespaceTerminating",
                "message": format!("namespace {namespace} is being terminated"), "field": "metadata.namespace" }]);
        }
        error
    }

    pub(crate) fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
    }

    pub(crate) fn unsupported_media(got: &str, supported: &str) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format ({got}) - accepted media types include: {supported}"
            ),
        )
    }

    pub(crate) fn too_large() -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            "request entity too large: limit is 3145728",
        )
    }

    pub(crate) fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
    }

    pub(crate) fn timeout(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message)
    }

    pub(crate) fn internal(message: impl std::fmt::Display) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalError",
            format!("Internal error occurred: {message}"),
        )
    }

    pub(crate) fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", message)
    }

    /// The `Status` object.
    pub(crate) fn to_value(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code.as_u16(),
        });
        if let Some(details) = &self.details {
            status["details"] = (**details).clone();
        }
        status
    }
}
