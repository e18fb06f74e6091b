// SPDX-License-Identifier: Apache-2.0
//! The crate against the running kernel, in namespaces made for each test. Needs root: without it the tests say that
//! they are skipped, and fail when `REQUIRE_PRIVILEGED=1`.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};

use thalweg_netlink::{
    AddressFlags, Netlink, Peer, ROUTE_PROTOCOL, Request, Route, Veth, VethPair, netns, sysctl,
};

const MAC: model::Mac = model::Mac([2, 0x74, 0x77, 0, 0, 1]);
const PEER_MAC: model::Mac = model::Mac([0x0a, 0x58, 10, 0, 0, 9]);

#[test]
fn a_veth_and_its_peer_are_made_in_two_namespaces_with_all_their_properties() {
    let Some((mut nl, _here, there)) = two_namespaces() else {
        return;
    };
    let pair = create_pair(&mut nl, &there);

    let host = nl.link("tw0").unwrap().unwrap();
    assert_eq!((host.index, host.peer_index), (pair.index, Some(pair.peer_index)));
    assert_eq!(
        (host.mac, host.mtu, host.alias.as_deref()),
        (Some(MAC), 1400, Some("cid/eth0"))
    );
    assert_eq!(
        (host.up, host.carrier, host.kind.as_deref()),
        (true, true, Some("veth"))
    );

    let mut inside = Netlink::open_in(there.as_fd()).unwrap();
    let pod = inside.link_by_index(pair.peer_index).unwrap().unwrap();
    assert_eq!(
        (pod.name.as_str(), pod.mac, pod.mtu, pod.up),
        ("eth0", Some(PEER_MAC), 1450, true)
    );
    assert_eq!(nl.links().unwrap().len(), 2, "lo and tw0");
}

#[test]
fn the_host_end_of_a_veth_gets_no_link_local_address() {
    let Some((mut nl, _here, there)) = two_namespaces() else {
        return;
    };
    let pair = create_pair(&mut nl, &there);
    let mut inside = Netlink::open_in(there.as_fd()).unwrap();
    assert!(
        inside
            .addresses()
            .unwrap()
            .iter()
            .any(|address| address.link_local),
        "the pod's end has one"
    );
    assert!(
        nl.addresses()
            .unwrap()
            .iter()
            .all(|address| address.ifindex != pair.index)
    );
}

#[test]
fn a_taken_name_is_an_error_that_says_so_and_harms_nothing() {
    let Some((mut nl, _here, there)) = two_namespaces() else {
        return;
    };
    create_pair(&mut nl, &there);
    let spec = Veth {
        alias: Some("other"),
        ..veth(&there)
    };
    let error = nl.create_veth(&spec).unwrap_err();
    assert!(error.is_exists(), "{error}");
    assert!(
        error.to_string().starts_with("create veth tw0: File exists"),
        "{error}"
    );
    assert_eq!(
        nl.link("tw0").unwrap().unwrap().alias.as_deref(),
        Some("cid/eth0")
    );
}

#[test]
fn a_refusal_carries_the_kernels_explanation() {
    let Some((mut nl, _here, there)) = two_namespaces() else {
        return;
    };
    let mut route = Route::to("10.9.0.0/16".parse().unwrap());
    route.gateway = Some("10.1.1.1".parse().unwrap());
    create_pair(&mut nl, &there);
    let error = nl.replace_route(&route).unwrap_err().to_string();
    assert!(
        error.contains("set route 10.9.0.0/16 via 10.1.1.1") && error.contains('('),
        "{error}"
    );
}

#[test]
fn deleting_the_absent_is_false() {
    let Some((mut nl, _here, there)) = two_namespaces() else {
        return;
    };
    let pair = create_pair(&mut nl, &there);
    assert!(nl.delete_link("tw0").unwrap());
    assert!(!nl.delete_link("tw0").unwrap());
    assert_eq!(nl.link("tw0").unwrap(), None);
    assert_eq!(nl.link_by_index(pair.index).unwrap(), None);
    assert!(
        !nl.delete_route(&Route::to("10.9.0.0/16".parse().unwrap()))
            .unwrap()
    );
    assert!(!nl.delete_address(1, "10.9.0.1/16".parse().unwrap()).unwrap());
}

#[test]
fn addresses_are_added_once_listed_and_deleted() {
    let Some((mut nl, _here, there)) = two_namespaces() else {
        return;
    };
    let index = create_pair(&mut nl, &there).index;
    for net in ["10.1.2.3/24", "fd00::3/64"] {
        let net = net.parse().unwrap();
        nl.add_address(index, net, AddressFlags { nodad: true }).unwrap();
        nl.add_address(index, net, AddressFlags { nodad: true }).unwrap();
        let found: Vec<_> = nl
            .addresses()
            .unwrap()
            .into_iter()
            .filter(|a| a.ifindex == index && a.net == net)
            .collect();
        assert_eq!(found.len(), 1, "{net}");
        assert!(found[0].global && !found[0].tentative);
        assert!(nl.delete_address(index, net).unwrap());
    }
}

#[test]
fn routes_read_back_as_they_were_written_and_are_filtered_by_protocol() {
    let Some((mut nl, _here, there)) = two_namespaces() else {
        return;
    };
    let index = create_pair(&mut nl, &there).index;
    nl.add_address(index, "10.1.2.3/24".parse().unwrap(), AddressFlags::default())
        .unwrap();
    let mut by_gateway = Route::to("10.244.1.0/24".parse().unwrap());
    (by_gateway.gateway, by_gateway.oif) = (Some(Ipv4Addr::new(10, 1, 2, 9).into()), Some(index));
    (by_gateway.src, by_gateway.mtu) = (Some(Ipv4Addr::new(10, 1, 2, 3).into()), Some(1300));
    let mut on_link = Route::to("10.244.2.0/24".parse().unwrap());
    (on_link.scope_link, on_link.oif) = (true, Some(index));
    let mut v6 = Route::to("fd00:1::/64".parse().unwrap());
    (v6.gateway, v6.oif, v6.onlink) = (Some("fe80::1".parse().unwrap()), Some(index), true);
    v6.metric = Some(1024);
    let mut default = Route::to("0.0.0.0/0".parse().unwrap());
    (default.gateway, default.oif, default.onlink) =
        (Some("169.254.1.1".parse().unwrap()), Some(index), true);

    for route in [&by_gateway, &on_link, &v6, &default] {
        nl.replace_route(route).unwrap();
        nl.replace_route(route).unwrap();
    }
    let mut ours = nl.routes(Some(ROUTE_PROTOCOL)).unwrap();
    // The kernel reports no "onlink" for IPv6 routes on every version.
    ours.iter_mut()
        .for_each(|route| route.onlink |= route.dst.addr().is_ipv6());
    for route in [by_gateway, on_link, v6, default] {
        assert!(ours.contains(&route), "{route:?} not in {ours:#?}");
        assert!(nl.delete_route(&route).unwrap(), "{route}");
    }
    assert_eq!(ours.len(), 4);
    assert!(nl.routes(Some(ROUTE_PROTOCOL)).unwrap().is_empty());
    assert!(
        !nl.routes(None).unwrap().is_empty(),
        "the connected route is not ours"
    );
}

#[test]
fn a_permanent_neighbour_is_listed() {
    let Some((mut nl, _here, there)) = two_namespaces() else {
        return;
    };
    let index = create_pair(&mut nl, &there).index;
    for ip in ["169.254.1.1", "fe80::1"] {
        let ip: IpAddr = ip.parse().unwrap();
        nl.replace_neighbour(index, ip, PEER_MAC, true).unwrap();
        let neighbours = nl.neighbours().unwrap();
        assert!(
            neighbours
                .iter()
                .any(|n| n.ip == ip && n.permanent && n.mac == Some(PEER_MAC)),
            "{neighbours:?}"
        );
    }
}

#[test]
fn a_batch_tries_everything_and_reports_the_first_refusal() {
    let Some((mut nl, _here, there)) = two_namespaces() else {
        return;
    };
    let index = create_pair(&mut nl, &there).index;
    let requests = [
        Request::set_mtu(index, 1),
        Request::set_alias(index, "later"),
        Request::set_mtu(9999, 1500),
        Request::set_noarp(index),
    ];
    let error = nl.apply(&requests).unwrap_err().to_string();
    assert!(
        error.contains(&format!("set MTU of link {index} to 1")),
        "{error}"
    );
    let link = nl.link_by_index(index).unwrap().unwrap();
    assert_eq!((link.alias.as_deref(), link.noarp), (Some("later"), true));
    // The socket is in step afterwards.
    nl.apply(&[Request::set_mtu(index, 1280), Request::set_down(index)])
        .unwrap();
    let link = nl.link_by_index(index).unwrap().unwrap();
    assert_eq!((link.mtu, link.up), (1280, false));
}

#[test]
fn hundreds_of_links_and_routes_are_listed_whole() {
    let Some((mut nl, _here, there)) = two_namespaces() else {
        return;
    };
    let index = create_pair(&mut nl, &there).index;
    let routes: Vec<_> = (0..600u32)
        .map(|i| {
            let mut route = Route::to(format!("10.{}.{}.0/24", 100 + i / 256, i % 256).parse().unwrap());
            (route.scope_link, route.oif) = (true, Some(index));
            route
        })
        .collect();
    nl.apply(&routes.iter().map(Request::replace_route).collect::<Vec<_>>())
        .unwrap();
    assert_eq!(nl.routes(Some(ROUTE_PROTOCOL)).unwrap(), routes);
    for i in 0..60 {
        let (name, peer) = (format!("h{i}"), format!("p{i}"));
        let spec = Veth {
            name: &name,
            alias: None,
            peer: Peer {
                name: &peer,
                ..veth(&there).peer
            },
            ..veth(&there)
        };
        nl.create_veth(&spec).unwrap();
    }
    assert_eq!(nl.links().unwrap().len(), 62);
}

#[test]
fn a_bridge_takes_ports_and_a_link_moves_and_is_renamed() {
    let Some((mut nl, _here, there)) = two_namespaces() else {
        return;
    };
    let bridge = nl.create_bridge("br0").unwrap();
    let spec = Veth {
        alias: None,
        peer: Peer {
            netns: None,
            name: "tmp",
            ..veth(&there).peer
        },
        ..veth(&there)
    };
    let pair = nl.create_veth(&spec).unwrap();
    nl.set_master(pair.index, bridge).unwrap();
    assert_eq!(nl.link("tw0").unwrap().unwrap().master, Some(bridge));
    nl.rename(pair.peer_index, "renamed").unwrap();
    nl.move_to_netns(pair.peer_index, there.as_fd(), "eth7").unwrap();
    assert!(
        Netlink::open_in(there.as_fd())
            .unwrap()
            .link("eth7")
            .unwrap()
            .is_some()
    );
}

#[test]
fn sysctls_are_those_of_the_namespace_entered() {
    let Some((_nl, here, there)) = two_namespaces() else {
        return;
    };
    netns::run_in(there.as_fd(), || {
        sysctl::ensure("net/ipv4/ip_forward", "1").unwrap()
    })
    .unwrap();
    let read =
        |ns: &OwnedFd| netns::run_in(ns.as_fd(), || sysctl::read("net/ipv4/ip_forward").unwrap()).unwrap();
    assert_eq!((read(&here), read(&there)), ("0".to_owned(), "1".to_owned()));
    let error = sysctl::write("net/ipv4/no_such_key", "1")
        .unwrap_err()
        .to_string();
    assert!(error.contains("set sysctl net/ipv4/no_such_key to 1"), "{error}");
}

fn veth(there: &OwnedFd) -> Veth<'_> {
    let peer = Peer {
        name: "eth0",
        mac: Some(PEER_MAC),
        mtu: Some(1450),
        netns: Some(there.as_fd()),
    };
    Veth {
        name: "tw0",
        mac: Some(MAC),
        mtu: Some(1400),
        alias: Some("cid/eth0"),
        up: true,
        link_local: false,
        peer,
    }
}

fn create_pair(nl: &mut Netlink, there: &OwnedFd) -> VethPair {
    let pair = nl.create_veth(&veth(there)).expect("veth");
    Netlink::open_in(there.as_fd())
        .and_then(|mut inside| inside.set_up(pair.peer_index))
        .expect("peer up");
    pair
}

/// A socket in a fresh namespace, that namespace, and another one.
fn two_namespaces() -> Option<(Netlink, OwnedFd, OwnedFd)> {
    if !nix::unistd::geteuid().is_root() {
        assert!(
            std::env::var_os("REQUIRE_PRIVILEGED").is_none(),
            "root is required for this test"
        );
        #[expect(clippy::print_stdout, reason = "a skip must be seen")]
        {
            println!("SKIPPED: needs root");
        }
        return None;
    }
    let (here, there) = (
        netns::create().expect("namespace"),
        netns::create().expect("namespace"),
    );
    Some((Netlink::open_in(here.as_fd()).expect("socket"), here, there))
}
