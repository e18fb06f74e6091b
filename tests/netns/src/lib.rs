// SPDX-License-Identifier: Apache-2.0
//! Real agents and real traffic in network namespaces: what the tests share. Each test starts labs of its own under names
//! that no other test and no other run has; with `KEEP=1` they stay, and how to look into them is printed.
//!
//! Start from [`start`].

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use api::agent::Status;
use lab::{Guard, Lab, Options, Spec};

pub mod examine;
pub mod hitless;
pub mod objects;

/// How long anything in a test may take that takes milliseconds when all is well.
pub const LIMIT: Duration = Duration::from_secs(20);
/// How often a condition is looked at that nothing announces.
const POLL: Duration = Duration::from_millis(20);
/// What a TCP transfer in a test sends.
const TRANSFER: usize = 1 << 20;

/// Whether privileged tests can run here. If not it says so, and fails when `REQUIRE_PRIVILEGED=1`.
#[must_use]
#[expect(clippy::print_stdout, reason = "a skip must be seen")]
pub fn privileged() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        let required = std::env::var_os("REQUIRE_PRIVILEGED").is_some_and(|value| value == "1");
        assert!(
            !required,
            "this test needs root, and REQUIRE_PRIVILEGED=1 forbids to skip it"
        );
        println!("SKIPPED: needs root");
    }
    root
}

/// The program under test: `THALWEG_BIN`, or the release build of this workspace.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn program() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
    let program =
        std::env::var_os("THALWEG_BIN").map_or_else(|| target.join("release/thalweg"), PathBuf::from);
    assert!(
        program.is_file(),
        "{} is missing; `./dev build` makes it",
        program.display()
    );
    program.canonicalize().unwrap_or(program)
}

/// A name for a lab that nobody else uses.
#[must_use]
pub fn unique(test: &str) -> String {
    format!("{test}-{}", std::process::id())
}

/// Starts a lab of two nodes with two pods each, changed by `edit`. `None` when the test must be skipped.
///
/// # Panics
/// When the lab does not start.
#[must_use]
pub fn start(test: &str, edit: impl FnOnce(&mut Spec)) -> Option<Guard> {
    if !privileged() {
        return None;
    }
    let mut spec = Spec {
        name: unique(test),
        nodes: lab::spec::Nodes::Count(2),
        ..Spec::default()
    };
    edit(&mut spec);
    let keep = std::env::var_os("KEEP").is_some();
    let options = Options {
        spec,
        program: program(),
        keep_failed: keep,
        owned: !keep,
    };
    match Lab::up(&options, |_| ()) {
        Ok(lab) => Some(lab.guard()),
        Err(error) => panic!("{error}"),
    }
}

/// Runs the program under test.
///
/// # Panics
/// When it cannot be run.
#[must_use]
pub fn thalweg(arguments: &[&str]) -> Output {
    Command::new(program())
        .args(arguments)
        .output()
        .expect("the program runs")
}

/// What a command printed, both streams.
#[must_use]
pub fn said(output: &Output) -> String {
    let streams = [&output.stdout, &output.stderr].map(|stream| String::from_utf8_lossy(stream).into_owned());
    streams.concat()
}

/// Whether an address answers a ping from a pod or a node.
///
/// # Panics
/// When it does not, with what ping said.
pub fn assert_pings(lab: &Lab, from: &str, to: IpAddr) {
    let output = run(
        lab,
        from,
        &["ping", "-n", "-c", "2", "-i", "0.05", "-W", "5", &to.to_string()],
    );
    assert!(
        output.status.success(),
        "{from} cannot ping {to}:\n{}",
        said(&output)
    );
}

/// Runs a command in a pod or on a node.
///
/// # Panics
/// When it cannot be run.
#[must_use]
pub fn run(lab: &Lab, target: &str, argv: &[&str]) -> Output {
    let arguments: Vec<String> = argv[1..].iter().map(|&argument| argument.to_owned()).collect();
    let command = lab.command(&lab.target(None, target), argv[0], &arguments);
    command
        .and_then(|mut command| {
            let output = command.output();
            output.map_err(|error| lab::Error::Failed(format!("cannot run {argv:?}: {error}")))
        })
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Runs code in the network namespace of a pod or a node, on a thread of its own. Sockets made there stay there.
///
/// # Panics
/// When there is no such pod or node.
pub fn within<T: Send>(lab: &Lab, target: &str, work: impl FnOnce() -> T + Send) -> T {
    let path = match lab.target(None, target) {
        lab::Target::Node(node) => lab.node(&node).map(|node| node.netns),
        lab::Target::Pod { namespace, name } => lab
            .pod(&namespace, &name)
            .map(|pod| pod.netns().expect("a pod of its own network")),
    };
    let netns = path
        .and_then(|path| Ok(netlink::netns::open(&path)?))
        .unwrap_or_else(|error| panic!("{error}"));
    netlink::netns::run_in(netns.as_fd(), work).unwrap_or_else(|error| panic!("{error}"))
}

/// Sends a megabyte by TCP and gets it back.
///
/// # Panics
/// When a byte is missing or the connection breaks.
pub fn assert_tcp(lab: &Lab, from: &str, to: &str, address: IpAddr) {
    let listener = listen(lab, to, SocketAddr::new(address, 0));
    let address = listener.local_addr().expect("a bound socket has an address");
    echo_of(lab, from, listener, address);
}

/// The same with a server that is reached by another address and port than its own.
///
/// # Panics
/// When a byte is missing or the connection breaks.
pub fn assert_tcp_via(lab: &Lab, from: &str, to: &str, own: SocketAddr, reached: SocketAddr) {
    echo_of(lab, from, listen(lab, to, own), reached);
}

fn listen(lab: &Lab, on: &str, address: SocketAddr) -> TcpListener {
    within(lab, on, || TcpListener::bind(address))
        .unwrap_or_else(|error| panic!("{on} cannot listen on {address}: {error}"))
}

/// Listens in the underlay, which is no node: for the lab it is the world.
///
/// # Panics
/// When the address is none of the underlay's.
#[must_use]
pub fn listen_in_world(lab: &Lab, address: IpAddr) -> TcpListener {
    let network = lab.state().underlay.expect("it runs").namespace("net");
    let network = netlink::netns::open(&network).expect("it runs");
    let bind = move || TcpListener::bind((address, 0));
    let bound = netlink::netns::run_in(network.as_fd(), bind).expect("the namespace is there");
    bound.unwrap_or_else(|error| panic!("the world cannot listen on {address}: {error}"))
}

/// All addresses of a node or a pod.
///
/// # Panics
/// When there is neither of this name.
#[must_use]
pub fn addresses(lab: &Lab, target: &str) -> Vec<IpAddr> {
    match lab.node(target) {
        Ok(node) => node.addresses,
        Err(_) => lab.pod_ips(target).expect("a pod"),
    }
}

fn echo_of(lab: &Lab, from: &str, listener: TcpListener, address: SocketAddr) {
    let echo = std::thread::spawn(move || -> std::io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut all = vec![0; TRANSFER];
        stream.read_exact(&mut all)?;
        stream.write_all(&all)
    });
    let talk = || -> std::io::Result<bool> {
        let mut stream = within(lab, from, || TcpStream::connect_timeout(&address, LIMIT))?;
        stream.set_read_timeout(Some(LIMIT))?;
        let sent: Vec<u8> = (0..TRANSFER).map(|i| i.to_le_bytes()[i % 3]).collect();
        stream.write_all(&sent)?;
        let mut back = vec![0; TRANSFER];
        stream.read_exact(&mut back)?;
        Ok(sent == back)
    };
    match talk() {
        Ok(true) => echo.join().expect("no panic").expect("the other end was well"),
        Ok(false) => panic!("{from} to {address} by TCP: other bytes came back"),
        Err(error) => panic!("{from} to {address} by TCP: {error}"),
    }
}

/// What a node's agent answers to `/v1/status`.
///
/// # Panics
/// When it does not answer.
#[must_use]
pub fn agent_status(lab: &Lab, node: &str) -> Status {
    let answer = ask_agent(lab, node, "/v1/status");
    serde_json::from_str(&answer).unwrap_or_else(|error| panic!("agent of {node}: {error} in {answer}"))
}

/// What a node's agent answers to a question.
///
/// # Panics
/// When it does not answer.
#[must_use]
pub fn ask_agent(lab: &Lab, node: &str, path: &str) -> String {
    let ask = || -> std::io::Result<String> {
        let socket = lab.agent_socket(node).map_err(std::io::Error::other)?;
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(LIMIT))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: agent\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        Ok(body.to_owned())
    };
    ask().unwrap_or_else(|error| panic!("agent of {node}: {error}"))
}

/// Changes a setting of a node's agent, of which it knows once it is started anew.
///
/// # Panics
/// When its file of settings is not there.
pub fn set_agent(lab: &Lab, node: &str, key: &str, value: serde_json::Value) {
    let file = lab
        .node(node)
        .expect("the node runs")
        .host_path(Path::new(AGENT_SETTINGS));
    let text = std::fs::read(&file).expect("the lab has written it");
    let mut settings: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&text).expect("a map of settings");
    settings.insert(key.to_owned(), value);
    let text = serde_json::to_vec(&settings).expect("plain values");
    std::fs::write(&file, text).expect("the file can be written");
}

/// Where an agent of a lab finds its settings.
const AGENT_SETTINGS: &str = "/run/thalweg-lab/agent.yaml";

/// How many packets a node has dropped for a reason.
#[must_use]
pub fn drops(lab: &Lab, node: &str, reason: &str) -> u64 {
    let drops = agent_status(lab, node).drops;
    drops
        .iter()
        .filter(|drop| drop.reason == reason)
        .map(|drop| drop.packets)
        .sum()
}

/// Waits until a condition holds that nothing announces.
///
/// # Panics
/// When it does not hold within [`LIMIT`].
pub fn eventually(what: &str, condition: impl Fn() -> bool) {
    eventually_within(LIMIT, what, condition);
}

/// The same for what takes longer.
///
/// # Panics
/// When it does not hold within `limit`.
pub fn eventually_within(limit: Duration, what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(
            begin.elapsed() < limit,
            "{what}: not within {} s",
            limit.as_secs()
        );
        std::thread::sleep(POLL);
    }
}
