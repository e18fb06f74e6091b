// SPDX-License-Identifier: Apache-2.0
//! Loading, attaching, and everything that may lie in the way of it.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use aya::maps::{MapData, MapType};
use aya::programs::links::{FdLink, PinnedLink};
use datapath::common::event::Hook;
use datapath::common::{NodeConfig, maps};
use datapath::{AttachError, AttachMode, Datapath, LoadError, Options};
use netlink::netns;
use thalweg_tests_datapath::packet::Path as Route;
use thalweg_tests_datapath::{Node, require_root};

const BOTH: u32 = NodeConfig::IPV4 | NodeConfig::IPV6;

fn options(bpffs: &Path) -> Options {
    let mut options = Options::new(bpffs, NodeConfig::new(BOTH));
    options.limits.conntrack_max = Node::CONNECTIONS;
    options
}

/// Loads anew over what the node has pinned, as a restarted agent does.
fn reload(node: &mut Node, change: impl FnOnce(&mut Options)) {
    let mut options = options(node.bpffs.path());
    change(&mut options);
    node.datapath = Datapath::load(&options).expect("load");
    node.events = node.datapath.take_events().expect("events");
}

fn pin(node: &Node, name: &str) -> PathBuf {
    node.bpffs.path().join("thalweg").join(name)
}

fn links(node: &Node) -> Vec<String> {
    let entries = fs::read_dir(pin(node, "links")).expect("links");
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// The link's and its program's numbers.
fn link_ids(node: &Node, ifname: &str) -> (u32, u32) {
    let link = FdLink::from(PinnedLink::from_pin(pin(node, "links").join(ifname)).expect("link"));
    let info = link.info().expect("info");
    (info.id(), info.program_id())
}

/// Links are a matter of kernels with tcx (6.6, commit e420bed02507).
#[expect(clippy::print_stdout, reason = "a skip must be seen")]
fn has_links(node: &Node) -> bool {
    let tcx = node.datapath.features().tcx;
    if !tcx {
        println!("SKIPPED: this kernel has no tcx");
    }
    tcx
}

fn program_id(node: &Node, hook: Hook) -> u32 {
    node.datapath
        .programs()
        .into_iter()
        .find(|program| program.name == hook.name())
        .expect("program")
        .id
}

fn pods_reach_each_other(node: &Node) -> bool {
    let to = node.pods[1].v4.to_string();
    let ping = || {
        Command::new("ping")
            .args(["-c", "1", "-W", "1", &to])
            .output()
            .expect("ping")
    };
    netns::run_in(node.pods[0].netns.as_fd(), ping)
        .expect("namespace")
        .status
        .success()
}

#[test]
fn every_program_loads() {
    if !require_root() {
        return;
    }
    let node = Node::up();
    let programs = node.datapath.programs();
    let names: BTreeSet<_> = programs.iter().map(|program| program.name.as_str()).collect();
    assert_eq!(
        names,
        BTreeSet::from(["clock", "from_host", "from_pod", "from_tunnel", "from_wire"])
    );
    assert!(programs.iter().all(|program| program.instructions > 0));
}

#[test]
fn a_restart_keeps_rows_and_replaces_programs_in_place() {
    if !require_root() {
        return;
    }
    let mut node = Node::up();
    if !has_links(&node) {
        return;
    }
    node.attach();
    let (link, program) = link_ids(&node, "thalweg_host");
    assert_eq!(program, program_id(&node, Hook::FromHost));
    let ask = Route::new(node.pods[0].mac, node.pods[0].v4, node.pods[1].v4).udp(1000, 53);
    node.from_pod(0, &ask);
    let rows = node.datapath.endpoints().rows().expect("rows");

    reload(&mut node, |_| {});
    assert_eq!(node.datapath.endpoints().rows().expect("rows"), rows);
    assert!(
        node.datapath
            .conntrack()
            .entries()
            .expect("rows")
            .iter()
            .any(|row| row.entry.packets == [1, 0])
    );
    node.attach();
    assert_eq!(
        link_ids(&node, "thalweg_host"),
        (link, program_id(&node, Hook::FromHost)),
        "the same link"
    );
    assert_ne!(link_ids(&node, "thalweg_host").1, program, "another program");
    assert_eq!(links(&node).len(), 4);
    assert!(pods_reach_each_other(&node));
}

#[test]
fn whatever_lies_where_a_map_belongs_is_replaced() {
    if !require_root() {
        return;
    }
    let mut node = Node::up();
    for name in [
        maps::ENDPOINTS.name,
        maps::METRICS.name,
        maps::EVENTS.name,
        maps::CONNTRACK.name,
    ] {
        fs::remove_file(pin(&node, name)).expect("unpin");
    }
    fs::create_dir(pin(&node, maps::ENDPOINTS.name)).expect("directory");
    let foreign = node.datapath.program(Hook::FromPod).expect("program");
    pin_object(foreign.as_fd(), &pin(&node, maps::CONNTRACK.name));
    let other = aya::maps::Array::<MapData, u64>::create(3, 0).expect("map");
    other.pin(pin(&node, maps::METRICS.name)).expect("pin");

    reload(&mut node, |_| {});
    for name in [
        maps::ENDPOINTS.name,
        maps::METRICS.name,
        maps::EVENTS.name,
        maps::CONNTRACK.name,
    ] {
        let spec = maps::ALL
            .into_iter()
            .find(|spec| spec.name == name)
            .expect("spec");
        let info = aya::maps::MapInfo::from_pin(pin(&node, name)).expect("map");
        assert_eq!(
            (info.key_size(), info.value_size()),
            (spec.key_size, spec.value_size),
            "{name}"
        );
        assert_ne!(info.map_type().expect("type"), MapType::Array, "{name}");
    }
    assert!(node.datapath.endpoints().rows().expect("rows").is_empty());
}

/// Pins what aya does not let a test pin twice.
fn pin_object(object: std::os::fd::BorrowedFd<'_>, path: &Path) {
    let fd = std::os::fd::AsRawFd::as_raw_fd(&object);
    let source = format!("/proc/{}/fd/{fd}", std::process::id());
    let id = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).expect("fdinfo");
    let id = id
        .lines()
        .find_map(|line| line.strip_prefix("prog_id:"))
        .expect(&source)
        .trim()
        .to_owned();
    let status = Command::new("bpftool")
        .args(["prog", "pin", "id", &id])
        .arg(path)
        .status()
        .expect("bpftool");
    assert!(status.success());
}

#[test]
fn another_size_of_the_table_keeps_the_connections() {
    if !require_root() {
        return;
    }
    let mut node = Node::up();
    for port in 1..=100 {
        let frame = Route::new(node.pods[0].mac, node.pods[0].v4, node.pods[1].v4).udp(1000, port);
        node.from_pod(0, &frame);
    }
    reload(&mut node, |options| {
        options.limits.conntrack_max = 2 * Node::CONNECTIONS
    });
    assert_eq!(node.datapath.conntrack().max_entries(), 2 * Node::CONNECTIONS);
    assert_eq!(node.datapath.conntrack().len().expect("rows"), 100);
    reload(&mut node, |options| options.limits.conntrack_max = 10);
    assert_eq!(
        node.datapath.conntrack().len().expect("rows"),
        10,
        "as many as fit"
    );
}

#[test]
fn a_missing_mount_is_named_with_its_remedy() {
    if !require_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let error = Datapath::load(&options(directory.path())).expect_err("no bpffs");
    assert!(matches!(error, LoadError::NotBpffs { .. }));
    let text = error.to_string();
    assert!(
        text.contains("mount -t bpf bpf") && text.contains(&directory.path().display().to_string()),
        "{text}"
    );
    let absent = directory.path().join("absent");
    let text = Datapath::load(&options(&absent))
        .expect_err("no directory")
        .to_string();
    assert!(text.contains("No such file"), "{text}");
}

#[test]
fn clsact_serves_where_tcx_is_missing() {
    if !require_root() {
        return;
    }
    let mut node = Node::with(BOTH, |options| options.attach = AttachMode::Clsact);
    assert!(!node.datapath.features().tcx);
    node.attach();
    assert!(pods_reach_each_other(&node));
    node.attach();
    reload(&mut node, |options| options.attach = AttachMode::Clsact);
    assert!(pods_reach_each_other(&node), "filters outlive the process");
    node.attach();
    assert!(pods_reach_each_other(&node));
    assert_eq!(filters(&node), 1);
    assert!(node.datapath.detach(&node.pods[0].ifname).expect("detach"));
    assert_eq!(filters(&node), 0);
    assert!(!node.datapath.detach(&node.pods[0].ifname).expect("detach"));
}

/// How many programs are on the first pod's device by clsact.
fn filters(node: &Node) -> usize {
    let command = ["filter", "show", "dev", &node.pods[0].ifname, "ingress"];
    let output = Command::new("tc").args(command).output().expect("tc");
    String::from_utf8_lossy(&output.stdout)
        .matches("direct-action")
        .count()
}

#[test]
fn a_device_that_came_back_gets_a_new_link() {
    if !require_root() {
        return;
    }
    let mut node = Node::up();
    if !has_links(&node) {
        return;
    }
    node.attach();
    let (link, _) = link_ids(&node, "wire");
    node.netlink.delete_link("wire").expect("delete");
    let gone = node.datapath.attach_wire("wire", node.wire).expect_err("gone");
    assert!(matches!(gone, AttachError::NoDevice { .. }), "{gone}");
    let index = node.netlink.create_bridge("wire").expect("device");
    let other = node.datapath.attach_wire("wire", index + 1).expect_err("another");
    assert!(matches!(other, AttachError::Replaced { .. }), "{other}");
    node.datapath.attach_wire("wire", index).expect("attach");
    assert_ne!(link_ids(&node, "wire").0, link);
}

#[test]
fn links_of_nobody_are_pruned_and_unload_leaves_nothing() {
    if !require_root() {
        return;
    }
    let mut node = Node::up();
    if !has_links(&node) {
        return;
    }
    node.attach();
    let live = BTreeSet::from([
        "wire".to_owned(),
        "thalweg_host".to_owned(),
        node.pods[0].ifname.clone(),
    ]);
    assert_eq!(node.datapath.prune_links(&live).expect("prune"), 1);
    assert_eq!(node.datapath.prune_links(&live).expect("prune"), 0);
    assert_eq!(
        links(&node),
        ["thalweg_host", node.pods[0].ifname.as_str(), "wire"]
    );
    assert!(node.datapath.detach("wire").expect("detach"));
    assert!(!node.datapath.detach("wire").expect("detach"));

    let removed = datapath::unload(node.bpffs.path()).expect("unload");
    let maps = datapath::common::maps::ALL.len();
    assert_eq!(removed.len(), 2 + maps + 2, "{removed:?}");
    assert!(!node.bpffs.path().join("thalweg").exists());
    assert_eq!(
        datapath::unload(node.bpffs.path()).expect("unload"),
        Vec::<String>::new()
    );
}

#[test]
fn maps_are_shown_decoded() {
    if !require_root() {
        return;
    }
    let mut node = Node::up();
    let path = Route::new(node.pods[0].mac, node.pods[0].v4, node.pods[1].v4);
    node.from_pod(0, &path.udp(1000, 53));
    let maps = node.datapath.maps().expect("maps");
    assert_eq!(
        maps.iter().map(|map| map.name).collect::<Vec<_>>(),
        [
            "endpoints",
            "conntrack",
            "nat",
            "nat_addresses",
            "fragments",
            "prefixes",
            "services",
            "backends",
            "members",
            "affinity",
            "sources",
            "sockets",
            "node",
            "ways",
            "metrics",
            "events"
        ]
    );
    assert_eq!(maps[0].entries, Some(6));
    assert!(maps[1].memory_bytes.expect("memory") > 100 * u64::from(Node::CONNECTIONS));
    let rows = |map: &str| node.datapath.dump(map).expect("dump").expect("a map");
    assert!(
        rows("endpoints")
            .iter()
            .any(|row| row.key == "172.30.0.1" && row.value == "host")
    );
    let connections = rows("conntrack");
    assert_eq!(connections[0].key, "udp 10.244.1.1:1000 -> 10.244.1.2:53");
    assert!(
        connections[0]
            .value
            .starts_with("unreplied age=0s idle=0s packets=1/0"),
        "{}",
        connections[0].value
    );
    assert_eq!(rows("metrics")[0].key, "FORWARDED egress");
    assert!(node.datapath.dump("nonsense").expect("dump").is_none());
}

/// Where the verifier of the oldest kernel still has room: it prunes less than the newest.
const VERIFIED_MAX: u32 = 250_000;

#[test]
fn the_verifier_is_far_from_its_limit_in_every_configuration() {
    if !require_root() {
        return;
    }
    let mut too_much = Vec::new();
    for flags in [
        BOTH,
        BOTH | NodeConfig::HOST_ROUTING,
        BOTH | NodeConfig::MASQUERADE,
        BOTH | NodeConfig::TUNNEL | NodeConfig::MASQUERADE,
        BOTH | NodeConfig::TUNNEL | NodeConfig::TUNNEL_DEVICE | NodeConfig::MASQUERADE,
        BOTH | NodeConfig::SERVICES,
        BOTH | NodeConfig::SERVICES | NodeConfig::MASQUERADE,
        BOTH | NodeConfig::SERVICES | NodeConfig::TUNNEL | NodeConfig::MASQUERADE,
        BOTH | NodeConfig::SERVICES | NodeConfig::TUNNEL | NodeConfig::TUNNEL_DEVICE | NodeConfig::MASQUERADE,
    ] {
        let node = Node::with(flags, |_| {});
        for program in node.datapath.programs() {
            println!(
                "{flags:#x} {}: {:?} of {}",
                program.name, program.verified, program.instructions
            );
            too_much.extend(
                (program.verified.unwrap_or(0) >= VERIFIED_MAX)
                    .then(|| format!("{flags:#x} {}", program.name)),
            );
        }
    }
    assert!(too_much.is_empty(), "{too_much:?}");
}
