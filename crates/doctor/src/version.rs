// SPDX-License-Identifier: Apache-2.0
//! Version numbers of Kubernetes and of kernels, as they are written in the wild.

use std::fmt;

/// Major and minor number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

/// Text that holds no version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no version; one looks like 1.33, v1.33.4-eks-1234 or 6.12.40-63.114.amzn2023")]
pub struct VersionError(pub String);

impl Version {
    /// With these numbers.
    #[must_use]
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// Reads the first two numbers of `1.33`, `v1.33.4-eks-1234`, `6.12.40-63.114.amzn2023`, `7.2+deb14`.
    ///
    /// # Errors
    /// When the text does not begin with two numbers.
    pub fn parse(text: &str) -> Result<Self, VersionError> {
        let fail = || VersionError(text.chars().take(60).collect());
        let rest = text.trim();
        let rest = rest.strip_prefix('v').unwrap_or(rest);
        let (major, rest) = rest.split_once('.').ok_or_else(fail)?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        match (major.parse(), rest[..end].parse()) {
            (Ok(major), Ok(minor)) => Ok(Self { major, minor }),
            _ => Err(fail()),
        }
    }

    /// How many minor versions newer than `other` it is; `None` when the majors differ.
    #[must_use]
    pub fn minors_after(self, other: Self) -> Option<i64> {
        (self.major == other.major).then(|| i64::from(self.minor) - i64::from(other.minor))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn versions_are_read_as_they_are_written() {
        for (text, major, minor) in [
            ("1.33", 1, 33),
            ("v1.33.4-eks-1234", 1, 33),
            ("6.12.40-63.114.amzn2023.x86_64", 6, 12),
            ("7.2+deb14", 7, 2),
            (" 5.10.0-30-cloud-amd64\n", 5, 10),
        ] {
            assert_eq!(Version::parse(text), Ok(Version::new(major, minor)), "{text}");
        }
        for text in ["", "1", "v", "latest", "1.", ".5", "-1.2", "1.x", "99999999999.1"] {
            assert!(Version::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = Version::parse(&text);
        }
    }
}
