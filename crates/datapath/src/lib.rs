// SPDX-License-Identifier: Apache-2.0
//! The kernel's side of a node: loads the eBPF programs, pins and attaches them, reads and writes their maps.
//!
//! It decides nothing: which devices get a program and which rows the maps have is the agent's to say. All calls block and
//! are short. Nothing here is undone when the process ends: programs, links and maps are pinned and go on working.
//!
//! Begin at [`Datapath`], which one thread owns; the handles that it gives out ([`Conntrack`], [`Counters`],
//! [`EventReader`]) may be used by others.

mod attach;
mod cgroup;
mod clock;
mod conntrack;
mod counters;
mod endpoints;
mod error;
mod events;
mod features;
mod former;
mod gc;
mod inspect;
mod load;
mod map;
mod nat;
mod node;
mod options;
mod pins;
mod prefixes;
mod services;
mod sights;
mod sys;
mod unload;

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use datapath_common::event::Hook;

use crate::pins::Pins;

pub use conntrack::{Connection, Conntrack, GcReport};
pub use counters::{CounterRow, Counters};
pub use datapath_common as common;
pub use endpoints::EndpointsMap;
pub use error::{AttachError, LoadError, MapError};
pub use events::{Event, EventReader};
pub use features::Features;
pub use former::{Carried, Former, MIGRATIONS, Migration};
pub use gc::Timeouts;
pub use inspect::{MapInfo, MapRow, ProgramInfo};
pub use map::HashMap;
pub use nat::{Masquerade, Nat, NatReport};
pub use node::NodeRow;
pub use options::{AttachMode, Limits, Options};
pub use prefixes::PrefixesMap;
pub use services::Services;
pub use sys::{TestRunOutput, test_run};
pub use unload::{UnloadError, unload};

/// The loaded datapath of this network namespace.
#[derive(Debug)]
pub struct Datapath {
    loaded: load::Loaded,
    events: Option<EventReader>,
}

impl Datapath {
    /// Loads the programs against the pinned maps, which are made where they are missing and replaced where they do not
    /// fit. Nothing is attached yet.
    ///
    /// # Errors
    ///
    /// Each names the thing, the reason and the remedy.
    pub fn load(options: &Options) -> Result<Self, LoadError> {
        let (loaded, events) = load::load(options)?;
        Ok(Self {
            loaded,
            events: Some(events),
        })
    }

    /// The right to be the only one who loads programs there, held until it is dropped or the process ends in whatever way.
    ///
    /// # Errors
    ///
    /// When another process has it, or `bpffs` is no BPF file system.
    pub fn lock(bpffs: &Path) -> Result<File, LoadError> {
        Pins::create(bpffs)?.lock()
    }

    /// Carries rows of an earlier version over once more: right before the first program is replaced. Costs nothing where there are none.
    ///
    /// # Errors
    ///
    /// When a map cannot be read.
    pub fn carry_over(&mut self) -> Result<Vec<Carried>, LoadError> {
        let Self { loaded, .. } = self;
        let each = loaded.former.iter();
        each.map(|found| found.carry_over(&loaded.pins)).collect()
    }

    /// The same after the last program was replaced; then the maps of the earlier version go.
    ///
    /// # Errors
    ///
    /// When a map cannot be read, or its pin not be removed: then the next start does it again.
    pub fn finish_carry_over(&mut self) -> Result<Vec<Carried>, LoadError> {
        let carried = self.carry_over()?;
        let mut former = std::mem::take(&mut self.loaded.former).into_iter();
        former.try_for_each(former::Found::remove)?;
        Ok(carried)
    }

    /// Attaches `from_pod` to the host end of a pod's veth. If a program is there already, it is replaced in place.
    pub fn attach_pod(&mut self, ifname: &str, ifindex: u32) -> Result<(), AttachError> {
        self.attach(attach::Target {
            hook: Hook::FromPod,
            ifname,
            ifindex,
            second: false,
        })
    }

    /// Attaches `from_host` to the host end of a pod's veth that another network made and routes to, beside `from_pod`.
    pub fn attach_to_pod(&mut self, ifname: &str, ifindex: u32) -> Result<(), AttachError> {
        self.attach(attach::Target {
            hook: Hook::FromHost,
            ifname,
            ifindex,
            second: true,
        })
    }

    /// Attaches `from_wire` to a device that leads out of the node.
    pub fn attach_wire(&mut self, ifname: &str, ifindex: u32) -> Result<(), AttachError> {
        self.attach(attach::Target {
            hook: Hook::FromWire,
            ifname,
            ifindex,
            second: false,
        })
    }

    /// Attaches `from_host` to the device through which the host reaches its pods.
    pub fn attach_host(&mut self, ifname: &str, ifindex: u32) -> Result<(), AttachError> {
        self.attach(attach::Target {
            hook: Hook::FromHost,
            ifname,
            ifindex,
            second: false,
        })
    }

    /// Attaches `from_tunnel` to the kernel's tunnel device.
    pub fn attach_tunnel(&mut self, ifname: &str, ifindex: u32) -> Result<(), AttachError> {
        self.attach(attach::Target {
            hook: Hook::FromTunnel,
            ifname,
            ifindex,
            second: false,
        })
    }

    fn attach(&mut self, target: attach::Target<'_>) -> Result<(), AttachError> {
        target.check()?;
        let program = load::program(&mut self.loaded.objects, target.hook.name());
        let program = program.map_err(target.program_error("find"))?;
        if self.loaded.features.tcx {
            attach::attach_tcx(&self.loaded.pins, target, program)
        } else {
            attach::attach_clsact(target, program)
        }
    }

    /// Attaches the programs of sockets to a cgroup, whose processes then reach services without a packet being translated. Programs that
    /// are there are replaced in place.
    ///
    /// # Errors
    ///
    /// When there is no such cgroup, the kernel refuses, or the datapath was loaded without services.
    pub fn attach_sockets(&mut self, cgroup: &Path) -> Result<(), AttachError> {
        cgroup::attach(&self.loaded.pins, &self.loaded.objects, cgroup)
    }

    /// Detaches them; `false`: they were not attached.
    ///
    /// # Errors
    ///
    /// When a pin cannot be removed.
    pub fn detach_sockets(&mut self) -> Result<bool, AttachError> {
        cgroup::detach(&self.loaded.pins)
    }

    /// Detaches from a device; `false`: nothing was attached. A device that is gone is no error.
    pub fn detach(&mut self, ifname: &str) -> Result<bool, AttachError> {
        attach::detach(&self.loaded.pins, ifname)
    }

    /// Removes the pins of devices that are not in `live`; returns how many.
    pub fn prune_links(&mut self, live: &BTreeSet<String>) -> Result<usize, AttachError> {
        attach::prune(&self.loaded.pins, live)
    }

    /// The addresses that live here.
    pub fn endpoints(&mut self) -> &mut EndpointsMap {
        &mut self.loaded.endpoints
    }

    /// What lies behind other nodes.
    pub fn prefixes(&mut self) -> &mut PrefixesMap {
        &mut self.loaded.prefixes
    }

    /// What clients of services connect to, and who answers.
    #[must_use]
    pub fn services(&self) -> &Services {
        &self.loaded.services
    }

    /// What the programs know of this node.
    pub fn node(&mut self) -> &mut NodeRow {
        &mut self.loaded.node
    }

    /// A handle to the connections.
    #[must_use]
    pub fn conntrack(&self) -> Conntrack {
        self.loaded.conntrack.clone()
    }

    /// A handle to the counters.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.loaded.counters.clone()
    }

    /// The reader of events; there is one.
    pub fn take_events(&mut self) -> Option<EventReader> {
        self.events.take()
    }

    /// What the kernel offers.
    #[must_use]
    pub fn features(&self) -> &Features {
        &self.loaded.features
    }

    /// All maps.
    pub fn maps(&self) -> Result<Vec<MapInfo>, MapError> {
        inspect::maps(&self.loaded)
    }

    /// The rows of a map, decoded; `None`: there is no map of this name.
    pub fn dump(&self, map: &str) -> Result<Option<Vec<MapRow>>, MapError> {
        inspect::dump(&self.loaded, map)
    }

    /// All programs.
    #[must_use]
    pub fn programs(&self) -> Vec<ProgramInfo> {
        inspect::programs(&self.loaded.objects)
    }

    /// A descriptor of a program, for test runs.
    pub fn program(&mut self, hook: Hook) -> std::io::Result<OwnedFd> {
        load::program_fd(&mut self.loaded.objects, hook.name()).map_err(std::io::Error::other)
    }
}
