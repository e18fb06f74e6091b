// SPDX-License-Identifier: Apache-2.0
//! The error of the specification: a code, a line for people, details.

use serde::{Deserialize, Serialize};

use crate::Version;

/// What a failed call prints on standard output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{msg}{}{details} (CNI error {code})", if details.is_empty() { "" } else { "; " })]
pub struct Error {
    /// One of [`crate::codes`].
    pub code: u32,
    /// What failed, and why.
    pub msg: String,
    /// What to do about it; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

impl Error {
    /// An error with its remedy.
    pub fn new(code: u32, msg: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            code,
            msg: msg.into(),
            details: remedy.into(),
        }
    }

    /// The specification's form, for the version that the caller speaks.
    #[must_use]
    pub fn to_json(&self, version: Version) -> serde_json::Value {
        let mut value =
            serde_json::json!({"cniVersion": version.as_str(), "code": self.code, "msg": self.msg});
        if !self.details.is_empty() {
            value["details"] = self.details.as_str().into();
        }
        value
    }
}
