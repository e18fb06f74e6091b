// SPDX-License-Identifier: Apache-2.0
//! The part of JSONPath that printer columns use: members, indexes, `[*]` and `[?(@.a=="b")]`.

use serde_json::Value;

use crate::value;

/// The values that a path leads to.
pub(crate) fn select<'v>(root: &'v Value, path: &str) -> Vec<&'v Value> {
    let mut found = vec![root];
    let mut rest = path
        .trim()
        .trim_start_matches('{')
        .trim_end_matches('}')
        .trim_start_matches('$');
    while !rest.is_empty() {
        let Some((step, tail)) = Step::parse(rest) else {
            return Vec::new();
        };
        found = found.into_iter().flat_map(|v| step.apply(v)).collect();
        rest = tail;
    }
    found
}

enum Step<'p> {
    Member(String),
    Index(i64),
    All,
    Where {
        path: &'p str,
        equal: bool,
        value: &'p str,
    },
}

impl<'p> Step<'p> {
    /// The first step and what is behind it.
    fn parse(text: &'p str) -> Option<(Self, &'p str)> {
        if let Some(inner) = text.strip_prefix('[') {
            let end = if inner.starts_with("?(") {
                inner.find(")]")? + 1
            } else {
                inner.find(']')?
            };
            let (inside, tail) = (inner.get(..end)?, inner.get(end + 1..)?);
            return Some((Self::bracket(inside)?, tail));
        }
        let text = text.strip_prefix('.').unwrap_or(text);
        let mut name = String::new();
        let mut characters = text.char_indices();
        while let Some((at, c)) = characters.next() {
            match c {
                '.' | '[' => return Some((Self::named(name), &text[at..])),
                '\\' => name.extend(characters.next().map(|(_, c)| c)),
                c => name.push(c),
            }
        }
        Some((Self::named(name), ""))
    }

    fn named(name: String) -> Self {
        if name == "*" {
            Self::All
        } else {
            Self::Member(name)
        }
    }

    fn bracket(inside: &'p str) -> Option<Self> {
        if let Some(filter) = inside.strip_prefix("?(").and_then(|f| f.strip_suffix(')')) {
            let (path, equal, value) = match filter.split_once("==") {
                Some((path, value)) => (path, true, value),
                None => filter
                    .split_once("!=")
                    .map(|(path, value)| (path, false, value))?,
            };
            let path = path.trim().strip_prefix('@')?;
            return Some(Self::Where {
                path,
                equal,
                value: value.trim().trim_matches(['"', '\'']),
            });
        }
        if inside == "*" {
            return Some(Self::All);
        }
        if let Ok(index) = inside.parse() {
            return Some(Self::Index(index));
        }
        Some(Self::Member(inside.trim_matches(['"', '\'']).to_owned()))
    }

    fn apply<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        let items = value.as_array().map_or(&[][..], Vec::as_slice);
        match self {
            Self::Member(name) => value.get(name).into_iter().collect(),
            Self::Index(index) => {
                let place = if *index < 0 {
                    i64::try_from(items.len()).unwrap_or(0) + index
                } else {
                    *index
                };
                usize::try_from(place)
                    .ok()
                    .and_then(|i| items.get(i))
                    .into_iter()
                    .collect()
            }
            Self::All => value
                .as_object()
                .map_or_else(|| items.iter().collect(), |map| map.values().collect()),
            Self::Where { path, equal, value } => {
                let is = |item: &&Value| {
                    select(item, path)
                        .iter()
                        .any(|v| value::scalar(Some(v)) == *value)
                        == *equal
                };
                items.iter().filter(is).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_of_printer_columns_lead_to_values() {
        let object = json!({ "spec": { "a.b": 1, "list": [{ "n": "x" }, { "n": "y" }] },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }, { "type": "Other", "status": "False" }] } });
        let one = |path| select(&object, path).into_iter().cloned().collect::<Vec<_>>();
        assert_eq!(one(".spec.list[1].n"), [json!("y")]);
        assert_eq!(one(".spec.list[*].n"), [json!("x"), json!("y")]);
        assert_eq!(
            one(".status.conditions[?(@.type==\"Ready\")].status"),
            [json!("True")]
        );
        assert_eq!(
            one(".status.conditions[?(@.type=='Other')].status"),
            [json!("False")]
        );
        assert_eq!(one(r".spec.a\.b"), [json!(1)]);
        assert_eq!(one(".spec['a.b']"), [json!(1)]);
        assert_eq!(one(".spec.list[-1].n"), [json!("y")]);
        assert!(one(".nothing.here").is_empty() && one(".spec[").is_empty());
    }
}
