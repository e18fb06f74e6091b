// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Every map of the programs, the load-time constants, and the only places that touch rows.

use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf};
use datapath_common::ct::{CtEntry, CtKey, ORIGINAL, Side, State, next_state, reopens};
use datapath_common::service::{
    Affinity, AffinityKey, Backend, BackendKey, MemberKey, SOURCE_SERVICE_BITS, Service, ServiceKey,
    SocketKey, SocketPeer,
};
use datapath_common::{
    Addr, Be16, Counter, Direction, Endpoint, FragmentEntry, FragmentKey, LocalNode, Mapping, NatAddress,
    NatEntry, NodeConfig, Prefix, PrefixKey, Reason, Tuple, Way, maps, metrics,
};
use zerocopy::FromZeros;

use crate::nat::Opening;
use crate::parse::Packet;
use crate::service::Translation;

#[map(name = "endpoints")]
static ENDPOINTS: HashMap<Addr, Endpoint> = HashMap::pinned(maps::ENDPOINTS.max_entries, maps::ON_DEMAND);

#[map(name = "conntrack")]
static CONNTRACK: HashMap<CtKey, CtEntry> = HashMap::pinned(maps::CONNTRACK.max_entries, 0);

#[map(name = "nat")]
static NAT: HashMap<CtKey, NatEntry> = HashMap::pinned(maps::NAT.max_entries, 0);

#[map(name = "nat_addresses")]
static NAT_ADDRESSES: Array<NatAddress> = Array::pinned(maps::NAT_ADDRESSES.max_entries, 0);

/// Room for one packet at a time; of each object its own, and not pinned.
#[map(name = "opening")]
static OPENING: PerCpuArray<Opening> = PerCpuArray::with_max_entries(1, 0);

/// The same for what is understood of the packet at hand. (Not on the stack: there the verifier would remember what it knows of each
/// field for each kind of packet, and walk through all that follows for each of them.)
#[map(name = "packet")]
static PACKET: PerCpuArray<Packet> = PerCpuArray::with_max_entries(1, 0);

/// The same for a packet to or from a service.
#[map(name = "translation")]
static TRANSLATION: PerCpuArray<Translation> = PerCpuArray::with_max_entries(1, 0);

#[map(name = "fragments")]
static FRAGMENTS: LruHashMap<FragmentKey, FragmentEntry> = LruHashMap::pinned(maps::FRAGMENTS.max_entries, 0);

#[map(name = "services")]
static SERVICES: HashMap<ServiceKey, Service> = HashMap::pinned(maps::SERVICES.max_entries, maps::ON_DEMAND);

#[map(name = "backends")]
static BACKENDS: HashMap<BackendKey, Backend> = HashMap::pinned(maps::BACKENDS.max_entries, maps::ON_DEMAND);

#[map(name = "members")]
static MEMBERS: HashMap<MemberKey, u32> = HashMap::pinned(maps::MEMBERS.max_entries, maps::ON_DEMAND);

#[map(name = "affinity")]
static AFFINITY: LruHashMap<AffinityKey, Affinity> = LruHashMap::pinned(maps::AFFINITY.max_entries, 0);

#[map(name = "sources")]
static SOURCES: LpmTrie<[u32; 5], u32> = LpmTrie::pinned(maps::SOURCES.max_entries, 0);

#[map(name = "sockets")]
static SOCKETS: LruHashMap<SocketKey, SocketPeer> = LruHashMap::pinned(maps::SOCKETS.max_entries, 0);

#[map(name = "prefixes")]
static PREFIXES: LpmTrie<[u32; 4], Prefix> = LpmTrie::pinned(maps::PREFIXES.max_entries, 0);

#[map(name = "node")]
static NODE: Array<LocalNode> = Array::pinned(maps::NODE.max_entries, 0);

#[map(name = "ways")]
static WAYS: PerCpuArray<Way> = PerCpuArray::pinned(maps::WAYS.max_entries, 0);

#[map(name = "metrics")]
static METRICS: PerCpuArray<Counter> = PerCpuArray::pinned(metrics::METRICS_LEN, 0);

#[map(name = "events")]
static EVENTS: RingBuf = RingBuf::pinned(maps::EVENTS.max_entries, 0);

#[unsafe(no_mangle)]
static CONFIG: Global<NodeConfig> = Global::new(NodeConfig::new(0));

/// Whether the node is configured so.
#[inline(always)]
#[must_use]
pub fn configured(flags: u32) -> bool {
    CONFIG.load().has(flags)
}

/// Whether packets may leave the node with another source than their own.
#[inline(always)]
#[must_use]
pub fn translates() -> bool {
    configured(NodeConfig::MASQUERADE) || configured(NodeConfig::SERVICES)
}

/// Who has an address on this node.
#[inline(always)]
#[must_use]
pub fn endpoint(addr: &Addr) -> Option<&'static Endpoint> {
    // SAFETY: the kernel frees no row under a running program. The agent replaces rows as a whole, so a row that is read
    // while it is reused for another address is wrong for this packet at most.
    unsafe { ENDPOINTS.get(addr) }
}

/// What the longest known prefix of an address says.
#[inline(always)]
#[must_use]
pub fn prefix(addr: &Addr) -> Option<&'static Prefix> {
    let PrefixKey { length, addr } = PrefixKey::of(addr);
    // Rows are replaced as a whole and freed after a grace period, as those of `endpoints`.
    PREFIXES.get(Key::new(length, addr))
}

/// The last answer of the kernel's tables to a flow like this one, to be read and written on this CPU.
#[inline(always)]
#[must_use]
pub fn way(tuple: &Tuple) -> Option<&'static mut Way> {
    // SAFETY: the row is this CPU's own, and programs of this type do not interrupt each other on a CPU.
    WAYS.get_ptr_mut(Way::slot(tuple)).map(|way| unsafe { &mut *way })
}

/// What may change of this node while the programs are loaded.
#[inline(always)]
#[must_use]
pub fn node() -> Option<&'static LocalNode> {
    NODE.get(0)
}

/// The tunnel's network identifier and the UDP port that it ends at.
#[inline(always)]
#[must_use]
pub fn tunnel() -> (u32, Be16) {
    let config = CONFIG.load();
    (config.vni, config.tunnel_port)
}

/// Adds a packet to a counter.
#[inline(always)]
pub fn count(reason: Reason, direction: Direction, length: u32) {
    if let Some(counter) = METRICS.get_ptr_mut(metrics::index(reason, direction)) {
        // SAFETY: the row is this CPU's own, and programs of this type do not interrupt each other on a CPU.
        let counter = unsafe { &mut *counter };
        counter.packets += 1;
        counter.bytes += u64::from(length);
    }
}

/// Writes an event in the ring's own memory; `false`: the ring is full.
#[inline(always)]
#[must_use]
pub fn tell<E: FromZeros + 'static>(event: impl FnOnce(&mut E)) -> bool {
    let Some(mut entry) = EVENTS.reserve::<E>(0) else {
        return false;
    };
    event(entry.write(E::new_zeroed()));
    entry.submit(0);
    true
}

/// What a packet does to a connection.
#[derive(Clone, Copy, Debug)]
pub struct Touch {
    /// The end that sent it.
    pub side: Side,
    /// Jiffies.
    pub now: u32,
    /// Of TCP; else 0.
    pub tcp_flags: u8,
    /// Bytes.
    pub length: u32,
    /// What a row has among its flags whose opener's packets come this way: [`CtEntry::THROUGH_HOST`], [`CtEntry::SERVICE`] or
    /// nothing.
    pub way: u16,
}

/// What a connection's row says of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// How the connection looks outside.
    pub mapping: Mapping,
    /// Whether the packet answers what came through the host's stack.
    pub through_host: bool,
    /// Whether it answers what was sent to a service.
    pub from_service: bool,
}

/// Accounts for a packet in its connection's row, and tells what that says; `None`: there is no row.
///
/// The row is shared by all CPUs. Counters are atomic; the other fields are small, written whole and only when they change:
/// of two packets at the same instant either may have the last word, as on the wire.
#[inline(always)]
#[must_use]
pub fn touch(key: &CtKey, touch: &Touch) -> Option<Known> {
    let row = CONNTRACK.get_ptr_mut(key)?;
    let Touch {
        side,
        now,
        tcp_flags,
        length,
        way,
    } = *touch;
    // SAFETY: `row` is a row of the map, which stays in place while the program runs; each field is accessed as the text
    // above says, and `leg` is 0 or 1.
    unsafe {
        if reopens((*row).state, tcp_flags) {
            let mut reopened = (*row).reopened(now, side, key.proto, tcp_flags, u64::from(length));
            reopened.flags |= way;
            *row = reopened;
            return Some(known(row, side));
        }
        let leg = (*row).leg(side);
        // The row may have been made by an answer, or by an agent that did not care.
        if leg == ORIGINAL && (*row).flags & way != way {
            (*row).flags |= way;
        }
        add(&raw mut (*row).packets, leg, 1);
        add(&raw mut (*row).bytes, leg, u64::from(length));
        if (*row).last_seen != now {
            (*row).last_seen = now;
        }
        let flags = (&raw mut (*row).tcp_flags).cast::<u8>();
        let (mine, other) = (flags.add(usize::from(leg)), flags.add(usize::from(leg ^ 1)));
        let seen = *mine | tcp_flags;
        if *mine != seen {
            *mine = seen;
        }
        let state = (*row).state;
        let next = next_state(state, leg, tcp_flags, [seen, *other]);
        if next != state {
            (*row).state = next;
        }
        Some(known(row, side))
    }
}

/// What a row says of a packet of this side.
///
/// # Safety
///
/// `row` is a row of the map.
#[inline(always)]
unsafe fn known(row: *const CtEntry, side: Side) -> Known {
    // SAFETY: the caller's promise; the fields are written when the row is opened, and the flag of the way by the opener's
    // packets, which all come the same way.
    unsafe {
        Known {
            mapping: if translates() {
                (*row).mapping()
            } else {
                Mapping::NONE
            },
            through_host: (*row).answers_through_host((*row).leg(side)),
            from_service: configured(NodeConfig::SERVICES) && (*row).answers_for_service((*row).leg(side)),
        }
    }
}

/// Adds to one of a pair of counters.
///
/// # Safety
///
/// `pair` is valid and aligned, and `leg` is 0 or 1.
#[inline(always)]
unsafe fn add(pair: *mut [u64; 2], leg: u8, amount: u64) {
    // SAFETY: the caller's promise.
    let counter = unsafe { pair.cast::<u64>().add(usize::from(leg)) };
    // For this target the standard library has atomics without arithmetic. The instruction without a result is as old as
    // the kernel's verifier; the one that fetches needs 5.12.
    #[cfg(target_arch = "bpf")]
    // SAFETY: adds to the counter, and does nothing else.
    unsafe {
        core::arch::asm!("lock *(u64 *)({} + 0) += {}", in(reg) counter, in(reg) amount, options(nostack));
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller's promise.
    unsafe { core::sync::atomic::AtomicU64::from_ptr(counter) }
        .fetch_add(amount, core::sync::atomic::Ordering::Relaxed);
}

/// What became of a new row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insertion {
    /// It is there.
    Done,
    /// The table is full.
    Full,
    /// Another CPU was faster, or the bucket was locked by the CPU's own interrupted work: the next packet will do it.
    Busy,
}

/// `E2BIG`, which a preallocated table without a free row answers.
const FULL: i32 = -7;

/// Adds a connection.
#[inline(always)]
#[must_use]
pub fn open(key: &CtKey, entry: &CtEntry) -> Insertion {
    insertion(CONNTRACK.insert(key, entry, u64::from(BPF_NOEXIST)))
}

#[inline(always)]
fn insertion(result: Result<(), i32>) -> Insertion {
    match result {
        Ok(()) => Insertion::Done,
        Err(FULL) => Insertion::Full,
        Err(_) => Insertion::Busy,
    }
}

/// What a connection's row says of a packet of this side, which is not accounted for; `None`: there is no such connection.
#[inline(always)]
#[must_use]
pub fn connection(key: &CtKey, side: Side) -> Option<Known> {
    let row = CONNTRACK.get_ptr(key)?;
    // SAFETY: `row` is a row of the map.
    Some(unsafe { known(row, side) })
}

/// To whom a packet for the node really goes.
#[inline(always)]
#[must_use]
pub fn nat(key: &CtKey) -> Option<&'static NatEntry> {
    // SAFETY: as for `endpoint`; rows are written whole, but for the sequence number, which any may be.
    unsafe { NAT.get(key) }
}

/// Takes a port for a connection, or says how it is looked at; [`Insertion::Busy`] says that another has that row.
#[inline(always)]
#[must_use]
pub fn add_nat(key: &CtKey, entry: &NatEntry) -> Insertion {
    insertion(NAT.insert(key, entry, u64::from(BPF_NOEXIST)))
}

/// The same over whatever row there is: of a connection that is over.
#[inline(always)]
#[must_use]
pub fn set_nat(key: &CtKey, entry: &NatEntry) -> bool {
    NAT.insert(key, entry, u64::from(BPF_ANY)).is_ok()
}

/// Notes in the row of `nat` how far the pod's sequence numbers went.
#[inline(always)]
pub fn note_sequence(key: &CtKey, sequence: u16) {
    if let Some(row) = NAT.get_ptr_mut(key) {
        // SAFETY: `row` is a row of the map, and the field is written whole.
        unsafe { (&raw mut (*row).sequence).write(sequence) };
    }
}

/// Ends a connection if its port may become another's, see [`CtEntry::gives_way`]. Only one of those who ask is told that it is
/// ended, and only that one may use the port.
#[inline(always)]
#[must_use]
pub fn end(key: &CtKey, opener: Side, mapping: Mapping, now: u32, quiet: u32) -> bool {
    let Some(row) = CONNTRACK.get_ptr(key) else {
        return false;
    };
    // SAFETY: `row` is a row of the map; fields that change meanwhile were what they are read as at some moment.
    let gives_way = unsafe { (*row).gives_way(opener, mapping, now, quiet) };
    gives_way && CONNTRACK.remove(key).is_ok()
}

/// Gives a port back.
#[inline(always)]
pub fn release_port(key: &CtKey) {
    // It was ours, so it is there; that the collector was faster is no error.
    let _ = NAT.remove(key);
}

/// An address of the node for masquerading.
#[inline(always)]
#[must_use]
pub fn nat_address(index: u32) -> Option<&'static NatAddress> {
    NAT_ADDRESSES.get(index)
}

/// Where the packet at hand is understood. A program asks once; functions on their own do not.
#[inline(always)]
#[must_use]
pub fn packet() -> Option<&'static mut Packet> {
    let packet = PACKET.get_ptr_mut(0)?;
    // SAFETY: the row is this CPU's own, and programs of this type do not interrupt each other on a CPU. Zero, which it is before the
    // first packet, is valid for all fields.
    Some(unsafe { &mut *packet })
}

/// Where a connection is put together.
#[inline(always)]
#[must_use]
pub fn opening() -> Option<&'static mut Opening> {
    let opening = OPENING.get_ptr_mut(0)?;
    // SAFETY: the row is this CPU's own, programs of this type do not interrupt each other on a CPU, and a program that asks
    // again uses no earlier answer after that. Every bit pattern of the map is written by these programs or zero, which is
    // valid for all fields but `NonZeroU32`, which is written before it is read.
    Some(unsafe { &mut *opening })
}

/// What the first fragment of a datagram said.
#[inline(always)]
#[must_use]
pub fn fragment(key: &FragmentKey) -> Option<&'static FragmentEntry> {
    // SAFETY: a row may be evicted and used again while it is read; it is then wrong for this one packet.
    unsafe { FRAGMENTS.get(key) }
}

/// Remembers what the first fragment of a datagram says.
#[inline(always)]
pub fn remember_fragment(key: &FragmentKey, entry: &FragmentEntry) {
    // Without the row the later ones are fragments without a first.
    let _ = FRAGMENTS.insert(key, entry, u64::from(BPF_ANY));
}

/// What clients find at an address, port and protocol.
#[inline(always)]
#[must_use]
pub fn service(key: &ServiceKey) -> Option<&'static Service> {
    // SAFETY: the kernel frees no row under a running program, and rows are replaced as a whole.
    unsafe { SERVICES.get(key) }
}

/// Who answers in a slot.
#[inline(always)]
#[must_use]
pub fn backend(key: &BackendKey) -> Option<&'static Backend> {
    // SAFETY: as above.
    unsafe { BACKENDS.get(key) }
}

/// The same, or in the first slot: the set may just have become smaller, and that one is there as long as any.
#[inline(always)]
#[must_use]
pub fn backend_or_first(key: &mut BackendKey) -> Option<&'static Backend> {
    if let Some(backend) = backend(key) {
        return Some(backend);
    }
    key.slot = 0;
    backend(key)
}

/// Whether a backend is in a set.
#[inline(always)]
#[must_use]
pub fn is_member(key: &MemberKey) -> bool {
    MEMBERS.get_ptr(key).is_some()
}

/// Whether a service lets this client in from outside.
#[inline(always)]
#[must_use]
pub fn is_allowed(service: u32, client: &Addr) -> bool {
    let [a, b, c, d] = client.quarters();
    SOURCES
        .get(Key::new(SOURCE_BITS, [service, a, b, c, d]))
        .is_some()
}

/// Of a service and a whole address.
const SOURCE_BITS: u32 = SOURCE_SERVICE_BITS + 128;

/// The backend that a client had last; to be read, and to be written when it has it again.
#[inline(always)]
#[must_use]
pub fn affinity(key: &AffinityKey) -> Option<&'static mut Affinity> {
    // SAFETY: a row may be evicted and used again while it is used; it is then another client's, who asks whether that backend
    // serves.
    AFFINITY.get_ptr_mut(key).map(|row| unsafe { &mut *row })
}

/// Notes the backend that a client has.
#[inline(always)]
pub fn set_affinity(key: &AffinityKey, row: &Affinity) {
    // Without the row the client gets another the next time.
    let _ = AFFINITY.insert(key, row, u64::from(BPF_ANY));
}

/// Whom a socket talks to, really or as it believes.
#[inline(always)]
#[must_use]
pub fn socket(key: &SocketKey) -> Option<&'static SocketPeer> {
    // SAFETY: a row may be evicted and used again while it is read; the call is then answered wrongly once.
    unsafe { SOCKETS.get(key) }
}

/// Notes whom a socket talks to.
#[inline(always)]
pub fn set_socket(key: &SocketKey, row: &SocketPeer) {
    // Without the row the socket is told the backend's address.
    let _ = SOCKETS.insert(key, row, u64::from(BPF_ANY));
}

/// Whether there is such a connection, and both of its ends may still send.
#[inline(always)]
#[must_use]
pub fn is_open(key: &CtKey) -> bool {
    let Some(row) = CONNTRACK.get_ptr(key) else {
        return false;
    };
    // SAFETY: `row` is a row of the map.
    let state = unsafe { (*row).state };
    !matches!(state, State::HALF_CLOSED | State::CLOSED)
}

/// Where a packet to or from a service is translated.
#[inline(always)]
#[must_use]
pub fn translation() -> Option<&'static mut Translation> {
    let translation = TRANSLATION.get_ptr_mut(0)?;
    // SAFETY: as for `opening`.
    Some(unsafe { &mut *translation })
}
