// SPDX-License-Identifier: Apache-2.0
//! The maps and programs as people look at them.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};

use aya::Ebpf;
use datapath_common::ct::{CtKey, Tuple};
use datapath_common::maps::{self, Kind, Spec};
use datapath_common::packet::proto;
use datapath_common::service::{
    Affinity, AffinityKey, Backend, BackendKey, INSIDE, MemberKey, OUTSIDE, SOURCE_SERVICE_BITS, Service,
    ServiceKey, SocketKey, SocketPeer, SourceKey,
};
use datapath_common::{
    Addr, Be16, CtEntry, Endpoint, FragmentEntry, FragmentKey, LocalNode, NatAddress, NatEntry, Prefix,
};
use ipnet::IpNet;

use crate::conntrack::Connection;
use crate::counters::CounterRow;
use crate::load::Loaded;
use crate::{MapError, sys};

/// A map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapInfo {
    /// Its name.
    pub name: &'static str,
    /// `hash`, `lru-hash`, `array`, `lpm-trie`, `percpu-array` or `ringbuf`.
    pub kind: &'static str,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Rows that fit; of the ring buffer, bytes.
    pub max_entries: u32,
    /// Rows in use, where that makes sense.
    pub entries: Option<u64>,
    /// Bytes of kernel memory.
    pub memory_bytes: Option<u64>,
}

/// A decoded row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapRow {
    /// The key, for people.
    pub key: String,
    /// The value, for people.
    pub value: String,
}

/// A loaded program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramInfo {
    /// Its name.
    pub name: String,
    /// The kernel's number for it.
    pub id: u32,
    /// The kernel's digest of its instructions.
    pub tag: String,
    /// Runs, while the kernel's statistics are on (`sysctl kernel.bpf_stats_enabled=1`).
    pub run_count: u64,
    /// Time of these runs.
    pub run_time_ns: u64,
    /// Instructions after the verifier's changes.
    pub instructions: u32,
    /// Bytes of machine code.
    pub jited_bytes: u32,
    /// Instructions that the verifier walked through, of a million at most; kernels before 5.16 do not say.
    pub verified: Option<u32>,
}

pub(crate) fn maps(loaded: &Loaded) -> Result<Vec<MapInfo>, MapError> {
    loaded.specs.iter().map(|spec| map_info(loaded, spec)).collect()
}

fn map_info(loaded: &Loaded, spec: &Spec) -> Result<MapInfo, MapError> {
    let Spec {
        name,
        kind,
        key_size,
        value_size,
        max_entries,
        on_demand: _,
    } = *spec;
    let entries = match name {
        name if name == maps::ENDPOINTS.name => Some(loaded.endpoints.0.len()? as u64),
        name if name == maps::CONNTRACK.name => Some(loaded.conntrack.len()? as u64),
        name if name == maps::NAT.name => Some(loaded.conntrack.nat().map().len()? as u64),
        name if name == maps::PREFIXES.name => Some(loaded.prefixes.rows()?.len() as u64),
        name if name == maps::SERVICES.name => Some(loaded.services.frontends().len()? as u64),
        name if name == maps::BACKENDS.name => Some(loaded.services.backends().len()? as u64),
        name if name == maps::MEMBERS.name => Some(loaded.services.members().len()? as u64),
        name if name == maps::AFFINITY.name => Some(loaded.services.affinity().len()? as u64),
        name if name == maps::SOCKETS.name => Some(loaded.services.sockets().len()? as u64),
        name if name == maps::SOURCES.name => Some(loaded.services.source_keys()?.len() as u64),
        _ => None,
    };
    let kind = match kind {
        Kind::Hash => "hash",
        Kind::LruHash => "lru-hash",
        Kind::Array => "array",
        Kind::LpmTrie => "lpm-trie",
        Kind::PerCpuArray => "percpu-array",
        Kind::RingBuf => "ringbuf",
    };
    Ok(MapInfo {
        name,
        kind,
        key_size,
        value_size,
        max_entries,
        entries,
        memory_bytes: memory(loaded, name),
    })
}

/// What the kernel says that a map takes.
fn memory(loaded: &Loaded, name: &str) -> Option<u64> {
    let map = sys::open_pin(&loaded.pins.map(name)).ok()?;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd())).ok()?;
    info.lines()
        .find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok())
}

/// The rows of a map; `None`: there is no map of this name.
pub(crate) fn dump(loaded: &Loaded, name: &str) -> Result<Option<Vec<MapRow>>, MapError> {
    let rows = match name {
        name if name == maps::ENDPOINTS.name => loaded
            .endpoints
            .rows()?
            .iter()
            .map(|(ip, row)| MapRow {
                key: ip.to_string(),
                value: endpoint(row),
            })
            .collect(),
        name if name == maps::CONNTRACK.name => loaded.conntrack.entries()?.iter().map(connection).collect(),
        name if name == maps::METRICS.name => {
            let counted = |row: &CounterRow| row.packets > 0;
            loaded
                .counters
                .rows()?
                .into_iter()
                .filter(counted)
                .map(counter)
                .collect()
        }
        name if name == maps::NAT.name => nat(loaded)?,
        name if name == maps::NAT_ADDRESSES.name => {
            loaded.conntrack.nat().slots()?.named().map(nat_address).collect()
        }
        name if name == maps::FRAGMENTS.name => loaded.fragments.rows()?.iter().map(fragment).collect(),
        name if name == maps::PREFIXES.name => loaded.prefixes.rows()?.iter().map(prefix).collect(),
        name if name == maps::SERVICES.name => {
            loaded.services.frontends().rows()?.iter().map(frontend).collect()
        }
        name if name == maps::BACKENDS.name => {
            loaded.services.backends().rows()?.iter().map(backend).collect()
        }
        name if name == maps::MEMBERS.name => loaded.services.members().rows()?.iter().map(member).collect(),
        name if name == maps::AFFINITY.name => {
            loaded.services.affinity().rows()?.iter().map(affinity).collect()
        }
        name if name == maps::SOURCES.name => loaded.services.source_keys()?.iter().map(source).collect(),
        name if name == maps::SOCKETS.name => loaded.services.sockets().rows()?.iter().map(socket).collect(),
        name if name == maps::NODE.name => vec![local_node(&loaded.node.get()?)],
        name if name == maps::EVENTS.name || name == maps::WAYS.name => Vec::new(),
        _ => return Ok(None),
    };
    Ok(Some(rows))
}

fn endpoint(row: &Endpoint) -> String {
    match (row.is_host(), row.has(Endpoint::SERVICE)) {
        (true, true) => return "host service".to_owned(),
        (true, false) => return "host".to_owned(),
        (false, true) if row.ifindex == 0 => return "service".to_owned(),
        (false, _) => {}
    }
    let Endpoint {
        ifindex,
        id,
        mac,
        identity,
        policy,
        ..
    } = row;
    let named = [(Endpoint::QUEUED, " queued"), (Endpoint::STACK, " stack")];
    let flags: String = named
        .iter()
        .filter(|(flag, _)| row.has(*flag))
        .map(|(_, name)| *name)
        .collect();
    format!("pod ifindex={ifindex} mac={mac} id={id} identity={identity:#x} policy={policy}{flags}")
}

fn prefix((net, row): (&IpNet, &Prefix)) -> MapRow {
    let named = [(Prefix::TUNNEL, "tunnel"), (Prefix::CLUSTER, "cluster")];
    let flags: Vec<_> = named
        .iter()
        .filter(|(flag, _)| row.has(*flag))
        .map(|(_, name)| *name)
        .collect();
    let node = if row.node == Addr::UNSPECIFIED {
        "-".to_owned()
    } else {
        row.node.to_string()
    };
    MapRow {
        key: net.to_string(),
        value: format!(
            "{} node={node} mtu={} identity={:#x}",
            flags.join(","),
            row.mtu,
            row.identity
        ),
    }
}

fn local_node(row: &LocalNode) -> MapRow {
    let [v4, v6] = row.addresses;
    MapRow {
        key: "0".to_owned(),
        value: format!("v4={v4} v6={v6} tunnel_ifindex={}", row.tunnel_ifindex),
    }
}

fn connection(connection: &Connection) -> MapRow {
    let entry = &connection.entry;
    let outside = connection
        .masqueraded
        .map(|outside| format!(" masqueraded={outside}"));
    let value = format!(
        "{} age={}s idle={}s packets={}/{} bytes={}/{} tcp_flags={:#04x}/{:#04x}{}{}",
        entry.state,
        connection.age.as_secs(),
        connection.idle.as_secs(),
        entry.packets[0],
        entry.packets[1],
        entry.bytes[0],
        entry.bytes[1],
        entry.tcp_flags[0],
        entry.tcp_flags[1],
        outside.unwrap_or_default(),
        if entry.flags & CtEntry::THROUGH_HOST == 0 {
            ""
        } else {
            " through-host"
        },
    );
    MapRow {
        key: tuple(&connection.tuple),
        value,
    }
}

fn tuple(tuple: &Tuple) -> String {
    let source = SocketAddr::new(tuple.source.to_ip(), tuple.source_port.get());
    let destination = SocketAddr::new(tuple.destination.to_ip(), tuple.destination_port.get());
    format!("{} {source} -> {destination}", protocol(tuple.proto))
}

fn protocol(number: u8) -> String {
    proto::name(number).map_or_else(|| number.to_string(), str::to_owned)
}

/// As answers come: from the remote end to the node, and for which pod they are.
fn nat(loaded: &Loaded) -> Result<Vec<MapRow>, MapError> {
    let nat = loaded.conntrack.nat();
    let slots = nat.slots()?;
    let row = |(key, entry): &(CtKey, NatEntry)| MapRow {
        key: tuple(&slots.answer(key).unwrap_or_else(|| key.tuple(0))),
        value: format!("pod {}", SocketAddr::new(entry.pod.to_ip(), entry.port.get())),
    };
    Ok(nat.map().rows()?.iter().map(row).collect())
}

fn nat_address((name, row): (String, &NatAddress)) -> MapRow {
    MapRow {
        key: name,
        value: format!(
            "{} ports={}-{} slot={}",
            row.address, row.first_port, row.last_port, row.slot
        ),
    }
}

fn fragment((key, entry): &(FragmentKey, FragmentEntry)) -> MapRow {
    let [source, destination] = entry.ports;
    // Of IPv4 the identification is the first half as it lies in memory.
    let id = if key.source.is_v4() {
        let [a, b, ..] = key.id.to_ne_bytes();
        u32::from(u16::from_be_bytes([a, b]))
    } else {
        u32::from_be(key.id)
    };
    MapRow {
        key: format!("{} -> {} id={id:#x}", key.source, key.destination),
        value: format!("{} ports={source}/{destination}", protocol(entry.proto)),
    }
}

fn at(addr: Addr, port: Be16) -> SocketAddr {
    SocketAddr::new(addr.to_ip(), port.get())
}

fn frontend((key, row): &(ServiceKey, Service)) -> MapRow {
    let named = [
        (Service::EXTERNAL, "external"),
        (Service::KEEP_SOURCE, "keep-source"),
        (Service::HASHED, "hashed"),
        (Service::SILENT, "silent"),
        (Service::RANGES, "ranges"),
        (Service::MEMBERS, "members"),
    ];
    let flags: String = named
        .iter()
        .filter(|(flag, _)| row.has(*flag))
        .map(|(_, name)| format!(" {name}"))
        .collect();
    let side = |side: usize| format!("set={} count={}", row.sets[side], row.counts[side]);
    MapRow {
        key: format!("{}/{}", at(key.addr, key.port), protocol(key.proto)),
        value: format!(
            "id={} inside: {} outside: {} affinity_ticks={}{flags}",
            row.id,
            side(INSIDE),
            side(OUTSIDE),
            row.affinity
        ),
    }
}

fn backend((key, row): &(BackendKey, Backend)) -> MapRow {
    MapRow {
        key: format!("set={} slot={}", key.set, key.slot),
        value: at(row.addr, row.port).to_string(),
    }
}

fn member((key, slot): &(MemberKey, u32)) -> MapRow {
    MapRow {
        key: format!("set={} {}", key.set, at(key.addr, key.port)),
        value: format!("slot={slot}"),
    }
}

/// A socket's client is the number of its network namespace, which looks like an address.
fn affinity((key, row): &(AffinityKey, Affinity)) -> MapRow {
    MapRow {
        key: format!("id={} client {}", key.service, key.client),
        value: format!("{} last_used={}", at(row.addr, row.port), row.last_used),
    }
}

fn source(key: &SourceKey) -> MapRow {
    let bits = key.length.saturating_sub(SOURCE_SERVICE_BITS);
    let addr = Addr::from_quarters(key.addr);
    let bits = if addr.is_v4() {
        bits.saturating_sub(96)
    } else {
        bits
    };
    MapRow {
        key: format!("id={} {addr}/{bits}", key.service),
        value: "may come".to_owned(),
    }
}

fn socket((key, row): &(SocketKey, SocketPeer)) -> MapRow {
    MapRow {
        key: format!("cookie={} {}", key.cookie, at(key.addr, key.port)),
        value: format!(
            "believes to talk to {}/{} set={}",
            at(row.addr, row.port),
            protocol(row.proto),
            row.set
        ),
    }
}

fn counter(row: CounterRow) -> MapRow {
    let CounterRow {
        reason,
        direction,
        packets,
        bytes,
    } = row;
    MapRow {
        key: format!("{reason} {direction}"),
        value: format!("packets={packets} bytes={bytes}"),
    }
}

pub(crate) fn programs(objects: &[Ebpf]) -> Vec<ProgramInfo> {
    let programs = objects.iter().flat_map(Ebpf::programs);
    let info = |(name, program): (&str, &aya::programs::Program)| {
        let info = program.info().ok()?;
        Some(ProgramInfo {
            name: name.to_owned(),
            id: info.id(),
            tag: format!("{:016x}", info.tag()),
            run_count: info.run_count(),
            run_time_ns: u64::try_from(info.run_time().as_nanos()).unwrap_or(u64::MAX),
            instructions: info.size_translated().unwrap_or(0) / 8,
            jited_bytes: info.size_jitted(),
            verified: info.verified_instruction_count(),
        })
    };
    programs.filter_map(info).collect()
}
