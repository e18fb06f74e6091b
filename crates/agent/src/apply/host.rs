// SPDX-License-Identifier: Apache-2.0
//! The node's own devices: the pair through which the host reaches its pods, the underlay, the node's addresses, forwarding.

use std::collections::BTreeSet;
use std::net::IpAddr;

use datapath::common::Addr;
use model::{Family, Node};
use netlink::{Netlink, Peer, Request, Veth, VethPair};
use routing::Device;
use tracing::info;

use super::Options;
use super::forwarding::{SysctlError, enable_forwarding, move_reverse_path_filter};
use super::survey::{Found, Survey, survey};
use crate::endpoints::Kernel;
use crate::tunnel::{TUNNEL_LINK, Tunnel};

/// The pod CIDRs are routed to this device.
pub const HOST_LINK: &str = "thalweg_host";
/// Its other end, which only has to be there.
pub const HOST_PEER: &str = "thalweg_net";

/// RFC 8200 §5. The kernel takes IPv6 off a device with less.
const IPV6_MTU_LEAST: u32 = 1280;

/// The node's own side as it was last brought in line.
#[derive(Debug, Clone, Default)]
pub(super) struct Host {
    /// The index of [`HOST_LINK`].
    pub(super) link: u32,
    /// All devices that are not pods' or ours.
    pub(super) devices: Vec<Device>,
    /// Those of them that lead to other nodes.
    pub(super) underlay_devices: Vec<Device>,
    /// The underlay devices with a program.
    pub(super) underlay: Vec<String>,
    /// All devices that may have an underlay's program of ours, wanted or not; nothing until the underlay was known for once.
    attached: Option<BTreeSet<String>>,
    /// The node's addresses that have a row.
    pub(super) addresses: BTreeSet<IpAddr>,
    /// The packet size of pods.
    pub(super) mtu: u32,
    /// The largest packet that the underlay takes.
    pub(super) underlay_mtu: u32,
    /// Whether the devices and addresses could be read, at least once.
    pub(super) surveyed: bool,
    /// What failed.
    pub(super) problems: Vec<String>,
}

impl Host {
    /// Brings the node's own side in line with what its devices are now, those of pods excepted; what fails is in `problems`.
    pub(super) fn update(
        &mut self,
        kernel: &mut Kernel,
        options: &Options,
        node: Option<&Node>,
        pods: &BTreeSet<String>,
    ) {
        self.problems.clear();
        let node_addresses = node.map(|node| node.addresses.as_slice()).unwrap_or_default();
        let survey = match find(&mut kernel.netlink) {
            Ok(found) => survey(&found, &options.devices, node_addresses),
            Err(error) => return self.problems.push(error.to_string()),
        };
        (self.underlay_mtu, self.surveyed) = (survey.underlay_mtu, true);
        self.set_mtu(options, node);
        let settings: &[fn() -> Result<(), SysctlError>] = match options.behind {
            None => &[enable_forwarding, move_reverse_path_filter],
            // Pods' devices are another network's, their filters too.
            Some(_) => &[enable_forwarding],
        };
        for setting in settings {
            if let Err(error) = setting() {
                self.problems.push(error.to_string());
            }
        }
        if let Err(error) = self.ensure_pair(kernel) {
            self.problems.push(error);
        }
        self.attach_underlay(kernel, &survey);
        // Without them, devices with the node's addresses are not known for the underlay that they are.
        if !options.devices.is_empty() || !node_addresses.is_empty() {
            self.detach_others(kernel, &survey, pods);
        }
        if let Err(error) = self.tunnel(kernel, options.tunnel.as_ref(), node) {
            self.problems.push(error.to_string());
        }
        if let Err(error) = self.write_addresses(kernel, survey.addresses, options.services.is_some()) {
            self.problems.push(error.to_string());
        }
        (self.devices, self.underlay_devices) = (survey.devices, survey.underlay);
    }

    fn ensure_pair(&mut self, kernel: &mut Kernel) -> Result<(), String> {
        let pair = ensure_pair(&mut kernel.netlink, self.mtu).map_err(|error| error.to_string())?;
        self.link = pair.index;
        kernel
            .datapath
            .attach_host(HOST_LINK, pair.index)
            .map_err(|error| error.to_string())
    }

    /// From the underlay less what the tunnel takes, unless it is configured.
    fn set_mtu(&mut self, options: &Options, node: Option<&Node>) {
        let outer = node.and_then(|node| node.addresses.first()).map(Family::of);
        let overhead = options.tunnel.map_or(0, |tunnel| {
            tunnel.overhead(tunnel.underlay().or(outer).unwrap_or(Family::Ipv4))
        });
        let room = self.underlay_mtu.saturating_sub(overhead);
        self.mtu = options.mtu.unwrap_or(room);
        if self.mtu < IPV6_MTU_LEAST {
            self.problems.push(format!(
                "pods' packets may have {} bytes, and IPv6 does not work below {IPV6_MTU_LEAST}; raise the MTU of the underlay ({}, of \
                 which the tunnel takes {overhead}) or the setting mtu",
                self.mtu, self.underlay_mtu
            ));
        }
        if self.mtu > room && options.tunnel.is_some() {
            self.problems.push(format!(
                "mtu is set to {}, but the underlay takes {} and the tunnel takes {overhead} of them: pods' large packets are \
                 answered with ICMP errors; set mtu to {room} or less, or to 0",
                self.mtu, self.underlay_mtu
            ));
        }
    }

    /// The tunnel's device with its program, and what the programs know of this node.
    fn tunnel(
        &mut self,
        kernel: &mut Kernel,
        tunnel: Option<&Tunnel>,
        node: Option<&Node>,
    ) -> anyhow::Result<()> {
        let mut row = kernel.datapath.node().get()?;
        if let Some(node) = node {
            row.addresses = [Family::Ipv4, Family::Ipv6]
                .map(|family| node.address(family).map_or(Addr::UNSPECIFIED, Addr::from));
        }
        row.tunnel_ifindex = match tunnel.filter(|tunnel| tunnel.device) {
            Some(tunnel) => {
                let link = tunnel.ensure_device(&mut kernel.netlink, Some(self.mtu))?;
                kernel.datapath.attach_tunnel(TUNNEL_LINK, link.index)?;
                link.index
            }
            None => 0,
        };
        kernel.datapath.node().set(&row)?;
        if row.tunnel_ifindex == 0 {
            kernel.netlink.delete_link(TUNNEL_LINK)?;
        }
        Ok(())
    }

    fn attach_underlay(&mut self, kernel: &mut Kernel, survey: &Survey) {
        let missing = survey.missing.iter();
        self.problems.extend(
            missing.map(|name| format!("device {name} does not exist; correct the setting `devices`")),
        );
        self.underlay.clear();
        for device in &survey.underlay {
            match kernel.datapath.attach_wire(&device.name, device.index) {
                Ok(()) => self.underlay.push(device.name.clone()),
                Err(error) => self.problems.push(error.to_string()),
            }
        }
    }

    /// Takes the program from devices that are no longer the underlay's: the host's stack and `from_host` bring on what still comes
    /// in there. A fresh agent does not know what an earlier one had attached, and tries all.
    fn detach_others(&mut self, kernel: &mut Kernel, survey: &Survey, pods: &BTreeSet<String>) {
        let names = survey.devices.iter().map(|device| device.name.clone());
        let all = || names.filter(|name| !pods.contains(name)).collect();
        let mut attached = self.attached.take().unwrap_or_else(all);
        for device in &survey.underlay {
            attached.remove(&device.name);
        }
        attached.retain(|name| match kernel.datapath.detach(name) {
            Ok(detached) => {
                if detached {
                    info!(device = %name, "no longer a device towards other nodes: its program is detached");
                }
                false
            }
            Err(error) => {
                self.problems.push(error.to_string());
                true
            }
        });
        attached.extend(survey.underlay.iter().map(|device| device.name.clone()));
        self.attached = Some(attached);
    }

    /// Rows of addresses that the node no longer has are removed, those of pods are left alone.
    fn write_addresses(
        &mut self,
        kernel: &mut Kernel,
        now: BTreeSet<IpAddr>,
        services: bool,
    ) -> Result<(), datapath::MapError> {
        let mut wanted = datapath::common::Endpoint::host();
        if services {
            // Ports of services are at them.
            wanted.flags |= datapath::common::Endpoint::SERVICE;
        }
        let rows = kernel.datapath.endpoints();
        for ip in &now {
            if rows.get(*ip)? != Some(wanted) {
                rows.upsert(*ip, &wanted)?;
            }
        }
        for ip in self.addresses.difference(&now) {
            if rows.get(*ip)?.is_some_and(|row| row.is_host()) {
                rows.remove(*ip)?;
            }
        }
        self.addresses = now;
        Ok(())
    }
}

fn find(netlink: &mut Netlink) -> Result<Found, netlink::Error> {
    Ok(Found {
        links: netlink.links()?,
        addresses: netlink.addresses()?,
        routes: netlink.routes(None)?,
    })
}

/// The pair as it should be; made anew when it is something else.
fn ensure_pair(netlink: &mut Netlink, mtu: u32) -> Result<VethPair, netlink::Error> {
    let (host, peer) = (netlink.link(HOST_LINK)?, netlink.link(HOST_PEER)?);
    if let (Some(host), Some(peer)) = (&host, &peer)
        && host.peer_index == Some(peer.index)
        && host.up
        && peer.up
        && host.noarp
    {
        if host.mtu != mtu {
            netlink.apply(&[
                Request::set_mtu(host.index, mtu),
                Request::set_mtu(peer.index, mtu),
            ])?;
        }
        return Ok(VethPair {
            index: host.index,
            peer_index: peer.index,
        });
    }
    for stale in host.iter().chain(&peer) {
        netlink.delete_link(&stale.name)?;
    }
    let pair = netlink.create_veth(&Veth {
        name: HOST_LINK,
        mac: None,
        mtu: Some(mtu),
        alias: None,
        up: true,
        link_local: false,
        peer: Peer {
            name: HOST_PEER,
            mac: None,
            mtu: Some(mtu),
            netns: None,
        },
    })?;
    // Nobody answers on the other end, and nobody need be asked: the datapath takes each packet on its way out.
    netlink.apply(&[
        Request::set_noarp(pair.index),
        Request::no_link_local(pair.peer_index),
        Request::set_up(pair.peer_index),
    ])?;
    Ok(pair)
}
