// SPDX-License-Identifier: Apache-2.0
//! Map rows, events, drop reasons and packet arithmetic shared by the kernel and user sides.
#![no_std]
