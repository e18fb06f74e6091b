// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Every map of the programs, and the only places where rows are touched in the kernel's memory.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, PerCpuArray, RingBuf};
use datapath_common::{Addr, Counter, CtEntry, CtKey, Endpoint, maps, metrics};

#[map(name = "endpoints")]
static ENDPOINTS: HashMap<Addr, Endpoint> = HashMap::pinned(maps::ENDPOINTS.max_entries, 0);

#[map(name = "conntrack")]
static CONNTRACK: HashMap<CtKey, CtEntry> = HashMap::pinned(maps::CONNTRACK.max_entries, 0);

#[map(name = "metrics")]
static METRICS: PerCpuArray<Counter> = PerCpuArray::pinned(metrics::METRICS_LEN, 0);

#[map(name = "events")]
static EVENTS: RingBuf = RingBuf::pinned(maps::EVENTS.max_entries, 0);
