// SPDX-License-Identifier: Apache-2.0
//! What can go wrong, with the thing, the reason and the remedy.

use std::io;
use std::path::PathBuf;

/// The datapath cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Another agent has its programs there.
    #[error(
        "another agent runs on this node: it has its programs and maps in {}; stop it first, or give this one another bpffs and \
         network namespace", .0.display()
    )]
    InUse(PathBuf),
    /// The directory for pins is not on a BPF file system.
    #[error("{} is not a BPF file system{}; mount one: mount -t bpf bpf {}", path.display(), because(reason), path.display())]
    NotBpffs {
        /// The directory of the setting `bpffs`.
        path: PathBuf,
        /// Why it could not be looked at, if that was it.
        reason: Option<io::Error>,
    },
    /// The process may not use BPF.
    #[error("not permitted to {operation}; run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON")]
    Privilege {
        /// What was tried.
        operation: String,
    },
    /// The kernel is older than what the programs need.
    #[error("kernel {release} is too old: the datapath needs {needed} or newer; upgrade the node's kernel")]
    KernelTooOld {
        /// What `uname` says.
        release: String,
        /// The oldest that will do.
        needed: &'static str,
    },
    /// The kernel has no memory for a map, or the limit on locked memory forbids it.
    #[error(
        "no memory for map {map}: {source}; make it smaller (conntrack.maxEntries), or on kernels before 5.11 raise the \
         limit on locked memory (LimitMEMLOCK=infinity)"
    )]
    MapMemory {
        /// The map.
        map: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A pinned object is not what it should be and could not be replaced.
    #[error("{} {found} and cannot be replaced: {source}; remove it: rm -r {}", path.display(), path.display())]
    CorruptPin {
        /// The pin.
        path: PathBuf,
        /// What it is instead.
        found: String,
        /// Why it stays.
        source: io::Error,
    },
    /// The kernel's verifier refused a program.
    #[error(
        "the kernel ({release}) refuses program {program}: {reason}\n{log}\nthis is a bug of Thalweg; please report it with the \
         output of `uname -a`"
    )]
    Verifier {
        /// The program.
        program: String,
        /// What `uname` says.
        release: String,
        /// What the kernel said.
        reason: io::Error,
        /// The end of the verifier's log.
        log: String,
    },
    /// A file operation failed.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A map could not be read or written.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The object inside this binary is unusable.
    #[error("cannot load object {object}: {source}")]
    Object {
        /// `pod`, `host`, `tunnel` or `socket`.
        object: &'static str,
        /// What aya said.
        source: Box<aya::EbpfError>,
    },
    /// The kernel's tick rate could not be told.
    #[error("cannot tell the kernel's tick rate: {0}")]
    Clock(String),
}

fn because(reason: &Option<io::Error>) -> String {
    reason
        .as_ref()
        .map(|reason| format!(" ({reason})"))
        .unwrap_or_default()
}

/// A program cannot be attached to a device, or detached from it.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The device is not there.
    #[error("device {ifname} does not exist (any more): {source}")]
    NoDevice {
        /// Its name.
        ifname: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The device of this name is another one than the caller knows.
    #[error(
        "device {ifname} has index {found}, not {expected}: it was replaced meanwhile; list the devices again"
    )]
    Replaced {
        /// Its name.
        ifname: String,
        /// The caller's index.
        expected: u32,
        /// The device's.
        found: u32,
    },
    /// The cgroup is not there.
    #[error(
        "cannot open the cgroup {}: {source}; mount cgroup2 there, or say in cgroup.hostRoot where it is",
        path.display()
    )]
    Cgroup {
        /// Where it should be.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused.
    #[error("cannot {operation} {program} on {ifname}: {source}")]
    Kernel {
        /// What was tried.
        operation: &'static str,
        /// The program.
        program: &'static str,
        /// The device, or the cgroup.
        ifname: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A pin could not be made or removed.
    #[error("cannot {operation} {}: {source}", path.display())]
    Pin {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// A map cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} of map {map}: {source}{}", remedy(source))]
pub struct MapError {
    /// What was tried.
    pub operation: &'static str,
    /// The map.
    pub map: &'static str,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

fn remedy(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::E2BIG) => "; the map is full",
        _ => "",
    }
}
