// SPDX-License-Identifier: Apache-2.0
//! Services in, rows out.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod world;

use std::collections::BTreeMap;
use std::sync::Arc;

use datapath_common::service::Service as Row;
use model::{Algorithm, EndpointState, Exposure, HostPort, ObjectName, Service};
use thalweg_loadbalancer::{Balancer, Kind, Local, Owner, PodPorts, Settings, Weight};

use world::{Maps, add, balancer, exposed, ip, local, service, settle, slice};

#[test]
fn story_a_cluster_ip_is_for_the_inside_and_a_node_port_for_all() {
    let (mut balancer, mut maps) = fresh();
    add(
        &mut balancer,
        &service("web", "10.96.0.1", "TCP 80:30080"),
        &[2, 3],
        8080,
    );
    settle(&mut balancer, &mut maps);
    let flags = flags(&maps);
    assert_eq!(flags["10.96.0.1:80/TCP"], 0);
    assert_eq!(flags["172.30.0.1:30080/TCP"], Row::EXTERNAL);
    assert_eq!(
        flags.len(),
        2,
        "the service has no address of the other family, so its port on the node has none"
    );
    assert_eq!(
        backends(&maps, "172.30.0.1:30080/TCP"),
        [["10.244.0.2:8080", "10.244.1.3:8080"]; 2]
    );
    assert_eq!(
        maps.addresses,
        [ip("10.96.0.1")].into(),
        "the node's own address has a row already"
    );
}

#[test]
fn story_with_external_traffic_policy_local_the_outside_gets_this_nodes_backends_and_the_inside_all() {
    let (mut balancer, mut maps) = fresh();
    let exposure = Exposure {
        load_balancer_ips: [ip("203.0.113.1")].into(),
        local: true,
        health_check_port: 32_000,
        ..Exposure::default()
    };
    let web = exposed(service("web", "10.96.0.1", "TCP 80:30080"), exposure);
    add(&mut balancer, &web, &[2, 3, 4], 8080);
    settle(&mut balancer, &mut maps);
    let (all, own) = (
        ["10.244.0.2:8080", "10.244.0.4:8080", "10.244.1.3:8080"],
        ["10.244.0.2:8080", "10.244.0.4:8080"],
    );
    for frontend in ["203.0.113.1:80/TCP", "172.30.0.1:30080/TCP"] {
        assert_eq!(backends(&maps, frontend), [all.to_vec(), own.to_vec()]);
        assert_eq!(flags(&maps)[frontend], Row::EXTERNAL | Row::KEEP_SOURCE);
    }
    assert_eq!(backends(&maps, "10.96.0.1:80/TCP"), [all, all]);
    assert_eq!(
        balancer.health_checks().clone(),
        BTreeMap::from([(32_000, (web.name.clone(), 2))])
    );
    balancer.remove_service(&web.name);
    settle(&mut balancer, &mut maps);
    assert!(balancer.health_checks().is_empty());
}

#[test]
fn story_with_internal_traffic_policy_local_the_inside_gets_this_nodes_backends() {
    let (mut balancer, mut maps) = fresh();
    let web = Service {
        internal_local: true,
        ..service("web", "10.96.0.1", "TCP 80:30080")
    };
    add(&mut balancer, &web, &[2, 3], 8080);
    settle(&mut balancer, &mut maps);
    assert_eq!(backends(&maps, "10.96.0.1:80/TCP"), [["10.244.0.2:8080"]; 2]);
    let all = ["10.244.0.2:8080", "10.244.1.3:8080"];
    assert_eq!(
        backends(&maps, "172.30.0.1:30080/TCP"),
        [all, all],
        "its port on the nodes goes by the other policy"
    );
}

#[test]
fn story_source_ranges_are_for_the_load_balancers_address_alone() {
    let (mut balancer, mut maps) = fresh();
    let exposure = Exposure {
        load_balancer_ips: [ip("203.0.113.1")].into(),
        external_ips: [ip("203.0.113.2")].into(),
        source_ranges: ["198.51.100.0/24", "2001:db8::/32"]
            .map(|net| net.parse().unwrap())
            .into(),
        ..Exposure::default()
    };
    let web = exposed(service("web", "10.96.0.1", "TCP 80"), exposure);
    add(&mut balancer, &web, &[2], 8080);
    settle(&mut balancer, &mut maps);
    let flags = flags(&maps);
    assert_eq!(flags["203.0.113.1:80/TCP"], Row::EXTERNAL | Row::RANGES);
    assert_eq!(flags["203.0.113.2:80/TCP"], Row::EXTERNAL);
    let lengths: Vec<u32> = maps.sources.iter().map(|(length, ..)| *length).collect();
    assert_eq!(lengths, [32 + 32, 32 + 96 + 24]);
    balancer.set_service(Arc::new(service("web", "10.96.0.1", "TCP 80")));
    settle(&mut balancer, &mut maps);
    assert!(maps.sources.is_empty());
    maps.assert_tidy();
}

#[test]
fn story_udp_and_affinity_have_members_and_maglev_a_table() {
    let (mut balancer, mut maps) = fresh();
    add(
        &mut balancer,
        &service("dns", "10.96.0.1", "UDP 53"),
        &[2, 3],
        5353,
    );
    let sticky = Service {
        affinity_seconds: 60,
        ..service("sticky", "10.96.0.2", "TCP 80")
    };
    add(&mut balancer, &sticky, &[2], 8080);
    let hashed = Service {
        algorithm: Some(Algorithm::Maglev),
        ..service("hashed", "10.96.0.3", "TCP 80")
    };
    add(&mut balancer, &hashed, &[2, 3], 8080);
    settle(&mut balancer, &mut maps);
    let flags = flags(&maps);
    assert_eq!(flags["10.96.0.1:53/UDP"], Row::MEMBERS);
    assert_eq!(
        (flags["10.96.0.2:80/TCP"], flags["10.96.0.3:80/TCP"]),
        (Row::MEMBERS, Row::HASHED)
    );
    let row = |text: &str| maps.frontends[&frontend(&maps, text)];
    assert_eq!(row("10.96.0.2:80/TCP").affinity, 60_000);
    assert_eq!(row("10.96.0.3:80/TCP").counts, [251, 251]);
    assert_eq!(maps.members.len(), 3);
    maps.assert_tidy();
}

#[test]
fn story_of_two_that_want_a_frontend_the_older_has_it_and_the_other_gets_it_after() {
    let (mut balancer, mut maps) = fresh();
    let at = |name: &str, addr: &str, created| Service {
        created,
        ..exposed(
            service(name, addr, "TCP 80"),
            Exposure {
                load_balancer_ips: [ip("203.0.113.1")].into(),
                ..Exposure::default()
            },
        )
    };
    let (younger, older) = (at("a", "10.96.0.1", 9), at("b", "10.96.0.2", 1));
    add(&mut balancer, &younger, &[2], 8080);
    settle(&mut balancer, &mut maps);
    assert_eq!(backends(&maps, "203.0.113.1:80/TCP"), [["10.244.0.2:8080"]; 2]);
    add(&mut balancer, &older, &[3], 8080);
    settle(&mut balancer, &mut maps);
    assert_eq!(backends(&maps, "203.0.113.1:80/TCP"), [["10.244.1.3:8080"]; 2]);
    assert_eq!(
        refused(&balancer, &younger),
        ["LoadBalancer 203.0.113.1:80/TCP is service default/b's already"]
    );
    assert_eq!(refused(&balancer, &older), [] as [&str; 0]);
    assert_eq!(
        backends(&maps, "10.96.0.1:80/TCP"),
        [["10.244.0.2:8080"]; 2],
        "the rest of it goes on"
    );
    balancer.remove_service(&older.name);
    settle(&mut balancer, &mut maps);
    assert_eq!(backends(&maps, "203.0.113.1:80/TCP"), [["10.244.0.2:8080"]; 2]);
    assert_eq!(refused(&balancer, &younger), [] as [&str; 0]);
}

#[test]
fn story_of_an_address_that_is_a_services_own_and_that_an_older_one_wants_from_outside() {
    let (mut balancer, mut maps) = fresh();
    let own = Service {
        created: 9,
        ..service("own", "10.96.0.1", "TCP 80")
    };
    let wants = Service {
        created: 1,
        ..exposed(
            service("wants", "10.96.0.2", "TCP 80"),
            Exposure {
                external_ips: [ip("10.96.0.1")].into(),
                ..Exposure::default()
            },
        )
    };
    for order in [[&wants, &own], [&own, &wants]] {
        for service in order {
            add(
                &mut balancer,
                service,
                if service.name == own.name { &[2] } else { &[3] },
                8080,
            );
            settle(&mut balancer, &mut maps);
        }
        let inside = &backends(&maps, "10.96.0.1:80/TCP")[0];
        assert_eq!(
            *inside,
            ["10.244.0.2:8080"],
            "what the API server gives out is nobody else's"
        );
        assert_eq!(
            refused(&balancer, &wants),
            ["ExternalIP 10.96.0.1:80/TCP is service default/own's already"]
        );
        balancer.remove_service(&own.name);
        balancer.remove_service(&wants.name);
        settle(&mut balancer, &mut maps);
    }
}

#[test]
fn story_sctp_is_served_where_the_port_stays_and_refused_where_it_changes() {
    let (mut balancer, mut maps) = fresh();
    let sctp = service("diameter", "10.96.0.1", "SCTP 3868:30868");
    add(&mut balancer, &sctp, &[2], 3868);
    settle(&mut balancer, &mut maps);
    assert_eq!(
        flags(&maps).into_keys().collect::<Vec<_>>(),
        ["10.96.0.1:3868/SCTP"]
    );
    let said = refused(&balancer, &sctp);
    assert!(
        said[0].starts_with("NodePort 172.30.0.1:30868/SCTP: its backends listen at port 3868"),
        "{said:?}"
    );
    assert!(said[0].contains("give both the same port"));
}

#[test]
fn story_addresses_that_are_pods_or_nodes_or_nobodys_are_refused_by_name() {
    let (mut balancer, mut maps) = fresh();
    let exposure = Exposure {
        load_balancer_ips: [
            ip("10.244.1.7"),
            ip("203.0.113.1"),
            ip("172.30.0.2"),
            ip("0.0.0.0"),
        ]
        .into(),
        external_ips: [ip("172.30.0.1"), ip("fd00::1"), ip("127.0.0.1")].into(),
        ..Exposure::default()
    };
    let web = exposed(service("web", "10.96.0.1", "TCP 80"), exposure);
    add(&mut balancer, &web, &[2], 8080);
    settle(&mut balancer, &mut maps);
    let served: Vec<String> = flags(&maps).into_keys().collect();
    assert_eq!(
        served,
        [
            "10.96.0.1:80/TCP",
            "172.30.0.1:80/TCP",
            "172.30.0.2:80/TCP",
            "203.0.113.1:80/TCP"
        ]
    );
    let said = refused(&balancer, &web).join("\n");
    for part in [
        "LoadBalancer 10.244.1.7:80/TCP: the address is in 10.244.1.0/24, a network of pods",
        "LoadBalancer 0.0.0.0:80/TCP: it is no address",
        "ExternalIP 127.0.0.1:80/TCP: it means another machine on each",
        "ExternalIP fd00::1 is of a family that the service has not",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    assert_eq!(
        maps.addresses,
        [ip("10.96.0.1"), ip("203.0.113.1")].into(),
        "what comes to another node's address is served there"
    );
    let on_node = service("bad", "172.30.0.2", "TCP 443");
    add(&mut balancer, &on_node, &[2], 8080);
    settle(&mut balancer, &mut maps);
    assert!(refused(&balancer, &on_node)[0].contains("the address is a node's"));
}

#[test]
fn story_a_node_port_is_at_the_chosen_addresses_and_within_the_range() {
    let settings = Settings {
        node_port_networks: vec!["172.31.0.0/16".parse().unwrap()],
        ..Settings::default()
    };
    let (mut balancer, mut maps) = (balancer(settings), Maps::default());
    let web = service("web", "10.96.0.1", "TCP 80:30080");
    add(&mut balancer, &web, &[2], 8080);
    settle(&mut balancer, &mut maps);
    assert_eq!(flags(&maps).len(), 1, "the node has no address there");
    let mut more: Local = local();
    more.addresses.insert(ip("172.31.0.9"));
    balancer.set_local(more);
    settle(&mut balancer, &mut maps);
    assert!(flags(&maps).contains_key("172.31.0.9:30080/TCP"));
    balancer.set_local(local());
    settle(&mut balancer, &mut maps);
    assert_eq!(flags(&maps).len(), 1);
    let high = service("high", "10.96.0.2", "TCP 80:40000");
    add(&mut balancer, &high, &[2], 8080);
    settle(&mut balancer, &mut maps);
    assert!(refused(&balancer, &high)[0].starts_with("node port 40000 is outside of 30000-32767"));
}

#[test]
fn story_backends_that_cannot_be_are_left_out_and_those_of_nobody_are_marked() {
    let (mut balancer, mut maps) = fresh();
    let web = service("web", "10.96.0.1", "TCP 80");
    let mut backends_of = slice(&web, "web-1", &[2], 8080);
    let stranger = |addr: &str| model::SliceEndpoint {
        addr: ip(addr),
        ..backends_of.endpoints[0].clone()
    };
    let strangers = [stranger("127.0.0.1"), stranger("192.0.2.7")];
    backends_of.endpoints = backends_of.endpoints.iter().cloned().chain(strangers).collect();
    balancer.set_service(Arc::new(web.clone()));
    balancer.change_slice(None, Some(Arc::new(backends_of)));
    settle(&mut balancer, &mut maps);
    assert_eq!(
        backends(&maps, "10.96.0.1:80/TCP"),
        [["10.244.0.2:8080", "192.0.2.7:8080"]; 2]
    );
    assert!(refused(&balancer, &web)[0].starts_with("backend 127.0.0.1:8080 is left out"));
    let view = &balancer.get(&web.name)[0];
    let foreign: Vec<(String, bool)> = view
        .backends
        .iter()
        .map(|one| (one.target.addr.to_string(), one.is_foreign))
        .collect();
    assert!(foreign.contains(&("192.0.2.7".into(), true)) && foreign.contains(&("10.244.0.2".into(), false)));
}

#[test]
fn story_a_host_port_leads_to_its_pod_unless_a_service_has_it() {
    let (mut balancer, mut maps) = fresh();
    let pod = ObjectName::new("default", "ingress");
    let ports = |number| PodPorts {
        ips: vec![ip("10.244.0.9")],
        ports: vec![HostPort {
            addr: None,
            port: number,
            to: 8080,
            proto: 6,
        }],
    };
    balancer.set_pods([(pod.clone(), ports(80))].into());
    settle(&mut balancer, &mut maps);
    assert_eq!(backends(&maps, "172.30.0.1:80/TCP"), [["10.244.0.9:8080"]; 2]);
    assert_eq!(
        flags(&maps)["172.30.0.1:80/TCP"],
        Row::EXTERNAL | Row::KEEP_SOURCE
    );
    let view = &balancer.get(&pod)[0];
    assert_eq!(
        (&view.owner, view.frontends[0].kind),
        (&Owner::Pod(pod.clone()), Kind::HostPort)
    );
    add(
        &mut balancer,
        &service("web", "10.96.0.1", "TCP 80:30080"),
        &[2],
        8080,
    );
    balancer.set_pods([(pod.clone(), ports(30080))].into());
    settle(&mut balancer, &mut maps);
    assert_eq!(backends(&maps, "172.30.0.1:30080/TCP"), [["10.244.0.2:8080"]; 2]);
    let (remarks, _) = balancer.remarks(&Owner::Pod(pod));
    assert_eq!(
        &*remarks[0].text,
        "HostPort 172.30.0.1:30080/TCP is service default/web's already"
    );
    balancer.set_pods(BTreeMap::new());
    settle(&mut balancer, &mut maps);
    assert_eq!(flags(&maps).len(), 2);
    maps.assert_tidy();
}

#[test]
fn story_what_could_not_be_written_is_withdrawn_and_tried_again() {
    let (mut balancer, mut maps) = fresh();
    let web = service("web", "10.96.0.1", "TCP 80");
    add(&mut balancer, &web, &[2, 3], 8080);
    let batch = balancer.step(10);
    // One slot went in, then the map was full.
    let mut half = batch.clone();
    half.backends.truncate(1);
    (half.frontends, half.addresses) = (Vec::new(), Vec::new());
    maps.apply(&half);
    let owner = Owner::Service(web.name.clone());
    let undo = balancer.failed(&owner, "the map is full");
    assert!(undo.gone_addresses.is_empty());
    maps.backends.retain(|(set, slot), _| {
        !undo
            .gone_backends
            .iter()
            .any(|key| (key.set, key.slot) == (*set, *slot))
    });
    assert_eq!(maps, Maps::default());
    assert_eq!(
        (balancer.totals().failed, balancer.failing()),
        (1, vec![owner.clone()])
    );
    maps.apply(&balancer.again(&owner));
    balancer.confirm(std::slice::from_ref(&owner));
    assert_eq!(balancer.totals().failed, 0);
    assert_eq!(
        backends(&maps, "10.96.0.1:80/TCP"),
        [["10.244.0.2:8080", "10.244.1.3:8080"]; 2]
    );
    assert_eq!(maps.addresses, [ip("10.96.0.1")].into());
    // In force, it keeps what it has when a change cannot be written.
    balancer.change_slice(None, Some(Arc::new(slice(&web, "web-2", &[4], 8080))));
    let _ = balancer.step(10);
    assert!(balancer.failed(&owner, "the map is full").is_empty());
}

#[test]
fn story_a_backend_that_ends_keeps_serving_only_while_nobody_else_does() {
    let (mut balancer, mut maps) = fresh();
    let web = service("web", "10.96.0.1", "TCP 80");
    let mut all = slice(&web, "web-1", &[2, 3], 8080);
    all.endpoints[0].state = EndpointState::Terminating;
    balancer.set_service(Arc::new(web));
    balancer.change_slice(None, Some(Arc::new(all.clone())));
    settle(&mut balancer, &mut maps);
    assert_eq!(backends(&maps, "10.96.0.1:80/TCP"), [["10.244.1.3:8080"]; 2]);
    let mut none_ready = all.clone();
    none_ready.endpoints[1].state = EndpointState::NotReady;
    balancer.change_slice(Some(&all), Some(Arc::new(none_ready)));
    settle(&mut balancer, &mut maps);
    assert_eq!(backends(&maps, "10.96.0.1:80/TCP"), [["10.244.0.2:8080"]; 2]);
}

fn fresh() -> (Balancer, Maps) {
    (balancer(Settings::default()), Maps::default())
}

fn flags(maps: &Maps) -> BTreeMap<String, u16> {
    maps.frontends
        .iter()
        .map(|(frontend, row)| (frontend.to_string(), row.flags))
        .collect()
}

fn frontend(maps: &Maps, text: &str) -> thalweg_loadbalancer::Frontend {
    *maps
        .frontends
        .keys()
        .find(|frontend| frontend.to_string() == text)
        .unwrap()
}

/// Who answers, inside and outside.
fn backends(maps: &Maps, text: &str) -> [Vec<String>; 2] {
    let (_, _, lists, _) = &maps.seen()[&frontend(maps, text)];
    lists
        .clone()
        .map(|list| list.iter().map(ToString::to_string).collect())
}

fn refused(balancer: &Balancer, service: &Service) -> Vec<String> {
    let (remarks, _) = balancer.remarks(&Owner::Service(service.name.clone()));
    let refused = remarks.iter().filter(|remark| remark.weight == Weight::Refused);
    refused.map(|remark| remark.text.to_string()).collect()
}
