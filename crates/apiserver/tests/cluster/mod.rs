// SPDX-License-Identifier: Apache-2.0
//! A server on loopback, and clients for it.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test program uses its part of this"
)]

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use thalweg_apiserver::{ApiServer, Config, ServiceCidrs};

pub const TOKEN: &str = "a-secret";

pub fn config() -> Config {
    let cidrs = ServiceCidrs::Dual("10.96.0.0/24".parse().unwrap(), "fd00:96::/112".parse().unwrap());
    Config::new(TOKEN, cidrs)
}

/// A server, its URL, and a directory with its kubeconfig.
pub struct Cluster {
    pub server: ApiServer,
    pub url: String,
    pub home: tempfile::TempDir,
}

impl Cluster {
    pub fn start(config: Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = ApiServer::start(config, vec![listener]).unwrap();
        let url = format!("https://{}", server.addresses()[0]);
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("kubeconfig"), server.kubeconfig("test", &url)).unwrap();
        Self { server, url, home }
    }

    pub async fn client(&self) -> kube::Client {
        let kubeconfig = kube::config::Kubeconfig::read_from(self.home.path().join("kubeconfig")).unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default())
            .await
            .unwrap();
        kube::Client::try_from(config).unwrap()
    }

    /// `kubectl` as it is installed, with this cluster and a home of its own.
    pub fn kubectl(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .args(args)
            .env("HOME", self.home.path())
            .env("KUBECONFIG", self.home.path().join("kubeconfig"))
            .stdin(Stdio::null());
        command
    }

    /// Runs `kubectl`; what it said, if it succeeded.
    pub async fn run(&self, args: &[&str], input: &str) -> Result<String, String> {
        let output = self.output(args, input).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr))
        }
    }

    pub async fn output(&self, args: &[&str], input: &str) -> Output {
        let mut command = self.kubectl(args);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let input = input.to_owned();
        let run = move || {
            use std::io::Write as _;
            let mut child = command
                .spawn()
                .expect("kubectl has to be installed: it is what this test is about");
            child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
            child.wait_with_output().unwrap()
        };
        tokio::task::spawn_blocking(run).await.unwrap()
    }

    /// Runs `kubectl`, which has to succeed.
    pub async fn ok(&self, args: &[&str]) -> String {
        self.ok_with(args, "").await
    }

    pub async fn ok_with(&self, args: &[&str], input: &str) -> String {
        self.run(args, input)
            .await
            .unwrap_or_else(|error| panic!("kubectl {args:?}: {error}"))
    }

    /// Runs `kubectl`, which has to fail; what it complained about.
    pub async fn fails_with(&self, args: &[&str], input: &str) -> String {
        match self.run(args, input).await {
            Ok(output) => panic!("kubectl {args:?} succeeded: {output}"),
            Err(error) => error,
        }
    }
}
