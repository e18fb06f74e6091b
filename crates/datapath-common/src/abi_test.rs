// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! The layout of everything that crosses the kernel boundary, against the golden file.

use std::fmt::Write as _;

use crate::service::{
    Affinity, AffinityKey, Backend, BackendKey, MemberKey, Service, ServiceKey, SocketKey, SocketPeer,
    SourceKey,
};
use crate::{
    Counter, CtEntry, CtKey, DropEvent, Endpoint, FragmentEntry, FragmentKey, LocalNode, NatAddress,
    NatEntry, NodeConfig, PathMtu, Prefix, PrefixKey, Reason, Row, Way, maps,
};

const GOLDEN: &str = include_str!("../testdata/abi.txt");

#[test]
fn the_layout_is_the_golden_one() {
    let mut abi = String::new();
    for map in maps::ALL {
        let maps::Spec {
            name,
            kind,
            key_size,
            value_size,
            max_entries,
            on_demand,
        } = map;
        let memory = if on_demand { " on-demand" } else { "" };
        writeln!(
            abi,
            "map {name} {kind:?} key={key_size} value={value_size} max={max_entries}{memory}"
        )
        .unwrap();
    }
    row::<Endpoint>(&mut abi);
    row::<CtKey>(&mut abi);
    row::<CtEntry>(&mut abi);
    row::<PrefixKey>(&mut abi);
    row::<Prefix>(&mut abi);
    row::<LocalNode>(&mut abi);
    row::<Way>(&mut abi);
    row::<NatEntry>(&mut abi);
    row::<NatAddress>(&mut abi);
    row::<FragmentKey>(&mut abi);
    row::<FragmentEntry>(&mut abi);
    row::<ServiceKey>(&mut abi);
    row::<Service>(&mut abi);
    row::<BackendKey>(&mut abi);
    row::<Backend>(&mut abi);
    row::<MemberKey>(&mut abi);
    row::<AffinityKey>(&mut abi);
    row::<Affinity>(&mut abi);
    row::<SourceKey>(&mut abi);
    row::<SocketKey>(&mut abi);
    row::<SocketPeer>(&mut abi);
    row::<Counter>(&mut abi);
    row::<DropEvent>(&mut abi);
    row::<PathMtu>(&mut abi);
    row::<NodeConfig>(&mut abi);
    for reason in Reason::ALL {
        writeln!(abi, "reason {} {reason}", reason.0).unwrap();
    }
    assert!(
        abi == GOLDEN,
        "the layout changed. A changed row of a pinned map takes a new map name; then write this to \
         crates/datapath-common/testdata/abi.txt:\n{abi}"
    );
}

fn row<R: Row>(abi: &mut String) {
    writeln!(
        abi,
        "row {} size={} align={}",
        R::NAME,
        size_of::<R>(),
        align_of::<R>()
    )
    .unwrap();
    for field in R::FIELDS {
        writeln!(abi, "    {:>3} {:>3} {}", field.offset, field.size, field.name).unwrap();
    }
}
