// SPDX-License-Identifier: Apache-2.0
//! Versions of the specification.

use crate::{Error, codes};

/// A version of the CNI specification that the plugin speaks. Ordered by age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 0.3.0
    V0_3_0,
    /// 0.3.1
    V0_3_1,
    /// 0.4.0: brings CHECK.
    V0_4_0,
    /// 1.0.0: `ips` without `version`.
    V1_0_0,
    /// 1.1.0: brings GC and STATUS, and the MTU in results.
    V1_1_0,
}

impl Version {
    /// Every supported version, oldest first.
    pub const ALL: [Self; 5] = [
        Self::V0_3_0,
        Self::V0_3_1,
        Self::V0_4_0,
        Self::V1_0_0,
        Self::V1_1_0,
    ];
    /// The newest supported version.
    pub const NEWEST: Self = Self::V1_1_0;

    /// The version as the specification writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// Reads a version; one that is not supported is error 1.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|version| version.as_str() == text)
            .ok_or_else(|| {
                let known = Self::ALL.map(Self::as_str).join(", ");
                Error::new(
                    codes::INCOMPATIBLE_VERSION,
                    format!("cniVersion {text:?} is not supported"),
                    format!("use one of {known}"),
                )
            })
    }

    /// The answer to VERSION.
    #[must_use]
    pub fn reply(asked: Option<&str>) -> serde_json::Value {
        serde_json::json!({
            "cniVersion": asked.unwrap_or(Self::NEWEST.as_str()),
            "supportedVersions": Self::ALL.map(Self::as_str),
        })
    }
}
