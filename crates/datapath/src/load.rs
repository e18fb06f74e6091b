// SPDX-License-Identifier: Apache-2.0
//! Loading: objects into programs, pinned maps reused or replaced.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "few of the many variants of aya's errors matter here"
)]

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use aya::maps::{MapError, RingBuf};
use aya::programs::{Program, ProgramError, SchedClassifier};
use aya::{Ebpf, EbpfError, EbpfLoader};
use datapath_common::event::Hook;
use datapath_common::maps::{self, Spec};
use datapath_common::service::{Backend, BackendKey, MemberKey, Service, ServiceKey};
use datapath_common::{Addr, CtEntry, CtKey, Endpoint, FragmentEntry, FragmentKey, NatEntry, NodeConfig};
use tracing::{info, warn};
use zerocopy::IntoBytes;

use crate::clock::Clock;
use crate::map::Bytes;
use crate::nat::Nat;
use crate::pins::{Displaced, Pins};
use crate::{
    Conntrack, Counters, EndpointsMap, EventReader, Features, HashMap, Limits, LoadError, NodeRow, Options,
    PrefixesMap, Services, former, sys,
};

/// The objects, as the build left them.
const OBJECTS: [(&str, &[u8]); 4] = [
    (
        "pod",
        aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/pod")),
    ),
    (
        "host",
        aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/host")),
    ),
    (
        "tunnel",
        aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tunnel")),
    ),
    (
        SOCKET,
        aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/socket")),
    ),
];
/// The object that is of use with services only.
const SOCKET: &str = "socket";
/// Never attached: it tells user space the kernel's jiffies.
const CLOCK: &str = "clock";
/// Rows of a map that no program looks at.
const UNUSED: u32 = 1;
/// Backends for each frontend that fits.
const BACKENDS_EACH: u32 = 4;
/// Lines of the verifier's log that an error shows.
const LOG_LINES: usize = 40;

/// What loading leaves.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) pins: Pins,
    pub(crate) objects: Vec<Ebpf>,
    pub(crate) specs: Vec<Spec>,
    pub(crate) endpoints: EndpointsMap,
    pub(crate) conntrack: Conntrack,
    pub(crate) fragments: HashMap<FragmentKey, FragmentEntry>,
    pub(crate) prefixes: PrefixesMap,
    pub(crate) services: Services,
    pub(crate) node: NodeRow,
    pub(crate) counters: Counters,
    pub(crate) features: Features,
    /// Maps of an earlier version.
    pub(crate) former: Vec<former::Found>,
}

pub(crate) fn load(options: &Options) -> Result<(Loaded, EventReader), LoadError> {
    let mut features = Features::of_kernel()?;
    let pins = Pins::create(&options.bpffs)?;
    if features.version < (5, 11) {
        sys::lift_memlock_limit();
    }
    let mut node = options.node;
    if features.version >= (6, 1) {
        node.flags |= NodeConfig::SET_RETVAL;
    }
    let specs = specs(options.limits.resolve(memory_bytes()?), options.node);
    let mut displaced = Vec::new();
    for spec in &specs {
        displaced.extend(pins.make_way(spec)?);
    }
    let mut objects = load_objects(node, &pins, &specs, &features)?;
    for displaced in displaced {
        carry_over(&pins, displaced)?;
    }
    let former = former::find(&pins, options.former)?;
    for found in &former {
        found.carry_over(&pins)?;
    }
    let fd = |objects: &mut [Ebpf], name| {
        program_fd(objects, name).map_err(|error| LoadError::Object {
            object: name,
            source: Box::new(error.into()),
        })
    };
    let clock = Clock::calibrate(fd(&mut objects, CLOCK)?).map_err(LoadError::Clock)?;
    features.probe_attach(options.attach, fd(&mut objects, Hook::FromPod.name())?.as_fd());
    info!(kernel = %features.kernel, tcx = features.tcx, hz = clock.rate(), "datapath loaded");

    let events = events(&mut objects)?;
    let services = services(&pins, &specs, clock.rate())?;
    let loaded = Loaded {
        endpoints: EndpointsMap(open(&pins, maps::ENDPOINTS.name, &specs)?),
        conntrack: conntrack(&pins, &specs, clock)?,
        fragments: open(&pins, maps::FRAGMENTS.name, &specs)?,
        prefixes: PrefixesMap::new(open_pin(&pins, maps::PREFIXES.name)?),
        services,
        node: NodeRow::new(open_pin(&pins, maps::NODE.name)?),
        counters: Counters::new(open_pin(&pins, maps::METRICS.name)?, cpus()?),
        pins,
        objects,
        specs,
        features,
        former,
    };
    Ok((loaded, events))
}

fn conntrack(pins: &Pins, specs: &[Spec], clock: Clock) -> Result<Conntrack, LoadError> {
    let nat = Nat::new(
        open(pins, maps::NAT.name, specs)?,
        open(pins, maps::NAT_ADDRESSES.name, specs)?,
    );
    Ok(Conntrack::new(
        open(pins, maps::CONNTRACK.name, specs)?,
        nat,
        clock,
    ))
}

fn services(pins: &Pins, specs: &[Spec], hz: u32) -> Result<Services, LoadError> {
    Ok(Services {
        frontends: open(pins, maps::SERVICES.name, specs)?,
        backends: open(pins, maps::BACKENDS.name, specs)?,
        members: open(pins, maps::MEMBERS.name, specs)?,
        affinity: open(pins, maps::AFFINITY.name, specs)?,
        sources: open(pins, maps::SOURCES.name, specs)?,
        sockets: open(pins, maps::SOCKETS.name, specs)?,
        hz,
    })
}

/// The maps with the sizes that the settings want.
fn specs(limits: Limits, node: NodeConfig) -> Vec<Spec> {
    let if_used = |flag, rows| if node.has(flag) { rows } else { UNUSED };
    let nat_max = if node.has(NodeConfig::SERVICES) {
        // Two for each connection to a service.
        limits.conntrack_max.saturating_mul(2)
    } else {
        if_used(NodeConfig::MASQUERADE, limits.conntrack_max)
    };
    let services_max = if_used(NodeConfig::SERVICES, limits.services_max);
    let backends_max = if_used(
        NodeConfig::SERVICES,
        limits.services_max.saturating_mul(BACKENDS_EACH),
    );
    let addresses_max = if_used(NodeConfig::SERVICES, limits.services_max);
    let sized = |mut spec: Spec| {
        spec.max_entries = match spec.name {
            name if name == maps::ENDPOINTS.name => limits.endpoints_max.saturating_add(addresses_max),
            name if name == maps::SERVICES.name => services_max,
            name if name == maps::BACKENDS.name || name == maps::MEMBERS.name => backends_max,
            name if [maps::AFFINITY, maps::SOURCES, maps::SOCKETS]
                .iter()
                .any(|spec| spec.name == name) =>
            {
                if_used(NodeConfig::SERVICES, spec.max_entries)
            }
            name if name == maps::CONNTRACK.name => limits.conntrack_max,
            name if name == maps::NAT.name => nat_max,
            name if name == maps::EVENTS.name => limits.events_bytes,
            _ => spec.max_entries,
        };
        spec
    };
    maps::ALL.into_iter().map(sized).collect()
}

fn load_objects(
    node: NodeConfig,
    pins: &Pins,
    specs: &[Spec],
    features: &Features,
) -> Result<Vec<Ebpf>, LoadError> {
    let mut loader = EbpfLoader::new();
    loader.default_map_pin_directory(pins.root());
    loader.override_global(NodeConfig::SYMBOL, node.as_bytes(), true);
    for spec in specs {
        loader.map_max_entries(spec.name, spec.max_entries);
    }
    let mut objects = Vec::new();
    let wanted = |object: &str| object != SOCKET || node.has(NodeConfig::SERVICES);
    for (object, bytes) in OBJECTS.into_iter().filter(|(object, _)| wanted(object)) {
        let mut ebpf = loader
            .load(bytes)
            .map_err(|error| object_error(object, features, error))?;
        for (name, program) in ebpf.programs_mut() {
            load_program(program).map_err(|error| program_error(name, object, features, error))?;
        }
        objects.push(ebpf);
    }
    Ok(objects)
}

fn load_program(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::SchedClassifier(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

fn object_error(object: &'static str, features: &Features, error: EbpfError) -> LoadError {
    match error {
        EbpfError::MapError(MapError::CreateError { name, io_error }) => match io_error.raw_os_error() {
            // Before 5.11, a map beyond the limit on locked memory is refused in these words too.
            Some(libc::EPERM) if features.version >= (5, 11) => LoadError::Privilege {
                operation: format!("create map {name}"),
            },
            _ => LoadError::MapMemory {
                map: name,
                source: io_error,
            },
        },
        error => LoadError::Object {
            object,
            source: Box::new(error),
        },
    }
}

fn program_error(program: &str, object: &'static str, features: &Features, error: ProgramError) -> LoadError {
    match error {
        ProgramError::LoadError { io_error, .. } if io_error.raw_os_error() == Some(libc::EPERM) => {
            LoadError::Privilege {
                operation: format!("load program {program}"),
            }
        }
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => LoadError::Verifier {
            program: program.to_owned(),
            release: features.kernel.clone(),
            reason: io_error,
            log: tail(&verifier_log.to_string()),
        },
        error => LoadError::Object {
            object,
            source: Box::new(error.into()),
        },
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

/// The program of this name in any of the objects.
pub(crate) fn program<'a>(
    objects: &'a mut [Ebpf],
    name: &str,
) -> Result<&'a mut SchedClassifier, ProgramError> {
    let program = objects.iter_mut().find_map(|object| object.program_mut(name));
    program.ok_or(ProgramError::UnexpectedProgramType)?.try_into()
}

pub(crate) fn program_fd(objects: &mut [Ebpf], name: &str) -> Result<OwnedFd, ProgramError> {
    Ok(program(objects, name)?.fd()?.as_fd().try_clone_to_owned()?)
}

fn events(objects: &mut [Ebpf]) -> Result<EventReader, LoadError> {
    let name = maps::EVENTS.name;
    let ring = objects
        .iter_mut()
        .find_map(|object| object.take_map(name))
        .ok_or_else(|| MapError::InvalidName {
            name: name.to_owned(),
        })
        .and_then(RingBuf::try_from);
    ring.map(EventReader::new).map_err(|error| LoadError::Object {
        object: name,
        source: Box::new(error.into()),
    })
}

/// Copies the rows of a map that made way into the one that took its place.
fn carry_over(pins: &Pins, displaced: Displaced) -> Result<(), LoadError> {
    match displaced.spec.name {
        name if name == maps::CONNTRACK.name => copy::<CtKey, CtEntry>(pins, displaced),
        name if name == maps::NAT.name => copy::<CtKey, NatEntry>(pins, displaced),
        name if name == maps::ENDPOINTS.name => copy::<Addr, Endpoint>(pins, displaced),
        name if name == maps::SERVICES.name => copy::<ServiceKey, Service>(pins, displaced),
        name if name == maps::BACKENDS.name => copy::<BackendKey, Backend>(pins, displaced),
        name if name == maps::MEMBERS.name => copy::<MemberKey, u32>(pins, displaced),
        _ => Ok(()),
    }
}

fn copy<K: Bytes, V: Bytes>(pins: &Pins, displaced: Displaced) -> Result<(), LoadError> {
    let Displaced {
        spec,
        map,
        max_entries,
    } = displaced;
    let old = HashMap::<K, V>::new(map, spec.name, max_entries);
    let new = HashMap::<K, V>::new(open_pin(pins, spec.name)?, spec.name, spec.max_entries);
    let (mut copied, mut lost) = (0_usize, 0_usize);
    old.for_each(|key, value| match new.insert(key, value) {
        Ok(()) => copied += 1,
        Err(_) => lost += 1,
    })?;
    match lost {
        0 => info!(map = spec.name, copied, "rows moved to the new map"),
        _ => warn!(
            map = spec.name,
            copied, lost, "rows moved to the new map; some did not fit"
        ),
    }
    Ok(())
}

fn open<K: Bytes, V: Bytes>(
    pins: &Pins,
    name: &'static str,
    specs: &[Spec],
) -> Result<HashMap<K, V>, LoadError> {
    let max_entries = specs
        .iter()
        .find(|spec| spec.name == name)
        .map_or(0, |spec| spec.max_entries);
    Ok(HashMap::new(open_pin(pins, name)?, name, max_entries))
}

fn open_pin(pins: &Pins, name: &str) -> Result<OwnedFd, LoadError> {
    let path = pins.map(name);
    sys::open_pin(&path).map_err(|source| LoadError::Io {
        operation: "open",
        path,
        source,
    })
}

/// Bytes of memory of this machine.
fn memory_bytes() -> Result<u64, LoadError> {
    let path = "/proc/meminfo";
    let unreadable = |source| LoadError::Io {
        operation: "read",
        path: path.into(),
        source,
    };
    let text = fs::read_to_string(path).map_err(unreadable)?;
    let kib = text.lines().find_map(|line| {
        line.strip_prefix("MemTotal:")?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    });
    kib.map(|kib: u64| kib << 10)
        .ok_or_else(|| unreadable(io::Error::other("no line MemTotal")))
}

/// How many values a per-CPU map holds for each key.
fn cpus() -> Result<usize, LoadError> {
    aya::util::nr_cpus().map_err(|(path, source)| LoadError::Io {
        operation: "read",
        path: path.into(),
        source,
    })
}

#[cfg(test)]
#[path = "stack_test.rs"]
mod tests;
