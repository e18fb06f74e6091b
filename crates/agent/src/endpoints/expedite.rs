// SPDX-License-Identifier: Apache-2.0
//! Short grace periods of the kernel's RCU while a program is attached or a link goes.
//!
//! Attaching to tcx waits for a grace period with the lock of all network settings held (`tcx_entry_sync` in
//! `include/net/tcx.h`): 4 to 12 ms, five sixths of an ADD. An expedited one takes some 100 µs, at the price of an interrupt
//! to each busy CPU; the kernel itself uses expedited ones whenever a network device goes (`synchronize_net`).

use std::fs;

/// The kernel's switch; documented in `Documentation/admin-guide/kernel-parameters.txt` as `rcupdate.rcu_expedited`.
const SWITCH: &str = "/sys/kernel/rcu_expedited";

/// Runs `work` with expedited grace periods, where the switch is there, off and can be written.
pub(super) fn expedited<T>(work: impl FnOnce() -> T) -> T {
    let is_off = fs::read(SWITCH).is_ok_and(|value| value.trim_ascii() == b"0");
    let switched = is_off && fs::write(SWITCH, "1").is_ok();
    let result = work();
    // Two agents (of a lab) may cross here: at worst one of them waits once.
    if switched && let Err(error) = fs::write(SWITCH, "0") {
        tracing::warn!(%error, "{SWITCH} could not be switched back; write 0 to it");
    }
    result
}
