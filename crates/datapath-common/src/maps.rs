// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Names, shapes and limits of the pinned maps, as both sides must agree on them.

use crate::metrics::METRICS_LEN;
use crate::nat::ADDRESSES;
use crate::service::{
    Affinity, AffinityKey, Backend, BackendKey, MemberKey, Service, ServiceKey, SocketKey, SocketPeer,
    SourceKey,
};
use crate::{
    Addr, Counter, CtEntry, CtKey, Endpoint, FragmentEntry, FragmentKey, LocalNode, NatAddress, NatEntry,
    Prefix, PrefixKey, Way,
};

/// The kind of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `BPF_MAP_TYPE_HASH`.
    Hash,
    /// `BPF_MAP_TYPE_LRU_HASH`.
    LruHash,
    /// `BPF_MAP_TYPE_ARRAY`.
    Array,
    /// `BPF_MAP_TYPE_LPM_TRIE`.
    LpmTrie,
    /// `BPF_MAP_TYPE_PERCPU_ARRAY`.
    PerCpuArray,
    /// `BPF_MAP_TYPE_RINGBUF`.
    RingBuf,
}

/// What a pinned map looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The name, also of the pin and of the static in the eBPF object.
    pub name: &'static str,
    /// The map's type.
    pub kind: Kind,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Rows; for the ring buffer, bytes. What the object says; the loader may choose another for those that a
    /// setting governs.
    pub max_entries: u32,
    /// `BPF_F_NO_PREALLOC`: rows take memory when they are written. Only for maps that programs do not write.
    pub on_demand: bool,
}

/// `BPF_F_NO_PREALLOC`.
pub const ON_DEMAND: u32 = 1;

/// Local pods, the node's own addresses, and those of services.
pub const ENDPOINTS: Spec = on_demand(hash::<Addr, Endpoint>("endpoints", 16_384));
/// Connections.
pub const CONNTRACK: Spec = hash::<CtKey, CtEntry>("conntrack", 262_144);
/// Pods of other nodes and the nodes themselves, by prefix.
pub const PREFIXES: Spec = Spec {
    kind: Kind::LpmTrie,
    ..hash::<PrefixKey, Prefix>("prefixes", 65_536)
};
/// This node: one row.
pub const NODE: Spec = Spec {
    kind: Kind::Array,
    ..hash::<u32, LocalNode>("node", 1)
};
/// Masqueraded connections by how they look outside. As big as `conntrack`, which has a row for each of them.
pub const NAT: Spec = hash::<CtKey, NatEntry>("nat", CONNTRACK.max_entries);
/// The addresses that they have there.
pub const NAT_ADDRESSES: Spec = Spec {
    kind: Kind::Array,
    ..hash::<u32, NatAddress>("nat_addresses", ADDRESSES)
};
/// Datagrams that come in fragments.
pub const FRAGMENTS: Spec = Spec {
    kind: Kind::LruHash,
    ..hash::<FragmentKey, FragmentEntry>("fragments", 8192)
};
/// What clients of services connect to.
pub const SERVICES: Spec = on_demand(hash::<ServiceKey, Service>("services", 65_536));
/// Who answers: sets of numbered slots.
pub const BACKENDS: Spec = on_demand(hash::<BackendKey, Backend>("backends", 4 * SERVICES.max_entries));
/// Which backends are in which set; the value is a slot.
pub const MEMBERS: Spec = on_demand(hash::<MemberKey, u32>("members", BACKENDS.max_entries));
/// The backend that a client had last.
pub const AFFINITY: Spec = Spec {
    kind: Kind::LruHash,
    ..hash::<AffinityKey, Affinity>("affinity", 65_536)
};
/// Who may use services from outside; the value says nothing.
pub const SOURCES: Spec = Spec {
    kind: Kind::LpmTrie,
    ..hash::<SourceKey, u32>("sources", 65_536)
};
/// Sockets that believe to talk to a service.
pub const SOCKETS: Spec = Spec {
    kind: Kind::LruHash,
    ..hash::<SocketKey, SocketPeer>("sockets", 65_536)
};
/// Packets and bytes by reason and direction.
pub const METRICS: Spec = Spec {
    kind: Kind::PerCpuArray,
    ..hash::<u32, Counter>("metrics", METRICS_LEN)
};
/// Answers of the kernel's routing table.
pub const WAYS: Spec = Spec {
    kind: Kind::PerCpuArray,
    ..hash::<u32, Way>("ways", crate::WAYS)
};
/// Dropped packets.
pub const EVENTS: Spec = Spec {
    name: "events",
    kind: Kind::RingBuf,
    key_size: 0,
    value_size: 0,
    max_entries: 1 << 20,
    on_demand: false,
};

/// Every pinned map.
pub const ALL: [Spec; 16] = [
    ENDPOINTS,
    CONNTRACK,
    NAT,
    NAT_ADDRESSES,
    FRAGMENTS,
    PREFIXES,
    SERVICES,
    BACKENDS,
    MEMBERS,
    AFFINITY,
    SOURCES,
    SOCKETS,
    NODE,
    WAYS,
    METRICS,
    EVENTS,
];

#[expect(clippy::cast_possible_truncation, reason = "rows have fewer than 2^32 bytes")]
const fn hash<K, V>(name: &'static str, max_entries: u32) -> Spec {
    let (key_size, value_size) = (size_of::<K>() as u32, size_of::<V>() as u32);
    Spec {
        name,
        kind: Kind::Hash,
        key_size,
        value_size,
        max_entries,
        on_demand: false,
    }
}

const fn on_demand(spec: Spec) -> Spec {
    Spec {
        on_demand: true,
        ..spec
    }
}
