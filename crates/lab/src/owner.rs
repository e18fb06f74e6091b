// SPDX-License-Identifier: Apache-2.0
//! Labs that go with the process that started them, however it ends: a killed test leaves nothing.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::error::{Doing as _, Error};
use crate::{Process, down};

/// Starts the process that waits for the end of this one. It is none of the lab's, which would end it too early, and none of this
/// one's group, whose signals it must outlive.
pub(crate) fn start_heir(program: &Path, name: &str) -> Result<(), Error> {
    let mut command = Command::new(program);
    let owner = Process::this().pid.to_string();
    command
        .args(["lab", "inherit", "--owner", &owner, name])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // SAFETY: setsid is a system call; nothing is allocated between fork and exec.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(Into::into));
    }
    let started = command.spawn().map(drop);
    started.doing(|| format!("start {}", program.display()))
}

/// Waits for the end of the process that started a lab, and removes what it has left of it.
///
/// # Errors
/// When something of the lab stays.
pub fn inherit(owner: i32, name: &str) -> Result<(), Error> {
    if let Some(owner) = Process::of(owner) {
        while !owner.wait_gone(Duration::MAX) {}
    }
    down::remove(name).map(drop)
}
