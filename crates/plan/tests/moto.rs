// SPDX-License-Identifier: Apache-2.0
//! Generated policies against moto's enforcement of IAM on loopback: every needed call passes, every call whose permission is
//! taken away is denied, and the evaluator agrees with moto on made-up policies.
//!
//! moto (5.2) decides by actions alone: EC2 calls have the resource `*` there, and any Condition denies. So the policies are
//! the unscoped ones, which name the same actions as the scoped ones; resources and conditions are tested in the crate.
#![expect(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::print_stdout,
    reason = "this is a test"
)]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use proptest::strategy::{Strategy, ValueTree as _};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use thalweg_plan::Mode;
use thalweg_plan::iam::{Call, Context, Decision, Policy, Scope, evaluate, needs, policy};

/// Calls of enforce.py that come before there is anybody to enforce against.
const SETUP_CALLS: u32 = 5;
const START_LIMIT: Duration = Duration::from_secs(60);

fn everything() -> Scope {
    Scope {
        ipv6: true,
        select_groups: true,
        scoped: false,
        ..Scope::new(Mode::Eni, "blue")
    }
}

fn actions(scope: &Scope) -> Vec<&'static str> {
    needs(scope).iter().map(|need| need.action).collect()
}

#[test]
fn moto_lets_needed_calls_through_and_nothing_without_permission() {
    let Some(mut moto) = Moto::start() else { return };
    let scope = everything();
    let wanted = actions(&scope);
    let whole = policy(&scope).document.unwrap();

    for (action, outcome) in wanted.iter().zip(moto.ask(&whole, &wanted)) {
        assert_eq!(outcome, "passed", "{action}");
    }
    let statement = &whole["Statement"][0]["Action"];
    assert_eq!(statement.as_array().unwrap().len(), wanted.len());
    for (place, removed) in wanted.iter().enumerate() {
        let mut less = whole.clone();
        less["Statement"][0]["Action"]
            .as_array_mut()
            .unwrap()
            .remove(place);
        let other = wanted[(place + 1) % wanted.len()];
        let outcomes = moto.ask(&less, &[removed, other]);
        assert_eq!(outcomes[0], "denied", "without {removed}");
        assert_ne!(outcomes[1], "denied", "{other} without {removed}");
    }
}

#[test]
fn the_scoped_policy_names_the_same_actions_as_the_unscoped() {
    let named = |scoped| {
        let document = policy(&Scope {
            scoped,
            ..everything()
        })
        .document
        .unwrap();
        let statements = document["Statement"].as_array().unwrap().clone();
        let all = statements
            .iter()
            .flat_map(|statement| statement["Action"].as_array().unwrap().clone());
        all.map(|action| action.as_str().unwrap().to_owned())
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(named(true), named(false));
}

#[test]
fn the_evaluator_agrees_with_moto() {
    const POLICIES: usize = 30;
    let Some(mut moto) = Moto::start() else { return };
    let asked: Vec<&str> = actions(&everything())
        .into_iter()
        .filter(|action| cheap(action))
        .collect();
    let mut runner = TestRunner::deterministic();
    let (mut allowed, mut denied) = (0, 0);
    for _ in 0..POLICIES {
        let document = made_up(&asked).new_tree(&mut runner).unwrap().current();
        let parsed = Policy::parse("made up", &document.to_string()).unwrap();
        for (action, outcome) in asked.iter().zip(moto.ask(&document, &asked)) {
            let call = Call {
                action: (*action).to_owned(),
                resource: "*".to_owned(),
                context: Context::default(),
            };
            let ours = matches!(
                evaluate(std::slice::from_ref(&parsed), &call),
                Decision::Allowed { .. }
            );
            assert_eq!(
                ours,
                outcome != "denied",
                "{action} under {document}: moto says {outcome}"
            );
            *(if ours { &mut allowed } else { &mut denied }) += 1;
        }
    }
    assert!(
        allowed > 50 && denied > 50,
        "{allowed} allowed, {denied} denied: the policies are one-sided"
    );
}

/// One quick request each.
fn cheap(action: &str) -> bool {
    action == "ec2:CreateNetworkInterface"
        || (action.contains("Describe") && action != "ec2:DescribeInstanceTypes")
}

/// Statements of the kinds on which moto follows IAM: Allow and Deny, actions with `*`, NotAction.
fn made_up(actions: &[&str]) -> impl Strategy<Value = Value> + use<> {
    let mut patterns: Vec<String> = actions.iter().map(|action| (*action).to_owned()).collect();
    patterns.extend(
        [
            "ec2:*",
            "*",
            "ec2:Describe*",
            "ec2:*Network*",
            "ec2:*s",
            "iam:*",
            "ec2:Create*",
        ]
        .map(str::to_owned),
    );
    let patterns = proptest::collection::vec(proptest::sample::select(patterns), 1..4);
    let statement = (
        proptest::bool::weighted(0.25),
        proptest::bool::weighted(0.2),
        patterns,
    )
        .prop_map(|(deny, not, patterns)| {
            let key = if not { "NotAction" } else { "Action" };
            json!({ "Effect": if deny { "Deny" } else { "Allow" }, key: patterns, "Resource": "*" })
        });
    proptest::collection::vec(statement, 1..4)
        .prop_map(|list| json!({ "Version": "2012-10-17", "Statement": list }))
}

/// A server with its helper; both end with this.
struct Moto {
    server: Child,
    helper: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

fn environment() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let bin = root.join("target/moto/bin");
    if bin.join("moto_server").exists() {
        return Some(bin);
    }
    let owed = std::env::var_os("CI").is_some() || std::env::var_os("REQUIRE_PRIVILEGED").is_some();
    assert!(!owed, "target/moto is not there; `./dev setup test` installs it");
    println!("SKIPPED: target/moto is not there; `./dev setup test` installs it");
    None
}

impl Moto {
    fn start() -> Option<Self> {
        let bin = environment()?;
        // Free a moment ago; the server says so if somebody else was quicker.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let server = Command::new(bin.join("moto_server"))
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .env("INITIAL_NO_AUTH_ACTION_COUNT", SETUP_CALLS.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let end = Instant::now() + START_LIMIT;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < end, "moto does not listen after {START_LIMIT:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/moto/enforce.py");
        let mut helper = Command::new(bin.join("python"))
            .arg(script)
            .arg(format!("http://127.0.0.1:{port}"))
            .env("NO_PROXY", "127.0.0.1")
            .env_remove("AWS_PROFILE")
            .env("AWS_CONFIG_FILE", "/dev/null")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = helper.stdin.take().unwrap();
        let output = BufReader::new(helper.stdout.take().unwrap());
        let mut moto = Self {
            server,
            helper,
            input,
            output,
        };
        assert_eq!(moto.line(), "ready");
        Some(moto)
    }

    fn ask(&mut self, policy: &Value, calls: &[&str]) -> Vec<String> {
        writeln!(self.input, "{}", json!({ "policy": policy, "calls": calls })).unwrap();
        serde_json::from_str(&self.line()).unwrap()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the helper ended; its error is above");
        line.trim_end().to_owned()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        for child in [&mut self.helper, &mut self.server] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
