// SPDX-License-Identifier: Apache-2.0
//! Whatever is in a record: it is refused, or examined without a panic.

use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};
use thalweg_doctor::checks::{Selection, examine};
use thalweg_doctor::facts::Facts;
use thalweg_doctor::upgrade::{Canaries, Request, assess, markdown};
use thalweg_doctor::version::Version;
use thalweg_doctor::{conflicts, finding};

fn healthy() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/healthy-eks.json");
    serde_json::from_slice(&std::fs::read(path).expect("the healthy twin is there")).expect("it is JSON")
}

/// Paths to all values of a document.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(fields) => {
            for (key, inner) in fields {
                pointers(
                    inner,
                    &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")),
                    found,
                );
            }
        }
        Value::Array(items) => {
            for (index, inner) in items.iter().enumerate() {
                pointers(inner, &format!("{at}/{index}"), found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn strange() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!(null)),
        Just(json!([])),
        Just(json!({})),
        Just(json!({"unknown": "denied"})),
        Just(json!({"unknown": 7})),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,20}".prop_map(Value::from),
        Just(json!("v99999999999.1")),
        Just(json!("0.0.0.0/0")),
    ]
}

fn read(value: Value) -> Option<Facts> {
    serde_json::from_value(value).ok()
}

fn use_everything(facts: &Facts) -> finding::Report {
    let request = Request {
        to_kubernetes: Version::new(1, 33),
        to_version: Some("0.2.0".into()),
        program_version: "0.1.0".into(),
        os: None,
    };
    let _ = markdown(&assess(facts, &request, &Canaries::new()));
    for node in &facts.nodes {
        let _ = conflicts::list(node);
    }
    examine(facts, &Selection::default())
}

proptest! {
    #[test]
    fn strange_values_are_refused_or_examined(changes in prop::collection::vec((any::<prop::sample::Index>(), strange()), 1..6)) {
        let mut value = healthy();
        let mut all = Vec::new();
        pointers(&value, "", &mut all);
        for (index, strange) in changes {
            if let Some(place) = value.pointer_mut(&all[index.index(all.len())]) {
                *place = strange;
            }
        }
        if let Some(facts) = read(value) {
            let _ = use_everything(&facts);
        }
    }
}

#[test]
fn without_nodes_what_nodes_say_is_unknown_and_never_passed() {
    let mut value = healthy();
    value["nodes"] = json!([]);
    value["nodes_unknown"] = json!("cannot list the agents' pods: forbidden");
    let report = use_everything(&read(value).expect("facts without nodes are facts"));
    assert_eq!(report.findings, [], "that agents are missing is not known");
    assert!(
        report
            .passed
            .iter()
            .all(|check| !check.starts_with("kernel.") && !check.starts_with("leftovers."))
    );
    assert!(report.unknown.iter().any(|one| one.reason.contains("forbidden")));
}
