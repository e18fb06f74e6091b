// SPDX-License-Identifier: Apache-2.0
//! Services into the kernel's maps: each test is a node in a network and mount namespace of its own thread.
//!
//! They need root and are skipped without, or fail when `REQUIRE_PRIVILEGED=1`.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use datapath::Datapath;
use datapath::common::service::{BackendKey, ServiceKey};
use loadbalancer::{Frontend, Settings};
use model::{
    Distribution, EndpointSlice, EndpointState, Exposure, Family, HostPort, ObjectName, PodRef, Service,
    ServicePort, SliceEndpoint, SlicePort, Transport,
};
use thalweg_agent::apply::ServicesView;

use support::{Node, privileged};

#[test]
fn services_are_in_the_maps_once_everything_is_known() {
    privileged!();
    let mut node = Node::serving(Settings::default(), 256);
    add(&mut node, &service(1), &[1, 2]);
    node.wake();
    node.compare_and_wait();
    assert!(seen(&node).is_empty(), "the API has not said that this is all");
    in_sync(&mut node);
    settled(&node);
    let expected = BTreeMap::from([(
        "10.96.0.1:80/TCP".to_owned(),
        ["10.8.0.1:8080", "10.8.0.2:8080"].map(str::to_owned).to_vec(),
    )]);
    assert_eq!(seen(&node), expected);
    assert_eq!(node.row("10.96.0.1"), "service");
}

#[test]
fn a_restarted_agent_disturbs_no_row_and_makes_good_what_happened_meanwhile() {
    privileged!();
    let mut node = Node::serving(Settings::default(), 256);
    for number in 1..=20 {
        add(&mut node, &service(number), &[1, 2, 3]);
    }
    in_sync(&mut node);
    settled(&node);
    let before = raw(&node);
    node.restart(|| ());
    settled(&node);
    assert_eq!(raw(&node), before);
    assert_eq!(
        services(&node).rows,
        [0, 0],
        "nothing was written and nothing deleted"
    );
    // Now something happens while nobody looks.
    node.look(|datapath| datapath.services().frontends().remove(&key(&service(2))).unwrap());
    node.stop();
    let serving = node.serving.as_mut().unwrap();
    serving.services.remove(&service(20).name);
    serving.services.upsert(Arc::new(service(21)));
    serving.slices.upsert(Arc::new(slice(&service(1), &[1, 3])));
    node.start();
    settled(&node);
    let now = seen(&node);
    assert_eq!((now.len(), now.contains_key("10.96.0.20:80/TCP")), (20, false));
    assert_eq!(now["10.96.0.1:80/TCP"], ["10.8.0.1:8080", "10.8.0.3:8080"]);
    assert_eq!(now["10.96.0.2:80/TCP"].len(), 3);
    assert_eq!(
        (node.row("10.96.0.20"), node.row("10.96.0.21")),
        (String::new(), "service".to_owned())
    );
    // Written: a slot and the frontend of the first; frontend and slots of the second, whose number was lost; frontend and address of
    // the new one. Deleted: a slot of the first; the former slots of the second; frontend, address and slots of the one that went.
    assert_eq!(services(&node).rows, [8, 9]);
}

#[test]
fn the_nodes_own_addresses_serve_node_ports_and_stay_the_nodes() {
    privileged!();
    let mut node = Node::serving(Settings::default(), 256);
    let exposed = Service {
        ports: [ServicePort {
            node_port: 30080,
            ..service(1).ports[0].clone()
        }]
        .into(),
        exposure: Some(Box::new(Exposure {
            external_ips: [ip("203.0.113.9"), ip("172.30.0.1")].into(),
            ..Exposure::default()
        })),
        ..service(1)
    };
    add(&mut node, &exposed, &[1]);
    in_sync(&mut node);
    settled(&node);
    let all: Vec<String> = seen(&node).into_keys().collect();
    assert_eq!(
        all,
        [
            "10.96.0.1:80/TCP",
            "172.30.0.1:30080/TCP",
            "172.30.0.1:80/TCP",
            "203.0.113.9:80/TCP"
        ]
    );
    assert_eq!(node.row("172.30.0.1"), "host service");
    assert_eq!(node.row("203.0.113.9"), "service");
    node.serving.as_mut().unwrap().services.remove(&exposed.name);
    node.wake();
    settled(&node);
    assert_eq!(node.row("172.30.0.1"), "host service");
    assert_eq!(node.rows(), ["172.30.0.1", "fd74:77::1"]);
}

#[test]
fn a_full_map_names_the_service_and_the_others_go_on() {
    privileged!();
    let mut node = Node::serving(Settings::default(), 16);
    for number in 1..=15 {
        add(&mut node, &service(number), &[1, 2, 3, 4]);
    }
    // 60 of 64 slots: of the youngest there is no room for all.
    let youngest = Service {
        created: 1,
        ..service(30)
    };
    add(&mut node, &youngest, &[1, 2, 3, 4, 5]);
    in_sync(&mut node);
    node.wait(|view| {
        view.services
            .as_ref()
            .is_some_and(|services| services.totals.failed == 1)
    });
    let view = services(&node);
    assert_eq!(
        seen(&node).len(),
        15,
        "the one that does not fit is not there by half"
    );
    assert!(view.full > 0);
    assert!(
        view.problems[0].starts_with("service default/s30: map backends is full"),
        "{:?}",
        view.problems
    );
    assert_eq!(slots(&node), 60, "what it had written is gone again");
    let news = node.serving.as_mut().unwrap().news.try_recv().unwrap();
    assert_eq!(
        (news.owner.name().as_str(), news.reason),
        ("default/s30", "ServiceNotInForce")
    );
    // There is room again.
    let serving = node.serving.as_mut().unwrap();
    serving.services.remove(&service(1).name);
    node.wake();
    settled(&node);
    node.compare();
    node.wait(|view| {
        view.services
            .as_ref()
            .is_some_and(|services| services.totals.failed == 0)
    });
    assert!(seen(&node).contains_key("10.96.0.30:80/TCP"));
}

#[test]
fn one_slice_of_thirty_thousand_services_changes_as_many_rows_as_it_says() {
    privileged!();
    let mut node = Node::serving(Settings::default(), 32_768);
    let before = resident();
    for number in 1..=30_000 {
        add(&mut node, &service(number), &[1, 2, 3, 4]);
    }
    in_sync(&mut node);
    settled(&node);
    let grown = resident() - before;
    assert!(
        grown < RESIDENT_MOST,
        "{} MiB for tables and what is made of them",
        grown >> 20
    );
    let [written, deleted] = services(&node).rows;
    assert_eq!(
        (written, deleted),
        (30_000 * 6, 0),
        "four slots, a frontend and an address each"
    );
    let serving = node.serving.as_mut().unwrap();
    serving.slices.upsert(Arc::new(slice(&service(7), &[1, 2, 3, 9])));
    node.wake();
    settled(&node);
    assert_eq!(
        services(&node).rows,
        [written + 1, deleted],
        "one backend took another's slot"
    );
    let serving = node.serving.as_mut().unwrap();
    serving.slices.upsert(Arc::new(slice(&service(7), &[1, 2, 9])));
    node.wake();
    settled(&node);
    assert_eq!(
        services(&node).rows,
        [written + 3, deleted + 1],
        "the last fills the hole, the frontend counts three"
    );
    let serving = node.serving.as_mut().unwrap();
    serving
        .slices
        .upsert(Arc::new(slice(&service(7), &[1, 2, 9, 10, 11])));
    node.wake();
    settled(&node);
    assert_eq!(
        services(&node).rows,
        [written + 6, deleted + 1],
        "two more, and the frontend"
    );
    node.restart(|| ());
    settled(&node);
    assert_eq!(services(&node).rows, [0, 0]);
}

#[test]
fn a_pods_host_port_leads_to_it_as_long_as_it_is_there() {
    privileged!();
    let mut node = Node::serving(Settings::default(), 256);
    let netns = node.netns();
    let ips = node.add("web", &netns);
    let port = |addr: Option<&str>, port, proto| HostPort {
        addr: addr.map(ip),
        port,
        to: 8080,
        proto,
    };
    node.serving.as_mut().unwrap().pods.upsert(model::Pod {
        pod: PodRef {
            namespace: "default".into(),
            name: "web".into(),
            uid: "u".into(),
        },
        labels: BTreeMap::new(),
        host_network: false,
        pool: None,
        host_ports: vec![port(None, 80, 6), port(Some("172.30.0.1"), 53, 17)],
    });
    in_sync(&mut node);
    settled(&node);
    let (v4, v6) = (format!("{}:8080", ips[0]), format!("[{}]:8080", ips[1]));
    let expected = [
        ("172.30.0.1:53/UDP", &v4),
        ("172.30.0.1:80/TCP", &v4),
        ("[fd74:77::1]:80/TCP", &v6),
    ];
    let expected = expected.map(|(frontend, backend)| (frontend.to_owned(), vec![backend.clone()]));
    assert_eq!(seen(&node), BTreeMap::from(expected));
    node.del("web").unwrap();
    settled(&node);
    assert!(seen(&node).is_empty());
}

/// How long thirty thousand services may take in a debug build on a busy machine.
const ALL_PATIENCE: Duration = Duration::from_secs(60);
/// What services may take of the agent's 100 MiB.
const RESIDENT_MOST: u64 = 70 << 20;

fn resident() -> u64 {
    thalweg_agent::observe::resident_bytes().unwrap()
}

/// Says that the API has told everything, and has the agent hear of it.
fn in_sync(node: &mut Node) {
    let serving = node.serving.as_mut().unwrap();
    serving.services.set_in_sync();
    serving.slices.set_in_sync();
    node.wake();
}

/// Waits until all that the tables say is in the maps: a look comes after what was there before it.
fn settled(node: &Node) {
    node.wait_for(ALL_PATIENCE, |view| {
        view.services.as_ref().is_some_and(|services| services.in_sync)
    });
    for _ in 0..100 {
        node.look(|_| ());
    }
}

fn services(node: &Node) -> ServicesView {
    node.view(|view| view.services.clone().unwrap())
}

fn slots(node: &Node) -> usize {
    node.look(|datapath| datapath.services().backends().len().unwrap())
}

/// What clients find: frontends and who is in their slots.
fn seen(node: &Node) -> BTreeMap<String, Vec<String>> {
    node.look(|datapath| {
        let maps = datapath.services();
        let rows = maps.frontends().rows().unwrap();
        let one = |(key, row): &(ServiceKey, datapath::common::service::Service)| {
            let slot = |slot| {
                let backend = maps
                    .backends()
                    .get(&BackendKey {
                        set: row.sets[0],
                        slot,
                    })
                    .unwrap()
                    .unwrap();
                std::net::SocketAddr::new(backend.addr.to_ip(), backend.port.get()).to_string()
            };
            let mut backends: Vec<String> = (0..row.counts[0]).map(slot).collect();
            backends.sort();
            (Frontend::of(key).unwrap().to_string(), backends)
        };
        rows.iter().map(one).collect()
    })
}

/// All rows as they are.
fn raw(node: &Node) -> Vec<String> {
    node.look(|datapath: &Datapath| {
        let maps = datapath.services();
        let mut all: Vec<String> = Vec::new();
        all.extend(
            maps.frontends()
                .rows()
                .unwrap()
                .iter()
                .map(|row| format!("{row:?}")),
        );
        all.extend(
            maps.backends()
                .rows()
                .unwrap()
                .iter()
                .map(|row| format!("{row:?}")),
        );
        all.extend(
            maps.members()
                .rows()
                .unwrap()
                .iter()
                .map(|row| format!("{row:?}")),
        );
        all.sort();
        all
    })
}

fn key(service: &Service) -> ServiceKey {
    Frontend {
        addr: service.cluster_ips[0],
        port: 80,
        transport: Transport::Tcp,
    }
    .key()
}

fn add(node: &mut Node, service: &Service, ends: &[u8]) {
    let serving = node.serving.as_mut().unwrap();
    serving.services.upsert(Arc::new(service.clone()));
    serving.slices.upsert(Arc::new(slice(service, ends)));
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn service(number: u32) -> Service {
    Service {
        name: ObjectName::new("default", &format!("s{number}")),
        uid: "".into(),
        created: 0,
        cluster_ips: [Ipv4Addr::from(0x0a60_0000 + number).into()].into(),
        ports: [ServicePort {
            name: "".into(),
            transport: Transport::Tcp,
            port: 80,
            node_port: 0,
        }]
        .into(),
        exposure: None,
        affinity_seconds: 0,
        internal_local: false,
        publish_not_ready: false,
        distribution: Distribution::Any,
        algorithm: None,
    }
}

static NAMES: OnceLock<[Arc<str>; 3]> = OnceLock::new();

fn slice(service: &Service, ends: &[u8]) -> EndpointSlice {
    // Names are shared, as the watch shares them.
    let names = NAMES.get_or_init(|| ["node-1".into(), "zone-a".into(), "".into()]);
    let endpoint = |end: &u8| SliceEndpoint {
        addr: [10, 8, 0, *end].into(),
        state: EndpointState::Ready,
        node: Some(names[0].clone()),
        zone: Some(names[1].clone()),
        hints: None,
    };
    EndpointSlice {
        name: ObjectName::new("default", &format!("{}-1", service.name.name())),
        service: service.name.clone(),
        family: Family::Ipv4,
        ports: [SlicePort {
            name: "".into(),
            transport: Transport::Tcp,
            port: 8080,
        }]
        .into(),
        endpoints: ends.iter().map(endpoint).collect(),
    }
}
