// SPDX-License-Identifier: Apache-2.0
//! DEL and GC: every step runs, whatever becomes of the others; the absent is success.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cni::{Error, codes};
use model::{Endpoint, EndpointId};
use netlink::Request;
use tracing::info;

use super::alias::Alias;
use super::{Endpoints, Kernel, host_ifname};

impl Endpoints {
    /// Detaches an endpoint. The unknown is success.
    ///
    /// # Errors
    /// With all steps that failed. The addresses stay allocated while the pod may still have them.
    pub fn remove(&mut self, kernel: &mut Kernel, id: &EndpointId) -> Result<(), Error> {
        let Some(endpoint) = self.snapshot().get(id).cloned() else {
            return self.remove_unknown(kernel, id);
        };
        let removed = kernel.unmake(&endpoint);
        match &removed {
            Ok(()) => {
                info!(endpoint = %id, pod = %endpoint.pod, ips = ?endpoint.ips, "detached");
                self.errors.remove(id);
                self.announced.remove(id);
                self.list.remove(id);
                self.release(id);
            }
            Err(error) => {
                self.errors.insert(id.clone(), error.to_string());
            }
        }
        removed
    }

    /// Detaches the endpoint of a host end: for a queued DEL that says no more than that.
    ///
    /// # Errors
    /// As [`Endpoints::remove`].
    pub fn remove_by_host_ifname(&mut self, kernel: &mut Kernel, host: &str) -> Result<(), Error> {
        match self.by_host_ifname(host).map(|endpoint| endpoint.id.clone()) {
            Some(id) => self.remove(kernel, &id),
            None => Ok(()),
        }
    }

    /// Detaches every endpoint that is not `valid`.
    ///
    /// # Errors
    /// With all endpoints that could not be detached.
    pub fn collect(&mut self, kernel: &mut Kernel, valid: &BTreeSet<EndpointId>) -> Result<usize, Error> {
        let ids = self.snapshot().iter().map(|endpoint| endpoint.id.clone());
        let stale: Vec<EndpointId> = ids.filter(|id| !valid.contains(id)).collect();
        let errors = stale.iter().filter_map(|id| self.remove(kernel, id).err());
        let errors: Vec<String> = errors.map(|error| error.msg).collect();
        if errors.is_empty() {
            Ok(stale.len())
        } else {
            Err(joined(&errors))
        }
    }

    /// A link with this name may be a leftover that never became an endpoint. That of another endpoint stays.
    fn remove_unknown(&self, kernel: &mut Kernel, id: &EndpointId) -> Result<(), Error> {
        let host = host_ifname(id);
        if self.by_host_ifname(&host).is_some() {
            return Ok(());
        }
        kernel.remove_link(&host).map_err(|errors| joined(&errors))
    }
}

impl Kernel {
    /// Removes all of an endpoint, in the reverse order of making it.
    pub(super) fn unmake(&mut self, endpoint: &Endpoint) -> Result<(), Error> {
        let mut errors = Vec::new();
        for ip in &endpoint.ips {
            errors.extend(
                self.remove_row(endpoint, *ip)
                    .err()
                    .map(|error| format!("{}: {error}", endpoint.id)),
            );
        }
        let removed = if endpoint.adopted {
            self.let_go(&endpoint.host_ifname)
        } else {
            self.remove_link(&endpoint.host_ifname)
        };
        errors.extend(removed.err().into_iter().flatten());
        if errors.is_empty() {
            Ok(())
        } else {
            Err(joined(&errors))
        }
    }

    /// A row that another endpoint has taken over stays.
    fn remove_row(&mut self, endpoint: &Endpoint, ip: IpAddr) -> Result<(), datapath::MapError> {
        let rows = self.datapath.endpoints();
        if rows.get(ip)?.is_some_and(|row| row.ifindex == endpoint.ifindex) {
            rows.remove(ip)?;
        }
        Ok(())
    }

    /// Takes what is ours from a link that another network made, and will remove.
    pub(super) fn let_go(&mut self, host: &str) -> Result<(), Vec<String>> {
        let mut errors = Vec::new();
        errors.extend(self.datapath.detach(host).err().map(|error| error.to_string()));
        match self.netlink.link(host) {
            Ok(Some(link))
                if link
                    .alias
                    .as_deref()
                    .is_some_and(|text| Alias::decode(text).is_ok()) =>
            {
                let cleared = self.netlink.apply(&[Request::set_alias(link.index, "")]);
                errors.extend(cleared.err().map(|error| error.to_string()));
            }
            Ok(_) => {}
            Err(error) => errors.push(error.to_string()),
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// The link takes its program with it; removing the program first would cost one more wait.
    fn remove_link(&mut self, host: &str) -> Result<(), Vec<String>> {
        let mut errors = Vec::new();
        let netlink = &mut self.netlink;
        let deleted = self.expedite.run(|| netlink.delete_link(host));
        errors.extend(deleted.err().map(|error| error.to_string()));
        errors.extend(self.datapath.detach(host).err().map(|error| error.to_string()));
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

fn joined(errors: &[String]) -> Error {
    Error::new(
        codes::KERNEL,
        errors.join("; "),
        "the runtime tries again; see the agent's log and the kernel's (dmesg)",
    )
}
