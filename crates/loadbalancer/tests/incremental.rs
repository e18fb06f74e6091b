// SPDX-License-Identifier: Apache-2.0
//! However services came to be what they are, the maps hold what a fresh look at them would write.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod world;

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Algorithm, Distribution, EndpointSlice, EndpointState, Exposure, ObjectName, Service};
use proptest::prelude::*;
use thalweg_loadbalancer::{Balancer, Settings};

use world::{Maps, exposed, ip, local, service, settle, settle_badly, slice};

/// Something that happens.
#[derive(Clone, Debug)]
enum Event {
    Service(Box<Service>),
    RemoveService(u8),
    Slice(EndpointSlice),
    RemoveSlice(u8),
    OwnAddresses(bool),
    Zone(bool),
    PodNetwork(bool),
    Restart,
    /// The next rows cannot be written at first.
    Trouble,
}

/// What the API says at a moment.
#[derive(Clone, Debug, Default)]
struct Objects {
    services: BTreeMap<ObjectName, Arc<Service>>,
    slices: BTreeMap<ObjectName, Arc<EndpointSlice>>,
    local: thalweg_loadbalancer::Local,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_change_leads_to_what_a_fresh_start_would_write(
        events in proptest::collection::vec((event(), any::<bool>()), 1..40), maglev in any::<bool>(),
    ) {
        let settings = Settings {
            algorithm: if maglev { Algorithm::Maglev } else { Algorithm::Random },
            ..Settings::default()
        };
        let mut objects = Objects { local: local(), ..Objects::default() };
        let (mut balancer, mut maps) = (fresh(&settings, &objects), Maps::default());
        for (event, now) in events {
            happen(&event, &mut objects, &mut balancer);
            if matches!(event, Event::Restart) {
                settle(&mut balancer, &mut maps);
                balancer = fresh(&settings, &objects);
                balancer.compare(maps.former());
                prop_assert_eq!(settle(&mut balancer, &mut maps), 0, "a restart changes nothing");
            }
            if matches!(event, Event::Trouble) {
                settle_badly(&mut balancer, &mut maps);
                balancer.compare(maps.former());
                settle(&mut balancer, &mut maps);
                maps.assert_tidy();
            }
            if now {
                settle(&mut balancer, &mut maps);
                maps.assert_tidy();
            }
        }
        settle(&mut balancer, &mut maps);
        maps.assert_tidy();
        let (mut anew, mut fresh_maps) = (fresh(&settings, &objects), Maps::default());
        settle(&mut anew, &mut fresh_maps);
        prop_assert_eq!(maps.seen(), fresh_maps.seen());
        prop_assert_eq!(&maps.addresses, &fresh_maps.addresses);
        prop_assert_eq!(balancer.totals(), anew.totals());
        // And whoever begins with the maps of now has nothing to do.
        let mut after = fresh(&settings, &objects);
        after.compare(maps.former());
        prop_assert_eq!(settle(&mut after, &mut maps), 0);
        // Nor has one who looks again.
        balancer.compare(maps.former());
        prop_assert_eq!(settle(&mut balancer, &mut maps), 0);
    }
}

fn fresh(settings: &Settings, objects: &Objects) -> Balancer {
    let mut balancer = Balancer::new(settings.clone());
    balancer.set_local(objects.local.clone());
    for service in objects.services.values() {
        balancer.set_service(service.clone());
    }
    for slice in objects.slices.values() {
        balancer.change_slice(None, Some(slice.clone()));
    }
    balancer
}

fn happen(event: &Event, objects: &mut Objects, balancer: &mut Balancer) {
    match event {
        Event::Service(service) => {
            let service = Arc::new((**service).clone());
            objects.services.insert(service.name.clone(), service.clone());
            balancer.set_service(service);
        }
        Event::RemoveService(number) => {
            let name = name(*number);
            objects.services.remove(&name);
            balancer.remove_service(&name);
        }
        Event::Slice(slice) => {
            let slice = Arc::new(slice.clone());
            let before = objects.slices.insert(slice.name.clone(), slice.clone());
            balancer.change_slice(before.as_deref(), Some(slice));
        }
        Event::RemoveSlice(number) => {
            let before = objects
                .slices
                .remove(&ObjectName::new("default", &format!("slice-{number}")));
            balancer.change_slice(before.as_deref(), None);
        }
        Event::OwnAddresses(more) => {
            let addr = ip("203.0.113.1");
            let all = &mut objects.local.addresses;
            if *more {
                all.insert(addr)
            } else {
                all.remove(&addr)
            };
            balancer.set_local(objects.local.clone());
        }
        Event::Zone(other) => {
            objects.local.zone = Some(if *other { "b" } else { "a" }.into());
            balancer.set_local(objects.local.clone());
        }
        Event::PodNetwork(more) => {
            let mut nets = vec!["10.244.0.0/24", "10.244.1.0/24"];
            nets.extend(more.then_some("10.96.0.0/30"));
            objects.local.pod_networks = nets.iter().map(|net| net.parse().unwrap()).collect();
            balancer.set_local(objects.local.clone());
        }
        Event::Restart | Event::Trouble => {}
    }
}

fn name(number: u8) -> ObjectName {
    ObjectName::new("default", &format!("s{number}"))
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => a_service().prop_map(|service| Event::Service(Box::new(service))),
        1 => (0_u8..4).prop_map(Event::RemoveService),
        8 => (0_u8..6, a_slice()).prop_map(|(number, slice)| Event::Slice(EndpointSlice {
            name: ObjectName::new("default", &format!("slice-{number}")),
            ..slice
        })),
        2 => (0_u8..6).prop_map(Event::RemoveSlice),
        1 => any::<bool>().prop_map(Event::OwnAddresses),
        1 => any::<bool>().prop_map(Event::Zone),
        1 => any::<bool>().prop_map(Event::PodNetwork),
        1 => Just(Event::Restart),
        1 => Just(Event::Trouble),
    ]
}

/// Four names, few addresses and node ports: they clash.
fn a_service() -> impl Strategy<Value = Service> {
    let ports = prop_oneof![
        Just("TCP 80"),
        Just("TCP 80:30001"),
        Just("UDP 53:30001"),
        Just("UDP 53"),
        Just("SCTP 8080"),
        Just("TCP 443:30002"),
        Just("TCP 1:2"),
    ];
    let outside = (0_u8..3, 0_u8..3, any::<bool>(), any::<bool>());
    let rest = (any::<bool>(), any::<bool>(), 0_u8..3, 0_i64..3, 0_u8..3);
    (0_u8..4, 1_u8..5, ports, outside, rest).prop_map(|(number, addr, port, outside, rest)| {
        let (balancers, externals, ranges, local_outside) = outside;
        let (affinity, internal_local, distribution, created, algorithm) = rest;
        let base = service(&format!("s{number}"), &format!("10.96.0.{addr}"), port);
        let some = |count: u8, net: &str| (1..=count).map(|end| ip(&format!("{net}.{end}"))).collect();
        let exposure = Exposure {
            load_balancer_ips: some(balancers, "203.0.113"),
            external_ips: some(externals, "203.0.113"),
            source_ranges: if ranges {
                ["198.51.100.0/24".parse().unwrap()].into()
            } else {
                Box::default()
            },
            local: local_outside,
            health_check_port: 0,
        };
        let is_exposed = base.exposure.is_some() || balancers + externals > 0;
        let base = if is_exposed { exposed(base, exposure) } else { base };
        Service {
            created,
            internal_local,
            affinity_seconds: if affinity { 60 } else { 0 },
            distribution: [Distribution::Any, Distribution::SameZone, Distribution::SameNode]
                [usize::from(distribution)],
            algorithm: [None, Some(Algorithm::Random), Some(Algorithm::Maglev)][usize::from(algorithm)],
            ..base
        }
    })
}

fn a_slice() -> impl Strategy<Value = EndpointSlice> {
    let ends = proptest::collection::vec((1_u8..12, 0_u8..4, any::<bool>()), 0..6);
    let transports = prop_oneof![Just("TCP 1"), Just("UDP 1"), Just("SCTP 1")];
    (0_u8..4, ends, transports, prop_oneof![Just(8080_u16), Just(9090)]).prop_map(
        |(number, ends, transport, port)| {
            let owner = service(&format!("s{number}"), "10.96.0.1", transport);
            let numbers: Vec<u8> = ends.iter().map(|(end, ..)| *end).collect();
            let mut slice = slice(&owner, "x", &numbers, port);
            for (endpoint, (_, state, in_a)) in slice.endpoints.iter_mut().zip(&ends) {
                endpoint.zone = Some(if *in_a { "a" } else { "b" }.into());
                endpoint.state = match state {
                    0 => EndpointState::NotReady,
                    1 => EndpointState::Terminating,
                    _ => EndpointState::Ready,
                };
            }
            slice
        },
    )
}
