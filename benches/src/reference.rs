// SPDX-License-Identifier: Apache-2.0
//! What Thalweg is compared with, set up as somebody would who wants it to be fast.
//!
//! *Kernel routing*: pods are namespaces joined by veth to a node namespace that forwards; neighbours are static, there
//! is no filter and no connection tracking, except where addresses are translated. *Bridge plugin*: Debian's `bridge` with
//! its masquerade rules and `host-local`, and static routes between nodes.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::cni::Plugin;
use crate::namespace::{End, Namespace, join};

/// Two ends between which load is made.
#[derive(Debug)]
pub(crate) struct Path {
    /// Where the client runs.
    pub(crate) client: Namespace,
    /// Where the server runs.
    pub(crate) server: Namespace,
    /// The server's address.
    pub(crate) target: IpAddr,
    /// What the client calls instead, if it is not the server itself.
    pub(crate) service: Option<Frontend>,
    /// What else the path consists of; it is there as long as somebody holds it.
    pub(crate) between: Vec<Namespace>,
}

impl Path {
    /// The node between client and server.
    pub(crate) fn node(&self) -> Result<&Namespace> {
        self.between.last().context("there is no node between them")
    }
}

/// A service in front of the server.
#[derive(Clone, Debug)]
pub(crate) struct Frontend {
    /// Its address.
    pub(crate) address: IpAddr,
    /// The cgroup that the client is put into, where its sockets are looked at.
    pub(crate) cgroup: Option<PathBuf>,
}

/// What connects two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// One veth pair.
    Direct,
    /// A bridge in a namespace of its own, as in a lab.
    Switch,
}

/// The address of a node of the reference.
fn node_address(node: u8) -> IpAddr {
    Ipv4Addr::new(172, 31, 99, node).into()
}

/// The address of pod `index` of a node.
pub(crate) fn pod_address(node: u8, index: u8) -> IpAddr {
    Ipv4Addr::new(10, 99, node, index + 1).into()
}

/// Kernel routing between two pods of one node.
pub(crate) fn routed_same_node() -> Result<Path> {
    let node = Namespace::node()?;
    let (client, server) = (routed_pod(&node, 1, 1)?, routed_pod(&node, 1, 2)?);
    Ok(Path {
        client,
        server,
        target: pod_address(1, 2),
        between: vec![node],
        service: None,
    })
}

/// Kernel routing between pods of two nodes.
pub(crate) fn routed_across(wire: Wire) -> Result<Path> {
    let (mut between, first, second) = two_nodes(wire)?;
    let (client, server) = (routed_pod(&first, 1, 1)?, routed_pod(&second, 2, 1)?);
    between.extend([first, second]);
    Ok(Path {
        client,
        server,
        target: pod_address(2, 1),
        between,
        service: None,
    })
}

/// Kernel routing between pods of two nodes through a VXLAN device of the kernel.
pub(crate) fn tunnelled_across() -> Result<Path> {
    let (mut between, first, second) = two_nodes(Wire::Switch)?;
    for (node, number, other) in [(&first, 1, 2), (&second, 2, 1)] {
        node.ip(&[
            format!(
                "link add vxlan0 address 02:74:77:be:01:0{number} mtu {TUNNEL_MTU} type vxlan id 99 dstport 4789 local {} \
                 remote {} dev eth0 nolearning noudpcsum",
                node_address(number),
                node_address(other)
            ),
            "link set vxlan0 up".to_owned(),
            format!("address add 172.31.98.{number}/24 dev vxlan0"),
            format!("neighbour replace 172.31.98.{other} lladdr 02:74:77:be:01:0{other} dev vxlan0 nud permanent"),
            format!("route replace 10.99.{other}.0/24 via 172.31.98.{other}"),
        ])?;
    }
    let (client, server) = (routed_pod(&first, 1, 1)?, routed_pod(&second, 2, 1)?);
    for pod in [&client, &server] {
        pod.ip(&[format!("link set eth0 mtu {TUNNEL_MTU}")])?;
    }
    between.extend([first, second]);
    Ok(Path {
        client,
        server,
        target: pod_address(2, 1),
        between,
        service: None,
    })
}

/// Kernel routing from a pod to a machine that is no node, with the node's address there by netfilter.
pub(crate) fn masqueraded_to_world() -> Result<Path> {
    let (node, world) = (Namespace::node()?, switch()?);
    let uplink = uplink(&node, 1);
    plug(uplink, &world, "port1", 11)?;
    let bridge = End {
        namespace: &world,
        name: SWITCH,
        mac: 12,
    };
    world.ip(&[format!("link set {SWITCH} address {}", bridge.address())])?;
    let (own, target) = (node_address(1), node_address(9));
    uplink.assign(&format!("{own}/24"))?;
    bridge.assign(&format!("{target}/24"))?;
    uplink.knows(target, &bridge)?;
    bridge.knows(own, &uplink)?;
    node.nft(
        "table ip bench {
            chain postrouting {
                type nat hook postrouting priority srcnat;
                ip saddr 10.99.1.0/24 ip daddr != 10.99.0.0/16 oifname eth0 masquerade fully-random;
            }
        }",
    )?;
    Ok(Path {
        client: routed_pod(&node, 1, 1)?,
        server: world,
        target,
        between: vec![node],
        service: None,
    })
}

/// What VXLAN over IPv4 leaves of 1,500 bytes.
const TUNNEL_MTU: u16 = 1450;

/// The bridge plugin between two pods of one node.
pub(crate) fn bridge_same_node() -> Result<Path> {
    let node = Namespace::node()?;
    let (client, _) = bridge_pod(&node, 1, "client")?;
    let (server, target) = bridge_pod(&node, 1, "server")?;
    Ok(Path {
        client,
        server,
        target,
        between: vec![node],
        service: None,
    })
}

/// The bridge plugin between pods of two nodes.
pub(crate) fn bridge_across(wire: Wire) -> Result<Path> {
    let (mut between, first, second) = two_nodes(wire)?;
    let (client, _) = bridge_pod(&first, 1, "client")?;
    let (server, target) = bridge_pod(&second, 2, "server")?;
    between.extend([first, second]);
    Ok(Path {
        client,
        server,
        target,
        between,
        service: None,
    })
}

/// The bridge plugin as it is on `node`.
pub(crate) fn bridge_plugin(node: &Namespace, number: u8) -> Plugin<'_> {
    let config = serde_json::json!({
        "cniVersion": "1.0.0", "name": "bench", "type": "bridge",
        "bridge": "cni0", "isGateway": true, "ipMasq": true,
        "ipam": {
            "type": "host-local", "dataDir": "/run/cni",
            "ranges": [[{ "subnet": format!("10.99.{number}.0/24") }]],
            "routes": [{ "dst": "0.0.0.0/0" }],
        },
    });
    Plugin::new(Plugin::debian().join("bridge"), &config, node)
}

fn bridge_pod(node: &Namespace, number: u8, name: &str) -> Result<(Namespace, IpAddr)> {
    let pod = Namespace::new()?;
    let result = bridge_plugin(node, number).add(name, &pod)?.result;
    let address = result
        .pointer("/ips/0/address")
        .and_then(serde_json::Value::as_str);
    let address = address
        .and_then(|text| text.split('/').next())
        .context("the bridge plugin gave no address")?;
    Ok((pod, address.parse()?))
}

/// Two nodes with a wire between them that know the way to each other's pods. Returns the wire's namespaces first.
fn two_nodes(wire: Wire) -> Result<(Vec<Namespace>, Namespace, Namespace)> {
    let (first, second) = (Namespace::node()?, Namespace::node()?);
    let (one, two) = (uplink(&first, 1), uplink(&second, 2));
    let mut wires = Vec::new();
    match wire {
        Wire::Direct => join(one, two)?,
        Wire::Switch => {
            let switch = switch()?;
            plug(one, &switch, "port1", 11)?;
            plug(two, &switch, "port2", 12)?;
            wires.push(switch);
        }
    }
    for ((own, number), (other, other_number)) in [((one, 1), (two, 2)), ((two, 2), (one, 1))] {
        own.assign(&format!("{}/24", node_address(number)))?;
        own.knows(node_address(other_number), &other)?;
        let gateway = node_address(other_number);
        own.namespace
            .ip(&[format!("route add 10.99.{other_number}.0/24 via {gateway}")])?;
    }
    Ok((wires, first, second))
}

/// The bridge of a [`switch`].
const SWITCH: &str = "br0";

fn switch() -> Result<Namespace> {
    let switch = Namespace::new()?;
    switch.ip(&[
        format!("link add {SWITCH} type bridge stp_state 0"),
        format!("link set {SWITCH} up"),
    ])?;
    Ok(switch)
}

/// Connects an end to a port of a switch.
fn plug(end: End<'_>, switch: &Namespace, name: &str, mac: u8) -> Result<()> {
    let port = End {
        namespace: switch,
        name,
        mac,
    };
    join(end, port)?;
    switch.ip(&[format!("link set {name} master {SWITCH}")])
}

fn uplink(namespace: &Namespace, mac: u8) -> End<'_> {
    End {
        namespace,
        name: "eth0",
        mac,
    }
}

/// A pod on a link of its own to a node that routes.
fn routed_pod(node: &Namespace, number: u8, index: u8) -> Result<Namespace> {
    let pod = Namespace::new()?;
    let (address, gateway) = (
        pod_address(number, index),
        IpAddr::from(Ipv4Addr::new(169, 254, 1, 1)),
    );
    let link = format!("pod{index}");
    let inside = End {
        namespace: &pod,
        name: "eth0",
        mac: 20 + index,
    };
    let outside = End {
        namespace: node,
        name: &link,
        mac: 30 + index,
    };
    join(inside, outside)?;
    inside.assign(&format!("{address}/32"))?;
    inside.knows(gateway, &outside)?;
    outside.knows(address, &inside)?;
    pod.ip(&[format!("route add default via {gateway} dev eth0 onlink")])?;
    node.ip(&[format!("route add {address}/32 dev {link}")])?;
    Ok(pod)
}
