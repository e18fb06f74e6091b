// SPDX-License-Identifier: Apache-2.0
//! What can go wrong with a lab.

use std::io;

/// A failure, with what to do about it where that is known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call or a file.
    #[error("cannot {operation}: {source}")]
    System {
        /// What was attempted, as in "create /run/thalweg-lab/lab".
        operation: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A link, an address, a route or a namespace.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// The Kubernetes API.
    #[error("cannot {operation}: {source}")]
    Kubernetes {
        /// What was attempted.
        operation: String,
        /// Why it failed.
        #[source]
        source: Box<kube::Error>,
    },
    /// What was asked for contradicts itself or what is there; the text says the remedy.
    #[error("{0}")]
    Refused(String),
    /// Something that was to happen did not; the text says what, why if known, and where to look.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    pub(crate) fn system(operation: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::System {
            operation: operation.into(),
            source: source.into(),
        }
    }

    /// A failed call of the Kubernetes API.
    #[must_use]
    pub fn kubernetes(operation: impl Into<String>, source: kube::Error) -> Self {
        Self::Kubernetes {
            operation: operation.into(),
            source: Box::new(source),
        }
    }
}

/// Adds what was attempted to a system error.
pub(crate) trait Doing<T> {
    fn doing(self, operation: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, operation: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::system(operation(), source))
    }
}
