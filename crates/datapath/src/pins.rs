// SPDX-License-Identifier: Apache-2.0
//! The directory of pins: `<bpffs>/thalweg/` with one file per map, `links/` with one per device, and `cgroup/` with one per hook
//! of sockets.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use datapath_common::maps::{Kind, Spec};
use tracing::warn;

use crate::{LoadError, sys};

const DIRECTORY: &str = "thalweg";
const LINKS: &str = "links";
const CGROUP: &str = "cgroup";

/// The paths.
#[derive(Clone, Debug)]
pub(crate) struct Pins {
    root: PathBuf,
}

/// An old map that makes way for one of another size, whose rows are to move.
pub(crate) struct Displaced {
    pub(crate) spec: Spec,
    pub(crate) map: OwnedFd,
    pub(crate) max_entries: u32,
}

impl Pins {
    /// The paths under a BPF file system, which need not exist.
    pub(crate) fn new(bpffs: &Path) -> Self {
        Self {
            root: bpffs.join(DIRECTORY),
        }
    }

    /// Makes the directories, on what must be a BPF file system.
    pub(crate) fn create(bpffs: &Path) -> Result<Self, LoadError> {
        let not_bpffs = |reason| LoadError::NotBpffs {
            path: bpffs.to_owned(),
            reason,
        };
        match sys::is_bpffs(bpffs) {
            Ok(true) => {}
            Ok(false) => return Err(not_bpffs(None)),
            Err(error) => return Err(not_bpffs(Some(error))),
        }
        let pins = Self::new(bpffs);
        let links = pins.links();
        fs::create_dir_all(&links).map_err(|source| {
            if source.kind() == io::ErrorKind::PermissionDenied {
                LoadError::Privilege {
                    operation: format!("create {}", links.display()),
                }
            } else {
                LoadError::Io {
                    operation: "create",
                    path: links,
                    source,
                }
            }
        })?;
        Ok(pins)
    }

    /// Locks the directory against other processes.
    pub(crate) fn lock(&self) -> Result<File, LoadError> {
        let failed = |source| LoadError::Io {
            operation: "lock",
            path: self.root.clone(),
            source,
        };
        let directory = File::open(&self.root).map_err(failed)?;
        match directory.try_lock() {
            Ok(()) => Ok(directory),
            Err(TryLockError::WouldBlock) => Err(LoadError::InUse(self.root.clone())),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn links(&self) -> PathBuf {
        self.root.join(LINKS)
    }

    /// Where the links of sockets are pinned.
    pub(crate) fn cgroup(&self) -> PathBuf {
        self.root.join(CGROUP)
    }

    /// The pin of a device's link. Names on a BPF file system may not hold dots, those of devices may.
    pub(crate) fn link(&self, ifname: &str) -> PathBuf {
        self.links().join(ifname.replace('%', "%25").replace('.', "%2e"))
    }

    /// The pin of the second link of a device that has two, one in and one out. No device's own name has a bare `%` there.
    pub(crate) fn second_link(&self, ifname: &str) -> PathBuf {
        let mut path = self.link(ifname).into_os_string();
        path.push("%out");
        path.into()
    }

    /// Removes the pin of a map that the loader could not use, whatever it is; a map of another size is handed over.
    ///
    /// Replacing is safe: programs that are attached keep the old map until they are replaced themselves.
    pub(crate) fn make_way(&self, spec: &Spec) -> Result<Option<Displaced>, LoadError> {
        let path = self.map(spec.name);
        let (found, displaced) = match examine(&path, spec) {
            Examined::Absent | Examined::Fits => return Ok(None),
            Examined::OtherSize(map, max_entries) => (
                format!("has {max_entries} rows, not {}", spec.max_entries),
                Some((map, max_entries)),
            ),
            Examined::Unusable(found) => (found, None),
        };
        warn!(path = %path.display(), "pinned map {found}; replacing it");
        let removed = if path.is_dir() {
            fs::remove_dir(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.map_err(|source| LoadError::CorruptPin { path, found, source })?;
        Ok(displaced.map(|(map, max_entries)| Displaced {
            spec: *spec,
            map,
            max_entries,
        }))
    }
}

/// What is where a map should be.
pub(crate) enum Examined {
    Absent,
    Fits,
    OtherSize(OwnedFd, u32),
    Unusable(String),
}

pub(crate) fn examine(path: &Path, spec: &Spec) -> Examined {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Examined::Absent,
        Ok(metadata) if metadata.is_dir() => return Examined::Unusable("is a directory".to_owned()),
        _ => {}
    }
    let map = match sys::open_pin(path) {
        Ok(map) => map,
        Err(error) => return Examined::Unusable(format!("cannot be opened ({error})")),
    };
    // The kernel says only here what a descriptor of `BPF_OBJ_GET` is.
    let object = fs::read_link(format!("/proc/self/fd/{}", map.as_raw_fd())).unwrap_or_default();
    if !object.to_string_lossy().contains("bpf-map") {
        return Examined::Unusable(format!("is {}, not a map", object.display()));
    }
    let info = match sys::info::<sys::MapInfo>(map.as_fd()) {
        Ok(info) => info,
        Err(error) => return Examined::Unusable(format!("cannot be examined ({error})")),
    };
    let shape = (info.kind, info.key_size, info.value_size);
    let expected = (kernel_kind(spec.kind), spec.key_size, spec.value_size);
    if shape != expected {
        return Examined::Unusable(format!("has (type, key, value) {shape:?}, not {expected:?}"));
    }
    if info.max_entries == spec.max_entries {
        Examined::Fits
    } else {
        Examined::OtherSize(map, info.max_entries)
    }
}

/// The number in the kernel's `enum bpf_map_type`.
const fn kernel_kind(kind: Kind) -> u32 {
    match kind {
        Kind::Hash => 1,
        Kind::LruHash => 9,
        Kind::Array => 2,
        Kind::PerCpuArray => 6,
        Kind::LpmTrie => 11,
        Kind::RingBuf => 27,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_links_hold_no_dots_and_do_not_collide() {
        let pins = Pins::new(Path::new("/sys/fs/bpf"));
        assert_eq!(
            pins.link("eth0.100"),
            Path::new("/sys/fs/bpf/thalweg/links/eth0%2e100")
        );
        assert_ne!(pins.link("a%2eb"), pins.link("a.b"));
        assert_ne!(pins.link("a%out"), pins.second_link("a"));
    }
}
