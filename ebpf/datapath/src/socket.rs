// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! A socket that connects, sends or is asked, at a hook of its cgroup: the only place that reads and writes the context of such programs.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::{
    bpf_get_netns_cookie, bpf_get_prandom_u32, bpf_get_socket_cookie, bpf_jiffies64, bpf_set_retval,
};
use aya_ebpf::programs::SockAddrContext;
use datapath_common::{Addr, Be16};

/// `-ECONNREFUSED`.
const REFUSED: i32 = -111;

/// The socket of a program's context.
#[derive(Debug)]
pub struct Socket {
    ctx: *mut bpf_sock_addr,
    v4: bool,
}

impl Socket {
    /// A socket of IPv4.
    #[inline(always)]
    #[must_use]
    pub fn v4(ctx: &SockAddrContext) -> Self {
        Self {
            ctx: ctx.as_ptr().cast(),
            v4: true,
        }
    }

    /// A socket of IPv6, which may talk IPv4 too.
    #[inline(always)]
    #[must_use]
    pub fn v6(ctx: &SockAddrContext) -> Self {
        Self {
            v4: false,
            ..Self::v4(ctx)
        }
    }

    /// The other end's address.
    #[inline(always)]
    #[must_use]
    pub fn peer(&self) -> Addr {
        // SAFETY: the kernel hands every program a valid context, which lives as long as the run. Fields are read whole, as the
        // kernel wants it.
        unsafe {
            if self.v4 {
                Addr::v4((&raw const (*self.ctx).user_ip4).read_volatile().to_ne_bytes())
            } else {
                let ip = (&raw const (*self.ctx).user_ip6).cast::<u32>();
                Addr::from_quarters([
                    ip.read_volatile(),
                    ip.add(1).read_volatile(),
                    ip.add(2).read_volatile(),
                    ip.add(3).read_volatile(),
                ])
            }
        }
    }

    /// The other end's port.
    #[inline(always)]
    #[must_use]
    pub fn port(&self) -> Be16 {
        // SAFETY: as above.
        Be16::from_raw(unsafe { (&raw const (*self.ctx).user_port).read_volatile() } as u16)
    }

    /// IP protocol.
    #[inline(always)]
    #[must_use]
    pub fn protocol(&self) -> u8 {
        // SAFETY: as above.
        unsafe { (&raw const (*self.ctx).protocol).read_volatile() as u8 }
    }

    /// Makes it another end, of the same family as this one if the socket is of IPv4.
    #[inline(always)]
    pub fn set_peer(&self, addr: &Addr, port: Be16) {
        // SAFETY: as above; programs of this type may write these fields, whole.
        unsafe {
            if self.v4 {
                (&raw mut (*self.ctx).user_ip4).write_volatile(u32::from_ne_bytes(addr.v4_octets()));
            } else {
                let [a, b, c, d] = addr.quarters();
                let ip = (&raw mut (*self.ctx).user_ip6).cast::<u32>();
                ip.write_volatile(a);
                ip.add(1).write_volatile(b);
                ip.add(2).write_volatile(c);
                ip.add(3).write_volatile(d);
            }
            (&raw mut (*self.ctx).user_port).write_volatile(port.raw().into());
        }
    }

    /// The kernel's number for the socket.
    #[inline(always)]
    #[must_use]
    pub fn cookie(&self) -> u64 {
        // SAFETY: the context is valid.
        unsafe { bpf_get_socket_cookie(self.ctx.cast()) }
    }

    /// The kernel's number for its network namespace.
    #[inline(always)]
    #[must_use]
    pub fn netns(&self) -> u64 {
        // SAFETY: the context is valid.
        unsafe { bpf_get_netns_cookie(self.ctx.cast()) }
    }

    /// A number that nobody foresees.
    #[inline(always)]
    #[must_use]
    pub fn random(&self) -> u32 {
        // SAFETY: the helper has no arguments and no preconditions.
        unsafe { bpf_get_prandom_u32() }
    }

    /// The low half of jiffies.
    #[inline(always)]
    #[must_use]
    pub fn jiffies(&self) -> u32 {
        // SAFETY: as above.
        unsafe { bpf_jiffies64() as u32 }
    }

    /// Makes the call fail with "connection refused"; without it, a refused call fails for want of permission. Since 6.1.
    #[inline(always)]
    pub fn refuse(&self) {
        // SAFETY: the helper only notes the number.
        unsafe { bpf_set_retval(REFUSED) };
    }
}
