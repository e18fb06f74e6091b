// SPDX-License-Identifier: Apache-2.0
//! The environment variables of a call.

use serde::{Deserialize, Serialize};

use crate::{Attachment, Error, codes};

/// The longest interface name that Linux takes (`IFNAMSIZ` less the final zero).
pub const MAX_IFNAME: usize = 15;
/// The longest container ID that is accepted: the ID is kept in the veth's alias, which holds 255 bytes.
pub const MAX_CONTAINER_ID: usize = 128;
/// The longest Kubernetes name or namespace.
const MAX_POD_FIELD: usize = 253;

/// `CNI_COMMAND`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Attach a container.
    Add,
    /// Detach it.
    Del,
    /// Is it as ADD left it?
    Check,
    /// Remove what no valid attachment owns.
    Gc,
    /// Would ADD work?
    Status,
    /// Which versions are supported?
    Version,
}

impl Command {
    /// Reads `CNI_COMMAND`.
    pub fn from_var(value: Option<&str>) -> Result<Self, Error> {
        Ok(match value {
            Some("ADD") => Self::Add,
            Some("DEL") => Self::Del,
            Some("CHECK") => Self::Check,
            Some("GC") => Self::Gc,
            Some("STATUS") => Self::Status,
            Some("VERSION") => Self::Version,
            None | Some("") => return Err(invalid("CNI_COMMAND is not set".into())),
            Some(other) => return Err(invalid(format!("CNI_COMMAND {other:?} is unknown"))),
        })
    }

    /// The word of the specification.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    const fn needs(self) -> &'static [&'static str] {
        match self {
            Self::Add | Self::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
            Self::Del => &["CNI_CONTAINERID", "CNI_IFNAME"],
            Self::Gc | Self::Status | Self::Version => &[],
        }
    }
}

/// The pod of a call as Kubernetes' runtimes name it in `CNI_ARGS`; empty fields where they do not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// `K8S_POD_NAMESPACE`
    #[serde(default)]
    pub namespace: String,
    /// `K8S_POD_NAME`
    #[serde(default)]
    pub name: String,
    /// `K8S_POD_UID`
    #[serde(default)]
    pub uid: String,
}

/// The checked environment of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Env {
    /// `CNI_COMMAND`
    pub command: Command,
    /// `CNI_CONTAINERID` and `CNI_IFNAME`; empty for GC and STATUS.
    pub attachment: Attachment,
    /// `CNI_NETNS`, if set and not empty.
    pub netns: Option<String>,
    /// From `CNI_ARGS`, of ADD.
    pub pod: Pod,
    /// `MAC` of `CNI_ARGS`: the hardware address that the pod's interface is to have.
    pub mac: Option<String>,
}

impl Env {
    /// Reads and checks what `command` needs.
    pub fn parse(command: Command, var: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let get = |key: &str| var(key).filter(|value| !value.is_empty());
        let missing: Vec<&str> = command
            .needs()
            .iter()
            .copied()
            .filter(|key| get(key).is_none())
            .collect();
        if !missing.is_empty() {
            return Err(invalid(format!(
                "{} needs {}, not set",
                command.as_str(),
                missing.join(", ")
            )));
        }
        let mut env = Self {
            command,
            attachment: Attachment {
                container_id: String::new(),
                ifname: String::new(),
            },
            netns: None,
            pod: Pod::default(),
            mac: None,
        };
        if command.needs().is_empty() {
            return Ok(env);
        }
        env.attachment.container_id = get("CNI_CONTAINERID").unwrap_or_default();
        env.attachment.ifname = get("CNI_IFNAME").unwrap_or_default();
        env.attachment.check()?;
        env.netns = get("CNI_NETNS");
        if command == Command::Add {
            let args = get("CNI_ARGS").unwrap_or_default();
            env.pod = parse_args(&args)?;
            let mac = args.split(';').find_map(|pair| pair.strip_prefix("MAC="));
            env.mac = mac.filter(|mac| !mac.is_empty()).map(str::to_owned);
        }
        Ok(env)
    }
}

impl Attachment {
    /// The specification's rules for container IDs and interface names, and our limit for the former.
    pub fn check(&self) -> Result<(), Error> {
        let Self { container_id, ifname } = self;
        if !is_identifier(container_id) {
            return Err(invalid(format!(
                "CNI_CONTAINERID {container_id:?} must begin with a letter or digit and hold only letters, digits, '_', '.' and '-'"
            )));
        }
        if container_id.len() > MAX_CONTAINER_ID {
            return Err(invalid(format!(
                "CNI_CONTAINERID has {} bytes, the limit is {MAX_CONTAINER_ID}",
                container_id.len()
            )));
        }
        let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        if ifname.is_empty()
            || ifname.len() > MAX_IFNAME
            || ifname == "."
            || ifname == ".."
            || ifname.contains(bad)
        {
            return Err(invalid(format!(
                "CNI_IFNAME {ifname:?} must have 1 to {MAX_IFNAME} bytes without '/', ':' or blanks, and not be '.' or '..'"
            )));
        }
        Ok(())
    }
}

/// Reads `CNI_ARGS` (`KEY=VALUE;KEY=VALUE`); keys that are not ours are left alone.
pub fn parse_args(args: &str) -> Result<Pod, Error> {
    let mut pod = Pod::default();
    for pair in args.split(';').filter(|pair| !pair.is_empty()) {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(invalid(format!("CNI_ARGS: {pair:?} is not KEY=VALUE")));
        };
        let field = match key {
            "K8S_POD_NAMESPACE" => &mut pod.namespace,
            "K8S_POD_NAME" => &mut pod.name,
            "K8S_POD_UID" => &mut pod.uid,
            _ => continue,
        };
        if value.len() > MAX_POD_FIELD || !value.is_empty() && !is_identifier(value) {
            return Err(invalid(format!(
                "CNI_ARGS: {key}={value:?} is not a Kubernetes name"
            )));
        }
        value.clone_into(field);
    }
    Ok(pod)
}

/// A letter or digit, then letters, digits, `_`, `.`, `-`: the rule for container IDs and network names.
pub(crate) fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

fn invalid(msg: String) -> Error {
    Error::new(
        codes::INVALID_ENVIRONMENT,
        msg,
        "the container runtime sets it; see its configuration and version",
    )
}
