// SPDX-License-Identifier: Apache-2.0
//! The endpoints of this node: their addresses, links and map rows, kept together.
//!
//! [`Endpoints`] belongs to the apply thread. Attaching (`attach.rs`) is a transaction: it either ends with a pod that can send, or
//! undoes each step in reverse. Detaching (`detach.rs`) runs every step even when one fails. `restore.rs` rebuilds all of it
//! from the kernel at the start of the agent.

mod adopt;
mod alias;
mod attach;
mod check;
mod detach;
mod expedite;
mod pod;
mod restore;
mod steps;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use cni::codes;
use datapath::Datapath;
use ipam::{Allocator, PoolSpec, PoolUsage};
use model::{Endpoint, EndpointId, Mac, PodRef, RateLimits};
use netlink::Netlink;
use state::{Snapshot, Writer};

pub use alias::{Alias, AliasError, MAX_ALIAS};
pub use attach::{Add, From};
pub use expedite::Expedite;
pub use pod::NamespaceId;
pub use steps::Steps;

/// The kernel as the apply thread holds it.
#[derive(Debug)]
pub struct Kernel {
    /// In the node's own network namespace.
    pub netlink: Netlink,
    /// Programs and maps.
    pub datapath: Datapath,
    /// The node's own network namespace, which no pod may have.
    pub own_netns: NamespaceId,
    /// Short grace periods.
    pub expedite: Expedite,
}

/// The endpoints of this node. What is published is the list itself; there is no second one.
#[derive(Debug)]
pub struct Endpoints {
    list: Writer<Endpoint>,
    errors: BTreeMap<EndpointId, String>,
    pools: Allocator,
    released: Vec<IpAddr>,
    /// Host ends that [`Endpoints::restore`] did not understand and left alone.
    strangers: BTreeSet<String>,
    /// Where rates are limited by what ADD was told, until the queues are there: they come a moment later.
    announced: BTreeMap<EndpointId, RateLimits>,
    /// Whether another network makes the pods' devices.
    chained: bool,
    steps: Steps,
}

impl Endpoints {
    /// Nothing yet; `list` is where endpoints are published, `chained` whether another network makes the pods' devices.
    #[must_use]
    pub fn new(list: Writer<Endpoint>, steps: Steps, chained: bool) -> Self {
        Self {
            list,
            errors: BTreeMap::new(),
            pools: Allocator::new(),
            released: Vec::new(),
            strangers: BTreeSet::new(),
            announced: BTreeMap::new(),
            chained,
            steps,
        }
    }

    /// The endpoints.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot<Endpoint> {
        self.list.snapshot()
    }

    /// Endpoints that are not in force, and why.
    #[must_use]
    pub fn errors(&self) -> &BTreeMap<EndpointId, String> {
        &self.errors
    }

    /// How full the pools are.
    #[must_use]
    pub fn usage(&self) -> Vec<PoolUsage> {
        self.pools.usage()
    }

    /// Takes new addresses from these networks from now on.
    ///
    /// # Errors
    /// When the list cannot be used; the old one stays in force.
    pub fn set_pools(&mut self, specs: &[PoolSpec]) -> Result<(), ipam::PoolError> {
        self.pools.set_pools(specs)
    }

    /// Addresses released since the last call: they rest until [`Endpoints::rested`].
    pub fn take_released(&mut self) -> Vec<IpAddr> {
        std::mem::take(&mut self.released)
    }

    /// The connections of these addresses are forgotten.
    pub fn rested(&mut self, ips: &[IpAddr]) {
        for ip in ips {
            self.pools.rested(*ip);
        }
    }

    /// By the name that the host end has if it is ours, which is a digest of the attachment in any case.
    fn by_host_ifname(&self, name: &str) -> Option<&Endpoint> {
        self.snapshot()
            .iter()
            .find(|endpoint| endpoint.host_ifname == name || host_ifname(&endpoint.id) == name)
    }

    fn release(&mut self, id: &EndpointId) {
        self.released.extend(self.pools.release(id));
    }
}

impl Kernel {
    /// Writes the rows of an endpoint, then attaches the program: it refuses what comes from an address without a row, so the
    /// other order would drop packets of a running pod whenever the map is a new one.
    fn program(&mut self, endpoint: &Endpoint) -> Result<(), cni::Error> {
        self.write_rows(endpoint)?;
        let datapath = &mut self.datapath;
        let attach = || {
            datapath.attach_pod(&endpoint.host_ifname, endpoint.ifindex)?;
            // Another network's routes lead to the pod, and not to the device where we see what is for ours.
            if endpoint.adopted {
                datapath.attach_to_pod(&endpoint.host_ifname, endpoint.ifindex)?;
            }
            Ok(())
        };
        let attached = self.expedite.run(attach);
        attached.map_err(|error: datapath::AttachError| kernel_error(&endpoint.id, &error))
    }

    fn write_rows(&mut self, endpoint: &Endpoint) -> Result<(), cni::Error> {
        let mut row =
            datapath::common::Endpoint::pod(endpoint.ifindex, datapath::common::Mac(endpoint.mac.0));
        row.id = endpoint.ifindex;
        if endpoint.limits.ingress {
            row.flags |= datapath::common::Endpoint::QUEUED;
        }
        if endpoint.limits.egress {
            row.flags |= datapath::common::Endpoint::STACK;
        }
        for ip in &endpoint.ips {
            let written = self.datapath.endpoints().upsert(*ip, &row);
            written.map_err(|error| kernel_error(&endpoint.id, &error))?;
        }
        Ok(())
    }
}

/// The hardware address of a pod's end: from its IPv4 address, else from a hash of its IPv6 address.
#[must_use]
pub fn pod_mac(ips: &[IpAddr]) -> Mac {
    let v4 = ips.iter().find_map(|ip| {
        if let IpAddr::V4(ip) = ip {
            Some(ip.octets())
        } else {
            None
        }
    });
    let v6 = ips.iter().find_map(|ip| {
        if let IpAddr::V6(ip) = ip {
            Some(ip.octets())
        } else {
            None
        }
    });
    // FNV-1a, 32 bits: collisions do no harm, since no two pods share a link.
    let hash = |bytes: [u8; 16]| {
        bytes.iter().fold(0x811c_9dc5_u32, |h, b| {
            (h ^ u32::from(*b)).wrapping_mul(0x0100_0193)
        })
    };
    let [a, b, c, d] = v4
        .or_else(|| v6.map(|bytes| hash(bytes).to_be_bytes()))
        .unwrap_or_default();
    Mac([0x0a, 0x58, a, b, c, d])
}

/// Like the specification's attachment, in our words.
#[must_use]
pub fn endpoint_id(attachment: cni::Attachment) -> EndpointId {
    EndpointId {
        container_id: attachment.container_id,
        ifname: attachment.ifname,
    }
}

/// Like the runtime's pod, in our words.
#[must_use]
pub fn pod_ref(pod: cni::Pod) -> PodRef {
    PodRef {
        namespace: pod.namespace,
        name: pod.name,
        uid: pod.uid,
    }
}

fn host_ifname(id: &EndpointId) -> String {
    let attachment = cni::Attachment {
        container_id: id.container_id.clone(),
        ifname: id.ifname.clone(),
    };
    cni::host_ifname(&attachment)
}

fn kernel_error(id: &EndpointId, error: &dyn std::fmt::Display) -> cni::Error {
    cni::Error::new(
        codes::KERNEL,
        format!("{id}: {error}"),
        "see the agent's log and the kernel's (dmesg) on this node",
    )
}
