// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Services: what is sent to one goes to one of its backends, and answers look as if the service had sent them.
//!
//! A connection is decided when it is opened. It has its row of `conntrack`, which is that of client and backend, and two of `nat`: one by
//! what the client sees, for later packets ([`send`]), one by what the backend sees, for answers ([`restore`]). Whoever sends to no
//! service pays a bit of the row of the destination, which is looked up anyway.

use aya_ebpf::bindings::__sk_buff;
use datapath_common::ct::Tuple;
use datapath_common::packet::proto;
use datapath_common::service::{
    Affinity, AffinityKey, BackendKey, MemberKey, OUTSIDE, Service, ServiceKey, Sight, behind, hash, mirror,
};
use datapath_common::{Addr, CtKey, Endpoint, NatEntry, Reason};

use crate::ctx::Answer;
use crate::maps::{self, Insertion};
use crate::parse::{self, Kind, Packet};
use crate::rewrite::{self, Change, End};
use crate::{Ctx, Drop, Verdict, fragment};

/// What became of a packet that was sent to an address of services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is now addressed to a backend.
    ToBackend,
    /// No service is there that its sender could use.
    ToNobody,
    /// The service has no backend.
    ToNoBackend,
    /// It has none, and nobody is to be told.
    ToSilence,
    /// The backend is in this node's own network, and the client is outside: nothing is changed, the packet is its socket's.
    ToSocket,
}

/// Codes of [`to_backend`]; the others are reasons to drop the packet, shifted by [`REASON_SHIFT`].
const TO_BACKEND: u32 = 1;
const TO_NOBODY: u32 = 2;
const TO_NO_BACKEND: u32 = 3;
const TO_SILENCE: u32 = 4;
const TO_SOCKET: u32 = 5;
const REASON_SHIFT: u32 = 8;

/// Addresses a packet to a backend, if it was sent to a service that clients [from here](datapath_common::service::INSIDE) may use.
/// `own`: the destination is the node's own address, where most packets are for no service.
#[inline(always)]
pub fn send(ctx: &Ctx, packet: &mut Packet, own: bool, from: usize) -> Result<Sent, Drop> {
    if own && packet.kind == Kind::Flow && maps::service(&frontend(&packet.tuple)).is_none() {
        return Ok(Sent::ToNobody);
    }
    match to_backend(ctx.raw(), from as u32) {
        TO_BACKEND => {
            let done = maps::translation().ok_or_else(refused)?;
            if packet.tuple.source == done.row.pod {
                packet.tuple.source = mirror(packet.v4);
            }
            packet.tuple.destination = done.row.pod;
            if packet.kind == Kind::Flow {
                packet.tuple.destination_port = done.row.port;
            }
            packet.to_service = packet.kind != Kind::Error;
            Ok(Sent::ToBackend)
        }
        TO_NOBODY => Ok(Sent::ToNobody),
        TO_NO_BACKEND => Ok(Sent::ToNoBackend),
        TO_SILENCE => Ok(Sent::ToSilence),
        TO_SOCKET => Ok(Sent::ToSocket),
        code => Err(Drop::new(Reason((code >> REASON_SHIFT) as u8))),
    }
}

#[inline(always)]
fn frontend(tuple: &Tuple) -> ServiceKey {
    ServiceKey {
        addr: tuple.destination,
        port: tuple.destination_port,
        proto: tuple.proto,
        _pad: [0; 5],
    }
}

/// To the verifier a function on its own, as `open_to_world` is, with the same reasons.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn to_backend(skb: *mut __sk_buff, from: u32) -> u32 {
    let ctx = Ctx::from_raw(skb);
    match sent(&ctx, from as usize & OUTSIDE) {
        Ok(Sent::ToBackend) => TO_BACKEND,
        Ok(Sent::ToNobody) => TO_NOBODY,
        Ok(Sent::ToNoBackend) => TO_NO_BACKEND,
        Ok(Sent::ToSilence) => TO_SILENCE,
        Ok(Sent::ToSocket) => TO_SOCKET,
        Err(drop) => u32::from(drop.reason().0) << REASON_SHIFT,
    }
}

/// What addressing a packet to a backend works on. The stack has no room for it.
#[derive(Debug)]
pub struct Translation {
    packet: Packet,
    frontend: ServiceKey,
    /// As the client sees the connection, and as the backend does.
    client_sees: CtKey,
    backend_sees: CtKey,
    /// The backend.
    row: NatEntry,
    /// The frontend.
    answer: NatEntry,
    slot: BackendKey,
    member: MemberKey,
    client: AffinityKey,
    last: Affinity,
}

impl Translation {
    /// Fills in who the client is to the service.
    #[inline(always)]
    fn ask_as(&mut self, service: &Service) {
        self.client = AffinityKey {
            client: self.packet.tuple.source,
            service: service.id,
            _pad: 0,
        };
    }
}

#[inline(always)]
fn refused() -> Drop {
    Drop::new(Reason::CT_MAP_INSERTION_FAILED)
}

#[inline(always)]
fn sent(ctx: &Ctx, from: usize) -> Result<Sent, Drop> {
    if !understood(ctx) {
        return Ok(Sent::ToNobody);
    }
    let found = maps::translation().ok_or_else(refused)?;
    let Some(service) = maps::service(&found.frontend) else {
        return Ok(Sent::ToNobody);
    };
    if from == OUTSIDE && !service.has(Service::EXTERNAL) {
        return Ok(Sent::ToNobody);
    }
    if service.has(Service::RANGES) && !maps::is_allowed(service.id, &found.packet.tuple.source) {
        return Err(Drop::new(Reason::DENIED_BY_LB_SRC_RANGE_CHECK));
    }
    if found.packet.kind != Kind::Error && !is_known(service, from) {
        let sent = if from == OUTSIDE && is_sockets(ctx) {
            Sent::ToNobody
        } else {
            open(ctx, service, from)?
        };
        if sent != Sent::ToBackend {
            return Ok(sent);
        }
    }
    address(ctx)?;
    Ok(Sent::ToBackend)
}

/// Whether a packet from outside, of no connection that is translated, belongs to a connection of TCP with this node's own socket: such
/// a one is opened by [`Sent::ToSocket`], and the stack knows it by the frontend's port.
#[inline(never)]
fn is_sockets(ctx: &Ctx) -> bool {
    let Some(found) = maps::translation() else {
        return false;
    };
    let tuple = &found.packet.tuple;
    let answer = Answer {
        from: (&tuple.source, tuple.source_port),
        to: (&tuple.destination, tuple.destination_port),
    };
    tuple.proto == proto::TCP && ctx.has_connection(found.packet.v4, &answer)
}

/// Finds out what the client sees: the tuple of a flow or of its fragment, or that of an answer that the client complains about. `false`:
/// the packet is about no connection that a service could have.
#[inline(never)]
fn understood(ctx: &Ctx) -> bool {
    let Some(found) = maps::translation() else {
        return false;
    };
    let Ok(ethernet) = parse::ethernet(ctx) else {
        return false;
    };
    found.packet = Packet::EMPTY;
    if parse::packet(ctx, ethernet.ethertype.get(), &mut found.packet).is_err() {
        return false;
    }
    let mut tuple = found.packet.tuple;
    match found.packet.kind {
        Kind::Flow if found.packet.fragment != 0 => fragment::remember(ctx, &found.packet),
        Kind::Flow => {}
        Kind::Fragment => {
            if !fragment::recall(ctx, &mut found.packet) {
                return false;
            }
            tuple = found.packet.tuple;
        }
        Kind::Error => match parse::quote(ctx, &mut found.packet) {
            Ok(Some(quoted)) if quoted.source == tuple.destination => tuple = quoted.reversed(),
            _ => return false,
        },
        Kind::Link => return false,
    }
    found.client_sees = tuple.sight(Sight::Client);
    found.frontend = frontend(&tuple);
    // An error concerns a connection to a service that there is, or somebody else.
    found.packet.kind != Kind::Error || recalled(found)
}

/// Finds the backend of a connection, if there is one.
#[inline(always)]
fn recalled(found: &mut Translation) -> bool {
    let Some(row) = maps::nat(&found.client_sees) else {
        return false;
    };
    found.row = *row;
    true
}

/// Whether the connection has a backend that it may keep.
#[inline(never)]
fn is_known(service: &Service, from: usize) -> bool {
    let Some(found) = maps::translation() else {
        return false;
    };
    if !recalled(found) {
        return false;
    }
    let tuple = &found.packet.tuple;
    match tuple.proto {
        // A client that uses its port again is as good as a new one.
        proto::TCP if found.packet.opens() => {
            found.backend_sees = behind(tuple, &found.row.pod, found.row.port).key().0;
            maps::is_open(&found.backend_sees)
        }
        proto::TCP => true,
        _ => !service.has(Service::MEMBERS) || is_member(found, service, from),
    }
}

/// Whether the backend that was found still serves.
#[inline(always)]
fn is_member(found: &mut Translation, service: &Service, from: usize) -> bool {
    found.member = service.member(from, &found.row.pod, found.row.port);
    maps::is_member(&found.member)
}

/// How many backends are tried for a connection. Another one has to do when the client already talks to the first with these ports.
const ATTEMPTS: u32 = 4;

/// Chooses a backend, and says so in `nat`.
#[inline(never)]
fn open(ctx: &Ctx, service: &Service, from: usize) -> Result<Sent, Drop> {
    for attempt in 0..ATTEMPTS {
        if !choose(ctx, service, from, attempt) {
            return Ok(if service.has(Service::SILENT) {
                Sent::ToSilence
            } else {
                Sent::ToNoBackend
            });
        }
        let found = maps::translation().ok_or_else(refused)?;
        if from == OUTSIDE && is_nodes_own(&found.row.pod) {
            if found.frontend.proto == proto::TCP && is_nodes_own(&found.frontend.addr) {
                return Ok(Sent::ToSocket);
            }
            // The stack would neither take the packet nor send its answer as the service: another backend may do.
            continue;
        }
        match promise(ctx, found) {
            Insertion::Done => {
                return if maps::set_nat(&found.client_sees, &found.row) {
                    Ok(Sent::ToBackend)
                } else {
                    Err(refused())
                };
            }
            Insertion::Busy => {}
            Insertion::Full => return Err(refused()),
        }
    }
    Err(Drop::new(Reason::SERVICE_BACKEND_NOT_FOUND))
}

/// Whether an address is this node's.
#[inline(always)]
fn is_nodes_own(addr: &Addr) -> bool {
    maps::endpoint(addr).is_some_and(Endpoint::is_host)
}

/// Hands a packet that opens a connection to the socket of the backend that was chosen, which listens at a port of its own. Its answers
/// come from the frontend: a connection has the port that it was opened at.
#[inline(never)]
pub fn hand_over(ctx: &Ctx) -> Result<Verdict, Drop> {
    let nobody = Drop::new(Reason::SERVICE_BACKEND_NOT_FOUND);
    let found = maps::translation().ok_or(nobody)?;
    let tuple = &found.packet.tuple;
    let answer = Answer {
        from: (&tuple.source, tuple.source_port),
        to: (&found.row.pod, found.row.port),
    };
    if tuple.proto == proto::TCP && ctx.assign_listener(found.packet.v4, &answer) {
        Ok(Verdict::Pass)
    } else {
        Err(nobody)
    }
}

/// Says how answers of the backend are to look; [`Insertion::Busy`]: those of another connection look otherwise.
#[inline(never)]
fn promise(ctx: &Ctx, found: &mut Translation) -> Insertion {
    found.backend_sees = behind(&found.packet.tuple, &found.row.pod, found.row.port).sight(Sight::Backend);
    found.row.created = ctx.jiffies();
    found.answer = NatEntry {
        pod: found.packet.tuple.destination,
        port: found.packet.tuple.destination_port,
        ..found.row
    };
    match maps::add_nat(&found.backend_sees, &found.answer) {
        Insertion::Busy => {}
        done @ (Insertion::Done | Insertion::Full) => return done,
    }
    let same = maps::nat(&found.backend_sees)
        .is_some_and(|row| row.pod == found.answer.pod && row.port == found.answer.port);
    let mut connection = found.backend_sees;
    connection.kind = 0;
    // The same again is written again: it is this connection's now, and no longer that of the one before.
    if (same || !maps::is_open(&connection)) && maps::set_nat(&found.backend_sees, &found.answer) {
        Insertion::Done
    } else {
        Insertion::Busy
    }
}

/// Chooses a backend of the service; `false`: it has none.
#[inline(never)]
fn choose(ctx: &Ctx, service: &Service, from: usize, attempt: u32) -> bool {
    let (set, count) = (service.sets[from & OUTSIDE], service.counts[from & OUTSIDE]);
    if count == 0 {
        return false;
    }
    if service.affinity != 0 && attempt == 0 && is_kept(ctx, service, from) {
        return true;
    }
    let Some(found) = maps::translation() else {
        return false;
    };
    let number = if service.has(Service::HASHED) && attempt == 0 {
        hash(&found.packet.tuple)
    } else {
        ctx.random()
    };
    found.slot = BackendKey {
        set,
        slot: Service::slot(number, count),
    };
    let Some(backend) = maps::backend_or_first(&mut found.slot) else {
        return false;
    };
    (found.row.pod, found.row.port, found.row.sequence) = (backend.addr, backend.port, 0);
    if service.affinity != 0 {
        remember(ctx, service);
    }
    true
}

/// Finds the backend that a client had last, if it may keep it.
#[inline(never)]
fn is_kept(ctx: &Ctx, service: &Service, from: usize) -> bool {
    let Some(found) = maps::translation() else {
        return false;
    };
    found.ask_as(service);
    let Some(last) = maps::affinity(&found.client) else {
        return false;
    };
    let now = ctx.jiffies();
    if !service.remembers(last, now) {
        return false;
    }
    (found.row.pod, found.row.port, found.row.sequence) = (last.addr, last.port, 0);
    last.last_used = now;
    is_member(found, service, from)
}

#[inline(never)]
fn remember(ctx: &Ctx, service: &Service) {
    let Some(found) = maps::translation() else {
        return;
    };
    found.ask_as(service);
    found.last = Affinity {
        addr: found.row.pod,
        port: found.row.port,
        _pad: 0,
        last_used: ctx.jiffies(),
    };
    maps::set_affinity(&found.client, &found.last);
}

/// Gives the packet the backend's address and port.
#[inline(never)]
fn address(ctx: &Ctx) -> Result<(), Drop> {
    let found = maps::translation().ok_or_else(refused)?;
    let change = Change {
        end: End::Destination,
        from: &found.frontend.addr,
        from_port: found.frontend.port,
        to: &found.row.pod,
        to_port: found.row.port,
    };
    if found.packet.kind == Kind::Error {
        return rewrite::error(ctx, &found.packet, &change);
    }
    rewrite::flow(ctx, &found.packet, &change)?;
    if found.packet.tuple.source == found.row.pod {
        return from_mirror(ctx, found);
    }
    Ok(())
}

/// Who answers itself would take the answer for its own question: it sees another address instead ([`mirror`]).
#[inline(never)]
fn from_mirror(ctx: &Ctx, found: &Translation) -> Result<(), Drop> {
    let (tuple, mirror) = (&found.packet.tuple, mirror(found.packet.v4));
    let change = Change {
        end: End::Source,
        from: &tuple.source,
        from_port: tuple.source_port,
        to: &mirror,
        to_port: tuple.source_port,
    };
    rewrite::flow(ctx, &found.packet, &change)
}

/// Makes an answer of a backend, or an ICMP error about a packet to it, look as if it were about the service.
#[inline(never)]
pub fn restore(ctx: &Ctx, packet: &mut Packet) -> Result<(), Drop> {
    let found = maps::translation().ok_or_else(refused)?;
    let mut tuple = packet.tuple.reversed();
    if packet.kind == Kind::Error {
        tuple = parse::quote(ctx, packet)?.ok_or(Drop::new(Reason::UNRELATED_ICMP_ERROR))?;
    }
    found.backend_sees = tuple.sight(Sight::Backend);
    let row = maps::nat(&found.backend_sees).copied();
    found.answer = row.ok_or(Drop::new(Reason::NO_MAPPING_FOR_NAT_MASQUERADE))?;
    found.frontend.addr = tuple.destination;
    let change = Change {
        end: End::Source,
        from: &found.frontend.addr,
        from_port: tuple.destination_port,
        to: &found.answer.pod,
        to_port: found.answer.port,
    };
    if packet.kind == Kind::Error {
        rewrite::error(ctx, packet, &change)?;
        if packet.tuple.source == found.frontend.addr {
            packet.tuple.source = found.answer.pod;
        }
        return Ok(());
    }
    rewrite::flow(ctx, packet, &change)?;
    (packet.tuple.source, packet.tuple.source_port) = (found.answer.pod, found.answer.port);
    if packet.tuple.destination == mirror(packet.v4) {
        return turn_back(ctx, packet, &found.frontend.addr);
    }
    Ok(())
}

/// An answer of a pod to the address behind which it is itself.
#[inline(never)]
fn turn_back(ctx: &Ctx, packet: &mut Packet, pod: &Addr) -> Result<(), Drop> {
    let change = Change {
        end: End::Destination,
        from: &packet.tuple.destination,
        from_port: packet.tuple.destination_port,
        to: pod,
        to_port: packet.tuple.destination_port,
    };
    rewrite::flow(ctx, packet, &change)?;
    packet.tuple.destination = *pod;
    Ok(())
}
