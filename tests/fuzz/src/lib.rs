// SPDX-License-Identifier: Apache-2.0
//! What the fuzzer calls: one function of bytes per target. The functions panic when something holds no more; errors of
//! the code under test are fine.
//!
//! The fuzzer's own binaries are in `fuzz/fuzz_targets` (they need libFuzzer); `tests/replay.rs` runs the corpora
//! through the same functions on any toolchain. A new target is a function here, a line in [`TARGETS`], a binary, and
//! a directory of seeds in `fuzz/corpus`.

use cni::{Attachment, Invocation, protocol};
use datapath_common::Reason;

/// The source of the parser that runs in the kernel. Its own crate cannot be linked into a fuzzer: it brings aya-ebpf, whose
/// `memcpy` and `memset` take the place of libc's and do not return what C expects.
#[expect(
    dead_code,
    unreachable_pub,
    clippy::cast_possible_truncation,
    reason = "checked in its own crate"
)]
#[path = "../../../ebpf/datapath/src/parse.rs"]
mod parse;

/// Why a packet is refused: what the parser's own crate has under this name.
#[derive(Clone, Copy, Debug)]
struct Drop {
    #[expect(dead_code, reason = "shown when a target panics")]
    reason: Reason,
}

impl Drop {
    const fn new(reason: Reason) -> Self {
        Self { reason }
    }
}

/// A name, and what to do with the bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// As its binary and its corpus are called.
    pub name: &'static str,
    /// Panics if the bytes break something.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: [Target; 4] = [
    Target {
        name: "agent_config",
        run: agent_config,
    },
    Target {
        name: "cni_protocol",
        run: cni_protocol,
    },
    Target {
        name: "cni_stdin",
        run: cni_stdin,
    },
    Target {
        name: "packet",
        run: packet,
    },
];

const VERBS: [&str; 6] = ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"];

/// The plugin's standard input, for each verb: an error has a code and a text.
pub fn cni_stdin(data: &[u8]) {
    for verb in VERBS {
        if let Err(error) = Invocation::parse(|name| variable(name, verb), data) {
            assert!(
                error.code != 0 && !error.msg.is_empty(),
                "{verb}: an error that says nothing"
            );
        }
    }
    let text = String::from_utf8_lossy(data);
    if let Ok(pod) = cni::parse_args(&text) {
        assert!(pod.name.len() <= data.len(), "a pod's name came from nowhere");
    }
}

fn variable(name: &str, verb: &str) -> Option<String> {
    let value = match name {
        "CNI_COMMAND" => verb,
        "CNI_CONTAINERID" => "4f1c8d",
        "CNI_NETNS" => "/run/netns/a",
        "CNI_IFNAME" => "eth0",
        _ => return None,
    };
    Some(value.to_owned())
}

/// What the plugin sends the agent: what can be read can be written, and reads the same again.
pub fn cni_protocol(data: &[u8]) {
    if let Ok(request) = protocol::decode::<protocol::Request>(data)
        && let Ok(frame) = protocol::encode(&request)
    {
        let again: Result<protocol::Request, _> = protocol::read(&mut frame.as_slice());
        assert_eq!(
            again.ok(),
            Some(request),
            "a request does not survive its encoding"
        );
    }
    let frame: Result<protocol::Request, _> = protocol::read(&mut &*data);
    drop(frame);
    if let Ok(attachment) = serde_json::from_slice::<Attachment>(data) {
        let ifname = cni::host_ifname(&attachment);
        assert!(ifname.len() < 16, "the kernel refuses {ifname}");
    }
}

/// The agent's configuration file: what is refused is refused with a reason.
pub fn agent_config(data: &[u8]) {
    if let Err(error) = api::config::Config::from_yaml(data) {
        assert!(!error.to_string().is_empty(), "an error that says nothing");
        assert!(!error.problems.is_empty(), "an error without a problem");
    }
}

/// A frame, as the eBPF programs read it: what is understood lies within the frame.
pub fn packet(data: &[u8]) {
    if let Some(Ok(packet)) = parse::examine(data) {
        let end = usize::try_from(packet.end).unwrap_or(usize::MAX);
        assert!(
            packet.payload() <= end && end <= data.len(),
            "{packet:?} lies outside of its {} bytes",
            data.len()
        );
    }
}
