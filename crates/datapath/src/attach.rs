// SPDX-License-Identifier: Apache-2.0
//! Attaching programs to devices: by pinned tcx links, or on kernels before 6.6 by clsact filters of a fixed priority and
//! handle. Both are replaced in place, so that no packet passes unseen.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "few of the many variants of aya's errors matter here"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType};
use datapath_common::event::Hook;

use crate::AttachError;
use crate::pins::Pins;
use crate::sys::{self, Tcx};

/// Where our filter is among those of a device's clsact qdisc.
const PRIORITY: u16 = 1;
const HANDLE: TcHandle = TcHandle::new(0, 1);

/// A device and the program for it.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) hook: Hook,
    pub(crate) ifname: &'a str,
    pub(crate) ifindex: u32,
    /// Whether the device has another program of ours, on the other way.
    pub(crate) second: bool,
}

impl Target<'_> {
    fn pin(&self, pins: &Pins) -> PathBuf {
        if self.second {
            pins.second_link(self.ifname)
        } else {
            pins.link(self.ifname)
        }
    }

    /// The device of this name must be the one that the caller means.
    pub(crate) fn check(&self) -> Result<(), AttachError> {
        let ifname = || self.ifname.to_owned();
        match sys::ifindex(self.ifname) {
            Ok(found) if found == self.ifindex => Ok(()),
            Ok(found) => Err(AttachError::Replaced {
                ifname: ifname(),
                expected: self.ifindex,
                found,
            }),
            Err(source) => Err(AttachError::NoDevice {
                ifname: ifname(),
                source,
            }),
        }
    }

    pub(crate) fn program_error(
        &self,
        operation: &'static str,
    ) -> impl FnOnce(ProgramError) -> AttachError + use<> {
        let error = self.error(operation);
        |source| error(io_error(source))
    }

    fn error(&self, operation: &'static str) -> impl FnOnce(io::Error) -> AttachError + use<> {
        let (program, ifname) = (self.hook.name(), self.ifname.to_owned());
        move |source| AttachError::Kernel {
            operation,
            program,
            ifname,
            source,
        }
    }
}

/// Attaches by a pinned link, or gives the link that is there the new program.
pub(crate) fn attach_tcx(
    pins: &Pins,
    target: Target<'_>,
    program: &SchedClassifier,
) -> Result<(), AttachError> {
    let program = program.fd().map_err(target.program_error("attach"))?.as_fd();
    let path = target.pin(pins);
    if let Ok(link) = sys::open_pin(&path) {
        let hook = tcx_hook(target.hook);
        let ours = sys::info::<sys::LinkInfo>(link.as_fd())
            .is_ok_and(|link| link.ifindex == target.ifindex && link.attach_type == hook as u32);
        if ours {
            return sys::update_link(link.as_fd(), program).map_err(target.error("replace"));
        }
        // Of an earlier device of this name, or no link at all.
    }
    remove_pin(&path)?;
    let link = sys::create_tcx_link(program, target.ifindex, tcx_hook(target.hook))
        .map_err(target.error("attach"))?;
    sys::pin(link.as_fd(), &path).map_err(|source| AttachError::Pin {
        operation: "pin the link",
        path,
        source,
    })
}

const fn tcx_hook(hook: Hook) -> Tcx {
    match hook {
        Hook::FromPod | Hook::FromWire | Hook::FromTunnel => Tcx::Ingress,
        Hook::FromHost => Tcx::Egress,
    }
}

/// Attaches by a filter, or replaces the one that is there.
pub(crate) fn attach_clsact(target: Target<'_>, program: &mut SchedClassifier) -> Result<(), AttachError> {
    add_clsact(target)?;
    let direction = clsact_direction(target.hook);
    let filter = clsact_filter(target.ifname, direction).map_err(target.error("attach"))?;
    let link = match program.attach_to_link(filter) {
        Err(error) if errno(&error) == Some(libc::ENOENT) => {
            let options = TcAttachOptions::Netlink(NlOptions {
                priority: PRIORITY,
                handle: HANDLE,
                classid: None,
            });
            program.attach_with_options(target.ifname, direction, options)
        }
        result => result,
    };
    let link = link
        .and_then(|link| program.take_link(link))
        .map_err(target.program_error("attach"))?;
    // Dropping it would detach the program, which is to outlive this process.
    std::mem::forget(link);
    Ok(())
}

fn add_clsact(target: Target<'_>) -> Result<(), AttachError> {
    match tc::qdisc_add_clsact(target.ifname) {
        Ok(()) | Err(TcError::AlreadyAttached) => Ok(()),
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        Err(error) => Err(target.error("add a clsact qdisc for")(io_error(error.into()))),
    }
}

const fn clsact_direction(hook: Hook) -> TcAttachType {
    match hook {
        Hook::FromPod | Hook::FromWire | Hook::FromTunnel => TcAttachType::Ingress,
        Hook::FromHost => TcAttachType::Egress,
    }
}

fn clsact_filter(ifname: &str, direction: TcAttachType) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(ifname, direction, PRIORITY, HANDLE, None)
}

/// Detaches whatever of ours is on a device, in either way; `false`: nothing was.
pub(crate) fn detach(pins: &Pins, ifname: &str) -> Result<bool, AttachError> {
    let unpinned = remove_pin(&pins.link(ifname))?;
    let second = remove_pin(&pins.second_link(ifname))?;
    Ok(detach_clsact(ifname) || unpinned || second)
}

/// Detaches our filters; those that are not there, or on a device that is gone, are none.
pub(crate) fn detach_clsact(ifname: &str) -> bool {
    let mut found = false;
    for hook in Hook::ALL {
        found |= tc::qdisc_detach_program(ifname, clsact_direction(hook), hook.name()).is_ok();
    }
    found
}

/// Removes the pins of devices that nobody wants.
pub(crate) fn prune(pins: &Pins, live: &BTreeSet<String>) -> Result<usize, AttachError> {
    let both = |ifname: &String| [pins.link(ifname), pins.second_link(ifname)];
    let keep: BTreeSet<_> = live.iter().flat_map(both).collect();
    let path = pins.links();
    let unreadable = |source| AttachError::Pin {
        operation: "list",
        path: path.clone(),
        source,
    };
    let mut removed = 0;
    for entry in fs::read_dir(&path).map_err(unreadable)? {
        let pin = entry.map_err(unreadable)?.path();
        if !keep.contains(&pin) {
            removed += usize::from(remove_pin(&pin)?);
        }
    }
    Ok(removed)
}

/// `false`: was absent.
pub(crate) fn remove_pin(path: &Path) -> Result<bool, AttachError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(AttachError::Pin {
            operation: "remove",
            path: path.to_owned(),
            source,
        }),
    }
}

fn errno(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::TcError(TcError::NetlinkError(error)) | ProgramError::NetlinkError(error) => {
            error.raw_os_error()
        }
        ProgramError::TcError(TcError::IoError(error)) | ProgramError::IOError(error) => error.raw_os_error(),
        _ => None,
    }
}

fn io_error(error: ProgramError) -> io::Error {
    errno(&error).map_or_else(|| io::Error::other(error), io::Error::from_raw_os_error)
}
