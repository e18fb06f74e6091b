// SPDX-License-Identifier: Apache-2.0
//! Attaching programs to a cgroup: by pinned links that are replaced in place, so that no call of a socket passes unseen.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use aya::Ebpf;
use aya::programs::Program;

use crate::AttachError;
use crate::attach::remove_pin;
use crate::pins::Pins;
use crate::sys::{self, CgroupLinkInfo, SocketHook};

/// The programs and their hooks.
const HOOKS: [(&str, SocketHook); 8] = [
    ("connect4", SocketHook::Connect4),
    ("connect6", SocketHook::Connect6),
    ("sendmsg4", SocketHook::Sendmsg4),
    ("sendmsg6", SocketHook::Sendmsg6),
    ("recvmsg4", SocketHook::Recvmsg4),
    ("recvmsg6", SocketHook::Recvmsg6),
    ("getpeername4", SocketHook::Getpeername4),
    ("getpeername6", SocketHook::Getpeername6),
];

/// Attaches the programs of sockets to a cgroup, or gives the links that are there the new ones.
pub(crate) fn attach(pins: &Pins, objects: &[Ebpf], cgroup: &Path) -> Result<(), AttachError> {
    let directory = pins.cgroup();
    fs::create_dir_all(&directory).map_err(|source| AttachError::Pin {
        operation: "create",
        path: directory.clone(),
        source,
    })?;
    let opened = File::open(cgroup).and_then(|file| Ok((file.metadata()?.ino(), file)));
    let (id, file) = opened.map_err(|source| AttachError::Cgroup {
        path: cgroup.to_owned(),
        source,
    })?;
    for (name, hook) in HOOKS {
        let error = |operation| {
            move |source| AttachError::Kernel {
                operation,
                program: name,
                ifname: cgroup.display().to_string(),
                source,
            }
        };
        let program = program(objects, name).map_err(error("find"))?;
        let pin = directory.join(name);
        if let Ok(link) = sys::open_pin(&pin) {
            let ours = sys::info::<CgroupLinkInfo>(link.as_fd())
                .is_ok_and(|link| link.cgroup_id() == id && link.attach_type() == hook as u32);
            if ours {
                sys::update_link(link.as_fd(), program).map_err(error("replace"))?;
                continue;
            }
        }
        remove_pin(&pin)?;
        let link = sys::create_cgroup_link(program, file.as_fd(), hook).map_err(error("attach"))?;
        sys::pin(link.as_fd(), &pin).map_err(|source| AttachError::Pin {
            operation: "pin the link",
            path: pin,
            source,
        })?;
    }
    Ok(())
}

/// Detaches them; `false`: nothing was attached.
pub(crate) fn detach(pins: &Pins) -> Result<bool, AttachError> {
    let mut found = false;
    for (name, _) in HOOKS {
        found |= remove_pin(&pins.cgroup().join(name))?;
    }
    Ok(found)
}

/// A loaded program's descriptor.
fn program<'a>(objects: &'a [Ebpf], name: &str) -> io::Result<BorrowedFd<'a>> {
    let program = objects.iter().find_map(|object| object.program(name));
    let Some(Program::CgroupSockAddr(program)) = program else {
        return Err(io::ErrorKind::NotFound.into());
    };
    program.fd().map(AsFd::as_fd).map_err(io::Error::other)
}
