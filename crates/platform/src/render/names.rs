// SPDX-License-Identifier: Apache-2.0
//! Every rendered type, setting and reference is looked up in what the providers publish.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

const NAMES: &str = include_str!("../../data/provider-names.txt");

/// Settings with what blocks below them have.
#[derive(Debug, Default)]
struct Tree(BTreeMap<String, Tree>);

pub(super) struct Names {
    settings: BTreeMap<String, Tree>,
    results: BTreeMap<String, BTreeSet<String>>,
}

/// Settings whose keys are the user's.
const FREE: [&str; 6] = [
    "tags",
    "labels",
    "resource_labels",
    "resourceLabels",
    "nodeLabels",
    "node_labels",
];
/// Terraform's own.
const META: [&str; 2] = ["provider", "depends_on"];

impl Names {
    pub(super) fn load() -> Self {
        let mut names = Self {
            settings: BTreeMap::new(),
            results: BTreeMap::new(),
        };
        for line in NAMES.lines().filter(|line| !line.starts_with('#')) {
            if let Some((kind, rest)) = line.split_once(" < ") {
                names
                    .settings
                    .insert(short(kind), parse(&mut rest.chars().peekable()));
            } else if let Some((kind, rest)) = line.split_once(" > ") {
                names
                    .results
                    .insert(short(kind), rest.split(' ').map(str::to_owned).collect());
            }
        }
        names
    }

    /// What is unknown in a Terraform document.
    pub(super) fn terraform(&self, document: &Value) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut there = BTreeSet::new();
        for (section, prefix) in [("resource", ""), ("data", "data.")] {
            for (kind, resources) in object(&document[section]) {
                for (name, body) in object(resources) {
                    there.insert(format!("{prefix}{kind}.{name}"));
                    self.check(&format!("{prefix}{kind}"), body, &mut wrong);
                }
            }
        }
        let mut references = Vec::new();
        strings(document, &mut |text| references.extend(interpolations(text)));
        for reference in references
            .iter()
            .filter(|reference| !reference.starts_with("var."))
        {
            let (prefix, rest) = reference
                .strip_prefix("data.")
                .map_or(("", reference.as_str()), |rest| ("data.", rest));
            let parts: Vec<&str> = rest.splitn(3, '.').collect();
            let [kind, name, attribute] = parts.as_slice() else {
                wrong.push(format!("${{{reference}}} is no reference"));
                continue;
            };
            if !there.contains(&format!("{prefix}{kind}.{name}")) {
                wrong.push(format!("${{{reference}}}: nothing has this name"));
            }
            self.result(&format!("{prefix}{kind}"), attribute, &mut wrong);
        }
        for (_, resources) in object(&document["resource"]) {
            for (_, body) in object(resources) {
                for after in body["depends_on"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                {
                    if !there.contains(after) {
                        wrong.push(format!("depends_on {after}: nothing has this name"));
                    }
                }
            }
        }
        wrong
    }

    /// What is unknown in a Pulumi project.
    pub(super) fn pulumi(&self, project: &Value) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut kinds = BTreeMap::new();
        for (name, body) in object(&project["resources"]) {
            let token = body["type"].as_str().unwrap_or_default();
            kinds.insert(name.clone(), token.to_owned());
            if !token.starts_with("pulumi:providers:") {
                self.check(token, &body["properties"], &mut wrong);
            }
        }
        for (name, body) in object(&project["variables"]) {
            let invoke = &body["fn::invoke"];
            let token = invoke["function"].as_str().unwrap_or_default();
            kinds.insert(name.clone(), token.to_owned());
            self.check(token, &invoke["arguments"], &mut wrong);
        }
        let mut references = Vec::new();
        strings(project, &mut |text| references.extend(interpolations(text)));
        for reference in references {
            let (name, attribute) = reference.split_once('.').unwrap_or((&reference, ""));
            match kinds.get(name) {
                None => wrong.push(format!("${{{reference}}}: nothing has this name")),
                Some(_) if attribute.is_empty() => {}
                Some(kind) => self.result(kind, attribute, &mut wrong),
            }
        }
        wrong
    }

    fn check(&self, kind: &str, body: &Value, wrong: &mut Vec<String>) {
        match self.settings.get(&short(kind)) {
            Some(tree) => walk(kind, body, tree, wrong),
            None => wrong.push(format!("{kind}: no provider has this type")),
        }
    }

    fn result(&self, kind: &str, attribute: &str, wrong: &mut Vec<String>) {
        let first = attribute.split(['.', '[']).next().unwrap_or_default();
        let known = self
            .results
            .get(&short(kind))
            .is_some_and(|results| results.contains(first));
        if !known {
            wrong.push(format!("{kind} has no result {first}"));
        }
    }
}

fn walk(path: &str, body: &Value, tree: &Tree, wrong: &mut Vec<String>) {
    match body {
        Value::Array(items) => items.iter().for_each(|item| walk(path, item, tree, wrong)),
        Value::Object(map) => {
            for (key, inner) in map.iter().filter(|(key, _)| !META.contains(&key.as_str())) {
                let path = format!("{path}.{key}");
                match tree.0.get(key) {
                    None => wrong.push(format!("{path}: there is no such setting")),
                    Some(_) if FREE.contains(&key.as_str()) => {}
                    // Below the depth of the data nothing is known: not a proof, and so not let pass.
                    Some(below) if below.0.is_empty() && holds_object(inner) => {
                        wrong.push(format!("{path}: has no block below it in the data"));
                    }
                    Some(below) => walk(&path, inner, below, wrong),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn holds_object(value: &Value) -> bool {
    match value {
        Value::Object(_) => true,
        Value::Array(items) => items.iter().any(holds_object),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// `aws:ec2/vpc:Vpc` as `aws:ec2:Vpc`.
fn short(token: &str) -> String {
    match token.split(':').collect::<Vec<_>>().as_slice() {
        [package, module, name] => format!(
            "{package}:{}:{name}",
            module.split('/').next().unwrap_or_default()
        ),
        _ => token.to_owned(),
    }
}

fn parse(letters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Tree {
    let mut tree = Tree::default();
    let mut word = String::new();
    while let Some(letter) = letters.next() {
        match letter {
            '{' => {
                tree.0.insert(std::mem::take(&mut word), parse(letters));
            }
            ' ' | '}' => {
                if !word.is_empty() {
                    tree.0.insert(std::mem::take(&mut word), Tree::default());
                }
                if letter == '}' {
                    return tree;
                }
            }
            other => word.push(other),
        }
    }
    if !word.is_empty() {
        tree.0.insert(word, Tree::default());
    }
    tree
}

fn object(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn strings(value: &Value, visit: &mut dyn FnMut(&str)) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(items) => items.iter().for_each(|item| strings(item, visit)),
        Value::Object(map) => map.values().for_each(|item| strings(item, visit)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn interpolations(text: &str) -> Vec<String> {
    text.split("${")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once('}')?.0.to_owned()))
        .collect()
}
