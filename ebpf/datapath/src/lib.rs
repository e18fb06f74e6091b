// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! The eBPF programs: what every packet of a pod meets. The binaries under `bin/` are one program per hook, thin over the
//! modules here; these also compile on the host, where the parser and the answers are tested and fuzzed.
//!
//! It keeps no policy of its own: rows and load-time constants, written by the agent, say what is where.
//!
//! Begin at `bin/pod.rs`.

#![cfg_attr(target_arch = "bpf", no_std, feature(asm_experimental_arch))]
#![expect(
    clippy::cast_possible_truncation,
    reason = "lengths and offsets in packets and the results of helpers are small"
)]

pub mod arp;
pub mod arrive;
pub mod connect;
pub mod conntrack;
pub mod ctx;
pub mod fib;
pub mod forward;
pub mod fragment;
pub mod header;
pub mod maps;
pub mod nat;
pub mod nd;
pub mod parse;
pub mod path_mtu;
pub mod refuse;
pub mod rewrite;
pub mod service;
pub mod socket;
pub mod tunnel;
pub mod verdict;
pub mod wrap;

#[cfg(test)]
mod parse_test;

pub use ctx::Ctx;
pub use verdict::{Drop, Verdict};

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel offers some helpers to GPL programs only.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
