// SPDX-License-Identifier: Apache-2.0
//! Network namespaces as file descriptors. A thread that entered another namespace is never reused: work inside a
//! namespace runs on a thread of its own.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::Error;

/// Makes a network namespace. It lives as long as a descriptor, a process or a mount holds it.
///
/// # Errors
/// When the kernel refuses, for lack of privilege or of memory.
pub fn create() -> Result<OwnedFd, Error> {
    on_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Error::system("create a network namespace", errno))?;
        current()
    })?
}

/// The calling thread's network namespace.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn current() -> Result<OwnedFd, Error> {
    open(Path::new("/proc/thread-self/ns/net"))
}

/// Opens a network namespace by path (`/proc/PID/ns/net`, `/run/netns/NAME`).
///
/// # Errors
/// When the file cannot be opened.
pub fn open(path: &Path) -> Result<OwnedFd, Error> {
    File::open(path)
        .map(OwnedFd::from)
        .map_err(|error| Error::system(format!("open network namespace {}", path.display()), error))
}

/// Moves the calling thread into a network namespace, for good: for a thread about to end or a process about to
/// execute another program. Otherwise use [`run_in`].
///
/// # Errors
/// When the descriptor is no network namespace or privilege is missing.
pub fn enter(netns: BorrowedFd<'_>) -> Result<(), Error> {
    setns(netns, CloneFlags::CLONE_NEWNET).map_err(|errno| Error::system("enter a network namespace", errno))
}

/// Runs `work` inside a network namespace, on a thread of its own, and returns its value.
///
/// # Errors
/// When the namespace cannot be entered or the thread cannot be made.
pub fn run_in<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    on_thread(|| enter(netns).map(|()| work()))?
}

/// Binds a namespace to a path (an empty file is made there), so that it lives and can be opened by name.
///
/// # Errors
/// When the file or the mount cannot be made.
pub fn bind(netns: BorrowedFd<'_>, path: &Path) -> Result<(), Error> {
    let operation = || format!("bind a network namespace to {}", path.display());
    File::create(path).map_err(|error| Error::system(operation(), error))?;
    let source = format!("/proc/self/fd/{}", netns.as_fd().as_raw_fd());
    mount(
        Some(source.as_str()),
        path,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .map_err(|errno| Error::system(operation(), errno))
}

/// Undoes [`bind`]; `false` when there was nothing.
///
/// # Errors
/// When the mount cannot be removed.
pub fn unbind(path: &Path) -> Result<bool, Error> {
    let operation = || format!("remove network namespace {}", path.display());
    match umount2(path, MntFlags::MNT_DETACH) {
        // EINVAL: the file is there but nothing is mounted on it.
        Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
        Err(errno) => return Err(Error::system(operation(), errno)),
    }
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::system(operation(), error)),
    }
}

fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, work)
            .map_err(|error| Error::system("start a thread for a network namespace", error))?;
        Ok(thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}
