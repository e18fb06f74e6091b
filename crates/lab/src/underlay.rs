// SPDX-License-Identifier: Apache-2.0
//! What connects the nodes: a namespace with a bridge, or with a router that has a segment per node. Nothing in it leads
//! to the machine's own network.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};

use ipnet::IpNet;
use netlink::{AddressFlags, Netlink, Peer, Request, Route, Veth, netns, sysctl};

use crate::error::{Doing as _, Error};
use crate::plan::{NodePlan, Plan};
use crate::process::Process;
use crate::spec::Topology;

/// The bridge of a flat underlay.
const BRIDGE: &str = "fabric";
/// A node's device towards the underlay.
pub(crate) const NODE_DEVICE: &str = "eth0";
const LOOPBACK: u32 = 1;
/// `RTPROT_STATIC`: these routes are the machine's, as far as the agent is concerned.
const STATIC: u8 = 4;

/// The underlay's namespace.
#[derive(Debug)]
pub(crate) struct Underlay {
    netns: OwnedFd,
    netlink: Netlink,
    bridge: Option<u32>,
}

impl Underlay {
    /// Makes the bridge or the router in the namespace that `holder` holds.
    pub(crate) fn create(holder: Process, plan: &Plan) -> Result<Self, Error> {
        let netns = netns::open(&holder.namespace("net"))?;
        let mut netlink = Netlink::open_in(netns.as_fd())?;
        // Said either way: a new namespace takes some settings over from the machine's.
        let forwarding = if plan.topology == Topology::Routed {
            "1"
        } else {
            "0"
        };
        netns::run_in(netns.as_fd(), || set_forwarding(forwarding))??;
        let bridge = match plan.topology {
            // It does not forward: pods must reach each other by their nodes' own routes.
            Topology::Flat => Some(netlink.create_bridge(BRIDGE)?),
            Topology::Routed => None,
        };
        let device = bridge.unwrap_or(LOOPBACK);
        netlink.apply(&addresses_and_up(device, &plan.api))?;
        Ok(Self {
            netns,
            netlink,
            bridge,
        })
    }

    /// Connects a node: the pair of links, the node's addresses and default routes.
    pub(crate) fn connect(&mut self, holder: Process, node: &NodePlan) -> Result<(), Error> {
        let node_netns = netns::open(&holder.namespace("net"))?;
        let pair = self.netlink.create_veth(&Veth {
            name: &node.link,
            mac: None,
            mtu: None,
            alias: Some(&node.name),
            up: true,
            link_local: self.bridge.is_none(),
            peer: Peer {
                name: NODE_DEVICE,
                mac: None,
                mtu: None,
                netns: Some(node_netns.as_fd()),
            },
        })?;
        match self.bridge {
            Some(bridge) => self.netlink.set_master(pair.index, bridge)?,
            None => self
                .netlink
                .apply(&addresses_and_up(pair.index, &node.gateways))?,
        }
        let mut requests = addresses_and_up(pair.peer_index, &node.addresses);
        requests.extend(node.gateways.iter().map(|gateway| {
            let mut route = Route::to(default_route(*gateway));
            (route.gateway, route.oif) = (Some(gateway.addr()), Some(pair.peer_index));
            route.protocol = STATIC;
            Request::replace_route(&route)
        }));
        Ok(Netlink::open_in(node_netns.as_fd())?.apply(&requests)?)
    }

    /// Listens for the API server on a port, one listener per family.
    pub(crate) fn listen(&self, plan: &Plan, port: u16) -> Result<Vec<TcpListener>, Error> {
        let bind = |net: &IpNet| {
            let address = SocketAddr::new(net.addr(), port);
            TcpListener::bind(address).doing(|| format!("listen on {address} in the underlay"))
        };
        netns::run_in(self.netns.as_fd(), || plan.api.iter().map(bind).collect())?
    }

    /// The underlay's socket and link indexes, for whoever maintains its routes.
    pub(crate) fn into_netlink(self) -> Netlink {
        self.netlink
    }
}

fn addresses_and_up(index: u32, nets: &[IpNet]) -> Vec<Request> {
    let flags = AddressFlags { nodad: true };
    let mut requests: Vec<Request> = nets
        .iter()
        .map(|net| Request::add_address(index, *net, flags))
        .collect();
    requests.push(Request::set_up(index));
    requests
}

fn default_route(of: IpNet) -> IpNet {
    match of {
        IpNet::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpNet::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

fn set_forwarding(value: &str) -> Result<(), netlink::Error> {
    sysctl::ensure("net/ipv4/ip_forward", value)?;
    sysctl::ensure("net/ipv6/conf/all/forwarding", value)
}
