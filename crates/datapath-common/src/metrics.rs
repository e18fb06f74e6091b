// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Counters of forwarded and dropped packets.

use core::fmt;

use crate::Reason;

row! {
    /// A row of `metrics`; the kernel keeps one per CPU.
    pub struct Counter: 16 {
        /// Packets. A GSO packet is one.
        pub packets: u64,
        /// Bytes with the Ethernet header.
        pub bytes: u64,
    }
}

/// Which way a packet goes, seen from the pod. The numbers are those of Hubble's `TrafficDirection`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Direction {
    /// To a pod.
    Ingress = 1,
    /// From a pod.
    Egress = 2,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// From the number of an event.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Ingress),
            2 => Some(Self::Egress),
            _ => None,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

/// Rows of `metrics`: 256 reasons times four, of which two are directions.
pub const METRICS_LEN: u32 = 256 * 4;

/// The row of `metrics` for a reason and direction.
#[inline(always)]
#[must_use]
pub const fn index(reason: Reason, direction: Direction) -> u32 {
    reason.0 as u32 * 4 + direction as u32
}
