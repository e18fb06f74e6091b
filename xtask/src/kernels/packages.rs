// SPDX-License-Identifier: Apache-2.0
//! The matrix, and where its kernels come from.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::apt::{Archive, Suite};

const METAPACKAGE: &str = "linux-image-cloud-amd64";
/// Packages that make up a kernel: image and modules are apart since 6.13 or so.
const PARTS: [&str; 3] = ["linux-image-", "linux-binary-", "linux-modules-"];
/// Written last, so that a download that was broken off is not taken for a kernel.
const COMPLETE: &str = "complete";

/// One row of the matrix.
#[derive(Debug)]
pub(super) struct Kernel {
    /// What people call it.
    pub(super) series: &'static str,
    /// The release of Debian that it serves.
    pub(super) debian: &'static str,
    suite: &'static str,
    archive: Archive,
}

/// The floor, the long-term series in wide use, and the newest.
pub(super) const KERNELS: [Kernel; 4] = [
    Kernel {
        series: "5.10",
        debian: "11 bullseye",
        suite: "bullseye-security",
        archive: Archive::Security,
    },
    Kernel {
        series: "6.1",
        debian: "12 bookworm",
        suite: "bookworm-security",
        archive: Archive::Security,
    },
    Kernel {
        series: "6.12",
        debian: "13 trixie",
        suite: "trixie-security",
        archive: Archive::Security,
    },
    Kernel {
        series: "7.2",
        debian: "sid",
        suite: "sid",
        archive: Archive::Main,
    },
];

/// A kernel on disk.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) vmlinuz: PathBuf,
    /// The directory with the modules of this release, at any depth.
    pub(super) modules: PathBuf,
}

/// The kernel's files, from `dir` if they are there, else from Debian's archive.
pub(super) fn fetch(kernel: &Kernel, dir: &Path, refresh: bool) -> Result<Files> {
    let home = dir.join(kernel.series);
    let root = home.join("root");
    if refresh || !home.join(COMPLETE).exists() {
        let _ = fs::remove_dir_all(&home);
        fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
        let suite = Suite::open(kernel.suite, kernel.archive, &dir.join("apt"))?;
        let packages =
            parts(&suite).with_context(|| format!("no kernel {} in {}", kernel.series, kernel.suite))?;
        suite.unpack(&packages, &root)?;
        fs::write(home.join(COMPLETE), packages.join("\n"))?;
    }
    let vmlinuz = find(&root, &|name| name == "vmlinuz" || name.starts_with("vmlinuz-"));
    let modules = ["lib/modules", "usr/lib/modules"]
        .map(|dir| root.join(dir))
        .into_iter()
        .find(|dir| dir.exists());
    Ok(Files {
        vmlinuz: vmlinuz.with_context(|| format!("no vmlinuz in {}", root.display()))?,
        modules: modules.with_context(|| format!("no modules in {}", root.display()))?,
    })
}

/// Follows the dependencies of the metapackage to the packages that hold files.
fn parts(suite: &Suite) -> Result<Vec<String>> {
    let mut parts = Vec::new();
    let mut open = vec![METAPACKAGE.to_owned()];
    while let Some(package) = open.pop() {
        for name in suite.depends(&package)? {
            if PARTS.iter().any(|part| name.starts_with(part)) && !parts.contains(&name) {
                parts.push(name.clone());
                open.push(name);
            }
        }
    }
    Ok(parts)
}

/// A file below `dir` whose name fits.
pub(super) fn find(dir: &Path, fits: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    for entry in fs::read_dir(dir).ok()?.flatten() {
        let path = entry.path();
        // Links lead out of the unpacked packages.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if let Some(found) = find(&path, fits) {
                return Some(found);
            }
        } else if entry.file_name().to_str().is_some_and(fits) {
            return Some(path);
        }
    }
    None
}
