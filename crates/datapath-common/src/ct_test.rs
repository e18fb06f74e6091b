// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
use proptest::prelude::*;

use super::*;

/// A connection as the programs drive it.
struct Row(CtEntry);

impl Row {
    fn open(flags: u8) -> Self {
        Self(CtEntry::open(0, 0, proto::TCP, flags, 0))
    }

    fn sees(&mut self, side: Side, flags: u8) -> State {
        if reopens(self.0.state, flags) {
            self.0 = CtEntry::open(0, side, proto::TCP, flags, 0);
            return self.0.state;
        }
        let leg = self.0.leg(side);
        self.0.tcp_flags[usize::from(leg)] |= flags;
        self.0.state = next_state(self.0.state, leg, flags, self.0.tcp_flags);
        self.0.state
    }
}

const CLIENT: Side = 0;
const SERVER: Side = 1;

#[test]
fn a_connection_opens_talks_and_closes() {
    let mut row = Row::open(tcp::SYN);
    assert_eq!(row.0.state, State::SYN_SENT);
    assert_eq!(row.sees(SERVER, SYN_ACK), State::SYN_RECEIVED);
    assert_eq!(row.sees(CLIENT, tcp::ACK), State::ESTABLISHED);
    assert_eq!(row.sees(SERVER, tcp::ACK), State::ESTABLISHED);
    assert_eq!(row.sees(CLIENT, tcp::FIN | tcp::ACK), State::HALF_CLOSED);
    assert_eq!(row.sees(SERVER, tcp::ACK), State::HALF_CLOSED);
    assert_eq!(row.sees(SERVER, tcp::FIN | tcp::ACK), State::CLOSED);
    assert_eq!(row.sees(CLIENT, tcp::ACK), State::CLOSED);
}

#[test]
fn a_syn_flood_never_looks_established() {
    let mut row = Row::open(tcp::SYN);
    assert_eq!(row.sees(CLIENT, tcp::ACK), State::SYN_SENT);
    assert_eq!(row.sees(SERVER, SYN_ACK), State::SYN_RECEIVED);
    assert_eq!(row.sees(SERVER, SYN_ACK), State::SYN_RECEIVED);
    assert_eq!(row.sees(CLIENT, tcp::SYN), State::SYN_RECEIVED);
}

#[test]
fn a_refused_connection_is_closed_and_reopened_by_the_next_syn() {
    let mut row = Row::open(tcp::SYN);
    assert_eq!(row.sees(SERVER, tcp::RST | tcp::ACK), State::CLOSED);
    assert_eq!(row.sees(SERVER, tcp::SYN), State::SYN_SENT);
    assert_eq!(row.0.opener, SERVER);
}

#[test]
fn a_simultaneous_open_becomes_established() {
    let mut row = Row::open(tcp::SYN);
    assert_eq!(row.sees(SERVER, tcp::SYN), State::SYN_RECEIVED);
    assert_eq!(row.sees(CLIENT, SYN_ACK), State::ESTABLISHED);
}

#[test]
fn a_row_that_begins_with_the_answer_knows_who_opened() {
    let row = CtEntry::open(0, SERVER, proto::TCP, SYN_ACK, 60);
    assert_eq!((row.state, row.opener), (State::SYN_RECEIVED, CLIENT));
    assert_eq!((row.packets, row.bytes), ([0, 1], [0, 60]));
}

#[test]
fn a_stream_in_the_middle_is_picked_up() {
    assert_eq!(Row::open(tcp::ACK).0.state, State::ESTABLISHED);
    assert_eq!(Row::open(tcp::ACK | tcp::FIN).0.state, State::HALF_CLOSED);
    assert_eq!(Row::open(tcp::RST).0.state, State::CLOSED);
}

#[test]
fn udp_is_replied_by_the_other_end_only() {
    assert_eq!(
        next_state(State::UNREPLIED, ORIGINAL, 0, [0; 2]),
        State::UNREPLIED
    );
    assert_eq!(next_state(State::UNREPLIED, REPLY, 0, [0; 2]), State::REPLIED);
    assert_eq!(next_state(State::REPLIED, ORIGINAL, 0, [0; 2]), State::REPLIED);
}

fn addr() -> impl Strategy<Value = Addr> {
    // Few values, so that equal ends are met.
    prop_oneof![
        (0..3u8, 0..3u8).prop_map(|(a, b)| Addr::v4([10, a, b, 1])),
        any::<[u8; 16]>().prop_map(Addr::v6),
    ]
}

fn tuple() -> impl Strategy<Value = Tuple> {
    (addr(), addr(), 0..4u16, 0..4u16, any::<u8>()).prop_map(|(source, destination, s, d, proto)| Tuple {
        source,
        destination,
        source_port: Be16::new(s),
        destination_port: Be16::new(d),
        proto,
    })
}

proptest! {
    #[test]
    fn both_directions_have_one_key(tuple in tuple()) {
        let (key, side) = tuple.key();
        let (reverse_key, reverse_side) = tuple.reversed().key();
        prop_assert_eq!(key, reverse_key);
        prop_assert!(side != reverse_side || tuple == tuple.reversed());
        prop_assert_eq!(key.tuple(side), tuple);
    }

    #[test]
    fn any_packets_leave_a_known_state(first: u8, rest in prop::collection::vec((0..2u8, any::<u8>()), 0..40)) {
        let mut row = Row::open(first);
        for (side, flags) in rest {
            let before = row.0.state;
            let after = row.sees(side, flags);
            prop_assert!((State::SYN_SENT.0..=State::CLOSED.0).contains(&after.0));
            // Closed is left by a new SYN only, and nobody reaches established without the opener's word.
            prop_assert!(before != State::CLOSED || after == State::CLOSED || flags & SYN_ACK == tcp::SYN);
            prop_assert!(before != State::SYN_SENT || after != State::ESTABLISHED);
        }
    }
}

#[test]
fn a_connection_opened_anew_keeps_its_mapping_if_its_opener_does_it() {
    let mapping = Mapping::new(5, Be16::new(50_000));
    let entry = CtEntry::open(1, 1, proto::TCP, tcp::SYN, 60).masqueraded(mapping);
    assert_eq!(entry.mapping(), mapping);
    assert_eq!(entry.reopened(2, 1, proto::TCP, tcp::SYN, 60).mapping(), mapping);
    assert_eq!(
        entry.reopened(2, 0, proto::TCP, tcp::SYN, 60).mapping(),
        Mapping::NONE
    );
    let plain = CtEntry::open(1, 1, proto::TCP, tcp::SYN, 60).masqueraded(Mapping::NONE);
    assert_eq!((plain.mapping(), plain.flags), (Mapping::NONE, 0));
}

#[test]
fn only_a_closed_and_silent_connection_gives_its_port_away() {
    let (mapping, now, quiet) = (Mapping::new(5, Be16::new(50_000)), 3, 100);
    let mut entry = CtEntry::open(now, CLIENT, proto::TCP, tcp::RST, 60).masqueraded(mapping);
    assert_eq!(entry.state, State::CLOSED);
    assert!(!entry.gives_way(CLIENT, mapping, now, quiet), "just seen");
    entry.last_seen = now.wrapping_sub(quiet - 1);
    assert!(!entry.gives_way(CLIENT, mapping, now, quiet));
    entry.last_seen = now.wrapping_sub(quiet);
    assert!(
        entry.gives_way(CLIENT, mapping, now, quiet),
        "over the wrap of the counter"
    );
    entry.last_seen = now + 1;
    assert!(
        !entry.gives_way(CLIENT, mapping, now, 0),
        "seen by another CPU since"
    );
    entry.last_seen = now.wrapping_sub(quiet);
    assert!(!entry.gives_way(SERVER, mapping, now, quiet));
    let other = Mapping::new(5, Be16::new(50_001));
    assert!(!entry.gives_way(CLIENT, other, now, quiet));
    for state in (State::SYN_SENT.0..=State::REPLIED.0).map(State) {
        entry.state = state;
        assert_eq!(
            entry.gives_way(CLIENT, mapping, now, quiet),
            state == State::CLOSED,
            "{state}"
        );
    }
}
