// SPDX-License-Identifier: Apache-2.0
//! The program as a container runtime runs it, against an agent played by the test.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::{IoSliceMut, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cni::protocol::{self, Call, Reply, Request};
use cni::{AddResult, Attachment, Interface, codes};
use nix::sys::socket::{MsgFlags, UnixAddr, recvmsg};
use serde_json::{Value, json};

struct Outcome {
    ok: bool,
    stdout: String,
}

impl Outcome {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap()
    }

    fn code(&self) -> u32 {
        assert!(!self.ok, "{}", self.stdout);
        u32::try_from(self.json()["code"].as_u64().unwrap()).unwrap()
    }
}

#[test]
fn add_passes_the_namespace_and_prints_the_result_in_the_callers_version() {
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(dir.path(), Reply::Added(result()));
    let outcome = run("ADD", &conf(dir.path(), "0.4.0"));
    let (request, fds) = agent.join().unwrap();
    assert!(
        matches!(request.call, Call::Add { ref attachment, .. } if *attachment == ours()),
        "{request:?}"
    );
    assert_eq!(fds, 1);
    assert!(outcome.ok);
    assert_eq!(outcome.json()["cniVersion"], "0.4.0");
    assert_eq!(outcome.json()["interfaces"][0]["name"], "tw0");
}

#[test]
fn an_error_of_the_agent_is_printed_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(
        dir.path(),
        Reply::Failed(cni::Error::new(codes::POOL_EXHAUSTED, "full", "delete pods")),
    );
    let outcome = run("ADD", &conf(dir.path(), "1.1.0"));
    agent.join().unwrap();
    assert_eq!(outcome.code(), codes::POOL_EXHAUSTED);
    assert_eq!(outcome.json()["details"], "delete pods");
}

#[test]
fn add_without_an_agent_fails_at_once_and_may_be_retried() {
    let dir = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let outcome = run("ADD", &conf(dir.path(), "1.0.0"));
    assert_eq!(outcome.code(), codes::TRY_AGAIN_LATER);
    assert!(outcome.json()["msg"].as_str().unwrap().contains("cni.sock"));
    assert!(started.elapsed() < Duration::from_secs(1));
    assert_eq!(
        run("STATUS", &conf(dir.path(), "1.1.0")).code(),
        codes::NOT_AVAILABLE
    );
}

#[test]
fn del_without_an_agent_succeeds_and_is_queued_once() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let outcome = run("DEL", &conf(dir.path(), "1.0.0"));
        assert!(outcome.ok, "{}", outcome.stdout);
        assert_eq!(outcome.stdout, "");
    }
    let files: Vec<_> = std::fs::read_dir(dir.path().join(protocol::DELETE_QUEUE_DIR))
        .unwrap()
        .collect();
    assert_eq!(files.len(), 1);
    let queued = std::fs::read(files[0].as_ref().unwrap().path()).unwrap();
    assert_eq!(serde_json::from_slice::<Attachment>(&queued).unwrap(), ours());
}

#[test]
fn a_del_that_the_agent_died_on_is_queued() {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("cni.sock")).unwrap();
    let agent = std::thread::spawn(move || drop(listener.accept().unwrap()));
    let outcome = run("DEL", &conf(dir.path(), "1.0.0"));
    agent.join().unwrap();
    assert!(outcome.ok, "{}", outcome.stdout);
    let queue = dir.path().join(protocol::DELETE_QUEUE_DIR);
    assert_eq!(std::fs::read_dir(queue).unwrap().count(), 1);
}

#[test]
fn gc_hands_over_what_is_to_stay() {
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(dir.path(), Reply::Done);
    let mut conf = conf(dir.path(), "1.1.0");
    conf["cni.dev/valid-attachments"] = json!([ours()]);
    let outcome = run("GC", &conf);
    let (request, _) = agent.join().unwrap();
    assert_eq!(
        request.call,
        Call::Gc {
            network: "thalweg".into(),
            valid: vec![ours()]
        }
    );
    assert!(outcome.ok && outcome.stdout.is_empty());
}

#[test]
fn version_needs_no_agent_and_garbage_is_refused_in_json() {
    let outcome = run("VERSION", &json!({"cniVersion": "1.0.0"}));
    assert!(outcome.ok);
    assert_eq!(outcome.json()["supportedVersions"].as_array().unwrap().len(), 5);
    assert_eq!(
        run_bytes("ADD", b"\xff\x00garbage").code(),
        codes::DECODING_FAILURE
    );
    assert_eq!(run_bytes("DANCE", b"{}").code(), codes::INVALID_ENVIRONMENT);
    assert_eq!(
        run_bytes("ADD", &vec![b' '; cni::MAX_STDIN + 1]).code(),
        codes::DECODING_FAILURE
    );
}

fn ours() -> Attachment {
    Attachment {
        container_id: "c0ffee".into(),
        ifname: "eth0".into(),
    }
}

fn conf(dir: &Path, version: &str) -> Value {
    json!({"cniVersion": version, "name": "thalweg", "type": "thalweg-cni", "socket": dir.join("cni.sock")})
}

fn result() -> AddResult {
    let interface = Interface {
        name: "tw0".into(),
        mac: None,
        mtu: Some(1500),
        sandbox: None,
    };
    AddResult {
        interfaces: vec![interface],
        ..AddResult::default()
    }
}

/// Serves one request with `reply`; joins to the request and the number of descriptors that came with it.
fn agent(dir: &Path, reply: Reply) -> JoinHandle<(Request, usize)> {
    let listener = UnixListener::bind(dir.join("cni.sock")).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut prefix = [0; 4];
        let mut space = nix::cmsg_space!([i32; 4]);
        let mut parts = [IoSliceMut::new(&mut prefix)];
        let message = recvmsg::<UnixAddr>(
            stream.as_raw_fd(),
            &mut parts,
            Some(&mut space),
            MsgFlags::empty(),
        )
        .unwrap();
        let fds = message.cmsgs().unwrap().count();
        let mut body = vec![0; u32::from_le_bytes(prefix) as usize];
        stream.read_exact(&mut body).unwrap();
        protocol::write(&mut stream, &reply).unwrap();
        (protocol::decode(&body).unwrap(), fds)
    })
}

fn run(command: &str, conf: &Value) -> Outcome {
    run_bytes(command, conf.to_string().as_bytes())
}

fn run_bytes(command: &str, stdin: &[u8]) -> Outcome {
    let mut child = Command::new(env!("CARGO_BIN_EXE_thalweg-cni"))
        .env_clear()
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", ours().container_id)
        .env("CNI_IFNAME", ours().ifname)
        .env("CNI_NETNS", "/proc/self/ns/net")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that refuses early may close its input before all is written.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    let output = child.wait_with_output().unwrap();
    Outcome {
        ok: output.status.success(),
        stdout: String::from_utf8(output.stdout).unwrap(),
    }
}
