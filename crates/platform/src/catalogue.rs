// SPDX-License-Identifier: Apache-2.0
//! What is known about clouds: regions and instance types, each with source and date.

use serde::Serialize;

use crate::file::{Cloud, Mode};

/// What is known about a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known<T> {
    /// It exists, and this is it.
    Yes(T),
    /// There are data about such names, and this one is not among them; the nearest, if one is near.
    No(Option<String>),
    /// There are no data about such names.
    NoData,
}

/// What an instance type has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// Network interfaces.
    pub interfaces: u32,
    /// IPv4 addresses of each, its primary one included.
    pub addresses_per_interface: u32,
    /// Virtual processors, where known.
    pub vcpus: Option<u32>,
    /// Whether interfaces can have /28 prefixes.
    pub prefixes: bool,
}

impl Instance {
    /// Pods with addresses of their own: `interfaces × (addresses − 1)`, sixteen times that with /28 prefixes, where
    /// EKS recommends at most 110 below 30 processors and 250 from there. In other modes the interfaces do not matter.
    #[must_use]
    pub fn pods(&self, mode: Mode) -> u32 {
        let slots = self.interfaces.saturating_mul(self.addresses_per_interface.saturating_sub(1));
        let few = self.vcpus.is_none_or(|vcpus| vcpus < 30);
        match mode {
            Mode::EniPrefix if self.prefixes => (slots * 16).min(if few { 110 } else { 250 }),
            Mode::Eni | Mode::EniPrefix => slots,
            Mode::Overlay | Mode::Delegated | Mode::PodCidr => crate::address::PODS_PER_NODE,
        }
    }

    /// Addresses of the network that a full node takes: its interfaces' own, and its pods', by whole prefixes.
    #[must_use]
    pub fn addresses(&self, mode: Mode, limit: Option<u32>) -> u32 {
        let pods = self.pods(mode).min(limit.unwrap_or(u32::MAX));
        match mode {
            Mode::Eni => pods + self.interfaces,
            Mode::EniPrefix if self.prefixes => pods.div_ceil(16) * 16 + self.interfaces,
            Mode::EniPrefix => pods + self.interfaces,
            Mode::Overlay | Mode::Delegated | Mode::PodCidr => 1,
        }
    }
}

/// A price.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Price {
    /// US dollars an hour, on demand, Linux.
    pub usd_per_hour: f64,
    /// Where the figure is from.
    pub source: String,
    /// Its day, as `YYYY-MM-DD`.
    pub date: String,
}

/// Data about clouds.
pub trait Catalogue {
    /// An instance type, VM size or machine type.
    fn instance(&self, cloud: Cloud, name: &str) -> Known<Instance>;

    /// What an instance costs.
    fn price(&self, cloud: Cloud, region: &str, name: &str) -> Option<Price>;
}

/// The regions: lines of cloud and name below a head with sources and date.
const REGIONS: &str = include_str!("../data/regions.csv");

/// Whether a region exists.
#[must_use]
pub fn region(cloud: Cloud, name: &str) -> Known<()> {
    if cloud == Cloud::Machines {
        return Known::NoData;
    }
    let cloud = cloud.to_string();
    let names: Vec<&str> = REGIONS
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(','))
        .filter(|(of, _)| *of == cloud)
        .map(|(_, name)| name)
        .collect();
    if names.contains(&name) {
        Known::Yes(())
    } else {
        Known::No(crate::file::nearest(name, &names).map(str::to_owned))
    }
}

/// The day of the newest source of the regions.
#[must_use]
pub fn regions_date() -> &'static str {
    let mut dates = REGIONS.lines().filter_map(|line| line.strip_prefix("# date: "));
    dates.next().unwrap_or("unknown")
}
