// SPDX-License-Identifier: Apache-2.0
//! Holders: processes that do nothing but keep namespaces alive. A namespace so held survives the daemon, and whoever
//! kills the last process of a lab has removed its namespaces and mounts as well.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use netlink::{Netlink, sysctl};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::error::{Doing as _, Error};

/// Index of the loopback device in every network namespace.
const LOOPBACK: u32 = 1;
/// What a holder says when its namespaces are ready.
pub const READY: &str = "ready\n";

/// What to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// A network namespace of its own: the underlay.
    Network,
    /// A node: network, mount and UTS namespaces.
    Node {
        /// The node's name.
        hostname: String,
        /// The host's directory that becomes the node's `/run`.
        run_dir: PathBuf,
    },
    /// A pod, in namespaces that were made when this process was started ([`crate::node::Place::unshare`]).
    Pod {
        /// The pod's host name.
        hostname: String,
    },
}

impl std::fmt::Display for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Network => f.write_str("the underlay"),
            Self::Node { hostname, .. } => write!(f, "node {hostname}"),
            Self::Pod { hostname } => write!(f, "pod {hostname}"),
        }
    }
}

impl Hold {
    /// The command that [`Hold::run`]s this.
    #[must_use]
    pub fn command(&self) -> Command {
        // By this path it is the program that runs now, even if a newer one has taken its place on disk.
        let mut command = Command::new("/proc/self/exe");
        command.args(["lab", "hold"]);
        match self {
            Self::Network => command.arg("network"),
            Self::Node { hostname, run_dir } => command
                .args(["node", "--hostname", hostname, "--run-dir"])
                .arg(run_dir),
            Self::Pod { hostname } => command.args(["pod", "--hostname", hostname]),
        };
        command
    }

    /// Makes the namespaces, says [`READY`] on standard output and sleeps until killed. To be called before the program
    /// has any thread.
    ///
    /// # Errors
    /// When a namespace or a mount cannot be made.
    pub fn run(&self) -> Result<std::convert::Infallible, Error> {
        match self {
            Self::Network => {
                unshare(CloneFlags::CLONE_NEWNET).doing(|| "create a network namespace".to_owned())?;
                no_duplicate_address_detection();
            }
            Self::Node { hostname, run_dir } => {
                let all = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS;
                unshare(all).doing(|| format!("create the namespaces of node {hostname}"))?;
                mount_node(run_dir)?;
                set_hostname(hostname)?;
                no_duplicate_address_detection();
            }
            Self::Pod { hostname } => set_hostname(hostname)?,
        }
        Netlink::open()?.set_up(LOOPBACK)?;
        std::io::stdout()
            .write_all(READY.as_bytes())
            .doing(|| "report that the namespaces are ready".to_owned())?;
        close_standard_output()?;
        loop {
            nix::unistd::pause();
        }
    }
}

fn set_hostname(name: &str) -> Result<(), Error> {
    nix::unistd::sethostname(name).doing(|| format!("set the host name {name}"))
}

/// On links that we make ourselves nobody has our addresses, and waiting for that answer takes a second per address.
fn no_duplicate_address_detection() {
    for which in ["all", "default"] {
        // Without IPv6 in the kernel there is nothing to wait for.
        let _ = sysctl::write(&format!("net/ipv6/conf/{which}/accept_dad"), "0");
    }
}

/// The reader of the pipe sees its end, and nothing later blocks on it.
fn close_standard_output() -> Result<(), Error> {
    let null = fs::File::options()
        .write(true)
        .open("/dev/null")
        .doing(|| "open /dev/null".to_owned())?;
    nix::unistd::dup2_stdout(&null).doing(|| "close standard output".to_owned())
}

/// The node's own view of the file system: private propagation, then its own `/run`, `/sys` (of its network namespace),
/// bpffs, and the host's cgroups again below the new `/sys`.
fn mount_node(run_dir: &Path) -> Result<(), Error> {
    make_private()?;
    let kept_cgroups = run_dir.join(".cgroup");
    bind(Path::new("/sys/fs/cgroup"), &kept_cgroups)?;
    mount_new("sysfs", "/sys")?;
    mount_new("bpf", "/sys/fs/bpf")?;
    mount(
        Some(&kept_cgroups),
        "/sys/fs/cgroup",
        NONE,
        MsFlags::MS_MOVE,
        NONE,
    )
    .doing(|| "mount the cgroups in the node".to_owned())?;
    fs::remove_dir(&kept_cgroups).doing(|| format!("remove {}", kept_cgroups.display()))?;
    let conf_dir = run_dir.join("cni/net.d");
    fs::create_dir_all(&conf_dir).doing(|| format!("create {}", conf_dir.display()))?;
    // Where the host has CNI configurations the node must not see them.
    if Path::new("/etc/cni/net.d").is_dir() {
        bind(&conf_dir, Path::new("/etc/cni/net.d"))?;
    }
    bind(run_dir, Path::new("/run"))
}

const NONE: Option<&str> = None;

fn make_private() -> Result<(), Error> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .doing(|| "make the node's mounts private".to_owned())
}

fn mount_new(kind: &str, target: &str) -> Result<(), Error> {
    mount(Some(kind), target, Some(kind), MsFlags::empty(), NONE)
        .doing(|| format!("mount {kind} at {target}"))
}

fn bind(source: &Path, target: &Path) -> Result<(), Error> {
    let operation = || format!("bind {} to {}", source.display(), target.display());
    fs::create_dir_all(target).doing(operation)?;
    mount(
        Some(source),
        target,
        NONE,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        NONE,
    )
    .doing(operation)
}
