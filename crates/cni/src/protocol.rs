// SPDX-License-Identifier: Apache-2.0
//! What plugin and agent say to one another on a stream socket: one [`Request`] per connection, one [`Reply`].
//!
//! Each is a frame: its length as a little-endian `u32`, then JSON. The descriptor of the container's network namespace comes
//! with the first byte of an ADD's or CHECK's frame (`SCM_RIGHTS`), so that the agent needs no path to it.

use std::io::{Read, Write};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{AddResult, Attachment, Error, Pod, PrevResult, Wishes, codes};

/// The protocol's version; an agent refuses every other one.
pub const VERSION: u32 = 1;
/// The largest frame: a GC with every attachment of a full node fits with room to spare.
pub const MAX_FRAME: usize = 4 << 20;
/// Directory beside the socket in which the plugin leaves DELs while the agent is down.
pub const DELETE_QUEUE_DIR: &str = "cni-deletes";
/// How many DELs may wait there.
pub const MAX_QUEUED_DELETES: usize = 4096;

/// A request to the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// What is asked for.
    #[serde(flatten)]
    pub call: Call,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "lowercase")]
pub enum Call {
    /// Attach; a descriptor comes with it.
    Add {
        /// Which attachment.
        #[serde(flatten)]
        attachment: Attachment,
        /// The pod, as far as it is known.
        pod: Pod,
        /// The path of the namespace; only to be repeated in the result and in errors.
        netns: String,
        /// What plugins after ours will do to the interface.
        #[serde(default)]
        wishes: Wishes,
        /// What the plugins before ours did, if there are any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        previous: Option<Box<PrevResult>>,
    },
    /// Detach.
    Del {
        /// Which attachment.
        #[serde(flatten)]
        attachment: Attachment,
    },
    /// Compare; a descriptor comes with it.
    Check {
        /// Which attachment.
        #[serde(flatten)]
        attachment: Attachment,
        /// The path of the namespace, for errors.
        netns: String,
        /// The addresses that ADD returned for the interface.
        addresses: Vec<IpAddr>,
    },
    /// Remove every attachment that is not listed.
    Gc {
        /// The network.
        network: String,
        /// The attachments to keep.
        valid: Vec<Attachment>,
    },
    /// Would ADD work?
    Status,
}

/// The agent's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// ADD worked.
    Added(AddResult),
    /// Any other verb worked, or an ADD that left everything to the plugins before ours.
    Done,
    /// It did not.
    Failed(Error),
}

/// Encodes one message with its length.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, Error> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message).map_err(|error| protocol_error(&error))?;
    let length = frame.len() - 4;
    if length > MAX_FRAME {
        return Err(too_long(length));
    }
    let length = u32::try_from(length).map_err(|error| protocol_error(&error))?;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    Ok(frame)
}

/// Writes one message.
pub fn write<T: Serialize>(to: &mut impl Write, message: &T) -> Result<(), Error> {
    to.write_all(&encode(message)?)
        .map_err(|error| io_error("write", &error))
}

/// Reads one message.
pub fn read<T: for<'a> Deserialize<'a>>(from: &mut impl Read) -> Result<T, Error> {
    let mut prefix = [0; 4];
    from.read_exact(&mut prefix)
        .map_err(|error| io_error("read", &error))?;
    let length = usize::try_from(u32::from_le_bytes(prefix)).unwrap_or(usize::MAX);
    if length > MAX_FRAME {
        return Err(too_long(length));
    }
    // The sender says the length: memory follows what really comes.
    let mut body = Vec::new();
    let read = from
        .take(length as u64)
        .read_to_end(&mut body)
        .map_err(|error| io_error("read", &error))?;
    if read < length {
        return Err(protocol_error(&format!(
            "the message ends after {read} of {length} bytes"
        )));
    }
    decode(&body)
}

/// Decodes the body of a frame.
pub fn decode<T: for<'a> Deserialize<'a>>(body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|error| protocol_error(&error))
}

/// Refuses a request of another protocol version.
pub fn check_version(request: &Request) -> Result<(), Error> {
    if request.version == VERSION {
        return Ok(());
    }
    Err(Error::new(
        codes::PROTOCOL,
        format!(
            "the plugin speaks version {} of the agent's protocol, the agent version {VERSION}",
            request.version
        ),
        "install thalweg-cni and thalweg of one release",
    ))
}

fn too_long(length: usize) -> Error {
    protocol_error(&format!(
        "a message of {length} bytes is over the limit of {MAX_FRAME}"
    ))
}

fn protocol_error(reason: &dyn std::fmt::Display) -> Error {
    Error::new(
        codes::PROTOCOL,
        format!("plugin and agent do not understand one another: {reason}"),
        "install thalweg-cni and thalweg of one release",
    )
}

fn io_error(what: &str, error: &std::io::Error) -> Error {
    Error::new(
        codes::IO_FAILURE,
        format!("{what} on the agent's socket: {error}"),
        "see the agent's log",
    )
}
