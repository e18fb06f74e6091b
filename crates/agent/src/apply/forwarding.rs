// SPDX-License-Identifier: Apache-2.0
//! Forwarding: without it the host drops what pods send to other nodes through its stack.

use std::{fs, io};

use netlink::sysctl;

const IPV4_FORWARD: &str = "net/ipv4/ip_forward";
const IPV6_FORWARD: &str = "net/ipv6/conf/all/forwarding";
const IPV6_DEVICES: &str = "/proc/sys/net/ipv6/conf";

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
    ensure(IPV4_FORWARD, "net.ipv4.ip_forward")?;
    match sysctl::read(IPV6_FORWARD) {
        Ok(current) if current == "1" => Ok(()),
        Ok(_) => {
            keep_router_advertisements();
            ensure(IPV6_FORWARD, "net.ipv6.conf.all.forwarding")
        }
        // The kernel has no IPv6.
        Err(_) => Ok(()),
    }
}

fn ensure(path: &str, key: &'static str) -> Result<(), SysctlError> {
    sysctl::ensure(path, "1").map_err(|source| SysctlError {
        key,
        value: "1",
        source,
    })
}

/// A host that forwards ignores router advertisements unless `accept_ra` is 2: a node that has its default route from
/// one would lose it (Documentation/networking/ip-sysctl.rst, `accept_ra`).
fn keep_router_advertisements() {
    for device in devices().unwrap_or_default() {
        let key = format!("net/ipv6/conf/{device}/accept_ra");
        if sysctl::read(&key).is_ok_and(|value| value == "1")
            && let Err(error) = sysctl::write(&key, "2")
        {
            tracing::warn!(%error, "a device may lose its default route");
        }
    }
}

fn devices() -> io::Result<Vec<String>> {
    let entries = fs::read_dir(IPV6_DEVICES)?.collect::<Result<Vec<_>, _>>()?;
    Ok(entries
        .into_iter()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect())
}
