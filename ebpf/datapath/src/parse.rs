// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! From bytes to what the datapath decides on. Pure: generic over where the bytes are, so that the host's tests and the
//! fuzzer run the code that the kernel runs.

use datapath_common::packet::{
    ETH_LEN, ICMP_LEN, IPV4_LEN, IPV6_EXTENSIONS_MAX, IPV6_HEADERS_END_MAX, IPV6_LEN, SCTP_LEN, TCP_LEN,
    UDP_LEN, ethertype, icmp, icmpv6, proto, tcp,
};
use datapath_common::{Addr, Be16, DropEvent, Mac, Mapping, Reason, Tuple};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::Drop;

/// Where a packet's bytes are.
pub trait Bytes {
    /// The value at an offset; `None`: the packet ends before its end.
    fn read<T: FromBytes + Copy>(&self, offset: usize) -> Option<T>;
    /// The same by a copy: for rare paths, where one call is worth more than the shortest way.
    fn copy<T: FromBytes + FromZeros + IntoBytes + Copy>(&self, offset: usize) -> Option<T> {
        self.read(offset)
    }
    /// Bytes of the packet.
    fn len(&self) -> usize;
    /// Whether the packet stands for several that are cut later, and may be longer than its headers can say.
    fn is_gso(&self) -> bool;
    /// Whether there are no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Bytes for [u8] {
    fn read<T: FromBytes + Copy>(&self, offset: usize) -> Option<T> {
        Some(T::read_from_prefix(self.get(offset..)?).ok()?.0)
    }

    fn len(&self) -> usize {
        Self::len(self)
    }

    fn is_gso(&self) -> bool {
        false
    }
}

/// Of Ethernet.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Ethernet {
    /// To.
    pub destination: Mac,
    /// From.
    pub source: Mac,
    /// Of what follows.
    pub ethertype: Be16,
}

#[repr(C)]
#[derive(Clone, Copy, FromBytes)]
struct Ipv4 {
    version_ihl: u8,
    tos: u8,
    total_length: Be16,
    id: Be16,
    fragment: Be16,
    ttl: u8,
    proto: u8,
    check: Be16,
    source: u32,
    destination: u32,
}

#[repr(C)]
#[derive(Clone, Copy, FromBytes)]
struct Ipv6 {
    version: u8,
    _class_and_label: [u8; 3],
    payload_length: Be16,
    next: u8,
    hop_limit: u8,
    source: Addr,
    destination: Addr,
}

#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes)]
struct Extension {
    next: u8,
    length: u8,
    /// Of the fragment header.
    offset: Be16,
}

#[repr(C)]
#[derive(Clone, Copy, FromBytes)]
struct Tcp {
    ports: [Be16; 2],
    sequence: [Be16; 4],
    data_offset: u8,
    flags: u8,
}

#[repr(C)]
#[derive(Clone, Copy, FromBytes)]
struct Udp {
    ports: [Be16; 2],
    length: Be16,
    check: Be16,
}

#[repr(C)]
#[derive(Clone, Copy, FromBytes)]
struct Icmp {
    kind: u8,
    code: u8,
    check: Be16,
    id: Be16,
    sequence: Be16,
}

const _: () = assert!(size_of::<Ethernet>() == ETH_LEN && size_of::<Ipv6>() == IPV6_LEN);
const _: () =
    assert!(size_of::<Ipv4>() == IPV4_LEN && size_of::<Udp>() == UDP_LEN && size_of::<Icmp>() == ICMP_LEN);

/// What an IP packet is to the datapath.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Part of a connection.
    Flow,
    /// A later fragment: has no ports.
    Fragment,
    /// An ICMP error; it quotes the packet that it is about.
    Error,
    /// ICMPv6 that never leaves a link: neighbour discovery, multicast listeners.
    Link,
}

/// An IP packet, understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Addresses, ports, protocol.
    pub tuple: Tuple,
    /// What it is.
    pub kind: Kind,
    /// Of TCP; else 0.
    pub tcp_flags: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IPv4 or IPv6.
    pub v4: bool,
    /// Where the payload of the IP headers begins.
    pub l4: u16,
    /// Where the datagram's identification is if this is a fragment of it; else 0.
    pub fragment: u16,
    /// Where the transport header of a quoted packet begins, and its protocol; 0 before somebody has looked.
    pub quoted: u16,
    /// See `quoted`.
    pub quoted_proto: u8,
    /// Where the IP packet ends.
    pub end: u32,
    /// How its connection looks outside of the node, once that is known.
    pub nat: Mapping,
    /// Whether it answers what came through the host's stack, likewise.
    pub through_host: bool,
    /// Whether it was sent to a service, and is addressed to a backend by now.
    pub to_service: bool,
    /// Whether it answers what was sent to a service, and is to look so.
    pub from_service: bool,
}

impl Packet {
    /// To be filled in.
    pub const EMPTY: Self = Self {
        tuple: Tuple::EMPTY,
        kind: Kind::Fragment,
        tcp_flags: 0,
        ttl: 0,
        v4: false,
        l4: 0,
        fragment: 0,
        quoted: 0,
        quoted_proto: 0,
        end: 0,
        nat: Mapping::NONE,
        through_host: false,
        to_service: false,
        from_service: false,
    };

    /// Forgets what is not parsed but found out later.
    #[inline(always)]
    pub const fn forget(&mut self) {
        (self.quoted, self.quoted_proto, self.nat) = (0, 0, Mapping::NONE);
        (self.through_host, self.to_service, self.from_service) = (false, false, false);
    }

    /// Whether it opens a connection of TCP.
    #[inline(always)]
    #[must_use]
    pub const fn opens(&self) -> bool {
        self.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN
    }

    /// Where the payload of the IP headers begins.
    #[inline(always)]
    #[must_use]
    pub fn payload(&self) -> usize {
        usize::from(self.l4)
    }

    #[inline(always)]
    fn end(&self) -> usize {
        self.end as usize
    }
}

/// Where the headers lie that a family shares.
struct Network {
    source: Addr,
    destination: Addr,
    proto: u8,
    ttl: u8,
    /// Has no transport header: a fragment other than the first.
    later: bool,
    fragment: u16,
    l4: u16,
    end: usize,
}

/// What a transport header says.
#[derive(Clone, Copy)]
struct Transport {
    ports: [Be16; 2],
    tcp_flags: u8,
    kind: Kind,
}

const NO_PORTS: [Be16; 2] = [Be16::new(0); 2];
const FRAGMENT_OFFSET_V4: u16 = 0x1fff;
const FRAGMENT_OFFSET_V6: u16 = 0xfff8;
/// The offset, and whether more fragments follow.
const FRAGMENT_V4: u16 = 0x3fff;
/// Likewise. (A packet with neither, an atomic fragment, is whole: RFC 6946.)
const FRAGMENT_V6: u16 = 0xfff9;
/// Where the identification is in a frame with IPv4.
const IDENTIFICATION_V4: u16 = ETH_LEN as u16 + 4;
/// Where it is in the fragment header of IPv6.
const IDENTIFICATION_V6: u16 = 4;

#[inline(always)]
fn truncated() -> Drop {
    Drop::new(Reason::CT_TRUNCATED_OR_INVALID_HEADER)
}

/// An IPv4 address as it lies in memory.
#[inline(always)]
const fn v4(address: u32) -> Addr {
    Addr::v4(address.to_ne_bytes())
}

/// The Ethernet header.
#[inline(always)]
pub fn ethernet<B: Bytes + ?Sized>(bytes: &B) -> Result<Ethernet, Drop> {
    bytes.read(0).ok_or_else(truncated)
}

/// The destination of an IP packet, and nothing checked: to find out cheaply whether it concerns a pod.
#[inline(always)]
pub fn destination<B: Bytes + ?Sized>(bytes: &B, ethertype: u16) -> Option<Addr> {
    match ethertype {
        ethertype::IPV4 => bytes.read(ETH_LEN + IPV4_LEN - 4).map(v4),
        ethertype::IPV6 => bytes.read(ETH_LEN + IPV6_LEN - 16),
        _ => None,
    }
}

/// An IP packet behind an Ethernet header, down to its ports.
///
/// A function of its own with the result in the caller's memory: once in a program, and off the stack of what follows.
#[inline(never)]
pub fn packet<B: Bytes + ?Sized>(bytes: &B, ethertype: u16, packet: &mut Packet) -> Result<(), Drop> {
    let v4 = match ethertype {
        ethertype::IPV4 => true,
        ethertype::IPV6 => false,
        _ => return Err(Drop::new(Reason::UNSUPPORTED_L2_PROTOCOL)),
    };
    let Network {
        source,
        destination,
        proto,
        ttl,
        later,
        fragment,
        l4,
        end,
    } = if v4 { ipv4(bytes)? } else { ipv6(bytes)? };
    let transport = if later {
        Transport {
            ports: NO_PORTS,
            tcp_flags: 0,
            kind: Kind::Fragment,
        }
    } else {
        transport(bytes, proto, v4, usize::from(l4), end)?
    };
    let Transport {
        ports: [source_port, destination_port],
        tcp_flags,
        kind,
    } = transport;
    packet.tuple = Tuple {
        source,
        destination,
        source_port,
        destination_port,
        proto,
    };
    (packet.kind, packet.tcp_flags, packet.ttl, packet.v4) = (kind, tcp_flags, ttl, v4);
    (packet.l4, packet.fragment, packet.end) = (l4, fragment, end as u32);
    Ok(())
}

#[inline(always)]
fn ipv4<B: Bytes + ?Sized>(bytes: &B) -> Result<Network, Drop> {
    let header: Ipv4 = bytes.read(ETH_LEN).ok_or_else(truncated)?;
    let header_length = usize::from(header.version_ihl & 0xf) * 4;
    let total = usize::from(header.total_length.get());
    // IPv4 BIG TCP says 0 where its length does not fit.
    let end = if total == 0 && bytes.is_gso() {
        bytes.len()
    } else {
        ETH_LEN + total
    };
    if header.version_ihl >> 4 != 4
        || header_length < IPV4_LEN
        || end < ETH_LEN + header_length
        || end > bytes.len()
    {
        return Err(truncated());
    }
    let fragment = header.fragment.get();
    Ok(Network {
        source: v4(header.source),
        destination: v4(header.destination),
        proto: header.proto,
        ttl: header.ttl,
        later: fragment & FRAGMENT_OFFSET_V4 != 0,
        fragment: if fragment & FRAGMENT_V4 == 0 {
            0
        } else {
            IDENTIFICATION_V4
        },
        l4: (ETH_LEN + header_length) as u16,
        end,
    })
}

#[inline(always)]
fn ipv6<B: Bytes + ?Sized>(bytes: &B) -> Result<Network, Drop> {
    let header: Ipv6 = bytes.read(ETH_LEN).ok_or_else(truncated)?;
    let payload = usize::from(header.payload_length.get());
    let end = if payload == 0 && bytes.is_gso() {
        bytes.len()
    } else {
        ETH_LEN + IPV6_LEN + payload
    };
    // The map keys' form of IPv4: on the wire it would pass for another packet's address (and the kernel refuses it too).
    let mapped = header.source.is_v4() || header.destination.is_v4();
    if mapped || header.version >> 4 != 6 || end > bytes.len() {
        return Err(truncated());
    }
    let mut chain = Chain {
        proto: header.next,
        later: false,
        fragment: 0,
        l4: (ETH_LEN + IPV6_LEN) as u16,
    };
    if is_extension(header.next) {
        follow(bytes, &mut chain, end)?;
    }
    let Chain {
        proto,
        later,
        fragment,
        l4,
    } = chain;
    Ok(Network {
        source: header.source,
        destination: header.destination,
        proto,
        ttl: header.hop_limit,
        later,
        fragment,
        l4,
        end,
    })
}

/// Where a chain of extension headers leads.
#[derive(Clone, Copy)]
struct Chain {
    proto: u8,
    later: bool,
    fragment: u16,
    l4: u16,
}

/// The extension headers that are looked behind. (IPsec, Mobile IPv6 and what is newer pass as protocols without ports.)
#[inline(always)]
const fn is_extension(next: u8) -> bool {
    matches!(
        next,
        proto::HOP_BY_HOP | proto::ROUTING | proto::FRAGMENT | proto::DESTINATION
    )
}

/// Rare enough for a call of its own, which keeps the way of the other packets short.
#[inline(never)]
fn follow<B: Bytes + ?Sized>(bytes: &B, chain: &mut Chain, end: usize) -> Result<(), Drop> {
    for _ in 0..IPV6_EXTENSIONS_MAX {
        let header: Extension = bytes.copy(usize::from(chain.l4)).ok_or_else(truncated)?;
        let mut units = u16::from(header.length) + 1;
        if chain.proto == proto::FRAGMENT {
            let offset = header.offset.get();
            chain.later = offset & FRAGMENT_OFFSET_V6 != 0;
            if offset & FRAGMENT_V6 != 0 {
                chain.fragment = chain.l4 + IDENTIFICATION_V6;
            }
            units = 1;
        }
        let next = chain.l4 + units * 8;
        if usize::from(next) > end {
            return Err(truncated());
        }
        if next > IPV6_HEADERS_END_MAX {
            return Err(Drop::new(Reason::INVALID_IPV6_EXTENSION_HEADER));
        }
        (chain.proto, chain.l4) = (header.next, next);
        if chain.later || !is_extension(chain.proto) {
            return Ok(());
        }
    }
    Err(Drop::new(Reason::INVALID_IPV6_EXTENSION_HEADER))
}

#[inline(always)]
fn transport<B: Bytes + ?Sized>(
    bytes: &B,
    proto: u8,
    v4: bool,
    at: usize,
    end: usize,
) -> Result<Transport, Drop> {
    let flow = |ports, tcp_flags| {
        Ok(Transport {
            ports,
            tcp_flags,
            kind: Kind::Flow,
        })
    };
    match proto {
        proto::TCP => {
            let header: Tcp = read_within(bytes, at, TCP_LEN, end)?;
            let length = usize::from(header.data_offset >> 4) * 4;
            if length < TCP_LEN || at + length > end {
                return Err(truncated());
            }
            flow(header.ports, header.flags)
        }
        proto::UDP => {
            let header: Udp = read_within(bytes, at, UDP_LEN, end)?;
            if usize::from(header.length.get()) < UDP_LEN {
                return Err(truncated());
            }
            flow(header.ports, 0)
        }
        proto::SCTP => flow(read_within(bytes, at, SCTP_LEN, end)?, 0),
        proto::ICMP if v4 => Ok(icmp4(read_within(bytes, at, ICMP_LEN, end)?)),
        proto::ICMPV6 if !v4 => Ok(icmp6(read_within(bytes, at, ICMP_LEN, end)?)),
        _ => flow(NO_PORTS, 0),
    }
}

/// Reads the beginning of a header of `length` bytes that must lie before `end`.
#[inline(always)]
fn read_within<B: Bytes + ?Sized, T: FromBytes + Copy>(
    bytes: &B,
    at: usize,
    length: usize,
    end: usize,
) -> Result<T, Drop> {
    if at + length > end {
        Err(truncated())
    } else {
        bytes.read(at).ok_or_else(truncated)
    }
}

#[inline(always)]
fn icmp4(header: Icmp) -> Transport {
    let (ports, kind) = match header.kind {
        icmp::ECHO | icmp::ECHO_REPLY => ([header.id; 2], Kind::Flow),
        icmp::UNREACHABLE
        | icmp::SOURCE_QUENCH
        | icmp::REDIRECT
        | icmp::TIME_EXCEEDED
        | icmp::PARAMETER_PROBLEM => (NO_PORTS, Kind::Error),
        _ => (NO_PORTS, Kind::Flow),
    };
    Transport {
        ports,
        tcp_flags: 0,
        kind,
    }
}

#[inline(always)]
fn icmp6(header: Icmp) -> Transport {
    let (ports, kind) = match header.kind {
        icmpv6::ECHO | icmpv6::ECHO_REPLY => ([header.id; 2], Kind::Flow),
        icmpv6::UNREACHABLE..=icmpv6::PARAMETER_PROBLEM => (NO_PORTS, Kind::Error),
        icmpv6::MLD_QUERY..=icmpv6::REDIRECT | icmpv6::MLD_REPORT_V2 => (NO_PORTS, Kind::Link),
        _ => (NO_PORTS, Kind::Flow),
    };
    Transport {
        ports,
        tcp_flags: 0,
        kind,
    }
}

/// The tuple of the packet that an ICMP error quotes: at least its IP header and the eight bytes behind. `None`: the quote
/// is of a later fragment. Where the quoted headers are is written into `packet`.
#[inline(always)]
pub fn quote<B: Bytes + ?Sized>(bytes: &B, packet: &mut Packet) -> Result<Option<Tuple>, Drop> {
    let at = packet.payload() + ICMP_LEN;
    let (source, destination, proto, l4, fragment) = if packet.v4 {
        let header: Ipv4 = read_within(bytes, at, IPV4_LEN, packet.end())?;
        let l4 = at + usize::from(header.version_ihl & 0xf) * 4;
        let fragment = header.fragment.get() & FRAGMENT_OFFSET_V4 != 0;
        (
            v4(header.source),
            v4(header.destination),
            header.proto,
            l4,
            fragment,
        )
    } else {
        let header: Ipv6 = read_within(bytes, at, IPV6_LEN, packet.end())?;
        let mut quoted = Chain {
            proto: header.next,
            later: false,
            fragment: 0,
            l4: (at + IPV6_LEN) as u16,
        };
        if is_extension(header.next) {
            follow(bytes, &mut quoted, packet.end())?;
        }
        let (source, destination) = (header.source, header.destination);
        (
            source,
            destination,
            quoted.proto,
            usize::from(quoted.l4),
            quoted.later,
        )
    };
    if fragment {
        return Ok(None);
    }
    (packet.quoted, packet.quoted_proto) = (l4 as u16, proto);
    let [source_port, destination_port] = match proto {
        proto::TCP | proto::UDP | proto::SCTP => read_within(bytes, l4, 4, packet.end())?,
        proto::ICMP if packet.v4 => icmp4(read_within(bytes, l4, ICMP_LEN, packet.end())?).ports,
        proto::ICMPV6 if !packet.v4 => icmp6(read_within(bytes, l4, ICMP_LEN, packet.end())?).ports,
        _ => NO_PORTS,
    };
    Ok(Some(Tuple {
        source,
        destination,
        source_port,
        destination_port,
        proto,
    }))
}

/// Fills in as much of a refused packet as can be told.
#[inline(always)]
pub fn describe<B: Bytes + ?Sized>(bytes: &B, event: &mut DropEvent) {
    let Ok(ethernet) = ethernet(bytes) else { return };
    event.ethertype = ethernet.ethertype;
    let mut understood = Packet::EMPTY;
    if packet(bytes, ethernet.ethertype.get(), &mut understood).is_err() {
        event.destination = destination(bytes, ethernet.ethertype.get()).unwrap_or(Addr::UNSPECIFIED);
        return;
    }
    let Tuple {
        source,
        destination,
        source_port,
        destination_port,
        proto,
    } = understood.tuple;
    event.source = source;
    event.destination = destination;
    event.source_port = source_port;
    event.destination_port = destination_port;
    event.proto = proto;
    event.tcp_flags = understood.tcp_flags;
    if matches!(proto, proto::ICMP | proto::ICMPV6) && understood.kind != Kind::Fragment {
        event.icmp = bytes.read(understood.payload()).unwrap_or_default();
    }
}

/// Everything that the programs do with bytes before they decide, for tests and the fuzzer.
#[must_use]
pub fn examine(bytes: &[u8]) -> Option<Result<Packet, Drop>> {
    describe(bytes, &mut DropEvent::new_zeroed());
    let ethernet = ethernet(bytes).ok()?;
    let mut understood = Packet::EMPTY;
    if let Err(drop) = packet(bytes, ethernet.ethertype.get(), &mut understood) {
        return Some(Err(drop));
    }
    if understood.kind == Kind::Error {
        let _ = quote(bytes, &mut understood);
    }
    Some(Ok(understood))
}
