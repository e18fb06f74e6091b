// SPDX-License-Identifier: Apache-2.0
//! CHECK: is an attachment still as ADD left it?

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use cni::{Error, codes};
use model::{Endpoint, EndpointId};

use super::pod::PodNetns;
use super::{Endpoints, Kernel, kernel_error};

impl Endpoints {
    /// Compares an attachment with the kernel, and with the addresses that the runtime remembers for it.
    ///
    /// # Errors
    /// With everything that differs.
    pub fn check(
        &self,
        kernel: &mut Kernel,
        id: &EndpointId,
        netns: (BorrowedFd<'_>, &str),
        expected: &[IpAddr],
    ) -> Result<(), Error> {
        let Some(endpoint) = self.snapshot().get(id) else {
            let msg = format!("{id} is not attached to this node's network");
            return Err(Error::new(
                codes::UNKNOWN_CONTAINER,
                msg,
                "the pod has to be made anew",
            ));
        };
        let mut wrong = node_side(kernel, endpoint)?;
        let others = expected.iter().filter(|ip| !endpoint.ips.contains(ip));
        wrong.extend(others.map(|ip| format!("address {ip} of the runtime's record is not the endpoint's")));
        let mut pod = PodNetns::open(id, netns.0, netns.1, kernel.own_netns)?;
        wrong.extend(pod_side(&mut pod, endpoint).map_err(|error| kernel_error(id, &error))?);
        if wrong.is_empty() {
            return Ok(());
        }
        let msg = format!("{id}: {}", wrong.join("; "));
        Err(Error::new(
            codes::CHECK_FAILED,
            msg,
            "delete the pod and let it be made anew",
        ))
    }
}

fn node_side(kernel: &mut Kernel, endpoint: &Endpoint) -> Result<Vec<String>, Error> {
    let fail = |error: &dyn std::fmt::Display| kernel_error(&endpoint.id, error);
    let host = &endpoint.host_ifname;
    let mut wrong = Vec::new();
    match kernel.netlink.link(host).map_err(|error| fail(&error))? {
        None => wrong.push(format!("link {host} is missing")),
        Some(link) if link.index != endpoint.ifindex => {
            wrong.push(format!("link {host} is another one than ADD made"))
        }
        Some(link) if !link.up => wrong.push(format!("link {host} is down")),
        Some(_) => {}
    }
    for ip in &endpoint.ips {
        let row = kernel
            .datapath
            .endpoints()
            .get(*ip)
            .map_err(|error| fail(&error))?;
        if row.is_none_or(|row| row.ifindex != endpoint.ifindex || row.mac.0 != endpoint.mac.0) {
            wrong.push(format!("the datapath's row of {ip} is missing or another pod's"));
        }
    }
    Ok(wrong)
}

fn pod_side(pod: &mut PodNetns<'_>, endpoint: &Endpoint) -> Result<Vec<String>, netlink::Error> {
    let ifname = &endpoint.id.ifname;
    let wrong = match pod.link(ifname)? {
        None => vec![format!("interface {ifname} is missing in the pod")],
        Some(_) if !pod.holds(endpoint) => vec![format!(
            "interface {ifname} in the pod is another one than ADD made"
        )],
        Some(link) if !link.up => vec![format!("interface {ifname} in the pod is down")],
        Some(link) => {
            let mut missing = pod.missing_addresses(link.index, &endpoint.ips)?;
            // Routes of what another network made are that one's affair.
            if !endpoint.adopted {
                missing.extend(pod.missing_routes(link.index, &endpoint.ips)?);
            }
            missing
                .into_iter()
                .map(|what| format!("{what} is missing in the pod"))
                .collect()
        }
    };
    Ok(wrong)
}
