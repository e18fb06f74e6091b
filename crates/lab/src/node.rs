// SPDX-License-Identifier: Apache-2.0
//! A node of a lab, as those see it who start processes in it: the supervisor of its agent, its kubelet, `lab exec`.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns, unshare};

use crate::cgroup;
use crate::error::{Doing as _, Error};

/// In the environment of every process of a lab: the lab's directory. Where there is no cgroup2, the processes are found
/// by it.
pub const LAB_VARIABLE: &str = "LAB_DIRECTORY";

/// Where the namespaces, the files and the cgroup of a node are, seen from the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeHandle {
    /// The lab's directory, `/run/thalweg-lab/NAME`.
    pub lab_dir: PathBuf,
    /// The node's name.
    pub name: String,
    /// Its addresses on the underlay, the primary family first.
    pub addresses: Vec<IpAddr>,
    /// The labels of its Node object.
    pub labels: BTreeMap<String, String>,
    /// Its network namespace.
    pub netns: PathBuf,
    /// Its mount namespace.
    pub mntns: PathBuf,
    /// Its UTS namespace.
    pub utsns: PathBuf,
    /// Its own cgroup, where there is cgroup2.
    pub cgroup: Option<PathBuf>,
    /// Its directory on the host, `LAB/nodes/NAME`.
    pub dir: PathBuf,
    /// What the node sees as `/run`.
    pub run_dir: PathBuf,
    /// What the node sees as [`CNI_CONF_DIR`], its CNI configuration.
    pub cni_conf_dir: PathBuf,
    /// Where CNI plugins are looked for (the same path on host and node).
    pub cni_bin_dirs: Vec<PathBuf>,
}

/// The CNI configuration directory as a node sees it. It is below `/run` because that is the node's own in any case,
/// while a mount over `/etc/cni/net.d` needs that directory on the host.
pub const CNI_CONF_DIR: &str = "/run/cni/net.d";

/// Where in a node a process runs.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// A network namespace other than the node's: a pod's.
    pub netns: Option<PathBuf>,
    /// A UTS namespace other than the node's: a pod's.
    pub utsns: Option<PathBuf>,
    /// Namespaces to make anew, after entering: `CLONE_NEWNET | CLONE_NEWUTS` for a pod's first process.
    pub unshare: Option<CloneFlags>,
    /// The cgroup below the node's own, such as `pods/UID`; made when it does not exist.
    pub cgroup: PathBuf,
    /// Whether to stay in the caller's working directory, which the node sees too, rather than go to `/`.
    pub keep_directory: bool,
}

impl NodeHandle {
    /// Prepares a command so that it will run in this node. The program is looked up there.
    ///
    /// # Errors
    /// When the node's namespaces are gone, that is, its holder was killed.
    pub fn prepare(&self, command: &mut std::process::Command, place: &Place) -> Result<(), Error> {
        let mut namespaces: Vec<(OwnedFd, CloneFlags)> = Vec::with_capacity(3);
        // The paths are of the host's /proc: all are opened before any is entered.
        for (path, kind) in [
            (&self.mntns, CloneFlags::CLONE_NEWNS),
            (
                place.netns.as_ref().unwrap_or(&self.netns),
                CloneFlags::CLONE_NEWNET,
            ),
            (
                place.utsns.as_ref().unwrap_or(&self.utsns),
                CloneFlags::CLONE_NEWUTS,
            ),
        ] {
            let file = File::open(path).doing(|| format!("open {} of node {}", path.display(), self.name))?;
            namespaces.push((file.into(), kind));
        }
        let cgroup = self.cgroup.as_ref().map(|own| own.join(&place.cgroup));
        adopt(command, &self.lab_dir, cgroup.as_deref())?;
        let directory = if place.keep_directory {
            std::env::current_dir().ok()
        } else {
            None
        };
        let fresh = place.unshare;
        // SAFETY: between fork and exec only system calls are made, no memory is allocated and no lock is taken.
        unsafe {
            command.pre_exec(move || {
                for (namespace, kind) in &namespaces {
                    setns(namespace.as_fd(), *kind)?;
                }
                if let Some(fresh) = fresh {
                    unshare(fresh)?;
                }
                match &directory {
                    // A directory that the node hides, such as one below /run, is no reason to fail.
                    Some(directory) => nix::unistd::chdir(directory).or_else(|_| nix::unistd::chdir("/"))?,
                    None => nix::unistd::chdir("/")?,
                }
                Ok(())
            });
        }
        Ok(())
    }

    /// Starts a command in this node.
    ///
    /// # Errors
    /// When the node is gone or the program cannot be run.
    pub fn spawn_in(
        &self,
        mut command: tokio::process::Command,
        place: &Place,
    ) -> Result<tokio::process::Child, Error> {
        self.prepare(command.as_std_mut(), place)?;
        let program = command.as_std().get_program().to_owned();
        command
            .spawn()
            .doing(|| format!("run {} on node {}", program.display(), self.name))
    }

    /// The path on the host of a file that the node sees at `path` below `/run`.
    #[must_use]
    pub fn host_path(&self, path: &Path) -> PathBuf {
        match path.strip_prefix("/run") {
            Ok(below) => self.run_dir.join(below),
            Err(_) => path.to_owned(),
        }
    }
}

/// Prepares a command so that it will belong to the lab: marked in its environment, and in a cgroup of the lab.
///
/// # Errors
/// When the cgroup cannot be made.
pub(crate) fn adopt(
    command: &mut std::process::Command,
    lab_dir: &Path,
    cgroup: Option<&Path>,
) -> Result<(), Error> {
    command.env(LAB_VARIABLE, lab_dir);
    let Some(path) = cgroup else { return Ok(()) };
    cgroup::create(path)?;
    let procs = path.join("cgroup.procs");
    let procs: File = OpenOptions::new()
        .write(true)
        .open(&procs)
        .doing(|| format!("open {}", procs.display()))?;
    // SAFETY: between fork and exec only a system call is made; the descriptor was opened before.
    unsafe {
        command.pre_exec(move || (&procs).write_all(b"0"));
    }
    Ok(())
}
