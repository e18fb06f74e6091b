// SPDX-License-Identifier: Apache-2.0
//! The CNI specification's types (versions 0.3.0 to 1.1.0) and the protocol between `thalweg-cni` and the agent.
//!
//! It opens no socket and reads no environment: bytes and values come in, typed values or an [`Error`] with the
//! specification's code go out. Start with [`Invocation::parse`] (what a runtime asked for) and [`protocol`] (what goes to
//! the agent).

pub mod codes;
mod conf;
mod env;
mod error;
mod name;
pub mod protocol;
mod release;
mod result;
mod version;
mod wishes;

pub use conf::{Dns, LogLevel, NETWORK_NAME, NetConf, PLUGIN_TYPE, ROLLBACK_PREFIX};
pub use env::{Command, Env, MAX_CONTAINER_ID, MAX_IFNAME, Pod, parse_args};
pub use error::Error;
pub use name::{HOST_IFNAME_PREFIX, host_ifname};
pub use release::{ABOUT, release_of};
pub use result::{AddResult, Interface, Ip, PrevResult, Route};
pub use version::Version;
pub use wishes::Wishes;

/// Where the agent listens unless the configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/thalweg/cni.sock";
/// The largest configuration that is read from standard input.
pub const MAX_STDIN: usize = 1 << 20;

/// One attachment of one container: what the specification identifies an attachment by, within one network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Attachment {
    /// Identifier that the runtime gave the container.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// Name of the interface inside the container.
    pub ifname: String,
}

/// A whole call of the plugin, checked: the environment and the configuration.
#[derive(Debug, Clone, PartialEq)]
pub enum Invocation {
    /// VERSION; the version that the caller named, if it named one.
    Version(Option<String>),
    /// Any verb that has a network configuration.
    Call(Env, Box<NetConf>),
}

impl Invocation {
    /// Reads a call from its environment variables (by `var`) and the bytes of standard input. Never panics, whatever the input:
    /// this is what the fuzzer runs.
    pub fn parse(var: impl Fn(&str) -> Option<String>, stdin: &[u8]) -> Result<Self, Error> {
        let command = Command::from_var(var("CNI_COMMAND").as_deref())?;
        if command == Command::Version {
            return Ok(Self::Version(conf::version_of(stdin)?));
        }
        let conf = NetConf::parse(stdin, command)?;
        let env = Env::parse(command, var)?;
        Ok(Self::Call(env, Box::new(conf)))
    }
}

#[cfg(test)]
mod tests;
