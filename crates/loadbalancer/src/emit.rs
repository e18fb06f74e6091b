// SPDX-License-Identifier: Apache-2.0
//! From what was to what is wanted: rows.

use std::collections::HashMap;

use datapath_common::Addr;
use datapath_common::service::{
    BackendKey, INSIDE, MemberKey, OUTSIDE, SOURCE_SERVICE_BITS, Service, SourceKey,
};
use ipnet::IpNet;

use crate::resolve::{CLUSTER, LOCAL, Wanted};
use crate::sets::{Group, Set};
use crate::{Batch, Target};

/// Bits of `::ffff:0:0/96`.
const MAPPED_BITS: u8 = 96;

/// Rows of a group that differ; all that are wanted, where `all` is said.
pub(crate) fn group(batch: &mut Batch, before: Option<&Group>, after: Option<&Group>, all: bool) {
    let Some(number) = after.or(before).map(|group| group.number) else {
        return;
    };
    for place in [CLUSTER, LOCAL] {
        let pick = |group: Option<&Group>| group.map(|group| group.sets[usize::from(place)].clone());
        let has_members =
            |group: Option<&Group>| group.is_some_and(|group| group.flags & Service::MEMBERS != 0);
        let side = |one: Option<&Group>| Side {
            set: pick(one).unwrap_or_default(),
            members: has_members(one),
        };
        set(
            batch,
            number * 2 + u32::from(place),
            (side(before), side(after)),
            all,
        );
    }
    let keys = |group: Option<&Group>| -> Vec<SourceKey> {
        let ranges = group.map(|group| &group.ranges).into_iter().flatten();
        ranges.map(|net| source(number, net)).collect()
    };
    let (old, new) = (keys(before), keys(after));
    batch
        .sources
        .extend(new.iter().filter(|key| all || !old.contains(key)));
    batch
        .gone_sources
        .extend(old.iter().filter(|key| !new.contains(key)));
}

struct Side {
    set: Set,
    members: bool,
}

fn set(batch: &mut Batch, number: u32, (before, after): (Side, Side), all: bool) {
    // What nobody changed is not looked at further: a lookup table is not cheap.
    let same = before.set.targets == after.set.targets && before.set.table == after.set.table;
    if same && before.members == after.members && !all && before.set.high <= after.set.count() {
        return;
    }
    let (old, new) = (before.set.slots(), after.set.slots());
    for (slot, target) in (0_u32..).zip(&new) {
        if all || old.get(slot as usize) != Some(target) {
            batch
                .backends
                .push((BackendKey { set: number, slot }, target.row()));
        }
    }
    let high = after.set.high.max(before.set.high).max(before.set.count());
    let beyond = after.set.count()..high;
    batch
        .gone_backends
        .extend(beyond.map(|slot| BackendKey { set: number, slot }));
    members(
        batch,
        number,
        (&old[..], before.members),
        (&new[..], after.members),
        all,
    );
}

fn members(batch: &mut Batch, number: u32, old: (&[Target], bool), new: (&[Target], bool), all: bool) {
    let first_slots = |(slots, members): (&[Target], bool)| {
        let mut first: HashMap<Target, u32> = HashMap::new();
        for (slot, target) in (0_u32..).zip(slots).filter(|_| members) {
            first.entry(*target).or_insert(slot);
        }
        first
    };
    let (old, new) = (first_slots(old), first_slots(new));
    for (target, slot) in &new {
        if all || old.get(target) != Some(slot) {
            batch.members.push((target.member(number), *slot));
        }
    }
    let gone = old.keys().filter(|target| !new.contains_key(target));
    batch
        .gone_members
        .extend(gone.map(|target| -> MemberKey { target.member(number) }));
}

/// The row of a frontend.
pub(crate) fn frontend(wanted: &Wanted, group: &Group, hz: u32) -> Service {
    let of = |side: usize| {
        let place = wanted.lists[side];
        (group.set_number(place), group.sets[usize::from(place)].count())
    };
    let ((inside, inside_count), (outside, outside_count)) = (of(INSIDE), of(OUTSIDE));
    Service {
        sets: [inside, outside],
        counts: [inside_count, outside_count],
        affinity: group.affinity_seconds.saturating_mul(hz),
        id: group.number,
        flags: wanted.flags | group.flags,
        _pad: [0; 3],
        _reserved: 0,
    }
}

fn source(number: u32, net: &IpNet) -> SourceKey {
    let bits = match net {
        IpNet::V4(_) => MAPPED_BITS + net.prefix_len(),
        IpNet::V6(_) => net.prefix_len(),
    };
    SourceKey {
        length: SOURCE_SERVICE_BITS + u32::from(bits),
        service: number,
        addr: Addr::from(net.network()).quarters(),
    }
}
