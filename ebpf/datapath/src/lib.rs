// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! The eBPF programs, one binary per hook. The library holds what the binaries share and also compiles on the host,
//! where it is tested.
#![cfg_attr(target_arch = "bpf", no_std)]
