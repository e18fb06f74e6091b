// SPDX-License-Identifier: Apache-2.0
//! Debian's plugins after ours in the list, and other networks' before: real plugins, real traffic between nodes.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use lab::spec::{Nodes, Routing};
use lab::{Guard, Lab, Spec};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests_netns::objects::{apply, cleanup, end_agent, kubectl};
use tests_netns::{
    LIMIT, agent_status, assert_pings, assert_tcp, assert_tcp_via, eventually, run, said, set_agent, start,
    thalweg, within,
};
use thalweg_tests_netns as tests_netns;

const WEB: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  nodeName: node-1
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: any
    command: [sleep, infinity]
    ports: [{containerPort: 80, hostPort: 8080}, {containerPort: 53, hostPort: 5353, protocol: UDP}]
";
const POD_PORT: u16 = 80;
const HOST_PORT: u16 = 8080;

#[test]
fn a_host_port_answers_from_everywhere() {
    let Some(lab) = chained("hostport", "portmap", |_| ()) else {
        return;
    };
    host_ports(&lab);
}

#[test]
fn a_host_port_answers_from_everywhere_over_a_tunnel_and_with_masquerading() {
    let Some(lab) = chained("hostport-vxlan", "portmap", |spec| spec.routing = Routing::Vxlan) else {
        return;
    };
    assert!(agent_status(&lab, "node-1").masquerade.is_some());
    host_ports(&lab);
}

#[test]
fn a_host_port_answers_from_everywhere_with_host_routing() {
    let Some(lab) = chained("hostport-stack", "portmap", |spec| {
        spec.agent.insert("hostRouting".into(), true.into());
    }) else {
        return;
    };
    host_ports(&lab);
}

#[test]
fn a_host_port_needs_no_plugin_where_services_are_ours_to_serve() {
    let Some(lab) = start("hostport-own", |spec| spec.nodes = Nodes::Count(2)) else {
        return;
    };
    run_pod(&lab, WEB, "web");
    for address in &lab.nodes()[0].addresses {
        // The node itself is not among them: it is by its cgroup that its sockets are led, and this test's are not in it.
        for from in ["node-2", "pod-2-1", "pod-1-1", "web"] {
            let (own, host) = (
                SocketAddr::new(any_of(*address), POD_PORT),
                SocketAddr::new(*address, HOST_PORT),
            );
            assert_tcp_via(&lab, from, "web", own, host);
        }
        assert_udp(&lab, "node-2", *address);
        assert_udp(&lab, "pod-2-1", *address);
    }
}

fn host_ports(lab: &Lab) {
    run_pod(lab, WEB, "web");
    let nodes = lab.nodes();
    let addresses = &nodes[0].addresses;
    assert_eq!(addresses.len(), 2, "both families: {addresses:?}");
    for address in addresses {
        // From outside, from pods there and here, by the node itself, and by the pod itself.
        for from in ["node-2", "pod-2-1", "pod-1-1", "node-1", "web"] {
            let any = any_of(*address);
            assert_tcp_via(
                lab,
                from,
                "web",
                SocketAddr::new(any, POD_PORT),
                SocketAddr::new(*address, HOST_PORT),
            );
        }
        for from in ["node-2", "pod-2-1", "pod-1-1"] {
            assert_udp(lab, from, *address);
            assert_refused(lab, from, *address);
        }
    }
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, HOST_PORT));
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, POD_PORT));
    assert_tcp_via(lab, "node-1", "web", any, loopback);
    // Its own address stays what it was, both ways.
    for ip in lab.pod_ips("web").expect("it runs") {
        assert_tcp(lab, "pod-2-1", "web", ip);
        assert_tcp(
            lab,
            "web",
            "pod-2-1",
            lab.pod_ips("pod-2-1").expect("it runs")[usize::from(ip.is_ipv6())],
        );
    }
    // An open connection lives on with a new agent.
    lab.restart_agent("node-1", Signal::SIGKILL)
        .expect("it starts again");
    let address = SocketAddr::new(addresses[0], HOST_PORT);
    assert_tcp_via(lab, "node-2", "web", any, address);
    assert_nothing_dropped(lab);
}

/// Nothing but what no pod is to hear.
fn assert_nothing_dropped(lab: &Lab) {
    let drops = agent_status(lab, "node-1").drops;
    let lost: Vec<_> = drops
        .iter()
        .filter(|drop| drop.reason != "LINK_LOCAL_CHATTER")
        .collect();
    assert!(lost.is_empty(), "dropped: {lost:?}");
}

/// A datagram to the host port, and its answer from there.
fn assert_udp(lab: &Lab, from: &str, address: IpAddr) {
    let server = within(lab, "web", || UdpSocket::bind((any_of(address), 53))).expect("the port is free");
    let client = client(lab, from, address);
    server.set_read_timeout(Some(LIMIT)).expect("a timeout");
    client.send(b"there").expect("it is sent");
    let (_, sender) = server
        .recv_from(&mut [0; 5])
        .unwrap_or_else(|error| panic!("from {from}: {error}"));
    server.send_to(b"back", sender).expect("it is sent");
    let read = client.recv(&mut [0; 4]);
    assert_eq!(read.unwrap_or_else(|error| panic!("back to {from}: {error}")), 4);
}

/// Nobody listens: the pod's ICMP error must reach who asked for the host port.
fn assert_refused(lab: &Lab, from: &str, address: IpAddr) {
    let client = client(lab, from, address);
    client.send(b"there").expect("it is sent");
    let error = client.recv(&mut [0; 4]).expect_err("nobody listens");
    assert_eq!(
        error.kind(),
        std::io::ErrorKind::ConnectionRefused,
        "{from} to {address}: {error}"
    );
}

/// Connected: it takes answers from the host port only.
fn client(lab: &Lab, from: &str, address: IpAddr) -> UdpSocket {
    let client = within(lab, from, || UdpSocket::bind((any_of(address), 0))).expect("any port");
    client.set_read_timeout(Some(LIMIT)).expect("a timeout");
    client.connect((address, 5353)).expect("there is a route");
    client
}

const LIMITED: &str = "
apiVersion: v1
kind: Pod
metadata:
  name: limited
  annotations: {kubernetes.io/ingress-bandwidth: 40M, kubernetes.io/egress-bandwidth: 24M}
spec:
  nodeName: node-1
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: any, command: [sleep, infinity]}]
";
/// Bits per second that the annotations say.
const INGRESS: f64 = 40e6;
const EGRESS: f64 = 24e6;

#[test]
fn bandwidth_limits_a_pod_both_ways() {
    let Some(lab) = chained("bandwidth", "bandwidth", |_| ()) else {
        return;
    };
    limits(&lab);
}

#[test]
fn bandwidth_limits_a_pod_both_ways_over_a_tunnel_and_to_the_world() {
    let Some(lab) = chained("bandwidth-vxlan", "bandwidth", |spec| {
        spec.routing = Routing::Vxlan;
        spec.topology = lab::spec::Topology::Routed;
    }) else {
        return;
    };
    limits(&lab);
    // The router is the world: it sees the node's address, and the rate holds.
    let router = lab.state().underlay.as_ref().expect("a router").pid;
    let netns = netlink::netns::open(Path::new(&format!("/proc/{router}/ns/net"))).expect("it runs");
    for family in 0..2 {
        let gateway = gateway_of(&lab, "node-1", family);
        let listener = netlink::netns::run_in(std::os::fd::AsFd::as_fd(&netns), || {
            TcpListener::bind((gateway, 0))
        });
        let listener = listener
            .expect("the namespace")
            .expect("an address of the router");
        let (rate, peer) = rate(&lab, "limited", listener);
        assert!(is_near(rate, EGRESS), "to the world: {rate:.0} bit/s");
        assert_eq!(peer.ip(), lab.nodes()[0].addresses[family], "masqueraded");
    }
    let rules = said(&run(&lab, "node-1", &["ip", "rule"]));
    assert!(
        rules.contains("fwmark 0x74770000/0xffff0000 lookup 29815"),
        "{rules}"
    );
    assert_nothing_dropped(&lab);
}

fn limits(lab: &Lab) {
    run_pod(lab, LIMITED, "limited");
    for family in 0..2 {
        let ip = |pod: &str| lab.pod_ips(pod).expect("it runs")[family];
        for other in ["pod-1-1", "pod-2-1"] {
            let (received, _) = rate(lab, other, listen(lab, "limited", ip("limited")));
            assert!(is_near(received, INGRESS), "from {other}: {received:.0} bit/s");
            let (sent, _) = rate(lab, "limited", listen(lab, other, ip(other)));
            assert!(is_near(sent, EGRESS), "to {other}: {sent:.0} bit/s");
        }
        let (free, _) = rate(lab, "pod-1-1", listen(lab, "pod-2-1", ip("pod-2-1")));
        assert!(free > 4.0 * INGRESS, "others are free: {free:.0} bit/s");
        assert_pings(lab, "limited", ip("pod-2-1"));
        assert_pings(lab, "pod-2-1", ip("limited"));
        assert_pings(lab, "limited", lab.nodes()[1].addresses[family]);
    }
    // A new agent finds the queues.
    lab.restart_agent("node-1", Signal::SIGKILL)
        .expect("it starts again");
    let ip = lab.pod_ips("limited").expect("it runs")[0];
    let (received, _) = rate(lab, "pod-1-1", listen(lab, "limited", ip));
    assert!(is_near(received, INGRESS), "after a restart: {received:.0} bit/s");
}

fn listen(lab: &Lab, pod: &str, ip: IpAddr) -> TcpListener {
    within(lab, pod, || TcpListener::bind((ip, 0))).expect("an address of the pod")
}

/// Kubernetes' runtimes allow bursts of two gigabits, which fill up again in pauses: the limit shows when a megabyte takes longer
/// than so.
const UNLIMITED: Duration = Duration::from_millis(80);
/// What is measured then, and after how much at the latest.
const MEASURED: usize = 3 << 20;
const BURST: usize = 320 << 20;
const WINDOW: usize = 1 << 20;

/// Bits per second of what a pod sends to a listener, after the burst, and whom the listener saw.
fn rate(lab: &Lab, from: &str, listener: TcpListener) -> (f64, SocketAddr) {
    let address = listener.local_addr().expect("it is bound");
    let receiver = std::thread::spawn(move || -> std::io::Result<(Duration, SocketAddr)> {
        let (mut stream, peer) = listener.accept()?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut window = vec![0; WINDOW];
        for _ in 0..BURST / WINDOW {
            let begin = Instant::now();
            stream.read_exact(&mut window)?;
            if begin.elapsed() > UNLIMITED {
                break;
            }
        }
        let begin = Instant::now();
        for _ in 0..MEASURED / WINDOW {
            stream.read_exact(&mut window)?;
        }
        Ok((begin.elapsed(), peer))
    });
    let mut stream = within(lab, from, || {
        std::net::TcpStream::connect_timeout(&address, LIMIT)
    })
    .unwrap_or_else(|error| panic!("{from} to {address}: {error}"));
    stream.set_write_timeout(Some(LIMIT)).expect("a timeout");
    let block = vec![0; 1 << 16];
    // Until the other end has seen enough and closes.
    while stream.write_all(&block).is_ok() {}
    let (time, peer) = receiver.join().expect("no panic").expect("it reads");
    (8.0 * MEASURED as f64 / time.as_secs_f64(), peer)
}

fn is_near(rate: f64, limit: f64) -> bool {
    (0.6 * limit..1.3 * limit).contains(&rate)
}

/// The next hop of the node's default route: the router.
fn gateway_of(lab: &Lab, node: &str, family: usize) -> IpAddr {
    let flag = ["-4", "-6"][family];
    let routes = said(&run(lab, node, &["ip", flag, "route", "show", "default"]));
    let via = routes.split_whitespace().skip_while(|word| *word != "via").nth(1);
    via.and_then(|ip| ip.parse().ok())
        .unwrap_or_else(|| panic!("no gateway in {routes}"))
}

#[test]
fn tuning_sets_what_it_is_told_and_traffic_goes_on() {
    let tuning = json!(["portmap", "bandwidth", {"type": "tuning", "mtu": 1400, "sysctl": {"net.core.somaxconn": "517"}}]);
    let Some(lab) = chained("tuning", tuning, |_| ()) else {
        return;
    };
    let read = |path: &str| said(&run(&lab, "pod-1-1", &["cat", path])).trim().to_owned();
    assert_eq!(read("/proc/sys/net/core/somaxconn"), "517");
    let link = said(&run(&lab, "pod-1-1", &["ip", "link", "show", "eth0"]));
    assert!(link.contains("mtu 1400"), "{link}");
    for ip in lab.pod_ips("pod-2-1").expect("it runs") {
        assert_pings(&lab, "pod-1-1", ip);
        assert_tcp(&lab, "pod-1-1", "pod-2-1", ip);
    }
    // All of the list agree that pods are as they were made, and a deleted one leaves nothing.
    let deleted = thalweg(&["lab", "exec", &format!("{}/node-1", lab.name()), "--", "true"]);
    assert!(deleted.status.success());
}

/// A conflist of another network, as each node has it.
type Foreign = fn(lab: &Lab, node: usize) -> Value;

#[test]
fn behind_ptp_pods_of_two_nodes_reach_one_another() {
    behind("behind-ptp", "generic-veth", Some("legacy"), |_, node| {
        let subnet = format!("10.77.{node}.0/24");
        let v6 = format!("fd77:{node}::/64");
        json!({"cniVersion": "1.0.0", "name": "legacy", "plugins": [{
            "type": "ptp", "ipam": {"type": "host-local", "dataDir": "/run/ptp",
                "ranges": [[{"subnet": subnet}], [{"subnet": v6}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]},
        }]})
    });
}

#[test]
fn behind_a_network_like_the_vpc_cni_pods_of_two_nodes_reach_one_another() {
    behind("behind-aws", "aws-cni", None, |lab, node| {
        script(lab, node, "aws-cni", AWS);
        json!({"cniVersion": "0.4.0", "name": "aws-cni", "disableCheck": true,
            "plugins": [{"type": "aws-cni", "prefix": format!("10.77.{node}")}, {"type": "portmap",
                "capabilities": {"portMappings": true}, "snat": true}]})
    });
}

#[test]
fn behind_a_network_like_azure_cni_pods_of_two_nodes_reach_one_another() {
    behind("behind-azure", "azure-cni", None, |lab, node| {
        script(lab, node, "azure-vnet", AZURE);
        json!({"cniVersion": "0.3.0", "name": "azure", "plugins": [{"type": "azure-vnet", "prefix": format!("10.77.{node}")},
            {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}]})
    });
}

/// Behind another network services are not ours to serve.
fn without_pods_and_services(spec: &mut lab::spec::Spec) {
    spec.pods_per_node = 0;
    spec.agent.insert("kubeProxyReplacement".into(), false.into());
}

fn behind(test: &str, mode: &str, target: Option<&str>, foreign: Foreign) {
    let Some(lab) = start(test, without_pods_and_services) else {
        return;
    };
    let nodes = lab.nodes();
    for (node, number) in nodes.iter().zip(1..) {
        let list = foreign(&lab, number);
        fs::write(node.cni_conf_dir.join("10-other.conflist"), list.to_string())
            .expect("the directory is there");
        set_agent(&lab, &node.name, "cni.chainingMode", mode.into());
        if let Some(target) = target {
            set_agent(&lab, &node.name, "cni.chainingTarget", target.into());
        }
        lab.restart_agent(&node.name, Signal::SIGTERM)
            .expect("it starts again");
        // Its fabric, which knows where addresses are.
        for (other, there) in nodes.iter().zip(1..).filter(|(_, there)| *there != number) {
            let (v4, v6) = (other.addresses[0].to_string(), other.addresses[1].to_string());
            for (net, via) in [
                (format!("10.77.{there}.0/24"), v4),
                (format!("fd77:{there}::/64"), v6),
            ] {
                let added = run(&lab, &node.name, &["ip", "route", "replace", &net, "via", &via]);
                assert!(added.status.success(), "{}", said(&added));
            }
        }
    }
    for (node, name) in [("node-1", "web"), ("node-1", "near"), ("node-2", "far")] {
        run_pod(
            &lab,
            &WEB.replace("node-1", node)
                .replace("name: web", &format!("name: {name}"))
                .replace("8080", if name == "near" { "8081" } else { "8080" })
                .replace("5353", if name == "near" { "5354" } else { "5353" }),
            name,
        );
    }
    let ips = lab.pod_ips("web").expect("it runs");
    assert!(
        ips[0].to_string().starts_with("10.77.1."),
        "of the other network: {ips:?}"
    );
    reachable(&lab);
    let status = agent_status(&lab, "node-1");
    assert!(status.ready && status.endpoints.total == 2, "{status:?}");
    lab.restart_agent("node-1", Signal::SIGKILL)
        .expect("it starts again");
    reachable(&lab);
    let endpoints = said(&thalweg(&[
        "endpoint",
        "list",
        "--lab",
        lab.name(),
        "--node",
        "node-1",
    ]));
    assert!(endpoints.contains("web"), "{endpoints}");

    // A forged source is refused, whoever made the device.
    let before = tests_netns::drops(&lab, "node-1", "INVALID_SOURCE_IP");
    let forge = "ip address add 10.77.1.200/32 dev eth0 && ping -c 1 -W 1 -I 10.77.1.200 ".to_owned();
    let far = lab.pod_ips("far").expect("it runs")[0];
    let forged = run(&lab, "web", &["sh", "-c", &format!("{forge}{far}")]);
    assert!(!forged.status.success(), "{}", said(&forged));
    eventually("it is counted", || {
        tests_netns::drops(&lab, "node-1", "INVALID_SOURCE_IP") > before
    });

    kubectl(&lab, &["delete", "pod", "near", "--wait=false"]);
    eventually("the deleted pod is let go", || {
        agent_status(&lab, "node-1").endpoints.total == 1
    });
    cleaned_up(&lab);
}

/// What is the other network's stays, and its pods reach one another without us.
fn cleaned_up(lab: &Lab) {
    end_agent(lab, "node-1");
    let links = || said(&run(lab, "node-1", &["ip", "-d", "link"]));
    assert!(links().contains("alias tw2 "), "{}", links());
    let cleaned = cleanup(lab, &["--yes"]);
    assert!(
        cleaned.status.success() && said(&cleaned).contains(", which stays"),
        "{}",
        said(&cleaned)
    );
    assert!(!links().contains("alias tw2 "), "{}", links());
    let again = said(&cleanup(lab, &["--dry-run"]));
    assert!(again.contains("Nothing of Thalweg"), "{again}");
    for ip in lab.pod_ips("far").expect("it runs") {
        assert_pings(lab, "web", ip);
    }
}

fn reachable(lab: &Lab) {
    for (from, to) in [("web", "far"), ("far", "web"), ("web", "near"), ("near", "web")] {
        for ip in lab.pod_ips(to).expect("it runs") {
            assert_pings(lab, from, ip);
            assert_tcp(lab, from, to, ip);
        }
    }
    let ip = lab.pod_ips("web").expect("it runs")[0];
    assert_pings(lab, "node-1", ip);
    assert_pings(lab, "web", lab.nodes()[0].addresses[0]);
}

/// A stand-in: one veth pair, an address by a counter, a route to it on the node, a gateway that only the pod's neighbour
/// table knows. What it prints is the real one's.
fn script(lab: &Lab, node: usize, name: &str, result: &str) {
    let directory = lab.nodes()[node - 1].host_path(Path::new("/run/cni/bin"));
    fs::create_dir_all(&directory).expect("the directory can be made");
    let path = directory.join(name);
    let text = PLUGIN.replace("@RESULT@", result);
    fs::write(&path, text).expect("it can be written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&path, mode).expect("it is ours");
}

const PLUGIN: &str = r#"#!/bin/sh
set -e
input=$(cat)
case $CNI_COMMAND in ADD) ;; VERSION) echo '{"cniVersion":"0.4.0","supportedVersions":["0.3.0","0.4.0"]}'; exit;; DEL)
    ip link delete "eni$(echo "$CNI_CONTAINERID" | cut -c1-8)" 2>/dev/null || true; exit;; *) exit;; esac
prefix=$(echo "$input" | sed 's/.*"prefix":"\([0-9.]*\)".*/\1/')
mkdir -p /run/other
number=$(( $(cat /run/other/last 2>/dev/null || echo 1) + 1 ))
echo $number > /run/other/last
ip=$prefix.$number
host=eni$(echo "$CNI_CONTAINERID" | cut -c1-8)
ns="ip netns exec $(basename "$CNI_NETNS")"
nsenter="nsenter --net=$CNI_NETNS"
ip link add "$host" type veth peer name tmp$number
ip link set tmp$number netns "$CNI_NETNS" 2>/dev/null || ip link set tmp$number netns "$(basename "$CNI_NETNS")"
ip link set "$host" address 02:00:00:00:00:01 up
$nsenter ip link set tmp$number name "$CNI_IFNAME" up
$nsenter ip address add $ip/32 dev "$CNI_IFNAME"
$nsenter ip route add 169.254.1.1 dev "$CNI_IFNAME" scope link
$nsenter ip route add default via 169.254.1.1 dev "$CNI_IFNAME"
$nsenter ip neigh add 169.254.1.1 lladdr 02:00:00:00:00:01 dev "$CNI_IFNAME" nud permanent
ip route add $ip/32 dev "$host" scope link
@RESULT@
"#;

const AWS: &str = r#"cat <<END
{"cniVersion":"0.4.0","interfaces":[{"name":"$host"},{"name":"$CNI_IFNAME","sandbox":"$CNI_NETNS"},
 {"name":"dummy$number","mac":"0","sandbox":"254"}],
 "ips":[{"version":"4","address":"$ip/32","interface":1}],"dns":{}}
END"#;

const AZURE: &str = r#"cat <<END
{"cniVersion":"0.3.0","interfaces":[{"name":"$CNI_IFNAME","sandbox":"$CNI_NETNS"}],
 "ips":[{"version":"4","address":"$ip/16","gateway":"169.254.1.1"}],
 "routes":[{"dst":"0.0.0.0/0","gw":"169.254.1.1"}],"dns":{}}
END"#;

fn chained(test: &str, plugins: impl Into<Value>, edit: impl FnOnce(&mut Spec)) -> Option<Guard> {
    start(test, |spec| {
        spec.nodes = Nodes::Count(2);
        spec.agent.insert("cni.chainedPlugins".into(), plugins.into());
        // Where services are ours to serve, host ports are too, and the plugin has nothing to do.
        spec.agent.insert("kubeProxyReplacement".into(), false.into());
        edit(spec);
    })
}

fn run_pod(lab: &Lab, manifest: &str, pod: &str) {
    apply(lab, manifest);
    eventually("the pod runs", || {
        lab.pod("default", pod).is_ok_and(|pod| pod.ready)
    });
}

fn any_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
