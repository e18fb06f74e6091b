// SPDX-License-Identifier: Apache-2.0
//! An emulated AWS on loopback for tests: moto, with what it lacks and what goes wrong put in front of it.
//!
//! Start from [`Cloud::start`].
#![expect(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::print_stdout,
    reason = "this is for tests"
)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use aws::{Client, Credentials, Settings};
use serde_json::{Value, json};

/// The region of everything here.
pub const REGION: &str = "eu-central-1";
/// A path of nothing: requests to EC2 and IAM all go to the root.
const ROOT: &str = "/";

/// An emulated AWS; it ends with this.
#[derive(Debug)]
pub struct Cloud {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    endpoint: String,
}

fn python() -> Option<PathBuf> {
    let bin = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/moto/bin");
    if bin.join("moto_server").exists() {
        return Some(bin.join("python"));
    }
    let owed = std::env::var_os("CI").is_some() || std::env::var_os("REQUIRE_PRIVILEGED").is_some();
    assert!(!owed, "target/moto is not there; `./dev setup test` installs it");
    println!("SKIPPED: target/moto is not there; `./dev setup test` installs it");
    None
}

impl Cloud {
    /// Starts one, empty but for what a new account has. `None` when the test must be skipped.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start() -> Option<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("cloud.py");
        let mut command = Command::new(python()?);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("AWS_") {
                command.env_remove(name);
            }
        }
        let mut process = command
            .arg(script)
            .env("NO_PROXY", "127.0.0.1")
            .env("AWS_CONFIG_FILE", "/dev/null")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut cloud = Self {
            input: process.stdin.take().unwrap(),
            output: BufReader::new(process.stdout.take().unwrap()),
            process,
            endpoint: String::new(),
        };
        cloud.endpoint = format!("http://127.0.0.1:{}", cloud.line());
        Some(cloud)
    }

    /// Where it is.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Makes a call by AWS's own library, whom it may not be denied, and returns the answer.
    ///
    /// # Panics
    /// When it fails.
    pub fn call(&mut self, service: &str, operation: &str, arguments: Value) -> Value {
        let order = json!({"call": [service, operation, arguments], "region": REGION});
        let mut answer = self.order(&order);
        assert!(answer.get("error").is_none(), "{operation}: {answer}");
        answer["ok"].take()
    }

    /// Answers requests to this path itself from now on, `times` often or, with 0, always. `kind` is EKS's header for errors.
    pub fn answer(&mut self, path: &str, (status, kind): (u16, &str), body: Value, times: u32) {
        let answer = json!({"path": path, "status": status, "type": kind, "body": body, "times": times});
        self.order(&json!({ "answer": answer }));
    }

    /// Answers requests to this path no longer.
    pub fn forget(&mut self, path: &str) {
        self.order(&json!({ "forget": path }));
    }

    /// Throttles an action of EC2, `times` often or, with 0, always.
    pub fn throttle(&mut self, action: &str, times: u32) {
        let body = "<Response><Errors><Error><Code>RequestLimitExceeded</Code><Message>Request limit exceeded.</Message></Error></Errors></Response>";
        self.answer(&format!("{ROOT}?{action}"), (503, ""), json!(body), times);
    }

    /// Lays fields over its answers to this path.
    pub fn overlay(&mut self, path: &str, body: Value) {
        self.order(&json!({"overlay": {"path": path, "body": body}}));
    }

    /// Whether it decides by IAM who may do what.
    pub fn enforce(&mut self, enforce: bool) {
        self.order(&json!({ "enforce": enforce }));
    }

    /// A user who may do these actions.
    pub fn user(&mut self, name: &str, actions: &[&str]) -> Credentials {
        self.call("iam", "create_user", json!({ "UserName": name }));
        let document = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]});
        let policy =
            json!({"UserName": name, "PolicyName": "granted", "PolicyDocument": document.to_string()});
        self.call("iam", "put_user_policy", policy);
        let key = self.call("iam", "create_access_key", json!({ "UserName": name }));
        let part = |name: &str| key["AccessKey"][name].as_str().unwrap();
        Credentials::new(part("AccessKeyId"), part("SecretAccessKey"), None)
    }

    /// Our client of it, as this user or as nobody in particular.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn client(&self, credentials: Option<Credentials>) -> Client {
        let nobody = || Credentials::new("nobody", "nobody", None);
        Client::new(Settings {
            endpoint: Some(self.endpoint.clone()),
            pause: Duration::from_millis(5),
            // The emulator takes half a minute for all instance types.
            timeout: Duration::from_secs(100),
            ..Settings::new(REGION, credentials.unwrap_or_else(nobody))
        })
        .unwrap()
    }

    fn order(&mut self, order: &Value) -> Value {
        writeln!(self.input, "{order}").unwrap();
        serde_json::from_str(&self.line()).unwrap()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the emulated cloud ended; its error is above");
        line.trim_end().to_owned()
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
