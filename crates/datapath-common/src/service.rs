// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Services: the addresses and ports that pods behind them share.
//!
//! A *frontend* is an address, port and protocol ([`ServiceKey`]): of a ClusterIP, a NodePort on one address of the node, a load balancer, a
//! `hostPort`. Its row names two *sets* of backends, for clients of the cluster and for those from outside: traffic policies make them
//! differ. A set is numbered slots of `backends`; several frontends of a service share one. Whoever opens a connection takes a
//! slot below the set's count; nothing else is computed per connection, however many services there are.

use crate::packet::GATEWAY_V4;
use crate::{Addr, Be16, Tuple};

row! {
    /// The key of `services`: what clients connect to.
    pub struct ServiceKey: 24 {
        /// The address.
        pub addr: Addr,
        /// The port.
        pub port: Be16,
        /// IP protocol.
        pub proto: u8,
        /// Zero.
        pub _pad: [u8; 5],
    }
}

row! {
    /// A row of `services`: which backends a frontend has. Arrays of two are indexed by [`INSIDE`] and [`OUTSIDE`].
    pub struct Service: 40 {
        /// The sets of backends.
        pub sets: [u32; 2],
        /// How many slots they have; 0: there is no backend.
        pub counts: [u32; 2],
        /// For how many ticks of the kernel's clock a client keeps its backend (`sessionAffinity: ClientIP`); 0 if it does not.
        pub affinity: u32,
        /// Numbers the service's port on this node, for [`AffinityKey`] and [`SourceKey`].
        pub id: u32,
        /// Of the constants below.
        pub flags: u16,
        /// Zero.
        pub _pad: [u16; 3],
        /// Zero.
        pub _reserved: u64,
    }
}

/// For clients of the cluster: pods, and the nodes themselves.
pub const INSIDE: usize = 0;
/// For clients from outside.
pub const OUTSIDE: usize = 1;

impl Service {
    /// Clients from outside may use it; a ClusterIP is not for them.
    pub const EXTERNAL: u16 = 1;
    /// Backends see the address of clients from outside (`externalTrafficPolicy: Local`).
    pub const KEEP_SOURCE: u16 = 2;
    /// A slot is chosen by a hash of the connection and not at random: the slots are laid out so that a change of backends moves
    /// few connections (Maglev).
    pub const HASHED: u16 = 4;
    /// Without a backend packets vanish; else they are refused.
    pub const SILENT: u16 = 8;
    /// Clients from outside must have an address in `sources`.
    pub const RANGES: u16 = 16;
    /// The backends are in `members`, so that those who keep one can find out whether it still serves.
    pub const MEMBERS: u16 = 32;

    /// The slot for a number that is evenly spread over 32 bits. `count` is not 0.
    #[inline(always)]
    #[must_use]
    pub const fn slot(number: u32, count: u32) -> u32 {
        ((number as u64 * count as u64) >> 32) as u32
    }

    /// The key of a backend among the members of one of its sets.
    #[inline(always)]
    #[must_use]
    pub const fn member(&self, from: usize, addr: &Addr, port: Be16) -> MemberKey {
        MemberKey {
            addr: *addr,
            set: self.sets[from & OUTSIDE],
            port,
            _pad: 0,
        }
    }

    /// Whether a client may still have the backend that it had last.
    #[inline(always)]
    #[must_use]
    pub const fn remembers(&self, last: &Affinity, now: u32) -> bool {
        now.wrapping_sub(last.last_used) <= self.affinity
    }

    /// Whether one of `flags` is set.
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, flags: u16) -> bool {
        self.flags & flags != 0
    }
}

/// How a connection to a service is looked at, in the rows of `nat` that it has beside its row of `conntrack`, which is that of client and
/// backend. The number is a [`CtKey::kind`](crate::CtKey::kind), to which the client's side is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// From the client to the service: the row has the backend.
    Client = 2,
    /// From the client to the backend: the row has the frontend.
    Backend = 4,
}

row! {
    /// The key of `backends`: a slot of a set.
    pub struct BackendKey: 8 {
        /// The set; never 0.
        pub set: u32,
        /// Less than the set's count.
        pub slot: u32,
    }
}

row! {
    /// A row of `backends`: who answers.
    pub struct Backend: 24 {
        /// Its address.
        pub addr: Addr,
        /// Its port.
        pub port: Be16,
        /// Zero.
        pub _pad: [u8; 6],
    }
}

row! {
    /// The key of `members`, whose rows say that a backend is in a set; the value is one of its slots.
    pub struct MemberKey: 24 {
        /// The backend's address.
        pub addr: Addr,
        /// The set.
        pub set: u32,
        /// The backend's port.
        pub port: Be16,
        /// Zero.
        pub _pad: u16,
    }
}

row! {
    /// The key of `affinity`: a client of a service.
    pub struct AffinityKey: 24 {
        /// The client's address; of a socket, the number of its network namespace, which is no address of anybody.
        pub client: Addr,
        /// See [`Service::id`].
        pub service: u32,
        /// Zero.
        pub _pad: u32,
    }
}

row! {
    /// A row of `affinity`: the backend that a client had last.
    pub struct Affinity: 24 {
        /// Its address.
        pub addr: Addr,
        /// Its port.
        pub port: Be16,
        /// Zero.
        pub _pad: u16,
        /// The low half of jiffies when the client opened its last connection.
        pub last_used: u32,
    }
}

row! {
    /// The key of `sources`, a prefix of clients that may use a service from outside (`loadBalancerSourceRanges`).
    pub struct SourceKey: 24 {
        /// Bits that count: those of the service and those of the address.
        pub length: u32,
        /// See [`Service::id`].
        pub service: u32,
        /// The network; IPv4 has its bits behind the 96 of `::ffff:0:0`.
        pub addr: [u32; 4],
    }
}

/// Bits of [`SourceKey::service`], to be added to a prefix's length.
pub const SOURCE_SERVICE_BITS: u32 = 32;

row! {
    /// The key of `sockets`: a socket of this node, and a backend that it talks to or a frontend that it believes to talk to.
    pub struct SocketKey: 32 {
        /// The kernel's number for the socket.
        pub cookie: u64,
        /// The address of backend or frontend.
        pub addr: Addr,
        /// Its port.
        pub port: Be16,
        /// [`TO_BACKEND`](SocketKey::TO_BACKEND) or [`TO_FRONTEND`](SocketKey::TO_FRONTEND).
        pub kind: u8,
        /// Zero.
        pub _pad: [u8; 5],
    }
}

impl SocketKey {
    /// The key has the backend, the row the frontend: for `recvfrom` and `getpeername`.
    pub const TO_BACKEND: u8 = 0;
    /// The other way round: for the next datagram.
    pub const TO_FRONTEND: u8 = 1;
}

row! {
    /// A row of `sockets`: the other one of backend and frontend.
    pub struct SocketPeer: 32 {
        /// Its address.
        pub addr: Addr,
        /// Its port.
        pub port: Be16,
        /// IP protocol.
        pub proto: u8,
        /// Zero.
        pub _pad: u8,
        /// The set that the backend was taken from.
        pub set: u32,
        /// Zero.
        pub _reserved: u64,
    }
}

/// In the network that everybody discards (RFC 6666). The gateway's address will not do: to one of the link a pod answers with its own
/// of the link, unless the socket is bound to another.
const MIRROR_V6: [u8; 16] = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// What a pod sees instead of itself when it answers for a service that it asked.
#[inline(always)]
#[must_use]
pub const fn mirror(v4: bool) -> Addr {
    if v4 {
        Addr::v4(GATEWAY_V4)
    } else {
        Addr::v6(MIRROR_V6)
    }
}

/// What a backend sees of a packet that a client sends to its service.
#[inline(always)]
#[must_use]
pub fn behind(sent: &Tuple, backend: &Addr, port: Be16) -> Tuple {
    Tuple {
        source: if sent.source == *backend {
            mirror(backend.is_v4())
        } else {
            sent.source
        },
        destination: *backend,
        destination_port: port,
        ..*sent
    }
}

/// The other way round: what the client sent that a backend sees so.
#[inline(always)]
#[must_use]
pub fn before(seen: &Tuple, frontend: &Addr, port: Be16) -> Tuple {
    Tuple {
        source: if seen.source == mirror(seen.destination.is_v4()) {
            seen.destination
        } else {
            seen.source
        },
        destination: *frontend,
        destination_port: port,
        ..*seen
    }
}

/// A number for a connection, the same on every node, evenly spread.
#[inline(always)]
#[must_use]
pub fn hash(tuple: &Tuple) -> u32 {
    let (source, destination) = (tuple.source.words(), tuple.destination.words());
    let ports = (tuple.source_port.raw() as u64) << 32 | (tuple.destination_port.raw() as u64) << 8;
    let mut hash = mix(source[0] ^ u64::from(tuple.proto) ^ ports);
    hash = mix(hash ^ source[1]);
    hash = mix(hash ^ destination[0]);
    hash = mix(hash ^ destination[1]);
    (hash >> 32) as u32
}

/// The finaliser of MurmurHash3: each bit of the result depends on each of the word.
#[inline(always)]
#[must_use]
pub const fn mix(mut word: u64) -> u64 {
    word ^= word >> 33;
    word = word.wrapping_mul(0xff51_afd7_ed55_8ccd);
    word ^= word >> 33;
    word = word.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    word ^ word >> 33
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_below_the_count_and_all_are_reached() {
        for count in [1, 2, 3, 7, 251] {
            assert_eq!(Service::slot(0, count), 0);
            assert_eq!(Service::slot(u32::MAX, count), count - 1);
        }
    }

    #[test]
    fn before_and_behind_are_each_others_inverse() {
        let (frontend, other) = (Addr::v4([10, 96, 0, 10]), Addr::v4([10, 244, 1, 9]));
        let sent = Tuple {
            source: Addr::v4([10, 244, 1, 7]),
            destination: frontend,
            source_port: Be16::new(40_000),
            destination_port: Be16::new(80),
            proto: 6,
        };
        for backend in [other, sent.source] {
            let seen = behind(&sent, &backend, Be16::new(8080));
            assert_ne!(seen.source, seen.destination);
            assert_eq!(before(&seen, &frontend, Be16::new(80)), sent);
        }
    }

    #[test]
    fn hashes_of_one_clients_connections_spread_evenly() {
        const SLOTS: u32 = 16;
        let mut hits = [0_u32; SLOTS as usize];
        for port in 32_768..49_152 {
            let tuple = Tuple {
                source: Addr::v4([10, 244, 1, 7]),
                destination: Addr::v4([10, 96, 0, 10]),
                source_port: Be16::new(port),
                destination_port: Be16::new(80),
                proto: 6,
            };
            hits[Service::slot(hash(&tuple), SLOTS) as usize] += 1;
        }
        // 1,024 are expected in each; five times the standard deviation is 155.
        assert!(hits.iter().all(|hits| hits.abs_diff(1024) < 155), "{hits:?}");
    }
}
