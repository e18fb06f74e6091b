// SPDX-License-Identifier: Apache-2.0
//! ADD behind another network: that has made the devices and given the addresses; rows and programs are ours.
//!
//! What there is, the kernel says and not the other network's result: some name no host end, some name devices that are none.

use std::net::IpAddr;

use cni::{Error, PrevResult, codes};
use ipam::ClaimError;
use model::{Endpoint, EndpointId};
use netlink::{Link, Request};
use tracing::info;

use super::alias::{Alias, MAX_ALIAS};
use super::attach::{Add, limits_are_possible};
use super::pod::PodNetns;
use super::{Endpoints, Kernel, kernel_error};

const VETH: &str = "veth";

impl Endpoints {
    /// Takes a pod in that another network has attached. The same again gives the same.
    ///
    /// # Errors
    /// When there is no veth pair or no address, or with the step that failed; nothing is left of the others.
    pub fn take_in(
        &mut self,
        kernel: &mut Kernel,
        add: &Add<'_>,
        previous: &PrevResult,
    ) -> Result<(), Error> {
        let mut pod = PodNetns::open(&add.id, add.netns, add.netns_path, kernel.own_netns)?;
        let endpoint = found(kernel, &mut pod, add, previous)?;
        let queued = kernel.has_ingress_queue(endpoint.ifindex);
        let queued = queued.map_err(|error| kernel_error(&add.id, &error))?;
        limits_are_possible(kernel, &add.id, queued || add.limits.egress)?;
        none_is_the_nodes(kernel, &endpoint)?;
        if self
            .snapshot()
            .get(&add.id)
            .is_some_and(|known| *known == endpoint)
        {
            return Ok(());
        }
        if self.snapshot().get(&add.id).is_some() {
            self.remove(kernel, &add.id)?;
        }
        let mut ips = endpoint.ips.iter();
        if let Err(error) = ips.try_for_each(|ip| self.claim_for(kernel, &endpoint.id, *ip)) {
            self.release(&endpoint.id);
            return Err(error);
        }
        let alias = Request::set_alias(endpoint.ifindex, &Alias::of(&endpoint).encode());
        let aliased = kernel.netlink.apply(&[alias]);
        let done = aliased.map_err(|error| kernel_error(&add.id, &error));
        if let Err(error) = done.and_then(|()| kernel.program(&endpoint)) {
            // What cannot be undone goes with the link, which the other network removes.
            let _ = kernel.unmake(&endpoint);
            self.release(&endpoint.id);
            return Err(error);
        }
        info!(endpoint = %endpoint.id, pod = %endpoint.pod, ips = ?endpoint.ips, link = %endpoint.host_ifname, "taken in");
        self.announced.insert(endpoint.id.clone(), endpoint.limits);
        self.list.upsert(endpoint);
        Ok(())
    }

    /// The other network gives an address again when the pod that had it is gone, which we may not have heard of.
    fn claim_for(&mut self, kernel: &mut Kernel, id: &EndpointId, ip: IpAddr) -> Result<(), Error> {
        let Err(ClaimError::AlreadyUsed { used_by, .. }) = self.pools.restore(id, ip) else {
            return Ok(());
        };
        let before = self.snapshot().get(&used_by).cloned();
        let link = match &before {
            Some(before) => kernel.netlink.link(&before.host_ifname),
            None => Ok(None),
        };
        let lives = link
            .map_err(|error| kernel_error(id, &error))?
            .map(|link| link.index);
        if before
            .as_ref()
            .is_some_and(|before| lives == Some(before.ifindex))
        {
            return Err(Error::new(
                codes::CONFLICT,
                format!("{id}: address {ip} is that of {used_by} too, whose link is still there"),
                "two pods cannot have one address; see to the network before us in the list",
            ));
        }
        self.remove(kernel, &used_by)?;
        self.release(&used_by);
        self.pools
            .restore(id, ip)
            .map_err(|error| Error::new(codes::CONFLICT, format!("{id}: {error}"), ""))
    }
}

/// The node would not be reached any more where the pod had its row.
fn none_is_the_nodes(kernel: &mut Kernel, endpoint: &Endpoint) -> Result<(), Error> {
    let addresses = kernel.netlink.addresses();
    let addresses = addresses.map_err(|error| kernel_error(&endpoint.id, &error))?;
    let own = |ip: &&IpAddr| addresses.iter().any(|address| address.net.addr() == **ip);
    let Some(ip) = endpoint.ips.iter().find(own) else {
        return Ok(());
    };
    Err(Error::new(
        codes::CONFLICT,
        format!("{}: address {ip} is the node's own", endpoint.id),
        "the network before us in the list gave it to the pod: take the node's addresses out of the ranges that it gives from",
    ))
}

/// The endpoint as the kernel shows it.
fn found(
    kernel: &mut Kernel,
    pod: &mut PodNetns<'_>,
    add: &Add<'_>,
    previous: &PrevResult,
) -> Result<Endpoint, Error> {
    let id = &add.id;
    let fail = |error: netlink::Error| kernel_error(id, &error);
    let refuse = |reason: String| {
        let remedy =
            "the network before us must attach pods by veth pairs, one end on the node (cni.chainingMode)";
        Error::new(codes::INVALID_NETWORK_CONFIG, format!("{id}: {reason}"), remedy)
    };
    let name = &id.ifname;
    let inside = pod.link(name).map_err(fail)?;
    let inside =
        inside.ok_or_else(|| refuse(format!("there is no interface {name} in {}", add.netns_path)))?;
    let host = host_end(kernel, &inside).map_err(fail)?;
    let host = host.ok_or_else(|| {
        let kind = inside.kind.as_deref().unwrap_or("a hardware device");
        refuse(format!("interface {name} ({kind}) has no end on the node"))
    })?;
    let mut ips = previous.addresses_of(name);
    if ips.is_empty() {
        ips = pod.global_addresses(inside.index).map_err(fail)?;
    }
    if ips.is_empty() {
        return Err(refuse(format!("interface {name} has no address")));
    }
    let mac = add.mac.or(inside.mac);
    let mac = mac.ok_or_else(|| refuse(format!("interface {name} has no hardware address")))?;
    let endpoint = Endpoint {
        id: id.clone(),
        pod: add.pod.clone(),
        ips,
        host_ifname: host.name,
        ifindex: host.index,
        mac,
        limits: add.limits,
        adopted: true,
    };
    if Alias::of(&endpoint).encode().len() > MAX_ALIAS {
        return Err(refuse(format!("it has too many addresses: {:?}", endpoint.ips)));
    }
    Ok(endpoint)
}

/// Each end of a pair knows the other one's index in the other one's namespace.
fn host_end(kernel: &mut Kernel, inside: &Link) -> Result<Option<Link>, netlink::Error> {
    let Some(index) = inside.peer_index.filter(|_| inside.kind.as_deref() == Some(VETH)) else {
        return Ok(None);
    };
    let host = kernel.netlink.link_by_index(index)?;
    Ok(host.filter(|host| host.kind.as_deref() == Some(VETH) && host.peer_index == Some(inside.index)))
}
