// SPDX-License-Identifier: Apache-2.0
//! Frames.

use std::net::IpAddr;

use datapath::common::Mac;
use datapath::common::packet::GATEWAY_MAC;
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
        let mut builder = self.ip().tcp(source_port, destination_port, 1, 65_000);
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
        let mut quote = about[14..].to_vec();
        quote.truncate(if self.source.is_ipv4() { 28 } else { 48 });
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
