// SPDX-License-Identifier: Apache-2.0
//! Processes by identity: a process ID alone may have been given to another process meanwhile.

use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A process and when it was started, in ticks since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process ID.
    pub pid: i32,
    start_time: u64,
}

impl Process {
    /// The process that has this ID now.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        let (state, start_time) = state_and_start(pid)?;
        (!matches!(state, b'Z' | b'X')).then_some(Self { pid, start_time })
    }

    /// The calling process.
    #[must_use]
    pub fn this() -> Self {
        let pid = nix::unistd::getpid().as_raw();
        Self {
            pid,
            start_time: state_and_start(pid).map_or(0, |(_, start)| start),
        }
    }

    /// Its namespace of a kind: `net`, `mnt` or `uts`.
    #[must_use]
    pub fn namespace(&self, kind: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/{kind}", self.pid))
    }

    /// Whether it still runs; a zombie does not.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }

    /// Sends a signal; `false` when the process is gone.
    #[must_use]
    pub fn signal(&self, signal: Signal) -> bool {
        self.is_alive() && kill(Pid::from_raw(self.pid), signal).is_ok()
    }

    /// Waits until it is gone, at most this long; `false` when it is still there.
    #[must_use]
    pub fn wait_gone(&self, limit: Duration) -> bool {
        let Some(pidfd) = pidfd_open(self.pid).filter(|_| self.is_alive()) else {
            return !self.is_alive();
        };
        let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        while poll(&mut fds, timeout) == Err(Errno::EINTR) {}
        !self.is_alive()
    }
}

fn pidfd_open(pid: i32) -> Option<OwnedFd> {
    // SAFETY: the system call takes two integers and returns a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: the kernel has just returned this descriptor, and nobody else owns it.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// State letter and start time from `/proc/PID/stat`; the command's name may hold spaces and parentheses.
fn state_and_start(pid: i32) -> Option<(u8, u64)> {
    /// `starttime` is field 22 of proc_pid_stat(5), the state field 3.
    const START_AFTER_STATE: usize = 22 - 3;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    Some((state, fields.nth(START_AFTER_STATE - 1)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_another_start_time_is_another_process() {
        let this = Process::this();
        assert!(this.is_alive() && Process::of(this.pid) == Some(this));
        assert!(
            !Process {
                start_time: 1,
                ..this
            }
            .is_alive()
        );
    }

    #[test]
    fn a_killed_child_is_gone_even_before_it_is_reaped() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let process = Process::of(child.id().try_into().unwrap()).unwrap();
        assert!(!process.wait_gone(Duration::from_millis(1)));
        assert!(process.signal(Signal::SIGKILL));
        assert!(process.wait_gone(Duration::from_secs(10)));
        assert!(!process.signal(Signal::SIGKILL));
        child.wait().unwrap();
    }
}
