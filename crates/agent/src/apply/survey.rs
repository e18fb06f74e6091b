// SPDX-License-Identifier: Apache-2.0
//! What the node's devices are, and which of them lead to other nodes: pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cni::HOST_IFNAME_PREFIX;
use netlink::{Address, Link, Route};
use routing::Device;

use super::host::{HOST_LINK, HOST_PEER};
use crate::tunnel::TUNNEL_LINK;

/// The packet size of a node without any underlay.
const DEFAULT_MTU: u32 = 1500;

/// What the kernel says.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) links: Vec<Link>,
    pub(super) addresses: Vec<Address>,
    pub(super) routes: Vec<Route>,
}

/// What follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Survey {
    /// All devices that are not pods' or ours.
    pub(super) devices: Vec<Device>,
    /// Those towards other nodes.
    pub(super) underlay: Vec<Device>,
    /// The node's own addresses.
    pub(super) addresses: BTreeSet<IpAddr>,
    /// The largest packet that every underlay device takes.
    pub(super) underlay_mtu: u32,
    /// Devices of the configuration that do not exist.
    pub(super) missing: Vec<String>,
}

/// `wanted` devices are the underlay; without any, those with a default route or one of the node's addresses.
pub(super) fn survey(found: &Found, wanted: &[String], node: &[IpAddr]) -> Survey {
    let devices: Vec<Device> = found
        .links
        .iter()
        .filter(|link| !is_ours(link))
        .map(|link| device(link, found))
        .collect();
    let has_default = |device: &Device| {
        found
            .routes
            .iter()
            .any(|route| route.dst.prefix_len() == 0 && route.oif == Some(device.index))
    };
    let has_node_address = |device: &Device| device.addresses.iter().any(|net| node.contains(&net.addr()));
    let is_underlay = |device: &&Device| match wanted {
        [] => has_default(device) || has_node_address(device),
        wanted => wanted.contains(&device.name),
    };
    let underlay: Vec<Device> = devices.iter().filter(is_underlay).cloned().collect();
    let exists = |name: &&String| devices.iter().any(|device| device.name == **name);
    let mtus = found
        .links
        .iter()
        .filter(|link| underlay.iter().any(|device| device.index == link.index));
    let underlay_mtu = mtus.map(|link| link.mtu).min().unwrap_or(DEFAULT_MTU);
    Survey {
        addresses: found
            .addresses
            .iter()
            .map(|address| address.net.addr())
            .filter(is_nodes_own)
            .collect(),
        missing: wanted.iter().filter(|name| !exists(name)).cloned().collect(),
        devices,
        underlay,
        underlay_mtu,
    }
}

fn device(link: &Link, found: &Found) -> Device {
    let addresses = found
        .addresses
        .iter()
        .filter(|address| address.ifindex == link.index);
    Device {
        index: link.index,
        name: link.name.clone(),
        addresses: addresses
            .map(|address| address.net)
            .filter(|net| is_nodes_own(&net.addr()))
            .collect(),
    }
}

/// Loopback and link-local addresses mean something else on every machine.
fn is_nodes_own(ip: &IpAddr) -> bool {
    let link_local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    !ip.is_loopback() && !link_local
}

fn is_ours(link: &Link) -> bool {
    let ours = [HOST_LINK, HOST_PEER, TUNNEL_LINK].contains(&link.name.as_str());
    let pods = link.name.starts_with(HOST_IFNAME_PREFIX) && link.kind.as_deref() == Some("veth");
    ours || pods || link.name == "lo"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_underlay_is_where_the_default_route_or_the_nodes_address_is() {
        let node = ["192.168.7.1".parse().unwrap()];
        let survey = survey(&found(), &[], &node);
        let names: Vec<_> = survey.underlay.iter().map(|device| &*device.name).collect();
        assert_eq!(names, ["eth0", "eth1"]);
        assert_eq!(survey.underlay_mtu, 1400, "the smallest of the underlay");
        assert_eq!(survey.devices.len(), 3, "pods and our own are not among them");
        let own: Vec<_> = survey.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(own, ["10.0.0.5", "172.17.0.1", "192.168.7.1"]);
    }

    #[test]
    fn configured_devices_win_and_missing_ones_are_named() {
        let survey = survey(&found(), &["docker0".into(), "bond9".into()], &[]);
        assert_eq!((survey.underlay.len(), &*survey.underlay[0].name), (1, "docker0"));
        assert_eq!(survey.missing, ["bond9"]);
    }

    fn found() -> Found {
        let names = ["lo", "eth0", "eth1", "docker0", "tw0123456789ab", HOST_LINK];
        let link = |(index, name): (usize, &&str)| Link {
            index: u32::try_from(index).unwrap() + 1,
            name: (*name).to_owned(),
            alias: None,
            mac: None,
            mtu: if *name == "eth1" { 1400 } else { 9000 },
            up: true,
            carrier: true,
            noarp: false,
            kind: name.starts_with("tw").then(|| "veth".to_owned()),
            peer_index: None,
            master: None,
        };
        let address = |ifindex, net: &str| Address {
            ifindex,
            net: net.parse().unwrap(),
            global: true,
            link_local: false,
            tentative: false,
        };
        let default = Route {
            oif: Some(2),
            ..Route::to("0.0.0.0/0".parse().unwrap())
        };
        Found {
            links: names.iter().enumerate().map(link).collect(),
            addresses: vec![
                address(1, "127.0.0.1/8"),
                address(2, "10.0.0.5/24"),
                address(2, "fe80::5/64"),
                address(3, "192.168.7.1/24"),
                address(4, "172.17.0.1/16"),
            ],
            routes: vec![default],
        }
    }
}
