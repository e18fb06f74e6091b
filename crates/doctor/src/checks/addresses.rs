// SPDX-License-Identifier: Apache-2.0
//! Addresses that are given twice, and packets that do not fit.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Check, each_node, some_of};
use crate::facts::{AgentFacts, Facts, Link, NodeFacts};
use crate::finding::{Outcome, Severity};

/// What VXLAN adds to a packet over IPv4: IP 20, UDP 8, VXLAN 8, Ethernet 14. IPv6 adds 20 more, so that less than this is
/// too little in any case.
const VXLAN_OVERHEAD: u32 = 50;
/// Geneve's header is as long, and carries our option of 8.
const GENEVE_OVERHEAD: u32 = 58;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "addresses.overlap",
        per_node: false,
        trap: None,
        title: "networks of pods, services, nodes or the cloud overlap",
        why: "packets go to the wrong one of two owners of an address; it cannot be mended without moving one of them",
        run: overlap,
    },
    Check {
        id: "addresses.mtu",
        per_node: true,
        trap: None,
        title: "pods send larger packets than a device on their way carries, or nodes disagree",
        why: "small packets pass and large ones vanish: handshakes work, transfers hang",
        run: mtu,
    },
];

/// A network with who has it.
struct Owned {
    net: IpNet,
    of: String,
}

fn overlap(facts: &Facts, outcome: &mut Outcome) {
    let pods = pod_networks(facts);
    if pods.is_empty() {
        outcome.need("cluster", &facts.cluster.nodes);
    }
    for node in &facts.nodes {
        let of = format!("pods of {}", node.name);
        if !pods.iter().any(|owned| owned.of == of) {
            outcome.need(&node.name, &node.agent);
        }
    }
    for (index, first) in pods.iter().enumerate() {
        for second in &pods[index + 1..] {
            if overlaps(first.net, second.net) {
                clash(outcome, "cluster", first, second);
            }
        }
    }
    nodes_in_pod_networks(facts, &pods, outcome);
    services_in_pod_networks(facts, &pods, outcome);
    cloud_networks(facts, &pods, outcome);
}

fn clash(outcome: &mut Outcome, place: &str, first: &Owned, second: &Owned) {
    outcome.find(
        Severity::Error,
        place,
        format!("{} ({}) overlaps with {} ({})", first.net, first.of, second.net, second.of),
        "give one of them another range: for pods --cluster-cidr of the controller manager and new nodes, for services a new ServiceCIDR",
    );
}

fn overlaps(a: IpNet, b: IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

fn pod_networks(facts: &Facts) -> Vec<Owned> {
    let owned = facts.pod_networks().into_iter();
    owned
        .map(|(node, net)| Owned {
            net,
            of: format!("pods of {node}"),
        })
        .collect()
}

fn nodes_in_pod_networks(facts: &Facts, pods: &[Owned], outcome: &mut Outcome) {
    let Some(nodes) = outcome.need("cluster", &facts.cluster.nodes) else {
        return;
    };
    for node in nodes {
        for address in &node.addresses {
            if let Some(owned) = pods.iter().find(|owned| owned.net.contains(address)) {
                outcome.find(
                    Severity::Error,
                    &node.name,
                    format!("its own address {address} lies in {} ({})", owned.net, owned.of),
                    "move the pods' range away from the nodes' subnet",
                );
            }
        }
    }
}

fn services_in_pod_networks(facts: &Facts, pods: &[Owned], outcome: &mut Outcome) {
    let ranges = facts.cluster.service_cidrs.known();
    for net in ranges.into_iter().flatten() {
        let services = Owned {
            net: *net,
            of: "services".into(),
        };
        for owned in pods.iter().filter(|owned| overlaps(owned.net, *net)) {
            clash(outcome, "cluster", owned, &services);
        }
    }
    if ranges.is_some_and(|ranges| !ranges.is_empty()) {
        return;
    }
    // Without the range, the addresses that were given from it.
    let Some(services) = outcome.need("cluster", &facts.cluster.services) else {
        return;
    };
    let inside = services.iter().filter_map(|service| {
        let hit = |address: &&IpAddr| pods.iter().any(|owned| owned.net.contains(*address));
        let address = service.cluster_ips.iter().find(hit)?;
        Some(format!("{} of {}", address, service.name))
    });
    let inside: Vec<String> = inside.collect();
    if !inside.is_empty() {
        outcome.find(
            Severity::Error,
            "cluster",
            format!("service addresses lie in pods' networks: {}", some_of(inside)),
            "give pods or services another range; addresses that are in use cannot be shared",
        );
    }
}

/// Pods that are routed natively in the cloud have addresses of its network on purpose; any other overlap is none.
fn cloud_networks(facts: &Facts, pods: &[Owned], outcome: &mut Outcome) {
    let from_cloud = facts.nodes.iter().filter_map(|node| node.agent.known());
    let mut modes = from_cloud.map(|agent| agent.routing_mode.as_str());
    let overlay = modes.any(|mode| mode == "vxlan" || mode == "geneve");
    if !overlay {
        return;
    }
    let Some(networks) = outcome.need("cloud", &facts.cloud.vpc_cidrs) else {
        return;
    };
    for net in networks {
        let cloud = Owned {
            net: *net,
            of: "the cloud's network".into(),
        };
        for owned in pods.iter().filter(|owned| overlaps(owned.net, *net)) {
            clash(outcome, "cloud", owned, &cloud);
        }
    }
}

fn mtu(facts: &Facts, outcome: &mut Outcome) {
    let mut seen: Vec<(&str, u32)> = Vec::new();
    each_node(facts, |node| {
        let Some(agent) = outcome.need(&node.name, &node.agent) else {
            return;
        };
        seen.push((&node.name, agent.mtu));
        let Some(links) = outcome.need(&node.name, &node.links) else {
            return;
        };
        underlay(node, agent, links, outcome);
        pods(node, agent, links, outcome);
    });
    let smallest = seen.iter().min_by_key(|(_, mtu)| *mtu).copied();
    let largest = seen.iter().max_by_key(|(_, mtu)| *mtu).copied();
    if let (Some((small_node, small)), Some((large_node, large))) = (smallest, largest)
        && small != large
    {
        outcome.find(
            Severity::Warning,
            "cluster",
            format!("pods of {large_node} send packets of {large} bytes, those of {small_node} of {small}"),
            format!("set mtu: {small} for all nodes, or give their devices the same MTU"),
        );
    }
}

fn underlay(node: &NodeFacts, agent: &AgentFacts, links: &[Link], outcome: &mut Outcome) {
    let overhead = match agent.routing_mode.as_str() {
        "vxlan" => VXLAN_OVERHEAD,
        "geneve" => GENEVE_OVERHEAD,
        _ => 0,
    };
    for device in links.iter().filter(|link| agent.devices.contains(&link.name)) {
        let needed = agent.mtu + overhead;
        if device.mtu < needed {
            outcome.find(
                Severity::Error,
                &node.name,
                format!(
                    "{} carries {} bytes, pods send {}{}",
                    device.name,
                    device.mtu,
                    agent.mtu,
                    if overhead > 0 {
                        format!(" and the tunnel adds {overhead}")
                    } else {
                        String::new()
                    }
                ),
                format!(
                    "ip link set {} mtu {needed}, or restart the agent so that it takes mtu {}",
                    device.name,
                    device.mtu.saturating_sub(overhead)
                ),
            );
        }
    }
}

fn pods(node: &NodeFacts, agent: &AgentFacts, links: &[Link], outcome: &mut Outcome) {
    let other = links.iter().filter(|link| {
        link.name.starts_with(cni::HOST_IFNAME_PREFIX) && link.leads_to_pod && link.mtu != agent.mtu
    });
    let other: Vec<String> = other
        .map(|link| format!("{} ({})", link.name, link.mtu))
        .collect();
    if !other.is_empty() {
        outcome.find(
            Severity::Warning,
            &node.name,
            format!(
                "{} pods' devices have another MTU than {}: {}",
                other.len(),
                agent.mtu,
                some_of(other)
            ),
            "pods that were started before the MTU changed keep the old one: restart them",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_overlap_when_one_holds_the_other_and_never_across_families() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        assert!(
            overlaps(net("10.0.0.0/8"), net("10.1.0.0/16"))
                && overlaps(net("10.1.0.0/16"), net("10.0.0.0/8"))
        );
        assert!(!overlaps(net("10.0.0.0/16"), net("10.1.0.0/16")));
        assert!(!overlaps(net("0.0.0.0/0"), net("fd00::/8")));
    }
}
