// SPDX-License-Identifier: Apache-2.0
//! Masquerading: the node's addresses for it, and the connections as the wire sees them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use datapath_common::ct::{CtEntry, CtKey, Tuple};
use datapath_common::nat::{ADDRESSES, CURRENT_V4, CURRENT_V6, FIRST_SLOT, Mapping, Ports};
use datapath_common::packet::proto;
use datapath_common::service::Sight;
use datapath_common::{Addr, NatAddress, NatEntry};
use zerocopy::FromZeros;

use crate::clock::elapsed;
use crate::{HashMap, MapError, sights};

/// A row of `nat` without its connection is left alone for so long: the programs write it first.
const GRACE: Duration = Duration::from_secs(5);

/// The maps of masquerading; handles for any thread.
#[derive(Clone, Debug)]
pub struct Nat {
    rows: HashMap<CtKey, NatEntry>,
    addresses: HashMap<u32, NatAddress>,
}

/// What pods' connections to the world look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Masquerade {
    /// The node's address that they have, of IPv4 and of IPv6; nothing: they are not masqueraded.
    pub addresses: [Option<IpAddr>; 2],
    /// The ports that they may have.
    pub ports: Ports,
    /// Whether pods' connections to the world do; else it is only what goes on to another node's backend of a service.
    pub world: [bool; 2],
}

/// How much is masqueraded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatReport {
    /// Connections that are masqueraded.
    pub entries: usize,
    /// Connections to services.
    pub services: usize,
    /// Rows deleted because their connection was gone.
    pub swept: usize,
    /// Ports taken towards that remote end, address and port, to which most are; but for those of connections of TCP that are
    /// over, which new ones take.
    pub busiest: usize,
}

/// The addresses that connections remember, at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Slots(Vec<NatAddress>);

impl Nat {
    pub(crate) fn new(rows: HashMap<CtKey, NatEntry>, addresses: HashMap<u32, NatAddress>) -> Self {
        Self { rows, addresses }
    }

    /// The connections as the wire sees them.
    #[must_use]
    pub fn map(&self) -> &HashMap<CtKey, NatEntry> {
        &self.rows
    }

    /// Says what new connections get; those that are open keep what they have. `used` tells the slots of addresses that
    /// connections still refer to, and is asked only when no slot is free.
    pub(crate) fn set(
        &self,
        wanted: &Masquerade,
        used: impl FnOnce() -> Result<u32, MapError>,
    ) -> Result<(), MapError> {
        let mut slots = self.slots()?;
        let before = slots.clone();
        slots.set(wanted, used)?;
        for (index, (old, new)) in (0..ADDRESSES).zip(before.0.iter().zip(&slots.0)).rev() {
            // Backwards: a slot is there before the row that names it.
            if old != new {
                self.addresses.insert(&index, new)?;
            }
        }
        Ok(())
    }

    pub(crate) fn slots(&self) -> Result<Slots, MapError> {
        let row = |index| Ok(self.addresses.get(&index)?.unwrap_or_else(NatAddress::new_zeroed));
        (0..ADDRESSES).map(row).collect::<Result<_, _>>().map(Slots)
    }

    /// Deletes the rows of connections that the caller has deleted: nobody else touches them. A row that belongs to another
    /// connection by now stays.
    pub(crate) fn remove(&self, connections: &[(CtKey, CtEntry)]) -> Result<usize, MapError> {
        let translated =
            |(_, entry): &&(CtKey, CtEntry)| entry.mapping().is_some() || entry.flags & CtEntry::SERVICE != 0;
        let translated: Vec<_> = connections.iter().filter(translated).collect();
        if translated.is_empty() {
            return Ok(0);
        }
        let slots = self.slots()?;
        let mut keys = Vec::new();
        for (key, entry) in translated {
            keys.extend(sights::of(&self.rows, key, entry)?);
            let Some(outside) = slots.outside(key, entry) else {
                continue;
            };
            let row = self.rows.get(&outside)?;
            if row.is_some_and(|row| slots.inside(&outside, &row) == Some(*key)) {
                keys.push(outside);
            }
        }
        self.rows.remove_all(&keys)
    }

    /// Deletes the rows whose connection is gone, and says how many ports are in use. `reusable` are connections that have
    /// one of which the next may take it.
    pub(crate) fn sweep(
        &self,
        conntrack: &HashMap<CtKey, CtEntry>,
        reusable: &Remotes,
        now: u32,
        rate: u32,
    ) -> Result<NatReport, MapError> {
        let slots = self.slots()?;
        let (mut old, mut remotes, mut services) = (Vec::new(), Remotes::default(), 0);
        self.rows.for_each(|key, entry| {
            remotes.extend(slots.remote(key));
            services += usize::from(key.sight().is_some_and(|(sight, _)| sight == Sight::Client));
            if elapsed(entry.created, now, rate) >= GRACE {
                old.push((*key, *entry));
            }
        })?;
        let is_stale = |(key, entry): &(CtKey, NatEntry)| -> Result<bool, MapError> {
            if let Some((sight, sent)) = key.sight() {
                return Ok(!sights::is_of_a_connection(
                    &self.rows,
                    conntrack,
                    (sight, &sent),
                    entry,
                )?);
            }
            let twin = match slots.inside(key, entry) {
                Some(inside) => conntrack
                    .get(&inside)?
                    .and_then(|twin| slots.outside(&inside, &twin)),
                None => None,
            };
            Ok(twin != Some(*key))
        };
        let stale = keep(old, is_stale)?;
        // Looked at once more after all others: the port of one that has ended may just be changing hands.
        let stale = keep(stale, |row| {
            let (key, entry) = row;
            let same =
                |now: NatEntry| (now.pod, now.port, now.created) == (entry.pod, entry.port, entry.created);
            Ok(self.rows.get(key)?.is_some_and(same) && is_stale(row)?)
        })?;
        let keys: Vec<_> = stale.iter().map(|(key, _)| *key).collect();
        let masqueraded = keys.iter().filter(|key| key.kind == 0).count();
        let swept = self.rows.remove_all(&keys)?;
        Ok(NatReport {
            entries: remotes.count().saturating_sub(masqueraded),
            services,
            swept,
            busiest: remotes.busiest_without(reusable),
        })
    }
}

/// Those of some rows of which something holds.
fn keep<T>(rows: Vec<T>, holds: impl Fn(&T) -> Result<bool, MapError>) -> Result<Vec<T>, MapError> {
    let mut kept = Vec::new();
    for row in rows {
        if holds(&row)? {
            kept.push(row);
        }
    }
    Ok(kept)
}

/// The end that ports are taken towards: address, port, protocol. Identifiers of echoes are all towards one port.
type Remote = (IpAddr, u16, u8);

/// How many ports are taken towards each remote end.
#[derive(Debug, Default)]
pub(crate) struct Remotes(BTreeMap<Remote, usize>);

impl Extend<Remote> for Remotes {
    fn extend<I: IntoIterator<Item = Remote>>(&mut self, remotes: I) {
        for remote in remotes {
            *self.0.entry(remote).or_default() += 1;
        }
    }
}

impl Remotes {
    fn count(&self) -> usize {
        self.0.values().sum()
    }

    /// Of the end towards which most are, apart from those that others count.
    fn busiest_without(&self, others: &Self) -> usize {
        let count = |(remote, count): (&Remote, &usize)| {
            count.saturating_sub(others.0.get(remote).copied().unwrap_or_default())
        };
        self.0.iter().map(count).max().unwrap_or_default()
    }
}

impl Slots {
    fn set(
        &mut self,
        wanted: &Masquerade,
        used: impl FnOnce() -> Result<u32, MapError>,
    ) -> Result<(), MapError> {
        let mut used = Some(used);
        let each = wanted.addresses.into_iter().zip(wanted.world);
        for (current, (address, world)) in [CURRENT_V4, CURRENT_V6].into_iter().zip(each) {
            let row = match address {
                None => NatAddress::new_zeroed(),
                Some(address) => {
                    let address = Addr::from(address);
                    let slot = match self.find(address).or_else(|| self.find(Addr::UNSPECIFIED)) {
                        Some(slot) => slot,
                        None => self.least_missed(match used.take() {
                            Some(used) => used()?,
                            None => 0,
                        }),
                    };
                    NatAddress {
                        address,
                        first_port: wanted.ports.first,
                        last_port: wanted.ports.last,
                        slot,
                        flags: if world { 0 } else { NatAddress::SERVICES_ONLY },
                        _pad: [0; 2],
                    }
                }
            };
            self.0[current as usize] = row;
            if row.slot >= FIRST_SLOT {
                self.0[usize::from(row.slot)] = row;
            }
        }
        Ok(())
    }

    fn find(&self, address: Addr) -> Option<u8> {
        let mut slots = (FIRST_SLOT..).zip(self.0.iter().skip(FIRST_SLOT.into()));
        slots
            .find(|(_, row)| row.address == address)
            .map(|(slot, _)| slot)
    }

    /// A slot that neither family uses now, if possible one without connections (`used` has a bit for each slot with some).
    fn least_missed(&self, used: u32) -> u8 {
        let current = [CURRENT_V4, CURRENT_V6].map(|row| self.0[row as usize].slot);
        let last = u8::try_from(ADDRESSES).unwrap_or(u8::MAX);
        let mut idle = (FIRST_SLOT..last).filter(|slot| !current.contains(slot));
        let first = idle.clone().next().unwrap_or(FIRST_SLOT);
        idle.find(|slot| used >> slot & 1 == 0).unwrap_or(first)
    }

    /// How a connection looks outside.
    pub(crate) fn socket(&self, entry: &CtEntry) -> Option<SocketAddr> {
        let (address, mapping) = self.mapping(entry)?;
        Some(SocketAddr::new(address.to_ip(), mapping.port().get()))
    }

    fn mapping(&self, entry: &CtEntry) -> Option<(Addr, Mapping)> {
        let mapping = entry.mapping();
        let row = self.0.get(usize::from(mapping.slot()))?;
        mapping.is_some().then_some((row.address, mapping))
    }

    /// The key of `nat` of a connection.
    fn outside(&self, key: &CtKey, entry: &CtEntry) -> Option<CtKey> {
        let (address, mapping) = self.mapping(entry)?;
        let mut tuple = key.tuple(entry.opener);
        (tuple.source, tuple.source_port) = (address, mapping.port());
        if is_echo(tuple.proto) {
            tuple.destination_port = mapping.port();
        }
        Some(tuple.key().0)
    }

    /// The key of `conntrack` of a row of `nat`.
    fn inside(&self, key: &CtKey, entry: &NatEntry) -> Option<CtKey> {
        let mut tuple = self.answer(key)?;
        (tuple.destination, tuple.destination_port) = (entry.pod, entry.port);
        if is_echo(tuple.proto) {
            tuple.source_port = entry.port;
        }
        Some(tuple.key().0)
    }

    /// The tuple of an answer, from the remote end to the node; `None`: the node no longer has this address.
    pub(crate) fn answer(&self, key: &CtKey) -> Option<Tuple> {
        let ours = |addr: &Addr| *addr != Addr::UNSPECIFIED && self.find(*addr).is_some();
        let node = key.addr.iter().position(ours)?;
        Some(key.tuple(u8::from(node == 0)))
    }

    /// Whose ports a masqueraded connection takes one of.
    pub(crate) fn remote_of(&self, key: &CtKey, entry: &CtEntry) -> Option<Remote> {
        self.outside(key, entry).and_then(|outside| self.remote(&outside))
    }

    /// Whose ports a row takes one of.
    fn remote(&self, key: &CtKey) -> Option<Remote> {
        if key.kind != 0 {
            return None;
        }
        let answer = self.answer(key)?;
        let port = if is_echo(answer.proto) {
            0
        } else {
            answer.source_port.get()
        };
        Some((answer.source.to_ip(), port, answer.proto))
    }

    /// All rows with their names.
    pub(crate) fn named(&self) -> impl Iterator<Item = (String, &NatAddress)> {
        let name = |index: u32| match index {
            CURRENT_V4 => "IPv4".to_owned(),
            CURRENT_V6 => "IPv6".to_owned(),
            slot => format!("slot {slot}"),
        };
        let rows = (0..).zip(&self.0).map(move |(index, row)| (name(index), row));
        rows.filter(|(_, row)| row.address != Addr::UNSPECIFIED)
    }
}

fn is_echo(protocol: u8) -> bool {
    matches!(protocol, proto::ICMP | proto::ICMPV6)
}

#[cfg(test)]
mod tests {
    use datapath_common::Be16;
    use datapath_common::packet::tcp;

    use super::*;

    fn masquerade(v4: Option<&str>, v6: Option<&str>) -> Masquerade {
        let parse = |ip: &str| ip.parse().unwrap();
        Masquerade {
            addresses: [v4.map(parse), v6.map(parse)],
            ports: Ports::DEFAULT,
            world: [true; 2],
        }
    }

    fn empty() -> Slots {
        Slots(vec![NatAddress::new_zeroed(); ADDRESSES as usize])
    }

    fn none_used() -> Result<u32, MapError> {
        panic!("a slot is free")
    }

    #[test]
    fn a_changed_address_leaves_the_old_one_to_its_connections() {
        let mut slots = empty();
        slots
            .set(&masquerade(Some("192.0.2.1"), Some("2001:db8::1")), none_used)
            .unwrap();
        let old = slots.0[CURRENT_V4 as usize];
        slots
            .set(&masquerade(Some("192.0.2.9"), None), none_used)
            .unwrap();
        assert_eq!(slots.0[usize::from(old.slot)].address, old.address);
        assert_ne!(slots.0[CURRENT_V4 as usize].slot, old.slot);
        assert_eq!(slots.0[CURRENT_V6 as usize].address, Addr::UNSPECIFIED);
        slots
            .set(&masquerade(Some("192.0.2.1"), None), none_used)
            .unwrap();
        assert_eq!(slots.0[CURRENT_V4 as usize], old, "the same slot again");
    }

    #[test]
    fn when_slots_run_out_one_without_connections_is_used() {
        let mut slots = empty();
        for last in 1..=14 {
            slots
                .set(&masquerade(Some(&format!("192.0.2.{last}")), None), none_used)
                .unwrap();
        }
        let free = 7;
        slots
            .set(&masquerade(Some("192.0.2.100"), None), || Ok(!(1 << free)))
            .unwrap();
        assert_eq!(slots.0[CURRENT_V4 as usize].slot, free);
        slots
            .set(&masquerade(Some("192.0.2.101"), None), || Ok(u32::MAX))
            .unwrap();
        assert_ne!(slots.0[CURRENT_V4 as usize].slot, free, "that of now is kept");
    }

    #[test]
    fn inside_and_outside_are_each_others_inverse() {
        let mut slots = empty();
        slots
            .set(&masquerade(Some("192.0.2.1"), Some("2001:db8::1")), none_used)
            .unwrap();
        for (pod, remote, current) in [
            ("10.244.1.7", "198.51.100.9", CURRENT_V4),
            ("10.244.1.7", "9.9.9.9", CURRENT_V4),
            ("fd74::7", "2001:db8:9::9", CURRENT_V6),
        ] {
            for (protocol, port) in [(proto::TCP, 443), (proto::ICMP, 77)] {
                let tuple = Tuple {
                    source: pod.parse::<IpAddr>().unwrap().into(),
                    destination: remote.parse::<IpAddr>().unwrap().into(),
                    source_port: Be16::new(77),
                    destination_port: Be16::new(port),
                    proto: protocol,
                };
                let (key, side) = tuple.key();
                let mapping = Mapping::new(slots.0[current as usize].slot, Be16::new(50_001));
                let entry = CtEntry::open(0, side, protocol, tcp::SYN, 60).masqueraded(mapping);
                let outside = slots.outside(&key, &entry).unwrap();
                let row = NatEntry {
                    pod: tuple.source,
                    created: 0,
                    port: tuple.source_port,
                    sequence: 0,
                };
                assert_eq!(slots.inside(&outside, &row), Some(key));
                assert_eq!(slots.remote(&outside).unwrap().0, tuple.destination.to_ip());
                assert_eq!(slots.socket(&entry).unwrap().port(), 50_001);
            }
        }
    }

    #[test]
    fn the_busiest_remote_is_counted_without_what_is_over() {
        let remote = |port| ("198.51.100.9".parse().unwrap(), port, proto::TCP);
        let of = |ports: &[u16]| {
            let mut remotes = Remotes::default();
            remotes.extend(ports.iter().copied().map(remote));
            remotes
        };
        let all = of(&[3, 1, 3, 2, 3, 1]);
        assert_eq!(all.count(), 6);
        assert_eq!(all.busiest_without(&of(&[])), 3);
        assert_eq!(all.busiest_without(&of(&[3, 3])), 2);
        // One that ended and one that began between the two counts.
        assert_eq!(all.busiest_without(&of(&[3, 3, 3, 3, 1, 1, 2, 9])), 0);
        assert_eq!(of(&[]).busiest_without(&all), 0);
    }
}
