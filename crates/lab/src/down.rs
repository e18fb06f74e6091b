// SPDX-License-Identifier: Apache-2.0
//! `lab down`: removes every process, cgroup and file of a lab, whatever state it is in. Namespaces and mounts go with
//! the processes.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::error::{Doing as _, Error};
use crate::node::LAB_VARIABLE;
use crate::spec::check_name;
use crate::state::{BASE, Paths, State};
use crate::{Process, cgroup};

/// How long the daemon gets to end by itself.
const DAEMON_GRACE: Duration = Duration::from_secs(2);
/// How long a killed process may take to disappear.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// Rounds of looking for processes outside the cgroup: those that forked while they were looked for are found later.
const SEARCH_ROUNDS: usize = 5;

/// Removes a lab; `false` when there is nothing of that name.
///
/// # Errors
/// When something could not be removed; the rest has been.
pub fn remove(name: &str) -> Result<bool, Error> {
    check_name(name)?;
    let paths = Paths::of(name);
    let cgroup = paths.cgroup().filter(|path| path.exists());
    if !paths.dir.exists() && cgroup.is_none() {
        return Ok(false);
    }
    stop_daemon(&paths);
    // Each step runs although an earlier one failed; the first error is reported.
    let killed = cgroup.map_or(Ok(()), |path| cgroup::destroy(&path));
    let found = kill_marked(&paths.dir);
    let removed = remove_directory(&paths.dir);
    // The last lab takes the common directory along; another lab keeps it.
    let _ = fs::remove_dir(BASE);
    killed.and(found).and(removed).map(|()| true)
}

fn stop_daemon(paths: &Paths) {
    // A corrupt state file is no reason not to remove the lab.
    if let Ok(Some(state)) = State::load(paths)
        && state.daemon.signal(Signal::SIGTERM)
    {
        let _ = state.daemon.wait_gone(DAEMON_GRACE);
    }
}

/// Kills the processes that carry the lab's mark in their environment: all of them where there is no cgroup2, and
/// otherwise those that were moved to another cgroup.
fn kill_marked(dir: &Path) -> Result<(), Error> {
    for _ in 0..SEARCH_ROUNDS {
        let marked = marked(dir);
        if marked.is_empty() {
            return Ok(());
        }
        for process in &marked {
            let _ = process.signal(Signal::SIGKILL);
        }
        for process in &marked {
            let _ = process.wait_gone(KILL_LIMIT);
        }
    }
    let left: Vec<i32> = marked(dir).iter().map(|process| process.pid).collect();
    if left.is_empty() {
        Ok(())
    } else {
        Err(Error::Failed(format!("cannot kill the processes {left:?}")))
    }
}

/// Living processes other than this one whose environment names this lab's directory.
pub(crate) fn marked(dir: &Path) -> Vec<Process> {
    let mut mark = LAB_VARIABLE.as_bytes().to_vec();
    mark.push(b'=');
    mark.extend_from_slice(dir.as_os_str().as_bytes());
    let is_marked = |pid: i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == mark)
    };
    let this = Process::this().pid;
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != this && is_marked(*pid))
        .filter_map(Process::of)
        .collect()
}

fn remove_directory(dir: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).doing(|| format!("remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}
