// SPDX-License-Identifier: Apache-2.0
//! What machines cost, where dated data say so. List prices on demand, Linux, US dollars an hour.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cloud::Cloud;
use crate::data::{self, DataError, Provenance};
use crate::date::Date;

const FORMAT: &str = "thalweg prices 1";
const AWS: &str = include_str!("../data/aws-prices.csv");
const AZURE: &str = include_str!("../data/azure-prices.csv");

/// Prices of one cloud, some regions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriceTable {
    provenance: Provenance,
    regions: Vec<String>,
    rows: BTreeMap<String, Vec<Option<Micros>>>,
}

/// Millionths of a US dollar an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Micros(pub u64);

impl Micros {
    /// In US dollars an hour.
    #[must_use]
    pub fn dollars(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// Reads `0.0960`, at most six decimals.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if rest.len() > 6 || !digits(whole) || !digits(rest) || whole.is_empty() {
            return None;
        }
        let fraction: u64 = format!("{rest:0<6}").parse().ok()?;
        whole
            .parse::<u64>()
            .ok()?
            .checked_mul(1_000_000)?
            .checked_add(fraction)
            .map(Self)
    }

    fn text(self) -> String {
        let text = format!("{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

/// What is known of a price.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Price {
    /// A list price.
    Known {
        /// US dollars an hour, on demand, Linux.
        usd_per_hour: f64,
        /// The day of the price list.
        date: Date,
    },
    /// None, and why.
    Unknown {
        /// What is missing.
        reason: String,
    },
}

impl Price {
    /// Dollars an hour, if known.
    #[must_use]
    pub fn usd_per_hour(&self) -> Option<f64> {
        match self {
            Self::Known { usd_per_hour, .. } => Some(*usd_per_hour),
            Self::Unknown { .. } => None,
        }
    }
}

impl PriceTable {
    /// The prices that this version ships for a cloud; none for Google Cloud and machines of one's own.
    ///
    /// # Errors
    /// Only if the program itself is damaged.
    pub fn shipped(cloud: Cloud) -> Result<Option<Self>, DataError> {
        match cloud {
            Cloud::Aws => Self::parse(AWS).map(Some),
            Cloud::Azure => Self::parse(AZURE).map(Some),
            Cloud::Gcp | Cloud::Other => Ok(None),
        }
    }

    /// A table; each row has a price, or none, for each region.
    #[must_use]
    pub fn new(
        provenance: Provenance,
        regions: Vec<String>,
        rows: BTreeMap<String, Vec<Option<Micros>>>,
    ) -> Self {
        Self {
            provenance,
            regions,
            rows,
        }
    }

    /// Reads what [`Self::to_text`] writes.
    ///
    /// # Errors
    /// The text is of another format, cut short, altered, or has a row that cannot be.
    pub fn parse(text: &str) -> Result<Self, DataError> {
        let file = data::parse(text, FORMAT)?;
        let regions: Vec<String> = file
            .columns
            .iter()
            .skip(1)
            .map(|name| (*name).to_owned())
            .collect();
        let mut rows = BTreeMap::new();
        for (line, cells) in file.rows {
            let bad = |reason: String| DataError::Row { line, reason };
            let (name, prices) = cells.split_first().ok_or_else(|| bad("no values".to_owned()))?;
            if prices.len() != regions.len() {
                return Err(bad(format!(
                    "{} prices for {} regions",
                    prices.len(),
                    regions.len()
                )));
            }
            let price = |text: &&str| match *text {
                "" => Ok(None),
                text => Micros::parse(text)
                    .map(Some)
                    .ok_or_else(|| bad(format!("price `{text}`"))),
            };
            let prices = prices.iter().map(price).collect::<Result<_, _>>()?;
            rows.insert((*name).to_owned(), prices);
        }
        Ok(Self {
            provenance: file.provenance,
            regions,
            rows,
        })
    }

    /// The table as text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let columns: Vec<&str> = std::iter::once("type")
            .chain(self.regions.iter().map(String::as_str))
            .collect();
        let cell = |price: &Option<Micros>| price.map(Micros::text).unwrap_or_default();
        let row = |(name, prices): (&String, &Vec<Option<Micros>>)| {
            let cells = std::iter::once(name.clone()).chain(prices.iter().map(cell));
            cells.collect::<Vec<_>>().join(",")
        };
        data::write(
            FORMAT,
            &self.provenance,
            &columns,
            self.rows.iter().map(row).collect(),
        )
    }

    /// Where the numbers come from.
    #[must_use]
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// The regions that have prices.
    #[must_use]
    pub fn regions(&self) -> &[String] {
        &self.regions
    }

    /// The machine types that have a price somewhere.
    pub fn types(&self) -> impl Iterator<Item = &str> {
        self.rows.keys().map(String::as_str)
    }

    /// The price of a machine type in a region, or why there is none.
    #[must_use]
    pub fn price(&self, machine: &str, region: &str) -> Price {
        let unknown = |reason: String| Price::Unknown { reason };
        let Some(column) = self.regions.iter().position(|known| known == region) else {
            return unknown(format!(
                "no price list of {region} is shipped, only of {}",
                self.regions.join(", ")
            ));
        };
        let cell = self
            .rows
            .get(machine)
            .and_then(|prices| prices.get(column).copied().flatten());
        match cell {
            Some(price) => Price::Known {
                usd_per_hour: price.dollars(),
                date: self.provenance.date,
            },
            None => unknown(format!(
                "the price list of {} has no {machine} in {region}",
                self.provenance.date
            )),
        }
    }
}

/// The price of a machine, or why there is none.
///
/// # Errors
/// Only if the shipped data are damaged.
pub fn price(cloud: Cloud, machine: &str, region: &str) -> Result<Price, DataError> {
    Ok(PriceTable::shipped(cloud)?.map_or_else(
        || Price::Unknown {
            reason: format!("no dated price list of {cloud} is shipped"),
        },
        |table| table.price(machine, region),
    ))
}

/// What to say of a machine type that no price list names; `None` when one does.
///
/// # Errors
/// Only if the shipped data are damaged.
pub fn unlisted(cloud: Cloud, machine: &str) -> Result<Option<String>, DataError> {
    let Some(table) = PriceTable::shipped(cloud)? else {
        return Ok(None);
    };
    if table.types().any(|known| known == machine) {
        return Ok(None);
    }
    let nearest = data::nearest(machine, table.types());
    Ok(Some(format!(
        "{machine} is in no price list of {} ({}): whether there is such a machine is unknown{}",
        table.provenance.date,
        table.regions.join(", "),
        data::suggestion(&nearest)
    )))
}
