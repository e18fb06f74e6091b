// SPDX-License-Identifier: Apache-2.0
//! Kubernetes' protobuf encoding, as far as clients send it: `kubectl create` and typed Go clients write built-in kinds so.
//!
//! Only requests are decoded; all clients take JSON for an answer. What the messages look like is in a table made from the
//! Go types, in `gen/messages.txt`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

/// The media type.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// What every encoded object begins with.
const MAGIC: &[u8] = b"k8s\0";
/// How deep messages may be within messages.
const MAX_DEPTH: usize = 32;

/// Why a body is no object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("the body does not begin with the protobuf envelope of Kubernetes")]
    NoEnvelope,
    #[error("the body ends within a field")]
    Truncated,
    #[error("{kind} of {api_version:?} is not known in protobuf: send it as JSON")]
    UnknownKind { api_version: String, kind: String },
    #[error("a field of {0} has the wrong wire type")]
    WireType(&'static str),
    #[error("messages are nested too deeply")]
    TooDeep,
}

type Result<T> = std::result::Result<T, DecodeError>;

struct Field {
    name: &'static str,
    number: u64,
    keep_zero: bool,
    kind: &'static str,
}

static MESSAGES: LazyLock<BTreeMap<&'static str, Vec<Field>>> = LazyLock::new(|| {
    let lines = include_str!("gen/messages.txt")
        .lines()
        .filter(|l| !l.starts_with('#'));
    lines
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?, words.filter_map(field).collect()))
        })
        .collect()
});

fn field(word: &'static str) -> Option<Field> {
    let (name, rest) = word.split_once('=')?;
    let (number, kind) = rest.split_once(':')?;
    let keep_zero = number.ends_with('!');
    Some(Field {
        name,
        number: number.trim_end_matches('!').parse().ok()?,
        keep_zero,
        kind,
    })
}

/// An object out of its envelope.
pub(crate) fn decode(body: &[u8]) -> Result<Value> {
    let envelope = body.strip_prefix(MAGIC).ok_or(DecodeError::NoEnvelope)?;
    let (mut type_meta, mut raw) = (&[][..], &[][..]);
    for part in Parts(envelope) {
        match part? {
            (1, Wire::Bytes(bytes)) => type_meta = bytes,
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let (mut api_version, mut kind) = (String::new(), String::new());
    for part in Parts(type_meta) {
        match part? {
            (1, Wire::Bytes(bytes)) => api_version = text(bytes),
            (2, Wire::Bytes(bytes)) => kind = text(bytes),
            _ => {}
        }
    }
    let name = message_name(&api_version, &kind);
    let (name, _) = MESSAGES
        .get_key_value(name.as_str())
        .ok_or_else(|| DecodeError::UnknownKind {
            api_version: api_version.clone(),
            kind: kind.clone(),
        })?;
    let mut object = message(name, raw, 0)?;
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), kind.into());
    Ok(Value::Object(object))
}

/// `apps.Deployment` for a Deployment of `apps/v1`.
fn message_name(api_version: &str, kind: &str) -> String {
    if kind == "DeleteOptions" {
        return "meta.DeleteOptions".into();
    }
    let group = api_version
        .split_once('/')
        .map_or("core", |(group, _)| group.split('.').next().unwrap_or(group));
    format!("{group}.{kind}")
}

enum Wire<'b> {
    Number(u64),
    Bytes(&'b [u8]),
}

/// The fields of a message, one after the other.
struct Parts<'b>(&'b [u8]);

impl<'b> Parts<'b> {
    fn number(&mut self) -> Result<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(DecodeError::Truncated)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Truncated)
    }

    fn take(&mut self, length: u64) -> Result<&'b [u8]> {
        let length = usize::try_from(length).map_err(|_| DecodeError::Truncated)?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn part(&mut self) -> Result<(u64, Wire<'b>)> {
        let tag = self.number()?;
        let wire = match tag & 7 {
            0 => Wire::Number(self.number()?),
            1 => Wire::Bytes(self.take(8)?),
            2 => {
                let length = self.number()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Bytes(self.take(4)?),
            _ => return Err(DecodeError::Truncated),
        };
        Ok((tag >> 3, wire))
    }
}

impl<'b> Iterator for Parts<'b> {
    type Item = Result<(u64, Wire<'b>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let part = self.part();
        if part.is_err() {
            self.0 = &[];
        }
        Some(part)
    }
}

fn message(name: &'static str, bytes: &[u8], depth: usize) -> Result<Map<String, Value>> {
    if depth > MAX_DEPTH {
        return Err(DecodeError::TooDeep);
    }
    let fields = MESSAGES.get(name).map_or(&[][..], Vec::as_slice);
    let mut object = Map::new();
    for part in Parts(bytes) {
        let (number, wire) = part?;
        let Some(field) = fields.iter().find(|f| f.number == number) else {
            continue;
        };
        if field.name.is_empty() {
            if let Value::Object(inlined) = value(name, field.kind, wire, depth)? {
                object.extend(inlined);
            }
        } else if let Some(kind) = field.kind.strip_prefix('*') {
            let item = value(name, kind, wire, depth)?;
            if let Value::Array(items) = object.entry(field.name).or_insert_with(|| json!([])) {
                items.push(item);
            }
        } else if let Some(kind) = field.kind.strip_prefix('%') {
            let (key, item) = entry(name, kind, wire, depth)?;
            if let Value::Object(map) = object.entry(field.name).or_insert_with(|| json!({})) {
                map.insert(key, item);
            }
        } else {
            let value = value(name, field.kind, wire, depth)?;
            // Go writes every field that is no pointer; its zero value means that nobody set it.
            if !value.is_null() && (field.keep_zero || !is_zero(&value)) {
                object.insert(field.name.into(), value);
            }
        }
    }
    Ok(object)
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_i64() == Some(0),
        Value::String(s) => s.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

fn entry(of: &'static str, kind: &'static str, wire: Wire<'_>, depth: usize) -> Result<(String, Value)> {
    let Wire::Bytes(bytes) = wire else {
        return Err(DecodeError::WireType(of));
    };
    let (mut key, mut item) = (String::new(), Value::Null);
    for part in Parts(bytes) {
        match part? {
            (1, Wire::Bytes(bytes)) => key = text(bytes),
            (2, wire) => item = value(of, kind, wire, depth)?,
            _ => {}
        }
    }
    // A value that is left out is an empty one.
    if item.is_null() {
        item = if kind == "s" || kind == "y" {
            "".into()
        } else {
            item
        };
    }
    Ok((key, item))
}

fn value(of: &'static str, kind: &'static str, wire: Wire<'_>, depth: usize) -> Result<Value> {
    let bytes = match (kind, wire) {
        ("i", Wire::Number(number)) => return Ok(number.cast_signed().into()),
        ("b", Wire::Number(number)) => return Ok((number != 0).into()),
        (_, Wire::Bytes(bytes)) => bytes,
        (_, Wire::Number(_)) => return Err(DecodeError::WireType(of)),
    };
    Ok(match kind {
        "i" | "b" => return Err(DecodeError::WireType(of)),
        "s" => text(bytes).into(),
        "y" => STANDARD.encode(bytes).into(),
        "T" => time(bytes, false)?,
        "U" => time(bytes, true)?,
        "D" => json!(format!("{}ns", numbers(bytes)?.first().copied().unwrap_or(0))),
        "Q" => strings(bytes)?.into_iter().next().unwrap_or_default().into(),
        "I" => int_or_string(bytes)?,
        "X" => strings(bytes)?.into(),
        "R" | "F" => raw(bytes)?,
        message_name => Value::Object(message(message_name, bytes, depth + 1)?),
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// All strings of a message.
fn strings(bytes: &[u8]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for part in Parts(bytes) {
        if let (_, Wire::Bytes(bytes)) = part? {
            found.push(text(bytes));
        }
    }
    Ok(found)
}

/// All numbers of a message.
fn numbers(bytes: &[u8]) -> Result<Vec<i64>> {
    let mut found = Vec::new();
    for part in Parts(bytes) {
        if let (_, Wire::Number(number)) = part? {
            found.push(number.cast_signed());
        }
    }
    Ok(found)
}

/// A time of which nothing is written is none.
fn time(bytes: &[u8], micro: bool) -> Result<Value> {
    let (mut seconds, mut nanos, mut some) = (0, 0, false);
    for part in Parts(bytes) {
        match part? {
            (1, Wire::Number(number)) => (seconds, some) = (number.cast_signed(), true),
            (2, Wire::Number(number)) => nanos = i32::try_from(number.cast_signed()).unwrap_or(0),
            _ => {}
        }
    }
    let time = Timestamp::new(seconds, nanos).ok().filter(|_| some);
    Ok(time.map_or(Value::Null, |t| {
        if micro {
            format!("{t:.6}").into()
        } else {
            t.to_string().into()
        }
    }))
}

fn int_or_string(bytes: &[u8]) -> Result<Value> {
    let (mut is_string, mut number, mut string) = (false, 0, String::new());
    for part in Parts(bytes) {
        match part? {
            (1, Wire::Number(kind)) => is_string = kind == 1,
            (2, Wire::Number(value)) => number = value.cast_signed(),
            (3, Wire::Bytes(bytes)) => string = text(bytes),
            _ => {}
        }
    }
    Ok(if is_string { string.into() } else { number.into() })
}

/// JSON within protobuf.
fn raw(bytes: &[u8]) -> Result<Value> {
    for part in Parts(bytes) {
        if let (1, Wire::Bytes(bytes)) = part? {
            return Ok(serde_json::from_slice(bytes).unwrap_or_default());
        }
    }
    Ok(Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A length-delimited field.
    fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
        let mut field = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
        field.extend_from_slice(content);
        field
    }

    fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [bytes(1, api_version.as_bytes()), bytes(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), bytes(1, &meta), bytes(2, raw)].concat()
    }

    #[test]
    fn a_config_map_is_read() {
        let metadata = [
            bytes(1, b"a"),
            bytes(2, b""),
            bytes(8, b""),
            bytes(11, &[bytes(1, b"k"), bytes(2, b"v")].concat()),
        ];
        let data = [bytes(1, b"x"), bytes(2, b"y")].concat();
        let raw = [
            bytes(1, &metadata.concat()),
            bytes(2, &data),
            bytes(3, &[bytes(1, b"b"), bytes(2, &[1, 2])].concat()),
        ];
        let expected = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a", "labels": { "k": "v" } },
            "data": { "x": "y" }, "binaryData": { "b": "AQI=" } });
        assert_eq!(
            decode(&envelope("v1", "ConfigMap", &raw.concat())).unwrap(),
            expected
        );
    }

    #[test]
    fn inlined_messages_numbers_and_times_are_read() {
        let volume = [bytes(1, b"v"), bytes(2, &bytes(2, b""))].concat();
        let port = [vec![2 << 3, 80], bytes(1, b"")].concat();
        let container = [bytes(1, b"c"), bytes(6, &[vec![3 << 3, 80], port].concat())].concat();
        let spec = [
            bytes(1, &volume),
            bytes(2, &container),
            vec![4 << 3, 0],
            vec![11 << 3, 0],
        ]
        .concat();
        let metadata = bytes(8, &[1 << 3, 5]);
        let pod = decode(&envelope(
            "v1",
            "Pod",
            &[bytes(1, &metadata), bytes(2, &spec)].concat(),
        ))
        .unwrap();
        assert_eq!(pod["metadata"]["creationTimestamp"], "1970-01-01T00:00:05Z");
        assert_eq!(pod["spec"]["volumes"], json!([{ "name": "v", "emptyDir": {} }]));
        assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 0);
        assert!(pod["spec"].get("hostNetwork").is_none());
        assert_eq!(
            pod["spec"]["containers"][0]["ports"][0],
            json!({ "hostPort": 80, "containerPort": 80 })
        );
    }

    #[test]
    fn garbage_is_refused() {
        assert_eq!(decode(b"{}"), Err(DecodeError::NoEnvelope));
        assert!(matches!(
            decode(&envelope("x/v1", "Y", &[])),
            Err(DecodeError::UnknownKind { .. })
        ));
        assert_eq!(
            decode(&envelope("v1", "Pod", &[0x0a, 0x7f])),
            Err(DecodeError::Truncated)
        );
        assert_eq!(
            decode(&envelope("v1", "Pod", &[1 << 3, 1])),
            Err(DecodeError::WireType("core.Pod"))
        );
    }
}
