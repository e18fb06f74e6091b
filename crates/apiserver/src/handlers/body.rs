// SPDX-License-Identifier: Apache-2.0
//! Request bodies into objects of their kind.

use http::header::CONTENT_TYPE;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value};

use super::{Context, FieldValidation};
use crate::fields::{self, Parsed};
use crate::protobuf;
use crate::resources::Resource;
use crate::status::{ApiError, Result};
use crate::value::{self, Json};
use crate::{admission, crd};

/// An object of its kind, and what there is to warn about.
pub(super) struct Decoded {
    pub(super) value: Value,
    pub(super) warnings: Vec<String>,
}

/// Parses a body by its content type.
pub(super) fn parse(content_type: &str, body: &[u8]) -> Result<Parsed> {
    let bad = |e| ApiError::bad_request(format!("couldn't get version/kind; json parse error: {e}"));
    match content_type.split(';').next().unwrap_or_default().trim() {
        "" | "application/json" => fields::from_json(body).map_err(bad),
        "application/yaml" | "application/apply-patch+yaml" => fields::from_json(body)
            .or_else(|_| fields::from_yaml(body))
            .map_err(|e| ApiError::bad_request(format!("error decoding YAML: {e}"))),
        protobuf::MEDIA_TYPE => {
            let value = protobuf::decode(body).map_err(|e| ApiError::bad_request(e.to_string()))?;
            Ok(Parsed {
                value,
                duplicates: Vec::new(),
            })
        }
        json if json.ends_with("+json") => {
            fields::from_json(body).map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))
        }
        other => Err(ApiError::unsupported_media(
            other,
            "application/json, application/yaml",
        )),
    }
}

/// A whole object out of a request's body.
pub(super) fn object(context: &Context, body: &[u8], validation: FieldValidation) -> Result<Decoded> {
    let mut parsed = parse(context.head.header(CONTENT_TYPE), body)?;
    check_kind(&context.resource, &parsed.value)?;
    let warnings = conform(
        &context.resource,
        &mut parsed.value,
        &parsed.duplicates,
        validation,
    )?;
    Ok(Decoded {
        value: parsed.value,
        warnings,
    })
}

/// The kind in the data has to be the path's; `kubectl` always sends it, other clients may leave it out.
pub(super) fn check_kind(resource: &Resource, value: &Value) -> Result<()> {
    if !value.is_object() {
        return Err(ApiError::bad_request(
            "the body of the request has to be an object",
        ));
    }
    let (version, kind) = (value.str_at("/apiVersion"), value.str_at("/kind"));
    let expected = resource.api_version();
    if !version.is_empty() && version != expected {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({expected})"
        )));
    }
    if !kind.is_empty() && kind != resource.kind {
        return Err(ApiError::bad_request(format!(
            "the kind in the data ({kind}) does not match the expected kind ({})",
            resource.kind
        )));
    }
    Ok(())
}

/// Makes an object one of its kind: unknown fields go, and are an error or a warning as the caller asked.
pub(super) fn conform(
    resource: &Resource,
    value: &mut Value,
    duplicates: &[String],
    validation: FieldValidation,
) -> Result<Vec<String>> {
    value["apiVersion"] = resource.api_version().into();
    value["kind"] = resource.kind.clone().into();
    let refuse = |why: String| {
        let (kind, version) = (&resource.kind, &resource.version);
        ApiError::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {kind}: {why}"
        ))
    };
    let unknown = match (&resource.custom, resource.check) {
        (Some(custom), _) => {
            let mut unknown = conform_metadata(value).map_err(&refuse)?;
            unknown.extend(custom.prune(value));
            unknown
        }
        (None, Some(check)) => {
            value::drop_nulls(value);
            // A field of a custom kind may be called `limits` or `capacity` without being a quantity.
            if resource.group_resource != crd::DEFINITIONS {
                admission::quantities_to_strings(value);
            }
            let unknown = check(value).map_err(&refuse)?;
            unknown.iter().for_each(|path| fields::remove(value, path));
            unknown.iter().map(|path| fields::display(path)).collect()
        }
        (None, None) => Vec::new(),
    };
    let problems: Vec<String> = duplicates
        .iter()
        .map(|path| format!("duplicate field \"{path}\""))
        .chain(unknown.iter().map(|path| format!("unknown field \"{path}\"")))
        .collect();
    match validation {
        FieldValidation::Strict if !problems.is_empty() => {
            Err(refuse(format!("strict decoding error: {}", problems.join(", "))))
        }
        FieldValidation::Warn => Ok(problems),
        FieldValidation::Strict | FieldValidation::Ignore => Ok(Vec::new()),
    }
}

/// The metadata of a custom object is that of every other one.
fn conform_metadata(value: &mut Value) -> Result<Vec<String>, String> {
    let metadata = &mut value["metadata"];
    value::drop_nulls(metadata);
    if metadata.is_null() {
        *metadata = Value::Object(Map::new());
    }
    let unknown = fields::check::<ObjectMeta>(metadata)?;
    unknown.iter().for_each(|path| fields::remove(metadata, path));
    Ok(unknown
        .iter()
        .map(|path| format!("metadata.{}", fields::display(path)))
        .collect())
}
