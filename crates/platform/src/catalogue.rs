// SPDX-License-Identifier: Apache-2.0
//! What is known about clouds: regions, instance types, prices, each with source and date; the planner's data.

use ::plan::capacity::{self, Capacity, CapacityError, Network, Request};
use ::plan::cloud::Cloud as PlanCloud;
use ::plan::data::DataError;
use ::plan::instance::{Instance, InstanceTable, PrefixSupport};
use ::plan::price::{Price, PriceTable};

use crate::file::{Cloud, Cluster, Mode};

/// What is known about a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// It exists.
    Yes,
    /// There are data about such names, and this one is not among them; the nearest, if one is near, and the data's day.
    No(Option<String>, String),
    /// There are no data about such names.
    NoData,
}

/// Data about clouds.
#[derive(Debug)]
pub struct Catalogue {
    /// Of AWS.
    pub instances: InstanceTable,
    aws: Option<PriceTable>,
    azure: Option<PriceTable>,
    aws_regions: Vec<&'static str>,
    azure_regions: Vec<&'static str>,
}

/// Google Cloud's regions, a name a line below a head with source and date.
const GCP_REGIONS: &str = include_str!("../data/gcp-regions.txt");

/// The day of data that do not say it to their reader.
const SHIPPED: &str = "this version";

impl Catalogue {
    /// What this version ships.
    ///
    /// # Errors
    /// Only if the program itself is damaged.
    pub fn shipped() -> Result<Self, DataError> {
        Ok(Self {
            instances: InstanceTable::shipped()?,
            aws: PriceTable::shipped(PlanCloud::Aws)?,
            azure: PriceTable::shipped(PlanCloud::Azure)?,
            aws_regions: ::plan::cloud::regions(PlanCloud::Aws)?.unwrap_or_default(),
            azure_regions: ::plan::cloud::regions(PlanCloud::Azure)?.unwrap_or_default(),
        })
    }

    /// Whether an instance type, VM size or machine type exists.
    #[must_use]
    pub fn machine(&self, cloud: Cloud, name: &str) -> Known {
        match (cloud, &self.azure) {
            (Cloud::Aws, _) => match self.instances.get(name) {
                Ok(_) => Known::Yes,
                Err(unknown) => Known::No(unknown.nearest.into_iter().next(), unknown.date.to_string()),
            },
            (Cloud::Azure, Some(table)) => among(table.types(), name, &table.provenance().date.to_string()),
            (Cloud::Azure | Cloud::Gcp | Cloud::Machines, _) => Known::NoData,
        }
    }

    /// Whether a region exists.
    #[must_use]
    pub fn region(&self, cloud: Cloud, name: &str) -> Known {
        match cloud {
            Cloud::Aws => among(self.aws_regions.iter().copied(), name, SHIPPED),
            Cloud::Azure => among(self.azure_regions.iter().copied(), name, SHIPPED),
            Cloud::Gcp => {
                let date = GCP_REGIONS.lines().find_map(|line| line.strip_prefix("# date: "));
                let names = GCP_REGIONS.lines().filter(|line| !line.starts_with('#'));
                among(names, name, date.unwrap_or(SHIPPED))
            }
            Cloud::Machines => Known::NoData,
        }
    }

    /// An instance type of AWS.
    #[must_use]
    pub fn instance(&self, cloud: Cloud, name: &str) -> Option<&Instance> {
        (cloud == Cloud::Aws)
            .then(|| self.instances.get(name).ok())
            .flatten()
    }

    /// How many pods a node of this type can have in a cluster.
    ///
    /// # Errors
    /// It can have none in the cluster's mode, or not as many as the cluster asks for.
    pub fn capacity(&self, cluster: &Cluster, name: Option<&str>) -> Result<Capacity, CapacityError> {
        let (mode, network) = match cluster.mode {
            Mode::Eni => (capacity::Mode::Eni, Network::Thalweg),
            Mode::EniPrefix => (capacity::Mode::EniPrefix, Network::Thalweg),
            Mode::Overlay => (capacity::Mode::Overlay, Network::Thalweg),
            Mode::Delegated => (capacity::Mode::AzureOverlay, Network::Azure),
            Mode::PodCidr if cluster.cloud == Cloud::Gcp => (capacity::Mode::Gke, Network::Gke),
            Mode::PodCidr => (capacity::Mode::PodCidr, Network::Thalweg),
        };
        let mut request = Request::new(mode, network);
        request.max_pods = cluster.pods_per_node;
        if matches!(cluster.mode, Mode::Overlay)
            || (cluster.mode, cluster.cloud) == (Mode::PodCidr, Cloud::Machines)
        {
            request.node_mask = Some(cluster.node_mask);
        }
        let instance = name.and_then(|name| self.instance(cluster.cloud, name));
        capacity::capacity(instance, &request)
    }

    /// Addresses of the network that a full node of this type takes: its interfaces' own, and its pods' where they live
    /// there, by whole prefixes.
    #[must_use]
    pub fn addresses(&self, cluster: &Cluster, name: &str) -> u32 {
        let Some(instance) = self
            .instance(cluster.cloud, name)
            .filter(|_| cluster.pods_in_network())
        else {
            return 1;
        };
        let pods = self
            .capacity(cluster, Some(name))
            .map_or(0, |capacity| capacity.pods.unwrap_or(capacity.usable));
        let prefixes = cluster.mode == Mode::EniPrefix && instance.prefix_support() != PrefixSupport::No;
        let taken = if prefixes {
            pods.div_ceil(capacity::PREFIX_SIZE) * capacity::PREFIX_SIZE
        } else {
            pods
        };
        taken + u32::from(instance.interfaces)
    }

    /// What a machine costs, or why that is not known.
    #[must_use]
    pub fn price(&self, cloud: Cloud, region: &str, name: &str) -> Price {
        let table = match cloud {
            Cloud::Aws => &self.aws,
            Cloud::Azure => &self.azure,
            Cloud::Gcp | Cloud::Machines => &None,
        };
        match table {
            Some(table) => table.price(name, region),
            None => Price::Unknown {
                reason: format!("no dated price list of {cloud} is shipped"),
            },
        }
    }
}

/// Whether a type of AWS has one of its own processors (Graviton): a `g` after the generation marks them.
pub(crate) fn is_graviton(name: &str) -> bool {
    let family = name.split('.').next().unwrap_or_default();
    let after = family.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    let after = after.trim_start_matches(|c: char| c.is_ascii_digit());
    family.starts_with("a1") || after.starts_with('g')
}

fn among<'a>(known: impl Iterator<Item = &'a str>, name: &str, date: &str) -> Known {
    let known: Vec<&str> = known.collect();
    if known.contains(&name) {
        Known::Yes
    } else {
        Known::No(
            crate::file::nearest(name, &known).map(str::to_owned),
            date.to_owned(),
        )
    }
}
