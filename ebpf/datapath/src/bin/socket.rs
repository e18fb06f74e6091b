// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! On the cgroup of the node's processes, its pods among them: sockets that talk to services.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use thalweg_ebpf::connect;
use thalweg_ebpf::socket::Socket;

#[cgroup_sock_addr(connect4)]
fn connect4(ctx: SockAddrContext) -> i32 {
    connect::open(&Socket::v4(&ctx))
}

#[cgroup_sock_addr(connect6)]
fn connect6(ctx: SockAddrContext) -> i32 {
    connect::open(&Socket::v6(&ctx))
}

#[cgroup_sock_addr(sendmsg4)]
fn sendmsg4(ctx: SockAddrContext) -> i32 {
    connect::open(&Socket::v4(&ctx))
}

#[cgroup_sock_addr(sendmsg6)]
fn sendmsg6(ctx: SockAddrContext) -> i32 {
    connect::open(&Socket::v6(&ctx))
}

#[cgroup_sock_addr(recvmsg4)]
fn recvmsg4(ctx: SockAddrContext) -> i32 {
    connect::disguise(&Socket::v4(&ctx))
}

#[cgroup_sock_addr(recvmsg6)]
fn recvmsg6(ctx: SockAddrContext) -> i32 {
    connect::disguise(&Socket::v6(&ctx))
}

#[cgroup_sock_addr(getpeername4)]
fn getpeername4(ctx: SockAddrContext) -> i32 {
    connect::disguise(&Socket::v4(&ctx))
}

#[cgroup_sock_addr(getpeername6)]
fn getpeername6(ctx: SockAddrContext) -> i32 {
    connect::disguise(&Socket::v6(&ctx))
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
