// SPDX-License-Identifier: Apache-2.0
//! Whether this process may do an agent's work, asked before anything is touched: a refusal halfway looks like damage.

use std::fs;

/// What an agent needs: devices and routes; eBPF, and entering pods' network namespaces (setns(2)).
const NEEDED: [(u32, &str); 2] = [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN")];

/// The process may not do an agent's work.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this process lacks {}; run the agent as root, in Kubernetes as a privileged container", missing.join(" and ")
)]
pub struct PrivilegeError {
    missing: Vec<&'static str>,
}

/// Checks the capabilities of this process. Without `/proc` nothing is known, and the kernel will say.
///
/// # Errors
/// When one is missing.
pub fn check() -> Result<(), PrivilegeError> {
    fs::read_to_string("/proc/self/status").map_or(Ok(()), |status| check_status(&status))
}

fn check_status(status: &str) -> Result<(), PrivilegeError> {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(effective) = effective.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()) else {
        return Ok(());
    };
    let missing = NEEDED.iter().filter(|(bit, _)| effective & (1 << bit) == 0);
    let missing: Vec<&str> = missing.map(|(_, name)| *name).collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(PrivilegeError { missing })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_enough_and_what_a_user_lacks_is_named() {
        assert_eq!(
            check_status("Name:\tthalweg\nCapEff:\t000001ffffffffff\n"),
            Ok(())
        );
        let error = check_status("CapEff:\t0000000000000000\n")
            .unwrap_err()
            .to_string();
        assert!(error.contains("CAP_NET_ADMIN and CAP_SYS_ADMIN"), "{error}");
        let error = check_status("CapEff:\t0000000000001000\n")
            .unwrap_err()
            .to_string();
        assert!(error.contains("lacks CAP_SYS_ADMIN;"), "{error}");
    }

    #[test]
    fn what_cannot_be_read_is_left_to_the_kernel() {
        assert_eq!(check_status("CapEff:\tnonsense\n"), Ok(()));
        assert_eq!(check_status(""), Ok(()));
    }
}
