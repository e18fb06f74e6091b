// SPDX-License-Identifier: Apache-2.0
//! Clouds and their regions.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::data::{self, DataError};

const FORMAT: &str = "thalweg regions 1";
const REGIONS: &str = include_str!("../data/regions.csv");

/// Who owns the machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cloud {
    /// Amazon Web Services.
    Aws,
    /// Microsoft Azure.
    Azure,
    /// Google Cloud.
    Gcp,
    /// Machines of one's own, or another cloud.
    Other,
}

impl fmt::Display for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aws => "AWS",
            Self::Azure => "Azure",
            Self::Gcp => "Google Cloud",
            Self::Other => "other machines",
        })
    }
}

/// A name that no region has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegionError {
    /// Not among those that the data know.
    #[error("{cloud} has no region `{name}` in the data{}", data::suggestion(.nearest))]
    Unknown {
        /// The cloud.
        cloud: Cloud,
        /// What was asked for.
        name: String,
        /// Known names like it.
        nearest: Vec<String>,
    },
    /// The shipped data are damaged.
    #[error(transparent)]
    Data(#[from] DataError),
}

/// The regions of a cloud, by name; `None` where no list is shipped.
///
/// # Errors
/// Only if the shipped data are damaged.
pub fn regions(cloud: Cloud) -> Result<Option<Vec<&'static str>>, DataError> {
    let name = match cloud {
        Cloud::Aws => "aws",
        Cloud::Azure => "azure",
        Cloud::Gcp | Cloud::Other => return Ok(None),
    };
    let file = data::parse(REGIONS, FORMAT)?;
    let rows = file
        .rows
        .into_iter()
        .filter_map(|(_, cells)| match cells.as_slice() {
            [region, cloud] if *cloud == name => Some(*region),
            _ => None,
        });
    Ok(Some(rows.collect()))
}

/// Whether a region exists; for clouds without a list every name passes, unchecked.
///
/// # Errors
/// The name is not in the list.
pub fn check_region(cloud: Cloud, name: &str) -> Result<(), RegionError> {
    let Some(known) = regions(cloud)? else {
        return Ok(());
    };
    if known.contains(&name) {
        return Ok(());
    }
    Err(RegionError::Unknown {
        cloud,
        name: name.to_owned(),
        nearest: data::nearest(name, known.into_iter()),
    })
}

/// The partition of a region of AWS: the first part of its names; `aws` where no other is known.
#[must_use]
pub fn partition(region: &str) -> &'static str {
    let partitions = [
        ("cn-", "aws-cn"),
        ("us-gov-", "aws-us-gov"),
        ("eusc-", "aws-eusc"),
        ("us-isob-", "aws-iso-b"),
        ("us-isof-", "aws-iso-f"),
        ("us-iso-", "aws-iso"),
        ("eu-isoe-", "aws-iso-e"),
    ];
    let found = partitions
        .into_iter()
        .find(|(prefix, _)| region.starts_with(prefix));
    found.map_or("aws", |(_, partition)| partition)
}

/// The list of regions as text, for the generator.
#[must_use]
pub fn regions_text(provenance: &data::Provenance, rows: &[(String, Cloud)]) -> String {
    let row = |(region, cloud): &(String, Cloud)| {
        let cloud = match cloud {
            Cloud::Aws => "aws",
            Cloud::Azure => "azure",
            Cloud::Gcp => "gcp",
            Cloud::Other => "other",
        };
        format!("{region},{cloud}")
    };
    data::write(
        FORMAT,
        provenance,
        &["region", "cloud"],
        rows.iter().map(row).collect(),
    )
}
