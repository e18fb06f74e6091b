// SPDX-License-Identifier: Apache-2.0
//! Where settings come from, and which source wins.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use serde_yaml_ng::Value;

use super::keys::{VARIABLE_PREFIX, find_in};
use super::{FILE_BYTES_MAX, Inputs, Key, Problem};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody said anything.
    Default,
    /// A configuration file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A flag, without its dashes.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag --{name}"),
        }
    }
}

/// A configuration file that has been read.
#[derive(Clone, Copy, Debug)]
pub struct File<'a> {
    /// Its name, for messages.
    pub path: &'a Path,
    /// Its content.
    pub content: &'a [u8],
}

/// A value before it is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Raw {
    Text(String),
    List(Vec<String>),
    /// Something that no setting is, such as a mapping.
    Unfit(String),
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) | Self::Unfit(text) => f.write_str(text),
            Self::List(items) => f.write_str(&items.join(",")),
        }
    }
}

/// All sources, the weakest first.
pub(super) struct Layers {
    keys: &'static [Key],
    hostname: Option<String>,
    file: BTreeMap<&'static str, (Raw, Source)>,
    environment: BTreeMap<&'static str, (Raw, Source)>,
    flags: BTreeMap<&'static str, (Raw, Source)>,
    pub(super) warnings: Vec<String>,
}

impl Layers {
    pub(super) fn collect(keys: &'static [Key], inputs: Inputs<'_>, problems: &mut Vec<Problem>) -> Self {
        let mut warnings = Vec::new();
        let flags = inputs.flags.into_iter().filter_map(|(path, value)| {
            let key = find_in(keys, path)?;
            Some((key.path, (Raw::Text(value), Source::Flag(key.flag()))))
        });
        Self {
            keys,
            hostname: inputs.hostname.map(str::to_ascii_lowercase),
            file: inputs
                .file
                .map(|file| read_file(keys, file, problems))
                .unwrap_or_default(),
            environment: read_environment(keys, inputs.environment, &mut warnings),
            flags: flags.collect(),
            warnings,
        }
    }

    /// The value in force and where it came from.
    pub(super) fn winner(&self, path: &'static str) -> (Raw, Source) {
        let given = [&self.flags, &self.environment, &self.file]
            .into_iter()
            .find_map(|layer| layer.get(path));
        given.cloned().unwrap_or_else(|| {
            let text = match (path, &self.hostname) {
                ("nodeName", Some(hostname)) => hostname.as_str(),
                _ => find_in(self.keys, path).map_or("", |key| key.default),
            };
            (Raw::Text(text.to_owned()), Source::Default)
        })
    }
}

fn read_environment(
    keys: &'static [Key],
    environment: Vec<(OsString, OsString)>,
    warnings: &mut Vec<String>,
) -> BTreeMap<&'static str, (Raw, Source)> {
    let known: BTreeMap<String, &'static str> = keys.iter().map(|key| (key.variable(), key.path)).collect();
    let mut found = BTreeMap::new();
    for (name, value) in environment {
        let Ok(name) = name.into_string() else { continue };
        if let Some(path) = known.get(&name) {
            let raw = value.into_string().map_or_else(
                |value| Raw::Unfit(value.to_string_lossy().into_owned()),
                Raw::Text,
            );
            found.insert(*path, (raw, Source::Environment(name)));
        } else if let Some(rest) = name.strip_prefix(VARIABLE_PREFIX)
            && !is_service_link(rest)
        {
            warnings.push(unknown_variable(&name, known.keys()));
        }
    }
    found
}

/// Kubernetes sets such variables for every Service of the pod's namespace: one named `thalweg-…` must not stop us,
/// which is also why an unknown variable is a warning where an unknown key is an error.
fn is_service_link(rest: &str) -> bool {
    rest.ends_with("SERVICE_HOST")
        || rest.contains("SERVICE_PORT")
        || rest.ends_with("PORT")
        || rest.contains("PORT_")
}

fn unknown_variable<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> String {
    let hint = nearest(name, known.map(String::as_str))
        .map_or_else(String::new, |near| format!("; did you mean {near}?"));
    format!("the environment variable {name} names no setting and is ignored{hint}")
}

fn read_file(
    keys: &'static [Key],
    file: File<'_>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<&'static str, (Raw, Source)> {
    let source = Source::File(file.path.to_owned());
    let mut found = BTreeMap::new();
    match parse_yaml(file.content) {
        Ok(Value::Null) => {}
        Ok(Value::Mapping(mapping)) => flatten((keys, ""), mapping, &source, &mut found, problems),
        Ok(_) => {
            let reason = "settings are expected, such as `mtu: 1500`, one per line".to_owned();
            problems.push(Problem::File { source, reason });
        }
        Err(reason) => problems.push(Problem::File { source, reason }),
    }
    found
}

fn parse_yaml(content: &[u8]) -> Result<Value, String> {
    if content.len() > FILE_BYTES_MAX {
        return Err(format!(
            "it has {} bytes, at most {FILE_BYTES_MAX} are read",
            content.len()
        ));
    }
    serde_yaml_ng::from_slice(content).map_err(|error| error.to_string())
}

fn flatten(
    (keys, prefix): (&'static [Key], &str),
    mapping: serde_yaml_ng::Mapping,
    source: &Source,
    found: &mut BTreeMap<&'static str, (Raw, Source)>,
    problems: &mut Vec<Problem>,
) {
    for (name, value) in mapping {
        let path = format!("{prefix}{}", raw(name));
        let is_section = keys.iter().any(|key| {
            key.path
                .strip_prefix(&path)
                .is_some_and(|rest| rest.starts_with('.'))
        });
        match (find_in(keys, &path), value) {
            (Some(_), Value::Null) => {}
            (Some(key), value) => {
                if found.insert(key.path, (raw(value), source.clone())).is_some() {
                    problems.push(Problem::Twice {
                        key: key.path,
                        source: source.clone(),
                    });
                }
            }
            (None, Value::Null) if is_section => {}
            (None, Value::Mapping(inner)) if is_section => {
                flatten((keys, &format!("{path}.")), inner, source, found, problems)
            }
            (None, _) => {
                let nearest = nearest(&path, keys.iter().map(|key| key.path));
                problems.push(Problem::UnknownKey {
                    key: path,
                    source: source.clone(),
                    nearest,
                });
            }
        }
    }
}

fn raw(value: Value) -> Raw {
    match value {
        Value::Null => Raw::Text(String::new()),
        Value::Bool(value) => Raw::Text(value.to_string()),
        Value::Number(value) => Raw::Text(value.to_string()),
        Value::String(value) => Raw::Text(value),
        // As text, in the form that such a setting has as a flag.
        Value::Sequence(items) if items.iter().any(Value::is_mapping) => {
            serde_json::to_string(&items).map_or_else(|error| Raw::Unfit(error.to_string()), Raw::Text)
        }
        Value::Sequence(items) => Raw::List(items.into_iter().map(|item| raw(item).to_string()).collect()),
        Value::Mapping(_) => Raw::Unfit("{…}".to_owned()),
        Value::Tagged(tagged) => Raw::Unfit(tagged.tag.to_string()),
    }
}

/// The candidate that was probably meant: about a third of the letters differ at most, from the whole name or from
/// its last part.
fn nearest<'a>(written: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let written: String = written.chars().take(64).flat_map(char::to_lowercase).collect();
    candidates
        .filter_map(|candidate| {
            let whole = candidate.to_lowercase();
            let last = whole.rsplit('.').next().unwrap_or_default();
            let forms = [whole.as_str(), last].map(|form| (distance(&written, form), form.len()));
            let (distance, length) = forms.into_iter().min()?;
            (distance * 3 <= length + 3).then_some((distance, candidate))
        })
        .min()
        .map(|(_, candidate)| candidate)
}

/// The edit distance of Levenshtein, by bytes.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.bytes().enumerate() {
            let substituted = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}
