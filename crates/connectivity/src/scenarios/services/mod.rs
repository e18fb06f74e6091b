// SPDX-License-Identifier: Apache-2.0
//! What Kubernetes documents of Services, a scenario for each behaviour. Each makes a Service of its own, so that none
//! spoils another.

mod backends;
mod basics;
mod outside;
mod tools;

use super::Reach::{NodeToRemotePod, NodeToService, PodToService};
use super::{Reach, Scenario};

const PODS: &[Reach] = &[PodToService];
const OTHER_NODE: &[Reach] = &[NodeToRemotePod];
const BOTH: &[Reach] = &[PodToService, NodeToService];

pub(super) const CATALOGUE: &[Scenario] = &[
    Scenario {
        name: "service-cluster-ip",
        proves: "a ClusterIP is answered over TCP and UDP on every node, also when its own backend asks",
        reaches: BOTH,
        thalweg: false,
        run: |bed, case| Box::pin(basics::cluster_ip(bed, case)),
    },
    Scenario {
        name: "service-to-itself",
        proves: "a pod reaches itself through the service that it alone is behind",
        reaches: PODS,
        thalweg: false,
        run: |bed, case| Box::pin(basics::to_itself(bed, case)),
    },
    Scenario {
        name: "service-source-address",
        proves: "backends see the address of the pod that calls a ClusterIP",
        reaches: PODS,
        thalweg: false,
        run: |bed, case| Box::pin(basics::source_address(bed, case)),
    },
    Scenario {
        name: "service-spread",
        proves: "new connections go to every backend",
        reaches: BOTH,
        thalweg: false,
        run: |bed, case| Box::pin(basics::spread(bed, case)),
    },
    Scenario {
        name: "service-port-mapping",
        proves: "a service's port leads to another one of its pods, by number and by name",
        reaches: PODS,
        thalweg: false,
        run: |bed, case| Box::pin(basics::port_mapping(bed, case)),
    },
    Scenario {
        name: "service-no-such-port",
        proves: "a port that a service does not have is not answered; Thalweg refuses it",
        reaches: PODS,
        thalweg: false,
        run: |bed, case| Box::pin(basics::no_such_port(bed, case)),
    },
    Scenario {
        name: "service-no-backend",
        proves: "a service without backends refuses connections and datagrams at once",
        reaches: BOTH,
        thalweg: false,
        run: |bed, case| Box::pin(basics::no_backend(bed, case)),
    },
    Scenario {
        name: "service-affinity",
        proves: "sessionAffinity ClientIP keeps each client at one backend",
        reaches: BOTH,
        thalweg: false,
        run: |bed, case| Box::pin(backends::affinity(bed, case)),
    },
    Scenario {
        name: "service-internal-local",
        proves: "internalTrafficPolicy Local chooses the client's node's backends only, and answers nobody where there are none",
        reaches: BOTH,
        thalweg: false,
        run: |bed, case| Box::pin(backends::internal_local(bed, case)),
    },
    Scenario {
        name: "service-not-ready",
        proves: "pods that are not ready are no backends, but with publishNotReadyAddresses they are",
        reaches: PODS,
        thalweg: false,
        run: |bed, case| Box::pin(backends::not_ready(bed, case)),
    },
    Scenario {
        name: "service-terminating",
        proves: "a terminating backend keeps its connections while new ones go elsewhere",
        reaches: PODS,
        thalweg: false,
        run: |bed, case| Box::pin(backends::terminating(bed, case)),
    },
    Scenario {
        name: "service-node-port",
        proves: "a node port is answered at every node's address, over TCP and UDP",
        reaches: BOTH,
        thalweg: false,
        run: |bed, case| Box::pin(outside::node_port(bed, case)),
    },
    Scenario {
        name: "service-external-local",
        proves: "externalTrafficPolicy Local keeps the address of clients outside, and does not answer on nodes without a backend",
        reaches: OTHER_NODE,
        thalweg: false,
        run: |bed, case| Box::pin(outside::external_local(bed, case)),
    },
    Scenario {
        name: "service-external-ip",
        proves: "an external IP is answered inside the cluster",
        reaches: BOTH,
        thalweg: false,
        run: |bed, case| Box::pin(outside::external_ip(bed, case)),
    },
    Scenario {
        name: "service-load-balancer",
        proves: "a load balancer's address in a service's status is answered inside the cluster",
        reaches: BOTH,
        thalweg: false,
        run: |bed, case| Box::pin(outside::load_balancer(bed, case)),
    },
];
