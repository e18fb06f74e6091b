// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! What the programs write to the ring buffer. Each event begins with its version and kind.

use core::fmt;

use crate::{Addr, Be16, Reason};

/// The version of all events of this file.
pub const VERSION: u8 = 1;

/// [`DropEvent::kind`].
pub const KIND_DROP: u8 = 1;

/// [`PathMtu::kind`].
pub const KIND_PATH_MTU: u8 = 2;

row! {
    /// A router on the way to another node takes less than a packet of the tunnel has.
    pub struct PathMtu: 24 {
        /// [`VERSION`].
        pub version: u8,
        /// [`KIND_PATH_MTU`].
        pub kind: u8,
        /// Bytes of the largest IP packet that it takes.
        pub mtu: u16,
        /// Zero.
        pub _reserved: u32,
        /// The node's underlay address.
        pub node: Addr,
    }
}

row! {
    /// A packet was dropped.
    pub struct DropEvent: 64 {
        /// [`VERSION`].
        pub version: u8,
        /// [`KIND_DROP`].
        pub kind: u8,
        /// Why.
        pub reason: Reason,
        /// A [`Direction`](crate::Direction).
        pub direction: u8,
        /// The device at whose hook it happened.
        pub ifindex: u32,
        /// Nanoseconds of the monotonic clock.
        pub timestamp: u64,
        /// Source; unspecified if the packet was not understood so far.
        pub source: Addr,
        /// Destination, likewise.
        pub destination: Addr,
        /// Source port, or identifier of an echo; 0 if there is none.
        pub source_port: Be16,
        /// Destination port, likewise.
        pub destination_port: Be16,
        /// Bytes with the Ethernet header.
        pub length: u32,
        /// EtherType.
        pub ethertype: Be16,
        /// IP protocol; 0 if unknown.
        pub proto: u8,
        /// TCP flags.
        pub tcp_flags: u8,
        /// ICMP type and code.
        pub icmp: [u8; 2],
        /// A [`Hook`].
        pub hook: u8,
        /// Zero.
        pub _reserved: u8,
    }
}

/// The program that gave the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Hook {
    /// What a pod sends.
    FromPod = 1,
    /// What arrives from outside.
    FromWire = 2,
    /// What the host sends to local pods.
    FromHost = 3,
    /// What arrives from other nodes through the tunnel.
    FromTunnel = 4,
}

impl Hook {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::FromPod, Self::FromWire, Self::FromHost, Self::FromTunnel];

    /// From the number of an event.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::FromPod),
            2 => Some(Self::FromWire),
            3 => Some(Self::FromHost),
            4 => Some(Self::FromTunnel),
            _ => None,
        }
    }

    /// The program's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FromPod => "from_pod",
            Self::FromWire => "from_wire",
            Self::FromHost => "from_host",
            Self::FromTunnel => "from_tunnel",
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
