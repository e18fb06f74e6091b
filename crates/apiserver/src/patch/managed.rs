// SPDX-License-Identifier: Apache-2.0
//! `metadata.managedFields`: which manager owns which fields.

use serde_json::{Value, json};

use super::field_set::FieldSet;
use super::shape::Shape;
use crate::time;
use crate::value::Json;

/// How many managers that update may be told apart; the oldest beyond are forgotten.
const MAX_UPDATE_MANAGERS: usize = 10;

/// Who writes, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity<'a> {
    pub(crate) manager: &'a str,
    /// By server-side apply, not by an update.
    pub(crate) apply: bool,
    pub(crate) api_version: &'a str,
    pub(crate) subresource: &'a str,
}

#[derive(Debug, Clone)]
struct Manager {
    manager: String,
    apply: bool,
    api_version: String,
    subresource: String,
    time: String,
    fields: FieldSet,
}

impl Manager {
    fn is(&self, who: &Identity<'_>) -> bool {
        self.manager == who.manager
            && self.apply == who.apply
            && self.subresource == who.subresource
            && (self.apply || self.api_version == who.api_version)
    }

    /// As a conflict names it.
    fn describe(&self) -> String {
        let mut text = format!("\"{}\"", self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource \"{}\"", self.subresource));
        }
        text.push_str(&format!(" using {}", self.api_version));
        if !self.apply && !self.time.is_empty() {
            text.push_str(&format!(" at {}", self.time));
        }
        text
    }
}

/// An object's managers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Managers(Vec<Manager>);

impl Managers {
    pub(crate) fn of(object: &Value) -> Self {
        let entries = object.meta("managedFields").as_array().into_iter().flatten();
        let text = |v: &Value, key: &str| v[key].as_str().unwrap_or_default().to_owned();
        Self(
            entries
                .map(|e| Manager {
                    manager: text(e, "manager"),
                    apply: e["operation"] == "Apply",
                    api_version: text(e, "apiVersion"),
                    subresource: text(e, "subresource"),
                    time: text(e, "time"),
                    fields: FieldSet::from_json(&e["fieldsV1"]),
                })
                .collect(),
        )
    }

    /// The managers that own some of these fields, and the fields.
    pub(crate) fn conflicts(&self, who: &Identity<'_>, wanted: &FieldSet) -> Vec<(String, String)> {
        let others = self.0.iter().filter(|m| !m.is(who));
        let fields = |m: &Manager| m.fields.intersection(wanted).paths();
        others
            .flat_map(|m| fields(m).into_iter().map(|path| (m.describe(), path)))
            .collect()
    }

    /// Takes these fields from all others.
    pub(crate) fn take(&mut self, who: &Identity<'_>, fields: &FieldSet) {
        self.0
            .iter_mut()
            .filter(|m| !m.is(who))
            .for_each(|m| m.fields.subtract(fields));
    }

    /// Gives a manager these fields and no others; returns those it had.
    pub(crate) fn replace(&mut self, who: &Identity<'_>, fields: FieldSet) -> FieldSet {
        let entry = self.entry(who);
        if entry.fields == fields && entry.api_version == who.api_version {
            return fields;
        }
        entry.time = time::now();
        entry.api_version = who.api_version.to_owned();
        std::mem::replace(&mut entry.fields, fields)
    }

    /// Gives a manager these fields too.
    fn grant(&mut self, who: &Identity<'_>, fields: &FieldSet) {
        let entry = self.entry(who);
        let before = entry.fields.clone();
        entry.fields.union(fields);
        if entry.fields != before {
            entry.time = time::now();
        }
    }

    fn entry(&mut self, who: &Identity<'_>) -> &mut Manager {
        let place = self.0.iter().position(|m| m.is(who)).unwrap_or_else(|| {
            self.0.push(Manager {
                manager: who.manager.to_owned(),
                apply: who.apply,
                api_version: who.api_version.to_owned(),
                subresource: who.subresource.to_owned(),
                time: time::now(),
                fields: FieldSet::default(),
            });
            self.0.len() - 1
        });
        &mut self.0[place]
    }

    pub(crate) fn owned_by_others(&self, who: &Identity<'_>) -> FieldSet {
        let mut all = FieldSet::default();
        self.0
            .iter()
            .filter(|m| !m.is(who))
            .for_each(|m| all.union(&m.fields));
        all
    }

    pub(crate) fn keep_existing(&mut self, object: &Value) {
        self.0.iter_mut().for_each(|m| m.fields.keep_existing(object));
    }

    /// Writes the managers into an object.
    pub(crate) fn store(mut self, object: &mut Value) {
        self.0.retain(|m| !m.fields.is_empty());
        self.0
            .sort_by(|a, b| (!a.apply, &a.time, &a.manager).cmp(&(!b.apply, &b.time, &b.manager)));
        let applying = self.0.iter().filter(|m| m.apply).count();
        let excess = (self.0.len() - applying).saturating_sub(MAX_UPDATE_MANAGERS);
        self.0.drain(applying..applying + excess);
        let entries: Vec<Value> = self.0.iter().map(Manager::to_json).collect();
        if entries.is_empty() {
            object["metadata"].map_mut().remove("managedFields");
        } else {
            object["metadata"]["managedFields"] = entries.into();
        }
    }
}

impl Manager {
    fn to_json(&self) -> Value {
        let mut entry = json!({
            "manager": self.manager, "operation": if self.apply { "Apply" } else { "Update" },
            "apiVersion": self.api_version, "time": self.time, "fieldsType": "FieldsV1", "fieldsV1": self.fields.to_json(),
        });
        if !self.subresource.is_empty() {
            entry["subresource"] = self.subresource.clone().into();
        }
        entry
    }
}

/// After a write that is no apply: the writer owns what it changed.
pub(crate) fn track_update(old: &Value, new: &mut Value, shape: Shape<'_>, who: &Identity<'_>) {
    // Clients may rewrite the list (`kubectl` does, to move from client-side to server-side apply) or clear it; those that
    // know nothing of it leave it out.
    let sent = new.meta("managedFields");
    let mut managers = if sent.is_null() {
        Managers::of(old)
    } else {
        Managers::of(new)
    };
    managers.0.retain(|m| !m.manager.is_empty());
    let changed = FieldSet::changed(old, new, shape);
    managers.take(who, &changed);
    if !changed.is_empty() {
        managers.grant(who, &changed);
    }
    managers.keep_existing(new);
    managers.store(new);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape<'static> = Shape::Builtin {
        kind: "Pod",
        parent: "",
        field: "",
    };

    fn update(old: &Value, mut new: Value, manager: &str) -> Value {
        let who = Identity {
            manager,
            apply: false,
            api_version: "v1",
            subresource: "",
        };
        track_update(old, &mut new, SHAPE, &who);
        new
    }

    #[test]
    fn who_changes_a_field_owns_it() {
        let created = update(
            &Value::Null,
            json!({ "metadata": { "name": "a" }, "spec": { "x": 1, "y": 1 } }),
            "me",
        );
        let mut next = created.clone();
        next["spec"]["y"] = 2.into();
        let updated = update(&created, next, "you");
        let managers = updated["metadata"]["managedFields"].as_array().unwrap();
        let of = |name: &str| managers.iter().find(|m| m["manager"] == name).unwrap()["fieldsV1"].clone();
        assert_eq!(of("me"), json!({ "f:spec": { "f:x": {} } }));
        assert_eq!(of("you"), json!({ "f:spec": { "f:y": {} } }));
    }

    #[test]
    fn a_removed_field_has_no_owner() {
        let created = update(
            &Value::Null,
            json!({ "metadata": {}, "spec": { "x": 1 }, "data": {} }),
            "me",
        );
        let updated = update(&created, json!({ "metadata": {}, "data": {} }), "you");
        assert_eq!(
            updated["metadata"]["managedFields"][0]["fieldsV1"],
            json!({ "f:data": {} })
        );
    }

    #[test]
    fn field_sets_survive_their_encoding() {
        let pod = json!({ "metadata": { "labels": { "a": "b" }, "finalizers": ["x"] },
            "spec": { "containers": [{ "name": "c", "ports": [{ "containerPort": 80 }], "args": ["1"] }], "nodeSelector": { "k": "v" } } });
        let set = FieldSet::of_object(&pod, SHAPE);
        assert_eq!(FieldSet::from_json(&set.to_json()), set);
        let paths = set.paths();
        for path in [
            ".metadata.labels.a",
            ".metadata.finalizers[=\"x\"]",
            ".spec.containers[name=\"c\"].args",
            ".spec.containers[name=\"c\"].ports[containerPort=80,protocol=\"TCP\"].containerPort",
            ".spec.nodeSelector",
        ] {
            assert!(paths.iter().any(|p| p == path), "{path} in {paths:?}");
        }
    }
}
