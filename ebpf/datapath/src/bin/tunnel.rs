// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! On the kernel's tunnel device: what other nodes send to pods of this one, and to the node itself in answer to its pods.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use datapath_common::event::Hook;
use thalweg_ebpf::{Ctx, tunnel};

#[classifier]
fn from_tunnel(ctx: TcContext) -> i32 {
    let ctx = Ctx::new(&ctx);
    match tunnel::sender(&ctx).and_then(|sender| tunnel::deliver(&ctx, &sender)) {
        Ok(verdict) => verdict.emit(&ctx, Hook::FromTunnel),
        Err(drop) => drop.emit(&ctx, Hook::FromTunnel),
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
