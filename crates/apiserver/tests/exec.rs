// SPDX-License-Identifier: Apache-2.0
//! Commands in pods and their logs, over a runtime that starts processes of this machine.

#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

mod cluster;

use std::process::Stdio;
use std::sync::Arc;

use bytes::Bytes;
use cluster::{Cluster, config};
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams};
use thalweg_apiserver::{ExecRequest, ExecSession, LogRequest, LogStream, PodRuntime, RuntimeError};
use tokio::io::AsyncWriteExt as _;

struct Processes;

impl PodRuntime for Processes {
    fn exec(&self, request: ExecRequest) -> BoxFuture<'static, Result<ExecSession, RuntimeError>> {
        let pipe = |wanted| if wanted { Stdio::piped() } else { Stdio::null() };
        let start = move || {
            let mut child = tokio::process::Command::new(&request.command[0])
                .args(&request.command[1..])
                .env("CONTAINER", &request.container)
                .stdin(pipe(request.stdin))
                .stdout(pipe(request.stdout))
                .stderr(pipe(request.stderr))
                .kill_on_drop(true)
                .spawn()
                .map_err(|e| RuntimeError::Failed(format!("cannot start {:?}: {e}", request.command[0])))?;
            Ok(ExecSession {
                stdin: child.stdin.take().map(|s| Box::new(s) as _),
                stdout: child.stdout.take().map(|s| Box::new(s) as _),
                stderr: child.stderr.take().map(|s| Box::new(s) as _),
                resize: None,
                exit: async move {
                    let status = child
                        .wait()
                        .await
                        .map_err(|e| RuntimeError::Failed(e.to_string()))?;
                    Ok(status.code().unwrap_or(137))
                }
                .boxed(),
            })
        };
        async move { start() }.boxed()
    }

    fn logs(&self, request: LogRequest) -> BoxFuture<'static, Result<LogStream, RuntimeError>> {
        let lines = (0..request.tail_lines.unwrap_or(3)).map(|i| Ok(Bytes::from(format!("line {i}\n"))));
        let lines = futures::stream::iter(lines.collect::<Vec<_>>());
        async move { Ok(lines.boxed()) }.boxed()
    }
}

const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: p}
spec: {nodeName: n1, containers: [{name: first, image: x}, {name: second, image: x}]}
";

async fn cluster() -> Cluster {
    let cluster = Cluster::start(config().runtime(Arc::new(Processes)));
    cluster.ok_with(&["create", "-f", "-"], POD).await;
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_exec_carries_streams_and_the_exit_code() {
    let cluster = cluster().await;
    let shell = |script: &'static str| ["exec", "p", "-c", "second", "--", "sh", "-c", script];
    let output = cluster
        .output(&shell("echo out $CONTAINER; echo err >&2; exit 3"), "")
        .await;
    assert_eq!(
        output.status.code(),
        Some(3),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), "out second\n");
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("err\n"));
    let large = "0123456789abcdef".repeat(8192);
    let echoed = cluster.ok_with(&["exec", "-i", "p", "--", "cat"], &large).await;
    assert_eq!(echoed.len(), large.len(), "the input's end ends the command");
    let missing = cluster
        .fails_with(&["exec", "p", "--", "/no/such/program"], "")
        .await;
    assert!(missing.contains("/no/such/program"), "{missing}");
    let other = cluster
        .fails_with(&["exec", "p", "-c", "third", "--", "true"], "")
        .await;
    assert!(other.contains("third"), "{other}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kube_rs_exec_carries_streams_and_the_exit_code() {
    let cluster = cluster().await;
    let pods: Api<Pod> = Api::default_namespaced(cluster.client().await);
    let params = AttachParams::default().stdin(true).stderr(false);
    let mut process = pods.exec("p", ["head", "-n1"], &params).await.unwrap();
    let mut stdin = process.stdin().unwrap();
    stdin.write_all(b"hello\nworld\n").await.unwrap();
    stdin.flush().await.unwrap();
    let mut output = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut process.stdout().unwrap(), &mut output)
        .await
        .unwrap();
    assert_eq!(output, b"hello\n");
    let status = process.take_status().unwrap().await.unwrap();
    assert_eq!(status.status.as_deref(), Some("Success"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_streamed() {
    let cluster = cluster().await;
    assert_eq!(
        cluster.ok(&["logs", "p", "-c", "first", "--tail=2"]).await,
        "line 0\nline 1\n"
    );
}
