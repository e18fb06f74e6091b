// SPDX-License-Identifier: Apache-2.0
//! Forwarding, and no reverse path filter on pods' links: without them the host drops what pods send through its stack.

use std::{fs, io};

use netlink::sysctl;

use super::host::{HOST_LINK, HOST_PEER};
use crate::tunnel::TUNNEL_LINK;

const IPV4_FORWARD: &str = "net/ipv4/ip_forward";
const IPV6_FORWARD: &str = "net/ipv6/conf/all/forwarding";
const IPV4_DEVICES: &str = "/proc/sys/net/ipv4/conf";
const IPV6_DEVICES: &str = "/proc/sys/net/ipv6/conf";
const ALL_RP_FILTER: &str = "net/ipv4/conf/all/rp_filter";

/// A setting that could not be made.
#[derive(Debug, thiserror::Error)]
#[error(
    "{source}; where /proc/sys is mounted read-only, mount it writable (a privileged container has it so) or make the \
     setting on the node: sysctl -w {key}={value}"
)]
pub(super) struct SysctlError {
    key: &'static str,
    value: &'static str,
    source: netlink::Error,
}

/// Switches forwarding on for both families, where the kernel has them.
///
/// # Errors
/// When a setting is missing or cannot be made.
pub(super) fn enable_forwarding() -> Result<(), SysctlError> {
    ensure(IPV4_FORWARD, "net.ipv4.ip_forward", "1")?;
    match sysctl::read(IPV6_FORWARD) {
        Ok(current) if current == "1" => Ok(()),
        Ok(_) => {
            keep_router_advertisements();
            ensure(IPV6_FORWARD, "net.ipv6.conf.all.forwarding", "1")
        }
        // The kernel has no IPv6.
        Err(_) => Ok(()),
    }
}

/// Takes the reverse path filter from `all` and gives it to each device instead, ours excepted.
///
/// What the kernel filters on a device is the greater of its own setting and that of `all` (`IN_DEV_RPFILTER` in
/// `include/linux/inetdevice.h`), and any filter refuses every packet on a device without an address, as pods' links
/// are. The other devices, and those to come, filter as before.
///
/// # Errors
/// When a setting cannot be made; `all` is then as it was.
pub(super) fn move_reverse_path_filter() -> Result<(), SysctlError> {
    let all = level("all");
    if all == 0 {
        return Ok(());
    }
    for device in devices(IPV4_DEVICES).unwrap_or_default() {
        let ours = device.starts_with(cni::HOST_IFNAME_PREFIX)
            || [HOST_LINK, HOST_PEER, TUNNEL_LINK].contains(&device.as_str());
        if device == "all" || ours || level(&device) >= all {
            continue;
        }
        // A device that has gone meanwhile needs no filter.
        if let Err(error) = sysctl::write(&rp_filter(&device), &all.to_string()) {
            tracing::debug!(%error, "reverse path filter of a device");
        }
    }
    ensure(ALL_RP_FILTER, "net.ipv4.conf.all.rp_filter", "0")?;
    tracing::info!(
        level = all,
        "reverse path filter moved from all devices to each but ours"
    );
    Ok(())
}

fn rp_filter(device: &str) -> String {
    format!("net/ipv4/conf/{device}/rp_filter")
}

/// 0 is off, 1 strict, 2 loose (RFC 3704).
fn level(device: &str) -> u8 {
    sysctl::read(&rp_filter(device))
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(0)
}

fn ensure(path: &str, key: &'static str, value: &'static str) -> Result<(), SysctlError> {
    sysctl::ensure(path, value).map_err(|source| SysctlError { key, value, source })
}

/// A host that forwards ignores router advertisements unless `accept_ra` is 2: a node that has its default route from
/// one would lose it (Documentation/networking/ip-sysctl.rst, `accept_ra`).
fn keep_router_advertisements() {
    for device in devices(IPV6_DEVICES).unwrap_or_default() {
        let key = format!("net/ipv6/conf/{device}/accept_ra");
        if sysctl::read(&key).is_ok_and(|value| value == "1")
            && let Err(error) = sysctl::write(&key, "2")
        {
            tracing::warn!(%error, "a device may lose its default route");
        }
    }
}

fn devices(directory: &str) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(directory)?.collect::<Result<Vec<_>, _>>()?;
    Ok(entries
        .into_iter()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect())
}
