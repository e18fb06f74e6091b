// SPDX-License-Identifier: Apache-2.0
//! How a cluster's network is cut into subnets.

use ipnet::Ipv4Net;
use serde::Serialize;

use super::pool::Free;
use crate::file::{Cloud, Cluster, Egress, Problems, Zones};

/// What a subnet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Nodes, and pods where they have addresses of the network.
    Nodes,
    /// What faces the Internet: NAT gateways, load balancers.
    Public,
    /// Attachments of a transit gateway.
    Transit,
    /// Azure's firewall; the subnet's name is prescribed.
    Firewall,
    /// GKE's control plane.
    ControlPlane,
}

/// A part of a cluster's network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Subnet {
    /// What it is for.
    pub role: Role,
    /// Which zone, from 0; nothing where subnets span zones.
    pub zone: Option<u32>,
    /// The zone's name, where the file has it.
    pub zone_name: Option<String>,
    /// Its addresses.
    pub cidr: Ipv4Net,
    /// How many of them machines can have.
    pub usable: u64,
}

/// Addresses of each subnet that the cloud keeps.
const fn kept(cloud: Cloud) -> u64 {
    match cloud {
        // Network, router, DNS, future use, broadcast.
        Cloud::Aws | Cloud::Azure => 5,
        Cloud::Gcp => 4,
        Cloud::Machines => 2,
    }
}

/// AzureFirewallSubnet has to be a /26 or larger.
const FIREWALL_PREFIX: u8 = 26;
/// AWS recommends a /28 for a transit gateway's attachment in each zone.
const TRANSIT_PREFIX: u8 = 28;
/// GKE's control plane takes a /28.
const CONTROL_PLANE_PREFIX: u8 = 28;
/// Public subnets hold NAT gateways and load balancers, nothing that grows with the cluster.
const PUBLIC_PREFIX: u8 = 24;

fn zone_count(cluster: &Cluster) -> u32 {
    match cluster.cloud {
        Cloud::Aws => cluster.zones.count().max(1),
        // A subnet spans the zones of its region there.
        Cloud::Azure | Cloud::Gcp | Cloud::Machines => 1,
    }
}

/// The bits by which a nodes' subnet is longer than its network: one part more than zones, for everything else.
fn split_bits(cluster: &Cluster) -> u8 {
    if cluster.cloud == Cloud::Machines {
        return 0;
    }
    let parts = (zone_count(cluster) + 1).next_power_of_two();
    u8::try_from(parts.trailing_zeros()).unwrap_or(8)
}

/// The length of the network whose nodes' subnets hold so many addresses together.
pub(super) fn network_prefix(cluster: &Cluster, addresses: u64) -> u8 {
    let zones = u64::from(zone_count(cluster));
    let each = addresses.div_ceil(zones) + kept(cluster.cloud);
    let bits = u8::try_from(each.next_power_of_two().trailing_zeros()).unwrap_or(32);
    32_u8.saturating_sub(bits).saturating_sub(split_bits(cluster))
}

/// Cuts the network.
pub(super) fn subnets(
    cluster: &Cluster,
    network: Ipv4Net,
    path: &str,
    problems: &mut Problems,
) -> Option<Vec<Subnet>> {
    let mut free = Free::of(&[network]);
    let mut wanted: Vec<(Role, u8, Option<u32>)> = Vec::new();
    let nodes = network.prefix_len() + split_bits(cluster);
    let zones = zone_count(cluster);
    let per_zone = |zone: u32| (cluster.cloud == Cloud::Aws).then_some(zone);
    wanted.extend((0..zones).map(|zone| (Role::Nodes, nodes, per_zone(zone))));
    match cluster.cloud {
        Cloud::Aws => {
            // Half of the last part for the public subnets.
            let share = u8::try_from(zones.next_power_of_two().trailing_zeros()).unwrap_or(3) + 1;
            let public = (nodes + share).max(PUBLIC_PREFIX);
            wanted.extend((0..zones).map(|zone| (Role::Public, public, per_zone(zone))));
            wanted.extend((0..zones).map(|zone| (Role::Transit, TRANSIT_PREFIX, per_zone(zone))));
        }
        Cloud::Azure if cluster.egress == Egress::Firewall => {
            wanted.push((Role::Firewall, FIREWALL_PREFIX, None));
        }
        Cloud::Gcp => wanted.push((Role::ControlPlane, CONTROL_PLANE_PREFIX, None)),
        Cloud::Azure | Cloud::Machines => {}
    }
    let mut found = Vec::new();
    for (role, length, zone) in wanted {
        let cidr = (length <= 30).then(|| free.take(length)).flatten();
        let Some(cidr) = cidr.filter(|_| length <= longest(cluster.cloud)) else {
            let reason = format!(
                "{network} is too small for the subnets of {} zones",
                cluster.zones.count()
            );
            problems.add(
                format!("{path}.network"),
                reason,
                "take a larger one (a smaller number after the slash)",
            );
            return None;
        };
        found.push(Subnet {
            role,
            zone,
            zone_name: zone.and_then(|zone| zone_name(&cluster.zones, zone)),
            cidr,
            usable: (1_u64 << (32 - u32::from(length))).saturating_sub(kept(cluster.cloud)),
        });
    }
    Some(found)
}

/// The longest prefix of a subnet: AWS a /28, Azure and Google a /29.
const fn longest(cloud: Cloud) -> u8 {
    match cloud {
        Cloud::Aws => 28,
        Cloud::Azure | Cloud::Gcp => 29,
        Cloud::Machines => 30,
    }
}

fn zone_name(zones: &Zones, zone: u32) -> Option<String> {
    match zones {
        Zones::Count(_) => None,
        Zones::Named(names) => names.get(usize::try_from(zone).ok()?).cloned(),
    }
}

/// Refuses nodes' subnets that cannot hold what the groups may grow to.
pub(super) fn check(cluster: &Cluster, subnets: &[Subnet], needed: u64, path: &str, problems: &mut Problems) {
    let nodes = subnets.iter().filter(|subnet| subnet.role == Role::Nodes);
    let usable: u64 = nodes.map(|subnet| subnet.usable).sum();
    if usable < needed {
        let length = network_prefix(cluster, needed);
        let reason = format!("its nodes' subnets hold {usable} addresses, and the groups may need {needed}");
        let remedy =
            format!("take a /{length} or larger, lower the groups' max or podsPerNode, or use mode overlay");
        problems.add(format!("{path}.network"), reason, remedy);
    }
}
