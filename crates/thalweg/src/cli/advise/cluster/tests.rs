// SPDX-License-Identifier: Apache-2.0
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;

use plan::advise::{Question, detect};
use plan::cloud::Cloud;
use serde_json::{Value, json};

use super::*;

/// An API server that answers each path with what `answer` says, and everything but GET with 405.
fn server(answer: fn(&str) -> (u16, Value)) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = BufReader::new(stream.try_clone().unwrap())
                .lines()
                .map_while(Result::ok);
            let first = request.next().unwrap_or_default();
            request
                .by_ref()
                .take_while(|line| !line.is_empty())
                .for_each(drop);
            let path = first
                .strip_prefix("GET ")
                .and_then(|rest| rest.split_whitespace().next());
            let (status, body) = path.map_or((405, Value::Null), answer);
            let body = body.to_string();
            let head = format!(
                "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    format!("http://{address}")
}

async fn look(answer: fn(&str) -> (u16, Value)) -> anyhow::Result<Observed> {
    let config = kube::Config::new(server(answer).parse().unwrap());
    observe(Client::try_from(config).unwrap()).await
}

fn list(items: Value) -> (u16, Value) {
    (
        200,
        json!({ "kind": "List", "apiVersion": "v1", "metadata": {}, "items": items }),
    )
}

fn status(code: u16, reason: &str) -> (u16, Value) {
    let body = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason, "reason": reason, "code": code });
    (code, body)
}

fn eks(path: &str) -> (u16, Value) {
    let (path, _) = path.split_once('?').unwrap_or((path, ""));
    match path {
        "/api/v1/nodes" => list(json!([{
            "metadata": { "name": "ip-10-0-0-1", "labels": {
                "kubernetes.io/os": "linux", "node.kubernetes.io/instance-type": "m5.large",
            }},
            "spec": { "providerID": "aws:///eu-central-1a/i-0123" },
            "status": { "allocatable": { "pods": "29" } },
        }])),
        "/api/v1/pods" => {
            let pod = |host: bool, phase: &str| {
                json!({
                    "metadata": { "name": "p" },
                    "spec": { "nodeName": "ip-10-0-0-1", "hostNetwork": host, "containers": [] },
                    "status": { "phase": phase },
                })
            };
            list(json!([
                pod(false, "Running"),
                pod(false, "Running"),
                pod(true, "Running"),
                pod(false, "Succeeded")
            ]))
        }
        "/apis/apps/v1/daemonsets" => list(json!([{ "metadata": { "name": "aws-node" } }])),
        "/apis/vpcresources.k8s.aws/v1beta1/securitygrouppolicies" => {
            list(json!([{ "metadata": { "name": "db" } }]))
        }
        _ => status(404, "NotFound"),
    }
}

#[tokio::test]
async fn a_cluster_is_read_without_writing() {
    let observed = look(eks).await.unwrap();
    let node = &observed.nodes[0];
    assert_eq!((node.pods, node.allocatable_pods), (2, Some(29)));
    assert_eq!(observed.daemon_sets, ["aws-node"]);
    let answers = detect(&observed).answers;
    assert_eq!(answers.cloud, Cloud::Aws);
    assert_eq!(answers.yes_no.get(&Question::SecurityGroupsPerPod), Some(&true));
    assert!(observed.unread.is_empty(), "{:?}", observed.unread);
}

fn denied(path: &str) -> (u16, Value) {
    if path.starts_with("/api/v1/nodes") {
        return eks(path);
    }
    status(403, "Forbidden")
}

#[tokio::test]
async fn what_may_not_be_read_is_named() {
    let observed = look(denied).await.unwrap();
    assert_eq!(observed.unread.len(), 3, "{:?}", observed.unread);
    assert_eq!(observed.security_group_policies, None);
    assert_eq!(
        detect(&observed)
            .answers
            .yes_no
            .get(&Question::SecurityGroupsPerPod),
        None
    );
}

#[tokio::test]
async fn without_nodes_there_is_no_answer() {
    assert!(look(|_| status(403, "Forbidden")).await.is_err());
}

#[tokio::test]
async fn an_unknown_kind_means_that_there_are_none() {
    fn plain(path: &str) -> (u16, Value) {
        if path.contains("vpcresources") {
            status(404, "NotFound")
        } else {
            eks(path)
        }
    }
    assert_eq!(look(plain).await.unwrap().security_group_policies, Some(false));
}
