// SPDX-License-Identifier: Apache-2.0
//! The forms in which objects can be asked for.

use crate::status::{ApiError, Result};

/// How objects are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Object,
    Table,
    PartialMetadata,
}

/// The first form of an `Accept` header that can be given.
pub(crate) fn negotiate(accept: &str) -> Result<Form> {
    if accept.trim().is_empty() {
        return Ok(Form::Object);
    }
    accept.split(',').find_map(form).ok_or_else(|| {
        let mut error = ApiError::unsupported_media(accept, "");
        error.code = http::StatusCode::NOT_ACCEPTABLE;
        error.reason = "NotAcceptable";
        error.message =
            "only the following media types are accepted: application/json, application/json;stream=watch"
                .into();
        error
    })
}

fn form(range: &str) -> Option<Form> {
    let mut parts = range.split(';').map(str::trim);
    if !matches!(parts.next()?, "application/json" | "*/*" | "application/*") {
        return None;
    }
    let parameters: Vec<(&str, &str)> = parts.filter_map(|p| p.split_once('=')).collect();
    let parameter = |key| parameters.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
    let ours = parameter("v") == Some("v1") && parameter("g") == Some("meta.k8s.io");
    match parameter("as") {
        None => Some(Form::Object),
        Some("Table") if ours => Some(Form::Table),
        Some("PartialObjectMetadata" | "PartialObjectMetadataList") if ours => Some(Form::PartialMetadata),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_form_that_can_be_given_is_taken() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let form = |accept| negotiate(accept).unwrap();
        assert_eq!(form(table), Form::Table);
        assert_eq!(
            form("application/json;as=Table;v=v1beta1;g=meta.k8s.io, application/json"),
            Form::Object
        );
        assert_eq!(form("application/vnd.kubernetes.protobuf, */*"), Form::Object);
        assert_eq!(
            form("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"),
            Form::PartialMetadata
        );
        assert!(negotiate("application/vnd.kubernetes.protobuf").is_err());
    }
}
