// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! What fragments of a datagram share: only the first carries ports.

use crate::{Addr, Be16};

row! {
    /// The key of `fragments`: a datagram, as RFC 791 §2.3 and RFC 8200 §4.5 tell it from others.
    pub struct FragmentKey: 40 {
        /// Source address.
        pub source: Addr,
        /// Destination address.
        pub destination: Addr,
        /// Identification, as it lies in the packet; of IPv4, in the first two bytes.
        pub id: u32,
        /// IP protocol; of IPv6, [`FRAGMENT`](crate::packet::proto::FRAGMENT), for each of its fragments may name another.
        pub proto: u8,
        /// Zero.
        pub _pad: [u8; 3],
    }
}

row! {
    /// A row of `fragments`: what the first fragment said.
    pub struct FragmentEntry: 8 {
        /// Source and destination port.
        pub ports: [Be16; 2],
        /// IP protocol.
        pub proto: u8,
        /// Zero.
        pub _pad: [u8; 3],
    }
}
