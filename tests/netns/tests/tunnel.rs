// SPDX-License-Identifier: Apache-2.0
//! Pods of several nodes over tunnels: both protocols, wrapped by the kernel and by the programs, both families inside and outside.

use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};

use lab::spec::{Families, Nodes, Routing, Topology};
use lab::{Lab, Spec};
use tests_netns::{addresses, assert_pings, assert_tcp, run, said, start, thalweg};
use thalweg_tests_netns as tests_netns;

#[test]
fn vxlan_by_the_kernels_device() {
    tunnel("vxlan-dev", &[("tunnelEncapsulation", "kernel")], |spec| {
        (spec.routing, spec.topology) = (Routing::Vxlan, Topology::Routed);
    });
}

#[test]
fn vxlan_by_the_programs() {
    tunnel("vxlan-bpf", &[("tunnelEncapsulation", "ebpf")], |spec| {
        spec.routing = Routing::Vxlan
    });
}

#[test]
fn vxlan_over_ipv6_by_the_kernels_device() {
    tunnel("vxlan-dev6", &[("underlayProtocol", "ipv6")], |spec| {
        spec.routing = Routing::Vxlan
    });
}

#[test]
fn geneve() {
    tunnel("geneve", &[], |spec| spec.routing = Routing::Geneve);
}

#[test]
fn geneve_over_ipv6_by_the_programs_behind_a_router() {
    let settings = [("underlayProtocol", "ipv6"), ("tunnelEncapsulation", "ebpf")];
    tunnel("geneve-bpf6", &settings, |spec| {
        (spec.routing, spec.topology) = (Routing::Geneve, Topology::Routed);
    });
}

#[test]
fn geneve_with_ipv6_alone() {
    tunnel("geneve-6", &[], |spec| {
        (spec.routing, spec.family) = (Routing::Geneve, Families::Ipv6)
    });
}

#[test]
fn the_wire_format_is_the_one_that_others_know() {
    for (protocol, routing, port) in [("vxlan", Routing::Vxlan, 8472), ("geneve", Routing::Geneve, 6081)] {
        let edit = |spec: &mut Spec| {
            spec.routing = routing;
            spec.agent.insert("tunnelEncapsulation".into(), "ebpf".into());
            spec.agent.insert("tunnelVni".into(), 74_565.into());
            // Only few packets are captured: the nodes' own probes would be among them.
            spec.agent.insert("health.enabled".into(), false.into());
        };
        let Some(lab) = start("wire", edit) else { return };
        let capture = capture(&lab, protocol, port);
        let target = lab.pod_ips("pod-2-1").unwrap()[0];
        assert_pings(&lab, "pod-1-1", target);
        let output = capture.wait_with_output().unwrap();
        let text = said(&output);
        let own = lab.pod_ips("pod-1-1").unwrap()[0];
        let decoded = text
            .lines()
            .any(|line| line.contains(&format!("{own} → {target}")) && line.contains("ICMP"));
        assert!(
            decoded,
            "{protocol}: tshark does not see the ping inside:\n{text}"
        );
        assert!(
            text.contains("0x012345") || text.contains("74565"),
            "no network identifier:\n{text}"
        );
        assert!(!text.contains("Malformed") && !text.contains("Expert"), "{text}");
    }
}

#[test]
fn a_narrow_link_between_nodes_lowers_the_mtu_to_the_node_behind_it() {
    for (routing, encapsulation) in [(Routing::Vxlan, "kernel"), (Routing::Geneve, "ebpf")] {
        let edit = |spec: &mut Spec| {
            (spec.routing, spec.topology) = (routing, Topology::Routed);
            spec.nodes = Nodes::Count(3);
            spec.agent
                .insert("tunnelEncapsulation".into(), encapsulation.into());
        };
        let Some(lab) = start("narrow", edit) else { return };
        narrow(&lab, "to-node-2", 1400);
        // A link has two ends. The node at one of them is told by its own device, the others by the router.
        let set = run(&lab, "node-2", &["ip", "link", "set", "eth0", "mtu", "1400"]);
        assert!(set.status.success(), "{}", said(&set));
        lab.restart_agent("node-2", nix::sys::signal::Signal::SIGTERM)
            .unwrap();
        for address in addresses(&lab, "pod-2-1") {
            // The first is lost on the way; the node answers the second.
            let large = [
                "ping",
                "-n",
                "-c",
                "5",
                "-i",
                "0.2",
                "-W",
                "1",
                "-M",
                "do",
                "-s",
                "1360",
                &address.to_string(),
            ];
            let output = said(&run(&lab, "pod-1-1", &large));
            let answered = output.contains("Frag needed") || output.contains("Packet too big");
            assert!(answered || output.contains("too long"), "{output}");
            let cut = [
                "ping",
                "-n",
                "-c",
                "2",
                "-i",
                "0.1",
                "-W",
                "2",
                "-M",
                "dont",
                "-s",
                "1360",
                &address.to_string(),
            ];
            let output = run(&lab, "pod-1-1", &cut);
            assert!(output.status.success(), "{}", said(&output));
            assert_tcp(&lab, "pod-1-1", "pod-2-1", address);
        }
        // Others are not affected.
        let rows = said(&thalweg(&["map", "dump", "prefixes", "--lab", lab.name()]));
        let overhead = if encapsulation == "kernel" { 50 } else { 62 };
        assert!(rows.contains(&format!("mtu={}", 1400 - overhead)), "{rows}");
        assert!(rows.contains(&format!("mtu={}", 1500 - overhead)), "{rows}");
    }
}

#[test]
fn back_in_native_routing_nothing_of_the_tunnel_stays() {
    let edit = |spec: &mut Spec| spec.routing = Routing::Vxlan;
    let Some(lab) = start("native-again", edit) else {
        return;
    };
    let of_tunnel = || {
        let look = "ip -o link; ls /sys/fs/bpf/thalweg/links";
        let there = said(&run(&lab, "node-1", &["sh", "-c", look]));
        there.matches("thalweg_tunnel").count()
    };
    assert_eq!(of_tunnel(), 2, "the device and its program");
    let config = lab.node("node-1").unwrap().run_dir.join("thalweg-lab/agent.yaml");
    let settings = std::fs::read_to_string(&config).unwrap();
    let native = settings.replace("\"tunnel\"", "\"native\"");
    assert_ne!(native, settings);
    std::fs::write(&config, native).unwrap();
    lab.restart_agent("node-1", nix::sys::signal::Signal::SIGTERM)
        .unwrap();
    assert_eq!(of_tunnel(), 0);
}

/// Makes a link of the router towards a node narrower.
fn narrow(lab: &Lab, link: &str, mtu: u32) {
    let router = lab.state().underlay.as_ref().expect("a router").pid;
    let netns = netlink::netns::open(format!("/proc/{router}/ns/net").as_ref()).expect("as set up");
    let mut netlink = netlink::Netlink::open_in(netns.as_fd()).expect("as set up");
    let link = netlink
        .link(link)
        .expect("as set up")
        .expect("the link to the node");
    netlink.set_mtu(link.index, mtu).expect("as set up");
}

/// Starts a dual lab with tunnels, and sends between all kinds of places.
fn tunnel(test: &str, settings: &[(&str, &str)], edit: impl FnOnce(&mut Spec)) {
    let edit = |spec: &mut Spec| {
        edit(spec);
        for (key, value) in settings {
            spec.agent.insert((*key).to_owned(), (*value).into());
        }
    };
    let Some(lab) = start(test, edit) else { return };
    for (from, to) in [
        ("pod-1-1", "pod-1-2"),
        ("pod-1-1", "pod-2-1"),
        ("pod-1-1", "node-1"),
        ("pod-1-1", "node-2"),
        ("node-1", "pod-1-1"),
        ("node-1", "pod-2-1"),
    ] {
        for address in addresses(&lab, to) {
            assert_pings(&lab, from, address);
            assert_tcp(&lab, from, to, address);
        }
    }
    for address in addresses(&lab, "pod-2-2") {
        assert_large(&lab, address);
    }
}

/// Pings as large as the pod's MTU allows, and larger ones in fragments.
fn assert_large(lab: &Lab, to: IpAddr) {
    let link = said(&run(lab, "pod-1-1", &["ip", "-o", "link", "show", "eth0"]));
    let mut words = link.split_whitespace().skip_while(|word| *word != "mtu").skip(1);
    let mtu: usize = words.next().and_then(|mtu| mtu.parse().ok()).expect("an MTU");
    let headers = if to.is_ipv4() { 28 } else { 48 };
    let whole = (mtu - headers).to_string();
    for (size, fragments) in [(whole.as_str(), "do"), ("8000", "dont")] {
        let ping = [
            "ping",
            "-n",
            "-c",
            "2",
            "-i",
            "0.05",
            "-W",
            "5",
            "-M",
            fragments,
            "-s",
            size,
            &to.to_string(),
        ];
        let output = run(lab, "pod-1-1", &ping);
        assert!(
            output.status.success(),
            "{size} bytes to {to}:\n{}",
            said(&output)
        );
    }
}

/// tshark at the first node's underlay device, until it has seen four packets.
fn capture(lab: &Lab, protocol: &str, port: u16) -> Child {
    let (filter, decode) = (format!("udp port {port}"), format!("udp.port=={port},{protocol}"));
    let arguments = [
        "-l",
        "-n",
        "-i",
        "eth0",
        "-c",
        "4",
        "-a",
        "duration:20",
        "-f",
        &filter,
        "-d",
        &decode,
        "-P",
        "-V",
    ];
    let arguments = arguments.map(str::to_owned);
    let mut command: Command = lab
        .command(&lab.target(None, "node-1"), "tshark", &arguments)
        .expect("as set up");
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("as set up");
    wait_for_capture(&mut child);
    child
}

/// Until tshark says that it listens.
fn wait_for_capture(child: &mut Child) {
    use std::io::Read as _;
    let mut said = String::new();
    let mut byte = [0];
    let stderr = child.stderr.as_mut().expect("piped");
    while !said.contains("Capturing on") && stderr.read(&mut byte).is_ok_and(|count| count == 1) {
        said.push(char::from(byte[0]));
    }
    assert!(said.contains("Capturing on"), "tshark: {said}");
}
