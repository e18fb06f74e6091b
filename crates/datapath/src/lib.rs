// SPDX-License-Identifier: Apache-2.0
//! Loads, attaches, pins and reads the eBPF datapath.

/// The programs on a pod's veth, as the build left them.
pub const POD_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/pod"));
