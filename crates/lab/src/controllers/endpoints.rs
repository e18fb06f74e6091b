// SPDX-License-Identifier: Apache-2.0
//! The Endpoints object of a service, for those who still read it: pure. One family, the service's first.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource as _, ResourceExt as _};

use super::slices::{is_ready, pod_ips, target_port};

/// The most addresses that an Endpoints object holds, as in Kubernetes.
const ADDRESSES_MAX: usize = 1000;
/// Keeps the mirroring controller of Kubernetes away from the object.
const SKIP_MIRROR_LABEL: &str = "endpointslice.kubernetes.io/skip-mirror";

/// The Endpoints object that a service should have.
pub(crate) fn desired(service: &Service, pods: &[Arc<Pod>]) -> Endpoints {
    let mut subsets: Vec<EndpointSubset> = Vec::new();
    for pod in pods.iter().take(ADDRESSES_MAX) {
        let Some((address, ready)) = address(service, pod) else {
            continue;
        };
        let ports = ports(service, pod);
        let index = subsets
            .iter()
            .position(|subset| subset.ports == ports)
            .unwrap_or_else(|| {
                subsets.push(EndpointSubset {
                    ports,
                    ..EndpointSubset::default()
                });
                subsets.len() - 1
            });
        let subset = &mut subsets[index];
        let list = if ready {
            &mut subset.addresses
        } else {
            &mut subset.not_ready_addresses
        };
        list.get_or_insert_default().push(address);
    }
    let mut labels = service.labels().clone();
    labels.insert(SKIP_MIRROR_LABEL.into(), "true".into());
    Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: service.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        subsets: (!subsets.is_empty()).then_some(subsets),
    }
}

/// Whether the object says what it should.
pub(crate) fn is_current(is: &Endpoints, should: &Endpoints) -> bool {
    is.subsets.as_deref().unwrap_or_default() == should.subsets.as_deref().unwrap_or_default()
}

fn address(service: &Service, pod: &Pod) -> Option<(EndpointAddress, bool)> {
    let spec = service.spec.as_ref()?;
    let phase = pod.status.as_ref()?.phase.as_deref();
    let publish = spec.publish_not_ready_addresses == Some(true);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    if matches!(phase, Some("Succeeded" | "Failed")) || terminating && !publish {
        return None;
    }
    let v6 = spec
        .ip_families
        .as_ref()
        .and_then(|families| families.first())
        .is_some_and(|first| first == "IPv6");
    let ip = pod_ips(pod).into_iter().find(|ip| ip.is_ipv6() == v6)?;
    let address = EndpointAddress {
        ip: ip.to_string(),
        node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        ..EndpointAddress::default()
    };
    Some((address, publish || is_ready(pod)))
}

fn ports(service: &Service, pod: &Pod) -> Option<Vec<EndpointPort>> {
    let ports = service.spec.as_ref()?.ports.as_ref()?;
    let known = ports.iter().filter_map(|port| {
        Some(EndpointPort {
            app_protocol: port.app_protocol.clone(),
            name: port.name.clone().filter(|name| !name.is_empty()),
            port: target_port(port, pod)?,
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
        })
    });
    Some(known.collect())
}
