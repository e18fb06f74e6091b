// SPDX-License-Identifier: Apache-2.0
//! What the machines cost, by dated list prices.

use ::plan::price::Price;
use serde::Serialize;

use crate::catalogue::Catalogue;
use crate::file::{Cloud, Cluster, NodeGroup};

/// What a cluster's machines cost a month, on demand, in US dollars; nothing else is counted.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase", rename_all_fields = "camelCase")]
pub enum Cost {
    /// By list prices.
    Known {
        /// With the nodes to begin with.
        usd_per_month: f64,
        /// When all groups have grown.
        usd_per_month_max: f64,
        /// The day of the price list.
        date: String,
        /// What the sum leaves out.
        without: &'static str,
    },
    /// Not all of it has a price.
    Unknown {
        /// Why.
        reason: String,
    },
}

/// A month as clouds count it.
const HOURS: f64 = 730.0;
const WITHOUT: &str = "control plane, disks, addresses, NAT, load balancers, firewalls, traffic between zones and out, discounts";

pub(super) fn of(cluster: &Cluster, catalogue: &Catalogue) -> Cost {
    if cluster.cloud == Cloud::Machines {
        return Cost::Unknown {
            reason: "the machines are there already".into(),
        };
    }
    let (mut now, mut most, mut dates) = (0.0, 0.0, Vec::new());
    for group in &cluster.node_groups {
        match dearest(cluster, group, catalogue) {
            Ok((price, date)) => {
                now += price * f64::from(group.desired) * HOURS;
                most += price * f64::from(group.max) * HOURS;
                dates.push(date);
            }
            Err(reason) => {
                return Cost::Unknown {
                    reason: format!("group {}: {reason}", group.name),
                };
            }
        }
    }
    let cents = |dollars: f64| (dollars * 100.0).round() / 100.0;
    Cost::Known {
        usd_per_month: cents(now),
        usd_per_month_max: cents(most),
        date: dates.into_iter().min().unwrap_or_default(),
        without: WITHOUT,
    }
}

/// The dearest of the group's types: which one comes is not known. Spot prices change by the hour, and none is shipped.
fn dearest(cluster: &Cluster, group: &NodeGroup, catalogue: &Catalogue) -> Result<(f64, String), String> {
    if group.spot {
        return Err("spot prices change by the hour, and none are shipped".into());
    }
    let mut found: Option<(f64, String)> = None;
    for name in &group.instance_types {
        match catalogue.price(cluster.cloud, &cluster.region, name) {
            Price::Known { usd_per_hour, date } => {
                let dearer = found.as_ref().is_none_or(|(price, _)| usd_per_hour > *price);
                if dearer {
                    found = Some((usd_per_hour, date.to_string()));
                }
            }
            Price::Unknown { reason } => return Err(reason),
        }
    }
    found.ok_or_else(|| "it names no type".into())
}
