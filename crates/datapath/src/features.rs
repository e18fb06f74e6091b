// SPDX-License-Identifier: Apache-2.0
//! What the kernel offers.

use std::io;
use std::os::fd::BorrowedFd;

use crate::{AttachMode, LoadError, sys};

/// The oldest kernel on which the programs load.
const OLDEST: (u32, u32) = (5, 10);

/// What the kernel offers and the datapath uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// The release, as `uname -r` says.
    pub kernel: String,
    /// The same as numbers.
    pub version: (u32, u32),
    /// Programs are attached by tcx links, else by clsact.
    pub tcx: bool,
}

impl Features {
    pub(crate) fn of_kernel() -> Result<Self, LoadError> {
        let path = "/proc/sys/kernel/osrelease";
        let kernel = std::fs::read_to_string(path).map_err(|source| LoadError::Io {
            operation: "read",
            path: path.into(),
            source,
        })?;
        let kernel = kernel.trim().to_owned();
        let version = version(&kernel);
        if version < OLDEST {
            return Err(LoadError::KernelTooOld {
                release: kernel,
                needed: "5.10",
            });
        }
        Ok(Self {
            kernel,
            version,
            tcx: false,
        })
    }

    /// Finds out about tcx by asking for a link on a device that cannot exist.
    pub(crate) fn probe_attach(&mut self, mode: AttachMode, program: BorrowedFd<'_>) {
        let no_device = |error: io::Error| error.raw_os_error() == Some(libc::ENODEV);
        let probe = || sys::create_tcx_link(program, i32::MAX.cast_unsigned(), sys::Tcx::Ingress);
        self.tcx = mode == AttachMode::Auto && probe().is_err_and(no_device);
    }
}

fn version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_as_distributions_write_them() {
        assert_eq!(version("5.10.0-30-cloud-amd64"), (5, 10));
        assert_eq!(version("6.18.44-fc-v669"), (6, 18));
        assert_eq!(version("7.2+deb14"), (7, 2));
    }
}
