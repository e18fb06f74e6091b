// SPDX-License-Identifier: Apache-2.0
//! The tunnel to other nodes: its device, what it takes of each packet, what lies behind it.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use api::config::{Encapsulation, TunnelProtocol, UnderlayProtocol};
use datapath::common::packet::{ETH_LEN, IPV4_LEN, IPV6_LEN, TUNNEL_MAC, UDP_LEN};
use datapath::common::{Be16, NodeConfig, Prefix};
use ipnet::IpNet;
use model::{Family, Mac, Node};
use netlink::{Link, Netlink, Request, TunnelKind, sysctl};
use nix::errno::Errno;
use routing::{Device, Row, Way};
use tracing::info;

/// The kernel's device.
pub const TUNNEL_LINK: &str = "thalweg_tunnel";

/// Bytes of a VXLAN header (RFC 7348 §5), and of one of Geneve without options (RFC 8926 §3.4).
const HEADER: usize = 8;
/// Bytes that Geneve packets may have besides: an option with eight bytes, for the sender's identity.
const GENEVE_OPTIONS: usize = 12;

/// This node's tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// As configured.
    pub settings: api::config::Tunnel,
    /// Whether the kernel's device wraps, or the programs.
    pub device: bool,
}

/// The tunnel cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The port is taken.
    #[error(
        "UDP port {port} for the tunnel is taken ({source}); find who has it (ss -lunp sport = :{port}, ip -d link show type \
         {kind}) and stop it, or set tunnelPort to another on all nodes"
    )]
    PortTaken {
        /// The port.
        port: u16,
        /// The kernel's name of the protocol.
        kind: &'static str,
        /// What the kernel said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The kernel has no such device.
    #[error(
        "this kernel has no {kind} device ({source}); load its module (modprobe {kind}), or set tunnelEncapsulation to auto or \
         ebpf"
    )]
    NoDevice {
        /// The kernel's name of the protocol.
        kind: &'static str,
        /// What the kernel said.
        source: netlink::Error,
    },
    /// The device cannot be made or set up.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
}

impl Tunnel {
    /// Makes the kernel's device as the settings want, or finds that there is none and that the programs are to wrap. Must be
    /// settled before the programs are loaded.
    ///
    /// # Errors
    /// When the device cannot be made although the settings insist on it, or its port is taken.
    pub fn prepare(netlink: &mut Netlink, settings: api::config::Tunnel) -> Result<Self, TunnelError> {
        let tunnel = |device| Self { settings, device };
        if settings.encapsulation == Encapsulation::Ebpf {
            return Ok(tunnel(false));
        }
        match tunnel(true).ensure_device(netlink, None) {
            Ok(_) => Ok(tunnel(true)),
            Err(TunnelError::NoDevice { kind, .. }) if settings.encapsulation == Encapsulation::Auto => {
                info!(
                    kind,
                    "the kernel has no such device: the programs wrap packets themselves"
                );
                Ok(tunnel(false))
            }
            Err(error) => Err(error),
        }
    }

    /// Where the programs wrap, the port is taken by a socket of ours, which never sees a packet: so nobody else can wait at it
    /// for packets that would never come. (The kernel's device has a socket of its own.)
    ///
    /// # Errors
    /// When somebody else has the port.
    pub fn reserve_port(&self) -> Result<Option<UdpSocket>, TunnelError> {
        if self.device {
            return Ok(None);
        }
        let port = self.settings.port;
        // On a host without IPv6 the other family is left.
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).or_else(|error| {
            if error.kind() == ErrorKind::AddrInUse {
                return Err(error);
            }
            UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))
        });
        socket.map(Some).map_err(|source| TunnelError::PortTaken {
            port,
            kind: self.kind().name(),
            source: Box::new(source),
        })
    }

    /// The load-time constants of the programs.
    #[must_use]
    pub fn configure(&self, node: NodeConfig) -> NodeConfig {
        let mut flags = node.flags | NodeConfig::TUNNEL;
        if self.settings.protocol == TunnelProtocol::Geneve {
            flags |= NodeConfig::GENEVE;
        }
        if self.device {
            flags |= NodeConfig::TUNNEL_DEVICE;
        }
        NodeConfig {
            flags,
            vni: self.settings.vni,
            tunnel_port: Be16::new(self.settings.port),
            ..node
        }
    }

    /// The family that packets between nodes are to have, if one is asked for.
    #[must_use]
    pub fn underlay(&self) -> Option<Family> {
        match self.settings.underlay {
            UnderlayProtocol::Auto => None,
            UnderlayProtocol::Ipv4 => Some(Family::Ipv4),
            UnderlayProtocol::Ipv6 => Some(Family::Ipv6),
        }
    }

    /// Bytes that wrapping adds to an IP packet in front of the outer Ethernet header's payload.
    #[must_use]
    pub fn overhead(&self, outer: Family) -> u32 {
        let ip = match outer {
            Family::Ipv4 => IPV4_LEN,
            Family::Ipv6 => IPV6_LEN,
        };
        let header = match self.settings.protocol {
            TunnelProtocol::Vxlan => HEADER,
            TunnelProtocol::Geneve => HEADER + GENEVE_OPTIONS,
        };
        u32::try_from(ip + UDP_LEN + header + ETH_LEN).unwrap_or(u32::MAX)
    }

    /// The kernel's device as it should be, made anew when it is something else; `mtu` is left alone if none is given.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn ensure_device(&self, netlink: &mut Netlink, mtu: Option<u32>) -> Result<Link, TunnelError> {
        let alias = self.alias();
        let found = netlink.link(TUNNEL_LINK)?;
        if let Some(link) = found.filter(|link| self.is_it(link, &alias)) {
            if let Some(mtu) = mtu.filter(|mtu| *mtu != link.mtu) {
                netlink.apply(&[Request::set_mtu(link.index, mtu)])?;
            }
            return Ok(link);
        }
        netlink.delete_link(TUNNEL_LINK)?;
        let made = netlink.create_tunnel(&netlink::Tunnel {
            name: TUNNEL_LINK,
            kind: self.kind(),
            port: self.settings.port,
            mac: Mac(TUNNEL_MAC.0),
            mtu: mtu.unwrap_or(DEFAULT_MTU),
            alias: &alias,
        });
        let link = made.map_err(|error| self.explain(error))?;
        // What comes out of it has pods' addresses, to which the routes lead elsewhere; the programs check the sources.
        sysctl::ensure(&format!("net/ipv4/conf/{TUNNEL_LINK}/rp_filter"), "0")?;
        info!(link = TUNNEL_LINK, %alias, "tunnel device made");
        Ok(link)
    }

    fn explain(&self, source: netlink::Error) -> TunnelError {
        let kind = self.kind().name();
        match source.errno() {
            Some(Errno::EOPNOTSUPP) => TunnelError::NoDevice { kind, source },
            Some(Errno::EADDRINUSE | Errno::EEXIST | Errno::EBUSY) => TunnelError::PortTaken {
                port: self.settings.port,
                kind,
                source: Box::new(source),
            },
            _ => TunnelError::Netlink(source),
        }
    }

    fn kind(&self) -> TunnelKind {
        match self.settings.protocol {
            TunnelProtocol::Vxlan => TunnelKind::Vxlan,
            TunnelProtocol::Geneve => TunnelKind::Geneve,
        }
    }

    /// What the device was made for. It is kept with the device, since the kernel changes the port of none.
    fn alias(&self) -> String {
        format!("{} port {}", self.kind().name(), self.settings.port)
    }

    fn is_it(&self, link: &Link, alias: &str) -> bool {
        link.kind.as_deref() == Some(self.kind().name())
            && link.alias.as_deref() == Some(alias)
            && link.mac == Some(Mac(TUNNEL_MAC.0))
            && link.up
    }
}

/// The MTU of a device before the underlay is known.
const DEFAULT_MTU: u32 = 1400;

/// What lies behind other nodes: the pod networks of a plan, and the nodes themselves.
#[must_use]
pub fn prefixes(
    tunnel: Option<&Tunnel>,
    mtu_to: impl Fn(IpAddr) -> u16,
    own_name: &str,
    devices: &[Device],
    nodes: &[&Node],
    plan: &[Row],
) -> BTreeMap<IpNet, Prefix> {
    let row = |node: IpAddr| match tunnel {
        Some(_) => Prefix::tunnel(node.into(), mtu_to(node)),
        None => Prefix::cluster(node.into()),
    };
    let others = nodes.iter().filter(|node| node.name != own_name);
    let ends = others.filter_map(|node| {
        let end = match tunnel {
            Some(tunnel) => routing::tunnel_end(devices, tunnel.underlay(), node)?,
            None => *node.addresses.first()?,
        };
        Some((*node, end))
    });
    let themselves = ends.flat_map(|(node, end)| {
        let addresses = node.addresses.iter().copied();
        addresses.map(move |address| (IpNet::from(address), end))
    });
    let networks = plan.iter().filter_map(|planned| match planned.way {
        Way::Tunnel { node, .. } | Way::Direct { gateway: node, .. } => Some((planned.destination, node)),
        Way::Network => {
            let node = nodes.iter().find(|node| node.name == planned.node)?;
            Some((planned.destination, *node.addresses.first()?))
        }
        Way::Local { .. } | Way::Refused(_) => None,
    });
    themselves
        .chain(networks)
        .map(|(net, node)| (net, row(node)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapping_costs_what_the_headers_have() {
        let overhead = |protocol, family| tunnel(protocol).overhead(family);
        assert_eq!(overhead(TunnelProtocol::Vxlan, Family::Ipv4), 50);
        assert_eq!(overhead(TunnelProtocol::Vxlan, Family::Ipv6), 70);
        assert_eq!(overhead(TunnelProtocol::Geneve, Family::Ipv4), 62);
    }

    #[test]
    fn other_nodes_and_their_pods_lie_behind_the_tunnel() {
        let nodes = [
            node("a", "172.30.0.11", "10.244.0.0/24"),
            node("b", "172.30.0.12", "10.244.1.0/24"),
        ];
        let nodes: Vec<&Node> = nodes.iter().collect();
        let devices = [Device {
            index: 2,
            name: "eth0".into(),
            addresses: vec!["172.30.0.11/24".parse().unwrap()],
        }];
        let tunnel = tunnel(TunnelProtocol::Vxlan);
        let input = routing::Input {
            own_name: "a",
            devices: &devices,
            mode: routing::Mode::Tunnel { underlay: None },
        };
        let plan = routing::plan(&input, nodes.iter().copied());
        let rows = prefixes(Some(&tunnel), |_| 1450, "a", &devices, &nodes, &plan);
        let end: IpAddr = "172.30.0.12".parse().unwrap();
        let expected = ["10.244.1.0/24", "172.30.0.12/32"]
            .map(|net| (net.parse().unwrap(), Prefix::tunnel(end.into(), 1450)));
        assert_eq!(rows, BTreeMap::from(expected));
    }

    fn node(name: &str, address: &str, cidr: &str) -> Node {
        Node {
            name: name.into(),
            addresses: vec![address.parse().unwrap()],
            pod_cidrs: vec![cidr.parse().unwrap()],
            zone: None,
        }
    }

    fn tunnel(protocol: TunnelProtocol) -> Tunnel {
        Tunnel {
            settings: api::config::Tunnel {
                protocol,
                port: 8472,
                vni: 1,
                encapsulation: Encapsulation::Auto,
                underlay: UnderlayProtocol::Auto,
            },
            device: true,
        }
    }
}
