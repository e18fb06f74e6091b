// SPDX-License-Identifier: Apache-2.0
//! The eBPF programs, one binary per hook.
