// SPDX-License-Identifier: Apache-2.0
//! A canary: the real programs, loaded by the real loader on the kernel that runs here, in a network and mount namespace of its
//! own with a BPF file system of its own. Nothing is attached, and nothing is left: the pins are in a mount that ends with the process.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use datapath::common::NodeConfig;
use datapath::{Datapath, Limits, Options};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

/// Rows of the canary's tables: the verifier does not care how large they are, the node's memory does.
const ROWS: u32 = 1024;

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canary {
    /// The version of the program, and so of the eBPF programs in it.
    pub version: String,
    /// The kernel's release.
    pub kernel: String,
    /// The programs that the kernel took.
    pub programs: Vec<String>,
    /// How they would be attached: `tcx` or `clsact`.
    pub attach: String,
    /// How long loading took, in milliseconds.
    pub milliseconds: u64,
    /// Why it did not load, with the end of the verifier's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What kept the canary from being tried at all.
#[derive(Debug, thiserror::Error)]
pub enum CanaryError {
    /// A namespace or a mount.
    #[error("cannot {operation}: {source}; a canary needs root (CAP_SYS_ADMIN)")]
    System {
        /// What was tried.
        operation: String,
        /// Why it failed.
        source: nix::Error,
    },
    /// A file.
    #[error("cannot {operation}: {source}")]
    File {
        /// What was tried.
        operation: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// Loads the programs. Moves the calling process into namespaces of its own, for good: it should end soon after, and have no
/// other thread.
///
/// # Errors
/// When it cannot be tried. That the kernel refuses the programs is a result, not an error.
pub fn run(version: &str) -> Result<Canary, CanaryError> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").map_err(|source| CanaryError::File {
        operation: "read /proc/sys/kernel/osrelease".into(),
        source,
    })?;
    let place = Place::make()?;
    let mut options = Options::new(&place.bpffs, NodeConfig::new(NodeConfig::IPV4 | NodeConfig::IPV6));
    options.limits = Limits {
        conntrack_max: ROWS,
        endpoints_max: ROWS,
        ..options.limits
    };
    let begin = Instant::now();
    let loaded = Datapath::load(&options);
    let milliseconds = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut canary = Canary {
        version: version.to_owned(),
        kernel: kernel.trim().to_owned(),
        programs: Vec::new(),
        attach: String::new(),
        milliseconds,
        error: None,
    };
    match loaded {
        Ok(datapath) => {
            canary.programs = datapath
                .programs()
                .into_iter()
                .map(|program| program.name)
                .collect();
            canary.attach = if datapath.features().tcx { "tcx" } else { "clsact" }.to_owned();
        }
        Err(error) => canary.error = Some(error.to_string()),
    }
    Ok(canary)
}

/// The canary's BPF file system.
struct Place {
    bpffs: PathBuf,
}

impl Place {
    fn make() -> Result<Self, CanaryError> {
        let system = |operation: String| move |source| CanaryError::System { operation, source };
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
            .map_err(system("make namespaces for a canary".into()))?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
            .map_err(system("keep mounts to the canary".into()))?;
        let bpffs = Path::new("/run").join(format!("thalweg-canary-{}", std::process::id()));
        fs::create_dir_all(&bpffs).map_err(|source| CanaryError::File {
            operation: format!("create {}", bpffs.display()),
            source,
        })?;
        let place = Self { bpffs };
        mount(Some("bpf"), &place.bpffs, Some("bpf"), MsFlags::empty(), none).map_err(system(format!(
            "mount a BPF file system at {}",
            place.bpffs.display()
        )))?;
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The mount goes with the namespace in any case; the empty directory should not stay.
        let _ = umount2(&self.bpffs, MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(&self.bpffs);
    }
}
