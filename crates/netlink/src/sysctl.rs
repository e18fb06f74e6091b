// SPDX-License-Identifier: Apache-2.0
//! Kernel settings under `/proc/sys`; those of `net/` are the calling thread's namespace's.

use std::path::PathBuf;

use crate::Error;

fn path(key: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(key)
}

/// Reads a setting, such as `net/ipv4/ip_forward`.
///
/// # Errors
/// When the kernel has no such setting.
pub fn read(key: &str) -> Result<String, Error> {
    std::fs::read_to_string(path(key))
        .map(|value| value.trim_end().to_owned())
        .map_err(|error| Error::system(format!("read sysctl {key}"), error))
}

/// Writes a setting.
///
/// # Errors
/// When the kernel has no such setting, refuses the value, or `/proc/sys` is mounted read-only.
pub fn write(key: &str, value: &str) -> Result<(), Error> {
    std::fs::write(path(key), value)
        .map_err(|error| Error::system(format!("set sysctl {key} to {value}"), error))
}

/// Writes a setting unless it has the value already: works where `/proc/sys` is read-only but right.
///
/// # Errors
/// As [`write`].
pub fn ensure(key: &str, value: &str) -> Result<(), Error> {
    match read(key) {
        Ok(current) if current == value => Ok(()),
        _ => write(key, value),
    }
}
