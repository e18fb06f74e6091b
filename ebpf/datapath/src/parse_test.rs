// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
use proptest::prelude::*;

use datapath_common::Reason;

use crate::Drop;
use crate::parse::*;

const REFUSED: Option<Reason> = Some(Reason::CT_TRUNCATED_OR_INVALID_HEADER);

fn parse(frame: &[u8]) -> Result<Packet, Drop> {
    examine(frame).expect("an Ethernet header")
}

fn refusal(frame: &[u8]) -> Option<Reason> {
    parse(frame).err().map(Drop::reason)
}

/// An IPv4 packet in a frame.
fn v4(proto: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend([8, 0, 0x45, 0]);
    frame.extend(u16::try_from(20 + payload.len()).expect("short").to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, proto, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend(payload);
    frame
}

/// An IPv6 packet in a frame.
fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend(u16::try_from(payload.len()).expect("short").to_be_bytes());
    frame.extend([next, 64]);
    frame.extend([0xfd; 16]);
    frame.extend([0xfe; 16]);
    frame.extend(payload);
    frame
}

const TCP: [u8; 20] = [
    3, 232, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x12, 0xff, 0xff, 0, 0, 0, 0,
];
const UDP: [u8; 8] = [3, 232, 0, 53, 0, 8, 0, 0];
const ECHO: [u8; 8] = [8, 0, 0, 0, 0, 7, 0, 1];

#[test]
fn ports_flags_and_identifiers_are_found_in_both_families() {
    for packet in [parse(&v4(6, &TCP)).unwrap(), parse(&v6(6, &TCP)).unwrap()] {
        assert_eq!(
            (
                packet.tuple.source_port.get(),
                packet.tuple.destination_port.get()
            ),
            (1000, 80)
        );
        assert_eq!(
            (packet.tcp_flags, packet.kind, packet.ttl),
            (0x12, Kind::Flow, 64)
        );
    }
    assert_eq!(parse(&v4(17, &UDP)).unwrap().tuple.destination_port.get(), 53);
    assert_eq!(parse(&v4(1, &ECHO)).unwrap().tuple.source_port.get(), 7);
    assert_eq!(parse(&v4(132, &[0; 12])).unwrap().kind, Kind::Flow);
    assert_eq!(parse(&v4(50, &[])).unwrap().tuple.source_port.get(), 0);
}

#[test]
fn each_kind_of_icmp_is_told() {
    let icmp = |kind: u8| [kind, 0, 0, 0, 0, 7, 0, 1];
    for (kind, expected) in [
        (3, Kind::Error),
        (11, Kind::Error),
        (0, Kind::Flow),
        (13, Kind::Flow),
    ] {
        assert_eq!(
            parse(&v4(1, &[icmp(kind).as_slice(), &v4(17, &UDP)[14..]].concat()))
                .unwrap()
                .kind,
            expected
        );
    }
    for (kind, expected) in [
        (1, Kind::Error),
        (2, Kind::Error),
        (128, Kind::Flow),
        (135, Kind::Link),
        (143, Kind::Link),
    ] {
        assert_eq!(
            parse(&v6(58, &[icmp(kind).as_slice(), &v6(17, &UDP)[14..]].concat()))
                .unwrap()
                .kind,
            expected
        );
    }
    assert_eq!(
        parse(&v6(1, &ECHO)).unwrap().tuple.source_port.get(),
        0,
        "ICMP is none of IPv6"
    );
}

#[test]
fn extension_headers_are_passed_and_fragments_told() {
    let options = [60, 0, 1, 4, 0, 0, 0, 0];
    let chain = |rest: &[u8]| v6(0, &[options.as_slice(), rest].concat());
    let behind = |next: u8, offset: u8| [[next, 0, 1, 4, 0, 0, 0, 0], [6, 0, 0, offset, 0, 0, 0, 9]].concat();
    let whole = parse(&chain(&[behind(44, 1).as_slice(), &TCP].concat())).unwrap();
    assert_eq!(
        (whole.kind, whole.tuple.destination_port.get(), whole.l4),
        (Kind::Flow, 80, 14 + 40 + 24)
    );
    let later = parse(&chain(&[behind(44, 8).as_slice(), &TCP].concat())).unwrap();
    assert_eq!(
        (later.kind, later.tuple.proto, later.tuple.destination_port.get()),
        (Kind::Fragment, 6, 0)
    );
    let endless = [options; 5].concat();
    assert_eq!(
        refusal(&chain(&endless)),
        Some(Reason::INVALID_IPV6_EXTENSION_HEADER)
    );
}

#[test]
fn every_length_short_of_the_headers_is_refused() {
    let (options, icmp6) = ([17, 0, 1, 4, 0, 0, 0, 0], [128, 0, 0, 0, 0, 7, 0, 1]);
    for (frame, headers) in [
        (v4(6, &TCP), 54),
        (v4(17, &UDP), 42),
        (v4(1, &ECHO), 42),
        (v6(6, &TCP), 74),
        (v6(58, &icmp6), 62),
        (v6(0, &[options, UDP].concat()), 70),
    ] {
        assert_eq!(frame.len(), headers);
        for length in 14..headers {
            assert_eq!(refusal(&frame[..length]), REFUSED, "{length} of {headers} bytes");
        }
        for length in 0..14 {
            assert!(examine(&frame[..length]).is_none());
        }
        assert!(parse(&frame).is_ok());
    }
}

#[test]
fn headers_that_contradict_themselves_are_refused() {
    let with = |mut frame: Vec<u8>, at: usize, value: u8| {
        frame[at] = value;
        refusal(&frame)
    };
    assert_eq!(with(v4(6, &TCP), 14, 0x44), REFUSED, "IHL of 4");
    assert_eq!(with(v4(6, &TCP), 14, 0x65), REFUSED, "version 6 in IPv4");
    assert_eq!(
        with(v4(6, &TCP), 17, 19),
        REFUSED,
        "total length within the header"
    );
    assert_eq!(
        with(v4(6, &TCP), 17, 41),
        REFUSED,
        "total length beyond the frame"
    );
    assert_eq!(with(v4(6, &TCP), 46, 0x40), REFUSED, "TCP data offset of 4");
    assert_eq!(with(v4(6, &TCP), 46, 0x60), REFUSED, "TCP options beyond the end");
    assert_eq!(with(v4(17, &UDP), 39, 7), REFUSED, "UDP length of 7");
    assert_eq!(with(v6(6, &TCP), 14, 0x40), REFUSED, "version 4 in IPv6");
    assert_eq!(with(v6(6, &TCP), 19, 21), REFUSED, "payload beyond the frame");
    for at in [22, 38] {
        let mut mapped = v6(6, &TCP);
        mapped[at..at + 12].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
        assert_eq!(refusal(&mapped), REFUSED, "v4-mapped address");
    }
}

#[test]
fn a_quote_gives_the_tuple_of_the_packet_it_is_of() {
    for (inner, outer) in [(v4(17, &UDP), 4), (v6(17, &UDP), 6)] {
        let body = |error: [u8; 8]| [error.as_slice(), &inner[14..]].concat();
        let frame = if outer == 4 {
            v4(1, &body([3, 3, 0, 0, 0, 0, 0, 0]))
        } else {
            v6(58, &body([1, 4, 0, 0, 0, 0, 0, 0]))
        };
        let mut packet = parse(&frame).unwrap();
        assert_eq!(
            quote(frame.as_slice(), &mut packet).unwrap(),
            Some(parse(&inner).unwrap().tuple)
        );
        let mut cut = Packet {
            end: packet.end - 5,
            ..packet
        };
        assert_eq!(
            quote(frame.as_slice(), &mut cut).map_err(Drop::reason).err(),
            REFUSED
        );
    }
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_or_refused(ethertype in prop_oneof![Just([8_u8, 0]), Just([0x86, 0xdd]), any::<[u8; 2]>()],
                                       version in prop_oneof![Just(0x45_u8), Just(0x60), any::<u8>()],
                                       rest in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut frame = vec![0; 12];
        frame.extend(ethertype);
        frame.push(version);
        frame.extend(&rest);
        if let Some(Ok(packet)) = examine(&frame) {
            prop_assert!(packet.end as usize <= frame.len());
            prop_assert!(packet.payload() <= packet.end as usize || packet.kind == Kind::Fragment);
        }
    }

    #[test]
    fn a_valid_packet_survives_any_one_changed_byte(at in 14..74_usize, value: u8, six: bool) {
        let mut frame = if six { v6(6, &TCP) } else { v4(6, &TCP) };
        let at = at.min(frame.len() - 1);
        frame[at] = value;
        let _ = examine(&frame);
    }
}
