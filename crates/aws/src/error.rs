// SPDX-License-Identifier: Apache-2.0
//! Why there is no answer.

use std::time::Duration;

/// A client that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A region that is no name.
    #[error("`{0}` is no region of AWS; a region looks like eu-central-1")]
    Region(String),
    /// An endpoint that leads nowhere.
    #[error(
        "`{0}` is no endpoint; it looks like https://ec2.eu-central-1.amazonaws.com or http://127.0.0.1:5000"
    )]
    Endpoint(String),
    /// Nobody is trusted.
    #[error(
        "no certificates of authorities are installed ({0}); install ca-certificates, or set SSL_CERT_FILE"
    )]
    NoRoots(String),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] tokio_rustls::rustls::Error),
}

/// A question without an answer. Nothing is known then: half an answer is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Not allowed.
    #[error(
        "{action} was denied ({code}: {message}); allow {action}, which only reads, or take other credentials"
    )]
    Denied {
        /// The permission.
        action: String,
        /// AWS's code.
        code: String,
        /// AWS's words.
        message: String,
    },
    /// Too many requests in the account.
    #[error("{action} was throttled {attempts} times in a row ({code}); try again later")]
    Throttled {
        /// What was asked.
        action: String,
        /// How often.
        attempts: u32,
        /// AWS's code.
        code: String,
    },
    /// Any other refusal, such as of something that is not there.
    #[error("{action} was refused: {code}: {message}")]
    Refused {
        /// What was asked.
        action: String,
        /// AWS's code.
        code: String,
        /// AWS's words.
        message: String,
    },
    /// The endpoint cannot be reached.
    #[error("{action}: {endpoint} cannot be reached: {reason}")]
    Unreachable {
        /// What was asked.
        action: String,
        /// Whom.
        endpoint: String,
        /// Why not.
        reason: String,
    },
    /// It does not answer.
    #[error("{action}: {endpoint} has not answered in {} s", after.as_secs_f32())]
    Silent {
        /// What was asked.
        action: String,
        /// Whom.
        endpoint: String,
        /// How long was waited, each time.
        after: Duration,
    },
    /// The answer is not understood.
    #[error("{action}: the answer is not understood: {reason}")]
    Unreadable {
        /// What was asked.
        action: String,
        /// Why.
        reason: String,
    },
    /// Only the first pages came.
    #[error("{action}: only {pages} pages came, so the answer is not whole: {reason}")]
    Partial {
        /// What was asked.
        action: String,
        /// How many came.
        pages: usize,
        /// What happened then.
        reason: String,
    },
}

impl AskError {
    /// AWS's code, where it answered with one.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Denied { code, .. } | Self::Throttled { code, .. } | Self::Refused { code, .. } => {
                Some(code)
            }
            Self::Unreachable { .. }
            | Self::Silent { .. }
            | Self::Unreadable { .. }
            | Self::Partial { .. } => None,
        }
    }
}
