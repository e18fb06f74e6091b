// SPDX-License-Identifier: Apache-2.0
//! Other plugins around ours: queues and hardware addresses that they give a pod after us, and pods that another network has
//! attached before us.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;

use cni::protocol::{Call, Reply};
use cni::{Wishes, codes};
use datapath::AttachMode;
use model::Mac;
use netlink::{AddressFlags, Netlink, Peer, Request, Route, Veth};
use serde_json::{Value, json};

use support::{Node, add_of, attachment, exchange, privileged};

const OTHER: &str = "other";
/// What the other network's host ends are called.
const HOST_END: &str = "eni0";
const IP: &str = "10.9.0.2";

#[test]
fn a_pod_has_the_hardware_address_that_it_is_to_have_also_after_a_restart() {
    privileged!();
    let mut node = Node::up();
    let (a, b) = (node.netns(), node.netns());
    let ips = added(node.call(wishing("a", mac("02:00:00:00:00:09")), Some(&a)));
    let other = node.add("b", &b);
    assert_eq!(eth0(&a).mac.unwrap(), Mac([2, 0, 0, 0, 0, 9]));
    node.restart(|| ());
    assert!(
        node.row(&ips[0]).contains("mac=02:00:00:00:00:09"),
        "{}",
        node.row(&ips[0])
    );
    exchange(Some(&a), Some(&b), &other[0]);
    exchange(Some(&b), Some(&a), &ips[1]);
    for wrong in ["01:00:00:00:00:09", "nine", "00:00:00:00:00:00"] {
        let error = node.fail(wishing("c", mac(wrong)), Some(&node.netns()));
        assert_eq!(error.code, codes::INVALID_NETWORK_CONFIG, "{error}");
    }
}

#[test]
fn queues_are_known_from_add_on_and_found_by_every_comparison() {
    privileged!();
    let mut node = Node::up();
    let (a, b, c) = (node.netns(), node.netns(), node.netns());
    let limits = |ingress, egress| Wishes {
        ingress_limited: ingress,
        egress_limited: egress,
        ..Wishes::default()
    };
    let received = added(node.call(wishing("a", limits(true, false)), Some(&a)));
    let sent = added(node.call(wishing("b", limits(false, true)), Some(&b)));
    let free = node.add("c", &c);
    let flags = |node: &Node, ip: &str| {
        let row = node.row(ip);
        (row.contains(" queued"), row.contains(" stack"))
    };
    for family in 0..2 {
        assert_eq!(flags(&node, &received[family]), (true, false));
        assert_eq!(flags(&node, &sent[family]), (false, true));
        assert_eq!(flags(&node, &free[family]), (false, false));
    }
    for (from, at, to) in [
        (&a, &b, &sent),
        (&b, &c, &free),
        (&c, &a, &received),
        (&a, &c, &free),
    ] {
        exchange(Some(from), Some(at), &to[0]);
        exchange(Some(from), Some(at), &to[1]);
    }

    // Somebody gives the third a queue by hand. The first two have none that the kernel knows.
    let link = cni::host_ifname(&attachment("c"));
    tc(&[
        "qdisc", "add", "dev", &link, "root", "tbf", "rate", "100mbit", "burst", "256k", "latency", "25ms",
    ]);
    tc(&["qdisc", "add", "dev", &link, "ingress"]);
    node.restart(|| ());
    assert_eq!(flags(&node, &free[0]), (true, true));
    assert_eq!(flags(&node, &received[0]), (false, false), "nothing limits it");
    tc(&["qdisc", "del", "dev", &link, "root"]);
    tc(&["qdisc", "del", "dev", &link, "ingress"]);
    node.restart(|| ());
    assert_eq!(flags(&node, &free[1]), (false, false));

    // And with a comparison of the agent that runs.
    tc(&["qdisc", "add", "dev", &link, "ingress"]);
    node.compare_and_wait();
    assert_eq!(flags(&node, &free[1]), (false, true));

    // What ADD was told counts until the queue is there, and not when that is taken away.
    let d = node.netns();
    let told = added(node.call(wishing("d", limits(false, true)), Some(&d)));
    let link = cni::host_ifname(&attachment("d"));
    for (change, is_limited) in [(None, true), (Some("add"), true), (Some("del"), false)] {
        if let Some(change) = change {
            tc(&["qdisc", change, "dev", &link, "ingress"]);
        }
        node.compare_and_wait();
        assert_eq!(flags(&node, &told[0]), (false, is_limited), "{change:?}");
    }
}

#[test]
fn a_pod_that_another_network_attached_is_taken_in_and_let_go() {
    privileged!();
    let mut node = behind();
    let pod = node.netns();
    foreign(&pod, HOST_END, IP);
    assert!(matches!(
        node.call(adding("a", aws_shape()), Some(&pod)),
        Reply::Done
    ));
    assert!(
        matches!(node.call(adding("a", aws_shape()), Some(&pod)), Reply::Done),
        "again"
    );
    let is_taken_in = |node: &Node| {
        assert_eq!(node.endpoints(), ["a/eth0"]);
        assert!(node.has_program(HOST_END), "{:?}", node.programs());
        assert!(node.has_program("eni0%out"), "{:?}", node.programs());
        assert!(node.row(IP).contains(&format!("mac={}", eth0(&pod).mac.unwrap())));
        exchange(None, Some(&pod), IP);
        exchange(Some(&pod), None, "172.30.0.1");
        let check = Call::Check {
            attachment: attachment("a"),
            netns: "/test".into(),
            addresses: vec![IP.parse().unwrap()],
        };
        assert!(matches!(node.call(check, Some(&pod)), Reply::Done));
    };
    is_taken_in(&node);
    node.restart(|| ());
    is_taken_in(&node);

    node.del("a").unwrap();
    let link = Netlink::open().unwrap().link(HOST_END).unwrap().unwrap();
    assert_eq!(link.alias, None);
    assert!(!node.has_program(HOST_END) && !node.has_program("eni0%out"));
    assert_eq!(node.rows(), ["172.30.0.1", "fd74:77::1"]);
    exchange(None, Some(&pod), IP);
}

#[test]
fn an_agent_that_is_alone_again_leaves_other_networks_pods_alone() {
    privileged!();
    let mut node = behind();
    let pod = node.netns();
    foreign(&pod, HOST_END, IP);
    node.call(adding("a", aws_shape()), Some(&pod));
    node.behind = None;
    node.restart(|| ());
    assert_eq!((node.endpoints(), node.rows().len()), (Vec::new(), 2));
    assert!(!node.has_program(HOST_END) && !node.has_program("eni0%out"));
    exchange(None, Some(&pod), IP);
    node.add("b", &node.netns());
}

#[test]
fn a_pod_from_before_we_were_behind_another_network_is_reached_as_before() {
    privileged!();
    let mut node = Node::up();
    let pod = node.netns();
    let ips = node.add("a", &pod);
    node.behind = Some(OTHER.into());
    node.restart(|| ());
    for ip in &ips {
        exchange(None, Some(&pod), ip);
    }
    exchange(Some(&pod), None, "172.30.0.1");
    node.del("a").unwrap();
}

#[test]
fn a_hardware_address_that_nobody_will_set_is_not_believed() {
    privileged!();
    let node = behind();
    let pod = node.netns();
    foreign(&pod, HOST_END, IP);
    let call = add("a", mac("02:00:00:00:00:09"), Some(aws_shape()));
    assert!(matches!(node.call(call, Some(&pod)), Reply::Done));
    exchange(Some(&pod), None, "172.30.0.1");
}

#[test]
fn a_result_that_says_little_is_completed_from_the_kernel() {
    privileged!();
    let node = behind();
    let pod = node.netns();
    foreign(&pod, "azv1234", IP);
    // As azure-vnet prints it: neither a host end nor which interface an address is of.
    let azure = json!({"cniVersion": "0.3.0", "interfaces": [{"name": "eth0"}],
        "ips": [{"version": "4", "address": "10.9.0.2/16", "gateway": "10.9.0.1"}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}], "dns": {}});
    assert!(matches!(node.call(adding("a", azure), Some(&pod)), Reply::Done));
    assert!(node.has_program("azv1234"));
    assert!(node.row(IP).contains("pod"));
    exchange(None, Some(&pod), IP);
}

#[test]
fn an_address_comes_again_when_its_pod_is_gone_and_not_before() {
    privileged!();
    let node = behind();
    let (first, second) = (node.netns(), node.netns());
    foreign(&first, HOST_END, IP);
    node.call(adding("a", aws_shape()), Some(&first));
    foreign(&second, "eni1", IP);
    let error = node.fail(adding("b", aws_shape()), Some(&second));
    assert!(
        error.code == codes::CONFLICT && error.msg.contains("is that of a/eth0 too"),
        "{error}"
    );
    // The other network has removed it; nobody told us.
    Netlink::open().unwrap().delete_link(HOST_END).unwrap();
    assert!(matches!(
        node.call(adding("b", aws_shape()), Some(&second)),
        Reply::Done
    ));
    assert_eq!(node.endpoints(), ["b/eth0"]);
    exchange(None, Some(&second), IP);
}

#[test]
fn the_nodes_own_address_is_no_pods() {
    privileged!();
    let node = behind();
    let pod = node.netns();
    foreign(&pod, HOST_END, IP);
    let mut netlink = Netlink::open().unwrap();
    let index = netlink.link(HOST_END).unwrap().unwrap().index;
    let net = format!("{IP}/16").parse().unwrap();
    netlink
        .add_address(index, net, AddressFlags { nodad: true })
        .unwrap();
    let error = node.fail(adding("a", aws_shape()), Some(&pod));
    assert!(
        error.code == codes::CONFLICT && error.msg.contains("address 10.9.0.2 is the node's own"),
        "{error}"
    );
    assert!(error.details.contains("take the node's addresses out"), "{error}");
    assert_eq!(node.endpoints(), [""; 0]);
    assert!(!node.has_program(HOST_END));
}

#[test]
fn a_limited_pod_is_refused_where_its_queue_and_our_program_want_one_place() {
    privileged!();
    let mut node = Node::up();
    (node.behind, node.attach) = (Some(OTHER.into()), AttachMode::Clsact);
    node.restart(|| ());
    let pod = node.netns();
    foreign(&pod, HOST_END, IP);
    // `bandwidth` has run before us.
    tc(&["qdisc", "add", "dev", HOST_END, "ingress"]);
    let error = node.fail(adding("a", aws_shape()), Some(&pod));
    assert!(error.msg.contains("cannot be limited on this kernel"), "{error}");
    assert!(
        error.details.contains("kubernetes.io/egress-bandwidth"),
        "{error}"
    );
    assert_eq!((node.endpoints(), node.rows().len()), (Vec::new(), 2));
    tc(&["qdisc", "del", "dev", HOST_END, "ingress"]);
    assert!(matches!(
        node.call(adding("a", aws_shape()), Some(&pod)),
        Reply::Done
    ));
    exchange(None, Some(&pod), IP);
    node.del("a").unwrap();
}

#[test]
fn what_is_not_as_the_settings_say_is_refused_with_the_remedy() {
    privileged!();
    let mut node = Node::up();
    let refused = |node: &Node, call, netns: &OwnedFd, reason: &str| {
        let error = node.fail(call, Some(netns));
        assert_eq!(error.code, codes::INVALID_NETWORK_CONFIG, "{error}");
        assert!(error.msg.contains(reason), "{error}");
        assert_eq!(node.endpoints(), [""; 0]);
    };
    let pod = node.netns();
    refused(&node, adding("a", aws_shape()), &pod, "got a prevResult");
    node.behind = Some(OTHER.into());
    node.restart(|| ());
    refused(&node, add_of(attachment("a")), &pod, "there is no prevResult");
    refused(
        &node,
        adding("a", aws_shape()),
        &pod,
        "there is no interface eth0",
    );
    // One end of a pair is no use when the other is somewhere else, and a bridge has none.
    Netlink::open_in(pod.as_fd())
        .unwrap()
        .create_bridge("eth0")
        .unwrap();
    refused(
        &node,
        adding("a", aws_shape()),
        &pod,
        "eth0 (bridge) has no end on the node",
    );
}

/// A node behind another network.
fn behind() -> Node {
    let mut node = Node::up();
    node.behind = Some(OTHER.into());
    node.restart(|| ());
    node
}

/// What another network does: a pair, an address, a route, and in the pod a gateway that only the neighbour table knows.
fn foreign(pod: &OwnedFd, host_end: &str, ip: &str) {
    let mut netlink = Netlink::open().unwrap();
    let gateway_mac = Mac([2, 0, 0, 0, 0, 1]);
    let peer = Peer {
        name: "eth0",
        mac: None,
        mtu: None,
        netns: Some(pod.as_fd()),
    };
    let veth = Veth {
        name: host_end,
        mac: Some(gateway_mac),
        mtu: None,
        alias: None,
        up: true,
        link_local: true,
        peer,
    };
    let pair = netlink.create_veth(&veth).unwrap();
    let net: ipnet::IpNet = format!("{ip}/32").parse().unwrap();
    let mut inside = Netlink::open_in(pod.as_fd()).unwrap();
    let gateway: IpAddr = "169.254.1.1".parse().unwrap();
    let to = |dst: &str, via| Route {
        gateway: via,
        oif: Some(pair.peer_index),
        scope_link: via.is_none(),
        ..Route::to(dst.parse().unwrap())
    };
    inside
        .apply(&[
            Request::set_up(pair.peer_index),
            Request::add_address(pair.peer_index, net, AddressFlags { nodad: true }),
            Request::replace_neighbour(pair.peer_index, gateway, gateway_mac, true),
            Request::replace_route(&to("169.254.1.1/32", None)),
            Request::replace_route(&to("0.0.0.0/0", Some(gateway))),
        ])
        .unwrap();
    let back = Route {
        oif: Some(pair.index),
        scope_link: true,
        protocol: 3,
        ..Route::to(net)
    };
    netlink.replace_route(&back).unwrap();
}

/// As the VPC CNI prints it: the last of its interfaces is none.
fn aws_shape() -> Value {
    json!({"cniVersion": "0.4.0",
        "interfaces": [{"name": HOST_END}, {"name": "eth0", "sandbox": "/test"},
            {"name": "dummy1234", "mac": "0", "sandbox": "254"}],
        "ips": [{"version": "4", "address": "10.9.0.2/32", "interface": 1}], "dns": {}})
}

fn adding(id: &str, result: Value) -> Call {
    add(id, Wishes::default(), Some(result))
}

fn wishing(id: &str, wishes: Wishes) -> Call {
    add(id, wishes, None)
}

fn add(id: &str, told: Wishes, result: Option<Value>) -> Call {
    let mut call = add_of(attachment(id));
    if let Call::Add { wishes, previous, .. } = &mut call {
        *wishes = told;
        *previous = result.map(|result| Box::new(serde_json::from_value(result).unwrap()));
    }
    call
}

fn mac(text: &str) -> Wishes {
    Wishes {
        mac: Some(text.to_owned()),
        ..Wishes::default()
    }
}

fn added(reply: Reply) -> Vec<String> {
    match reply {
        Reply::Added(result) => result
            .ips
            .iter()
            .map(|ip| ip.address.addr().to_string())
            .collect(),
        other @ (Reply::Done | Reply::Failed(_)) => panic!("{other:?}"),
    }
}

fn eth0(pod: &OwnedFd) -> netlink::Link {
    Netlink::open_in(pod.as_fd())
        .unwrap()
        .link("eth0")
        .unwrap()
        .unwrap()
}

fn tc(arguments: &[&str]) {
    let status = Command::new("tc").args(arguments).status().unwrap();
    assert!(status.success(), "tc {arguments:?}");
}
