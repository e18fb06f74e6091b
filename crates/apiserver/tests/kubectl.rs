// SPDX-License-Identifier: Apache-2.0
//! The server as an unmodified `kubectl` meets it.

#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]
#![allow(clippy::too_many_lines, reason = "a story reads best whole")]

mod cluster;

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use cluster::{Cluster, config};

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: c, image: 'nginx:1', ports: [{containerPort: 80}], resources: {limits: {cpu: 1}}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: p1}
spec: {nodeName: n1, containers: [{name: c, image: busybox}]}
";

const WIDGETS: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  names: {kind: Widget, plural: widgets, shortNames: [wd]}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.size, statusReplicasPath: .status.size}
    additionalPrinterColumns:
    - {name: Size, type: integer, jsonPath: .spec.size}
    - {name: Color, type: string, jsonPath: .spec.color}
    schema:
      openAPIV3Schema:
        type: object
        description: A thing of no use.
        properties:
          spec:
            type: object
            required: [size]
            properties:
              size: {type: integer, minimum: 1, description: How big it is.}
              capacity: {type: integer, minimum: 0, description: Named like a quantity and none.}
              color: {type: string, enum: [red, blue], default: red}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
";

const WIDGET: &str = "
apiVersion: example.com/v1
kind: Widget
metadata: {name: w1, finalizers: [example.com/hold]}
spec: {size: 3}
";

fn has(text: &str, expected: &[&str]) {
    for part in expected {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_applied_shown_changed_and_deleted() {
    let cluster = Cluster::start(config());
    has(&cluster.ok(&["version"]).await, &["Server Version: v1.32"]);
    has(
        &cluster.ok_with(&["apply", "-f", "-"], WEB).await,
        &["deployment.apps/web created", "service/web created"],
    );
    has(
        &cluster.ok_with(&["apply", "-f", "-"], WEB).await,
        &["service/web unchanged", "pod/p1 unchanged"],
    );
    has(
        &cluster.ok(&["get", "pods,svc,deploy", "-o", "wide"]).await,
        &[
            "NAME",
            "READY",
            "STATUS",
            "RESTARTS",
            "0/1     Pending",
            "n1",
            "80:30000/TCP",
            "0/2",
            "app=web",
        ],
    );
    has(
        &cluster.ok(&["get", "nodes,ns"]).await,
        &["kube-system", "Active"],
    );

    cluster.ok(&["label", "pod", "p1", "tier=front"]).await;
    cluster.ok(&["annotate", "pod", "p1", "note=x"]).await;
    has(
        &cluster
            .ok(&["get", "pods", "-l", "tier in (front)", "--show-labels"])
            .await,
        &["tier=front"],
    );
    has(
        &cluster
            .ok(&["get", "pods", "-A", "--field-selector", "spec.nodeName=n1"])
            .await,
        &["p1"],
    );
    let replicas = ["get", "deploy", "web", "-o", "jsonpath={.spec.replicas}"];
    for (kind, patch, expected) in [
        ("strategic", r#"{"spec":{"replicas":3}}"#, "3"),
        ("merge", r#"{"spec":{"replicas":4}}"#, "4"),
        (
            "json",
            r#"[{"op":"replace","path":"/spec/replicas","value":5}]"#,
            "5",
        ),
    ] {
        cluster
            .ok(&["patch", "deploy", "web", "--type", kind, "-p", patch])
            .await;
        assert_eq!(cluster.ok(&replicas).await, expected, "{kind}");
    }
    cluster.ok(&["scale", "deploy", "web", "--replicas=7"]).await;
    assert_eq!(cluster.ok(&replicas).await, "7");
    cluster.ok(&["set", "image", "deploy/web", "c=nginx:2"]).await;
    cluster.ok(&["rollout", "restart", "deploy/web"]).await;
    has(
        &cluster.ok(&["describe", "deploy", "web"]).await,
        &["nginx:2", "restartedAt", "7 desired"],
    );

    cluster.ok(&["delete", "deploy,svc", "web"]).await;
    let gone = cluster.fails_with(&["get", "deploy", "web"], "").await;
    has(&gone, &["deployments.apps \"web\" not found"]);
    cluster
        .ok(&["delete", "pod", "p1", "--force", "--grace-period=0"])
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_side_apply_names_conflicts_and_can_force_them() {
    let cluster = Cluster::start(config());
    let apply = ["apply", "--server-side", "-f", "-"];
    has(&cluster.ok_with(&apply, WEB).await, &["serverside-applied"]);
    let more = WEB.replace("replicas: 2", "replicas: 3");
    let other = ["apply", "--server-side", "-f", "-", "--field-manager=other"];
    has(
        &cluster.fails_with(&other, &more).await,
        &["conflict with \"kubectl\"", ".spec.replicas"],
    );
    let force = [&other[..], &["--force-conflicts"]].concat();
    cluster.ok_with(&force, &more).await;
    assert_eq!(
        cluster
            .ok(&["get", "deploy", "web", "-o", "jsonpath={.spec.replicas}"])
            .await,
        "3"
    );
    // From client-side to server-side apply, which moves the ownership.
    let cluster = Cluster::start(config());
    cluster.ok_with(&["apply", "-f", "-"], WEB).await;
    let output = cluster.output(&apply, WEB).await;
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_created_from_the_command_line() {
    let cluster = Cluster::start(config());
    for command in [
        "create namespace a",
        "create configmap c --from-literal=x=y -n a",
        "create secret generic s --from-literal=x=y",
        "create serviceaccount sa",
        "create deployment d --image=nginx --replicas=0 --port=80",
        "create service clusterip svc --tcp=80:8080",
        "create job j --image=x",
        "create role r --verb=get --resource=pods",
        "create rolebinding rb --role=r --serviceaccount=default:sa",
        "create ingress i --rule=host/*=svc:80",
        "create poddisruptionbudget p --selector=a=b --min-available=1",
        "create priorityclass pc --value=5",
        "run r --image=busybox",
        "expose deployment d --name=exposed --port=80",
    ] {
        let args: Vec<&str> = command.split(' ').collect();
        has(
            &cluster.ok(&args).await,
            &[if args[0] == "create" { "created" } else { "" }],
        );
    }
    assert_eq!(
        cluster
            .ok(&["get", "deploy", "d", "-o", "jsonpath={.spec.replicas}"])
            .await,
        "0"
    );
    assert_eq!(
        cluster
            .ok(&["get", "cm", "c", "-n", "a", "-o", "jsonpath={.data.x}"])
            .await,
        "y"
    );
    has(
        &cluster.ok(&["get", "all,ing,pdb,role,rolebinding,pc"]).await,
        &["svc", "exposed", "job.batch/j", "Role/r"],
    );
    assert_eq!(
        cluster.ok(&["auth", "can-i", "delete", "pods"]).await.trim(),
        "yes"
    );
    has(&cluster.ok(&["auth", "whoami"]).await, &["thalweg-admin"]);
    let late = cluster
        .fails_with(&["create", "configmap", "c", "-n", "missing"], "")
        .await;
    has(&late, &["namespaces \"missing\" not found"]);
    cluster.ok(&["delete", "namespace", "a", "--wait=false"]).await;
    has(&cluster.ok(&["get", "namespace", "a"]).await, &["Terminating"]);
    let late = cluster
        .fails_with(&["create", "configmap", "d", "-n", "a"], "")
        .await;
    has(
        &late,
        &["unable to create new content in namespace a because it is being terminated"],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn custom_kinds_are_served_checked_and_explained() {
    let cluster = Cluster::start(config());
    cluster.ok_with(&["apply", "-f", "-"], WIDGETS).await;
    cluster
        .ok(&[
            "wait",
            "--for=condition=Established",
            "crd/widgets.example.com",
            "--timeout=10s",
        ])
        .await;
    has(
        &cluster.ok(&["api-resources"]).await,
        &["widgets", "wd", "example.com/v1", "deployments", "netpol"],
    );
    cluster.ok_with(&["apply", "-f", "-"], WIDGET).await;
    has(
        &cluster.ok(&["get", "wd"]).await,
        &["NAME   SIZE   COLOR", "w1     3      red"],
    );
    has(
        &cluster.ok(&["explain", "widget.spec"]).await,
        &["size\t<integer> -required-", "How big it is.", "enum: red, blue"],
    );
    has(
        &cluster.ok(&["explain", "widget"]).await,
        &["GROUP:      example.com", "A thing of no use."],
    );

    let small = WIDGET.replace("size: 3", "size: 0");
    has(
        &cluster.fails_with(&["apply", "-f", "-"], &small).await,
        &["spec.size", "greater than or equal to 1"],
    );
    let green = WIDGET.replace("size: 3", "size: 3, color: green");
    has(
        &cluster.fails_with(&["apply", "-f", "-"], &green).await,
        &["Unsupported value: \"green\""],
    );
    let typo = WIDGET.replace("size: 3", "size: 3, colour: red");
    has(
        &cluster.fails_with(&["apply", "-f", "-"], &typo).await,
        &["unknown field \"spec.colour\""],
    );

    cluster.ok(&["scale", "widget", "w1", "--replicas=4"]).await;
    let status = r#"{"status":{"conditions":[{"type":"Ready","status":"True"}]},"spec":{"size":9}}"#;
    cluster
        .ok(&[
            "patch",
            "wd",
            "w1",
            "--subresource=status",
            "--type=merge",
            "-p",
            status,
        ])
        .await;
    cluster
        .ok(&["wait", "--for=condition=Ready", "wd/w1", "--timeout=10s"])
        .await;
    assert_eq!(
        cluster
            .ok(&[
                "get",
                "wd",
                "w1",
                "-o",
                "jsonpath={.spec.size}/{.metadata.generation}"
            ])
            .await,
        "4/2"
    );

    cluster.ok(&["delete", "wd", "w1", "--wait=false"]).await;
    assert_ne!(
        cluster
            .ok(&["get", "wd", "w1", "-o", "jsonpath={.metadata.deletionTimestamp}"])
            .await,
        ""
    );
    let release = r#"[{"op":"remove","path":"/metadata/finalizers"}]"#;
    cluster
        .ok(&["patch", "wd", "w1", "--type=json", "-p", release])
        .await;
    has(
        &cluster.fails_with(&["get", "wd", "w1"], "").await,
        &["not found"],
    );
    cluster
        .ok_with(&["apply", "--server-side", "-f", "-"], WIDGET)
        .await;
    cluster.ok(&["delete", "crd", "widgets.example.com"]).await;
    has(
        &cluster.fails_with(&["get", "wd"], "").await,
        &["could not find the requested resource"],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_in_manifests_are_found() {
    let cluster = Cluster::start(config());
    let pod = |spec: &str| format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec: {spec}\n");
    let typo = pod("{containers: [{name: c, image: x, imag: y}]}");
    has(
        &cluster.fails_with(&["apply", "-f", "-"], &typo).await,
        &["unknown field \"spec.containers[0].imag\""],
    );
    let warned = cluster
        .output(&["create", "--validate=warn", "-f", "-"], &typo)
        .await;
    has(
        &String::from_utf8_lossy(&warned.stderr),
        &["Warning: unknown field \"spec.containers[0].imag\""],
    );
    cluster.ok(&["delete", "pod", "p"]).await;
    for (spec, expected) in [
        ("{containers: []}", "spec.containers: Required value"),
        (
            "{containers: [{name: C_, image: x}]}",
            "spec.containers[0].name: Invalid value: \"C_\"",
        ),
        (
            "{containers: [{name: c, image: x, ports: [{containerPort: 99999}]}]}",
            "must be between 1 and 65535",
        ),
        ("{containers: x}", "cannot be handled as a Pod"),
    ] {
        let error = cluster.fails_with(&["create", "-f", "-"], &pod(spec)).await;
        has(&error, &[expected]);
    }
    cluster.ok(&["run", "plain", "--image", "x"]).await;
    let debug = cluster
        .fails_with(&["debug", "plain", "--image", "x", "--profile", "general"], "")
        .await;
    has(&debug, &["ephemeral containers are disabled"]);
    let policy = |peer: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: policy}}\n\
             spec: {{podSelector: {{}}, ingress: [{{from: [{peer}]}}]}}\n"
        )
    };
    let bad = policy("{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}");
    has(
        &cluster.fails_with(&["create", "-f", "-"], &bad).await,
        &["must be a strict subset of `cidr`"],
    );
    cluster
        .ok_with(&["create", "-f", "-"], &policy("{ipBlock: {cidr: 'fd00::/8'}}"))
        .await;
    assert_eq!(
        cluster
            .ok(&["get", "netpol", "policy", "-o", "jsonpath={.spec.policyTypes}"])
            .await,
        "[\"Ingress\"]"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_prints_changes_as_they_come() {
    let cluster = Cluster::start(config());
    cluster.ok_with(&["apply", "-f", "-"], WEB).await;
    let mut child = cluster
        .kubectl(&["get", "pods", "-w", "-o", "wide"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("kubectl is installed");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut line = || lines.next().unwrap().unwrap();
    has(&line(), &["NAME", "NODE"]);
    has(&line(), &["p1", "Pending", "n1"]);
    cluster
        .ok(&[
            "patch",
            "pod",
            "p1",
            "--subresource=status",
            "-p",
            r#"{"status":{"phase":"Running"}}"#,
        ])
        .await;
    has(&line(), &["p1", "Running"]);
    cluster.ok(&["delete", "pod", "p1", "--wait=false"]).await;
    has(&line(), &["p1", "Terminating"]);
    child.kill().unwrap();
    child.wait().unwrap();
}
