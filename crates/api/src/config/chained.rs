// SPDX-License-Identifier: Apache-2.0
//! Plugins that the container runtime runs after ours.

use serde_json::{Map, Value, json};

use super::layers::Raw;
use super::parse::Parsed;

/// Plugins of one list; more are a mistake.
const PLUGINS_MAX: usize = 16;
/// What runtimes hand to plugins that declare it.
const CAPABILITIES: [(&str, &str); 2] = [("portmap", "portMappings"), ("bandwidth", "bandwidth")];

/// A plugin's section of the network configuration; it has a `type`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginSection(Map<String, Value>);

impl PluginSection {
    /// The plugin's name.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.0.get("type").and_then(Value::as_str).unwrap_or_default()
    }

    /// The section.
    #[must_use]
    pub fn value(&self) -> &Map<String, Value> {
        &self.0
    }

    /// A rate, in bits per second, that the section gives to all pods.
    #[must_use]
    pub fn rate(&self, key: &str) -> u64 {
        self.0.get(key).and_then(Value::as_u64).unwrap_or(0)
    }
}

/// Names, or sections as in a conflist. `portmap` and `bandwidth` do nothing unless they declare what they want to be told, which
/// is easily forgotten: it is added.
pub(super) fn plugins(raw: &Raw) -> Parsed<Vec<PluginSection>> {
    let expected = || {
        format!(
            "a list of at most {PLUGINS_MAX} CNI plugins other than thalweg-cni: names such as portmap, or sections of a conflist, \
             each with its \"type\""
        )
    };
    let items: Vec<Value> = match raw {
        Raw::Text(text) if text.trim().is_empty() => Vec::new(),
        Raw::Text(text) if text.trim_start().starts_with('[') => {
            serde_json::from_str(text).map_err(|_| expected())?
        }
        Raw::Text(text) => text.split(',').map(|name| json!(name.trim())).collect(),
        Raw::List(names) => names.iter().map(|name| json!(name)).collect(),
        Raw::Unfit(_) => return Err(expected()),
    };
    if items.len() > PLUGINS_MAX {
        return Err(expected());
    }
    let sections: Option<Vec<PluginSection>> = items.into_iter().map(section).collect();
    let sections = sections.ok_or_else(expected)?;
    if sections
        .iter()
        .any(|one| one.kind() == "tuning" && one.0.contains_key("mac"))
    {
        return Err(
            "a tuning section without \"mac\": pods may only send from the MAC that they are given; the capability mac gives one".to_owned(),
        );
    }
    Ok(sections)
}

fn section(item: Value) -> Option<PluginSection> {
    let mut map = match item {
        Value::String(name) => Map::from_iter([("type".to_owned(), json!(name))]),
        Value::Object(map) => map,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => return None,
    };
    let kind = map.get("type")?.as_str()?.to_owned();
    // The type becomes a file name.
    let good = !kind.is_empty()
        && kind != "thalweg-cni"
        && kind != ".."
        && !kind.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control());
    if !good {
        return None;
    }
    if let Some((_, capability)) = CAPABILITIES.iter().find(|(plugin, _)| *plugin == kind)
        && !map.contains_key("capabilities")
    {
        map.insert("capabilities".to_owned(), json!({ *capability: true }));
    }
    Some(PluginSection(map))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Parsed<Vec<Value>> {
        let sections = plugins(&Raw::Text(text.to_owned()))?;
        Ok(sections.into_iter().map(|one| Value::Object(one.0)).collect())
    }

    #[test]
    fn names_become_sections_with_what_they_need() {
        let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
        let bandwidth = json!({"type": "bandwidth", "capabilities": {"bandwidth": true}});
        assert_eq!(of("portmap, bandwidth").unwrap(), [portmap.clone(), bandwidth]);
        assert_eq!(of("").unwrap(), Vec::<Value>::new());
        let both = r#"["portmap", {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}}]"#;
        let tuning = json!({"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}});
        assert_eq!(of(both).unwrap(), [portmap, tuning]);
        let own = r#"[{"type": "portmap", "capabilities": {}, "snat": false}]"#;
        assert_eq!(
            of(own).unwrap(),
            [json!({"type": "portmap", "capabilities": {}, "snat": false})]
        );
    }

    #[test]
    fn what_is_no_plugin_is_refused() {
        for text in [
            "thalweg-cni",
            "../x",
            "a b",
            "portmap,",
            "[1]",
            "[{}]",
            "[",
            r#"[{"type": 1}]"#,
        ] {
            assert!(of(text).unwrap_err().contains("a list of at most"), "{text}");
        }
        assert!(
            of(r#"[{"type": "tuning", "mac": "0a:00:00:00:00:01"}]"#)
                .unwrap_err()
                .contains("mac")
        );
    }
}
