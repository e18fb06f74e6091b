// SPDX-License-Identifier: Apache-2.0
//! Label and field selectors, parsed from a query and matched against stored objects.

use crate::resources::Resource;
use crate::status::{ApiError, Result};
use crate::store::Object;

/// What a list or a watch wants. The default matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    labels: Vec<LabelRequirement>,
    fields: Vec<FieldRequirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct LabelRequirement {
    key: String,
    op: LabelOp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum LabelOp {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    Greater(i64),
    Less(i64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct FieldRequirement {
    source: FieldSource,
    equal: bool,
    value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FieldSource {
    Name,
    Namespace,
    /// An index into the resource's selectable fields.
    Selectable(usize),
}

impl Selector {
    pub(crate) fn parse(labels: Option<&str>, fields: Option<&str>, resource: &Resource) -> Result<Self> {
        Ok(Self {
            labels: labels.map_or(Ok(Vec::new()), parse_labels)?,
            fields: fields.map_or(Ok(Vec::new()), |f| parse_fields(f, resource))?,
        })
    }

    /// The one name it asks for, if it does.
    pub(crate) fn name(&self) -> Option<&str> {
        let by_name = |f: &&FieldRequirement| f.source == FieldSource::Name && f.equal;
        self.fields.iter().find(by_name).map(|f| f.value.as_str())
    }

    pub(crate) fn matches(&self, object: &Object) -> bool {
        let labels = |key: &str| object.labels.get(key).map(|v| &**v);
        self.labels.iter().all(|r| r.matches(labels(&r.key))) && self.fields.iter().all(|r| r.matches(object))
    }
}

impl LabelRequirement {
    fn matches(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match &self.op {
            LabelOp::In(values) => value.is_some_and(|v| values.iter().any(|w| w == v)),
            LabelOp::NotIn(values) => value.is_none_or(|v| !values.iter().any(|w| w == v)),
            LabelOp::Exists => value.is_some(),
            LabelOp::Absent => value.is_none(),
            LabelOp::Greater(than) => number().is_some_and(|n| n > *than),
            LabelOp::Less(than) => number().is_some_and(|n| n < *than),
        }
    }
}

impl FieldRequirement {
    fn matches(&self, object: &Object) -> bool {
        let value = match self.source {
            FieldSource::Name => &*object.key.name,
            FieldSource::Namespace => &*object.key.namespace,
            FieldSource::Selectable(i) => object.fields.get(i).map_or("", |v| v),
        };
        (value == self.value) == self.equal
    }
}

/// `a=b,c!=d,e in (f,g),!h,i>1`.
fn parse_labels(text: &str) -> Result<Vec<LabelRequirement>> {
    split_outside_parentheses(text)
        .map(str::trim)
        .filter(|t| !t.is_empty())
        .map(parse_label)
        .collect()
}

fn split_outside_parentheses(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    text.split(move |c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
}

fn parse_label(text: &str) -> Result<LabelRequirement> {
    let bad = |why: &str| ApiError::bad_request(format!("unable to parse requirement: {why}: {text:?}"));
    let (key, op) = if let Some(key) = text.strip_prefix('!') {
        (key, LabelOp::Absent)
    } else if let Some((key, values)) = set(text, " notin ").or_else(|| set(text, " notin(")) {
        (key, LabelOp::NotIn(values.ok_or_else(|| bad("found no ')'"))?))
    } else if let Some((key, values)) = set(text, " in ").or_else(|| set(text, " in(")) {
        (key, LabelOp::In(values.ok_or_else(|| bad("found no ')'"))?))
    } else if let Some((key, value)) = text.split_once("!=") {
        (key, LabelOp::NotIn(vec![value.trim().into()]))
    } else if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        (key, LabelOp::In(vec![value.trim().into()]))
    } else if let Some((key, value)) = text.split_once('>') {
        (
            key,
            LabelOp::Greater(
                value
                    .trim()
                    .parse()
                    .map_err(|_| bad("for 'Gt', 'Lt' operators, the value must be an integer"))?,
            ),
        )
    } else if let Some((key, value)) = text.split_once('<') {
        (
            key,
            LabelOp::Less(
                value
                    .trim()
                    .parse()
                    .map_err(|_| bad("for 'Gt', 'Lt' operators, the value must be an integer"))?,
            ),
        )
    } else {
        (text, LabelOp::Exists)
    };
    let key = key.trim();
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    if key.is_empty() || !key.chars().all(fine) {
        return Err(bad("key must be a qualified name"));
    }
    if let LabelOp::In(values) | LabelOp::NotIn(values) = &op
        && !values
            .iter()
            .all(|v| v.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)))
    {
        return Err(bad("values must be valid label values"));
    }
    Ok(LabelRequirement { key: key.into(), op })
}

/// The key and the values of `key in (a, b)`; `None` for values that are not in parentheses.
fn set<'a>(text: &'a str, operator: &str) -> Option<(&'a str, Option<Vec<String>>)> {
    let (key, rest) = text.split_once(operator)?;
    let rest = rest.trim();
    let rest = if operator.ends_with('(') {
        Some(rest)
    } else {
        rest.strip_prefix('(')
    };
    let values = rest
        .and_then(|r| r.strip_suffix(')'))
        .map(|r| r.split(',').map(|v| v.trim().to_owned()).collect());
    Some((key, values))
}

fn parse_fields(text: &str, resource: &Resource) -> Result<Vec<FieldRequirement>> {
    text.split(',')
        .map(str::trim)
        .filter(|t| !t.is_empty())
        .map(|t| parse_field(t, resource))
        .collect()
}

fn parse_field(text: &str, resource: &Resource) -> Result<FieldRequirement> {
    let (key, equal, value) = if let Some((k, v)) = text.split_once("!=") {
        (k, false, v)
    } else if let Some((k, v)) = text.split_once("==").or_else(|| text.split_once('=')) {
        (k, true, v)
    } else {
        return Err(ApiError::bad_request(format!(
            "Unable to find {:?} that match label selector \"\", field selector {text:?}: invalid selector: {text:?}; can't understand {text:?}",
            resource.group_resource
        )));
    };
    let source = match key {
        "metadata.name" => FieldSource::Name,
        "metadata.namespace" => FieldSource::Namespace,
        _ => {
            let index = resource.fields.iter().position(|f| f.label == key);
            let unknown = || ApiError::bad_request(format!("field label not supported: {key}"));
            FieldSource::Selectable(index.ok_or_else(unknown)?)
        }
    };
    Ok(FieldRequirement {
        source,
        equal,
        value: value.replace("\\,", ",").replace("\\=", "="),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::Registry;
    use crate::store::{Limits, Store};

    fn matches(labels: &str, fields: &str) -> bool {
        let registry = Registry::builtin();
        let pods = registry.find("", "v1", "pods").unwrap();
        let store = Store::new(
            Limits { history: 1, queue: 1 },
            crate::admission::alloc::tests::allocator(),
        );
        let pod = store.write(false).put(
            pods,
            json!({ "metadata": { "name": "a", "namespace": "n", "labels": { "app": "web", "tier": "3" } },
                    "spec": { "nodeName": "n1" }, "status": { "phase": "Running" } }),
        );
        Selector::parse(Some(labels), Some(fields), pods)
            .unwrap()
            .matches(&pod)
    }

    #[test]
    fn labels_are_matched_by_equality_and_by_sets() {
        for yes in [
            "",
            "app=web",
            "app==web",
            "app",
            "app in (web,db), tier!=4",
            "!gone",
            "app notin (db)",
            "tier>2,tier<4",
            "x!=y",
        ] {
            assert!(matches(yes, ""), "{yes}");
        }
        for no in [
            "app=db",
            "app!=web",
            "gone",
            "!app",
            "app in (db)",
            "app notin (web, db)",
            "tier>3",
            "x=y",
        ] {
            assert!(!matches(no, ""), "{no}");
        }
    }

    #[test]
    fn fields_are_matched_by_equality() {
        for yes in [
            "metadata.name=a",
            "metadata.namespace==n",
            "spec.nodeName=n1,status.phase!=Pending",
            "status.podIP=",
        ] {
            assert!(matches("", yes), "{yes}");
        }
        assert!(!matches("", "spec.nodeName!=n1"));
    }

    #[test]
    fn selectors_that_make_no_sense_are_refused() {
        let registry = Registry::builtin();
        let pods = registry.find("", "v1", "pods").unwrap();
        let error = Selector::parse(None, Some("spec.image=x"), pods).unwrap_err();
        assert_eq!(error.message, "field label not supported: spec.image");
        for bad in ["a in b", "a>x", "=b", "a b", "a=b c"] {
            assert!(Selector::parse(Some(bad), None, pods).is_err(), "{bad}");
        }
    }
}
