// SPDX-License-Identifier: Apache-2.0
//! ADD: addresses, one veth pair, program, rows, the pod's side; or nothing at all.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use cni::{AddResult, Error, Interface, Ip, Route, codes};
use datapath::common::packet::GATEWAY_MAC;
use ipam::AllocateError;
use ipnet::IpNet;
use model::{Endpoint, EndpointId, Family, Mac, PodRef, RateLimits};
use netlink::{Peer, Veth, VethPair, sysctl};
use tracing::{info, warn};

use super::alias::Alias;
use super::pod::{PodNetns, everywhere, gateway};
use super::steps::Stopwatch;
use super::{Endpoints, Kernel, host_ifname, kernel_error, pod_mac};

/// What ADD is asked for.
#[derive(Debug)]
pub struct Add<'a> {
    /// The attachment.
    pub id: EndpointId,
    /// The pod.
    pub pod: PodRef,
    /// Its network namespace.
    pub netns: BorrowedFd<'a>,
    /// The namespace's path, for the result and for errors.
    pub netns_path: &'a str,
    /// The packet size of pods.
    pub mtu: u32,
    /// Where its addresses come from.
    pub from: From,
    /// Where its rate will be limited.
    pub limits: RateLimits,
    /// Whether it has ports of the node.
    pub host_ports: bool,
    /// The hardware address that it is to have; nothing for the usual one, or the one that it has.
    pub mac: Option<Mac>,
}

/// Where a pod's addresses come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// One of every family that the node has, of whatever network.
    Anywhere,
    /// A pool of the cluster.
    Pool {
        /// The pool.
        pool: String,
        /// The families that its pods have.
        families: Vec<Family>,
    },
}

impl Endpoints {
    /// Attaches a pod. The same attachment again, in the same namespace, gives the same result; a leftover of the same name
    /// in another namespace, or of an ADD that did not come to its end, is replaced.
    ///
    /// # Errors
    /// With the step that failed; nothing is left of the others.
    pub fn add(&mut self, kernel: &mut Kernel, add: &Add<'_>) -> Result<AddResult, Error> {
        let mut watch = self.steps.start();
        limits_are_possible(kernel, &add.id, add.limits.egress)?;
        let mut pod = PodNetns::open(&add.id, add.netns, add.netns_path, kernel.own_netns)?;
        watch.lap("namespace");
        if let Some(known) = self.snapshot().get(&add.id) {
            if pod.is_whole(known) {
                return Ok(result(known, add));
            }
            info!(endpoint = %add.id, "replacing a leftover of the same name");
            self.remove(kernel, &add.id)?;
        }
        let ips = match &add.from {
            From::Anywhere => self.pools.allocate(&add.id),
            From::Pool { pool, families } => self.pools.allocate_from(&add.id, pool, families),
        };
        let ips = ips.map_err(|error| full(&add.id, &error))?;
        watch.lap("allocate");
        let made = make(kernel, &mut pod, add, &ips, &mut watch);
        match made {
            Ok(endpoint) => {
                let result = result(&endpoint, add);
                info!(endpoint = %endpoint.id, pod = %endpoint.pod, ips = ?endpoint.ips, link = %endpoint.host_ifname, "attached");
                self.announced.insert(endpoint.id.clone(), endpoint.limits);
                self.list.upsert(endpoint);
                watch.total();
                Ok(result)
            }
            Err(Failed { error, left }) => {
                self.give_back(add, left);
                Err(error)
            }
        }
    }

    /// Nobody has used these addresses: they need no rest. What could not be undone stays in the list, so that DEL finds it.
    fn give_back(&mut self, add: &Add<'_>, left: Option<Box<(Endpoint, Error)>>) {
        match left {
            Some(left) => {
                let (endpoint, error) = *left;
                warn!(endpoint = %add.id, %error, "a failed ADD could not be undone; DEL will");
                self.errors.insert(add.id.clone(), error.to_string());
                self.list.upsert(endpoint);
            }
            None => {
                for ip in self.pools.release(&add.id) {
                    self.pools.rested(ip);
                }
            }
        }
    }
}

/// Why an attachment could not be made, and what is left of it, if anything.
struct Failed {
    error: Error,
    left: Option<Box<(Endpoint, Error)>>,
}

fn make(
    kernel: &mut Kernel,
    pod: &mut PodNetns<'_>,
    add: &Add<'_>,
    ips: &[IpAddr],
    watch: &mut Stopwatch,
) -> Result<Endpoint, Failed> {
    let mut endpoint = Endpoint {
        id: add.id.clone(),
        pod: add.pod.clone(),
        ips: ips.to_vec(),
        host_ifname: host_ifname(&add.id),
        ifindex: 0,
        mac: add.mac.unwrap_or_else(|| pod_mac(ips)),
        limits: add.limits,
        adopted: false,
    };
    let pair = create(kernel, pod, add, &endpoint).map_err(|error| Failed { error, left: None })?;
    endpoint.ifindex = pair.index;
    watch.lap("link");
    match wire((kernel, pod), add, &endpoint, pair, watch) {
        Ok(()) => Ok(endpoint),
        Err(error) => {
            let undone = kernel.unmake(&endpoint);
            Err(Failed {
                error,
                left: undone.err().map(|error| Box::new((endpoint, error))),
            })
        }
    }
}

/// The pair, with the pod's end already in its namespace and down: nothing can be sent before the program is there.
fn create(
    kernel: &mut Kernel,
    pod: &mut PodNetns<'_>,
    add: &Add<'_>,
    endpoint: &Endpoint,
) -> Result<VethPair, Error> {
    let alias = Alias::of(endpoint).encode();
    let veth = Veth {
        name: &endpoint.host_ifname,
        mac: Some(Mac(GATEWAY_MAC.0)),
        mtu: Some(add.mtu),
        alias: Some(&alias),
        up: true,
        link_local: false,
        peer: Peer {
            name: &add.id.ifname,
            mac: Some(endpoint.mac),
            mtu: Some(add.mtu),
            netns: Some(pod.netns),
        },
    };
    match kernel.netlink.create_veth(&veth) {
        Err(error) if error.is_exists() => {
            clear_the_way(kernel, pod, add, &endpoint.host_ifname)?;
            kernel
                .netlink
                .create_veth(&veth)
                .map_err(|error| kernel_error(&add.id, &error))
        }
        result => result.map_err(|error| kernel_error(&add.id, &error)),
    }
}

/// A name is taken: removes a host end that belongs to nobody; anything else is an error that says whose it is.
fn clear_the_way(
    kernel: &mut Kernel,
    pod: &mut PodNetns<'_>,
    add: &Add<'_>,
    host: &str,
) -> Result<(), Error> {
    let conflict =
        |msg: String, remedy: &str| Err(Error::new(codes::CONFLICT, format!("{}: {msg}", add.id), remedy));
    let fail = |error| kernel_error(&add.id, &error);
    if pod.link(&add.id.ifname).map_err(fail)?.is_some() {
        let msg = format!("interface {} exists already in {}", add.id.ifname, add.netns_path);
        return conflict(
            msg,
            "another CNI plugin made it, or the runtime used the namespace before; delete the pod",
        );
    }
    let Some(link) = kernel.netlink.link(host).map_err(fail)? else {
        return Ok(());
    };
    match link.alias {
        None => kernel.netlink.delete_link(host).map(|_| ()).map_err(fail),
        Some(alias) => conflict(
            format!("link {host} belongs to {alias:?}"),
            "delete the pod and let it be made anew",
        ),
    }
}

fn wire(
    (kernel, pod): (&mut Kernel, &mut PodNetns<'_>),
    add: &Add<'_>,
    endpoint: &Endpoint,
    pair: VethPair,
    watch: &mut Stopwatch,
) -> Result<(), Error> {
    let fail = |error: netlink::Error| kernel_error(&endpoint.id, &error);
    // Even the loose filter refuses packets on a device without an address; the datapath checks sources itself.
    sysctl::ensure(&format!("net/ipv4/conf/{}/rp_filter", endpoint.host_ifname), "0").map_err(fail)?;
    if add.host_ports {
        // An answer to who asked 127.0.0.1 has that for its destination as soon as netfilter has seen it. What the pod itself sends
        // there, the program drops.
        let key = format!("net/ipv4/conf/{}/route_localnet", endpoint.host_ifname);
        sysctl::ensure(&key, "1").map_err(fail)?;
    }
    watch.lap("sysctl");
    kernel.program(endpoint)?;
    watch.lap("program");
    pod.configure(&endpoint.id.ifname, pair.peer_index, &endpoint.ips)
        .map_err(fail)?;
    watch.lap("pod");
    Ok(())
}

/// `bandwidth` limits what a pod sends by an ingress qdisc on the host end. Before tcx our program is in such a qdisc, of which a
/// device has only one.
pub(super) fn limits_are_possible(kernel: &Kernel, id: &EndpointId, egress: bool) -> Result<(), Error> {
    if !egress || kernel.datapath.features().tcx {
        return Ok(());
    }
    Err(Error::new(
        codes::KERNEL,
        format!("{id}: the rate of what a pod sends cannot be limited on this kernel, which has no tcx"),
        "take the annotation kubernetes.io/egress-bandwidth off the pod, or run Linux 6.6 or later on the node",
    ))
}

fn full(id: &EndpointId, error: &AllocateError) -> Error {
    let code = match error {
        AllocateError::NoPool | AllocateError::NoBlock { .. } => codes::TRY_AGAIN_LATER,
        AllocateError::Exhausted { .. } => codes::POOL_EXHAUSTED,
    };
    Error::new(code, format!("{id}: {error}"), "")
}

fn result(endpoint: &Endpoint, add: &Add<'_>) -> AddResult {
    let interface = |name: &str, mac: Mac, sandbox: Option<&str>| Interface {
        name: name.to_owned(),
        mac: Some(mac.to_string()),
        mtu: Some(add.mtu),
        sandbox: sandbox.map(str::to_owned),
    };
    let host = interface(&endpoint.host_ifname, Mac(GATEWAY_MAC.0), None);
    let inside = interface(&endpoint.id.ifname, endpoint.mac, Some(add.netns_path));
    let ip = |ip: &IpAddr| Ip {
        address: IpNet::from(*ip),
        gateway: Some(gateway(*ip)),
        interface: Some(1),
    };
    let route = |ip: &IpAddr| Route {
        dst: everywhere(*ip),
        gw: Some(gateway(*ip)),
        mtu: None,
    };
    AddResult {
        interfaces: vec![host, inside],
        ips: endpoint.ips.iter().map(ip).collect(),
        routes: endpoint.ips.iter().map(route).collect(),
    }
}
