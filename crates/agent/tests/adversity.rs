// SPDX-License-Identifier: Apache-2.0
//! What container runtimes, operators and crashes do to an agent. Needs root, like `apply.rs`.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use cni::codes;
use cni::protocol::{Call, Reply};
use datapath::Datapath;
use thalweg_agent::lock;

use support::{Node, add_of, attachment, exchange, privileged};

/// More calls than the agent takes at once.
const MANY: usize = 500;
/// Pods that come and go.
const CYCLES: usize = 400;
/// What allocators and caches may still take after the first cycles, in KiB.
const GROWTH_KIB: usize = 4096;

#[test]
fn adds_and_dels_of_one_container_at_once_end_in_one_state_or_the_other() {
    privileged!();
    let node = Node::up();
    let before = node.links();
    let pod = node.netns();
    for _ in 0..25 {
        at_once(6, |n| match n % 2 {
            0 => node.call(add_of(attachment("a")), Some(&pod)),
            _ => node.call(del_of("a"), None),
        })
        .iter()
        .for_each(|reply| assert!(!matches!(reply, Reply::Failed(_)), "{reply:?}"));
        assert!(node.endpoints().len() <= 1);
    }
    let ips = node.add("a", &pod);
    exchange(None, Some(&pod), &ips[0]);
    node.del("a").unwrap();
    assert_eq!((node.endpoints().len(), node.links()), (0, before));
    assert_eq!(node.rows(), ["172.30.0.1", "fd74:77::1"]);
    node.wait(|view| view.pools.iter().all(|pool| pool.used + pool.resting == 0));
}

#[test]
fn five_hundred_adds_at_once_are_all_served_or_asked_to_come_again() {
    privileged!();
    let node = Node::with_pools(&["10.244.0.0/20", "fd74:7710::/64"]);
    let namespaces: Vec<OwnedFd> = (0..MANY).map(|_| node.netns()).collect();
    let (server, path) = node.serve();
    let mut waiting: Vec<usize> = (0..MANY).collect();
    let mut addresses = BTreeSet::new();
    // As runtimes do: what was to come again comes again.
    for _ in 0..MANY {
        let replies = at_once(waiting.len(), |n| {
            let id = format!("c{}", waiting[n]);
            support::request(&path, add_of(attachment(&id)), &[&namespaces[waiting[n]]])
        });
        let mut again = Vec::new();
        for (n, reply) in waiting.iter().zip(replies) {
            match reply {
                Reply::Added(result) => addresses.extend(result.ips.iter().map(|ip| ip.address.addr())),
                Reply::Failed(error) => {
                    assert_eq!(error.code, codes::TRY_AGAIN_LATER, "{error}");
                    again.push(*n);
                }
                Reply::Done => panic!("DONE for an ADD"),
            }
        }
        waiting = again;
        if waiting.is_empty() {
            break;
        }
    }
    assert_eq!(
        (waiting.len(), addresses.len(), node.endpoints().len()),
        (0, 2 * MANY, MANY)
    );
    server.stop();
}

#[test]
fn pods_that_come_and_go_leave_no_descriptor_and_no_memory() {
    privileged!();
    let node = Node::up();
    let (pod, links) = (node.netns(), node.links());
    let cycle = || {
        node.add("a", &pod);
        node.del("a").unwrap();
    };
    (0..CYCLES / 10).for_each(|_| cycle());
    let (descriptors, memory) = (descriptors(), resident_kib());
    (0..CYCLES).for_each(|_| cycle());
    // Other tests of this program may run beside.
    assert!(
        self::descriptors() <= descriptors + 8,
        "{descriptors} before, {} after",
        self::descriptors()
    );
    let grown = resident_kib().saturating_sub(memory);
    assert!(grown < GROWTH_KIB, "{grown} KiB more than before");
    assert_eq!(node.links(), links);
    node.wait(|view| view.pools.iter().all(|pool| pool.used + pool.resting == 0));
}

#[test]
fn a_second_agent_with_a_run_directory_of_its_own_finds_the_first_ones_programs_taken() {
    privileged!();
    let node = Node::up();
    let first = Datapath::lock(node.bpffs()).unwrap();
    let error = Datapath::lock(node.bpffs()).unwrap_err().to_string();
    assert!(
        error.contains("thalweg") && error.contains("stop it first"),
        "{error}"
    );
    drop(first);
    drop(Datapath::lock(node.bpffs()).unwrap());
    let run_dir = tempfile::tempdir().unwrap();
    lock::Lock::take(run_dir.path()).unwrap();
}

#[test]
fn gc_while_pods_come_removes_only_what_the_runtime_does_not_list() {
    privileged!();
    let node = Node::up();
    let namespaces: Vec<OwnedFd> = (0..20).map(|_| node.netns()).collect();
    let kept = ["c0", "c1", "c2"].map(attachment);
    for (id, netns) in ["c0", "c1", "c2", "stale"].iter().zip(&namespaces) {
        node.add(id, netns);
    }
    let gc = Call::Gc {
        network: "thalweg".into(),
        valid: kept.to_vec(),
    };
    let replies = at_once(3, |_| node.call(gc.clone(), None));
    assert!(replies.iter().all(|reply| *reply == Reply::Done), "{replies:?}");
    assert_eq!(node.endpoints(), ["c0/eth0", "c1/eth0", "c2/eth0"]);
    let unknown = Call::Gc {
        network: "thalweg".into(),
        valid: kept.into_iter().chain([attachment("never-seen")]).collect(),
    };
    assert_eq!(node.call(unknown, None), Reply::Done);
    assert_eq!(node.endpoints().len(), 3);
    assert_eq!(node.call(del_of("never-seen"), None), Reply::Done);
}

fn del_of(id: &str) -> Call {
    Call::Del {
        attachment: attachment(id),
    }
}

fn at_once<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|n| scope.spawn(move || work(n))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
