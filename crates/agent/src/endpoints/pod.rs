// SPDX-License-Identifier: Apache-2.0
//! The pod's side: its network namespace and what ADD sets up inside.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use cni::{Error, codes};
use datapath::common::packet::{GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6};
use ipnet::IpNet;
use model::{Endpoint, EndpointId, Mac};
use netlink::{AddressFlags, Link, Netlink, Request, Route, netns, sysctl};
use nix::errno::Errno;
use nix::sys::stat::fstat;

/// `ioctl` of a namespace descriptor: which kind is it? (`linux/nsfs.h`)
const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
/// `RTPROT_BOOT`: routes in a pod are the pod's, like those that people type.
const PROTOCOL_BOOT: u8 = 3;
/// A first interface's index in a fresh namespace, where 1 is the loopback.
const FIRST_INDEX: u32 = 2;
/// Routes of a further interface have at least this metric, so that the first one's stay in force.
const FURTHER_METRIC: u32 = 4096;

/// Tells namespaces apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamespaceId {
    device: u64,
    inode: u64,
}

impl NamespaceId {
    /// Of an open namespace.
    ///
    /// # Errors
    /// When the descriptor is none.
    pub fn of(fd: BorrowedFd<'_>) -> Result<Self, Errno> {
        fstat(fd).map(|stat| Self {
            device: stat.st_dev,
            inode: stat.st_ino,
        })
    }
}

/// A pod's network namespace, open.
#[derive(Debug)]
pub(super) struct PodNetns<'a> {
    pub(super) netns: BorrowedFd<'a>,
    netlink: Netlink,
}

impl<'a> PodNetns<'a> {
    /// Opens a netlink socket inside, if `netns` is a network namespace and not the node's own.
    pub(super) fn open(
        id: &EndpointId,
        netns: BorrowedFd<'a>,
        path: &str,
        own: NamespaceId,
    ) -> Result<Self, Error> {
        let refuse = |reason: &str| {
            let msg = format!("{id}: CNI_NETNS={path:?} {reason}");
            Error::new(
                codes::INVALID_ENVIRONMENT,
                msg,
                "the container runtime sets it; pods with hostNetwork get no interface",
            )
        };
        if !is_network_namespace(netns) {
            return Err(refuse("is not a network namespace"));
        }
        if NamespaceId::of(netns).is_ok_and(|found| found == own) {
            return Err(refuse("is the node's own network namespace"));
        }
        let netlink = Netlink::open_in(netns).map_err(|error| super::kernel_error(id, &error))?;
        Ok(Self { netns, netlink })
    }

    /// The interface of this name.
    pub(super) fn link(&mut self, ifname: &str) -> Result<Option<Link>, netlink::Error> {
        self.netlink.link(ifname)
    }

    /// The addresses of an interface that are of use beyond its link.
    pub(super) fn global_addresses(&mut self, index: u32) -> Result<Vec<IpAddr>, netlink::Error> {
        let all = self.netlink.addresses()?;
        let of_it = all.iter().filter(|one| one.ifindex == index && one.global);
        Ok(of_it.map(|one| one.net.addr()).collect())
    }

    /// Whether the interface is the pod's end of `endpoint`.
    pub(super) fn holds(&mut self, endpoint: &Endpoint) -> bool {
        let link = self.netlink.link(&endpoint.id.ifname).ok().flatten();
        link.is_some_and(|link| link.peer_index == Some(endpoint.ifindex) && link.mac == Some(endpoint.mac))
    }

    /// Whether the pod's end of `endpoint` is as ADD leaves it; not so if the agent died on the way.
    pub(super) fn is_whole(&mut self, endpoint: &Endpoint) -> bool {
        let link = self.netlink.link(&endpoint.id.ifname).ok().flatten();
        let up = link.filter(|link| link.up).map(|link| link.index);
        let Some(index) = up else { return false };
        let missing = [
            self.missing_addresses(index, &endpoint.ips),
            self.missing_routes(index, &endpoint.ips),
        ];
        self.holds(endpoint) && missing.iter().all(|one| one.as_ref().is_ok_and(Vec::is_empty))
    }

    /// Gives the interface its addresses, neighbours and routes, and sets it up: in one exchange.
    pub(super) fn configure(
        &mut self,
        ifname: &str,
        index: u32,
        ips: &[IpAddr],
    ) -> Result<(), netlink::Error> {
        let requests = requests(index, ips, self.metric(index)?);
        match self.netlink.apply(&requests) {
            // Some runtimes switch IPv6 off in new namespaces; a pod that gets an IPv6 address wants it.
            Err(error) if error.errno() == Some(Errno::EACCES) && ips.iter().any(IpAddr::is_ipv6) => {
                let key = format!("net/ipv6/conf/{ifname}/disable_ipv6");
                netns::run_in(self.netns, || sysctl::write(&key, "0"))??;
                self.netlink.apply(&requests)
            }
            result => result,
        }
    }

    /// What of `ips` is missing on the interface.
    pub(super) fn missing_addresses(
        &mut self,
        index: u32,
        ips: &[IpAddr],
    ) -> Result<Vec<String>, netlink::Error> {
        let found = self.netlink.addresses()?;
        let has = |ip: &&IpAddr| {
            found
                .iter()
                .any(|one| one.ifindex == index && one.net.addr() == **ip)
        };
        let missing = ips.iter().filter(|ip| !has(ip));
        Ok(missing.map(|ip| format!("address {ip}")).collect())
    }

    /// Which of the default routes are missing that ADD makes for `ips`.
    pub(super) fn missing_routes(
        &mut self,
        index: u32,
        ips: &[IpAddr],
    ) -> Result<Vec<String>, netlink::Error> {
        let found = self.netlink.routes(None)?;
        let has = |gateway: &IpAddr| {
            let mut found = found.iter();
            found.any(|one| one.oif == Some(index) && one.gateway == Some(*gateway))
        };
        let missing = ips.iter().map(|ip| gateway(*ip)).filter(|gateway| !has(gateway));
        Ok(missing
            .map(|gateway| format!("default route via {gateway}"))
            .collect())
    }

    /// Nothing for the first interface. A further one must not take over the first one's routes.
    fn metric(&mut self, index: u32) -> Result<Option<u32>, netlink::Error> {
        if index <= FIRST_INDEX {
            return Ok(None);
        }
        let routes = self.netlink.routes(None)?;
        let taken = routes
            .iter()
            .any(|route| route.dst.prefix_len() == 0 && route.oif != Some(index));
        Ok(taken.then(|| FURTHER_METRIC.saturating_add(index)))
    }
}

/// The gateway of an address's family.
pub(super) fn gateway(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => IpAddr::from(GATEWAY_V4),
        IpAddr::V6(_) => IpAddr::from(GATEWAY_V6),
    }
}

/// The default route's destination of an address's family.
pub(super) fn everywhere(ip: IpAddr) -> IpNet {
    match ip {
        IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

fn requests(index: u32, ips: &[IpAddr], metric: Option<u32>) -> Vec<Request> {
    let mut requests = vec![Request::set_up(index)];
    for ip in ips {
        let gateway = gateway(*ip);
        let route = |dst, gateway, scope_link| Route {
            gateway,
            scope_link,
            oif: Some(index),
            protocol: PROTOCOL_BOOT,
            metric,
            ..Route::to(dst)
        };
        // Duplicate address detection would hold an IPv6 address back for more than a second; nobody else is on the link.
        requests.push(Request::add_address(
            index,
            IpNet::from(*ip),
            AddressFlags { nodad: true },
        ));
        requests.push(Request::replace_neighbour(
            index,
            gateway,
            Mac(GATEWAY_MAC.0),
            true,
        ));
        if ip.is_ipv4() {
            requests.push(Request::replace_route(&route(IpNet::from(gateway), None, true)));
        }
        requests.push(Request::replace_route(&route(
            everywhere(*ip),
            Some(gateway),
            false,
        )));
    }
    requests
}

fn is_network_namespace(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: the request takes no argument and writes no memory; other files answer ENOTTY.
    let kind = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), NS_GET_NSTYPE) };
    kind == libc::CLONE_NEWNET
}
