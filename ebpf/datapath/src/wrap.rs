// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Tunnel packets made and unmade by the programs themselves, where the kernel has no device for it. On the wire they are the
//! same: VXLAN (RFC 7348 §5) or Geneve (RFC 8926 §3) over UDP, with an Ethernet frame inside.
//!
//! ```text
//! Ethernet | IPv4 or IPv6 | UDP | 8 bytes of VXLAN or Geneve (+ Geneve options) | Ethernet | IP packet of a pod
//!          '--------------- what is put in, and taken out ----------------------'
//! ```

use datapath_common::packet::{
    ETH_LEN, GATEWAY_MAC, IPV4_LEN, IPV6_LEN, TUNNEL_MAC, UDP_LEN, ethertype, proto,
};
use datapath_common::{Addr, Be16, LocalNode, NodeConfig, Prefix, Reason, Tuple};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::ctx::Room;
use crate::header::{Ipv4, Ipv6, VERSION_IHL, length};
use crate::parse::{Bytes, Ethernet};
use crate::{Ctx, Drop, Verdict, fib, maps};

/// Bytes of the tunnel's own header without options.
const HEADER_LEN: usize = 8;
/// Fragment offset and "more fragments" of IPv4.
const FRAGMENT: u16 = 0x3fff;
/// VXLAN: the network identifier is valid.
const VXLAN_VALID: u8 = 0x08;
/// Geneve: words of options, in the first byte; the two bits above are the version, which is 0.
const GENEVE_WORDS: u8 = 0x3f;
/// Geneve: a control packet, or one with an option that whoever does not know it must not ignore (RFC 8926 §3.4). None is
/// known here.
const GENEVE_REFUSED: u8 = 0x80 | 0x40;
/// Geneve: what is inside is an Ethernet frame.
const GENEVE_ETHERNET: Be16 = Be16::new(0x6558);
/// Source ports say which flow is inside, so that the network spreads flows over its paths (RFC 7348 §5): the dynamic range.
const SOURCE_PORTS: u16 = 0xc000;

#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct Udp {
    source: Be16,
    destination: Be16,
    length: Be16,
    check: Be16,
}

/// Of either protocol: in both, the network identifier is the three bytes before the last.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct Header {
    first: u8,
    flags: u8,
    protocol: Be16,
    vni: [u8; 3],
    _reserved: u8,
}

/// What is put in behind the outer IP header.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct Inside {
    udp: Udp,
    header: Header,
    frame: Ethernet,
}

const INSIDE_LEN: usize = UDP_LEN + HEADER_LEN + ETH_LEN;
const _: () = assert!(size_of::<Inside>() == INSIDE_LEN);

/// Wraps the packet and sends it to the node of `prefix`.
#[inline(never)]
pub fn send(ctx: &Ctx, prefix: &Prefix, node: &LocalNode) -> Result<Verdict, Drop> {
    let v4 = prefix.node.is_v4();
    let (_, port) = maps::tunnel();
    let outer = Tuple {
        source: node.address(v4),
        destination: prefix.node,
        source_port: Be16::new(SOURCE_PORTS | ctx.flow_hash() as u16),
        destination_port: port,
        proto: proto::UDP,
    };
    if outer.source == Addr::UNSPECIFIED {
        return Err(Drop::new(Reason::NO_TUNNEL_OR_ENCAPSULATION_ENDPOINT));
    }
    let way = fib::find(ctx, &outer)?;
    let inner = ctx
        // A copy: reading in place calls a function, for which kernels before 6.9 have no stack left here.
        .copy::<Ethernet>(0)
        .ok_or(Drop::new(Reason::CT_TRUNCATED_OR_INVALID_HEADER))?
        .ethertype;
    let room = if v4 { Room::V4 } else { Room::V6 };
    let ip_length = if v4 { IPV4_LEN } else { IPV6_LEN };
    // The frame's own Ethernet header becomes the outer one, and is written again behind the tunnel's.
    let inner_length = ctx.length() - ETH_LEN as u32;
    ctx.make_room((ip_length + INSIDE_LEN) as i32, room)?;
    let payload = inner_length + INSIDE_LEN as u32;
    let outer_type = if v4 {
        let header = Ipv4::new(proto::UDP, &outer.source, &outer.destination, payload);
        ctx.write(ETH_LEN, header)?;
        ethertype::IPV4
    } else {
        let header = Ipv6::new(proto::UDP, &outer.source, &outer.destination, payload);
        ctx.write(ETH_LEN, header)?;
        ethertype::IPV6
    };
    ctx.write(ETH_LEN + ip_length, inside(&outer, payload, inner))?;
    way.send(ctx, Be16::new(outer_type))
}

#[inline(always)]
fn inside(outer: &Tuple, length_of_udp: u32, inner: Be16) -> Inside {
    let [_, vni @ ..] = maps::tunnel().0.to_be_bytes();
    let geneve = maps::configured(NodeConfig::GENEVE);
    Inside {
        udp: Udp {
            source: outer.source_port,
            destination: outer.destination_port,
            length: length(length_of_udp),
            // None: allowed over IPv4, and for tunnels over IPv6 (RFC 6935 §5).
            check: Be16::new(0),
        },
        header: Header {
            first: if geneve { 0 } else { VXLAN_VALID },
            flags: 0,
            protocol: if geneve { GENEVE_ETHERNET } else { Be16::new(0) },
            vni,
            _reserved: 0,
        },
        frame: Ethernet {
            destination: TUNNEL_MAC,
            source: GATEWAY_MAC,
            ethertype: inner,
        },
    }
}

/// Unwraps a packet that is for this node; who sent it. `None`: it is not of the tunnel, and untouched.
#[inline(always)]
pub fn receive(ctx: &Ctx, outer_type: u16) -> Result<Option<Addr>, Drop> {
    let (sender, at) = match outer_type {
        ethertype::IPV4 => match ctx.read::<Ipv4>(ETH_LEN) {
            Some(ip)
                if ip.version_ihl == VERSION_IHL
                    && ip.proto == proto::UDP
                    && ip.fragment.get() & FRAGMENT == 0 =>
            {
                (Addr::v4(ip.source), ETH_LEN + IPV4_LEN)
            }
            _ => return Ok(None),
        },
        _ => match ctx.read::<Ipv6>(ETH_LEN) {
            Some(ip) if ip.next == proto::UDP => (Addr::from_quarters(ip.source), ETH_LEN + IPV6_LEN),
            _ => return Ok(None),
        },
    };
    match ctx.read::<Udp>(at) {
        Some(udp) if udp.destination == maps::tunnel().1 => {
            unwrap(ctx, at, outer_type == ethertype::IPV4)?;
            Ok(Some(sender))
        }
        _ => Ok(None),
    }
}

/// Takes out everything between the outer Ethernet header, which stays, and the inner IP packet: as many bytes as the inner
/// frame is away from the outer one, since both begin with an Ethernet header.
#[inline(never)]
fn unwrap(ctx: &Ctx, udp_at: usize, outer_v4: bool) -> Result<(), Drop> {
    let malformed = Drop::new(Reason::CT_TRUNCATED_OR_INVALID_HEADER);
    let header_at = udp_at + UDP_LEN;
    let header: Header = ctx.read(header_at).ok_or(malformed)?;
    let options = check(&header)?;
    let frame_at = header_at + HEADER_LEN + options;
    let inner_type = ctx.read::<Ethernet>(frame_at).ok_or(malformed)?.ethertype;
    let inner_v4 = match inner_type.get() {
        ethertype::IPV4 => true,
        ethertype::IPV6 => false,
        _ => return Err(Drop::new(Reason::UNSUPPORTED_L2_PROTOCOL)),
    };
    let room = match (outer_v4 == inner_v4, inner_v4) {
        (true, _) => Room::SAME,
        (false, true) => Room::TO_V4,
        (false, false) => Room::TO_V6,
    };
    ctx.take_out(frame_at as i32, room)?;
    ctx.write(ETHERTYPE_AT, inner_type)
}

/// Where an Ethernet header says what follows.
const ETHERTYPE_AT: usize = ETH_LEN - 2;

/// Bytes of options behind the header, which must be of our network.
#[inline(always)]
fn check(header: &Header) -> Result<usize, Drop> {
    let [_, vni @ ..] = maps::tunnel().0.to_be_bytes();
    let options = if maps::configured(NodeConfig::GENEVE) {
        if header.first & !GENEVE_WORDS != 0 || header.flags & GENEVE_REFUSED != 0 {
            return Err(Drop::new(Reason::INVALID_GENEVE_OPTION));
        }
        if header.protocol != GENEVE_ETHERNET {
            return Err(Drop::new(Reason::UNSUPPORTED_L2_PROTOCOL));
        }
        usize::from(header.first & GENEVE_WORDS) * 4
    } else {
        if header.first & VXLAN_VALID == 0 {
            return Err(Drop::new(Reason::INVALID_VNI));
        }
        0
    };
    if header.vni == vni {
        Ok(options)
    } else {
        Err(Drop::new(Reason::INVALID_VNI))
    }
}
