// SPDX-License-Identifier: Apache-2.0
//! What the node has to offer: file systems, modules, settings, capabilities, a clock, and nobody who takes our devices.

use super::{Check, each_node};
use crate::compatibility::KERNEL_WITH_TCX;
use crate::facts::{Facts, Manager, Module, NodeFacts};
use crate::finding::{Outcome, Severity};
use crate::version::Version;

/// Clocks further apart than this are noticed, in milliseconds.
const SKEW_WARNING_MS: u64 = 5_000;
/// Clocks further apart than this break certificates and leases.
const SKEW_ERROR_MS: u64 = 60_000;
/// A `Date` header counts whole seconds.
const DATE_STEP_MS: u64 = 1_000;
/// What an agent needs, by bit.
const CAPABILITIES: [(u32, &str); 2] = [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN")];

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "host.bpffs",
        per_node: true,
        trap: None,
        title: "no BPF file system is mounted where the agent wants it",
        why: "programs and maps are pinned there; without pins an agent's restart would break every connection",
        run: bpffs,
    },
    Check {
        id: "host.cgroup2",
        per_node: true,
        trap: None,
        title: "no cgroup2 hierarchy is mounted",
        why: "load balancing at sockets attaches to it; without it services are translated packet by packet",
        run: cgroup2,
    },
    Check {
        id: "host.modules",
        per_node: true,
        trap: None,
        title: "a kernel module that attaching pods needs is missing",
        why: "without it pods cannot be attached to the node",
        run: modules,
    },
    Check {
        id: "host.sysctls",
        per_node: true,
        trap: None,
        title: "forwarding is off, or the reverse path filter is on for all devices",
        why: "the host then drops what pods send through its stack, silently",
        run: sysctls,
    },
    Check {
        id: "host.capabilities",
        per_node: true,
        trap: None,
        title: "the agent lacks a capability",
        why: "devices, routes and programs cannot be made without",
        run: capabilities,
    },
    Check {
        id: "host.managers",
        per_node: true,
        trap: None,
        title: "systemd-networkd or NetworkManager takes our devices for its own",
        why: "they take addresses and routes away at their own restart, hours after an upgrade of theirs",
        run: managers,
    },
    Check {
        id: "host.clock",
        per_node: true,
        trap: None,
        title: "clocks of nodes and of the API server differ",
        why: "certificates look expired, leases are lost, and the order of events in logs is wrong",
        run: clock,
    },
];

fn bpffs(facts: &Facts, outcome: &mut Outcome) {
    each_node(facts, |node| {
        let Some(mounts) = outcome.need(&node.name, &node.mounts) else {
            return;
        };
        if !mounts.bpffs {
            let path = &mounts.bpffs_path;
            outcome.find(
                Severity::Error,
                &node.name,
                format!("{path} is no BPF file system"),
                format!("mount -t bpf bpf {path}, and a line in /etc/fstab: bpf {path} bpf defaults 0 0"),
            );
        }
    });
}

fn cgroup2(facts: &Facts, outcome: &mut Outcome) {
    each_node(facts, |node| {
        let Some(mounts) = outcome.need(&node.name, &node.mounts) else {
            return;
        };
        if mounts.cgroup2.is_none() {
            outcome.find(
                Severity::Warning,
                &node.name,
                "nothing of type cgroup2 is mounted",
                "boot with systemd.unified_cgroup_hierarchy=1, or mount -t cgroup2 none /run/thalweg/cgroup",
            );
        }
    });
}

fn modules(facts: &Facts, outcome: &mut Outcome) {
    each_node(facts, |node| {
        let Some(modules) = outcome.need(&node.name, &node.modules) else {
            return;
        };
        for module in needed(node) {
            match modules.get(module) {
                Some(Module::Present | Module::Loadable) => {}
                // What works needs no proof from files.
                _ if works(node) => {}
                Some(Module::Absent) => outcome.find(
                    Severity::Error,
                    &node.name,
                    format!("the kernel has no module {module}"),
                    format!("install the package with the kernel's further modules (linux-modules-extra, kernel-modules-extra), then modprobe {module}"),
                ),
                None => outcome.not_known(
                    &node.name,
                    format!("whether the kernel has {module}: /lib/modules of the running kernel is not here"),
                ),
            }
        }
    });
}

/// A ready agent has attached its programs to devices of this node.
fn works(node: &NodeFacts) -> bool {
    node.agent
        .known()
        .is_some_and(|agent| agent.ready && !agent.programs.is_empty())
}

/// Tunnels need none: where the kernel has no device for them the programs wrap packets themselves.
fn needed(node: &NodeFacts) -> Vec<&'static str> {
    let mut needed = vec!["veth"];
    let series = node
        .kernel
        .known()
        .and_then(|kernel| Version::parse(&kernel.release).ok());
    if series.is_some_and(|series| series < KERNEL_WITH_TCX) {
        needed.extend(["sch_ingress", "cls_bpf"]);
    }
    needed
}

fn sysctls(facts: &Facts, outcome: &mut Outcome) {
    each_node(facts, |node| {
        let Some(sysctls) = outcome.need(&node.name, &node.sysctls) else {
            return;
        };
        let read_only = node.mounts.known().is_some_and(|mounts| mounts.sysctl_read_only);
        let mend = |setting: &str| {
            let why = if read_only {
                " on the node itself (/proc/sys is read-only here)"
            } else {
                ""
            };
            format!("sysctl -w {setting}{why}, and a line in /etc/sysctl.d/90-thalweg.conf")
        };
        let mut want = |name: &str, right: fn(&str) -> bool, setting: &str| match sysctls.get(name) {
            Some(value) if right(value) => {}
            Some(value) => outcome.find(
                Severity::Error,
                &node.name,
                format!("{name} is {value}"),
                mend(setting),
            ),
            // A kernel without IPv6, or a device that is not there.
            None if name != "net.ipv4.ip_forward" => {}
            None => outcome.not_known(&node.name, format!("{name}: the kernel does not show it")),
        };
        want(
            "net.ipv4.ip_forward",
            |value| value == "1",
            "net.ipv4.ip_forward=1",
        );
        let ipv6 = node
            .agent
            .known()
            .is_some_and(|agent| agent.pools.iter().any(|pool| pool.cidr.addr().is_ipv6()));
        if ipv6 {
            want(
                "net.ipv6.conf.all.forwarding",
                |value| value == "1",
                "net.ipv6.conf.all.forwarding=1",
            );
        }
        want(
            "net.ipv4.conf.all.rp_filter",
            |value| value == "0",
            "net.ipv4.conf.all.rp_filter=0",
        );
        want(
            "net.ipv4.conf.thalweg_host.rp_filter",
            |value| value == "0",
            "net.ipv4.conf.thalweg_host.rp_filter=0",
        );
    });
}

fn capabilities(facts: &Facts, outcome: &mut Outcome) {
    each_node(facts, |node| {
        let Some(mask) = outcome.need(&node.name, &node.capabilities) else {
            return;
        };
        let missing = CAPABILITIES.iter().filter(|(bit, _)| mask & (1 << bit) == 0);
        let missing: Vec<_> = missing.map(|(_, name)| *name).collect();
        if !missing.is_empty() {
            outcome.find(
                Severity::Error,
                &node.name,
                format!("the agent (or who asks) lacks {}", missing.join(" and ")),
                "run the agent as a privileged container, or add these to securityContext.capabilities.add",
            );
        }
    });
}

fn managers(facts: &Facts, outcome: &mut Outcome) {
    each_node(facts, |node| {
        let Some(managers) = outcome.need(&node.name, &node.managers) else {
            return;
        };
        if let Some(networkd) = &managers.networkd {
            if !networkd.leaves_ours {
                take_ours(
                    outcome,
                    node,
                    "systemd-networkd",
                    networkd,
                    "printf '[Match]\\nName=tw* thalweg*\\n[Link]\\nUnmanaged=yes\\n' > /etc/systemd/network/05-thalweg.network && networkctl reload",
                );
            } else if networkd.manages_foreign {
                outcome.find(
                    Severity::Warning,
                    &node.name,
                    "systemd-networkd removes routes and rules that it did not make (ManageForeignRoutes, ManageForeignRoutingPolicyRules)",
                    "printf '[Network]\\nManageForeignRoutes=no\\nManageForeignRoutingPolicyRules=no\\n' > /etc/systemd/networkd.conf.d/90-thalweg.conf && systemctl restart systemd-networkd",
                );
            }
        }
        if let Some(manager) = &managers.network_manager
            && !manager.leaves_ours
        {
            take_ours(
                outcome,
                node,
                "NetworkManager",
                manager,
                "printf '[keyfile]\\nunmanaged-devices=interface-name:tw*;interface-name:thalweg*\\n' > /etc/NetworkManager/conf.d/thalweg.conf && systemctl reload NetworkManager",
            );
        }
    });
}

fn take_ours(outcome: &mut Outcome, node: &NodeFacts, name: &str, manager: &Manager, mend: &str) {
    let files = if manager.files.is_empty() {
        "no file of its configuration excepts tw*".to_owned()
    } else {
        format!("{} matches them", manager.files.join(", "))
    };
    outcome.find(
        Severity::Warning,
        &node.name,
        format!("{name} runs and would manage pods' devices: {files}"),
        mend,
    );
}

fn clock(facts: &Facts, outcome: &mut Outcome) {
    let mut judge = |place: &str, apart_ms: u64, whose: &str| {
        if apart_ms >= SKEW_WARNING_MS {
            let severity = if apart_ms >= SKEW_ERROR_MS {
                Severity::Error
            } else {
                Severity::Warning
            };
            outcome.find(
                severity,
                place,
                format!("its clock is {:.1} s off {whose}", apart_ms as f64 / 1000.0),
                "run a time service there (chrony, systemd-timesyncd) and see `timedatectl`",
            );
        }
    };
    if let Ok(skew) = facts.cluster.skew.get() {
        let apart = outside(skew.server_ms, skew.sent_ms, skew.received_ms, DATE_STEP_MS);
        judge(
            "cluster",
            apart,
            "this machine's, by the API server's Date header",
        );
    }
    for node in &facts.nodes {
        if let Ok(clock) = node.clock_ms.get() {
            let apart = outside(*clock, facts.began_ms, facts.ended_ms, 0);
            judge(&node.name, apart, "the machine's that gathered the facts");
        }
    }
    outcome.need("cluster", &facts.cluster.skew);
    for node in &facts.nodes {
        outcome.need(&node.name, &node.clock_ms);
    }
}

/// How far a time is outside of a span, when it may be up to `step` older than it says.
fn outside(time: u64, from: u64, to: u64, step: u64) -> u64 {
    let early = from.saturating_sub(time.saturating_add(step));
    early.max(time.saturating_sub(to))
}
