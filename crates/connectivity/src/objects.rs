// SPDX-License-Identifier: Apache-2.0
//! The Kubernetes objects of a test.

use k8s_openapi::api::core::v1::{
    Capabilities, Container, Namespace, Pod, PodSpec, SecurityContext, Toleration,
};
use kube::api::ObjectMeta;

use crate::perf::DEFAULT_PORT;

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

/// A pod that answers the load generator's clients on a given node.
pub(crate) fn pod(name: &str, node: &str, image: &str, program: &str, network: Network) -> Pod {
    let container = Container {
        name: "perf".into(),
        image: Some(image.into()),
        command: Some([program, "perf", "server", "--port"].map(Into::into).into()),
        args: Some(vec![DEFAULT_PORT.to_string()]),
        security_context: Some(SecurityContext {
            capabilities: Some(Capabilities {
                add: Some(CAPABILITIES.map(Into::into).into()),
                ..Capabilities::default()
            }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    };
    let spec = PodSpec {
        // Not by the scheduler: it is this node that is to be tried.
        node_name: Some(node.into()),
        host_network: (network == Network::Host).then_some(true),
        containers: vec![container],
        automount_service_account_token: Some(false),
        termination_grace_period_seconds: Some(0),
        tolerations: Some(vec![Toleration {
            operator: Some("Exists".into()),
            ..Toleration::default()
        }]),
        ..PodSpec::default()
    };
    Pod {
        metadata: ObjectMeta {
            name: Some(name.into()),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        ..Pod::default()
    }
}
