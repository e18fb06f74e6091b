// SPDX-License-Identifier: Apache-2.0
//! What other networks leave on nodes, set up for real with real programs: found, removed, put back; what is in use stays; and the way back to
//! another network.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use lab::spec::{Families, Nodes};
use lab::{Guard, Lab, Options, Spec};
use serde_json::Value;
use tests_netns::examine::{
    checks_on, findings, json, named_process, on_node, on_node_unchecked, shell, stop, text,
};
use tests_netns::{assert_pings, eventually, privileged, program, said, start, thalweg, unique};
use thalweg_tests_netns as tests_netns;

/// Where a lab's nodes have what is elsewhere on real ones.
const PLACES: [&str; 6] = [
    "--cni-conf-dir",
    "/run/cni/net.d",
    "--keep-dir",
    "/run/thalweg-kept",
    "--node-name",
    "node-1",
];

/// Real parts of five networks on one node.
const PARTS: &str = r#"set -e
iptables -t nat -A POSTROUTING -s 192.0.2.0/24 -j ACCEPT
iptables -t nat -N AWS-SNAT-CHAIN-0
iptables -t nat -A AWS-SNAT-CHAIN-0 -d 10.0.0.0/16 -j RETURN
iptables -t nat -A AWS-SNAT-CHAIN-0 ! -o vlan+ -m addrtype ! --dst-type LOCAL -j MASQUERADE
iptables -t nat -I POSTROUTING 1 -m comment --comment "AWS SNAT CHAIN" -j AWS-SNAT-CHAIN-0
iptables -t mangle -A PREROUTING -i eth0 -m comment --comment "AWS, primary ENI" -j MARK --set-xmark 0x80/0x80
ip6tables -t filter -N cali-FORWARD
ip6tables -t filter -A FORWARD -j cali-FORWARD
iptables-legacy -t filter -N FLANNEL-FWD
iptables-legacy -t filter -A FORWARD -j FLANNEL-FWD
nft add table ip kube-proxy
nft add chain ip kube-proxy services
nft add rule ip kube-proxy services ip daddr 10.96.0.10 drop
ip rule add from 10.0.5.5 lookup 2 priority 1536
ip rule add fwmark 0x80/0x80 lookup main priority 1024
ip link add cni0 type bridge
ip address add 10.99.0.1/24 dev cni0
ip link set cni0 up mtu 1450
ip link add flannel.1 type vxlan id 1 dev eth0 dstport 8472
ip link set flannel.1 up
ip route add 10.98.0.0/24 via 10.98.0.1 dev flannel.1 onlink
mkdir -p /sys/fs/bpf/tc/globals
bpftool map create /sys/fs/bpf/tc/globals/cilium_ct4_global type array key 4 value 4 entries 1 name ct4
printf '{"name":"aws-cni","cniVersion":"1.0.0","plugins":[{"type":"aws-cni"}]}' > /run/cni/net.d/10-aws.conflist
"#;

/// The state of all that [`PARTS`] touches, but the pin, which nobody can put back, and what comes and goes by itself: link-local
/// addresses, carriers.
const STATE: &str = "iptables-save; ip6tables-save; iptables-legacy-save; nft -s list table ip kube-proxy; ip rule; ip -6 rule; \
                     for device in /sys/class/net/*; do echo ${device##*/} $(cat $device/mtu); done; ip -4 -o address; \
                     ip -4 route show | sed 's/ linkdown//'; cat /run/cni/net.d/*";

#[test]
fn parts_of_other_networks_are_found_removed_and_put_back() {
    let Some(lab) = start("doctor-parts", |_| ()) else {
        return;
    };
    let clean = state(&lab);
    shell(&lab, PARTS);
    let full = state(&lab);
    assert_ne!(clean, full);
    assert_parts_are_found(&lab);

    let dry = on_node(&lab, &conflicts("remove"));
    assert!(said(&dry).contains("Nothing was touched"), "{}", said(&dry));
    assert_eq!(state(&lab), full, "a dry run touches nothing");

    let all = "--owner vpc-cni --owner calico --owner flannel --owner cilium --owner kube-proxy";
    let removal = json(&on_node(
        &lab,
        &conflicts(&format!("remove --execute -o json {all}")),
    ));
    let none = Value::Array(vec![]);
    assert_eq!(
        (&removal["failed"], &removal["refused"]),
        (&none, &none),
        "{removal:#}"
    );
    assert_eq!(without_empty_tables(&state(&lab)), without_empty_tables(&clean));
    assert!(findings(&lab).is_empty(), "{:#?}", findings(&lab));

    for copy in removal["copies"].as_array().unwrap() {
        let copy = copy.as_str().unwrap();
        let back = on_node_unchecked(&lab, &conflicts(&format!("restore {copy}")));
        let pins = copy.contains("cilium");
        assert_eq!(back.status.success(), !pins, "{copy}: {}", said(&back));
        assert!(
            !pins || said(&back).contains("a pin cannot be copied"),
            "{}",
            said(&back)
        );
    }
    assert_eq!(
        state(&lab),
        full,
        "all but the pin is back as it was, rules in their places"
    );
    assert_eq!(checks_on(&findings(&lab), "node-1").len(), CHECKS.len() - 1);
}

/// What [`PARTS`] makes fire.
const CHECKS: [&str; 7] = [
    "cni.second",
    "leftovers.bpffs",
    "leftovers.iptables",
    "leftovers.links",
    "leftovers.nftables",
    "leftovers.routes",
    "leftovers.rules",
];

fn assert_parts_are_found(lab: &Lab) {
    let found = findings(lab);
    assert_eq!(checks_on(&found, "node-1"), BTreeSet::from(CHECKS), "{found:#?}");
    assert_eq!(
        checks_on(&found, "node-2"),
        BTreeSet::new(),
        "the healthy twin is silent"
    );
    for evidence in [
        "iptables nat AWS-SNAT-CHAIN-0",
        "ip6tables filter cali-FORWARD",
        "iptables-legacy filter FLANNEL-FWD",
        "ip kube-proxy",
        "1536: from 10.0.5.5/32 lookup 2",
        "cni0",
        "10.98.0.0/24 dev flannel.1",
        "cilium_ct4_global",
        "10-aws.conflist (the VPC CNI",
    ] {
        let hit = found.iter().any(|one| text(one, "evidence").contains(evidence));
        assert!(hit, "{evidence}: {found:#?}");
    }
}
/// A pod of the VPC CNI: a device whose other end is up in another namespace, with rule and route. And a rule of no pod.
const POD_OF_THE_VPC_CNI: &str = "set -e
    ip link add eni0123456789a type veth peer name ethp
    unshare -n sleep 600 >/dev/null 2>&1 & echo $! > /run/sleeper; sleep 0.5
    ip link set ethp netns $(cat /run/sleeper); ip link set eni0123456789a up
    nsenter -t $(cat /run/sleeper) -n ip link set ethp up
    ip route add 10.0.5.7/32 dev eni0123456789a
    ip rule add to 10.0.5.7 lookup main priority 512
    ip rule add from 10.0.6.6 lookup 2 priority 1536
    iptables -t nat -N AWS-SNAT-CHAIN-0
    nft add table ip kube-proxy";

#[test]
fn what_is_in_use_is_not_removed() {
    let Some(lab) = start("doctor-used", |_| ()) else {
        return;
    };
    shell(&lab, POD_OF_THE_VPC_CNI);
    let before = state(&lab);
    let flanneld = named_process(&lab, "flanneld");
    shell(
        &lab,
        "ip link add flannel.1 type vxlan id 1 dev eth0 dstport 8472",
    );
    assert_uses_are_listed(&lab);

    let output = on_node_unchecked(&lab, &conflicts("remove --execute -o json"));
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let removal = json(&output);
    let count = |what: &str| removal[what].as_array().map(Vec::len);
    assert_eq!(count("removed"), Some(1), "only the rule of no pod: {removal:#}");
    assert_eq!(count("refused"), Some(5), "{removal:#}");
    assert!(before.contains("1536:") && !state(&lab).contains("1536:"));
    assert!(
        state(&lab).contains("table ip kube-proxy"),
        "kube-proxy's parts only by name"
    );

    let found = findings(&lab);
    let running = found.iter().find(|one| text(one, "check") == "cni.running");
    let running = running.unwrap_or_else(|| panic!("{found:#?}"));
    assert!(text(running, "evidence").contains("flanneld"), "{found:#?}");
    stop(flanneld);
    shell(&lab, "kill $(cat /run/sleeper)");
}

fn assert_uses_are_listed(lab: &Lab) {
    let list = json(&on_node_unchecked(lab, &conflicts("list -o json")));
    let used = |kind: &str, owner: &str| {
        let items = list["items"].as_array().expect("items").iter();
        let mine = items.filter(|item| item["kind"] == kind && item["owner"] == owner);
        let reasons = mine.map(|item| item["in_use"].as_str().unwrap_or("").to_owned());
        reasons.collect::<Vec<_>>()
    };
    for (kind, owner, reason) in [
        ("link", "vpc-cni", "a running pod hangs on eni0123456789a"),
        ("route", "vpc-cni", "a running pod"),
        ("chains", "vpc-cni", "pods of the VPC CNI run"),
        ("link", "flannel", "flanneld of Flannel runs on this node"),
    ] {
        assert!(
            used(kind, owner)[0].contains(reason),
            "{kind} of {owner}: {list:#}"
        );
    }
    let rules = used("rule", "vpc-cni");
    assert!(
        rules[0].contains("a running pod") && rules[1].is_empty(),
        "{rules:?}"
    );
}

#[test]
fn the_only_network_of_a_node_is_not_taken_from_it() {
    let Some(lab) = start("doctor-only", |spec| spec.nodes = Nodes::Count(1)) else {
        return;
    };
    shell(
        &lab,
        &format!("mkdir /run/other && echo '{STAND_IN}' > /run/other/10-aws.conflist"),
    );
    let program = program().display().to_string();
    let remove = |more: &str| {
        let words = "conflicts remove --execute --cni-conf-dir /run/other --keep-dir /run/thalweg-kept";
        let words = words.split(' ').chain(more.split_whitespace());
        let argv: Vec<&str> = [program.as_str()].into_iter().chain(words).collect();
        on_node_unchecked(&lab, &argv)
    };
    let refused = remove("");
    assert_eq!(refused.status.code(), Some(3), "{}", said(&refused));
    assert!(
        said(&refused).contains("is the present network of this node"),
        "{}",
        said(&refused)
    );
    shell(&lab, "test -e /run/other/10-aws.conflist");
    let forced = remove("--force");
    assert_eq!(forced.status.code(), Some(0), "{}", said(&forced));
    shell(&lab, "test ! -e /run/other/10-aws.conflist");
}
/// A stand-in for the VPC CNI: Debian's bridge plugin under its name.
#[test]
fn the_way_back_to_the_vpc_cni_is_rehearsed_walked_and_undone() {
    if !privileged() {
        return;
    }
    // A lab looks for plugins beside its program, wherever a link to that leads.
    let directory = tempfile::tempdir_in(program().parent().unwrap()).unwrap();
    let bin = directory.path();
    let lab = lab_with_stand_in(bin);
    let bin = bin.display();
    let rollback = |how: &str| conflicts(&format!("rollback --to vpc-cni {how} --cni-bin-dir {bin}"));

    let early = on_node_unchecked(&lab, &rollback("--rehearse"));
    assert!(
        !early.status.success() && said(&early).contains("no copy below"),
        "{}",
        said(&early)
    );
    on_node(&lab, &conflicts("remove --owner vpc-cni --execute"));
    let missing = conflicts("rollback --to vpc-cni --execute --cni-bin-dir /nonexistent");
    let missing = said(&on_node_unchecked(&lab, &missing));
    assert!(missing.contains("the plugin aws-cni is in none of"), "{missing}");

    let rehearsal = said(&on_node(&lab, &rollback("--rehearse")));
    assert!(
        rehearsal.contains("our configuration is first again"),
        "{rehearsal}"
    );
    // The agent looks at the directory every ten seconds, and may have seen it in between.
    eventually("a rehearsal leaves nothing", || findings(&lab).is_empty());
    let kept = &facts(&lab, directory.path())["nodes"][0]["rollback"];
    assert!(
        kept["rehearsed"].is_u64() && kept["backups"].as_array().map(Vec::len) == Some(1),
        "{kept}"
    );

    assert!(address_of_new_pod(&lab, "before").starts_with("10.244."));
    on_node(&lab, &rollback("--execute"));
    assert!(checks_on(&findings(&lab), "node-1").contains("cni.order"));
    assert_new_pods_get(&lab, "10.77.0.", "gone-back");
    assert_pings(&lab, "before", lab.pod_ips("pod-2-1").unwrap()[0]);

    on_node(&lab, &rollback("--undo"));
    assert_new_pods_get(&lab, "10.244.", "forth-again");
}

fn lab_with_stand_in(bin: &Path) -> Guard {
    for name in ["thalweg", "thalweg-cni"] {
        fs::hard_link(program().with_file_name(name), bin.join(name)).expect("a link in one file system");
    }
    symlink("/usr/lib/cni/bridge", bin.join("aws-cni")).expect("a link");
    let options = Options {
        spec: Spec {
            name: unique("doctor-back"),
            nodes: Nodes::Count(2),
            family: Families::Ipv4,
            ..Spec::default()
        },
        program: bin.join("thalweg"),
        keep_failed: false,
        owned: true,
    };
    let lab = Lab::up(&options, |_| ()).unwrap_or_else(|error| panic!("{error}"));
    let conf = lab.node("node-1").expect("the lab has a node-1").cni_conf_dir;
    fs::write(conf.join("10-aws.conflist"), STAND_IN).expect("the directory is there");
    lab.guard()
}
const STAND_IN: &str = r#"{"cniVersion": "1.0.0", "name": "aws-cni", "plugins": [{"type": "aws-cni", "bridge": "cni-aws0", "isGateway": true,
  "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.77.0.0/24"}]], "dataDir": "/run/host-local"}}]}"#;

/// The kubelet looks at the directory four times a second: one of the next pods gets the other network.
fn assert_new_pods_get(lab: &Lab, prefix: &str, name: &str) {
    let mut pods = (0..10).map(|number| address_of_new_pod(lab, &format!("{name}-{number}")));
    assert!(
        pods.any(|address| address.starts_with(prefix)),
        "no new pod has got {prefix}"
    );
}

/// Starts a pod on node-1 and says its address.
fn address_of_new_pod(lab: &Lab, name: &str) -> String {
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  nodeName: node-1\n  containers: [{{name: main, image: any, command: \
         [sleep, infinity]}}]\n"
    );
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), pod).expect("it can be written");
    let applied = thalweg(&[
        "lab",
        "apply",
        "-f",
        file.path().to_str().expect("a plain path"),
        "--name",
        lab.name(),
    ]);
    assert!(applied.status.success(), "{}", said(&applied));
    eventually(&format!("pod {name} runs"), || {
        lab.pod("default", name)
            .is_ok_and(|pod| pod.ready && !pod.ips.is_empty())
    });
    lab.pod_ips(name).expect("a running pod")[0].to_string()
}

fn state(lab: &Lab) -> String {
    let state = said(&on_node_unchecked(lab, &["sh", "-c", STATE]));
    // Counters, times and the numbers of devices are no state.
    let lines = state.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let cut = if line.starts_with(':') { " [" } else { "valid_lft" };
        let line = line.split(cut).next().unwrap_or(line);
        let number = line.split_once(": ").filter(|(_, rest)| rest.contains("inet "));
        number.map_or(line, |(_, rest)| rest)
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Tables that iptables made and that are empty now stay, and hold nothing.
fn without_empty_tables(state: &str) -> Vec<String> {
    let noise = |line: &&str| {
        let line = line.trim();
        let framing = ["*", ":", "COMMIT", "table ip", "chain ", "type ", "}"]
            .iter()
            .any(|start| line.starts_with(start));
        !framing && !line.contains("192.0.2.0/24") && !line.is_empty()
    };
    state.lines().filter(noise).map(str::to_owned).collect()
}

fn facts(lab: &Lab, directory: &Path) -> Value {
    let record = directory.join("facts.json");
    let record = record.to_str().expect("a plain path");
    let _ = thalweg(&["doctor", "--lab", lab.name(), "--record", record]);
    serde_json::from_slice(&fs::read(record).expect("a record was written")).expect("a record is JSON")
}

/// `thalweg conflicts …` as a lab's node needs it.
fn conflicts(words: &str) -> Vec<String> {
    let program = program().display().to_string();
    let words = ["conflicts"]
        .into_iter()
        .chain(words.split_whitespace())
        .chain(PLACES);
    [program].into_iter().chain(words.map(str::to_owned)).collect()
}
