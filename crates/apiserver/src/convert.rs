// SPDX-License-Identifier: Apache-2.0
//! Between the version in which an object is kept and the one in which it is asked for.

use serde_json::Value;

use crate::resources::Resource;
use crate::value::Json;

/// The names that fields of an Event have in core/v1 and in events.k8s.io/v1.
const EVENT_NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// Makes a kept object one of the version that was asked for.
pub(crate) fn outward(resource: &Resource, value: &mut Value) {
    if !resource.converted() {
        return;
    }
    if resource.group == "events.k8s.io" {
        rename(value, |(kept, given)| (kept, given));
    }
    value["apiVersion"] = resource.api_version().into();
}

/// Makes an object as it was sent one as it is kept.
pub(crate) fn inward(resource: &Resource, value: &mut Value) {
    if resource.group == "events.k8s.io" {
        rename(value, |(kept, given)| (given, kept));
        value["apiVersion"] = "v1".into();
    } else if let Some(custom) = &resource.custom {
        value["apiVersion"] = format!("{}/{}", resource.group, custom.storage_version).into();
    } else {
        value["apiVersion"] = resource.api_version().into();
    }
}

fn rename(
    value: &mut Value,
    direction: impl Fn((&'static str, &'static str)) -> (&'static str, &'static str),
) {
    let map = value.map_mut();
    for (from, to) in EVENT_NAMES.map(direction) {
        if let Some(moved) = map.remove(from) {
            map.insert(to.into(), moved);
        }
    }
}
