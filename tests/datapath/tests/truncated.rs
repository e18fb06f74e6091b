// SPDX-License-Identifier: Apache-2.0
//! Packets cut at every length: never through, never a wrong reason.

use datapath::common::Reason;
use thalweg_tests_datapath::packet::Path;
use thalweg_tests_datapath::{Node, require_root};

const SHOT: u32 = 2;
const REDIRECT: u32 = 7;
const ETHERNET: usize = 14;

/// Valid frames, with where their transport headers end.
fn frames(node: &Node) -> Vec<(Vec<u8>, usize)> {
    let [a, b] = &node.pods;
    let mut frames = Vec::new();
    for (path, l4) in [
        (Path::new(a.mac, a.v4, b.v4), 34),
        (Path::new(a.mac, a.v6, b.v6), 54),
    ] {
        frames.push((path.tcp(1000, 80, "PA"), l4 + 20));
        frames.push((path.udp(1000, 53), l4 + 8));
        frames.push((path.echo(7, false), l4 + 8));
    }
    let mut extended = frames[3].0.clone();
    extended[20] = 0;
    extended.splice(
        54..54,
        [
            43, 0, 1, 4, 0, 0, 0, 0, 6, 1, 1, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ],
    );
    set_length(&mut extended);
    frames.push((extended, 54 + 24 + 20));
    frames
}

fn ip_header_end(frame: &[u8]) -> usize {
    ETHERNET + if frame[ETHERNET] >> 4 == 4 { 20 } else { 40 }
}

/// Makes the IP header's length that of the frame.
fn set_length(frame: &mut [u8]) {
    let length = frame.len() - ETHERNET;
    let (at, length) = if frame[14] >> 4 == 4 {
        (16, length)
    } else {
        (18, length.saturating_sub(40))
    };
    frame[at..at + 2].copy_from_slice(&u16::try_from(length).expect("valid").to_be_bytes());
}

#[test]
fn a_frame_shorter_than_its_packet_is_dropped_at_every_length() {
    if !require_root() {
        return;
    }
    let mut node = Node::up();
    let mut expected = 0;
    for (frame, _) in frames(&node) {
        assert_eq!(node.from_pod(0, &frame).retval, REDIRECT, "the whole passes");
        // Test runs want an IP header; shorter frames are the business of the parser's own tests.
        for length in ip_header_end(&frame)..frame.len() {
            assert_eq!(
                node.from_pod(0, &frame[..length]).retval,
                SHOT,
                "{length} bytes of {}",
                frame.len()
            );
            expected += 1;
            assert_eq!(
                node.count(Reason::CT_TRUNCATED_OR_INVALID_HEADER),
                expected,
                "{length} bytes"
            );
        }
    }
}

#[test]
fn a_packet_shorter_than_its_headers_is_dropped_at_every_length() {
    if !require_root() {
        return;
    }
    let mut node = Node::up();
    for (frame, headers) in frames(&node) {
        for length in ip_header_end(&frame)..frame.len() {
            let mut cut = frame[..length].to_vec();
            set_length(&mut cut);
            let expected = if length < headers { SHOT } else { REDIRECT };
            assert_eq!(
                node.from_pod(0, &cut).retval,
                expected,
                "{length} bytes of {}",
                frame.len()
            );
            // The same with padding behind the packet, as Ethernet has it.
            let mut padded = cut.clone();
            padded.resize(length + 30, 0);
            assert_eq!(
                node.from_pod(0, &padded).retval,
                expected,
                "{length} bytes, padded"
            );
        }
    }
}
