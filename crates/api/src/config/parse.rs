// SPDX-License-Identifier: Apache-2.0
//! From text to value. A refusal says what is expected, so that it completes "… is not …".

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Component, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::layers::Raw;

/// The value, or what is expected instead.
pub(super) type Parsed<T> = Result<T, String>;

/// The longest name of a network device: `IFNAMSIZ` without its terminating zero.
const DEVICE_NAME_MAX: usize = 15;

/// The longest name of a Kubernetes object (RFC 1123 subdomain).
const NODE_NAME_MAX: usize = 253;

fn text<'a>(raw: &'a Raw, expected: &str) -> Parsed<&'a str> {
    match raw {
        Raw::Text(text) => Ok(text),
        Raw::List(_) | Raw::Unfit(_) => Err(expected.to_owned()),
    }
}

pub(super) fn node_name(raw: &Raw) -> Parsed<String> {
    let expected =
        "a node's name: small letters, digits, '-' and '.', beginning and ending with a letter or digit";
    let name = text(raw, expected)?;
    let alphanumeric = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    let good = alphanumeric(bytes.first())
        && alphanumeric(bytes.last())
        && bytes.len() <= NODE_NAME_MAX
        && bytes
            .iter()
            .all(|byte| alphanumeric(Some(byte)) || matches!(byte, b'-' | b'.'));
    if good {
        Ok(name.to_owned())
    } else {
        Err(expected.to_owned())
    }
}

pub(super) fn label(raw: &Raw) -> Parsed<String> {
    let expected = "a name of letters, digits, '-', '_' and '.'";
    let label = text(raw, expected)?;
    let good = label.len() <= NODE_NAME_MAX
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if good {
        Ok(label.to_owned())
    } else {
        Err(expected.to_owned())
    }
}

pub(super) fn path(raw: &Raw) -> Parsed<PathBuf> {
    optional_path(raw)?.ok_or_else(|| PATH.to_owned())
}

pub(super) fn optional_path(raw: &Raw) -> Parsed<Option<PathBuf>> {
    let text = text(raw, PATH)?;
    let path = PathBuf::from(text);
    let plain = !text.contains('\0') && !path.components().any(|part| part == Component::ParentDir);
    match text {
        "" => Ok(None),
        _ if path.is_absolute() && plain => Ok(Some(path)),
        _ => Err(PATH.to_owned()),
    }
}

const PATH: &str = "an absolute path without '..'";

pub(super) fn one_of<T: Copy>(raw: &Raw, choices: &[(&str, T)]) -> Parsed<T> {
    let expected = || match choices {
        [(only, _)] => format!("{only}, the one thing that this version knows"),
        _ => format!(
            "one of {}",
            choices
                .iter()
                .map(|(name, _)| *name)
                .collect::<Vec<_>>()
                .join(", ")
        ),
    };
    let text = text(raw, "").map_err(|_| expected())?;
    choices
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, value)| *value)
        .ok_or_else(expected)
}

pub(super) fn boolean(raw: &Raw) -> Parsed<bool> {
    one_of(raw, &[("true", true), ("false", false)])
}

fn number(raw: &Raw, range: &RangeInclusive<u32>) -> Option<u32> {
    text(raw, "")
        .ok()?
        .parse()
        .ok()
        .filter(|number| range.contains(number))
}

pub(super) fn zero_or(raw: &Raw, range: RangeInclusive<u32>) -> Parsed<Option<u32>> {
    match number(raw, &(0..=u32::MAX)) {
        Some(0) => Ok(None),
        Some(number) if range.contains(&number) => Ok(Some(number)),
        _ => Err(format!(
            "0 (automatic) or a number from {} to {}",
            range.start(),
            range.end()
        )),
    }
}

pub(super) fn count(raw: &Raw, range: RangeInclusive<u32>) -> Parsed<u32> {
    number(raw, &range).ok_or_else(|| format!("a number from {} to {}", range.start(), range.end()))
}

pub(super) fn port(raw: &Raw) -> Parsed<u16> {
    count(raw, 1..=u16::MAX.into()).map(|number| u16::try_from(number).unwrap_or(u16::MAX))
}

pub(super) fn seconds(raw: &Raw, range: RangeInclusive<u32>) -> Parsed<Duration> {
    number(raw, &range)
        .map(|seconds| Duration::from_secs(seconds.into()))
        .ok_or_else(|| format!("a number of seconds from {} to {}", range.start(), range.end()))
}

pub(super) fn ring_bytes(raw: &Raw) -> Parsed<u32> {
    number(raw, &(4096..=1 << 28))
        .filter(|bytes| bytes.is_power_of_two())
        .ok_or_else(|| "a power of two from 4096 to 268435456".to_owned())
}

pub(super) fn optional_socket_address(raw: &Raw) -> Parsed<Option<SocketAddr>> {
    let expected = "an address and port such as 127.0.0.1:9964 or [::]:9964, or empty for none";
    match text(raw, expected)? {
        "" => Ok(None),
        address => address.parse().map(Some).map_err(|_| expected.to_owned()),
    }
}

/// Ports below these are other services' by custom, and of NodePorts by default.
const MASQUERADE_PORT_LEAST: u16 = 32_768;

/// Two ports for masquerading, both included.
pub(super) fn port_range(raw: &Raw) -> Parsed<(u16, u16)> {
    ports_from(raw, MASQUERADE_PORT_LEAST, "49152-65535")
}

/// Two ports of services on every node, both included.
pub(super) fn node_port_range(raw: &Raw) -> Parsed<(u16, u16)> {
    ports_from(raw, 1, "30000-32767")
}

fn ports_from(raw: &Raw, least: u16, example: &str) -> Parsed<(u16, u16)> {
    let expected = || format!("a range of ports such as {example}, from {least} on");
    let text = text(raw, "a range of ports")?;
    let (first, last) = text.split_once('-').ok_or_else(expected)?;
    match (first.trim().parse(), last.trim().parse()) {
        (Ok(first), Ok(last)) if least <= first && first <= last => Ok((first, last)),
        _ => Err(expected()),
    }
}

pub(super) fn devices(raw: &Raw) -> Parsed<Vec<String>> {
    let expected = format!("a list of network devices with names of 1 to {DEVICE_NAME_MAX} bytes");
    let items: Vec<String> = match raw {
        Raw::Text(text) if text.is_empty() => Vec::new(),
        Raw::Text(text) => text.split(',').map(|item| item.trim().to_owned()).collect(),
        Raw::List(items) => items.clone(),
        Raw::Unfit(_) => return Err(expected),
    };
    let good = |item: &String| {
        (1..=DEVICE_NAME_MAX).contains(&item.len())
            && item != "."
            && item != ".."
            && !item.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control())
    };
    if items.iter().all(good) {
        Ok(items)
    } else {
        Err(expected)
    }
}

pub(super) fn networks(raw: &Raw) -> Parsed<Vec<IpNet>> {
    let expected = || "a list of networks such as 10.96.0.0/12".to_owned();
    let items: Vec<&str> = match raw {
        Raw::Text(text) if text.is_empty() => Vec::new(),
        Raw::Text(text) => text.split(',').map(str::trim).collect(),
        Raw::List(items) => items.iter().map(String::as_str).collect(),
        Raw::Unfit(_) => return Err(expected()),
    };
    let networks = items
        .iter()
        .map(|item| item.parse::<IpNet>().map(|net| net.trunc()));
    networks.collect::<Result<_, _>>().map_err(|_| expected())
}
