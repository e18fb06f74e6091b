// SPDX-License-Identifier: Apache-2.0
//! The apply thread against the real kernel: each test is a node in a network and mount namespace of its own thread.
//!
//! They need root and are skipped without, or fail when `REQUIRE_PRIVILEGED=1`.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::os::fd::AsFd;

use cni::protocol::{Call, Reply};
use cni::{Attachment, codes};
use netlink::{Netlink, netns};
use thalweg_agent::apply::HOST_LINK;

use support::{Node, add_of, attachment, exchange, privileged};

#[test]
fn pods_reach_one_another_and_the_host_in_both_families() {
    privileged!();
    let node = Node::up();
    let (a, b) = (node.netns(), node.netns());
    let (ips_a, ips_b) = (node.add("a", &a), node.add("b", &b));
    assert_eq!(ips_a, ["10.244.1.1", "fd74:7710::1"]);
    assert_eq!(ips_b, ["10.244.1.2", "fd74:7710::2"]);
    for family in 0..2 {
        exchange(Some(&a), Some(&b), &ips_b[family]);
        exchange(None, Some(&a), &ips_a[family]);
        exchange(Some(&b), None, ["172.30.0.1", "fd74:77::1"][family]);
    }
}

#[test]
fn a_deleted_pod_leaves_nothing_and_its_addresses_come_last() {
    privileged!();
    let node = Node::up();
    let before = node.links();
    let a = node.netns();
    let first = node.add("a", &a);
    node.del("a").unwrap();
    node.del("a").unwrap();
    assert_eq!(node.links(), before);
    assert_eq!(node.rows(), ["172.30.0.1", "fd74:77::1"]);
    assert_ne!(node.add("a", &node.netns()), first);
    node.wait(|view| view.pools.iter().all(|pool| pool.resting == 0));
}

#[test]
fn a_restarted_agent_finds_its_pods_and_gives_no_address_twice() {
    privileged!();
    let mut node = Node::up();
    let (a, b) = (node.netns(), node.netns());
    let (ips_a, ips_b) = (node.add("a", &a), node.add("b", &b));
    node.restart(|| ());
    assert_eq!(node.endpoints(), ["a/eth0", "b/eth0"]);
    exchange(Some(&a), Some(&b), &ips_b[0]);
    let c = node.netns();
    let ips_c = node.add("c", &c);
    assert!(
        ips_c.iter().all(|ip| !ips_a.contains(ip) && !ips_b.contains(ip)),
        "{ips_c:?}"
    );
    exchange(Some(&c), Some(&a), &ips_a[1]);
}

#[test]
fn what_happened_while_the_agent_was_down_is_made_good() {
    privileged!();
    let mut node = Node::up();
    let (a, b) = (node.netns(), node.netns());
    node.add("a", &a);
    node.add("b", &b);
    let queue = node.queue_dir();
    node.restart(|| {
        std::fs::create_dir_all(&queue).unwrap();
        let id = attachment("a");
        let file = queue.join(format!("{}.json", cni::host_ifname(&id)));
        std::fs::write(file, serde_json::to_vec(&id).unwrap()).unwrap();
        // A link whose maker died before it wrote the alias.
        support::veth("tw00000000000f", "orphan");
    });
    assert_eq!(node.endpoints(), ["b/eth0"]);
    assert!(!node.links().iter().any(|name| name.starts_with("tw00000000000f")));
    assert_eq!(std::fs::read_dir(&queue).unwrap().count(), 0);
}

#[test]
fn a_del_that_was_queued_while_the_agent_ran_is_done_at_the_next_comparison() {
    privileged!();
    let node = Node::up();
    let (a, b) = (node.netns(), node.netns());
    node.add("a", &a);
    node.add("b", &b);
    let queue = node.queue_dir();
    std::fs::create_dir_all(&queue).unwrap();
    let id = attachment("a");
    let file = queue.join(format!("{}.json", cni::host_ifname(&id)));
    std::fs::write(&file, serde_json::to_vec(&id).unwrap()).unwrap();
    node.compare();
    node.wait(|_| !file.exists());
    assert_eq!(node.endpoints(), ["b/eth0"]);
}

#[test]
fn an_add_is_not_undone_by_an_older_queued_del() {
    privileged!();
    let mut node = Node::up();
    let (a, id, queue) = (node.netns(), attachment("a"), node.queue_dir());
    std::fs::create_dir_all(&queue).unwrap();
    let file = queue.join(format!("{}.json", cni::host_ifname(&id)));
    std::fs::write(file, serde_json::to_vec(&id).unwrap()).unwrap();
    node.add("a", &a);
    node.restart(|| ());
    assert_eq!(node.endpoints(), ["a/eth0"]);
}

#[test]
fn a_pod_of_another_release_keeps_its_traffic_and_its_addresses() {
    privileged!();
    let mut node = Node::up();
    let (a, b) = (node.netns(), node.netns());
    let (ips_a, ips_b) = (node.add("a", &a), node.add("b", &b));
    node.restart(|| {
        let mut netlink = Netlink::open().unwrap();
        let link = netlink
            .link(&cni::host_ifname(&attachment("a")))
            .unwrap()
            .unwrap();
        netlink.set_alias(link.index, "tw9 of a later release").unwrap();
    });
    assert_eq!(node.endpoints(), ["b/eth0"]);
    exchange(Some(&a), Some(&b), &ips_b[0]);
    exchange(Some(&b), Some(&a), &ips_a[1]);
    let ips_c = node.add("c", &node.netns());
    assert!(ips_c.iter().all(|ip| !ips_a.contains(ip)), "{ips_c:?}");
}

#[test]
fn a_pod_whose_add_was_cut_short_is_made_anew() {
    privileged!();
    let node = Node::up();
    let (a, b) = (node.netns(), node.netns());
    node.add("a", &a);
    let mut inside = Netlink::open_in(a.as_fd()).unwrap();
    let link = inside.link("eth0").unwrap().unwrap();
    inside.set_down(link.index).unwrap();
    let ips = node.add("a", &a);
    node.add("b", &b);
    exchange(Some(&b), Some(&a), &ips[0]);
}

#[test]
fn the_same_add_twice_is_one_pod_and_another_namespace_replaces_it() {
    privileged!();
    let node = Node::up();
    let (first, second) = (node.netns(), node.netns());
    let ips = node.add("a", &first);
    assert_eq!(node.add("a", &first), ips);
    assert_ne!(node.add("a", &second), ips);
    assert_eq!(node.endpoints(), ["a/eth0"]);
    assert!(
        Netlink::open_in(first.as_fd())
            .unwrap()
            .link("eth0")
            .unwrap()
            .is_none()
    );
}

#[test]
fn a_second_interface_leaves_the_first_ones_routes_alone() {
    privileged!();
    let node = Node::up();
    let (pod, other) = (node.netns(), node.netns());
    node.add("a", &pod);
    let ips = node.add("b", &other);
    let second = Attachment {
        container_id: "a".into(),
        ifname: "net1".into(),
    };
    assert!(matches!(node.call(add_of(second), Some(&pod)), Reply::Added(_)));
    assert_eq!(node.endpoints(), ["a/eth0", "a/net1", "b/eth0"]);
    exchange(Some(&pod), Some(&other), &ips[0]);
    exchange(Some(&pod), Some(&other), &ips[1]);
}

#[test]
fn a_refused_add_leaves_nothing() {
    privileged!();
    let node = Node::up();
    let taken = node.netns();
    netns::run_in(taken.as_fd(), || support::veth("eth0", "peer0")).unwrap();
    let file = std::fs::File::open("/dev/null").unwrap().into();
    let own = netns::current().unwrap();
    let before = node.links();
    for (netns, code) in [
        (Some(&taken), codes::CONFLICT),
        (Some(&file), codes::INVALID_ENVIRONMENT),
        (Some(&own), codes::INVALID_ENVIRONMENT),
        (None, codes::PROTOCOL),
    ] {
        assert_eq!(node.fail(add_of(attachment("a")), netns).code, code);
    }
    assert_eq!(node.links(), before);
    assert!(node.view(|view| view.pools.iter().all(|pool| pool.used + pool.resting == 0)));
}

#[test]
fn a_full_pool_says_so_and_takes_nothing_of_the_other_family() {
    privileged!();
    let node = Node::with_pools(&["10.244.1.0/30", "fd74:7710::/64"]);
    let namespaces = [node.netns(), node.netns(), node.netns()];
    node.add("a", &namespaces[0]);
    node.add("b", &namespaces[1]);
    let error = node.fail(add_of(attachment("c")), Some(&namespaces[2]));
    assert_eq!(error.code, codes::POOL_EXHAUSTED);
    assert!(
        error.msg.contains("10.244.1.0/30") && error.msg.contains("2 of 2"),
        "{error}"
    );
    assert!(node.view(|view| view.pools.iter().all(|pool| pool.used == 2)));
}

#[test]
fn check_names_what_is_missing() {
    privileged!();
    let node = Node::up();
    let pod = node.netns();
    let ips = node.add("a", &pod);
    let check = |addresses: &[&str]| Call::Check {
        attachment: attachment("a"),
        netns: "/test".into(),
        addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
    };
    assert_eq!(node.call(check(&[&ips[0], &ips[1]]), Some(&pod)), Reply::Done);
    assert_eq!(
        node.fail(check(&["10.9.9.9"]), Some(&pod)).code,
        codes::CHECK_FAILED
    );
    let mut inside = Netlink::open_in(pod.as_fd()).unwrap();
    let index = inside.link("eth0").unwrap().unwrap().index;
    inside
        .delete_address(index, format!("{}/32", ips[0]).parse().unwrap())
        .unwrap();
    let error = node.fail(check(&[]), Some(&pod));
    assert!(
        error.msg.contains(&format!("address {} is missing", ips[0])),
        "{error}"
    );
    node.del("a").unwrap();
    assert_eq!(node.fail(check(&[]), Some(&pod)).code, codes::UNKNOWN_CONTAINER);
}

#[test]
fn gc_keeps_the_valid_and_touches_no_other_network() {
    privileged!();
    let node = Node::up();
    let namespaces = [node.netns(), node.netns()];
    node.add("a", &namespaces[0]);
    node.add("b", &namespaces[1]);
    let gc = |network: &str| Call::Gc {
        network: network.into(),
        valid: vec![attachment("b")],
    };
    assert_eq!(node.fail(gc("other"), None).code, codes::INVALID_NETWORK_CONFIG);
    assert_eq!(node.endpoints().len(), 2);
    assert_eq!(node.call(gc("thalweg"), None), Reply::Done);
    assert_eq!(node.endpoints(), ["b/eth0"]);
}

#[test]
fn ipv6_works_where_the_runtime_switched_it_off() {
    privileged!();
    let node = Node::up();
    let (pod, other) = (node.netns(), node.netns());
    netns::run_in(pod.as_fd(), || {
        for scope in ["all", "default"] {
            netlink::sysctl::write(&format!("net/ipv6/conf/{scope}/disable_ipv6"), "1").unwrap();
        }
    })
    .unwrap();
    node.add("a", &pod);
    let ips = node.add("b", &other);
    exchange(Some(&pod), Some(&other), &ips[1]);
}

#[test]
fn routes_follow_the_nodes_and_a_used_network_keeps_its_own() {
    privileged!();
    let mut node = Node::up();
    let pod = node.netns();
    node.add("a", &pod);
    assert_eq!(node.routes(HOST_LINK), ["10.244.1.0/24", "fd74:7710::/64"]);
    node.set_nodes(&["10.244.9.0/24"], &[("other", "172.30.0.2", "10.244.2.0/24")]);
    node.wait(|view| view.pools.len() == 1);
    assert_eq!(
        node.routes(HOST_LINK),
        ["10.244.1.0/24", "10.244.9.0/24", "fd74:7710::/64"]
    );
    assert_eq!(node.routes("eth0"), ["10.244.2.0/24"]);
    node.del("a").unwrap();
    node.set_nodes(&["10.244.9.0/24"], &[]);
    node.wait(|view| view.routes.len() == 1);
    assert_eq!(
        (node.routes(HOST_LINK), node.routes("eth0")),
        (vec!["10.244.9.0/24".into()], vec![])
    );
}

#[test]
fn a_device_that_no_longer_leads_to_other_nodes_loses_its_program() {
    privileged!();
    let mut node = Node::up();
    let uplink = Uplink::up();
    node.compare();
    node.wait(|view| view.devices == ["eth0", "eth1"]);
    assert!(node.has_program("eth1"));
    uplink.leave();
    node.compare();
    node.wait(|view| view.devices == ["eth0"]);
    assert!(node.has_program("eth0") && !node.has_program("eth1"));

    // The same while no agent looked.
    uplink.lead();
    node.compare();
    node.wait(|view| view.devices.len() == 2);
    node.restart(|| uplink.leave());
    assert!(node.has_program("eth0") && !node.has_program("eth1"));
    let (a, b) = (node.netns(), node.netns());
    node.add("a", &a);
    exchange(Some(&a), Some(&b), &node.add("b", &b)[0]);
}

/// Neither the kernel's nor ours.
const RTPROT_STATIC: u8 = 4;

/// A second device with the node's default route, or without.
struct Uplink(netlink::Route);

impl Uplink {
    fn up() -> Self {
        support::veth("eth1", "wire1");
        let index = Netlink::open().unwrap().link("eth1").unwrap().unwrap().index;
        let uplink = Self(netlink::Route {
            oif: Some(index),
            scope_link: true,
            protocol: RTPROT_STATIC,
            ..netlink::Route::to("0.0.0.0/0".parse().unwrap())
        });
        uplink.lead();
        uplink
    }

    fn lead(&self) {
        Netlink::open().unwrap().replace_route(&self.0).unwrap();
    }

    fn leave(&self) {
        Netlink::open().unwrap().delete_route(&self.0).unwrap();
    }
}
