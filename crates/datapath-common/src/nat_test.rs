// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// The table of one remote end: who has which port. Allocates as the programs do.
#[derive(Default)]
struct Remote(BTreeMap<u16, (u8, u16)>);

impl Remote {
    fn open(&mut self, ports: Ports, pod: u8, wanted: u16, seed: u32) -> Option<u16> {
        let probe = Probe::new(ports, wanted, seed);
        let free = (0..PROBES_MAX)
            .map(|attempt| probe.port(attempt))
            .find(|port| !self.0.contains_key(port))?;
        assert!(self.0.insert(free, (pod, wanted)).is_none());
        Some(free)
    }
}

fn ports() -> impl Strategy<Value = Ports> {
    (1024..=65_535_u16, 0..2000_u16).prop_map(|(first, more)| Ports {
        first,
        last: first.saturating_add(more),
    })
}

proptest! {
    #[test]
    fn every_candidate_is_in_the_range(ports in ports(), wanted: u16, seed: u32, attempt in 0..PROBES_MAX) {
        prop_assert!(ports.contains(Probe::new(ports, wanted, seed).port(attempt)));
    }

    #[test]
    fn a_port_that_may_be_kept_is_tried_first(ports in ports(), offset: u16, seed: u32) {
        let wanted = ports.first + u16::try_from(u32::from(offset) % ports.count()).unwrap();
        prop_assert_eq!(Probe::new(ports, wanted, seed).port(0), wanted);
    }

    #[test]
    fn a_small_range_is_tried_whole(first in 1024..60_000_u16, more in 0..32_u16, wanted: u16, seed: u32) {
        let ports = Ports { first, last: first + more };
        let probe = Probe::new(ports, wanted, seed);
        let tried: BTreeSet<u16> = (0..ports.count()).map(|attempt| probe.port(attempt)).collect();
        prop_assert_eq!(tried.len(), usize::from(more) + 1);
    }

    #[test]
    fn no_two_pods_get_one_port_of_a_remote(
        ports in ports(),
        opens in prop::collection::vec((0..8_u8, 30_000..65_535_u16, any::<u32>()), 1..400),
    ) {
        let mut remote = Remote::default();
        for (pod, wanted, seed) in opens {
            // `open` panics when a port is handed out twice.
            if let Some(port) = remote.open(ports, pod, wanted, seed) {
                prop_assert!(ports.contains(port));
            } else {
                prop_assert!(remote.0.len() * 3 > ports.count() as usize, "refused with two thirds of the ports free");
            }
        }
    }

    #[test]
    fn a_mapping_survives_its_word(slot in 0..16_u8, port: u16) {
        let mapping = Mapping::new(slot, Be16::new(port));
        prop_assert!(mapping.is_some());
        prop_assert_eq!((mapping.slot(), mapping.port().get()), (slot, port));
    }
}

#[test]
fn nine_of_ten_ports_can_be_used() {
    let ports = Ports::DEFAULT;
    let (mut remote, mut refused) = (Remote::default(), 0);
    for seed in 0..ports.count() * 9 / 10 {
        // The pods' own ports are below the range: none can be kept.
        refused += u32::from(remote.open(ports, 0, 40_000, mix(seed)).is_none());
    }
    assert!(refused < 200, "{refused} of {} refused", ports.count() * 9 / 10);
}

#[test]
fn a_range_that_is_full_refuses_and_serves_again_when_one_is_free() {
    let ports = Ports {
        first: 50_000,
        last: 50_003,
    };
    let mut remote = Remote::default();
    for seed in 0..4 {
        assert!(remote.open(ports, 1, 40_000, seed).is_some());
    }
    assert_eq!(remote.open(ports, 2, 50_001, 7), None);
    remote.0.remove(&50_002);
    assert_eq!(remote.open(ports, 2, 50_001, 7), Some(50_002));
}

#[test]
fn the_longer_a_connection_is_over_the_sooner_its_port_is_taken() {
    assert_eq!(
        (TAKE_OVER_FROM..PROBES_MAX).map(quiet_ticks).max(),
        Some(QUIET_TICKS / 2)
    );
    for attempt in TAKE_OVER_FROM..PROBES_MAX {
        assert!(quiet_ticks(attempt) <= quiet_ticks(attempt - 1));
        assert!(quiet_ticks(attempt) >= 4, "never at once");
    }
}

#[test]
fn sequence_numbers_follow_each_other_around_the_circle() {
    for (new, old, follows_it) in [
        (1, 0, true),
        (0, 0, false),
        (0, 1, false),
        (2, u16::MAX, true),
        (u16::MAX, 2, false),
        (0x7fff, 0, true),
        (0x8001, 0, false),
    ] {
        assert_eq!(follows(new, old), follows_it, "{new:#x} after {old:#x}");
    }
}

#[test]
fn each_family_has_its_icmp() {
    assert_eq!(rewrite(proto::ICMP, true), Rewrite::Port);
    assert_eq!(rewrite(proto::ICMPV6, false), Rewrite::Port);
    assert_eq!(rewrite(proto::ICMP, false), Rewrite::Refuse);
    assert_eq!(rewrite(proto::SCTP, true), Rewrite::Keep);
    assert_eq!(rewrite(47, true), Rewrite::Refuse);
}
