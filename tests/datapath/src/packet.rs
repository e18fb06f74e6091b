// SPDX-License-Identifier: Apache-2.0
//! Frames.

use std::net::{IpAddr, SocketAddr};

use datapath::common::packet::GATEWAY_MAC;
use datapath::common::{Mac, checksum};
use etherparse::{PacketBuilder, PacketBuilderStep};

/// Who sends to whom.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// Ethernet source.
    pub from: Mac,
    /// Ethernet destination.
    pub to: Mac,
    /// IP source.
    pub source: IpAddr,
    /// IP destination.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
}

impl Path {
    /// From a pod to the gateway's MAC.
    pub fn new(from: Mac, source: impl Into<IpAddr>, destination: impl Into<IpAddr>) -> Self {
        Self {
            from,
            to: GATEWAY_MAC,
            source: source.into(),
            destination: destination.into(),
            ttl: 64,
        }
    }

    /// The way back.
    #[must_use]
    pub fn reply(self, from: Mac) -> Self {
        Self {
            from,
            source: self.destination,
            destination: self.source,
            ..self
        }
    }

    fn ip(&self) -> PacketBuilderStep<etherparse::IpHeaders> {
        let ethernet = PacketBuilder::ethernet2(self.from.0, self.to.0);
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                ethernet.ipv4(source.octets(), destination.octets(), self.ttl)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                ethernet.ipv6(source.octets(), destination.octets(), self.ttl)
            }
            _ => panic!("mixed families"),
        }
    }

    /// UDP with so much payload.
    #[must_use]
    pub fn udp_of(&self, source_port: u16, destination_port: u16, bytes: usize) -> Vec<u8> {
        let builder = self.ip().udp(source_port, destination_port);
        let mut frame = Vec::new();
        builder.write(&mut frame, &vec![0x5a; bytes]).expect("frame");
        frame
    }

    /// A protocol with its payload as it is.
    #[must_use]
    pub fn raw(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        self.ip()
            .write(&mut frame, protocol.into(), payload)
            .expect("frame");
        frame
    }

    /// UDP.
    #[must_use]
    pub fn udp(&self, source_port: u16, destination_port: u16) -> Vec<u8> {
        self.udp_with(source_port, destination_port, b"thalweg")
    }

    /// UDP with this payload.
    #[must_use]
    pub fn udp_with(&self, source_port: u16, destination_port: u16, payload: &[u8]) -> Vec<u8> {
        let builder = self.ip().udp(source_port, destination_port);
        let mut frame = Vec::new();
        builder.write(&mut frame, payload).expect("frame");
        frame
    }

    /// TCP; flags as letters of `SAFRP`.
    #[must_use]
    pub fn tcp(&self, source_port: u16, destination_port: u16, flags: &str) -> Vec<u8> {
        self.tcp_at(source_port, destination_port, flags, 1)
    }

    /// The same with this sequence number.
    #[must_use]
    pub fn tcp_at(&self, source_port: u16, destination_port: u16, flags: &str, sequence: u32) -> Vec<u8> {
        let mut builder = self.ip().tcp(source_port, destination_port, sequence, 65_000);
        for flag in flags.chars() {
            builder = match flag {
                'S' => builder.syn(),
                'A' => builder.ack(1),
                'F' => builder.fin(),
                'R' => builder.rst(),
                'P' => builder.psh(),
                other => panic!("no flag {other}"),
            };
        }
        let mut frame = Vec::new();
        builder
            .write(&mut frame, if flags.contains('P') { b"thalweg" } else { b"" })
            .expect("frame");
        frame
    }

    /// A ping, or the answer to one.
    #[must_use]
    pub fn echo(&self, id: u16, reply: bool) -> Vec<u8> {
        let mut frame = Vec::new();
        let result = match (self.source, reply) {
            (IpAddr::V4(_), false) => self.ip().icmpv4_echo_request(id, 1).write(&mut frame, b"thalweg"),
            (IpAddr::V4(_), true) => self.ip().icmpv4_echo_reply(id, 1).write(&mut frame, b"thalweg"),
            (IpAddr::V6(_), false) => self.ip().icmpv6_echo_request(id, 1).write(&mut frame, b"thalweg"),
            (IpAddr::V6(_), true) => self.ip().icmpv6_echo_reply(id, 1).write(&mut frame, b"thalweg"),
        };
        result.expect("frame");
        frame
    }

    /// An ICMP error (type, code) that quotes the IP packet of a frame: as routers do, its header and a few bytes.
    #[must_use]
    pub fn icmp_error(&self, kind: u8, code: u8, about: &[u8]) -> Vec<u8> {
        let bytes = if self.source.is_ipv4() { 28 } else { 48 };
        self.icmp_error_quoting(kind, code, about, bytes)
    }

    /// The same with so many bytes of the packet at most.
    #[must_use]
    pub fn icmp_error_quoting(&self, kind: u8, code: u8, about: &[u8], bytes: usize) -> Vec<u8> {
        let mut quote = about[14..].to_vec();
        quote.truncate(bytes);
        let mut frame = Vec::new();
        let result = match self.source {
            IpAddr::V4(_) => self.ip().icmpv4_raw(kind, code, [0; 4]).write(&mut frame, &quote),
            IpAddr::V6(_) => self.ip().icmpv6_raw(kind, code, [0; 4]).write(&mut frame, &quote),
        };
        result.expect("frame");
        frame
    }

    /// ICMPv6 of any kind, with what follows its checksum.
    #[must_use]
    pub fn icmpv6(&self, kind: u8, body: &[u8]) -> Vec<u8> {
        let (head, rest) = body.split_first_chunk::<4>().expect("four bytes");
        let mut frame = Vec::new();
        self.ip()
            .icmpv6_raw(kind, 0, *head)
            .write(&mut frame, rest)
            .expect("frame");
        frame
    }
}

/// An ARP packet.
#[must_use]
pub fn arp(operation: u8, from: Mac, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(from.0);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend(from.0);
    frame.extend(sender);
    frame.extend([0; 6]);
    frame.extend(target);
    frame
}

/// A neighbour solicitation for `target`.
#[must_use]
pub fn solicitation(from: Mac, source: &str, target: &str, option: bool) -> Vec<u8> {
    let (source, target): (IpAddr, std::net::Ipv6Addr) =
        (source.parse().expect("ip"), target.parse().expect("ip"));
    let multicast: IpAddr = "ff02::1:ff00:1".parse().expect("ip");
    let path = Path {
        to: Mac([0x33, 0x33, 0xff, 0, 0, 1]),
        ttl: 255,
        ..Path::new(from, source, multicast)
    };
    let mut body = vec![0; 4];
    body.extend(target.octets());
    if option {
        body.extend([1, 1]);
        body.extend(from.0);
    }
    path.icmpv6(135, &body)
}

/// Where the IP header of a frame ends, its protocol, and whether it is IPv4. Only fragment headers are followed.
fn transport(frame: &[u8]) -> (usize, u8, bool) {
    match frame[12..14] {
        [8, 0] => (14 + usize::from(frame[14] & 0xf) * 4, frame[23], true),
        _ if frame[20] == 44 => (54 + 8, frame[54], false),
        _ => (54, frame[20], false),
    }
}

/// Where the addresses of a frame lie, each of so many bytes.
fn addresses(v4: bool) -> ([usize; 2], usize) {
    if v4 { ([26, 30], 4) } else { ([22, 38], 16) }
}

/// Where the ports of both ends lie; of an echo, its identifier.
fn ports(l4: usize, protocol: u8) -> [usize; 2] {
    match protocol {
        1 | 58 => [l4 + 4; 2],
        _ => [l4, l4 + 2],
    }
}

/// Source and destination of a frame. Of a later fragment, the ports are what lies in their place.
#[must_use]
pub fn ends(frame: &[u8]) -> (SocketAddr, SocketAddr) {
    let (l4, protocol, v4) = transport(frame);
    let (at, length) = addresses(v4);
    let ports = ports(l4, protocol);
    let [source, destination] = [0, 1].map(|end| {
        let bytes = &frame[at[end]..at[end] + length];
        let ip = match <[u8; 4]>::try_from(bytes) {
            Ok(octets) => IpAddr::from(octets),
            Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes).expect("16 bytes")),
        };
        let port = frame.get(ports[end]..ports[end] + 2).unwrap_or(&[0, 0]);
        SocketAddr::new(ip, u16::from_be_bytes([port[0], port[1]]))
    });
    (source, destination)
}

/// Writes source and destination, and both checksums anew.
pub fn set_ends(frame: &mut [u8], source: SocketAddr, destination: SocketAddr) {
    let (l4, protocol, v4) = transport(frame);
    let (at, length) = addresses(v4);
    let ports = ports(l4, protocol);
    for (end, address) in [source, destination].into_iter().enumerate() {
        let octets = match address.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        frame[at[end]..at[end] + length].copy_from_slice(&octets);
        frame[ports[end]..ports[end] + 2].copy_from_slice(&address.port().to_be_bytes());
    }
    if v4 {
        renew_ip_checksum(frame);
    }
    let field = l4 + checksum_field(protocol).expect("a transport with a checksum");
    frame[field..field + 2].fill(0);
    let check = checksum::finish(transport_sum(frame, l4, protocol, v4));
    frame[field..field + 2].copy_from_slice(&check.raw().to_ne_bytes());
}

/// Computes the checksum of an IPv4 header.
pub fn renew_ip_checksum(frame: &mut [u8]) {
    let (l4, ..) = transport(frame);
    frame[24..26].fill(0);
    let check = checksum::finish(checksum::sum(&frame[14..l4]));
    frame[24..26].copy_from_slice(&check.raw().to_ne_bytes());
}

fn checksum_field(protocol: u8) -> Option<usize> {
    match protocol {
        6 => Some(16),
        17 => Some(6),
        1 | 58 => Some(2),
        _ => None,
    }
}

fn transport_sum(frame: &[u8], l4: usize, protocol: u8, v4: bool) -> u32 {
    let (at, length) = addresses(v4);
    let mut sum = checksum::sum(&frame[l4..]);
    if protocol != 1 {
        let bytes = u16::try_from(frame.len() - l4).expect("short");
        sum += checksum::sum(&frame[at[0]..at[0] + 2 * length]);
        sum += checksum::sum(&bytes.to_be_bytes()) + checksum::sum(&[0, protocol]);
    }
    sum
}

/// Asserts that the checksums of an unfragmented frame hold.
pub fn sums_hold(frame: &[u8]) {
    let (l4, protocol, v4) = transport(frame);
    if v4 {
        assert_eq!(
            checksum::finish(checksum::sum(&frame[14..l4])).raw(),
            0,
            "of IPv4"
        );
    }
    if checksum_field(protocol).is_some() {
        let sum = transport_sum(frame, l4, protocol, v4);
        assert_eq!(checksum::finish(sum).raw(), 0, "of protocol {protocol}");
    }
}

/// A frame in fragments with this identification and so much payload each, a multiple of 8.
#[must_use]
pub fn fragments(frame: &[u8], id: u16, bytes: usize) -> Vec<Vec<u8>> {
    let (l4, protocol, v4) = transport(frame);
    let pieces: Vec<&[u8]> = frame[l4..].chunks(bytes).collect();
    let last = pieces.len() - 1;
    let piece = |(number, piece): (usize, &&[u8])| {
        let offset = u16::try_from(number * bytes).expect("short");
        let length = u16::try_from(piece.len()).expect("short");
        let mut fragment = frame[..l4].to_vec();
        if v4 {
            let more = if number == last { 0 } else { 0x2000 };
            fragment[16..18].copy_from_slice(&(20 + length).to_be_bytes());
            fragment[18..20].copy_from_slice(&id.to_be_bytes());
            fragment[20..22].copy_from_slice(&((offset / 8) | more).to_be_bytes());
            renew_ip_checksum(&mut fragment);
        } else {
            fragment[18..20].copy_from_slice(&(8 + length).to_be_bytes());
            fragment[20] = 44;
            fragment.extend([protocol, 0]);
            fragment.extend((offset | u16::from(number != last)).to_be_bytes());
            fragment.extend(u32::from(id).to_be_bytes());
        }
        fragment.extend(*piece);
        fragment
    };
    pieces.iter().enumerate().map(piece).collect()
}
