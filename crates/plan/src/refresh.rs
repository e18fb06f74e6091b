// SPDX-License-Identifier: Apache-2.0
//! Instance limits from the cloud itself: an answer of EC2's DescribeInstanceTypes against the table.
//!
//! An answer may be one page of several or lack parts; what cannot be read is left out and named, and the table is kept
//! for everything that the answer does not say. Start with [`Answer::parse`] and [`refresh`].

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use crate::data::Provenance;
use crate::date::Date;
use crate::instance::{self, Hypervisor, Instance, InstanceTable};

/// An answer that cannot be used at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefreshError {
    /// No JSON, or cut off.
    #[error("this is no JSON ({0}); give what `aws ec2 describe-instance-types --output json` prints, whole")]
    NotJson(String),
    /// The API's refusal instead of an answer.
    #[error("EC2 refused: {0}; allow ec2:DescribeInstanceTypes, or try again later if it was throttled")]
    Refused(String),
    /// Another kind of document.
    #[error(
        "there is no list `InstanceTypes` in it; give what `aws ec2 describe-instance-types --output json` prints"
    )]
    NoList,
    /// Nothing readable.
    #[error("no instance type in it could be read{}", .first.as_ref().map(|skipped| format!(": {}: {}", skipped.name, skipped.reason)).unwrap_or_default())]
    Empty {
        /// The first that could not.
        first: Option<Skipped>,
    },
}

/// An entry that was left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Its name, or its place in the list.
    pub name: String,
    /// What it lacks.
    pub reason: String,
}

/// What EC2 said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The types that could be read.
    pub types: Vec<Instance>,
    /// Those that could not.
    pub skipped: Vec<Skipped>,
    /// Whether the answer says that there is more to come.
    pub partial: bool,
}

impl Answer {
    /// Reads an answer.
    ///
    /// # Errors
    /// It is no answer, a refusal, or nothing in it can be read.
    pub fn parse(text: &str) -> Result<Self, RefreshError> {
        let refusal = text.trim_start();
        if refusal.starts_with("An error occurred") {
            return Err(RefreshError::Refused(
                refusal.lines().next().unwrap_or_default().to_owned(),
            ));
        }
        let value: Value =
            serde_json::from_str(text).map_err(|error| RefreshError::NotJson(error.to_string()))?;
        if let Some(error) = refused(&value) {
            return Err(RefreshError::Refused(error));
        }
        let list = value
            .get("InstanceTypes")
            .and_then(Value::as_array)
            .ok_or(RefreshError::NoList)?;
        let mut answer = Self {
            types: Vec::new(),
            skipped: Vec::new(),
            partial: value
                .get("NextToken")
                .is_some_and(|token| !token.is_null() && token.as_str() != Some("")),
        };
        let mut names = BTreeSet::new();
        for (place, entry) in list.iter().enumerate() {
            match entry_of(entry) {
                // Of two with one name the first counts.
                Ok(instance) if names.insert(instance.name.clone()) => answer.types.push(instance),
                Ok(_) => {}
                Err(reason) => answer.skipped.push(Skipped {
                    name: text_of(entry, "/InstanceType")
                        .map_or_else(|| format!("entry {}", place + 1), str::to_owned),
                    reason,
                }),
            }
        }
        if answer.types.is_empty() {
            let first = answer.skipped.into_iter().next();
            return Err(RefreshError::Empty { first });
        }
        Ok(answer)
    }
}

/// The message of an error document in one of the API's forms.
fn refused(value: &Value) -> Option<String> {
    let error = value
        .pointer("/Error")
        .or_else(|| value.pointer("/Errors/0"))
        .unwrap_or(value);
    let code = error.get("Code").or_else(|| error.get("__type"))?.as_str()?;
    let message = error
        .get("Message")
        .or_else(|| error.get("message"))
        .and_then(Value::as_str);
    Some(message.map_or_else(|| code.to_owned(), |message| format!("{code}: {message}")))
}

fn text_of<'a>(entry: &'a Value, pointer: &str) -> Option<&'a str> {
    entry.pointer(pointer)?.as_str()
}

fn number<T: TryFrom<u64>>(entry: &Value, pointer: &str) -> Result<T, String> {
    let found = entry
        .pointer(pointer)
        .and_then(Value::as_u64)
        .ok_or_else(|| format!("no {pointer}"))?;
    T::try_from(found).map_err(|_| format!("{pointer} is {found}"))
}

fn entry_of(entry: &Value) -> Result<Instance, String> {
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let name = text_of(entry, "/InstanceType").filter(|name| !name.is_empty() && name.bytes().all(letters));
    let name = name.ok_or("no /InstanceType")?;
    let cards = cards_of(entry)?;
    let interfaces = match cards.as_slice() {
        [first, _, ..] => *first,
        _ => number(entry, "/NetworkInfo/MaximumNetworkInterfaces")?,
    };
    let ipv4_per_interface = number(entry, "/NetworkInfo/Ipv4AddressesPerInterface")?;
    if interfaces == 0 || ipv4_per_interface == 0 {
        return Err("no network interface".to_owned());
    }
    instance::plausible(interfaces, ipv4_per_interface)?;
    Ok(Instance {
        name: name.to_owned(),
        interfaces,
        ipv4_per_interface,
        vcpus: number(entry, "/VCpuInfo/DefaultVCpus").ok(),
        hypervisor: match text_of(entry, "/Hypervisor") {
            Some("nitro") => Hypervisor::Nitro,
            Some("xen") => Hypervisor::Xen,
            _ => Hypervisor::Unknown,
        },
        bare_metal: entry
            .pointer("/BareMetal")
            .and_then(Value::as_bool)
            .ok_or("no /BareMetal")?,
        cards: if cards.is_empty() { vec![interfaces] } else { cards },
        branch_interfaces: None,
    })
}

/// Interfaces on each card, the default card's first.
fn cards_of(entry: &Value) -> Result<Vec<u16>, String> {
    let Some(list) = entry
        .pointer("/NetworkInfo/NetworkCards")
        .and_then(Value::as_array)
    else {
        return Ok(Vec::new());
    };
    let mut cards = Vec::new();
    for card in list {
        cards.push(number::<u16>(card, "/MaximumNetworkInterfaces")?);
    }
    let default = number::<usize>(entry, "/NetworkInfo/DefaultNetworkCardIndex").unwrap_or(0);
    if default >= cards.len() && !cards.is_empty() {
        return Err(format!(
            "the default network card is {default} of {}",
            cards.len()
        ));
    }
    if default > 0 {
        cards.swap(0, default);
    }
    Ok(cards)
}

/// Which of the two is newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Newer {
    /// The answer: its values count.
    Answer,
    /// The table: only types that it lacks are taken from the answer.
    Table,
}

/// A type whose limits differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Its name.
    pub name: String,
    /// As the table had it.
    pub table: Instance,
    /// As the answer has it.
    pub answer: Instance,
}

/// How answer and table differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// The table's date.
    pub table_date: Date,
    /// The answer's.
    pub answer_date: Date,
    /// Which counts.
    pub newer: Newer,
    /// Whether the answer is one page of several.
    pub partial: bool,
    /// Types that only the answer has.
    pub added: Vec<String>,
    /// Types that differ.
    pub changed: Vec<Change>,
    /// Types that are equal.
    pub equal: usize,
    /// Types that only the table has: of other regions, retired, or on another page.
    pub only_table: usize,
    /// What could not be read.
    pub skipped: Vec<Skipped>,
}

/// Lays an answer of a day over a table. On equal dates the answer counts: it is the cloud's own word.
#[must_use]
pub fn refresh(table: &InstanceTable, answer: &Answer, date: Date) -> (InstanceTable, Comparison) {
    let old = table.provenance();
    let newer = if date >= old.date {
        Newer::Answer
    } else {
        Newer::Table
    };
    let mut comparison = Comparison {
        table_date: old.date,
        answer_date: date,
        newer,
        partial: answer.partial,
        added: Vec::new(),
        changed: Vec::new(),
        equal: 0,
        only_table: 0,
        skipped: answer.skipped.clone(),
    };
    let mut rows: Vec<Instance> = table.iter().cloned().collect();
    for found in &answer.types {
        let mut found = found.clone();
        match table.get(&found.name) {
            Err(_) => {
                comparison.added.push(found.name.clone());
                rows.push(found);
            }
            Ok(known) => {
                // The API does not say these; the table's stay.
                found.branch_interfaces = known.branch_interfaces;
                found.vcpus = found.vcpus.or(known.vcpus);
                if found == *known {
                    comparison.equal += 1;
                    continue;
                }
                comparison.changed.push(Change {
                    name: found.name.clone(),
                    table: known.clone(),
                    answer: found.clone(),
                });
                if newer == Newer::Answer {
                    rows.push(found);
                }
            }
        }
    }
    comparison.only_table = table.len() - comparison.equal - comparison.changed.len();
    // A part makes no table new; what is retired or of other regions is always missing, though.
    let whole = !answer.partial && comparison.only_table * 10 <= table.len();
    let mut sources = old.sources.clone();
    sources.push(format!(
        "DescribeInstanceTypes of {date}: {} types{}",
        answer.types.len(),
        if answer.partial {
            ", one page of several"
        } else {
            ""
        }
    ));
    let provenance = Provenance {
        sources,
        date: if whole { old.date.max(date) } else { old.date },
    };
    (InstanceTable::new(provenance, rows), comparison)
}

#[cfg(test)]
mod tests;
