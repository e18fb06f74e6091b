// SPDX-License-Identifier: Apache-2.0
//! Answers of DescribeInstanceTypes, as the API gives them or as a map by type, and botocore's partitions.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;

/// Default vCPUs by type.
pub(super) fn processors(text: &str) -> Result<BTreeMap<String, u32>> {
    let value: Value = serde_json::from_str(text)?;
    let entries: Vec<&Value> = match value.get("InstanceTypes") {
        Some(list) => list
            .as_array()
            .context("InstanceTypes is no list")?
            .iter()
            .collect(),
        None => value.as_object().context("no object")?.values().collect(),
    };
    let row = |entry: &&Value| {
        let name = entry.get("InstanceType")?.as_str()?.to_owned();
        let number = entry.pointer("/VCpuInfo/DefaultVCpus")?.as_u64()?;
        Some((name, u32::try_from(number).ok()?))
    };
    Ok(entries.iter().filter_map(row).collect())
}

/// The regions of all partitions, without the ones that stand for no place.
pub(super) fn regions(text: &str) -> Result<Vec<String>> {
    let value: Value = serde_json::from_str(text)?;
    let partitions = value
        .get("partitions")
        .and_then(Value::as_array)
        .context("no partitions")?;
    let names = partitions
        .iter()
        .filter_map(|partition| partition.get("regions")?.as_object());
    Ok(names
        .flat_map(serde_json::Map::keys)
        .filter(|name| !name.ends_with("-global"))
        .cloned()
        .collect())
}
