// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Why a packet was dropped. Numbers and names are those of Hubble's `flow.DropReason` where it has one, so that its
//! clients understand ours; those from [`Reason::OWN_FIRST`] on are ours alone.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The reason of a verdict, as it lies in events and numbers the rows of `metrics`.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Reason(pub u8);

macro_rules! reasons {
    ($($(#[doc = $text:literal])+ $name:ident = $number:literal,)+) => {
        impl Reason {
            $($(#[doc = $text])+ pub const $name: Self = Self($number);)+

            /// Every reason that the programs use, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The constant's name, for machines; `None` for a number that this version does not know.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(stringify!($name)),)+
                    _ => None,
                }
            }

            /// One sentence for people.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($text),+).trim_ascii_start(),)+
                    _ => "A reason that this version does not know.",
                }
            }
        }
    };
}

reasons! {
    /// Not a drop: the packet went on.
    FORWARDED = 0,
    /// The Ethernet source is not the pod's own.
    INVALID_SOURCE_MAC = 130,
    /// The Ethernet destination is not the gateway's.
    INVALID_DESTINATION_MAC = 131,
    /// The source address does not belong to the sender.
    INVALID_SOURCE_IP = 132,
    /// A header is cut short or contradicts itself.
    CT_TRUNCATED_OR_INVALID_HEADER = 135,
    /// Neither IPv4 nor IPv6 as this node is configured.
    UNSUPPORTED_L3_PROTOCOL = 139,
    /// The packet could not be changed; the kernel was short of memory.
    ERROR_WRITING_TO_PACKET = 141,
    /// A packet came through the tunnel, but the kernel does not say from whom.
    ERROR_RETRIEVING_TUNNEL_KEY = 147,
    /// An option of a Geneve packet is malformed, or critical and unknown here (RFC 8926 §3.5).
    INVALID_GENEVE_OPTION = 149,
    /// A pod asked for the Ethernet address of something other than its gateway.
    UNKNOWN_L3_TARGET_ADDRESS = 150,
    /// The address is of this node's pods, but no pod has it.
    STALE_OR_UNROUTABLE_IP = 151,
    /// The connection table is full.
    CT_MAP_INSERTION_FAILED = 155,
    /// Too many or malformed IPv6 extension headers.
    INVALID_IPV6_EXTENSION_HEADER = 156,
    /// A service has no backend that would answer.
    SERVICE_BACKEND_NOT_FOUND = 158,
    /// This node has no address of the family of the tunnel.
    NO_TUNNEL_OR_ENCAPSULATION_ENDPOINT = 160,
    /// Neither IP nor ARP.
    UNSUPPORTED_L2_PROTOCOL = 166,
    /// Every port of the node that was tried towards this remote end is taken: no new connection can be masqueraded.
    NO_MAPPING_FOR_NAT_MASQUERADE = 167,
    /// A pod sent a protocol to the world whose answers nothing would tell whose they are.
    UNSUPPORTED_PROTOCOL_FOR_NAT_MASQUERADE = 168,
    /// The node has no route to the other end of the tunnel, or none past its stack for a masqueraded packet.
    FIB_LOOKUP_FAILED = 169,
    /// The tunnel could not wrap or unwrap the packet.
    ENCAPSULATION_TRAFFIC_IS_PROHIBITED = 170,
    /// A packet came through the tunnel from a machine that does not have its source address.
    UNKNOWN_SENDER = 172,
    /// A fragment of a masqueraded datagram came before the first one, which has the ports.
    FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND = 175,
    /// A pod sent a router advertisement, a redirect or another neighbour message that only a gateway may send.
    FORBIDDEN_ICMPV6_MESSAGE = 176,
    /// A client from outside may not use this service (`loadBalancerSourceRanges`).
    DENIED_BY_LB_SRC_RANGE_CHECK = 177,
    /// A pod sent a frame with a VLAN tag, with which it would leave the node in another network.
    VLAN_FILTERED = 182,
    /// A packet came through the tunnel with another network identifier.
    INVALID_VNI = 183,
    /// An answer to a masqueraded packet ended its last hop at this node.
    TTL_EXCEEDED = 196,
    /// Duplicate address detection, router solicitation, multicast listener report: every IPv6 stack sends them, and on
    /// a pod's link nobody needs them. Counted, without an event.
    LINK_LOCAL_CHATTER = 224,
    /// A pod sent to a multicast or broadcast address.
    MULTICAST = 225,
    /// Not a dropped packet: an event that found the ring full.
    EVENT_LOST = 226,
    /// An ICMP error about no connection that is known here.
    UNRELATED_ICMP_ERROR = 227,
}

impl Reason {
    /// The first number that is ours and not Hubble's.
    pub const OWN_FIRST: u8 = 224;

    /// Whether a packet was lost for this reason.
    #[must_use]
    pub const fn is_drop(self) -> bool {
        !matches!(self, Self::FORWARDED | Self::EVENT_LOST)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => write!(f, "UNKNOWN_{}", self.0),
        }
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_in_order_named_and_described() {
        assert!(Reason::ALL.is_sorted_by(|a, b| a < b));
        for reason in Reason::ALL {
            assert!(reason.name().is_some());
            assert!(reason.description().ends_with('.'), "{reason}");
        }
    }

    #[test]
    fn an_unknown_number_is_shown_not_hidden() {
        assert_eq!(Reason(99).to_string(), "UNKNOWN_99");
        assert_eq!(
            Reason::CT_MAP_INSERTION_FAILED.to_string(),
            "CT_MAP_INSERTION_FAILED"
        );
    }
}
