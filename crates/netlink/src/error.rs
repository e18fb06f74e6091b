// SPDX-License-Identifier: Apache-2.0
//! What can go wrong, always with the operation and its object.

use std::io;

use nix::errno::Errno;

/// A netlink, namespace or sysctl operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a request.
    #[error("{operation}: {}{}", .errno.desc(), Explained(.message))]
    Kernel {
        /// Operation and object, as in "create veth tw0123456789ab".
        operation: String,
        /// The kernel's reason.
        errno: Errno,
        /// The kernel's explanation (extended acknowledgement), when it gave one.
        message: Option<String>,
    },
    /// A system call other than a netlink request failed.
    #[error("{operation}: {source}")]
    System {
        /// Operation and object, as in "open network namespace /run/netns/x".
        operation: String,
        /// The reason.
        source: io::Error,
    },
    /// The kernel's answer does not have the shape that the request asks for.
    #[error("{operation}: the kernel's answer cannot be read: {reason}")]
    Answer {
        /// Operation and object.
        operation: String,
        /// What is wrong with the answer.
        reason: &'static str,
    },
}

impl Error {
    pub(crate) fn system(operation: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::System {
            operation: operation.into(),
            source: source.into(),
        }
    }

    pub(crate) fn answer(operation: &str, reason: &'static str) -> Self {
        Self::Answer {
            operation: operation.to_owned(),
            reason,
        }
    }

    /// The error number, if the kernel gave one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Kernel { errno, .. } => Some(*errno),
            Self::System { source, .. } => source.raw_os_error().map(Errno::from_raw),
            Self::Answer { .. } => None,
        }
    }

    /// Whether the object exists already.
    #[must_use]
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(Errno::EEXIST)
    }

    /// Whether the object is not there: what a deletion treats as success.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(
            self.errno(),
            Some(Errno::ENODEV | Errno::ENOENT | Errno::ESRCH | Errno::ENXIO | Errno::EADDRNOTAVAIL)
        )
    }
}

struct Explained<'a>(&'a Option<String>);

impl std::fmt::Display for Explained<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(text) => write!(f, " ({text})"),
            None => Ok(()),
        }
    }
}

/// Turns "deleted, or was absent" into a boolean.
pub(crate) fn absent_is_false(result: Result<(), Error>) -> Result<bool, Error> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.is_absent() => Ok(false),
        Err(error) => Err(error),
    }
}
