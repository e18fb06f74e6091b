// SPDX-License-Identifier: Apache-2.0
//! The start: endpoints and allocations out of the kernel. Traffic of running pods is not touched.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cni::HOST_IFNAME_PREFIX;
use model::{Endpoint, EndpointId, RateLimits};
use netlink::{Link, Queue};
use tracing::{info, warn};

use super::alias::Alias;
use super::{Endpoints, Kernel, host_ifname};
use crate::apply;

/// Hex digits after the prefix in the name of a host end.
const DIGEST_DIGITS: usize = 12;
/// What a veth has that nobody gave a queue.
const NO_QUEUES: [&str; 2] = ["noqueue", "noop"];
const INGRESS: &str = "ingress";

impl Endpoints {
    /// Rebuilds the list from the aliases of links, writes the rows and relinks every veth in place. A link that never became an
    /// endpoint is removed. One endpoint's failure becomes its status and does not hold up the others.
    ///
    /// # Errors
    /// When the links cannot be read.
    pub fn restore(&mut self, kernel: &mut Kernel) -> Result<(), netlink::Error> {
        let (mut adopted, mut strangers) = (Vec::new(), Vec::new());
        let links = kernel.netlink.links()?;
        let queues = kernel.netlink.queues().unwrap_or_else(|error| {
            warn!(%error, "whose rate is limited cannot be told yet");
            Vec::new()
        });
        for link in links.iter().filter(|link| is_host_end(link) || is_adopted(link)) {
            let Some(text) = &link.alias else {
                remove_orphan(kernel, link);
                continue;
            };
            match Alias::decode(text) {
                Ok(alias) if alias.adopted && !self.chained => abandon(kernel, link),
                Ok(alias) if alias.adopted || host_ifname(&alias.id) == link.name => {
                    let limits = kernel.limits(&queues, link.index);
                    adopted.push(endpoint(link, alias, limits));
                }
                Ok(_) => {
                    warn!(link = %link.name, alias = %text, "the link's name is not its alias's; it is left alone");
                    strangers.push(link);
                }
                Err(error) => {
                    warn!(link = %link.name, %error, "a link is left alone");
                    strangers.push(link);
                }
            }
        }
        // All rows before the first program: where the map is a new one, the programs that are not replaced yet go by the old one.
        let claimed: Vec<_> = adopted
            .iter()
            .map(|endpoint| self.claim(kernel, endpoint))
            .collect();
        for (endpoint, claimed) in adopted.into_iter().zip(claimed) {
            self.adopt(kernel, endpoint, claimed);
        }
        for link in strangers {
            self.leave_alone(kernel, link);
        }
        self.list.set_in_sync();
        info!(
            endpoints = self.snapshot().len(),
            errors = self.errors.len(),
            "endpoints restored"
        );
        Ok(())
    }

    /// Looks where rates are limited: `bandwidth` runs after us, and others may do it at any time.
    ///
    /// # Errors
    /// When the queues cannot be read.
    pub fn follow_queues(&mut self, kernel: &mut Kernel) -> Result<(), netlink::Error> {
        if self.snapshot().is_empty() {
            return Ok(());
        }
        let queues = kernel.netlink.queues()?;
        let found = |endpoint: &Endpoint| kernel.limits(&queues, endpoint.ifindex);
        let endpoints = self.list.snapshot();
        // Once the queues are there, it is they that count: somebody may take them away again.
        self.announced.retain(|id, announced| {
            let found = endpoints.get(id).map(found).unwrap_or_default();
            found.or(*announced) != found
        });
        let limits = |endpoint: &Endpoint| {
            let announced = self.announced.get(&endpoint.id).copied().unwrap_or_default();
            announced.or(found(endpoint))
        };
        let changed: Vec<Endpoint> = self
            .snapshot()
            .iter()
            .filter(|endpoint| limits(endpoint) != endpoint.limits)
            .map(|endpoint| Endpoint {
                limits: limits(endpoint),
                ..endpoint.clone()
            })
            .collect();
        for endpoint in changed {
            info!(endpoint = %endpoint.id, limits = ?endpoint.limits, "where its rate is limited has changed");
            if let Err(error) = kernel.write_rows(&endpoint) {
                self.errors.insert(endpoint.id.clone(), error.to_string());
            }
            self.list.upsert(endpoint);
        }
        Ok(())
    }

    /// Tries endpoints that are not in force once more.
    pub fn retry(&mut self, kernel: &mut Kernel) {
        let failing: Vec<_> = self
            .errors
            .keys()
            .filter_map(|id| self.snapshot().get(id).cloned())
            .collect();
        for endpoint in failing {
            if self.holds_its_addresses(&endpoint) && kernel.program(&endpoint).is_ok() {
                self.errors.remove(&endpoint.id);
            }
        }
    }

    /// Deletes rows that belong to no endpoint and to none of `others`; those of services only where these are not ours to serve.
    ///
    /// # Errors
    /// When the map cannot be read or written.
    pub fn sweep_rows(
        &self,
        kernel: &mut Kernel,
        others: &BTreeSet<IpAddr>,
        services: bool,
    ) -> Result<usize, datapath::MapError> {
        let rows = kernel.datapath.endpoints().rows()?;
        let wanted = |ip: &IpAddr| self.pools.owner(*ip).is_some() || others.contains(ip);
        let strays: Vec<IpAddr> = rows
            .into_iter()
            .filter(|(ip, row)| !(wanted(ip) || services && apply::is_service(row)))
            .map(|(ip, _)| ip)
            .collect();
        for ip in &strays {
            kernel.datapath.endpoints().remove(*ip)?;
        }
        Ok(strays.len())
    }

    /// The names of all host ends, those that were left alone among them.
    #[must_use]
    pub fn host_ifnames(&self) -> BTreeSet<String> {
        let known = self.snapshot().iter();
        known
            .map(|endpoint| endpoint.host_ifname.clone())
            .chain(self.strangers.iter().cloned())
            .collect()
    }

    /// Takes the addresses that the endpoint has, and writes its rows.
    fn claim(&mut self, kernel: &mut Kernel, endpoint: &Endpoint) -> Result<(), String> {
        let mut ips = endpoint.ips.iter();
        let claims = ips.try_for_each(|ip| self.pools.restore(&endpoint.id, *ip));
        claims.map_err(|error| error.to_string())?;
        kernel.write_rows(endpoint).map_err(|error| error.to_string())
    }

    fn adopt(&mut self, kernel: &mut Kernel, endpoint: Endpoint, claimed: Result<(), String>) {
        let done = claimed.and_then(|()| kernel.program(&endpoint).map_err(|error| error.to_string()));
        if let Err(error) = done {
            warn!(endpoint = %endpoint.id, %error, "an endpoint is not in force");
            self.errors.insert(endpoint.id.clone(), error);
        }
        self.list.upsert(endpoint);
    }

    /// A pod may be behind the link, of another release perhaps: its program and rows stay, and nobody else gets its addresses.
    fn leave_alone(&mut self, kernel: &mut Kernel, link: &Link) {
        self.strangers.insert(link.name.clone());
        let owner = EndpointId {
            container_id: link.name.clone(),
            ifname: String::new(),
        };
        let rows = kernel.datapath.endpoints().rows().unwrap_or_else(|error| {
            warn!(link = %link.name, %error, "its addresses cannot be told");
            Vec::new()
        });
        for (ip, _) in rows.iter().filter(|(_, row)| row.ifindex == link.index) {
            if let Err(error) = self.pools.restore(&owner, *ip) {
                warn!(link = %link.name, %error, "its address is another's too");
            }
        }
    }

    fn holds_its_addresses(&self, endpoint: &Endpoint) -> bool {
        endpoint
            .ips
            .iter()
            .all(|ip| self.pools.owner(*ip) == Some(&endpoint.id))
    }
}

impl Kernel {
    /// Whether somebody limits what a pod sends already: our own program is never in a queue of this kind.
    pub(super) fn has_ingress_queue(&mut self, ifindex: u32) -> Result<bool, netlink::Error> {
        let queues = self.netlink.queues()?;
        Ok(queues
            .iter()
            .any(|queue| queue.ifindex == ifindex && is_ingress(queue)))
    }

    /// Where the rate of a pod behind this host end is limited. An ingress qdisc, where our program does not need one, is there for
    /// what the pod sends.
    fn limits(&self, queues: &[Queue], ifindex: u32) -> RateLimits {
        let has = |wanted: &dyn Fn(&Queue) -> bool| {
            queues
                .iter()
                .any(|queue| queue.ifindex == ifindex && wanted(queue))
        };
        RateLimits {
            ingress: has(&|queue| !queue.ingress && !NO_QUEUES.contains(&queue.kind.as_str())),
            egress: self.datapath.features().tcx && has(&is_ingress),
        }
    }
}

fn is_ingress(queue: &Queue) -> bool {
    queue.ingress && queue.kind == INGRESS
}

fn endpoint(link: &Link, alias: Alias, limits: RateLimits) -> Endpoint {
    let Alias {
        id,
        pod,
        ips,
        mac,
        adopted,
    } = alias;
    Endpoint {
        id,
        pod,
        mac,
        ips,
        host_ifname: link.name.clone(),
        ifindex: link.index,
        limits,
        adopted,
    }
}

fn is_adopted(link: &Link) -> bool {
    let alias = link.alias.as_deref().map(Alias::decode);
    link.kind.as_deref() == Some("veth") && matches!(alias, Some(Ok(Alias { adopted: true, .. })))
}

/// Behind another network's link we have no business any more: its traffic goes on without us.
fn abandon(kernel: &mut Kernel, link: &Link) {
    match kernel.let_go(&link.name) {
        Ok(()) => info!(link = %link.name, "the link is another network's alone again"),
        Err(errors) => {
            warn!(link = %link.name, error = errors.join("; "), "another network's link still has a program of ours")
        }
    }
}

fn is_host_end(link: &Link) -> bool {
    let digest = link.name.strip_prefix(HOST_IFNAME_PREFIX).unwrap_or_default();
    let is_digest =
        digest.len() == DIGEST_DIGITS && digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    is_digest && link.kind.as_deref() == Some("veth")
}

/// The agent died between making the link and writing its alias: no pod can use it yet.
fn remove_orphan(kernel: &mut Kernel, link: &Link) {
    match kernel.netlink.delete_link(&link.name) {
        Ok(_) => info!(link = %link.name, "removed a link that never became an endpoint"),
        Err(error) => warn!(link = %link.name, %error, "a link that belongs to nobody could not be removed"),
    }
}
