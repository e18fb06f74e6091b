// SPDX-License-Identifier: Apache-2.0
//! From the kernel's ring of events to those who want to see them.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use api::agent::EventView;
use datapath::common::event::Hook;
use datapath::common::packet::proto;
use datapath::common::{Addr, Direction, DropEvent};
use datapath::{Event, EventReader};
use model::Endpoint;
use parking_lot::Mutex;
use state::Snapshot;
use tokio::sync::broadcast;
use tracing::{debug, error};

use crate::apply::Client;

/// Events that are kept for those who ask what happened.
pub const KEPT: usize = 1024;

/// Events that a follower may be behind before it misses some.
const FOLLOWER_LAG: usize = 1024;

/// Events taken from the ring per [`WINDOW`]. A flood of packets must not cost the node a CPU: what is beyond stays in
/// the ring, and when that is full the kernel counts it as lost.
const PER_WINDOW: u32 = 1000;
const WINDOW: Duration = Duration::from_millis(100);

/// Events logged per window, when the level is *debug*.
const LOGGED_PER_WINDOW: u32 = 2;

/// How long the thread waits on the ring before it looks whether it shall stop.
const POLL: Duration = Duration::from_millis(250);

/// An event as it was read.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// Counts all events.
    pub sequence: u64,
    /// When it was read, in milliseconds since 1970.
    pub unix_milliseconds: u64,
    /// What happened.
    pub event: DropEvent,
}

/// The last events, and those to come. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EventLog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    kept: Mutex<VecDeque<Record>>,
    followers: broadcast::Sender<Record>,
    seen: AtomicU64,
}

impl Default for EventLog {
    fn default() -> Self {
        let shared = Shared {
            kept: Mutex::new(VecDeque::new()),
            followers: broadcast::Sender::new(FOLLOWER_LAG),
            seen: AtomicU64::new(0),
        };
        Self {
            shared: Arc::new(shared),
        }
    }
}

impl EventLog {
    /// The last events, oldest first, and a receiver of those that come after them: none is missed in between.
    #[must_use]
    pub fn subscribe(&self) -> (Vec<Record>, broadcast::Receiver<Record>) {
        let kept = self.shared.kept.lock();
        (kept.iter().copied().collect(), self.shared.followers.subscribe())
    }

    /// How many events there were.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.shared.seen.load(Ordering::Relaxed)
    }

    /// Takes in an event.
    pub fn push(&self, event: DropEvent, unix_milliseconds: u64) {
        let sequence = self.shared.seen.fetch_add(1, Ordering::Relaxed) + 1;
        let record = Record {
            sequence,
            unix_milliseconds,
            event,
        };
        let mut kept = self.shared.kept.lock();
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(record);
        // Nobody following is the usual case.
        let _ = self.shared.followers.send(record);
    }
}

/// The thread that reads the ring.
#[derive(Debug)]
pub struct EventThread {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl EventThread {
    /// Starts it.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(reader: EventReader, log: EventLog, apply: Client) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::Builder::new()
            .name("events".to_owned())
            .stack_size(256 << 10)
            .spawn({
                let stop = stop.clone();
                move || read(reader, &log, &apply, &stop)
            })?;
        Ok(Self { stop, thread })
    }

    /// Stops it; takes a quarter of a second at most.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.thread.join().is_err() {
            error!("the events thread had died");
        }
    }
}

fn read(mut reader: EventReader, log: &EventLog, apply: &Client, stop: &AtomicBool) {
    let (mut window_began, mut taken) = (Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        match reader.next(POLL) {
            Ok(Some(Event::Drop(drop))) => {
                log.push(drop, unix_milliseconds());
                if taken < LOGGED_PER_WINDOW {
                    log_event(&drop);
                }
                taken += 1;
            }
            Ok(Some(Event::PathMtu(told))) => {
                apply.path_mtu(told.node.to_ip(), told.mtu);
                taken += 1;
            }
            Ok(None) => {}
            Err(error) => {
                error!(%error, "the ring of events cannot be read; drops are still counted");
                return;
            }
        }
        let spent = window_began.elapsed();
        if taken >= PER_WINDOW && spent < WINDOW {
            thread::sleep(WINDOW - spent);
        }
        if spent >= WINDOW || taken >= PER_WINDOW {
            (window_began, taken) = (Instant::now(), 0);
        }
    }
}

fn log_event(drop: &DropEvent) {
    debug!(
        reason = %drop.reason,
        source = ?address(drop.source),
        destination = ?address(drop.destination),
        protocol = drop.proto,
        ifindex = drop.ifindex,
        "dropped a packet"
    );
}

/// Now.
pub(crate) fn unix_milliseconds() -> u64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// An event in words, with the pod's name where one of its addresses or its device is an endpoint's.
#[must_use]
pub fn view(record: &Record, endpoints: &Snapshot<Endpoint>) -> EventView {
    let drop = &record.event;
    let (source, destination) = (address(drop.source), address(drop.destination));
    let has_ports = drop.proto != 0;
    EventView {
        sequence: record.sequence,
        unix_milliseconds: record.unix_milliseconds,
        reason: drop.reason.to_string(),
        direction: Direction::from_number(drop.direction)
            .map(|one| one.to_string())
            .unwrap_or_default(),
        interface: interface(drop, endpoints),
        source,
        destination,
        protocol: protocol_name(drop.proto),
        source_port: has_ports.then(|| drop.source_port.get()),
        destination_port: has_ports.then(|| drop.destination_port.get()),
        length: drop.length,
        pod: pod(drop, endpoints),
    }
}

/// The name of an IP protocol, or its number; empty where a packet was not understood so far.
#[must_use]
pub fn protocol_name(number: u8) -> String {
    match (number, proto::name(number)) {
        (0, _) => String::new(),
        (_, Some(name)) => name.to_owned(),
        (number, None) => number.to_string(),
    }
}

fn address(addr: Addr) -> Option<IpAddr> {
    let addr = addr.to_ip();
    (!addr.is_unspecified()).then_some(addr)
}

fn interface(drop: &DropEvent, endpoints: &Snapshot<Endpoint>) -> String {
    if let Some(endpoint) = endpoints.iter().find(|endpoint| endpoint.ifindex == drop.ifindex) {
        return endpoint.host_ifname.clone();
    }
    // nix 0.31 gives an empty name where there is no such device.
    let name = nix::net::if_::if_indextoname(drop.ifindex)
        .ok()
        .and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty())
        .unwrap_or_else(|| drop.ifindex.to_string())
}

/// What a pod sends comes in on its own device; everything else is known by where it goes.
fn pod(drop: &DropEvent, endpoints: &Snapshot<Endpoint>) -> Option<String> {
    let destination = drop.destination.to_ip();
    let mut endpoints = endpoints.iter();
    let found = if Hook::from_number(drop.hook) == Some(Hook::FromPod) {
        endpoints.find(|endpoint| endpoint.ifindex == drop.ifindex)
    } else {
        endpoints.find(|endpoint| endpoint.ips.contains(&destination))
    };
    found.map(|endpoint| endpoint.pod.to_string())
}

#[cfg(test)]
mod tests {
    use datapath::common::{Be16, Reason};
    use model::{EndpointId, Mac, PodRef};
    use zerocopy::FromZeros as _;

    use super::*;

    #[test]
    fn the_last_events_are_kept_and_followers_miss_none() {
        let log = EventLog::default();
        for _ in 0..KEPT + 10 {
            log.push(event(), 0);
        }
        let (kept, mut receiver) = log.subscribe();
        assert_eq!(
            (kept.len(), kept[0].sequence, log.seen()),
            (KEPT, 11, KEPT as u64 + 10)
        );
        log.push(event(), 7);
        assert_eq!(receiver.try_recv().unwrap().sequence, KEPT as u64 + 11);
    }

    #[test]
    fn an_event_names_the_pod_that_sent() {
        let endpoints: Snapshot<Endpoint> = [endpoint()].into_iter().collect();
        let record = Record {
            sequence: 1,
            unix_milliseconds: 2,
            event: event(),
        };
        let view = view(&record, &endpoints);
        assert_eq!(view.pod.as_deref(), Some("default/a"));
        assert_eq!(
            (view.interface.as_str(), view.reason.as_str()),
            ("tw1", "INVALID_SOURCE_IP")
        );
        assert_eq!(
            (view.protocol.as_str(), view.source_port, view.destination_port),
            ("udp", Some(53), Some(99))
        );
        assert_eq!(
            (view.source, view.direction.as_str()),
            (Some("10.0.0.1".parse().unwrap()), "egress")
        );
    }

    #[test]
    fn what_was_not_understood_is_left_out() {
        let mut drop = DropEvent::new_zeroed();
        drop.ifindex = NO_DEVICE;
        let record = Record {
            sequence: 1,
            unix_milliseconds: 2,
            event: drop,
        };
        let view = view(&record, &Snapshot::empty());
        assert_eq!(
            (view.source, view.destination, view.source_port, view.pod),
            (None, None, None, None)
        );
        assert_eq!(
            (view.protocol.as_str(), view.interface.as_str()),
            ("", NO_DEVICE.to_string().as_str())
        );
    }

    const NO_DEVICE: u32 = 0x7fff_ffff;

    fn event() -> DropEvent {
        let mut drop = DropEvent::new_zeroed();
        drop.reason = Reason::INVALID_SOURCE_IP;
        drop.direction = Direction::Egress as u8;
        drop.hook = Hook::FromPod as u8;
        drop.ifindex = 7;
        drop.source = Addr::v4([10, 0, 0, 1]);
        drop.destination = Addr::v4([10, 0, 0, 2]);
        drop.proto = proto::UDP;
        (drop.source_port, drop.destination_port) = (Be16::new(53), Be16::new(99));
        drop
    }

    fn endpoint() -> Endpoint {
        Endpoint {
            id: EndpointId {
                container_id: "c".to_owned(),
                ifname: "eth0".to_owned(),
            },
            pod: PodRef {
                namespace: "default".to_owned(),
                name: "a".to_owned(),
                uid: String::new(),
            },
            ips: vec!["10.0.0.9".parse().unwrap()],
            host_ifname: "tw1".to_owned(),
            ifindex: 7,
            mac: Mac::default(),
            limits: model::RateLimits::default(),
            adopted: false,
        }
    }
}
