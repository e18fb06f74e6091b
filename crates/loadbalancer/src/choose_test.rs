// SPDX-License-Identifier: Apache-2.0
//! Who is chosen, rule by rule.

use model::{EndpointState, Hints, ObjectName, SlicePort, Transport};

use super::*;

const HERE: &str = "here";

#[test]
fn who_is_ready_is_chosen_and_who_ends_only_when_nobody_else_is() {
    use EndpointState::{NotReady, Ready, Terminating};
    let both = [one(1, Ready), one(2, Terminating), one(3, NotReady)];
    assert_eq!(cluster(&both), [1]);
    assert_eq!(cluster(&both[1..]), [2], "it ends, and nobody else serves");
    assert_eq!(cluster(&both[2..]), []);
}

#[test]
fn this_nodes_own_are_chosen_by_the_same_rule_among_themselves() {
    use EndpointState::{Ready, Terminating};
    let elsewhere = on(one(1, Ready), "there");
    assert_eq!(
        local(&[elsewhere.clone(), on(one(2, Terminating), HERE)]),
        [2],
        "another node's does not help"
    );
    assert_eq!(
        local(&[on(one(2, Terminating), HERE), on(one(3, Ready), HERE)]),
        [3]
    );
    assert_eq!(
        local(&[elsewhere, one(4, Ready)]),
        [],
        "of one without a node it is not known"
    );
}

#[test]
fn hints_count_if_all_have_one_and_somebody_is_meant_for_this_zone() {
    let ready = |id| one(id, EndpointState::Ready);
    let all = [hinted(ready(1), &["a"], &[]), hinted(ready(2), &["b"], &[])];
    assert_eq!(cluster(&all), [1]);
    let one_without = [all[0].clone(), all[1].clone(), ready(3)];
    assert_eq!(cluster(&one_without), [1, 2, 3], "one has no hint");
    let for_others = [hinted(ready(1), &["b"], &[]), hinted(ready(2), &["c"], &[])];
    assert_eq!(cluster(&for_others), [1, 2], "nobody is meant for here");
    let not_ready = hinted(one(4, EndpointState::NotReady), &[], &[]);
    assert_eq!(
        cluster(&[all[0].clone(), all[1].clone(), not_ready]),
        [1],
        "who is not ready has no say"
    );
    let ending = [hinted(one(1, EndpointState::Terminating), &["b"], &[])];
    assert_eq!(cluster(&ending), [1], "where one is that ends does not matter");
}

#[test]
fn hints_for_nodes_come_before_those_for_zones() {
    let ready = |id| one(id, EndpointState::Ready);
    let all = [
        hinted(ready(1), &["a"], &["there"]),
        hinted(ready(2), &["a"], &[HERE]),
    ];
    assert_eq!(cluster(&all), [2]);
    let others = [
        hinted(ready(1), &["a"], &["there"]),
        hinted(ready(2), &["b"], &["far"]),
    ];
    assert_eq!(cluster(&others), [1], "none on this node: those of its zone");
}

#[test]
fn without_hints_a_preference_goes_by_where_backends_are() {
    let ready = |id, zone: &str, node| zoned(on(one(id, EndpointState::Ready), node), zone);
    let all = [ready(1, "a", "there"), ready(2, "b", "far"), ready(3, "a", HERE)];
    assert_eq!(prefer(&all, Distribution::Any), [1, 2, 3]);
    assert_eq!(prefer(&all, Distribution::SameZone), [1, 3]);
    assert_eq!(prefer(&all, Distribution::SameNode), [3]);
    assert_eq!(
        prefer(&all[..2], Distribution::SameNode),
        [1],
        "none here: the zone"
    );
    assert_eq!(
        prefer(&all[1..2], Distribution::SameNode),
        [2],
        "none in the zone either: all"
    );
}

#[test]
fn of_one_that_is_named_twice_the_better_counts_and_it_is_said() {
    let slices = [
        slice(
            "s/1",
            vec![
                on(one(1, EndpointState::NotReady), HERE),
                one(2, EndpointState::Ready),
            ],
        ),
        slice(
            "s/2",
            vec![
                on(one(1, EndpointState::Ready), HERE),
                one(2, EndpointState::Ready),
            ],
        ),
    ];
    let (all, contradictory) = of(&service(), &slices);
    assert_eq!(ids(all.iter().map(|one| one.target)), [1, 2]);
    assert_eq!(all[0].state, EndpointState::Ready);
    assert_eq!(ids(contradictory.into_iter()), [1]);
}

#[test]
fn with_publish_not_ready_addresses_all_are_ready() {
    let service = Service {
        publish_not_ready: true,
        ..service()
    };
    let slices = [slice(
        "s/1",
        vec![
            one(1, EndpointState::NotReady),
            one(2, EndpointState::Terminating),
        ],
    )];
    let (all, _) = of(&service, &slices);
    assert_eq!(
        ids(in_cluster(&all, Distribution::Any, &here()).into_iter()),
        [1, 2]
    );
}

#[test]
fn a_slice_of_another_port_or_family_is_no_backend() {
    let mut other = Arc::unwrap_or_clone(slice("s/1", vec![one(1, EndpointState::Ready)]));
    other.ports[0].name = "metrics".into();
    assert!(of(&service(), &[Arc::new(other.clone())]).0.is_empty());
    other.ports[0].name = "http".into();
    other.ports[0].transport = Transport::Udp;
    assert!(of(&service(), &[Arc::new(other.clone())]).0.is_empty());
    other.ports[0].transport = Transport::Tcp;
    other.family = Family::Ipv6;
    assert!(of(&service(), &[Arc::new(other)]).0.is_empty());
}

fn cluster(endpoints: &[SliceEndpoint]) -> Vec<u8> {
    prefer(endpoints, Distribution::Any)
}

fn prefer(endpoints: &[SliceEndpoint], distribution: Distribution) -> Vec<u8> {
    let slices = [slice("s/1", endpoints.to_vec())];
    ids(in_cluster(&of(&service(), &slices).0, distribution, &here()).into_iter())
}

fn local(endpoints: &[SliceEndpoint]) -> Vec<u8> {
    let slices = [slice("s/1", endpoints.to_vec())];
    ids(on_this_node(&of(&service(), &slices).0, &here()).into_iter())
}

fn of<'a>(service: &Service, slices: &'a [Arc<EndpointSlice>]) -> (Vec<Candidate<'a>>, Vec<Target>) {
    candidates(service, &service.ports[0], Family::Ipv4, slices, &here())
}

fn ids(targets: impl Iterator<Item = Target>) -> Vec<u8> {
    let id = |target: Target| match target.addr {
        std::net::IpAddr::V4(ip) => ip.octets()[3],
        std::net::IpAddr::V6(_) => 0,
    };
    targets.map(id).collect()
}

fn here() -> Local {
    Local {
        name: HERE.into(),
        zone: Some("a".into()),
        ..Local::default()
    }
}

fn service() -> Service {
    Service {
        name: ObjectName::new("s", "web"),
        uid: "".into(),
        created: 0,
        cluster_ips: Box::default(),
        ports: [ServicePort {
            name: "http".into(),
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

fn slice(name: &str, endpoints: Vec<SliceEndpoint>) -> Arc<EndpointSlice> {
    let (namespace, name) = name.split_once('/').unwrap();
    Arc::new(EndpointSlice {
        name: ObjectName::new(namespace, name),
        service: ObjectName::new("s", "web"),
        family: Family::Ipv4,
        ports: [SlicePort {
            name: "http".into(),
            transport: Transport::Tcp,
            port: 8080,
        }]
        .into(),
        endpoints: endpoints.into(),
    })
}

fn one(id: u8, state: EndpointState) -> SliceEndpoint {
    SliceEndpoint {
        addr: [10, 0, 0, id].into(),
        state,
        node: None,
        zone: None,
        hints: None,
    }
}

fn on(endpoint: SliceEndpoint, node: &str) -> SliceEndpoint {
    SliceEndpoint {
        node: Some(node.into()),
        ..endpoint
    }
}

fn zoned(endpoint: SliceEndpoint, zone: &str) -> SliceEndpoint {
    SliceEndpoint {
        zone: Some(zone.into()),
        ..endpoint
    }
}

fn hinted(endpoint: SliceEndpoint, zones: &[&str], nodes: &[&str]) -> SliceEndpoint {
    let all = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
    let hints = Hints {
        zones: all(zones),
        nodes: all(nodes),
    };
    SliceEndpoint {
        hints: Some(Box::new(hints)),
        ..endpoint
    }
}
