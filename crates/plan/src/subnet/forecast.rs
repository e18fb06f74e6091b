// SPDX-License-Identifier: Apache-2.0
//! Nodes come month after month until the subnet has no room for the next.

use std::str::FromStr;

use ipnet::Ipv4Net;
use serde::Serialize;

use super::{NodeDemand, Subnet, SubnetError};

/// Nobody plans further, and a compound growth would overflow.
const LONGEST_MONTHS: u32 = 240;
/// More nodes than Kubernetes can have; ends a compound growth.
const MOST_NODES: u64 = 1_000_000;

/// How the number of nodes grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Growth {
    /// This many more each month.
    NodesPerMonth(u32),
    /// By this part each month, rounded up to whole nodes.
    PercentPerMonth(u32),
}

/// Text that is no growth.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no growth; write nodes a month, as in 5, or a part a month, as in 10%")]
pub struct GrowthError(String);

impl FromStr for Growth {
    type Err = GrowthError;

    fn from_str(text: &str) -> Result<Self, GrowthError> {
        let (number, percent) = text
            .strip_suffix('%')
            .map_or((text, false), |number| (number, true));
        let number = number.parse().map_err(|_| GrowthError(text.to_owned()))?;
        Ok(if percent {
            Self::PercentPerMonth(number)
        } else {
            Self::NodesPerMonth(number)
        })
    }
}

impl Growth {
    fn next(self, nodes: u64) -> u64 {
        let more = match self {
            Self::NodesPerMonth(more) => u64::from(more),
            Self::PercentPerMonth(percent) => (nodes * u64::from(percent)).div_ceil(100),
        };
        (nodes + more).min(MOST_NODES)
    }

    fn is_none(self) -> bool {
        matches!(self, Self::NodesPerMonth(0) | Self::PercentPerMonth(0))
    }
}

/// The subnet at the end of a month.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Month {
    /// 0 is now.
    pub month: u32,
    /// Nodes that run, all of them placed.
    pub nodes: u64,
    /// Free addresses.
    pub free: u32,
    /// /28 prefixes to be had.
    pub prefixes: u32,
}

/// What was missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Short {
    /// Single addresses.
    Addresses,
    /// Blocks of sixteen, though single addresses may be left.
    Prefixes,
}

/// The first node that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Exhausted {
    /// Months from now; 0 is now.
    pub month: u32,
    /// Which node it is, counted from 1.
    pub node: u64,
    /// What it lacks.
    pub short_of: Short,
    /// Addresses that are free all the same.
    pub free: u32,
}

/// How a subnet fills.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Forecast {
    /// The subnet.
    pub cidr: Ipv4Net,
    /// What each node takes.
    pub node: NodeDemand,
    /// Months, the last whole one at the end.
    pub months: Vec<Month>,
    /// When it ends; `None` when it lasts through the horizon.
    pub exhausted: Option<Exhausted>,
    /// Nodes that fit, those that run now included.
    pub most_nodes: u64,
}

/// Follows a subnet that already holds the `nodes` of now, month by month.
#[must_use]
pub fn forecast(subnet: &Subnet, node: NodeDemand, nodes: u64, growth: Growth, horizon: u32) -> Forecast {
    let mut space = subnet.clone();
    let mut running = nodes;
    let mut months = vec![Month {
        month: 0,
        nodes,
        free: space.free(),
        prefixes: space.prefixes(),
    }];
    let mut exhausted = None;
    let last = if growth.is_none() {
        0
    } else {
        horizon.min(LONGEST_MONTHS)
    };
    'time: for month in 1..=last {
        let wanted = growth.next(running);
        while running < wanted {
            if let Err((short_of, free)) = space.place(node) {
                exhausted = Some(Exhausted {
                    month,
                    node: running + 1,
                    short_of,
                    free,
                });
                break 'time;
            }
            running += 1;
        }
        months.push(Month {
            month,
            nodes: running,
            free: space.free(),
            prefixes: space.prefixes(),
        });
    }
    let mut most_nodes = running;
    while exhausted.is_none() && most_nodes < MOST_NODES && space.place(node).is_ok() {
        most_nodes += 1;
    }
    Forecast {
        cidr: subnet.cidr(),
        node,
        months,
        exhausted,
        most_nodes,
    }
}

impl Subnet {
    /// Places a node whole; else says what it lacks and how much was free before it.
    pub fn place(&mut self, node: NodeDemand) -> Result<(), (Short, u32)> {
        let free = self.free();
        for _ in 0..node.addresses {
            if !self.take_one() {
                return Err((Short::Addresses, free));
            }
        }
        for _ in 0..node.prefixes {
            if !self.take_prefix() {
                return Err((Short::Prefixes, free));
            }
        }
        // A node that takes nothing would never end.
        if node.addresses + node.prefixes == 0 {
            return Err((Short::Addresses, free));
        }
        Ok(())
    }
}

/// How many nodes a pod CIDR has ranges for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct NodeRanges {
    /// The pod CIDR.
    pub cidr: Ipv4Net,
    /// Size of each node's range.
    pub node_mask: u8,
    /// Nodes that fit.
    pub most_nodes: u64,
    /// Months from now until the first node has no range; `None` within the horizon.
    pub exhausted_month: Option<u32>,
}

/// Follows a pod CIDR of which every node gets one range.
///
/// # Errors
/// It is not the CIDR's first address, or no node's range fits.
pub fn node_ranges(
    cidr: Ipv4Net,
    node_mask: u8,
    nodes: u64,
    growth: Growth,
    horizon: u32,
) -> Result<NodeRanges, SubnetError> {
    if cidr.trunc() != cidr {
        return Err(SubnetError::NotFirst {
            given: cidr,
            meant: cidr.trunc(),
        });
    }
    let bits = node_mask
        .checked_sub(cidr.prefix_len())
        .ok_or(SubnetError::NoRange { cidr, node_mask })?;
    let most_nodes = 1_u64 << bits;
    let mut running = nodes;
    let mut exhausted_month = (running > most_nodes).then_some(0);
    if !growth.is_none() {
        for month in 1..=horizon.min(LONGEST_MONTHS) {
            running = growth.next(running);
            if exhausted_month.is_none() && running > most_nodes {
                exhausted_month = Some(month);
            }
        }
    }
    Ok(NodeRanges {
        cidr,
        node_mask,
        most_nodes,
        exhausted_month,
    })
}
