// SPDX-License-Identifier: Apache-2.0
//! The Kubernetes objects of a test.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, Namespace, Pod, PodSpec, Probe, SecurityContext, TCPSocketAction,
    Toleration,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ObjectMeta;

use crate::perf::{DEFAULT_PORT, Ports};

/// The port that says who answers, by name.
pub(crate) const NAMED_PORT: &str = "who";
/// The same over UDP.
pub(crate) const NAMED_PORT_UDP: &str = "who-udp";
/// A port where nobody listens.
const CLOSED_PORT: i32 = 1;

/// What test pods may do beyond the ordinary: forge packets and flush their neighbours.
const CAPABILITIES: [&str; 2] = ["NET_ADMIN", "NET_RAW"];

/// Where a test pod lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// In a network of its own.
    Pod,
    /// In its node's.
    Host,
}

/// The namespace; privileged, since pods in their node's network are.
pub(crate) fn namespace(name: &str) -> Namespace {
    let label = ("pod-security.kubernetes.io/enforce".into(), "privileged".into());
    let labels = Some([label].into());
    Namespace {
        metadata: ObjectMeta {
            name: Some(name.into()),
            labels,
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    }
}

/// A pod that answers the load generator's clients, by its own name.
#[derive(Clone, Debug)]
pub(crate) struct Server<'a> {
    /// The pod's name.
    pub(crate) name: &'a str,
    /// Its node.
    pub(crate) node: &'a str,
    /// Where it lives.
    pub(crate) network: Network,
    /// By what services find it.
    pub(crate) labels: BTreeMap<String, String>,
    /// How many seconds it goes on after it was told to end.
    pub(crate) grace: i64,
    /// Whether it is ever ready.
    pub(crate) ready: bool,
}

impl<'a> Server<'a> {
    /// An ordinary one.
    pub(crate) fn new(name: &'a str, node: &'a str, labels: &[(&str, &str)]) -> Self {
        let labels = labels
            .iter()
            .map(|(key, value)| (label(key), (*value).to_owned()));
        Self {
            name,
            node,
            network: Network::Pod,
            labels: labels.collect(),
            grace: 0,
            ready: true,
        }
    }

    /// The object.
    pub(crate) fn pod(&self, image: &str, program: &str) -> Pod {
        let spec = PodSpec {
            // Not by the scheduler: it is this node that is to be tried.
            node_name: Some(self.node.into()),
            host_network: (self.network == Network::Host).then_some(true),
            containers: vec![self.container(image, program)],
            automount_service_account_token: Some(false),
            termination_grace_period_seconds: Some(self.grace),
            tolerations: Some(vec![Toleration {
                operator: Some("Exists".into()),
                ..Toleration::default()
            }]),
            ..PodSpec::default()
        };
        Pod {
            metadata: ObjectMeta {
                name: Some(self.name.into()),
                labels: Some(self.labels.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(spec),
            ..Pod::default()
        }
    }

    fn container(&self, image: &str, program: &str) -> Container {
        let port = DEFAULT_PORT.to_string();
        let mut args: Vec<String> = ["--port", &port, "--name", self.name].map(Into::into).into();
        if self.grace > 0 {
            args.push("--ignore-sigterm".into());
        }
        let never = Probe {
            tcp_socket: Some(TCPSocketAction {
                port: IntOrString::Int(CLOSED_PORT),
                ..TCPSocketAction::default()
            }),
            ..Probe::default()
        };
        Container {
            name: "perf".into(),
            image: Some(image.into()),
            command: Some([program, "perf", "server"].map(Into::into).into()),
            args: Some(args),
            // In the node's network each would be a port of the node's.
            ports: (self.network == Network::Pod).then(named_ports),
            readiness_probe: (!self.ready).then_some(never),
            security_context: Some(SecurityContext {
                capabilities: Some(Capabilities {
                    add: Some(CAPABILITIES.map(Into::into).into()),
                    ..Capabilities::default()
                }),
                ..SecurityContext::default()
            }),
            ..Container::default()
        }
    }
}

/// A label of test pods.
pub(crate) fn label(key: &str) -> String {
    format!("connectivity.thalweg.io/{key}")
}

fn named_ports() -> Vec<ContainerPort> {
    let named = [("TCP", NAMED_PORT), ("UDP", NAMED_PORT_UDP)];
    let ports = named.map(|(protocol, name)| ContainerPort {
        name: Some(name.into()),
        container_port: Ports::new(DEFAULT_PORT).whoami().into(),
        protocol: Some(protocol.into()),
        ..ContainerPort::default()
    });
    ports.into()
}
