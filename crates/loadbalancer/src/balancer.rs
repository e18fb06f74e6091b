// SPDX-License-Identifier: Apache-2.0
//! All services of the cluster, as this node serves them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use model::{EndpointSlice, ObjectName, Service};

use crate::claims::{Claimant, Claims};
use crate::entry::Entry;
use crate::frontend::Kind;
use crate::resolve::{Circumstances, Desired, Remark, Wanted, WantedGroup};
use crate::sets::{Group, Numbers};
use crate::{Batch, Former, Frontend, Local, Owner, PodPorts, Settings, Totals, emit};

/// All services, and what of them is in the maps.
#[derive(Debug)]
pub struct Balancer {
    pub(crate) settings: Settings,
    pub(crate) local: Local,
    pub(crate) services: HashMap<ObjectName, Arc<Service>>,
    pub(crate) slices: HashMap<ObjectName, Vec<Arc<EndpointSlice>>>,
    pub(crate) pods: BTreeMap<ObjectName, PodPorts>,
    pub(crate) entries: HashMap<Owner, Entry>,
    pub(crate) claims: Claims,
    numbers: Numbers,
    /// Frontends at each address.
    addresses: HashMap<IpAddr, u32>,
    /// Addresses whose rows may have to change, and whether they had one.
    touched: HashMap<IpAddr, bool>,
    dirty: BTreeSet<Owner>,
    /// Those who come first, the last of them first.
    order: Vec<Owner>,
    former: Option<Former>,
    totals: Totals,
    /// Whose remarks or errors have changed.
    news: BTreeSet<Owner>,
    /// Where this node answers whether it has a backend of a service, and how many it has.
    health_checks: BTreeMap<u16, (ObjectName, usize)>,
}

impl Balancer {
    /// Without any services.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            local: Local::default(),
            services: HashMap::new(),
            slices: HashMap::new(),
            pods: BTreeMap::new(),
            entries: HashMap::new(),
            claims: Claims::default(),
            numbers: Numbers::default(),
            addresses: HashMap::new(),
            touched: HashMap::new(),
            dirty: BTreeSet::new(),
            order: Vec::new(),
            former: None,
            totals: Totals::default(),
            news: BTreeSet::new(),
            health_checks: BTreeMap::new(),
        }
    }

    /// A service is new or has changed.
    pub fn set_service(&mut self, service: Arc<Service>) {
        self.dirty.insert(Owner::Service(service.name.clone()));
        self.services.insert(service.name.clone(), service);
    }

    /// A service is gone.
    pub fn remove_service(&mut self, name: &ObjectName) {
        if let Some((name, _)) = self.services.remove_entry(name) {
            self.dirty.insert(Owner::Service(name));
        }
    }

    /// A slice is new, gone or has changed; it may even have become another service's.
    pub fn change_slice(&mut self, before: Option<&EndpointSlice>, after: Option<Arc<EndpointSlice>>) {
        if let Some(before) = before {
            if let Some(all) = self.slices.get_mut(&before.service) {
                all.retain(|slice| slice.name != before.name);
                if all.is_empty() {
                    self.slices.remove(&before.service);
                }
            }
            self.dirty.insert(Owner::Service(before.service.clone()));
        }
        if let Some(after) = after {
            let owner = after.service.clone();
            let all = self.slices.entry(owner.clone()).or_default();
            let place = all.partition_point(|slice| slice.name < after.name);
            all.reserve_exact(1);
            all.insert(place, after);
            self.dirty.insert(Owner::Service(owner));
        }
    }

    /// Pods of this node with ports of the node.
    pub fn set_pods(&mut self, pods: BTreeMap<ObjectName, PodPorts>) {
        let differs = |name: &&ObjectName| self.pods.get(*name) != pods.get(*name);
        let changed: Vec<ObjectName> = self
            .pods
            .keys()
            .chain(pods.keys())
            .filter(differs)
            .cloned()
            .collect();
        self.dirty.extend(changed.into_iter().map(Owner::Pod));
        self.pods = pods;
    }

    /// Where we are has changed, perhaps.
    pub fn set_local(&mut self, local: Local) {
        if local == self.local {
            return;
        }
        let moved = (&local.name, &local.zone) != (&self.local.name, &self.local.zone);
        let addresses: BTreeSet<IpAddr> = local
            .addresses
            .symmetric_difference(&self.local.addresses)
            .copied()
            .collect();
        let nodes: BTreeSet<IpAddr> = local
            .nodes
            .symmetric_difference(&self.local.nodes)
            .copied()
            .collect();
        let nets: BTreeSet<IpNet> = local
            .pod_networks
            .0
            .symmetric_difference(&self.local.pod_networks.0)
            .copied()
            .collect();
        for addr in addresses.iter().chain(&nodes) {
            self.touch(*addr);
        }
        self.local = local;
        if moved {
            self.dirty
                .extend(self.services.keys().cloned().map(Owner::Service));
        }
        if !addresses.is_empty() {
            let has_node_port = |service: &&Arc<Service>| service.ports.iter().any(|port| port.node_port > 0);
            let services = self.services.values().filter(has_node_port);
            self.dirty
                .extend(services.map(|service| Owner::Service(service.name.clone())));
            self.dirty.extend(self.pods.keys().cloned().map(Owner::Pod));
        }
        if !(addresses.is_empty() && nodes.is_empty() && nets.is_empty()) {
            let concerns = |frontend: &Frontend| {
                let addr = frontend.addr;
                addresses.contains(&addr)
                    || nodes.contains(&addr)
                    || nets.iter().any(|net| net.contains(&addr))
            };
            self.dirty.extend(self.claims.holders(concerns));
            let refused = self.entries.iter().filter(|(_, entry)| entry.is_refused());
            self.dirty.extend(refused.map(|(owner, _)| owner.clone()));
        }
    }

    /// Compares all rows with those that are in the maps, which are handed in: [`step`](Self::step) writes what differs, and what is
    /// left in the end is deleted. The first time, numbers and slots are taken from there.
    pub fn compare(&mut self, mut former: Former) {
        former.adopt = self.entries.is_empty();
        self.numbers.begin_after(former.highest);
        self.dirty
            .extend(self.services.keys().cloned().map(Owner::Service));
        self.dirty.extend(self.pods.keys().cloned().map(Owner::Pod));
        self.dirty.extend(self.entries.keys().cloned());
        // Before anything is written it is known whose each frontend is: then nobody writes one that another takes from it in the next
        // moment.
        for owner in self.dirty.clone() {
            let desired = self.desired(&owner);
            self.claim(&owner, &desired);
        }
        // The oldest first: where there is no room for all, it is the youngest that are left out.
        let mut order: Vec<Claimant> = self
            .dirty
            .iter()
            .map(|owner| Claimant::new(owner, self.created(owner)))
            .collect();
        order.sort();
        self.order = order.into_iter().rev().map(Claimant::into_owner).collect();
        self.former = Some(former);
    }

    /// Whether [`step`](Self::step) has something to do.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        !self.dirty.is_empty() || !self.touched.is_empty() || self.former.is_some()
    }

    /// What is to be done for `most` services, and for those that these take something from or give to.
    pub fn step(&mut self, most: usize) -> Batch {
        // The oldest first: where there is no room for all, it is the youngest that are left out.
        let mut wanted: BTreeMap<Claimant, Desired> = BTreeMap::new();
        let mut queue = self.first(most);
        while let Some(owner) = queue.pop() {
            self.dirty.remove(&owner);
            let claimant = Claimant::new(&owner, self.created(&owner));
            if wanted.contains_key(&claimant) {
                continue;
            }
            let desired = self.desired(&owner);
            queue.extend(self.claim(&owner, &desired));
            wanted.insert(claimant, desired);
        }
        let all = self.former.is_some();
        let mut batch = Batch::default();
        for (claimant, desired) in wanted {
            let owner = claimant.into_owner();
            self.emit(&owner, desired, &mut batch, all);
            batch.owners.push(owner);
        }
        self.finish(&mut batch);
        batch
    }

    fn first(&mut self, most: usize) -> Vec<Owner> {
        let mut first = Vec::new();
        while first.len() < most
            && let Some(owner) = self.order.pop()
        {
            first.extend(self.dirty.take(&owner));
        }
        if first.is_empty() {
            first.extend(self.dirty.iter().take(most).cloned());
        }
        first
    }

    /// All rows of one service once more: not all could be written.
    pub fn again(&mut self, owner: &Owner) -> Batch {
        let desired = self.desired(owner);
        let mut batch = Batch::default();
        self.emit(owner, desired, &mut batch, true);
        batch.owners.push(owner.clone());
        self.finish(&mut batch);
        batch
    }

    /// The rows of these are written.
    pub fn confirm(&mut self, owners: &[Owner]) {
        for owner in owners {
            let Some(entry) = self.entries.get_mut(owner) else {
                continue;
            };
            entry.in_force = true;
            for set in entry.groups.iter_mut().flat_map(|group| &mut group.sets) {
                set.high = set.count();
            }
            if entry.failed.take().is_some() {
                self.totals.failed -= 1;
                self.news.insert(owner.clone());
            }
        }
    }

    /// The rows of this one could not all be written. Returns what is to be deleted: all of a service that was not in force before, and
    /// else nothing; it goes on as it was.
    pub fn failed(&mut self, owner: &Owner, why: &str) -> Batch {
        let mut batch = Batch::default();
        let Some(entry) = self.entries.get_mut(owner) else {
            return batch;
        };
        if entry.failed.as_deref() != Some(why) {
            self.totals.failed += usize::from(entry.failed.is_none());
            entry.failed = Some(why.into());
            self.news.insert(owner.clone());
        }
        if !entry.in_force {
            for group in &entry.groups {
                emit::group(&mut batch, Some(group), None, false);
            }
            batch
                .gone_frontends
                .extend(entry.frontends.iter().map(|wanted| wanted.frontend.key()));
        }
        batch
    }

    /// Those whose rows could not be written.
    #[must_use]
    pub fn failing(&self) -> Vec<Owner> {
        if self.totals.failed == 0 {
            return Vec::new();
        }
        // What is to be worked on anyway is not tried again before: it may be gone.
        let failing = self
            .entries
            .iter()
            .filter(|(owner, entry)| entry.failed.is_some() && !self.dirty.contains(*owner));
        failing.map(|(owner, _)| owner.clone()).collect()
    }

    /// How much there is.
    #[must_use]
    pub const fn totals(&self) -> Totals {
        self.totals
    }

    /// Those of whom there is something new to say, since the last time.
    pub fn take_news(&mut self) -> BTreeSet<Owner> {
        std::mem::take(&mut self.news)
    }

    /// Where this node answers whether it has a backend of a service, and how many it has.
    #[must_use]
    pub const fn health_checks(&self) -> &BTreeMap<u16, (ObjectName, usize)> {
        &self.health_checks
    }

    fn desired(&self, owner: &Owner) -> Desired {
        let circumstances = Circumstances {
            settings: &self.settings,
            local: &self.local,
        };
        match owner {
            Owner::Service(name) => match self.services.get(name) {
                Some(service) => {
                    let slices = self.slices.get(name).map(Vec::as_slice).unwrap_or_default();
                    circumstances.of_service(service, slices)
                }
                None => Desired::default(),
            },
            Owner::Pod(name) => self
                .pods
                .get(name)
                .map(|pod| circumstances.of_pod(pod))
                .unwrap_or_default(),
        }
    }

    fn created(&self, owner: &Owner) -> i64 {
        match owner {
            Owner::Service(name) => self.services.get(name).map_or(0, |service| service.created),
            Owner::Pod(_) => 0,
        }
    }

    /// Says which frontends a service wants now. Returns who gets or loses one by it.
    fn claim(&mut self, owner: &Owner, desired: &Desired) -> Vec<Owner> {
        let created = self.created(owner);
        let mut wanted: HashMap<Frontend, Kind> = HashMap::new();
        for one in &desired.frontends {
            wanted.entry(one.frontend).or_insert(one.kind);
        }
        let mut concerned = Vec::new();
        if let Some(entry) = self.entries.get_mut(owner) {
            let before = Claimant::new(owner, std::mem::replace(&mut entry.created, created));
            let aged = before != Claimant::new(owner, created);
            let released = entry
                .claims()
                .filter(|(frontend, kind)| aged || wanted.get(frontend) != Some(kind));
            let released: Vec<_> = released.collect();
            for (frontend, kind) in released {
                concerned.extend(self.claims.release(&frontend, &before.wanting(kind)));
            }
        }
        let claimant = Claimant::new(owner, created);
        concerned.extend(
            wanted
                .iter()
                .filter_map(|(frontend, kind)| self.claims.claim(*frontend, &claimant.wanting(*kind))),
        );
        concerned.retain(|other| other != owner);
        concerned
    }

    fn emit(&mut self, owner: &Owner, mut desired: Desired, batch: &mut Batch, all: bool) {
        let before = self.entries.remove(owner).unwrap_or_default();
        before.take_from(&mut self.totals);
        let all = all || before.failed.is_some();
        let (mut frontends, lost) = self.divide(owner, &mut desired);
        let groups = self.arrange(&before, &mut frontends, desired.groups);
        for group in &groups {
            let was = before.groups.iter().find(|was| was.number == group.number);
            emit::group(batch, was, Some(group), all);
        }
        for was in before
            .groups
            .iter()
            .filter(|was| !groups.iter().any(|group| group.number == was.number))
        {
            emit::group(batch, Some(was), None, all);
            self.numbers.give_back(was.number);
        }
        self.emit_frontends(batch, &before, (&frontends, &groups), all);
        self.note_health_check(owner, before.health_check_port, desired.ready_here);
        if before.remarks[..] != desired.remarks[..] {
            self.news.insert(owner.clone());
        }
        if groups.is_empty() && desired.remarks.is_empty() {
            return;
        }
        let entry = Entry {
            created: self.created(owner),
            groups: groups.into(),
            frontends: frontends.into(),
            lost,
            remarks: desired.remarks.into(),
            health_check_port: self.health_check_port(owner),
            in_force: before.in_force,
            failed: before.failed,
        };
        entry.add_to(&mut self.totals);
        self.entries.insert(owner.clone(), entry);
    }

    /// The frontends that are the owner's, and those that are another's; of which it is said.
    fn divide(&self, owner: &Owner, desired: &mut Desired) -> (Vec<Wanted>, Box<[(Frontend, Kind)]>) {
        let (mut own, mut lost) = (Vec::with_capacity(desired.frontends.len()), Vec::new());
        let mut seen = HashSet::new();
        for wanted in std::mem::take(&mut desired.frontends) {
            if !seen.insert(wanted.frontend) {
                continue;
            }
            match self.claims.owner(&wanted.frontend) {
                Some(holder) if holder == owner => own.push(wanted),
                Some(holder) => {
                    let text = format!("{} {} is {holder}'s already", wanted.kind.name(), wanted.frontend);
                    desired.remarks.push(Remark::refused("FrontendTaken", text));
                    lost.push((wanted.frontend, wanted.kind));
                }
                // The object has changed since, and waits for its turn.
                None => {}
            }
        }
        (own, lost.into())
    }

    /// Gives groups their numbers and backends their slots: those that they have, or had before the agent began. A group that no
    /// frontend leads to is none.
    fn arrange(&mut self, before: &Entry, frontends: &mut [Wanted], wanted: Vec<WantedGroup>) -> Vec<Group> {
        let mut groups = Vec::new();
        for (was, wanted) in (0_u16..).zip(wanted) {
            let place = u16::try_from(groups.len()).unwrap_or(u16::MAX);
            let mut first = None;
            for one in frontends.iter_mut().filter(|one| one.group == was) {
                one.group = place;
                first.get_or_insert(one.frontend);
            }
            if let Some(first) = first {
                groups.push(self.numbered(before, first, wanted));
            }
        }
        groups
    }

    fn numbered(&mut self, before: &Entry, first: Frontend, wanted: WantedGroup) -> Group {
        if let Some(known) = before.groups.iter().find(|group| group.is_of(&wanted)) {
            return Group::arranged(wanted, known.number, &known.sets);
        }
        let former = self
            .former
            .as_ref()
            .and_then(|former| Some((former, former.number(&first)?)));
        let adopted =
            former.and_then(|(former, number)| Some((self.numbers.take(number)?, former.sets(number))));
        let (number, sets) = adopted.unwrap_or_else(|| (self.numbers.next(), Default::default()));
        Group::arranged(wanted, number, &sets)
    }

    fn emit_frontends(
        &mut self,
        batch: &mut Batch,
        before: &Entry,
        (now, groups): (&[Wanted], &[Group]),
        all: bool,
    ) {
        let hz = self.settings.hz;
        let row = |wanted: &Wanted, groups: &[Group]| {
            let group = groups.get(usize::from(wanted.group))?;
            Some(emit::frontend(wanted, group, hz))
        };
        let old: HashMap<Frontend, &Wanted> =
            before.frontends.iter().map(|one| (one.frontend, one)).collect();
        for wanted in now {
            let Some(new) = row(wanted, groups) else { continue };
            let was = old.get(&wanted.frontend).and_then(|was| row(was, &before.groups));
            if all || was != Some(new) {
                batch.frontends.push((wanted.frontend.key(), new));
            }
            if !old.contains_key(&wanted.frontend) {
                self.count_address(wanted.frontend.addr, 1);
            }
            if all {
                // Whatever was thought of it: perhaps its row could not be written.
                self.touched.insert(wanted.frontend.addr, false);
            }
        }
        let kept: HashSet<Frontend> = now.iter().map(|wanted| wanted.frontend).collect();
        for gone in old.keys().filter(|frontend| !kept.contains(frontend)) {
            self.count_address(gone.addr, -1);
            if self.claims.owner(gone).is_none() {
                batch.gone_frontends.push(gone.key());
            }
        }
    }

    fn health_check_port(&self, owner: &Owner) -> u16 {
        let service = self.services.get(owner.name()).filter(|_| !owner.is_pod());
        let exposure = service.and_then(|service| service.exposure.as_deref());
        exposure
            .filter(|exposure| exposure.local)
            .map_or(0, |exposure| exposure.health_check_port)
    }

    fn note_health_check(&mut self, owner: &Owner, before: u16, ready: usize) {
        if self
            .health_checks
            .get(&before)
            .is_some_and(|(name, _)| name == owner.name())
        {
            self.health_checks.remove(&before);
        }
        let port = self.health_check_port(owner);
        if port > 0 {
            self.health_checks
                .entry(port)
                .or_insert_with(|| (owner.name().clone(), ready));
        }
    }

    fn count_address(&mut self, addr: IpAddr, by: i32) {
        self.touch(addr);
        let count = self.addresses.entry(addr).or_default();
        *count = count.saturating_add_signed(by);
        if *count == 0 {
            self.addresses.remove(&addr);
        }
    }

    fn touch(&mut self, addr: IpAddr) {
        let had = self.has_row(addr);
        self.touched.entry(addr).or_insert(had);
    }

    /// Whether an address is to have a row of ours: the rows of a node's own are the node's, and another node's address is served there.
    fn has_row(&self, addr: IpAddr) -> bool {
        self.addresses.contains_key(&addr)
            && !self.local.addresses.contains(&addr)
            && !self.local.nodes.contains(&addr)
    }

    fn finish(&mut self, batch: &mut Batch) {
        for (addr, had) in std::mem::take(&mut self.touched) {
            match (had, self.has_row(addr)) {
                (true, false) => batch.gone_addresses.push(addr),
                (false, true) => batch.addresses.push(addr),
                _ => {}
            }
        }
        if let Some(former) = &mut self.former {
            former.filter(batch);
            if self.dirty.is_empty() {
                let rest = self.former.take().unwrap_or_default().leftovers();
                batch.gone_addresses.extend(rest.gone_addresses);
                batch.gone_frontends.extend(rest.gone_frontends);
                batch.gone_sources.extend(rest.gone_sources);
                batch.gone_members.extend(rest.gone_members);
                batch.gone_backends.extend(rest.gone_backends);
            }
        }
    }
}
