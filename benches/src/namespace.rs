// SPDX-License-Identifier: Apache-2.0
//! Network namespaces that nothing but this process holds: they are gone when it is, however it ends.

use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, ensure};
use netlink::{netns, sysctl};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;

/// A network namespace.
#[derive(Debug)]
pub(crate) struct Namespace {
    fd: OwnedFd,
    /// A mount namespace whose `/run` is its own, where programs keep files.
    mounts: Option<OwnedFd>,
}

impl Namespace {
    /// A new one, with nothing but a loopback device that is up.
    pub(crate) fn new() -> Result<Self> {
        let namespace = Self {
            fd: netns::create()?,
            mounts: None,
        };
        namespace.ip(&["link set lo up"])?;
        Ok(namespace)
    }

    /// A new one that forwards packets as a node does, with a `/run` of its own.
    pub(crate) fn node() -> Result<Self> {
        let mut namespace = Self::new()?;
        namespace.mounts = Some(private_run()?);
        netns::run_in(namespace.fd.as_fd(), || {
            ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"]
                .iter()
                .try_for_each(|setting| sysctl::write(setting, "1"))
        })??;
        Ok(namespace)
    }

    /// One that somebody else made.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Ok(Self {
            fd: netns::open(path)?,
            mounts: None,
        })
    }

    /// The kernel's number for it.
    pub(crate) fn id(&self) -> Result<u64> {
        use std::os::unix::fs::MetadataExt as _;
        Ok(File::from(self.fd.try_clone()?).metadata()?.ino())
    }

    /// A path to it that other processes can use while this one lives.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd())
    }

    /// A command that will run inside it, and will not outlive the thread that starts it: the kernel takes that
    /// thread's end for the end of the parent.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let net = self.fd.as_raw_fd();
        let mounts = self.mounts.as_ref().map(AsRawFd::as_raw_fd);
        // SAFETY: between fork and exec only system calls are made, and none allocates. The descriptors are open in
        // the child because they are in the parent, where `self` owns them, and are closed by exec only.
        unsafe {
            command.pre_exec(move || {
                setns(BorrowedFd::borrow_raw(net), CloneFlags::CLONE_NEWNET)?;
                if let Some(mounts) = mounts {
                    setns(BorrowedFd::borrow_raw(mounts), CloneFlags::CLONE_NEWNS)?;
                }
                Ok(prctl::set_pdeathsig(Signal::SIGKILL)?)
            });
        }
        command
    }

    /// The same, in a cgroup of its own below `cgroup` if there is one: a process in that of a pod would hold the pod up.
    pub(crate) fn command_in(
        &self,
        program: impl AsRef<std::ffi::OsStr>,
        cgroup: Option<&Path>,
    ) -> Result<Command> {
        let mut command = self.command(program);
        let Some(cgroup) = cgroup else { return Ok(command) };
        let own = cgroup.join("bench");
        std::fs::create_dir_all(&own).with_context(|| format!("create {}", own.display()))?;
        let processes = File::options().write(true).open(own.join("cgroup.procs"))?;
        // SAFETY: between fork and exec one system call is made, which does not allocate; the descriptor is open in the child.
        unsafe {
            command.pre_exec(move || (&processes).write_all(b"0"));
        }
        Ok(command)
    }

    /// Runs a ruleset of `iptables-restore`, in the kernel's own form of it.
    pub(crate) fn iptables(&self, rules: &str) -> Result<()> {
        self.feed("iptables-legacy-restore", &[], "iptables", rules)
    }

    /// Runs commands of `ip`, one per line.
    pub(crate) fn ip<S: AsRef<str>>(&self, lines: &[S]) -> Result<()> {
        let mut batch = lines.iter().map(AsRef::as_ref).collect::<Vec<_>>().join("\n");
        batch.push('\n');
        self.feed("ip", &["-batch", "-"], "iproute2", &batch)
    }

    /// Adds a ruleset of `nft`.
    pub(crate) fn nft(&self, ruleset: &str) -> Result<()> {
        self.feed("nft", &["-f", "-"], "nftables", ruleset)
    }

    /// Runs a program of a package that reads commands from its standard input.
    fn feed(&self, program: &str, arguments: &[&str], package: &str, commands: &str) -> Result<()> {
        let mut command = self.command(program);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("run {program} (package {package})"))?;
        child
            .stdin
            .take()
            .with_context(|| format!("{program} has a standard input"))?
            .write_all(commands.as_bytes())?;
        let output = child.wait_with_output()?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{program}: {}; the commands were:\n{commands}",
            complaint.trim()
        );
        Ok(())
    }
}

/// A mount namespace in which `/run` is empty and private.
fn private_run() -> Result<OwnedFd> {
    let make = || {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        mount(Some("bench"), "/run", Some("tmpfs"), MsFlags::empty(), none)?;
        anyhow::Ok(OwnedFd::from(File::open("/proc/thread-self/ns/mnt")?))
    };
    // On a thread of its own: a thread with another root cannot be used for anything else.
    let made = thread::scope(|scope| scope.spawn(make).join());
    made.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        .context("make a mount namespace")
}

/// One end of a link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End<'a> {
    /// Where it is.
    pub(crate) namespace: &'a Namespace,
    /// What it is called there.
    pub(crate) name: &'a str,
    /// The last byte of its hardware address.
    pub(crate) mac: u8,
}

impl End<'_> {
    /// Its hardware address.
    pub(crate) fn address(&self) -> String {
        format!("02:74:77:be:00:{:02x}", self.mac)
    }

    /// Gives it an IP address.
    pub(crate) fn assign(&self, address: &str) -> Result<()> {
        self.namespace
            .ip(&[format!("address add {address} dev {} nodad", self.name)])
    }

    /// Makes the other end known to it, so that nobody ever asks for its hardware address.
    pub(crate) fn knows(&self, ip: IpAddr, other: &End<'_>) -> Result<()> {
        let line = format!(
            "neighbour replace {ip} lladdr {} dev {} nud permanent",
            other.address(),
            self.name
        );
        self.namespace.ip(&[line])
    }
}

/// Joins two namespaces by a veth pair; both ends are up.
pub(crate) fn join(a: End<'_>, b: End<'_>) -> Result<()> {
    a.namespace.ip(&[format!(
        "link add {} address {} type veth peer name {} address {} netns {}",
        a.name,
        a.address(),
        b.name,
        b.address(),
        b.namespace.path()
    )])?;
    for end in [a, b] {
        end.namespace.ip(&[format!("link set {} up", end.name)])?;
    }
    Ok(())
}
