// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Numbers of the protocols, and the addresses of the gateway that every pod sees.

use crate::Mac;

/// The MAC of the host end of every pod's veth.
pub const GATEWAY_MAC: Mac = Mac([0x02, 0x74, 0x77, 0x00, 0x00, 0x01]);
/// The MAC that packets through the tunnel are for, the same on every node. Their source is [`GATEWAY_MAC`].
pub const TUNNEL_MAC: Mac = Mac([0x02, 0x74, 0x77, 0x00, 0x00, 0x02]);
/// The IPv4 gateway of every pod. No device has it.
pub const GATEWAY_V4: [u8; 4] = [169, 254, 1, 1];
/// The IPv6 gateway of every pod, `fe80::1`. No device has it.
pub const GATEWAY_V6: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// The mark of packets that take the host's stack but must not leave it as they are: a rule leads them to `thalweg_host`. Of the
/// packet's mark only [`DETOUR_MASK`] counts; the rest is netfilter's.
pub const DETOUR_MARK: u32 = 0x7477_0000;
/// The bits of [`DETOUR_MARK`].
pub const DETOUR_MASK: u32 = 0xffff_0000;

/// Bytes of an Ethernet header.
pub const ETH_LEN: usize = 14;
/// Bytes of an IPv4 header without options.
pub const IPV4_LEN: usize = 20;
/// Bytes of an IPv6 header.
pub const IPV6_LEN: usize = 40;
/// Bytes of a TCP header without options.
pub const TCP_LEN: usize = 20;
/// Bytes of a UDP header.
pub const UDP_LEN: usize = 8;
/// Bytes of the common part of an SCTP packet.
pub const SCTP_LEN: usize = 12;
/// Bytes of an ICMP or ICMPv6 header with its four bytes of parameters.
pub const ICMP_LEN: usize = 8;
/// Bytes of an ARP packet for IPv4 on Ethernet.
pub const ARP_LEN: usize = 28;
/// Extension headers of IPv6 that a packet may carry before its payload: one of each kind. Each one more costs the verifier
/// as much again as all that follows it.
pub const IPV6_EXTENSIONS_MAX: usize = 4;

/// Where the last of them may end, of a packet or of the packet that an ICMP error quotes. Hosts keep all headers within the
/// first fragment (RFC 7112), so within 1,280 bytes. With a bound, all lengths of a chain look alike to the verifier.
pub const IPV6_HEADERS_END_MAX: u16 = 2047;

/// EtherTypes.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
}

/// IP protocols and IPv6 next headers.
pub mod proto {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 destination options.
    pub const DESTINATION: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// The name that people know it by, if any.
    #[must_use]
    pub const fn name(proto: u8) -> Option<&'static str> {
        Some(match proto {
            ICMP => "icmp",
            TCP => "tcp",
            UDP => "udp",
            ICMPV6 => "icmpv6",
            SCTP => "sctp",
            _ => return None,
        })
    }
}

/// TCP flags.
pub mod tcp {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Open.
    pub const SYN: u8 = 0x02;
    /// Abort.
    pub const RST: u8 = 0x04;
    /// The acknowledgment number is valid.
    pub const ACK: u8 = 0x10;
}

/// ICMP types.
pub mod icmp {
    /// Answer to [`ECHO`].
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Source quench, obsolete.
    pub const SOURCE_QUENCH: u8 = 4;
    /// Redirect.
    pub const REDIRECT: u8 = 5;
    /// Ping.
    pub const ECHO: u8 = 8;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
}

/// ICMPv6 types.
pub mod icmpv6 {
    /// Destination unreachable, the first of the errors.
    pub const UNREACHABLE: u8 = 1;
    /// Packet too big.
    pub const PACKET_TOO_BIG: u8 = 2;
    /// Parameter problem, the last of the errors that exist.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// Ping.
    pub const ECHO: u8 = 128;
    /// Answer to [`ECHO`].
    pub const ECHO_REPLY: u8 = 129;
    /// Multicast listener query, the first of the three messages of version 1.
    pub const MLD_QUERY: u8 = 130;
    /// Multicast listener done, the last of the three.
    pub const MLD_DONE: u8 = 132;
    /// Router solicitation, the first message of neighbour discovery.
    pub const ROUTER_SOLICITATION: u8 = 133;
    /// Router advertisement.
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    /// Neighbour solicitation.
    pub const NEIGHBOUR_SOLICITATION: u8 = 135;
    /// Neighbour advertisement.
    pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    /// Redirect, the last message of neighbour discovery.
    pub const REDIRECT: u8 = 137;
    /// Multicast listener report, version 2.
    pub const MLD_REPORT_V2: u8 = 143;
}
