// SPDX-License-Identifier: Apache-2.0
//! The lab's subtree of the cgroup2 hierarchy: by it every process of a lab is found, whoever its parent is.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Error;
use crate::error::Doing;

/// How long killed processes may take to disappear.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// The kernel does not always notify: the state is read again at least this often.
const RECHECK: Duration = Duration::from_millis(20);

/// The root of the cgroup2 hierarchy, where one is mounted for us to write to.
#[must_use]
pub fn root() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let of_cgroup2 = |line: &str| {
        let mut fields = line.split(' ');
        let (mount_point, kind) = (fields.nth(1)?, fields.next()?);
        let writable = fields.next()?.split(',').any(|option| option == "rw");
        (kind == "cgroup2" && writable).then(|| PathBuf::from(mount_point))
    };
    mounts.lines().find_map(of_cgroup2)
}

/// Makes a cgroup with its parents.
pub fn create(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).doing(|| format!("create the cgroup {}", path.display()))
}

/// Kills every process in a cgroup and below it, waits until they are gone and removes the cgroups.
pub fn destroy(path: &Path) -> Result<(), Error> {
    if !path.exists() {
        return Ok(());
    }
    let operation = || format!("empty the cgroup {}", path.display());
    let deadline = Instant::now() + KILL_LIMIT;
    loop {
        kill_all(path).doing(operation)?;
        wait_empty(path, Instant::now() + RECHECK).doing(operation)?;
        match remove_tree(path) {
            Ok(()) => return Ok(()),
            Err(_) if Instant::now() < deadline => {}
            Err(error) => {
                return Err(Error::Failed(format!(
                    "cannot remove the cgroup {}: {error}; processes left: {:?}",
                    path.display(),
                    processes(path)
                )));
            }
        }
    }
}

fn kill_all(path: &Path) -> std::io::Result<()> {
    // One write kills all, also those being forked (Linux 5.14).
    let all_at_once = path.join("cgroup.kill");
    if all_at_once.exists() {
        return fs::write(all_at_once, "1");
    }
    for pid in processes(path) {
        // Gone meanwhile is what is wanted.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    Ok(())
}

/// Process IDs in a cgroup and below it.
pub fn processes(path: &Path) -> Vec<i32> {
    let text = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    for child in children(path) {
        pids.extend(processes(&child));
    }
    pids
}

fn wait_empty(path: &Path, deadline: Instant) -> std::io::Result<()> {
    let events = fs::File::open(path.join("cgroup.events"))?;
    loop {
        let populated = fs::read_to_string(path.join("cgroup.events"))?.contains("populated 1");
        let left = deadline.saturating_duration_since(Instant::now());
        if !populated || left.is_zero() {
            return Ok(());
        }
        let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
        // Whatever poll says, the state is read again.
        let _ = poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
    }
}

fn remove_tree(path: &Path) -> std::io::Result<()> {
    for child in children(path) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn children(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}
