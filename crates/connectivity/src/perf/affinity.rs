// SPDX-License-Identifier: Apache-2.0
//! Staying on one CPU.

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::PerfError;

/// Binds the calling thread, and every thread that it starts from now on, to `cpu`.
pub fn pin(cpu: usize) -> Result<(), PerfError> {
    let set = || {
        let mut set = CpuSet::new();
        set.set(cpu)?;
        sched_setaffinity(Pid::from_raw(0), &set)
    };
    set().map_err(|errno| PerfError::Affinity {
        cpu,
        source: errno.into(),
    })
}
