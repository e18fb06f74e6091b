// SPDX-License-Identifier: Apache-2.0
//! Kernel, file systems, modules, settings, processes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::Places;
use crate::facts::{Gathered, Kernel, Module, Mounts, NfConntrack, Os};
use crate::owner::Owner;

/// Modules that a way of attaching needs.
const MODULES: [&str; 3] = ["veth", "sch_ingress", "cls_bpf"];
/// Kernel settings that matter.
const SYSCTLS: [&str; 12] = [
    "net.ipv4.ip_forward",
    "net.ipv6.conf.all.forwarding",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.conf.default.rp_filter",
    "net.ipv4.conf.thalweg_host.rp_filter",
    "net.core.bpf_jit_enable",
    "kernel.unprivileged_bpf_disabled",
    "net.ipv4.neigh.default.gc_thresh3",
    "net.ipv6.neigh.default.gc_thresh3",
    "fs.inotify.max_user_instances",
    "fs.inotify.max_user_watches",
    "net.ipv4.conf.all.forwarding",
];
/// Processes that are looked for beside those of other networks.
pub(super) const NETWORKD: &str = "systemd-network";
/// The kernel keeps 15 bytes of a process's name.
pub(super) const NETWORK_MANAGER: &str = "NetworkManager";

pub(super) fn kernel(places: &Places) -> Gathered<Kernel> {
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned());
    let release = match read("/proc/sys/kernel/osrelease") {
        Ok(release) => release,
        Err(error) => return Gathered::unknown(format!("/proc/sys/kernel/osrelease: {error}")),
    };
    Gathered::Known(Kernel {
        release,
        machine: nix::sys::utsname::uname()
            .map(|name| name.machine().to_string_lossy().into_owned())
            .unwrap_or_default(),
        btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
        installed: installed(places),
    })
}

/// Releases in `/boot` and `/lib/modules`.
fn installed(places: &Places) -> Vec<String> {
    let names = |dir: &str| {
        let entries = fs::read_dir(places.on_node(dir)).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok())
    };
    let boot = names("/boot").filter_map(|name| {
        let release = name
            .strip_prefix("vmlinuz-")
            .or_else(|| name.strip_prefix("vmlinux-"))?;
        Some(release.to_owned())
    });
    let modules = names("/lib/modules").filter(|name| name.starts_with(|c: char| c.is_ascii_digit()));
    boot.chain(modules).collect::<BTreeSet<_>>().into_iter().collect()
}

pub(super) fn os(places: &Places) -> Gathered<Os> {
    let candidates = ["/etc/os-release", "/usr/lib/os-release"].map(|path| places.on_node(path));
    let Some(text) = candidates.iter().find_map(|path| fs::read_to_string(path).ok()) else {
        return Gathered::unknown("neither /etc/os-release nor /usr/lib/os-release can be read");
    };
    let value = |key: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
    };
    Gathered::Known(Os {
        id: value("ID"),
        version: value("VERSION_ID"),
        name: value("PRETTY_NAME"),
    })
}

pub(super) fn mounts(places: &Places) -> Gathered<Mounts> {
    let table = match fs::read_to_string("/proc/self/mounts") {
        Ok(table) => table,
        Err(error) => return Gathered::unknown(format!("/proc/self/mounts: {error}")),
    };
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split(' ').collect()).collect();
    let cgroup2 = rows.iter().find(|row| row.get(2) == Some(&"cgroup2"));
    // A mount over another hides it: the last one counts.
    let sysctl = rows.iter().rev().find(|row| row.get(1) == Some(&"/proc/sys"));
    let options = sysctl.and_then(|row| row.get(3)).copied().unwrap_or_default();
    Gathered::Known(Mounts {
        bpffs: statfs(&places.bpffs).is_ok_and(|info| info.filesystem_type() == BPF_FS_MAGIC),
        bpffs_path: places.bpffs.display().to_string(),
        cgroup2: cgroup2.and_then(|row| row.get(1)).map(|path| (*path).to_owned()),
        sysctl_read_only: options.split(',').any(|option| option == "ro"),
    })
}

pub(super) fn modules(places: &Places) -> Gathered<BTreeMap<String, Module>> {
    let release = match fs::read_to_string("/proc/sys/kernel/osrelease") {
        Ok(release) => release.trim().to_owned(),
        Err(error) => return Gathered::unknown(format!("/proc/sys/kernel/osrelease: {error}")),
    };
    let loaded = fs::read_to_string("/proc/modules").unwrap_or_default();
    let dir = places.on_node(format!("/lib/modules/{release}"));
    let list = |file: &str| fs::read_to_string(dir.join(file));
    let (builtin, files) = (list("modules.builtin"), list("modules.dep"));
    let named = |text: &str, module: &str| {
        let file = format!("/{module}.ko");
        text.lines().any(|line| {
            let path = line.split(':').next().unwrap_or_default();
            path.split_once(&file)
                .is_some_and(|(_, rest)| rest.is_empty() || rest.starts_with('.'))
        })
    };
    let state = |module: &str| {
        let present = loaded.lines().any(|line| line.split(' ').next() == Some(module));
        let inside = builtin.as_ref().is_ok_and(|text| named(text, module));
        if present || inside || Path::new("/sys/module").join(module).exists() {
            Some(Module::Present)
        } else if files.as_ref().is_ok_and(|text| named(text, module)) {
            Some(Module::Loadable)
        } else {
            // Without the kernel's own list a module may still be part of it.
            (builtin.is_ok() && files.is_ok()).then_some(Module::Absent)
        }
    };
    let known = MODULES
        .iter()
        .filter_map(|module| Some(((*module).to_owned(), state(module)?)));
    Gathered::Known(known.collect())
}

pub(super) fn sysctls() -> BTreeMap<String, String> {
    let value = |name: &&str| {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        let value = fs::read_to_string(path).ok()?;
        Some((
            (*name).to_owned(),
            value.split_whitespace().collect::<Vec<_>>().join(" "),
        ))
    };
    SYSCTLS.iter().filter_map(value).collect()
}

/// Of the agent's process where it can be seen, else of this one.
pub(super) fn capabilities(agent: Option<u32>) -> Gathered<u64> {
    let of = |path: String| {
        let status = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let mask = mask.ok_or_else(|| format!("{path} has no line CapEff"))?;
        u64::from_str_radix(mask.trim(), 16).map_err(|error| format!("{path}: CapEff: {error}"))
    };
    let agents = agent.and_then(|pid| of(format!("/proc/{pid}/status")).ok());
    match agents {
        Some(mask) => Gathered::Known(mask),
        None => of("/proc/self/status".to_owned()).into(),
    }
}

/// Names of processes of networks and network managers in this network namespace.
pub(super) fn processes(places: &Places) -> Gathered<Vec<String>> {
    let proc = places.on_node("/proc");
    let own = match fs::metadata("/proc/self/ns/net") {
        Ok(metadata) => metadata.ino(),
        Err(error) => return Gathered::unknown(format!("/proc/self/ns/net: {error}")),
    };
    let entries = match fs::read_dir(&proc) {
        Ok(entries) => entries,
        Err(error) => return Gathered::unknown(format!("{}: {error}", proc.display())),
    };
    let interesting = |name: &str| {
        let networks = Owner::ALL.iter().flat_map(|owner| owner.processes());
        networks
            .chain(&[NETWORKD, NETWORK_MANAGER])
            .any(|known| *known == name)
    };
    let mut names = BTreeSet::new();
    let mut seen = 0_usize;
    for entry in entries.flatten() {
        if !entry
            .file_name()
            .to_string_lossy()
            .starts_with(|c: char| c.is_ascii_digit())
        {
            continue;
        }
        seen += 1;
        let Ok(name) = fs::read_to_string(entry.path().join("comm")) else {
            continue;
        };
        let name = name.trim();
        if interesting(name) && fs::metadata(entry.path().join("ns/net")).is_ok_and(|file| file.ino() == own)
        {
            names.insert(name.to_owned());
        }
    }
    if seen == 0 {
        return Gathered::unknown(format!(
            "{} shows no processes; the agent's pod needs hostPID for that",
            proc.display()
        ));
    }
    Gathered::Known(names.into_iter().collect())
}

pub(super) fn nf_conntrack() -> Option<NfConntrack> {
    let read = |name: &str| {
        let text = fs::read_to_string(format!("/proc/sys/net/netfilter/{name}")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    Some(NfConntrack {
        count: read("nf_conntrack_count")?,
        max: read("nf_conntrack_max")?,
    })
}
