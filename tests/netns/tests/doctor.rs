// SPDX-License-Identifier: Apache-2.0
//! The doctor on labs: silent on a healthy one; and what other networks leave on nodes, and what else goes wrong there, set up for real with
//! real programs, found with its evidence, removed, put back.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use lab::spec::{Families, Nodes};
use lab::{Lab, Options, Spec, Target};
use serde_json::Value;
use tests_netns::{eventually, privileged, program, run, said, start, thalweg, unique};
use thalweg_tests_netns as tests_netns;

/// How long the doctor may take on a healthy lab of three nodes.
const GOAL: Duration = Duration::from_secs(2);
/// Where a lab's nodes have what is elsewhere on real ones.
const PLACES: [&str; 4] = [
    "--cni-conf-dir",
    "/run/cni/net.d",
    "--keep-dir",
    "/run/thalweg-kept",
];
/// What the lab's own API server cannot tell.
const UNKNOWN_IN_LABS: [&str; 1] = ["upgrade.deprecated"];

#[test]
fn nothing_is_found_on_a_healthy_lab_of_three_nodes_within_two_seconds() {
    let Some(lab) = start("doctor-well", |spec| spec.nodes = Nodes::Count(3)) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let record = directory.path().join("facts.json");
    let begin = Instant::now();
    let output = thalweg(&[
        "doctor",
        "--lab",
        lab.name(),
        "-o",
        "json",
        "--record",
        record.to_str().unwrap(),
    ]);
    let took = begin.elapsed();
    let report = json(&output);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(report["findings"], Value::Array(vec![]), "{report:#}");
    for unknown in report["unknown"].as_array().unwrap() {
        let check = unknown["check"].as_str().unwrap();
        assert!(UNKNOWN_IN_LABS.contains(&check), "{unknown:#}");
    }
    assert!(took < GOAL, "{took:?}");

    let again = thalweg(&["doctor", "--from", record.to_str().unwrap(), "-o", "json"]);
    assert_eq!(json(&again), report, "a record is examined like the lab itself");
    let strict = thalweg(&["doctor", "--from", record.to_str().unwrap(), "--strict"]);
    assert_eq!(strict.status.code(), Some(5), "{}", said(&strict));
    let one = thalweg(&[
        "doctor",
        "--from",
        record.to_str().unwrap(),
        "--check",
        "kernel",
        "--strict",
        "-o",
        "json",
    ]);
    assert_eq!(
        (one.status.code(), json(&one)["passed"].as_array().map(Vec::len)),
        (Some(0), Some(4))
    );
}

#[test]
fn what_cannot_be_read_or_asked_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let broken = directory.path().join("broken.json");
    fs::write(&broken, "{\"schema\": 1, \"nodes\": 7}").unwrap();
    for (arguments, reason) in [
        (vec!["doctor", "--from", broken.to_str().unwrap()], "is no record"),
        (vec!["doctor", "--from", "/nonexistent"], "cannot read"),
        (
            vec![
                "doctor",
                "--check",
                "nonsense",
                "--from",
                broken.to_str().unwrap(),
            ],
            "no check `nonsense`",
        ),
        (
            vec![
                "upgrade",
                "check",
                "--to-kubernetes",
                "newest",
                "--from",
                broken.to_str().unwrap(),
            ],
            "no version",
        ),
        (
            vec!["conflicts", "restore", broken.to_str().unwrap()],
            "no copy of removed parts",
        ),
        (
            vec![
                "conflicts",
                "rollback",
                "--to",
                "vpc-cni",
                "--execute",
                "--root",
                directory.path().to_str().unwrap(),
            ],
            "no copy below",
        ),
    ] {
        let output = thalweg(&arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(reason), "{arguments:?}: {}", said(&output));
    }
}

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
    on_node(&lab, &["sh", "-c", PARTS]);
    let full = state(&lab);
    assert_ne!(clean, full);

    let expected = [
        "cni.second",
        "leftovers.bpffs",
        "leftovers.iptables",
        "leftovers.links",
        "leftovers.nftables",
        "leftovers.routes",
        "leftovers.rules",
    ];
    let found = findings(&lab);
    assert_eq!(
        checks_on(&found, "node-1"),
        BTreeSet::from(expected),
        "{found:#?}"
    );
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
        assert!(
            found.iter().any(|one| text(one, "evidence").contains(evidence)),
            "{evidence}: {found:#?}"
        );
    }

    let dry = on_node(&lab, &conflicts(&["remove"]));
    assert!(said(&dry).contains("Nothing was touched"), "{}", said(&dry));
    assert_eq!(state(&lab), full, "a dry run touches nothing");

    let all = ["vpc-cni", "calico", "flannel", "cilium", "kube-proxy"]
        .map(|owner| ["--owner", owner])
        .concat();
    let removal = on_node(
        &lab,
        &conflicts(&[&["remove", "--execute", "-o", "json"], all.as_slice()].concat()),
    );
    let removal = json(&removal);
    assert_eq!(
        (&removal["failed"], &removal["refused"]),
        (&Value::Array(vec![]), &Value::Array(vec![])),
        "{removal:#}"
    );
    assert_eq!(without_empty_tables(&state(&lab)), without_empty_tables(&clean));
    assert!(findings(&lab).is_empty(), "{:#?}", findings(&lab));

    for copy in removal["copies"].as_array().unwrap() {
        let copy = copy.as_str().unwrap();
        let back = on_node_unchecked(&lab, &conflicts(&["restore", copy]));
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
    assert_eq!(checks_on(&findings(&lab), "node-1").len(), expected.len() - 1);
}

#[test]
fn what_is_in_use_is_not_removed() {
    let Some(lab) = start("doctor-used", |_| ()) else {
        return;
    };
    // A pod of the VPC CNI: a device whose other end is up in another namespace, with rule and route.
    on_node(
        &lab,
        &[
            "sh",
            "-c",
            "set -e
            ip link add eni0123456789a type veth peer name ethp
            unshare -n sleep 600 >/dev/null 2>&1 & echo $! > /run/sleeper; sleep 0.5
            ip link set ethp netns $(cat /run/sleeper); ip link set eni0123456789a up
            nsenter -t $(cat /run/sleeper) -n ip link set ethp up
            ip route add 10.0.5.7/32 dev eni0123456789a
            ip rule add to 10.0.5.7 lookup main priority 512
            ip rule add from 10.0.6.6 lookup 2 priority 1536
            iptables -t nat -N AWS-SNAT-CHAIN-0
            nft add table ip kube-proxy",
        ],
    );
    let before = state(&lab);
    let flanneld = named_process(&lab, "flanneld");
    on_node(
        &lab,
        &[
            "ip",
            "link",
            "add",
            "flannel.1",
            "type",
            "vxlan",
            "id",
            "1",
            "dev",
            "eth0",
            "dstport",
            "8472",
        ],
    );

    let list = json(&on_node_unchecked(&lab, &conflicts(&["list", "-o", "json"])));
    let used = |kind: &str, owner: &str| {
        let items = list["items"].as_array().unwrap().iter();
        let reasons = items.filter(|item| item["kind"] == kind && item["owner"] == owner);
        reasons
            .map(|item| item["in_use"].as_str().unwrap_or("").to_owned())
            .collect::<Vec<_>>()
    };
    assert!(
        used("link", "vpc-cni")[0].contains("a running pod hangs on eni0123456789a"),
        "{list:#}"
    );
    assert!(used("route", "vpc-cni")[0].contains("a running pod"), "{list:#}");
    assert!(
        used("chains", "vpc-cni")[0].contains("pods of the VPC CNI run"),
        "{list:#}"
    );
    assert!(
        used("link", "flannel")[0].contains("flanneld of Flannel runs on this node"),
        "{list:#}"
    );
    let rules = used("rule", "vpc-cni");
    assert!(
        rules[0].contains("a running pod") && rules[1].is_empty(),
        "{rules:?}"
    );

    let removal = on_node_unchecked(&lab, &conflicts(&["remove", "--execute", "-o", "json"]));
    assert_eq!(removal.status.code(), Some(3), "{}", said(&removal));
    let removal = json(&removal);
    assert_eq!(
        removal["removed"].as_array().map(Vec::len),
        Some(1),
        "only the rule of no pod: {removal:#}"
    );
    assert_eq!(
        removal["refused"].as_array().map(Vec::len),
        Some(5),
        "{removal:#}"
    );
    assert!(before.contains("1536:") && !state(&lab).contains("1536:"));
    assert!(
        state(&lab).contains("table ip kube-proxy"),
        "kube-proxy's parts only by name"
    );

    let found = findings(&lab);
    let running = found.iter().find(|one| text(one, "check") == "cni.running");
    assert!(
        text(running.expect("a second network runs"), "evidence").contains("flanneld"),
        "{found:#?}"
    );
    stop(flanneld);

    // The network that a node has is not taken from it.
    on_node(
        &lab,
        &[
            "sh",
            "-c",
            "mkdir -p /run/other && printf '{\"name\":\"a\",\"plugins\":[{\"type\":\"aws-cni\"}]}' > /run/other/10-aws.conflist",
        ],
    );
    let program = program().display().to_string();
    let only = [
        program.as_str(),
        "conflicts",
        "remove",
        "--execute",
        "--cni-conf-dir",
        "/run/other",
        "--keep-dir",
        "/run/thalweg-kept",
    ];
    let only = said(&on_node_unchecked(&lab, &only));
    assert!(only.contains("is the present network of this node"), "{only}");
    on_node(
        &lab,
        &[
            "sh",
            "-c",
            "test -e /run/other/10-aws.conflist && kill $(cat /run/sleeper)",
        ],
    );
}

#[test]
fn what_hurts_a_node_is_found_there_and_nowhere_else() {
    let Some(lab) = start("doctor-hurt", |_| ()) else {
        return;
    };
    on_node(
        &lab,
        &[
            "sh",
            "-c",
            "set -e
            sysctl -qw net.ipv4.conf.all.rp_filter=1
            ip link set $(ls /sys/class/net | grep '^tw' | head -n 1) mtu 1300
            mkdir -p /run/empty
            printf '{\"name\":\"x\",\"plugins\":[{\"type\":\"macvlan\"}]}' > /run/cni/net.d/00-other.conflist
            printf 'not json' > /run/cni/net.d/02-broken.conf
            mount -t tmpfs none /run/empty",
        ],
    );
    let networkd = named_process(&lab, "systemd-network");
    let found = findings(&lab);
    for (check, evidence) in [
        ("host.sysctls", "net.ipv4.conf.all.rp_filter is 1"),
        ("addresses.mtu", "(1300)"),
        (
            "cni.order",
            "00-other.conflist (another network: macvlan) sorts before 05-thalweg.conflist",
        ),
        ("cni.ours", "02-broken.conf cannot be read"),
        ("host.managers", "systemd-networkd"),
    ] {
        let hit = |one: &&Value| text(one, "check") == check && text(one, "evidence").contains(evidence);
        let one = found
            .iter()
            .find(hit)
            .unwrap_or_else(|| panic!("{check} with {evidence}: {found:#?}"));
        assert_eq!(text(one, "where"), "node-1");
    }
    assert_eq!(checks_on(&found, "node-2"), BTreeSet::new());
    stop(networkd);

    // An agent that does not answer, and one node that does not either.
    fs::remove_file(lab.agent_socket("node-2").unwrap()).unwrap();
    let silent = findings(&lab);
    let answers = silent.iter().find(|one| text(one, "check") == "agent.answers");
    let answers = answers.unwrap_or_else(|| panic!("{silent:#?}"));
    assert_eq!(text(answers, "where"), "node-2");
    assert!(
        text(answers, "evidence").contains("no agent answers"),
        "{answers:#}"
    );
}

#[test]
fn the_programs_are_tried_on_a_canary_that_leaves_nothing() {
    let Some(lab) = start("doctor-canary", |_| ()) else {
        return;
    };
    let program = program().display().to_string();
    let look = [
        "sh",
        "-c",
        "find /sys/fs/bpf | sort; ls /run; cat /proc/self/mounts",
    ];
    let before = said(&on_node(&lab, &look));
    let canary = json(&on_node(&lab, &[&program, "upgrade", "canary", "-o", "json"]));
    let programs = canary["programs"].as_array().unwrap();
    assert!(
        programs.iter().any(|name| name == "from_pod") && canary.get("error").is_none(),
        "{canary:#}"
    );
    assert_eq!(said(&on_node(&lab, &look)), before);

    let check = |to: &str, more: &[&str]| {
        let arguments = [
            &[
                "upgrade",
                "check",
                "--lab",
                lab.name(),
                "--to-kubernetes",
                to,
                "-o",
                "json",
            ],
            more,
        ]
        .concat();
        let output = thalweg(&arguments);
        (output.status.code(), json(&output))
    };
    let verdict = |assessment: &Value, id: &str| {
        let gates = assessment["gates"].as_array().unwrap();
        let gate = gates
            .iter()
            .find(|gate| gate["id"] == id)
            .unwrap_or_else(|| panic!("{assessment:#}"));
        gate["verdict"].as_str().unwrap().to_owned()
    };
    let (code, next) = check("1.33", &[]);
    assert_eq!(
        (code, verdict(&next, "kernel.canary").as_str()),
        (Some(5), "pass"),
        "{next:#}"
    );
    assert_eq!(
        verdict(&next, "kernel.image"),
        "unknown",
        "whose image is in no table"
    );
    for step in next["runbook"].as_array().unwrap() {
        for part in ["title", "command", "gate", "undo"] {
            assert!(!step[part].as_str().unwrap().is_empty(), "{step:#}");
        }
    }
    assert_eq!(
        check("1.33", &["--accept-unknown"]).0,
        Some(3),
        "untested with 1.33"
    );
    assert_eq!(check("1.32", &["--accept-unknown"]).0, Some(0), "nothing changes");
    let (code, far) = check("1.35", &["--no-canary"]);
    assert_eq!(
        (code, verdict(&far, "kubernetes.step").as_str()),
        (Some(4), "block")
    );
    assert_eq!(verdict(&far, "kernel.canary"), "unknown", "not tried");

    // A second network that the upgrade would bring back is in the way.
    on_node(
        &lab,
        &[
            "sh",
            "-c",
            "printf '{\"name\":\"x\",\"plugins\":[{\"type\":\"aws-cni\"}]}' > /run/cni/net.d/00-aws.conflist",
        ],
    );
    let (code, rival) = check("1.32", &["--accept-unknown", "--no-canary"]);
    assert_eq!(
        (code, verdict(&rival, "nodes.one-network").as_str()),
        (Some(4), "block"),
        "{rival:#}"
    );
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
    for name in ["thalweg", "thalweg-cni"] {
        fs::hard_link(program().with_file_name(name), bin.join(name)).unwrap();
    }
    symlink("/usr/lib/cni/bridge", bin.join("aws-cni")).unwrap();
    let spec = Spec {
        name: unique("doctor-back"),
        nodes: Nodes::Count(2),
        family: Families::Ipv4,
        ..Spec::default()
    };
    let options = Options {
        spec,
        program: bin.join("thalweg"),
        keep_failed: false,
    };
    let lab = Lab::up(&options, |_| ())
        .unwrap_or_else(|error| panic!("{error}"))
        .guard();
    fs::write(node_conf(&lab).join("10-aws.conflist"), STAND_IN).unwrap();
    let bin = bin.display().to_string();
    let rollback = |how: &str| conflicts(&["rollback", "--to", "vpc-cni", how, "--cni-bin-dir", &bin]);

    let early = on_node_unchecked(&lab, &rollback("--rehearse"));
    assert!(
        !early.status.success() && said(&early).contains("no copy below"),
        "{}",
        said(&early)
    );
    on_node(&lab, &conflicts(&["remove", "--owner", "vpc-cni", "--execute"]));

    let missing = conflicts(&[
        "rollback",
        "--to",
        "vpc-cni",
        "--execute",
        "--cni-bin-dir",
        "/nonexistent",
    ]);
    let missing = on_node_unchecked(&lab, &missing);
    assert!(
        said(&missing).contains("the plugin aws-cni is in none of"),
        "{}",
        said(&missing)
    );
    let rehearsal = said(&on_node(&lab, &rollback("--rehearse")));
    assert!(
        rehearsal.contains("our configuration is first again") && rehearsal.contains("Rehearsed."),
        "{rehearsal}"
    );
    assert_eq!(findings(&lab), Vec::<Value>::new(), "a rehearsal leaves nothing");
    let facts = facts(&lab, bin.as_str());
    assert!(
        facts["nodes"][0]["rollback"]["rehearsed"].is_u64(),
        "{}",
        facts["nodes"][0]["rollback"]
    );

    assert!(address_of_new_pod(&lab, "before").starts_with("10.244."));
    on_node(&lab, &rollback("--execute"));
    assert!(checks_on(&findings(&lab), "node-1").contains("cni.order"));
    assert!(
        address_of_new_pod(&lab, "gone-back").starts_with("10.77.0."),
        "the stand-in attaches new pods"
    );
    let old = run(
        &lab,
        "before",
        &[
            "ping",
            "-c",
            "1",
            "-W",
            "5",
            &lab.pod_ips("pod-2-1").unwrap()[0].to_string(),
        ],
    );
    assert!(
        old.status.success(),
        "running pods keep our network: {}",
        said(&old)
    );

    on_node(&lab, &rollback("--undo"));
    assert!(address_of_new_pod(&lab, "forth-again").starts_with("10.244."));
}

const STAND_IN: &str = r#"{"cniVersion": "1.0.0", "name": "aws-cni", "plugins": [{"type": "aws-cni", "bridge": "cni-aws0", "isGateway": true,
  "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.77.0.0/24"}]], "dataDir": "/run/host-local"}}]}"#;

fn node_conf(lab: &Lab) -> PathBuf {
    lab.node("node-1").expect("the lab has a node-1").cni_conf_dir
}

fn facts(lab: &Lab, directory: &str) -> Value {
    let record = Path::new(directory).join("facts.json");
    let record = record.to_str().expect("a plain path");
    let _ = thalweg(&["doctor", "--lab", lab.name(), "--record", record]);
    serde_json::from_slice(&fs::read(record).expect("a record was written")).expect("a record is JSON")
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

/// `thalweg conflicts …` as a lab's node needs it.
fn conflicts(arguments: &[&str]) -> Vec<String> {
    let program = program().display().to_string();
    let words = [program.as_str(), "conflicts"]
        .into_iter()
        .chain(arguments.iter().copied())
        .chain(PLACES);
    words
        .map(str::to_owned)
        .chain(["--node-name".into(), "node-1".into()])
        .collect()
}

fn on_node(lab: &Lab, argv: &[impl AsRef<str>]) -> Output {
    let output = on_node_unchecked(lab, argv);
    let argv: Vec<&str> = argv.iter().map(AsRef::as_ref).collect();
    assert!(output.status.success(), "{argv:?}: {}", said(&output));
    output
}

fn on_node_unchecked(lab: &Lab, argv: &[impl AsRef<str>]) -> Output {
    let argv: Vec<&str> = argv.iter().map(AsRef::as_ref).collect();
    run(lab, "node-1", &argv)
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

fn findings(lab: &Lab) -> Vec<Value> {
    let report = json(&thalweg(&["doctor", "--lab", lab.name(), "-o", "json"]));
    report["findings"].as_array().expect("a list").clone()
}

fn text<'a>(finding: &'a Value, field: &str) -> &'a str {
    finding[field].as_str().unwrap_or_default()
}

fn checks_on<'a>(findings: &'a [Value], node: &str) -> BTreeSet<&'a str> {
    let there = findings.iter().filter(|finding| text(finding, "where") == node);
    there.map(|finding| text(finding, "check")).collect()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(output)))
}

/// A process with a name, in the node: it sleeps.
fn named_process(lab: &Lab, name: &str) -> Child {
    let mut command: Command = lab
        .command(
            &Target::Node("node-1".into()),
            "sh",
            &[
                "-c".into(),
                format!("cp /bin/sleep /run/{name}; exec /run/{name} 600"),
            ],
        )
        .expect("the node is there");
    let child = command.stdin(Stdio::null()).spawn().expect("it starts");
    let comm = PathBuf::from(format!("/proc/{}/comm", child.id()));
    eventually(&format!("{name} runs"), || {
        fs::read_to_string(&comm).is_ok_and(|found| found.trim() == name)
    });
    child
}

fn stop(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}
