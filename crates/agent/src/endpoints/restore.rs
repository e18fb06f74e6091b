// SPDX-License-Identifier: Apache-2.0
//! The start: endpoints and allocations out of the kernel. Traffic of running pods is not touched.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cni::HOST_IFNAME_PREFIX;
use model::Endpoint;
use netlink::Link;
use tracing::{info, warn};

use super::alias::Alias;
use super::{Endpoints, Kernel, host_ifname, pod_mac};

/// Hex digits after the prefix in the name of a host end.
const DIGEST_DIGITS: usize = 12;

impl Endpoints {
    /// Rebuilds the list from the aliases of links, writes the rows and relinks every veth in place. A link that never became an
    /// endpoint is removed. One endpoint's failure becomes its status and does not hold up the others.
    ///
    /// # Errors
    /// When the links cannot be read.
    pub fn restore(&mut self, kernel: &mut Kernel) -> Result<(), netlink::Error> {
        for link in kernel.netlink.links()?.iter().filter(|link| is_host_end(link)) {
            let Some(text) = &link.alias else {
                remove_orphan(kernel, link);
                continue;
            };
            match Alias::decode(text) {
                Ok(alias) if host_ifname(&alias.id) == link.name => self.adopt(kernel, link, alias),
                Ok(_) => {
                    warn!(link = %link.name, alias = %text, "the link's name is not its alias's; it is left alone")
                }
                Err(error) => warn!(link = %link.name, %error, "a link is left alone"),
            }
        }
        self.list.set_in_sync();
        info!(
            endpoints = self.snapshot().len(),
            errors = self.errors.len(),
            "endpoints restored"
        );
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

    /// Deletes rows that belong to no endpoint and to none of `others`.
    ///
    /// # Errors
    /// When the map cannot be read or written.
    pub fn sweep_rows(
        &self,
        kernel: &mut Kernel,
        others: &BTreeSet<IpAddr>,
    ) -> Result<usize, datapath::MapError> {
        let rows = kernel.datapath.endpoints().rows()?;
        let wanted = |ip: &IpAddr| self.pools.owner(*ip).is_some() || others.contains(ip);
        let strays: Vec<IpAddr> = rows
            .into_iter()
            .map(|(ip, _)| ip)
            .filter(|ip| !wanted(ip))
            .collect();
        for ip in &strays {
            kernel.datapath.endpoints().remove(*ip)?;
        }
        Ok(strays.len())
    }

    /// The names of all host ends.
    #[must_use]
    pub fn host_ifnames(&self) -> BTreeSet<String> {
        self.snapshot()
            .iter()
            .map(|endpoint| endpoint.host_ifname.clone())
            .collect()
    }

    fn adopt(&mut self, kernel: &mut Kernel, link: &Link, alias: Alias) {
        let Alias { id, pod, ips } = alias;
        let mac = pod_mac(&ips);
        let endpoint = Endpoint {
            id,
            pod,
            ips,
            host_ifname: link.name.clone(),
            ifindex: link.index,
            mac,
        };
        let claims = endpoint
            .ips
            .iter()
            .try_for_each(|ip| self.pools.restore(&endpoint.id, *ip));
        let done = claims.map_err(|error| error.to_string());
        let done = done.and_then(|()| kernel.program(&endpoint).map_err(|error| error.to_string()));
        if let Err(error) = done {
            warn!(endpoint = %endpoint.id, %error, "an endpoint is not in force");
            self.errors.insert(endpoint.id.clone(), error);
        }
        self.list.upsert(endpoint);
    }

    fn holds_its_addresses(&self, endpoint: &Endpoint) -> bool {
        endpoint
            .ips
            .iter()
            .all(|ip| self.pools.owner(*ip) == Some(&endpoint.id))
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
