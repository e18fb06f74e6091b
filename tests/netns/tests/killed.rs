// SPDX-License-Identifier: Apache-2.0
//! An agent that is killed in the middle of ADDs, as container runtimes meet it: with the plugin's own program.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::Write as _;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use lab::NodeHandle;
use netlink::{Netlink, netns};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests_netns::examine::json as printed;
use tests_netns::hitless::Traffic;
use tests_netns::{agent_status, eventually, said, start};
use thalweg_tests_netns as tests_netns;

const ROUNDS: u64 = 12;
/// ADDs that are under way when the agent is killed.
const AT_ONCE: usize = 4;
/// From one round to the next the kill comes so much later: an ADD takes some ms to some tens of ms.
const STEP: Duration = Duration::from_micros(2700);

#[test]
fn an_agent_killed_in_the_middle_of_adds_loses_no_address_and_no_packet() {
    let Some(lab) = start("killed-add", |_| ()) else {
        return;
    };
    let node = lab.node("node-1").unwrap();
    let before = host_ends(&node);
    let near = lab.pod_ips("pod-1-2").unwrap();
    let mut traffic = Traffic::new();
    traffic.connect(&lab, "pod-1-1", "pod-1-2", near[0], 5);
    traffic.stream(&lab, "pod-1-1", "pod-1-2", near[1]);

    let mut pods = Vec::new();
    for round in 0..ROUNDS {
        let new: Vec<Pod> = (0..AT_ONCE)
            .map(|n| Pod::new(format!("killed-{round}-{n}")))
            .collect();
        let calls: Vec<Child> = new.iter().map(|pod| pod.start(&node, "ADD")).collect();
        std::thread::sleep(STEP * u32::try_from(round).unwrap());
        lab.restart_agent("node-1", Signal::SIGKILL).unwrap();
        for (pod, call) in new.into_iter().zip(calls) {
            let added = call.wait_with_output().unwrap();
            if !added.status.success() {
                assert_eq!(printed(&added)["code"], 11, "{}", said(&added));
            }
            // A runtime gives a failed sandbox up with DEL, or tries once more; both after either end.
            if pods.len() % 2 == 0 {
                assert!(pod.run(&node, "DEL").status.success());
            }
            pods.push(pod);
        }
    }
    let mut addresses: Vec<IpAddr> = pods.iter().flat_map(|pod| pod.add(&node)).collect();
    for pod in pods.iter().step_by(7) {
        assert!(pod.pings(near[0]), "{} cannot ping {}", pod.id, near[0]);
    }
    let count = addresses.len();
    addresses.sort();
    addresses.dedup();
    assert_eq!(
        (count, addresses.len()),
        (2 * pods.len(), 2 * pods.len()),
        "an address was given twice"
    );
    assert_eq!(agent_status(&lab, "node-1").endpoints.total, pods.len() + 2);

    for pod in &pods {
        assert!(pod.run(&node, "DEL").status.success());
    }
    assert_eq!(host_ends(&node), before);
    eventually("all addresses are free again", || {
        let pools = agent_status(&lab, "node-1").ipam;
        pools.iter().all(|pool| (pool.used, pool.quarantined) == (2, 0))
    });
    let report = traffic.finish();
    assert_eq!(report.broken, [""; 0]);
    assert_eq!(report.sent, report.received, "datagrams were lost");
}

/// A pod of a runtime played by the test.
struct Pod {
    id: String,
    netns: OwnedFd,
}

impl Pod {
    fn new(id: String) -> Self {
        let netns = netns::create().unwrap();
        Self { id, netns }
    }

    fn start(&self, node: &NodeHandle, verb: &str) -> Child {
        let config = json!({
            "cniVersion": "1.1.0", "name": "thalweg", "type": "thalweg-cni",
            "socket": node.run_dir.join("thalweg/cni.sock"),
        });
        let path = format!("/proc/{}/fd/{}", std::process::id(), self.netns.as_raw_fd());
        let mut child = Command::new(tests_netns::program().with_file_name("thalweg-cni"))
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", &self.id)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_NETNS", path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(config.to_string().as_bytes())
            .unwrap();
        child
    }

    fn run(&self, node: &NodeHandle, verb: &str) -> Output {
        self.start(node, verb).wait_with_output().unwrap()
    }

    fn add(&self, node: &NodeHandle) -> Vec<IpAddr> {
        let added = self.run(node, "ADD");
        assert!(added.status.success(), "{}: {}", self.id, said(&added));
        let result = printed(&added);
        let ips = result["ips"].as_array().unwrap();
        let ip = |ip: &Value| ip["address"].as_str()?.split('/').next()?.parse().ok();
        ips.iter().map(|found| ip(found).unwrap()).collect()
    }

    fn pings(&self, to: IpAddr) -> bool {
        let ping = || {
            Command::new("ping")
                .args(["-n", "-c", "1", "-W", "5", &to.to_string()])
                .output()
        };
        netns::run_in(self.netns.as_fd(), ping)
            .unwrap()
            .unwrap()
            .status
            .success()
    }
}

fn host_ends(node: &NodeHandle) -> Vec<String> {
    let inside = netns::open(&node.netns).unwrap();
    let links = Netlink::open_in(inside.as_fd()).unwrap().links().unwrap();
    links.into_iter().map(|link| link.name).collect()
}
