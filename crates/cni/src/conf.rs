// SPDX-License-Identifier: Apache-2.0
//! The network configuration on standard input.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::env::is_identifier;
use crate::{Attachment, Command, DEFAULT_SOCKET, Error, PrevResult, Version, Wishes, codes};

/// The name of the network in the agent's conflist.
pub const NETWORK_NAME: &str = "thalweg";
/// What the names of configurations begin with that lead back to another network on purpose: they sort before everything else.
pub const ROLLBACK_PREFIX: &str = "00-rollback-";
/// The plugin's name: `type` in a conflist, and the program's file name.
pub const PLUGIN_TYPE: &str = "thalweg-cni";

/// Keys that the specification and its library define and that are not our business.
const FOREIGN_KEYS: [&str; 6] = [
    "args",
    "capabilities",
    "disableCheck",
    "disableGC",
    "runtimeConfig",
    "cniVersions",
];
/// Keys that [`NetConf::parse`] reads.
const OWN_KEYS: [&str; 9] = [
    "cniVersion",
    "name",
    "type",
    "dns",
    "ipMasq",
    "ipam",
    "prevResult",
    "socket",
    "log-level",
];
const VALID_ATTACHMENTS: &str = "cni.dev/valid-attachments";
/// The key that the specification once printed by mistake; libcni sends both.
const VALID_ATTACHMENTS_OLD: &str = "cni.dev/attachments";

/// DNS settings, handed on into the result.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Name servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Search domains.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Resolver options.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// What the plugin says on standard error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Nothing: errors are in the reply.
    #[default]
    Error,
    /// One line per call, with its duration.
    Debug,
}

/// A checked network configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct NetConf {
    /// `cniVersion`
    pub version: Version,
    /// The network's name.
    pub name: String,
    /// `dns`
    pub dns: Dns,
    /// `prevResult`: for CHECK and DEL what the whole chain returned, for ADD what the plugins before ours did.
    pub prev_result: Option<PrevResult>,
    /// The same as it came.
    pub prev_result_raw: Option<Value>,
    /// What plugins after ours will do to the interface.
    pub wishes: Wishes,
    /// `cni.dev/valid-attachments`: only GC has it, and GC has to have it.
    pub valid_attachments: Option<Vec<Attachment>>,
    /// `socket`: where the agent listens.
    pub socket: String,
    /// `log-level`
    pub log_level: LogLevel,
}

impl NetConf {
    /// Decodes and checks a configuration for one verb.
    pub fn parse(stdin: &[u8], command: Command) -> Result<Self, Error> {
        let mut map = decode(stdin)?;
        let version = Version::parse(&string(&map, "cniVersion")?.unwrap_or_else(|| "0.1.0".into()))?;
        verb_exists(command, version)?;
        let name = string(&map, "name")?.unwrap_or_default();
        if !is_identifier(&name) {
            return Err(bad_value(
                "name",
                &Value::from(name),
                "letters, digits, '_', '.' and '-'",
            ));
        }
        if command == Command::Del {
            map.retain(|key, value| is_needed_by_del(key, value));
        }
        refuse_unknown(&map)?;
        refuse_foreign_duties(&map)?;
        let conf = Self {
            version,
            name,
            dns: field(&mut map, "dns")?.unwrap_or_default(),
            wishes: Wishes::of(&map)?,
            prev_result_raw: map.get("prevResult").filter(|value| !value.is_null()).cloned(),
            prev_result: field(&mut map, "prevResult")?,
            valid_attachments: valid_attachments(&mut map)?,
            socket: string(&map, "socket")?.unwrap_or_else(|| DEFAULT_SOCKET.into()),
            log_level: field(&mut map, "log-level")?.unwrap_or_default(),
        };
        conf.check(command)?;
        Ok(conf)
    }

    fn check(&self, command: Command) -> Result<(), Error> {
        if !self.socket.starts_with('/') {
            return Err(bad_value(
                "socket",
                &self.socket.as_str().into(),
                "an absolute path",
            ));
        }
        match (command, &self.prev_result, &self.valid_attachments) {
            (Command::Check, None, _) => Err(Error::new(
                codes::INVALID_NETWORK_CONFIG,
                "CHECK needs prevResult, the result of the ADD",
                "the container runtime passes it; see its version",
            )),
            (Command::Gc, _, None) => Err(Error::new(
                codes::INVALID_NETWORK_CONFIG,
                format!("GC needs {VALID_ATTACHMENTS}"),
                "the container runtime passes it; nothing was removed",
            )),
            _ => Ok(()),
        }
    }
}

/// The version that the caller of VERSION names; old callers pass nothing at all.
pub(crate) fn version_of(stdin: &[u8]) -> Result<Option<String>, Error> {
    if stdin.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    string(&decode(stdin)?, "cniVersion")
}

fn decode(stdin: &[u8]) -> Result<Map<String, Value>, Error> {
    serde_json::from_slice(stdin).map_err(|error| {
        Error::new(
            codes::DECODING_FAILURE,
            format!(
                "the network configuration on standard input ({} bytes) is not a JSON object: {error}",
                stdin.len()
            ),
            "the container runtime passes it from /etc/cni/net.d",
        )
    })
}

fn verb_exists(command: Command, version: Version) -> Result<(), Error> {
    let since = match command {
        Command::Check => Version::V0_4_0,
        Command::Gc | Command::Status => Version::V1_1_0,
        Command::Add | Command::Del | Command::Version => Version::V0_3_0,
    };
    if version >= since {
        return Ok(());
    }
    Err(Error::new(
        codes::INCOMPATIBLE_VERSION,
        format!(
            "{} does not exist in cniVersion {}",
            command.as_str(),
            version.as_str()
        ),
        format!("set cniVersion to {} or later", since.as_str()),
    ))
}

/// A configuration that somebody has spoiled since the ADD must not keep a pod from being deleted: DEL needs to find the agent
/// and nothing else.
fn is_needed_by_del(key: &str, value: &Value) -> bool {
    match key {
        "cniVersion" | "name" | "socket" => true,
        "log-level" => LogLevel::deserialize(value).is_ok(),
        _ => false,
    }
}

/// A key without a namespace that nobody defines is a mistake in our section; `example.com/key` belongs to somebody else.
fn refuse_unknown(map: &Map<String, Value>) -> Result<(), Error> {
    let known = |key: &str| OWN_KEYS.contains(&key) || FOREIGN_KEYS.contains(&key) || key.contains('/');
    let Some((key, value)) = map.iter().find(|(key, _)| !known(key)) else {
        return Ok(());
    };
    Err(unsupported(
        key,
        value,
        &format!("remove it; {PLUGIN_TYPE} knows \"socket\" and \"log-level\", the rest is set in the agent"),
    ))
}

/// Addresses and masquerading are the agent's: a section that asks for something else must not be passed over.
fn refuse_foreign_duties(map: &Map<String, Value>) -> Result<(), Error> {
    match map.get("ipam") {
        None | Some(Value::Null) => {}
        Some(Value::Object(ipam)) if ipam.is_empty() => {}
        Some(other) => {
            return Err(unsupported(
                "ipam",
                other,
                "remove it; the agent gives the addresses (its ipam.mode)",
            ));
        }
    }
    match map.get("ipMasq") {
        None | Some(Value::Null | Value::Bool(false)) => Ok(()),
        Some(other) => Err(unsupported(
            "ipMasq",
            other,
            "remove it; the plugin does not masquerade",
        )),
    }
}

fn valid_attachments(map: &mut Map<String, Value>) -> Result<Option<Vec<Attachment>>, Error> {
    let new = field::<Vec<Attachment>>(map, VALID_ATTACHMENTS)?;
    let old = field::<Vec<Attachment>>(map, VALID_ATTACHMENTS_OLD)?;
    Ok(new.or(old))
}

fn string(map: &Map<String, Value>, key: &str) -> Result<Option<String>, Error> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(bad_value(key, other, "a string")),
    }
}

fn field<T: for<'a> Deserialize<'a>>(map: &mut Map<String, Value>, key: &str) -> Result<Option<T>, Error> {
    let Some(value) = map.remove(key).filter(|value| !value.is_null()) else {
        return Ok(None);
    };
    serde_json::from_value(value).map(Some).map_err(|error| {
        Error::new(
            codes::DECODING_FAILURE,
            format!("key {key:?} of the network configuration: {error}"),
            "see the CNI specification for its form",
        )
    })
}

fn bad_value(key: &str, value: &Value, wanted: &str) -> Error {
    Error::new(
        codes::INVALID_NETWORK_CONFIG,
        format!("key {key:?} of the network configuration is {}", shorten(value)),
        format!("make it {wanted}"),
    )
}

fn unsupported(key: &str, value: &Value, remedy: &str) -> Error {
    let msg = format!(
        "key {key:?} with value {} is not supported in the network configuration",
        shorten(value)
    );
    Error::new(codes::UNSUPPORTED_FIELD, msg, remedy)
}

/// Values of users in error texts are cut here.
fn shorten(value: &Value) -> String {
    const MAX: usize = 80;
    let text = value.to_string();
    if text.chars().count() <= MAX {
        text
    } else {
        text.chars().take(MAX).chain(['…']).collect()
    }
}
