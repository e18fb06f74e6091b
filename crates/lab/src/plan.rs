// SPDX-License-Identifier: Apache-2.0
//! Which addresses everything in a lab gets; pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::Family;

use crate::Error;
use crate::spec::{NodeSpec, Spec, Topology};

/// The port of the API server inside the lab, as in most clusters.
pub(crate) const API_PORT: u16 = 6443;
/// Node `i` has the host number `NODE_OFFSET + i` on a flat underlay.
const NODE_OFFSET: u8 = 10;
/// The host number of a node on its own segment of a routed underlay.
const ROUTED_HOST: u8 = 10;

/// The addresses of a lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// What connects the nodes.
    pub(crate) topology: Topology,
    /// The nodes, in order.
    pub(crate) nodes: Vec<NodePlan>,
    /// The underlay's own address per family: the API server, and on a flat underlay the nodes' gateway.
    pub(crate) api: Vec<IpNet>,
    /// Where pods' addresses come from, per family.
    pub(crate) pod_cidrs: Vec<IpNet>,
    /// Where ClusterIPs come from, per family.
    pub(crate) service_cidrs: Vec<IpNet>,
}

/// A node's place on the underlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodePlan {
    /// Its name.
    pub(crate) name: String,
    /// The labels of its Node object.
    pub(crate) labels: BTreeMap<String, String>,
    /// The link towards it in the underlay's namespace.
    pub(crate) link: String,
    /// Its addresses with their prefix lengths, per family.
    pub(crate) addresses: Vec<IpNet>,
    /// Its default gateways, per family.
    pub(crate) gateways: Vec<IpNet>,
}

impl Plan {
    /// Plans a valid specification.
    ///
    /// # Errors
    /// When two of the address ranges overlap.
    pub(crate) fn of(spec: &Spec) -> Result<Self, Error> {
        let families = spec.family.list();
        let or_default = |given: &[IpNet], default: fn(Family) -> IpNet| match given {
            [] => families.iter().map(|family| default(*family)).collect(),
            given => given.iter().map(IpNet::trunc).collect::<Vec<_>>(),
        };
        let nodes = spec.nodes.list().into_iter().zip(1u8..);
        let plan = Self {
            topology: spec.topology,
            nodes: nodes
                .map(|(node, number)| node_plan(&node, number, spec.topology, families))
                .collect(),
            api: families
                .iter()
                .map(|family| api_address(*family, spec.topology))
                .collect(),
            pod_cidrs: or_default(&spec.pod_cidrs, pod_cidr),
            service_cidrs: or_default(&spec.service_cidrs, service_cidr),
        };
        plan.check_overlaps()?;
        Ok(plan)
    }

    fn check_overlaps(&self) -> Result<(), Error> {
        let underlay = [underlay_supernet(Family::Ipv4), underlay_supernet(Family::Ipv6)];
        let named = self.pod_cidrs.iter().map(|cidr| ("podCIDRs", cidr));
        let named = named.chain(self.service_cidrs.iter().map(|cidr| ("serviceCIDRs", cidr)));
        let all: Vec<_> = named
            .chain(underlay.iter().map(|cidr| ("the underlay", cidr)))
            .collect();
        for (position, (name, cidr)) in all.iter().enumerate() {
            for (other_name, other) in &all[position + 1..] {
                if cidr.contains(*other) || other.contains(*cidr) {
                    return Err(Error::Refused(format!(
                        "{name}: {cidr} overlaps {other} of {other_name}; choose ranges that are apart"
                    )));
                }
            }
        }
        Ok(())
    }
}

fn node_plan(spec: &NodeSpec, number: u8, topology: Topology, families: &[Family]) -> NodePlan {
    let (segment, host) = match topology {
        Topology::Flat => (0, NODE_OFFSET + number),
        Topology::Routed => (number, ROUTED_HOST),
    };
    NodePlan {
        name: spec.name_at(number.into()),
        labels: spec.all_labels(),
        link: format!("to-node-{number}"),
        addresses: families
            .iter()
            .map(|family| underlay(*family, segment, host))
            .collect(),
        gateways: families
            .iter()
            .map(|family| underlay(*family, segment, 1))
            .collect(),
    }
}

/// Host `host` of segment `segment`: 172.30.segment.host/24 and fd74:77:segment::host/64.
fn underlay(family: Family, segment: u8, host: u8) -> IpNet {
    match family {
        Family::Ipv4 => net4(Ipv4Addr::new(172, 30, segment, host), 24),
        Family::Ipv6 => {
            // Written in decimal, so that node 12 is ...:12::... in both families.
            let (segment, host) = (decimal_as_hex(segment), decimal_as_hex(host));
            net6(Ipv6Addr::new(0xfd74, 0x77, segment, 0, 0, 0, 0, host), 64)
        }
    }
}

fn decimal_as_hex(number: u8) -> u16 {
    let number = u16::from(number);
    number / 100 * 0x100 + number / 10 % 10 * 0x10 + number % 10
}

fn underlay_supernet(family: Family) -> IpNet {
    match family {
        Family::Ipv4 => net4(Ipv4Addr::new(172, 30, 0, 0), 16),
        Family::Ipv6 => net6(Ipv6Addr::new(0xfd74, 0x77, 0, 0, 0, 0, 0, 0), 32),
    }
}

fn api_address(family: Family, topology: Topology) -> IpNet {
    let address = underlay(family, 0, 1);
    match topology {
        Topology::Flat => address,
        Topology::Routed => IpNet::from(address.addr()),
    }
}

fn pod_cidr(family: Family) -> IpNet {
    match family {
        Family::Ipv4 => net4(Ipv4Addr::new(10, 244, 0, 0), 16),
        Family::Ipv6 => net6(Ipv6Addr::new(0xfd74, 0x7710, 0, 0, 0, 0, 0, 0), 48),
    }
}

fn service_cidr(family: Family) -> IpNet {
    match family {
        Family::Ipv4 => net4(Ipv4Addr::new(10, 96, 0, 0), 16),
        Family::Ipv6 => net6(Ipv6Addr::new(0xfd74, 0x7796, 0, 0, 0, 0, 0, 0), 112),
    }
}

fn net4(addr: Ipv4Addr, prefix: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(addr, prefix))
}

fn net6(addr: Ipv6Addr, prefix: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(addr, prefix))
}

/// `https://` URL of the API server at this address.
#[must_use]
pub(crate) fn api_url(ip: IpAddr, port: u16) -> String {
    format!("https://{}", std::net::SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Families, Nodes};

    fn plan(spec: &Spec) -> Plan {
        spec.validate().unwrap();
        Plan::of(spec).unwrap()
    }

    fn text(nets: &[IpNet]) -> Vec<String> {
        nets.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_flat_lab_is_one_segment() {
        let plan = plan(&Spec::default());
        assert_eq!(
            text(&plan.nodes[0].addresses),
            ["172.30.0.11/24", "fd74:77::11/64"]
        );
        assert_eq!(
            text(&plan.nodes[2].addresses),
            ["172.30.0.13/24", "fd74:77::13/64"]
        );
        assert_eq!(text(&plan.nodes[2].gateways), text(&plan.api));
        assert_eq!(text(&plan.pod_cidrs), ["10.244.0.0/16", "fd74:7710::/48"]);
    }

    #[test]
    fn a_routed_lab_has_a_segment_per_node() {
        let plan = plan(&Spec {
            topology: Topology::Routed,
            nodes: Nodes::Count(12),
            ..Spec::default()
        });
        assert_eq!(
            text(&plan.nodes[11].addresses),
            ["172.30.12.10/24", "fd74:77:12::10/64"]
        );
        assert_eq!(
            text(&plan.nodes[11].gateways),
            ["172.30.12.1/24", "fd74:77:12::1/64"]
        );
        assert_eq!(text(&plan.api), ["172.30.0.1/32", "fd74:77::1/128"]);
    }

    #[test]
    fn one_family_means_one_address_of_everything() {
        let plan = plan(&Spec {
            family: Families::Ipv6,
            ..Spec::default()
        });
        assert_eq!(text(&plan.nodes[0].addresses), ["fd74:77::11/64"]);
        assert_eq!(
            (plan.api.len(), plan.pod_cidrs.len(), plan.service_cidrs.len()),
            (1, 1, 1)
        );
    }

    #[test]
    fn no_two_nodes_of_the_largest_lab_share_an_address() {
        for topology in [Topology::Flat, Topology::Routed] {
            let plan = plan(&Spec {
                topology,
                nodes: Nodes::Count(crate::spec::NODES_MAX),
                ..Spec::default()
            });
            let all: std::collections::BTreeSet<_> =
                plan.nodes.iter().flat_map(|node| &node.addresses).collect();
            assert_eq!(all.len(), 2 * crate::spec::NODES_MAX);
        }
    }

    #[test]
    fn overlapping_ranges_are_refused_by_name() {
        let pod_cidrs = vec!["10.96.0.0/12".parse().unwrap(), "fd00::/48".parse().unwrap()];
        let error = Plan::of(&Spec {
            pod_cidrs,
            ..Spec::default()
        })
        .unwrap_err()
        .to_string();
        assert!(
            error.contains("10.96.0.0/12 overlaps 10.96.0.0/16 of serviceCIDRs"),
            "{error}"
        );
    }
}
