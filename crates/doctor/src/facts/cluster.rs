// SPDX-License-Identifier: Apache-2.0
//! The cluster, as its API shows it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Gathered;

/// The cluster, as its API shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterFacts {
    /// The API server's version, as `v1.33.4-eks-1234`.
    pub version: Gathered<String>,
    /// The API server's clock beside ours.
    pub skew: Gathered<Skew>,
    /// The Node objects.
    pub nodes: Gathered<Vec<NodeObject>>,
    /// All DaemonSets.
    pub daemon_sets: Gathered<Vec<DaemonSetFacts>>,
    /// Pods that are pending, or that the checks look at for another reason, in short.
    pub pods: Gathered<Vec<PodFacts>>,
    /// Pods per node that have an address of their own (no host network), running or about to.
    pub pods_per_node: Gathered<BTreeMap<String, u32>>,
    /// Services with a cluster address.
    pub services: Gathered<Vec<ServiceFacts>>,
    /// Where service addresses come from.
    pub service_cidrs: Gathered<Vec<IpNet>>,
    /// Disruption budgets.
    pub budgets: Gathered<Vec<Budget>>,
    /// Admission webhooks.
    pub webhooks: Gathered<Vec<WebhookFacts>>,
    /// Groups of custom resources that are defined.
    pub crd_groups: Gathered<Vec<String>>,
    /// Uses of API versions that are going away.
    pub deprecated: Gathered<Vec<DeprecatedUse>>,
    /// The VPC CNI's SecurityGroupPolicy objects, as `namespace/name`.
    pub security_group_policies: Gathered<Vec<String>>,
}

/// Two clocks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skew {
    /// The API server's `Date`, in milliseconds since 1970; a header counts whole seconds.
    pub server_ms: u64,
    /// Our clock when the request went out.
    pub sent_ms: u64,
    /// Our clock when the answer was there.
    pub received_ms: u64,
}

/// A Node object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeObject {
    /// Its name.
    pub name: String,
    /// `spec.providerID`.
    pub provider_id: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Keys of its taints.
    pub taints: Vec<String>,
    /// The kubelet's version.
    pub kubelet: String,
    /// kube-proxy's version, where a node still says one.
    pub kernel: String,
    /// The operating system's name.
    pub os_image: String,
    /// The container runtime and its version.
    pub runtime: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Where its pods' addresses come from.
    pub pod_cidrs: Vec<IpNet>,
    /// How many pods the scheduler may put here.
    pub max_pods: Option<u32>,
    /// Whether it is ready.
    pub ready: bool,
    /// Why it is not.
    pub reason: String,
}

/// A DaemonSet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DaemonSetFacts {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The images of its containers.
    pub images: Vec<String>,
    /// Pods that there should be.
    pub desired: u32,
    /// Pods that are ready.
    pub ready: u32,
    /// `RollingUpdate` or `OnDelete`.
    pub strategy: String,
    /// `maxUnavailable`, as written.
    pub max_unavailable: String,
    /// Its priority class.
    pub priority_class: String,
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodFacts {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its node, once it has one.
    pub node: String,
    /// Its phase.
    pub phase: String,
    /// Seconds since it was made.
    pub age_seconds: u64,
    /// Why a container waits, such as `ContainerCreating`.
    pub waiting: String,
    /// What the scheduler or the kubelet says.
    pub message: String,
    /// Whether the VPC CNI gave it a branch interface (annotation `vpc.amazonaws.com/pod-eni`).
    pub branch_interface: bool,
}

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceFacts {
    /// As `namespace/name`.
    pub name: String,
    /// Its addresses within the cluster.
    pub cluster_ips: Vec<IpAddr>,
}

/// A disruption budget.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Budget {
    /// As `namespace/name`.
    pub name: String,
    /// Pods that may be evicted now.
    pub allowed: i32,
    /// Pods that it covers.
    pub pods: i32,
}

/// An admission webhook.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WebhookFacts {
    /// The configuration's name and the webhook's.
    pub name: String,
    /// Whether requests fail while it does not answer.
    pub fails_closed: bool,
    /// Whether it is asked about pods of `kube-system` too.
    pub covers_kube_system: bool,
    /// Whether its rules name pods.
    pub covers_pods: bool,
    /// The service behind it, as `namespace/name`; none for a URL.
    pub service: Option<String>,
}

/// Use of an API version that is going away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeprecatedUse {
    /// As `policy/v1beta1`.
    pub group_version: String,
    /// As `podsecuritypolicies`.
    pub resource: String,
    /// The version without it, as the API server says: `1.25`; empty where it does not.
    pub removed_in: String,
}
