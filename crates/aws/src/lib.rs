// SPDX-License-Identifier: Apache-2.0
//! Questions to AWS, and nothing else: a [`Call`] is one of a fixed list, none of which changes anything.
//!
//! A [`Client`] signs a call (Signature Version 4), follows its pages, tries again when it is throttled, and returns what
//! the command line of AWS prints for the same question, so that a recorded answer and a live one are read by the same code.
//! An answer is whole or it is an error that says why there is none: see [`AskError`].
//!
//! It is no SDK. Keys come from the environment or from a profile that has keys ([`Credentials`]); roles to be assumed, single
//! sign-on and the metadata service are left to `aws configure export-credentials`.

mod answer;
mod call;
mod client;
mod credentials;
mod error;
mod sign;
mod xml;

pub use call::{Call, Filter, Service};
pub use client::{Client, Settings};
pub use credentials::{Credentials, CredentialsError, Profile};
pub use error::{AskError, ClientError};
