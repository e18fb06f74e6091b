// SPDX-License-Identifier: Apache-2.0
//! Nodes, namespaces and the rest.

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::{Printer, age, number, or, since, size, text};
use crate::value::{self, Json};

pub(super) const NODES: Printer = Printer {
    columns: &[
        ("Status", false),
        ("Roles", false),
        ("Age", false),
        ("Version", false),
        ("Internal-IP", true),
        ("External-IP", true),
        ("OS-Image", true),
        ("Kernel-Version", true),
        ("Container-Runtime", true),
    ],
    cells: node,
};

const ROLE_LABEL: &str = "node-role.kubernetes.io/";

fn node(node: &Value, now: Timestamp) -> Vec<Value> {
    let ready = node
        .list_at("/status/conditions")
        .iter()
        .find(|c| c["type"] == "Ready");
    let mut status = match ready.map(|c| c.str_at("/status")) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if node.at("/spec/unschedulable") == &Value::Bool(true) {
        status.push_str(",SchedulingDisabled");
    }
    let labels = node.meta("labels").as_object().into_iter().flatten();
    let roles: Vec<&str> = labels
        .filter_map(|(k, _)| k.strip_prefix(ROLE_LABEL))
        .filter(|r| !r.is_empty())
        .collect();
    let address = |kind: &str| {
        let found = node
            .list_at("/status/addresses")
            .iter()
            .find(|a| a["type"] == kind);
        or(found.map_or("", |a| a.str_at("/address")), "<none>")
    };
    let info = |field: &str| or(node.str_at(&format!("/status/nodeInfo/{field}")), "<unknown>");
    vec![
        status.into(),
        or(&roles.join(","), "<none>"),
        age(node, now),
        node.str_at("/status/nodeInfo/kubeletVersion").into(),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

pub(super) const NAMESPACES: Printer = Printer {
    columns: &[("Status", false), ("Age", false)],
    cells: |n, now| vec![n.str_at("/status/phase").into(), age(n, now)],
};

pub(super) const CONFIG_MAPS: Printer = Printer {
    columns: &[("Data", false), ("Age", false)],
    cells: |c, now| vec![(size(c, "/data") + size(c, "/binaryData")).into(), age(c, now)],
};

pub(super) const SECRETS: Printer = Printer {
    columns: &[("Type", false), ("Data", false), ("Age", false)],
    cells: |s, now| vec![text(s, "/type"), size(s, "/data").into(), age(s, now)],
};

pub(super) const EVENTS: Printer = Printer {
    columns: &[
        ("Last Seen", false),
        ("Type", false),
        ("Reason", false),
        ("Object", false),
        ("Subobject", true),
        ("Source", true),
        ("Message", false),
        ("First Seen", true),
        ("Count", true),
        ("Name", true),
    ],
    cells: event,
};

fn event(event: &Value, now: Timestamp) -> Vec<Value> {
    // Either version of an event: the names differ.
    let either = |a: &str, b: &str| {
        let first = event.at(a);
        if first.is_null() { event.at(b) } else { first }
    };
    let about = either("/involvedObject", "/regarding");
    let first = [
        either("/firstTimestamp", "/deprecatedFirstTimestamp"),
        event.at("/eventTime"),
        event.meta("creationTimestamp"),
    ];
    let last = [
        event.at("/series/lastObservedTime"),
        either("/lastTimestamp", "/deprecatedLastTimestamp"),
        first[1],
        first[2],
    ];
    let known = |times: &[&Value]| {
        times
            .iter()
            .find(|t| t.is_string())
            .map_or(Value::Null, |t| (*t).clone())
    };
    let count = [event.at("/series/count"), either("/count", "/deprecatedCount")];
    let source = either("/source", "/deprecatedSource");
    let component = [
        source.str_at("/component"),
        either("/reportingComponent", "/reportingController")
            .as_str()
            .unwrap_or(""),
    ];
    let component = component.into_iter().find(|c| !c.is_empty()).unwrap_or_default();
    let source = match source.str_at("/host") {
        "" => component.to_owned(),
        host => format!("{component}, {host}"),
    };
    let message = either("/message", "/note")
        .as_str()
        .unwrap_or_default()
        .trim()
        .to_owned();
    vec![
        since(&known(&last), now),
        event.str_at("/type").into(),
        event.str_at("/reason").into(),
        format!(
            "{}/{}",
            about.str_at("/kind").to_lowercase(),
            about.str_at("/name")
        )
        .into(),
        about.str_at("/fieldPath").into(),
        source.into(),
        message.into(),
        since(&known(&first), now),
        count.iter().find_map(|c| c.as_i64()).unwrap_or(1).into(),
        event.meta_str("name").into(),
    ]
}

pub(super) const LEASES: Printer = Printer {
    columns: &[("Holder", false), ("Age", false)],
    cells: |l, now| vec![l.str_at("/spec/holderIdentity").into(), age(l, now)],
};

pub(super) const DEFINITIONS: Printer = Printer {
    columns: &[("Created At", false)],
    cells: |d, _| vec![d.meta_str("creationTimestamp").into()],
};

pub(super) const BUDGETS: Printer = Printer {
    columns: &[
        ("Min Available", false),
        ("Max Unavailable", false),
        ("Allowed Disruptions", false),
        ("Age", false),
    ],
    cells: |b, now| {
        let bound = |pointer: &str| or(&value::scalar(b.pointer(pointer)), "N/A");
        vec![
            bound("/spec/minAvailable"),
            bound("/spec/maxUnavailable"),
            number(b, "/status/disruptionsAllowed").into(),
            age(b, now),
        ]
    },
};

pub(super) const PRIORITIES: Printer = Printer {
    columns: &[("Value", false), ("Global-Default", false), ("Age", false)],
    cells: |p, now| {
        vec![
            number(p, "/value").into(),
            (p["globalDefault"] == true).into(),
            age(p, now),
        ]
    },
};

pub(super) const ROLES: Printer = Printer {
    columns: &[("Created At", false)],
    cells: |r, _| vec![r.meta_str("creationTimestamp").into()],
};

pub(super) const BINDINGS: Printer = Printer {
    columns: &[("Role", false), ("Age", false)],
    cells: |b, now| {
        vec![
            format!("{}/{}", b.str_at("/roleRef/kind"), b.str_at("/roleRef/name")).into(),
            age(b, now),
        ]
    },
};
