// SPDX-License-Identifier: Apache-2.0
//! Error codes: 1 to 99 are the specification's, 100 and above are ours.

/// The configuration's `cniVersion` is not supported.
pub const INCOMPATIBLE_VERSION: u32 = 1;
/// The configuration holds a key that is not supported.
pub const UNSUPPORTED_FIELD: u32 = 2;
/// The container is unknown, or gone.
pub const UNKNOWN_CONTAINER: u32 = 3;
/// An environment variable is missing or wrong.
pub const INVALID_ENVIRONMENT: u32 = 4;
/// Input or output failed.
pub const IO_FAILURE: u32 = 5;
/// Bytes do not decode.
pub const DECODING_FAILURE: u32 = 6;
/// The configuration decodes but makes no sense.
pub const INVALID_NETWORK_CONFIG: u32 = 7;
/// The runtime should try again later.
pub const TRY_AGAIN_LATER: u32 = 11;
/// STATUS: ADD would fail now.
pub const NOT_AVAILABLE: u32 = 50;
/// STATUS: ADD would fail now, and running containers may have limited connectivity.
pub const NOT_AVAILABLE_LIMITED: u32 = 51;
/// Plugin and agent do not understand one another.
pub const PROTOCOL: u32 = 100;
/// No free address.
pub const POOL_EXHAUSTED: u32 = 101;
/// The kernel refused a step.
pub const KERNEL: u32 = 102;
/// CHECK found the attachment other than it should be.
pub const CHECK_FAILED: u32 = 103;
/// The name or address is in use by somebody else.
pub const CONFLICT: u32 = 104;
