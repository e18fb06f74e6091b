// SPDX-License-Identifier: Apache-2.0
//! A request's query parameters.

use crate::status::{ApiError, Result};

/// The parameters, in their order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        Self(form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    /// A parameter's value; an empty one counts as none.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.first(key).filter(|v| !v.is_empty())
    }

    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(k, _)| k == key)
            .map(|(_, v)| v.as_str())
    }

    fn first(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    pub(crate) fn flag(&self, key: &str) -> bool {
        // `?watch` alone means true, as Go's conversion has it.
        self.first(key)
            .is_some_and(|v| !matches!(v, "0" | "false" | "False" | "F" | "f"))
    }

    pub(crate) fn number(&self, key: &str) -> Result<Option<u64>> {
        let parse = |v: &str| {
            v.parse()
                .map_err(|_| ApiError::bad_request(format!("invalid {key}: {v:?} is no number")))
        };
        self.get(key).map(parse).transpose()
    }
}
