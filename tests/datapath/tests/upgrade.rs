// SPDX-License-Identifier: Apache-2.0
//! An upgrade across a change of a pinned map's row: connections go on, under traffic.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aya::maps::{HashMap as AyaMap, MapData};
use datapath::common::ct::State;
use datapath::common::maps::{self, Spec};
use datapath::common::nat::Ports;
use datapath::common::{Addr, Be16, CtEntry, CtKey, NatEntry, NodeConfig, Reason};
use datapath::{Carried, Datapath, Former, LoadError, Migration, Options};
use netlink::netns;
use parking_lot::Mutex;
use thalweg_tests_datapath::{Node, require_root};
use zerocopy::IntoBytes;

const PATIENCE: Duration = Duration::from_secs(10);
const CONNECTION_NAME: &str = "conntrack_v0";
const NAT_NAME: &str = "nat_v0";

/// Rows of the programs that run are those of today: they stand for an earlier version under other names.
const RUNNING: &[Migration] = &[
    Migration::of::<RunningNat>(),
    Migration::of::<RunningConnection>(),
];

struct RunningConnection;

impl Former for RunningConnection {
    const NAME: &'static str = CONNECTION_NAME;
    const INTO: Spec = maps::CONNTRACK;
    type FormerKey = CtKey;
    type FormerRow = CtEntry;
    type Key = CtKey;
    type Row = CtEntry;

    fn convert(key: &CtKey, row: &CtEntry) -> Option<(CtKey, CtEntry)> {
        Some((*key, *row))
    }

    fn supersedes(former: &CtEntry, present: &CtEntry) -> bool {
        later(former.last_seen, present.last_seen)
    }
}

struct RunningNat;

impl Former for RunningNat {
    const NAME: &'static str = NAT_NAME;
    const INTO: Spec = maps::NAT;
    type FormerKey = CtKey;
    type FormerRow = NatEntry;
    type Key = CtKey;
    type Row = NatEntry;

    fn convert(key: &CtKey, row: &NatEntry) -> Option<(CtKey, NatEntry)> {
        Some((*key, *row))
    }

    fn supersedes(former: &NatEntry, present: &NatEntry) -> bool {
        later(former.created, present.created)
    }
}

fn later(one: u32, other: u32) -> bool {
    one.wrapping_sub(other).cast_signed() > 0
}

#[test]
fn live_connections_go_on_and_none_is_lost_while_more_are_opened() {
    if !require_root() {
        return;
    }
    let mut node = Node::masquerading(Ports::DEFAULT);
    node.forget_pods();
    node.attach();
    let worlds = [Node::NEIGHBOUR_V4.into(), Node::NEIGHBOUR_V6.into()];
    let near = [node.pods[1].v4.into(), node.pods[1].v6.into()];
    let traffic = Traffic::start(&node, &worlds, &near);
    traffic.until_echoes(400);

    // As a version that calls its maps so leaves them: its programs go on, and write there.
    let pin = |node: &Node, name: &str| node.bpffs.path().join("thalweg").join(name);
    for (name, former) in [
        (maps::CONNTRACK.name, CONNECTION_NAME),
        (maps::NAT.name, NAT_NAME),
    ] {
        fs::rename(pin(&node, name), pin(&node, former)).expect("rename");
    }
    let old = node.datapath.conntrack();
    reload(&mut node, RUNNING);
    let carried = node.datapath.conntrack().len().expect("rows");
    let opened = traffic.opened();
    assert!(carried >= 100, "{carried}");
    // The old programs still work, and connections are opened by them.
    traffic.until_opened(opened + 20);
    assert!(old.len().expect("rows") > carried);

    // What is opened to the world in this very moment may break (decision 0009); what is opened to pods may not.
    let calm = traffic.opening.lock();
    let second = node.datapath.carry_over().expect("carried");
    assert!(
        second.iter().all(|pass| pass.lost == 0 && pass.dropped == 0),
        "{second:?}"
    );
    assert!(second.iter().any(|pass| pass.added > 0), "{second:?}");
    // Now one program after the other, with traffic in between.
    node.attach();
    let third = node.datapath.finish_carry_over().expect("carried");
    assert!(
        third.iter().all(|pass| pass.lost == 0 && pass.dropped == 0),
        "{third:?}"
    );
    drop(calm);
    for former in [CONNECTION_NAME, NAT_NAME] {
        assert!(!pin(&node, former).exists(), "{former} is still there");
    }
    let opened = traffic.opened();
    traffic.until_echoes(traffic.echoes() + 400);
    traffic.until_opened(opened + 20);
    let broken = traffic.stop();
    assert_eq!(broken, [""; 0]);

    let (before, after) = (rows(&old), rows(&node.datapath.conntrack()));
    for (key, row) in &before {
        let now = after.iter().find(|(other, _)| other == key);
        let (_, now) = now.unwrap_or_else(|| panic!("{key:?} was not carried over"));
        assert!(
            now.created == row.created || later(now.created, row.created),
            "{row:?} {now:?}"
        );
    }
    let unmapped = Reason::NO_MAPPING_FOR_NAT_MASQUERADE;
    assert_eq!(node.count(unmapped), 0);
    assert!(matches!(node.datapath.finish_carry_over().as_deref(), Ok([])));
}

fn rows(conntrack: &datapath::Conntrack) -> Vec<(CtKey, CtEntry)> {
    conntrack.map().rows().expect("rows")
}

/// What another version might have had: smaller counters, no place for policy.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout,
)]
struct SmallRow {
    last_seen: u32,
    created: u32,
    packets: [u32; 2],
    bytes: [u64; 2],
    nat_port: Be16,
    state: State,
    opener: u8,
    tcp_flags: [u8; 2],
    flags: u16,
    _pad: [u8; 8],
}

const SMALL: &[Migration] = &[Migration::of::<Small>()];

struct Small;

impl Former for Small {
    const NAME: &'static str = CONNECTION_NAME;
    const INTO: Spec = maps::CONNTRACK;
    type FormerKey = CtKey;
    type FormerRow = SmallRow;
    type Key = CtKey;
    type Row = CtEntry;

    fn convert(key: &CtKey, row: &SmallRow) -> Option<(CtKey, CtEntry)> {
        let present = CtEntry {
            last_seen: row.last_seen,
            created: row.created,
            packets: row.packets.map(u64::from),
            bytes: row.bytes,
            identity: 0,
            rule: 0,
            service: 0,
            nat_port: row.nat_port,
            state: row.state,
            opener: row.opener,
            tcp_flags: row.tcp_flags,
            flags: row.flags,
            revision: 0,
        };
        (key.proto != GONE).then_some((*key, present))
    }

    fn supersedes(former: &CtEntry, present: &CtEntry) -> bool {
        later(former.last_seen, present.last_seen)
    }
}

/// A protocol that the present version is supposed not to track.
const GONE: u8 = 200;

#[test]
fn rows_of_another_size_are_converted_and_every_pass_says_what_became_of_them() {
    if !require_root() {
        return;
    }
    let mut node = Node::up();
    let mut former = small_map(&node, 64);
    for number in 0..10 {
        put(&mut former, number, 6, 1000 + u32::from(number));
    }
    put(&mut former, 99, GONE, 1);

    reload(&mut node, SMALL);
    let rows = rows(&node.datapath.conntrack());
    assert_eq!(rows.len(), 10);
    for (key, row) in &rows {
        let number = u32::from(key.port[0].get());
        assert_eq!(
            (row.last_seen, row.packets, row.bytes, row.state),
            (1000 + number, [3, 4], [300, 400], State::ESTABLISHED)
        );
    }

    // Meanwhile the programs of both versions were at work.
    let conntrack = node.datapath.conntrack();
    let touch = |number: u16, last_seen: u32| {
        let (key, mut row) = *rows
            .iter()
            .find(|(key, _)| key.port[0].get() == number)
            .expect("row");
        row.last_seen = last_seen;
        conntrack.map().insert(&key, &row).expect("write");
    };
    touch(1, 5000);
    put(&mut former, 2, 6, 6000);
    put(&mut former, 50, 6, 7000);
    let expected = Carried {
        added: 1,
        updated: 1,
        kept: 9,
        dropped: 1,
        lost: 0,
    };
    assert_eq!(node.datapath.carry_over().expect("carried"), [expected]);
    let seen = |number: u16| {
        let rows = conntrack.map().rows().expect("rows");
        let row = rows.iter().find(|(key, _)| key.port[0].get() == number);
        row.expect("row").1.last_seen
    };
    assert_eq!([seen(1), seen(2), seen(3), seen(50)], [5000, 6000, 1003, 7000]);

    // An agent that dies here leaves it to the next one.
    drop(former);
    reload(&mut node, SMALL);
    assert!(former_pin(&node).exists());
    let last = node.datapath.finish_carry_over().expect("carried");
    assert_eq!((last[0].kept, last[0].added), (11, 0));
    assert!(!former_pin(&node).exists());
    reload(&mut node, SMALL);
    assert_eq!(node.datapath.finish_carry_over().expect("carried"), []);
    assert_eq!(node.datapath.conntrack().len().expect("rows"), 11);
}

#[test]
fn rows_that_do_not_fit_are_counted_and_a_map_of_no_known_shape_does_not_stop_the_start() {
    if !require_root() {
        return;
    }
    let mut node = Node::up();
    let mut former = small_map(&node, 64);
    for number in 0..40 {
        put(&mut former, number, 6, 1);
    }
    let few = |options: &mut Options| {
        options.limits.conntrack_max = 16;
        options.former = SMALL;
    };
    node.datapath = load(&node, few).expect("load");
    let pass = node.datapath.finish_carry_over().expect("carried");
    assert_eq!((pass[0].kept, pass[0].lost), (16, 24), "{pass:?}");

    let other = AyaMap::<MapData, [u8; 4], [u8; 4]>::create(8, 0).expect("map");
    other.pin(former_pin(&node)).expect("pin");
    node.datapath = load(&node, few).expect("load");
    assert!(!former_pin(&node).exists());
    assert_eq!(node.datapath.finish_carry_over().expect("carried"), []);
}

fn former_pin(node: &Node) -> PathBuf {
    node.bpffs.path().join("thalweg").join(CONNECTION_NAME)
}

type SmallMap = AyaMap<MapData, [u8; 40], [u8; 48]>;

fn small_map(node: &Node, max_entries: u32) -> SmallMap {
    let map = SmallMap::create(max_entries, 0).expect("map");
    map.pin(former_pin(node)).expect("pin");
    let pinned = MapData::from_pin(former_pin(node)).expect("map");
    SmallMap::try_from(aya::maps::Map::HashMap(pinned)).expect("hash map")
}

fn put(map: &mut SmallMap, number: u16, proto: u8, last_seen: u32) {
    let address = |last: u8| Addr::from(IpAddr::from([10, 244, 1, last]));
    let key = CtKey {
        addr: [address(1), address(2)],
        port: [Be16::new(number), Be16::new(80)],
        proto,
        kind: 0,
        _pad: [0; 2],
    };
    let row = SmallRow {
        last_seen,
        created: 1,
        packets: [3, 4],
        bytes: [300, 400],
        nat_port: Be16::new(0),
        state: State::ESTABLISHED,
        opener: 0,
        tcp_flags: [0x12, 0x12],
        flags: 0,
        _pad: [0; 8],
    };
    let bytes = |bytes: &[u8]| <[u8; 40]>::try_from(bytes).expect("40 bytes");
    let value = <[u8; 48]>::try_from(row.as_bytes()).expect("48 bytes");
    map.insert(bytes(key.as_bytes()), value, 0).expect("row");
}

fn load(node: &Node, change: impl FnOnce(&mut Options)) -> Result<Datapath, LoadError> {
    let flags = NodeConfig::IPV4 | NodeConfig::IPV6 | NodeConfig::MASQUERADE;
    let mut options = Options::new(node.bpffs.path(), NodeConfig::new(flags));
    options.limits.conntrack_max = Node::CONNECTIONS;
    change(&mut options);
    Datapath::load(&options)
}

fn reload(node: &mut Node, former: &'static [Migration]) {
    node.datapath = load(node, |options| options.former = former).expect("load");
}

/// TCP connections that echo all the time, and ever new ones.
struct Traffic {
    stop: Arc<AtomicBool>,
    echoes: Arc<AtomicU64>,
    opened: Arc<AtomicU64>,
    /// Held while a connection to the world is being opened.
    opening: Arc<Mutex<()>>,
    broken: Arc<Mutex<Vec<String>>>,
    threads: Vec<JoinHandle<()>>,
}

/// Connections to each address that last.
const LASTING: usize = 30;

impl Traffic {
    /// From the first pod to the world and to the second pod.
    fn start(node: &Node, worlds: &[IpAddr], near: &[IpAddr]) -> Self {
        let mut traffic = Self {
            stop: Arc::default(),
            echoes: Arc::default(),
            opened: Arc::default(),
            opening: Arc::default(),
            broken: Arc::default(),
            threads: Vec::new(),
        };
        let sides = worlds.iter().map(|address| (address, &node.world));
        for (address, netns) in sides.chain(near.iter().map(|address| (address, &node.pods[1].netns))) {
            let (address, server) = (*address, netns.try_clone().expect("descriptor"));
            let listener = netns::run_in(server.as_fd(), move || {
                TcpListener::bind((address, 0)).expect("bind")
            });
            let listener = listener.expect("namespace");
            let to = listener.local_addr().expect("address");
            std::thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    std::thread::spawn(move || {
                        let mut word = [0; 8];
                        while stream.read_exact(&mut word).is_ok() && stream.write_all(&word).is_ok() {}
                    });
                }
            });
            for _ in 0..LASTING {
                let stream = connect(node.pods[0].netns.as_fd(), to).expect("connect");
                traffic.spawn(to, move |traffic| {
                    let mut stream = stream;
                    while !traffic.stop.load(Ordering::Relaxed) {
                        echo(&mut stream)?;
                        traffic.echoes.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    Ok(())
                });
            }
            let to_world = worlds.contains(&address);
            // These stay open too: each must survive what follows.
            let pod = node.pods[0].netns.try_clone().expect("descriptor");
            traffic.spawn(to, move |traffic| {
                let mut open = Vec::new();
                while !traffic.stop.load(Ordering::Relaxed) {
                    let opening = to_world.then(|| traffic.opening.lock());
                    let mut stream = connect(pod.as_fd(), to)?;
                    echo(&mut stream)?;
                    drop(opening);
                    open.push(stream);
                    traffic.opened.fetch_add(1, Ordering::Relaxed);
                    if open.len() % 8 == 0 {
                        open.iter_mut().try_for_each(echo)?;
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
                open.iter_mut().try_for_each(echo)
            });
        }
        traffic
    }

    fn spawn(&mut self, to: SocketAddr, work: impl FnOnce(&Self) -> std::io::Result<()> + Send + 'static) {
        let shared = Self {
            stop: self.stop.clone(),
            echoes: self.echoes.clone(),
            opened: self.opened.clone(),
            opening: self.opening.clone(),
            broken: self.broken.clone(),
            threads: Vec::new(),
        };
        self.threads.push(std::thread::spawn(move || {
            if let Err(error) = work(&shared) {
                shared.broken.lock().push(format!("{to}: {error}"));
            }
        }));
    }

    fn echoes(&self) -> u64 {
        self.echoes.load(Ordering::Relaxed)
    }

    fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    fn until_echoes(&self, count: u64) {
        self.until(|| self.echoes() >= count);
    }

    fn until_opened(&self, count: u64) {
        self.until(|| self.opened() >= count);
    }

    fn until(&self, holds: impl Fn() -> bool) {
        let begin = Instant::now();
        while !holds() {
            assert!(begin.elapsed() < PATIENCE, "stalled; {:?}", self.broken);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("no panic");
        }
        std::mem::take(&mut self.broken.lock())
    }
}

fn connect(netns: std::os::fd::BorrowedFd<'_>, to: SocketAddr) -> std::io::Result<TcpStream> {
    let connect = move || TcpStream::connect_timeout(&to, PATIENCE);
    let stream = netns::run_in(netns, connect).map_err(std::io::Error::other)??;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn echo(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut word = *b"anybody?";
    stream.write_all(&word)?;
    stream.read_exact(&mut word)
}
