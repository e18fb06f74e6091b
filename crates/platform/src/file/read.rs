// SPDX-License-Identifier: Apache-2.0
//! Walks a YAML document and notes everything that is wrong with it, each with its path.

use std::fmt;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use ipnet::Ipv4Net;
use serde::Serialize;
use serde_yaml_ng::{Mapping, Value};

/// One thing that is wrong with a platform file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Where, such as `clusters[2].nodeGroups[0].max`.
    pub path: String,
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            write!(f, "{}; {}", self.reason, self.remedy)
        } else {
            write!(f, "{}: {}; {}", self.path, self.reason, self.remedy)
        }
    }
}

/// The problems in the order of their discovery.
#[derive(Debug, Default)]
pub(crate) struct Problems(pub(crate) Vec<Problem>);

impl Problems {
    pub(crate) fn add(
        &mut self,
        path: impl Into<String>,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.0.push(Problem {
            path: path.into(),
            reason: reason.into(),
            remedy: remedy.into(),
        });
    }
}

/// A mapping of the file, and where its absent keys are looked up instead.
pub(crate) struct Section<'a> {
    path: String,
    map: Option<&'a Mapping>,
    fallback: Option<(&'a Mapping, &'static str)>,
}

impl<'a> Section<'a> {
    /// Opens a mapping. What is no mapping, or has keys that are not in `known`, is noted.
    pub(crate) fn open(
        value: Option<&'a Value>,
        path: &str,
        known: &[&str],
        problems: &mut Problems,
    ) -> Self {
        let map = match value {
            None | Some(Value::Null) => None,
            Some(Value::Mapping(map)) => Some(map),
            Some(other) => {
                let reason = format!("{} is not a mapping of settings", kind(other));
                problems.add(
                    path,
                    reason,
                    format!("write settings such as `{}: …` below it", known[0]),
                );
                None
            }
        };
        let section = Self {
            path: path.to_owned(),
            map,
            fallback: None,
        };
        for key in map.into_iter().flat_map(Mapping::keys) {
            section.check_key(key, known, problems);
        }
        section
    }

    /// Looks absent keys up in `map`, which the file has at `path`.
    pub(crate) fn or_else(mut self, map: Option<&'a Mapping>, path: &'static str) -> Self {
        self.fallback = map.map(|map| (map, path));
        self
    }

    fn check_key(&self, key: &Value, known: &[&str], problems: &mut Problems) {
        let Value::String(name) = key else {
            problems.add(
                &self.path,
                format!("{} is not a setting's name", kind(key)),
                "use a word",
            );
            return;
        };
        if known.contains(&name.as_str()) {
            return;
        }
        let remedy = match nearest(name, known) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("settings here are {}", known.join(", ")),
        };
        problems.add(self.at(name), "there is no such setting", remedy);
    }

    /// The path of a key.
    pub(crate) fn at(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// A key's value and the path at which it really is.
    pub(crate) fn find(&self, key: &str) -> Option<(&'a Value, String)> {
        let present = |map: &'a Mapping| map.get(key).filter(|value| !value.is_null());
        if let Some(value) = self.map.and_then(present) {
            return Some((value, self.at(key)));
        }
        let (map, path) = self.fallback?;
        present(map).map(|value| (value, format!("{path}.{key}")))
    }

    /// A key's value.
    pub(crate) fn value(&self, key: &str) -> Option<&'a Value> {
        self.find(key).map(|(value, _)| value)
    }

    /// Text; numbers count as what they look like.
    pub(crate) fn text(&self, key: &str, problems: &mut Problems) -> Option<String> {
        let (value, path) = self.find(key)?;
        match scalar(value) {
            Some(text) => Some(text),
            None => {
                problems.add(
                    path,
                    format!("{} is not a text", kind(value)),
                    "write one word or a quoted text",
                );
                None
            }
        }
    }

    /// Text that has to be there.
    pub(crate) fn required(&self, key: &str, example: &str, problems: &mut Problems) -> Option<String> {
        if self.value(key).is_none() {
            problems.add(
                self.at(key),
                "is missing",
                format!("set it, for example `{key}: {example}`"),
            );
        }
        self.text(key, problems)
    }

    /// One of some words.
    pub(crate) fn choice<T: Copy>(
        &self,
        key: &str,
        choices: &[(&str, T)],
        problems: &mut Problems,
    ) -> Option<T> {
        let text = self.text(key, problems)?;
        let found = choices.iter().find(|(name, _)| *name == text);
        if let Some((_, value)) = found {
            return Some(*value);
        }
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        let hint =
            nearest(&text, &names).map_or_else(String::new, |meant| format!("did you mean `{meant}`? "));
        let path = self.find(key).map_or_else(|| self.at(key), |(_, path)| path);
        problems.add(
            path,
            format!("`{text}` is not known here"),
            format!("{hint}choose one of {}", names.join(", ")),
        );
        None
    }

    /// A number within a range.
    pub(crate) fn number(
        &self,
        key: &str,
        range: RangeInclusive<u32>,
        problems: &mut Problems,
    ) -> Option<u32> {
        let (value, path) = self.find(key)?;
        let number = scalar(value).and_then(|text| text.parse::<u32>().ok());
        match number.filter(|number| range.contains(number)) {
            Some(number) => Some(number),
            None => {
                let shown = scalar(value).unwrap_or_else(|| kind(value).to_owned());
                let remedy = format!("write a whole number from {} to {}", range.start(), range.end());
                problems.add(path, format!("`{shown}` does not fit"), remedy);
                None
            }
        }
    }

    /// Yes or no.
    pub(crate) fn boolean(&self, key: &str, problems: &mut Problems) -> Option<bool> {
        match self.find(key)? {
            (Value::Bool(truth), _) => Some(*truth),
            (other, path) => {
                problems.add(
                    path,
                    format!("{} is neither true nor false", kind(other)),
                    "write true or false",
                );
                None
            }
        }
    }

    /// A network in CIDR notation without host bits.
    pub(crate) fn network(&self, key: &str, problems: &mut Problems) -> Option<Ipv4Net> {
        let (value, path) = self.find(key)?;
        network(value, &path, problems)
    }

    /// One network or a list of them.
    pub(crate) fn networks(&self, key: &str, problems: &mut Problems) -> Vec<Ipv4Net> {
        self.items(key)
            .into_iter()
            .filter_map(|(value, path)| network(value, &path, problems))
            .collect()
    }

    /// Words.
    pub(crate) fn words(&self, key: &str, problems: &mut Problems) -> Vec<(String, String)> {
        let mut words = Vec::new();
        for (value, path) in self.items(key) {
            match scalar(value) {
                Some(word) => words.push((word, path)),
                None => problems.add(path, format!("{} is not a word", kind(value)), "write a word"),
            }
        }
        words
    }

    /// The items of a list, or a single value as a list of one.
    pub(crate) fn items(&self, key: &str) -> Vec<(&'a Value, String)> {
        match self.find(key) {
            None => Vec::new(),
            Some((Value::Sequence(values), path)) => values
                .iter()
                .enumerate()
                .map(|(index, value)| (value, format!("{path}[{index}]")))
                .collect(),
            Some((value, path)) => vec![(value, path)],
        }
    }
}

fn network(value: &Value, path: &str, problems: &mut Problems) -> Option<Ipv4Net> {
    let text = scalar(value).unwrap_or_else(|| kind(value).to_owned());
    let Ok(net) = text.parse::<Ipv4Net>() else {
        let remedy = "write an IPv4 network such as 10.0.0.0/16";
        problems.add(
            path,
            format!("`{text}` is not a network in CIDR notation"),
            remedy,
        );
        return None;
    };
    if net.trunc() != net {
        let reason = format!("`{text}` has host bits");
        problems.add(path, reason, format!("write {}", net.trunc()));
        return None;
    }
    if let Some(why) = unusable(net) {
        problems.add(
            path,
            format!("`{text}` {why}"),
            "take private addresses (RFC 1918, or 100.64.0.0/10)",
        );
        return None;
    }
    Some(net)
}

/// Ranges that no pod, node or service can have (RFC 6890).
fn unusable(net: Ipv4Net) -> Option<&'static str> {
    let within = |a, b, length| {
        Ipv4Net::new(Ipv4Addr::new(a, b, 0, 0), length)
            .is_ok_and(|special| special.contains(&net) || net.contains(&special))
    };
    if within(0, 0, 8) {
        Some("contains the network of no address")
    } else if within(127, 0, 8) {
        Some("contains loopback addresses")
    } else if within(169, 254, 16) {
        Some("contains link-local addresses, where the clouds' metadata services are")
    } else if within(224, 0, 4) {
        Some("contains multicast addresses")
    } else if within(240, 0, 4) {
        Some("contains addresses reserved for later use")
    } else {
        None
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => None,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Sequence(_) => "a list",
        Value::Mapping(_) => "a mapping",
        Value::Tagged(_) => "a tagged value",
    }
}

/// The known name that was probably meant: at most a third of its letters differ.
pub(crate) fn nearest<'k>(written: &str, known: &[&'k str]) -> Option<&'k str> {
    let lower = written.to_lowercase();
    known
        .iter()
        .map(|name| (distance(&lower, &name.to_lowercase()), *name))
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein's distance.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let substitute = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}
