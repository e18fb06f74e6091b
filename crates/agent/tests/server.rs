// SPDX-License-Identifier: Apache-2.0
//! The plugin's socket with a real agent behind it. Needs root, like `apply.rs`.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::collections::BTreeSet;
use std::io::Write;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use cni::codes;
use cni::protocol::{self, Call, Reply};

use support::{Node, add_of, attachment, privileged, request};

#[test]
fn fifty_adds_and_dels_at_once_give_fifty_addresses_and_leave_nothing() {
    privileged!();
    let node = Node::up();
    let (server, path) = node.serve();
    let before = node.links();
    let namespaces: Vec<OwnedFd> = (0..50).map(|_| node.netns()).collect();
    let replies = at_once(namespaces.len(), |n| {
        request(&path, add_of(attachment(&format!("c{n}"))), &[&namespaces[n]])
    });
    let addresses: BTreeSet<String> = replies.iter().flat_map(addresses).collect();
    assert_eq!(addresses.len(), 100);
    assert_eq!(node.endpoints().len(), 50);
    let del = |n: usize| {
        request(
            &path,
            Call::Del {
                attachment: attachment(&format!("c{n}")),
            },
            &[],
        )
    };
    assert!(at_once(50, del).iter().all(|reply| *reply == Reply::Done));
    assert_eq!((node.endpoints().len(), node.links()), (0, before));
    server.stop();
    assert!(
        UnixStream::connect(&path).is_err(),
        "a stopped server takes no calls"
    );
}

#[test]
fn garbage_gets_an_error_and_the_next_call_is_served() {
    privileged!();
    let node = Node::up();
    let (server, path) = node.serve();
    let long = u32::MAX.to_le_bytes();
    let unknown = br#"{"version":1,"verb":"dance"}"#;
    let future = br#"{"version":9,"verb":"status"}"#;
    for bytes in [
        &b"\x01\0\0\0{"[..],
        &long,
        b"GET / HTTP/1.1\r\n\r\n",
        &framed(unknown),
        &framed(future),
    ] {
        assert_eq!(raw(&path, bytes), codes::PROTOCOL, "{bytes:?}");
    }
    assert_eq!(raw(&path, b""), codes::IO_FAILURE);
    let traversal = add_of(attachment("../../etc"));
    assert!(
        matches!(request(&path, traversal, &[]), Reply::Failed(error) if error.code == codes::INVALID_ENVIRONMENT)
    );
    assert_eq!(request(&path, Call::Status, &[]), Reply::Done);
    server.stop();
}

#[test]
fn descriptors_too_many_are_closed() {
    privileged!();
    let node = Node::up();
    let (server, path) = node.serve();
    let netns = node.netns();
    // Other tests may run in this process: only descriptors of this namespace count.
    let name = |fd: &Path| std::fs::read_link(fd).ok();
    let ours = name(&Path::new("/proc/self/fd").join(netns.as_raw_fd().to_string()));
    let open = || {
        std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter(|fd| name(&fd.as_ref().unwrap().path()) == ours)
            .count()
    };
    assert_eq!(open(), 1);
    assert!(matches!(
        request(&path, add_of(attachment("a")), &[&netns, &netns, &netns]),
        Reply::Added(_)
    ));
    assert_eq!(open(), 1);
    server.stop();
}

fn at_once<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|n| scope.spawn(move || work(n))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn addresses(reply: &Reply) -> Vec<String> {
    match reply {
        Reply::Added(result) => result.ips.iter().map(|ip| ip.address.to_string()).collect(),
        other @ (Reply::Done | Reply::Failed(_)) => panic!("{other:?}"),
    }
}

fn framed(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap();
    [&length.to_le_bytes()[..], body].concat()
}

/// Sends bytes as they are and returns the code of the refusal.
fn raw(path: &Path, bytes: &[u8]) -> u32 {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    match protocol::read::<Reply>(&mut stream).unwrap() {
        Reply::Failed(error) => error.code,
        other @ (Reply::Done | Reply::Added(_)) => panic!("{other:?}"),
    }
}
