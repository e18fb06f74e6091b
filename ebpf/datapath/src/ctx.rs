// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! The packet in the kernel: the only place that reads and writes its bytes, and calls the helpers that move it.
//!
//! No pointer into the packet outlives a method here, so none is used after a helper that moves the bytes.

use aya_ebpf::bindings::{__sk_buff, bpf_fib_lookup, bpf_redir_neigh, bpf_sock, bpf_sock_tuple};
use aya_ebpf::helpers::generated::{
    bpf_csum_update, bpf_fib_lookup as fib_lookup, bpf_get_hash_recalc, bpf_get_prandom_u32, bpf_jiffies64,
    bpf_ktime_get_ns, bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer,
    bpf_sk_assign, bpf_sk_lookup_udp, bpf_sk_release, bpf_skb_adjust_room, bpf_skb_change_tail,
    bpf_skb_get_tunnel_key, bpf_skb_load_bytes, bpf_skb_pull_data, bpf_skb_set_tunnel_key,
    bpf_skb_store_bytes, bpf_skc_lookup_tcp,
};
use aya_ebpf::{EbpfContext, programs::TcContext};
use datapath_common::packet::{ETH_LEN, IPV6_HEADERS_END_MAX, proto};
use datapath_common::{Addr, Be16, Reason};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use crate::Drop;
use crate::fib::{Lookup, NextHop};
use crate::parse::Bytes;
use crate::tunnel::Key;

/// `BPF_ADJ_ROOM_MAC`: behind the Ethernet header.
const BEHIND_ETHERNET: u32 = 1;
/// `BPF_F_ADJ_ROOM_FIXED_GSO`: the payload of each packet stays what it is.
const FIXED_GSO: u64 = 1;
/// `BPF_F_ADJ_ROOM_DECAP_L4_UDP`: segments are no longer those of a tunnel. Kernels before 7.2 do not know it.
const NO_TUNNEL: u64 = 1 << 10;

/// How the headers that are put in or taken out change what the packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room(u64);

impl Room {
    /// `BPF_F_ADJ_ROOM_ENCAP_L4_UDP` and the length of the inner Ethernet header.
    const TUNNEL: u64 = 1 << 4 | (ETH_LEN as u64) << 56;
    /// In a tunnel over IPv4 (`BPF_F_ADJ_ROOM_ENCAP_L3_IPV4`).
    pub const V4: Self = Self(1 << 1 | Self::TUNNEL);
    /// In a tunnel over IPv6 (`BPF_F_ADJ_ROOM_ENCAP_L3_IPV6`).
    pub const V6: Self = Self(1 << 2 | Self::TUNNEL);
    /// Inside is the same family as outside.
    pub const SAME: Self = Self(0);
    /// Inside is IPv4 (`BPF_F_ADJ_ROOM_DECAP_L3_IPV4`, since 6.3).
    pub const TO_V4: Self = Self(1 << 7);
    /// Inside is IPv6 (`BPF_F_ADJ_ROOM_DECAP_L3_IPV6`).
    pub const TO_V6: Self = Self(1 << 8);
}

/// `BPF_F_ADJ_ROOM_ENCAP_L2_ETH`.
const INNER_ETHERNET: u64 = 1 << 6;

/// The number of the VLAN in a tag.
const VLAN_ID: u32 = 0xfff;

/// `PACKET_HOST`: the Ethernet destination is the receiving device's.
const PACKET_HOST: u32 = 0;

/// The verifier wants a bound on what is added to a packet's address. No header begins beyond this, see
/// [`IPV6_HEADERS_END_MAX`].
const OFFSET_MASK: usize = 0xfff;
const _: () = assert!((IPV6_HEADERS_END_MAX as usize) < OFFSET_MASK / 2 + 1);

const DATA: usize = core::mem::offset_of!(__sk_buff, data);
const DATA_END: usize = core::mem::offset_of!(__sk_buff, data_end);

/// `BPF_F_PSEUDO_HDR`.
const PSEUDO_HEADER: u64 = 1 << 4;
/// `BPF_F_MARK_MANGLED_0`: a checksum of zero is none, and stays so; one that becomes zero is written as its other form.
const MANGLED_ZERO: u64 = 1 << 5;
/// `BPF_TCP_TIME_WAIT` and `BPF_TCP_LISTEN`.
const TIME_WAIT: u32 = 6;
const LISTEN: u32 = 10;
/// `BPF_F_CURRENT_NETNS`.
const CURRENT_NETNS: u64 = u64::MAX;

/// A packet to the node: the addresses and ports of both ends.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// The sender.
    pub from: (&'a Addr, Be16),
    /// The node.
    pub to: (&'a Addr, Be16),
}

/// The kernel's `struct bpf_sock_tuple` of a family: source and destination address, and their ports.
#[repr(C)]
struct SocketTuple<A>(A, A, [Be16; 2]);

const _: () = assert!(size_of::<SocketTuple<[u8; 4]>>() == 12 && size_of::<SocketTuple<[u32; 4]>>() == 36);

/// A packet at a hook.
#[derive(Debug)]
pub struct Ctx {
    skb: *mut __sk_buff,
}

impl Ctx {
    /// The packet of a program's context.
    #[inline(always)]
    #[must_use]
    pub fn new(ctx: &TcContext) -> Self {
        Self {
            skb: ctx.as_ptr().cast(),
        }
    }

    /// The same as the kernel hands it to a function.
    #[inline(always)]
    #[must_use]
    pub fn from_raw(skb: *mut __sk_buff) -> Self {
        Self { skb }
    }

    /// As functions on their own want it.
    #[inline(always)]
    #[must_use]
    pub fn raw(&self) -> *mut __sk_buff {
        self.skb
    }

    #[inline(always)]
    fn skb(&self) -> &__sk_buff {
        // SAFETY: the kernel hands every program a valid context, which lives as long as the run.
        unsafe { &*self.skb }
    }

    /// Bytes with the Ethernet header.
    #[inline(always)]
    #[must_use]
    pub fn length(&self) -> u32 {
        self.skb().len
    }

    /// The mark that programs and netfilter hand on with the packet.
    #[inline(always)]
    #[must_use]
    pub fn mark(&self) -> u32 {
        self.skb().mark
    }

    /// Sets the mark.
    #[inline(always)]
    pub fn set_mark(&self, mark: u32) {
        // SAFETY: the context is valid as long as the run, and programs of this type may write this field. It is written whole:
        // the kernel refuses half of it, to which the compiler would cut it down where the other half stays.
        unsafe { (&raw mut (*self.skb).mark).write_volatile(mark) }
    }

    /// The device at whose hook this is.
    #[inline(always)]
    #[must_use]
    pub fn ifindex(&self) -> u32 {
        self.skb().ifindex
    }

    /// Payload of each packet that a GSO packet is cut into; 0 if it is none.
    #[inline(always)]
    #[must_use]
    pub fn gso_size(&self) -> u32 {
        self.skb().gso_size
    }

    /// Whether the Ethernet destination is that of the device.
    #[inline(always)]
    #[must_use]
    pub fn is_for_us(&self) -> bool {
        self.skb().pkt_type == PACKET_HOST
    }

    /// Whether the kernel has taken a VLAN tag (IEEE 802.1Q) off the frame, which it puts back wherever the packet goes.
    #[inline(always)]
    #[must_use]
    pub fn is_tagged(&self) -> bool {
        self.skb().vlan_present != 0
    }

    /// Whether the tag names a VLAN; one of number 0 only says how urgent the frame is.
    #[inline(always)]
    #[must_use]
    pub fn is_of_vlan(&self) -> bool {
        self.is_tagged() && self.skb().vlan_tci & VLAN_ID != 0
    }

    /// The low half of jiffies.
    #[inline(always)]
    #[must_use]
    pub fn jiffies(&self) -> u32 {
        // SAFETY: the helper has no arguments and no preconditions.
        unsafe { bpf_jiffies64() as u32 }
    }

    /// Nanoseconds of the monotonic clock.
    #[inline(always)]
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        // SAFETY: as above.
        unsafe { bpf_ktime_get_ns() }
    }

    /// A field of the context that is declared as 32 bits and that the kernel makes a pointer.
    ///
    /// Compiled from Rust, the load is followed by a cut to 32 bits, which ends the verifier's trust in the pointer.
    #[inline(always)]
    fn pointer<const FIELD: usize>(&self) -> usize {
        let address: usize;
        #[cfg(target_arch = "bpf")]
        // SAFETY: reads a field of the context, which is valid.
        unsafe {
            core::arch::asm!(
                "{address} = *(u32 *)({skb} + {field})",
                address = out(reg) address,
                skb = in(reg) self.skb,
                field = const FIELD,
                options(pure, readonly, nostack),
            );
        }
        #[cfg(not(target_arch = "bpf"))]
        {
            address = if FIELD == DATA {
                self.skb().data as usize
            } else {
                self.skb().data_end as usize
            };
        }
        address
    }

    /// The address of `T` at `offset` if all of it lies in the linear part of the packet.
    #[inline(always)]
    fn at<T>(&self, offset: usize) -> Option<*mut T> {
        let (data, end) = (self.pointer::<DATA>(), self.pointer::<DATA_END>());
        let address = data + (offset & OFFSET_MASK);
        (address + size_of::<T>() <= end).then_some(address as *mut T)
    }

    /// Brings the packet's first bytes into its linear part, where they can be read in place.
    #[inline(never)]
    fn linearise(&self, end: u32) -> bool {
        // SAFETY: the context is valid; no pointer into the packet is alive here (see the module's text).
        end <= self.length() && unsafe { bpf_skb_pull_data(self.skb, end) } == 0
    }

    /// Overwrites bytes that were read before.
    #[inline(always)]
    pub fn write<T: IntoBytes + Immutable>(&self, offset: usize, value: T) -> Result<(), Drop> {
        let address = self
            .at::<T>(offset)
            .ok_or(Drop::new(Reason::ERROR_WRITING_TO_PACKET))?;
        // SAFETY: as for `read`; the kernel has made the headers of a cloned packet private before a program that writes
        // begins.
        unsafe { address.write(value) };
        Ok(())
    }

    /// Overwrites bytes by the helper, for long values on rare paths.
    #[inline(always)]
    pub fn store<T: IntoBytes + Immutable>(&self, offset: u32, value: &T) -> Result<(), Drop> {
        let bytes = value.as_bytes();
        // SAFETY: the context is valid, the helper reads just `bytes`.
        let result = unsafe {
            bpf_skb_store_bytes(
                self.skb.cast(),
                offset,
                bytes.as_ptr().cast(),
                bytes.len() as u32,
                0,
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(Drop::new(Reason::ERROR_WRITING_TO_PACKET))
        }
    }

    /// Cuts or lengthens the packet.
    #[inline(always)]
    pub fn resize(&self, length: u32) -> Result<(), Drop> {
        // SAFETY: the context is valid and no pointer into the packet is alive.
        let result = unsafe { bpf_skb_change_tail(self.skb, length, 0) };
        if result == 0 {
            Ok(())
        } else {
            Err(Drop::new(Reason::ERROR_WRITING_TO_PACKET))
        }
    }

    /// Makes room for headers behind the Ethernet header.
    ///
    /// Kernels before 5.13 refuse the flag that names the inner Ethernet header, and go by its length alone.
    #[inline(always)]
    pub fn make_room(&self, bytes: i32, room: Room) -> Result<(), Drop> {
        if self.adjust_room(bytes, room.0 | INNER_ETHERNET).is_ok() {
            return Ok(());
        }
        let made = self.adjust_room(bytes, room.0);
        if made.is_err() && self.gso_size() == 0 {
            // It was in a tunnel of another namespace of this machine, and the kernel has not forgotten. What a tunnel is matters only
            // to who cuts a packet in pieces.
            return self.adjust_room(bytes, 0);
        }
        made
    }

    /// Takes headers out behind the Ethernet header.
    ///
    /// What stands for several packets of a tunnel would be cut by whoever forwards it as if it were still in the tunnel:
    /// newer kernels can be told that it is not.
    #[inline(always)]
    pub fn take_out(&self, bytes: i32, room: Room) -> Result<(), Drop> {
        if self.gso_size() != 0 && self.adjust_room(-bytes, room.0 | NO_TUNNEL).is_ok() {
            return Ok(());
        }
        self.adjust_room(-bytes, room.0)
    }

    #[inline(always)]
    fn adjust_room(&self, bytes: i32, flags: u64) -> Result<(), Drop> {
        // SAFETY: the context is valid and no pointer into the packet is alive.
        let result = unsafe { bpf_skb_adjust_room(self.skb, bytes, BEHIND_ETHERNET, flags | FIXED_GSO) };
        if result == 0 {
            Ok(())
        } else {
            Err(Drop::new(Reason::ENCAPSULATION_TRAFFIC_IS_PROHIBITED))
        }
    }

    /// A number that all packets of a flow share.
    #[inline(always)]
    #[must_use]
    pub fn flow_hash(&self) -> u32 {
        // SAFETY: the context is valid.
        unsafe { bpf_get_hash_recalc(self.skb) }
    }

    /// Tells the kernel what a change did to the sum of the packet's words, if the device has computed it.
    #[inline(always)]
    pub fn adjust_sum(&self, difference: u32) {
        // SAFETY: the context is valid. An error says that the kernel keeps no sum, which is fine.
        unsafe { bpf_csum_update(self.skb, difference) };
    }

    /// Renews a transport checksum after the addresses under its pseudo-header have changed by this difference.
    #[inline(always)]
    pub fn replace_pseudo(&self, at: u32, difference: u32) -> Result<(), Drop> {
        self.replace(at, 0, difference.into(), PSEUDO_HEADER | MANGLED_ZERO)
    }

    /// Renews a transport checksum after a word under it has changed.
    #[inline(always)]
    pub fn replace_word(&self, at: u32, from: Be16, to: Be16) -> Result<(), Drop> {
        self.replace(at, from.raw().into(), to.raw().into(), MANGLED_ZERO | 2)
    }

    #[inline(always)]
    fn replace(&self, at: u32, from: u64, to: u64, flags: u64) -> Result<(), Drop> {
        // SAFETY: the context is valid and no pointer into the packet is alive.
        if unsafe { bpf_l4_csum_replace(self.skb.cast(), at, from, to, flags) } == 0 {
            Ok(())
        } else {
            Err(Drop::new(Reason::ERROR_WRITING_TO_PACKET))
        }
    }

    /// A number that nobody foresees.
    #[inline(always)]
    #[must_use]
    pub fn random(&self) -> u32 {
        // SAFETY: the helper has no arguments and no preconditions.
        unsafe { bpf_get_prandom_u32() }
    }

    /// Whether the node itself has a TCP or UDP socket that such a packet would find.
    #[inline(never)]
    #[must_use]
    pub fn has_socket(&self, protocol: u8, v4: bool, packet: &Answer<'_>) -> bool {
        self.look_at_socket(protocol, v4, packet, |_| true)
    }

    /// Whether the node itself has a connection of TCP that such a packet belongs to, and not only somebody who listens.
    #[inline(never)]
    #[must_use]
    pub fn has_connection(&self, v4: bool, packet: &Answer<'_>) -> bool {
        self.look_at_socket(proto::TCP, v4, packet, |socket| {
            // SAFETY: `socket` is one that the kernel has found.
            let state = unsafe { (*socket).state };
            state != LISTEN && state != TIME_WAIT
        })
    }

    /// Gives the packet, which opens a connection, to the TCP socket of this node that listens where `packet` says; `false`: there is none, or
    /// the kernel refuses (before 6.6, one that shares its port by `SO_REUSEPORT`).
    #[inline(never)]
    #[must_use]
    pub fn assign_listener(&self, v4: bool, packet: &Answer<'_>) -> bool {
        self.look_at_socket(proto::TCP, v4, packet, |socket| {
            // SAFETY: the context is valid, and `socket` is one that the kernel has found.
            unsafe { (*socket).state == LISTEN && bpf_sk_assign(self.skb.cast(), socket.cast(), 0) == 0 }
        })
    }

    /// What `look` says of the socket of the node that such a packet would find; `false`: there is none.
    #[inline(always)]
    fn look_at_socket(
        &self,
        protocol: u8,
        v4: bool,
        packet: &Answer<'_>,
        look: impl FnOnce(*mut bpf_sock) -> bool,
    ) -> bool {
        let Answer {
            from: (source, source_port),
            to: (destination, destination_port),
        } = packet;
        let ports = [*source_port, *destination_port];
        if v4 {
            let [source, destination] = [source, destination].map(|addr| addr.v4_octets());
            self.find_socket(protocol, &SocketTuple(source, destination, ports), look)
        } else {
            let [source, destination] = [source, destination].map(|addr| addr.quarters());
            self.find_socket(protocol, &SocketTuple(source, destination, ports), look)
        }
    }

    #[inline(always)]
    fn find_socket<A>(
        &self,
        protocol: u8,
        tuple: &SocketTuple<A>,
        look: impl FnOnce(*mut bpf_sock) -> bool,
    ) -> bool {
        let (pointer, size) = (
            core::ptr::from_ref(tuple).cast_mut().cast::<bpf_sock_tuple>(),
            size_of::<SocketTuple<A>>() as u32,
        );
        // SAFETY: the context is valid, the helpers read just the tuple, and the reference that they give is given back.
        unsafe {
            let socket = match protocol {
                proto::TCP => bpf_skc_lookup_tcp(self.skb.cast(), pointer, size, CURRENT_NETNS, 0),
                proto::UDP => bpf_sk_lookup_udp(self.skb.cast(), pointer, size, CURRENT_NETNS, 0),
                _ => return false,
            };
            if socket.is_null() {
                return false;
            }
            let seen = look(socket);
            bpf_sk_release(socket.cast());
            seen
        }
    }

    /// Sends the packet out of a device.
    #[inline(always)]
    #[must_use]
    pub fn redirect(&self, ifindex: u32) -> i32 {
        // SAFETY: the helper only notes where to.
        unsafe { bpf_redirect(ifindex, 0) as i32 }
    }

    /// Receives the packet at the other end of a veth, in its network namespace.
    #[inline(always)]
    #[must_use]
    pub fn redirect_peer(&self, ifindex: u32) -> i32 {
        // SAFETY: as above.
        unsafe { bpf_redirect_peer(ifindex, 0) as i32 }
    }

    /// Sends the packet out of a device to a neighbour that the kernel resolves first.
    #[inline(always)]
    #[must_use]
    pub fn redirect_neighbour(&self, ifindex: u32, next: &mut NextHop) -> i32 {
        let next = core::ptr::from_mut(next).cast::<bpf_redir_neigh>();
        // SAFETY: `NextHop` has the layout and size of the kernel's structure.
        unsafe { bpf_redirect_neigh(ifindex, next, size_of::<NextHop>() as i32, 0) as i32 }
    }

    /// Tells the kernel's tunnel device where to and how.
    #[inline(always)]
    pub fn set_tunnel_key(&self, key: &mut Key, flags: u64) -> bool {
        let key = core::ptr::from_mut(key).cast();
        // SAFETY: the context is valid; `Key` is the kernel's structure up to a field that its helpers allow it to end at.
        unsafe { bpf_skb_set_tunnel_key(self.skb, key, size_of::<Key>() as u32, flags) == 0 }
    }

    /// Where from and how the kernel's tunnel device has unwrapped the packet; `flags` says the outer family.
    #[inline(always)]
    pub fn tunnel_key(&self, flags: u64) -> Option<Key> {
        let mut key = Key::new_zeroed();
        let to = core::ptr::from_mut(&mut key).cast();
        // SAFETY: as above; the helper writes just the bytes of `key`.
        let result = unsafe { bpf_skb_get_tunnel_key(self.skb, to, size_of::<Key>() as u32, flags) };
        (result == 0).then_some(key)
    }

    /// Asks the routing table and the neighbour table. 0: both have an answer.
    #[inline(always)]
    #[must_use]
    pub fn fib(&self, lookup: &mut Lookup) -> i64 {
        let lookup = core::ptr::from_mut(lookup).cast::<bpf_fib_lookup>();
        // SAFETY: `Lookup` has the layout and size of the kernel's structure.
        unsafe { fib_lookup(self.skb.cast(), lookup, size_of::<Lookup>() as i32, 0) }
    }
}

impl Bytes for Ctx {
    #[inline(always)]
    fn read<T: FromBytes + Copy>(&self, offset: usize) -> Option<T> {
        if self.at::<T>(offset).is_none() && !self.linearise((offset + size_of::<T>()) as u32) {
            return None;
        }
        let address = self.at::<T>(offset)?;
        // SAFETY: `at` has checked the bounds, which the verifier checks again; any bytes are a `T`. The address may be
        // less aligned than `T` wants: for this target the compiler takes alignment as leave to read whole words, which every
        // kernel for x86 and ARM allows in packets. (It reads unaligned values byte by byte.)
        Some(unsafe { address.read() })
    }

    #[inline(always)]
    fn copy<T: FromBytes + FromZeros + IntoBytes + Copy>(&self, offset: usize) -> Option<T> {
        let mut value = T::new_zeroed();
        let to = core::ptr::from_mut(&mut value).cast();
        // SAFETY: the context is valid, the helper writes just the bytes of `value`, and any bytes are a `T`.
        let result = unsafe { bpf_skb_load_bytes(self.skb.cast(), offset as u32, to, size_of::<T>() as u32) };
        (result == 0).then_some(value)
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.length() as usize
    }

    #[inline(always)]
    fn is_gso(&self) -> bool {
        self.gso_size() != 0
    }
}
