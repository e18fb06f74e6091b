// SPDX-License-Identifier: Apache-2.0
//! The table of built-in kinds.

use k8s_openapi::api;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use serde::de::DeserializeOwned;

use super::{Check, Resource, ScalePaths, SelectableField};
use crate::fields;

/// One row: what differs from kind to kind.
struct Row {
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    namespaced: bool,
    status: bool,
    scale: bool,
    generation: bool,
    all: bool,
    review: bool,
    fields: &'static [(&'static str, &'static str)],
    check: Check,
}

fn row<T: DeserializeOwned>(group: &'static str, kind: &'static str, plural: &'static str) -> Row {
    Row {
        group,
        kind,
        plural,
        short: &[],
        namespaced: true,
        status: false,
        scale: false,
        generation: false,
        all: false,
        review: false,
        fields: &[],
        check: fields::check::<T>,
    }
}

impl Row {
    fn short(mut self, names: &'static [&'static str]) -> Self {
        self.short = names;
        self
    }
    fn cluster(mut self) -> Self {
        self.namespaced = false;
        self
    }
    fn status(mut self) -> Self {
        self.status = true;
        self
    }
    fn scale(mut self) -> Self {
        self.scale = true;
        self
    }
    fn generation(mut self) -> Self {
        self.generation = true;
        self
    }
    fn in_all(mut self) -> Self {
        self.all = true;
        self
    }
    fn review(mut self) -> Self {
        self.review = true;
        self
    }
    fn fields(mut self, fields: &'static [(&'static str, &'static str)]) -> Self {
        self.fields = fields;
        self
    }

    fn build(self) -> Resource {
        let group_resource = if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        };
        // Both kinds of Event are one: kept as core/v1, converted at the door.
        let storage = if self.group == "events.k8s.io" {
            "events"
        } else {
            &group_resource
        };
        Resource {
            group: self.group.into(),
            version: "v1".into(),
            kind: self.kind.into(),
            plural: self.plural.into(),
            singular: self.kind.to_lowercase(),
            short_names: self.short.iter().map(|s| (*s).into()).collect(),
            categories: if self.all { vec!["all".into()] } else { Vec::new() },
            namespaced: self.namespaced,
            status: self.status,
            scale: self.scale.then(|| ScalePaths {
                spec: "/spec/replicas".into(),
                status: "/status/replicas".into(),
                selector: Some("/spec/selector".into()),
            }),
            generation: self.generation,
            storage: storage.into(),
            group_resource,
            fields: self
                .fields
                .iter()
                .map(|(label, pointer)| SelectableField {
                    label: (*label).into(),
                    pointer: (*pointer).into(),
                })
                .collect(),
            check: Some(self.check),
            custom: None,
            review: self.review,
        }
    }
}

const POD_FIELDS: &[(&str, &str)] = &[
    ("spec.nodeName", "/spec/nodeName"),
    ("status.phase", "/status/phase"),
    ("spec.restartPolicy", "/spec/restartPolicy"),
    ("spec.schedulerName", "/spec/schedulerName"),
    ("spec.serviceAccountName", "/spec/serviceAccountName"),
    ("spec.hostNetwork", "/spec/hostNetwork"),
    ("status.podIP", "/status/podIP"),
    ("status.nominatedNodeName", "/status/nominatedNodeName"),
];

const EVENT_FIELDS: &[(&str, &str)] = &[
    ("involvedObject.kind", "/involvedObject/kind"),
    ("involvedObject.namespace", "/involvedObject/namespace"),
    ("involvedObject.name", "/involvedObject/name"),
    ("involvedObject.uid", "/involvedObject/uid"),
    ("involvedObject.apiVersion", "/involvedObject/apiVersion"),
    (
        "involvedObject.resourceVersion",
        "/involvedObject/resourceVersion",
    ),
    ("involvedObject.fieldPath", "/involvedObject/fieldPath"),
    ("reason", "/reason"),
    ("reportingComponent", "/reportingComponent"),
    ("source", "/source/component"),
    ("type", "/type"),
];

const REGARDING_FIELDS: &[(&str, &str)] = &[
    ("regarding.kind", "/involvedObject/kind"),
    ("regarding.namespace", "/involvedObject/namespace"),
    ("regarding.name", "/involvedObject/name"),
    ("regarding.uid", "/involvedObject/uid"),
    ("reason", "/reason"),
    ("reportingController", "/reportingComponent"),
    ("type", "/type"),
];

const RBAC: &str = "rbac.authorization.k8s.io";

pub(super) fn all() -> Vec<Resource> {
    let rows = core()
        .into_iter()
        .chain(workloads())
        .chain(networking())
        .chain(others());
    rows.map(Row::build).collect()
}

fn core() -> Vec<Row> {
    use api::core::v1::{
        ConfigMap, Endpoints, Event, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod,
        ReplicationController, Secret, Service, ServiceAccount,
    };
    vec![
        row::<Namespace>("", "Namespace", "namespaces")
            .short(&["ns"])
            .cluster()
            .status()
            .fields(&[("status.phase", "/status/phase")]),
        row::<Node>("", "Node", "nodes")
            .short(&["no"])
            .cluster()
            .status()
            .fields(&[("spec.unschedulable", "/spec/unschedulable")]),
        row::<Pod>("", "Pod", "pods")
            .short(&["po"])
            .status()
            .in_all()
            .fields(POD_FIELDS),
        row::<Service>("", "Service", "services")
            .short(&["svc"])
            .status()
            .in_all()
            .fields(&[("spec.clusterIP", "/spec/clusterIP"), ("spec.type", "/spec/type")]),
        row::<Endpoints>("", "Endpoints", "endpoints").short(&["ep"]),
        row::<ConfigMap>("", "ConfigMap", "configmaps").short(&["cm"]),
        row::<Secret>("", "Secret", "secrets").fields(&[("type", "/type")]),
        row::<ServiceAccount>("", "ServiceAccount", "serviceaccounts").short(&["sa"]),
        // Nothing acts on these here, but manifests bring them, and `kubectl apply --prune` asks for them.
        row::<PersistentVolume>("", "PersistentVolume", "persistentvolumes")
            .short(&["pv"])
            .cluster()
            .status(),
        row::<PersistentVolumeClaim>("", "PersistentVolumeClaim", "persistentvolumeclaims")
            .short(&["pvc"])
            .status(),
        row::<ReplicationController>("", "ReplicationController", "replicationcontrollers")
            .short(&["rc"])
            .status(),
        row::<Event>("", "Event", "events")
            .short(&["ev"])
            .fields(EVENT_FIELDS),
        row::<api::events::v1::Event>("events.k8s.io", "Event", "events")
            .short(&["ev"])
            .fields(REGARDING_FIELDS),
    ]
}

fn workloads() -> Vec<Row> {
    use api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
    use api::batch::v1::{CronJob, Job};
    vec![
        row::<Deployment>("apps", "Deployment", "deployments")
            .short(&["deploy"])
            .status()
            .scale()
            .generation()
            .in_all(),
        row::<ReplicaSet>("apps", "ReplicaSet", "replicasets")
            .short(&["rs"])
            .status()
            .scale()
            .generation()
            .in_all(),
        row::<StatefulSet>("apps", "StatefulSet", "statefulsets")
            .short(&["sts"])
            .status()
            .scale()
            .generation()
            .in_all(),
        row::<DaemonSet>("apps", "DaemonSet", "daemonsets")
            .short(&["ds"])
            .status()
            .generation()
            .in_all(),
        row::<CronJob>("batch", "CronJob", "cronjobs")
            .short(&["cj"])
            .status()
            .generation()
            .in_all(),
        row::<Job>("batch", "Job", "jobs")
            .status()
            .generation()
            .in_all()
            .fields(&[("status.successful", "/status/succeeded")]),
    ]
}

fn networking() -> Vec<Row> {
    use api::discovery::v1::EndpointSlice;
    use api::networking::v1::{Ingress, IngressClass, NetworkPolicy};
    vec![
        row::<EndpointSlice>("discovery.k8s.io", "EndpointSlice", "endpointslices").generation(),
        row::<NetworkPolicy>("networking.k8s.io", "NetworkPolicy", "networkpolicies")
            .short(&["netpol"])
            .generation(),
        row::<Ingress>("networking.k8s.io", "Ingress", "ingresses")
            .short(&["ing"])
            .status()
            .generation(),
        row::<IngressClass>("networking.k8s.io", "IngressClass", "ingressclasses")
            .cluster()
            .generation(),
    ]
}

fn others() -> Vec<Row> {
    use api::authentication::v1::{SelfSubjectReview, TokenReview};
    use api::authorization::v1::{SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview};
    use api::coordination::v1::Lease;
    use api::policy::v1::PodDisruptionBudget;
    use api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
    use api::scheduling::v1::PriorityClass;
    let (authn, authz) = ("authentication.k8s.io", "authorization.k8s.io");
    vec![
        row::<Lease>("coordination.k8s.io", "Lease", "leases"),
        row::<PodDisruptionBudget>("policy", "PodDisruptionBudget", "poddisruptionbudgets")
            .short(&["pdb"])
            .status()
            .generation(),
        row::<PriorityClass>("scheduling.k8s.io", "PriorityClass", "priorityclasses")
            .short(&["pc"])
            .cluster()
            .generation(),
        row::<Role>(RBAC, "Role", "roles"),
        row::<RoleBinding>(RBAC, "RoleBinding", "rolebindings"),
        row::<ClusterRole>(RBAC, "ClusterRole", "clusterroles").cluster(),
        row::<ClusterRoleBinding>(RBAC, "ClusterRoleBinding", "clusterrolebindings").cluster(),
        row::<apiextensions::CustomResourceDefinition>(
            "apiextensions.k8s.io",
            "CustomResourceDefinition",
            "customresourcedefinitions",
        )
        .short(&["crd", "crds"])
        .cluster()
        .status()
        .generation(),
        row::<SelfSubjectReview>(authn, "SelfSubjectReview", "selfsubjectreviews")
            .cluster()
            .review(),
        row::<TokenReview>(authn, "TokenReview", "tokenreviews")
            .cluster()
            .review(),
        row::<SelfSubjectAccessReview>(authz, "SelfSubjectAccessReview", "selfsubjectaccessreviews")
            .cluster()
            .review(),
        row::<SelfSubjectRulesReview>(authz, "SelfSubjectRulesReview", "selfsubjectrulesreviews")
            .cluster()
            .review(),
        row::<SubjectAccessReview>(authz, "SubjectAccessReview", "subjectaccessreviews")
            .cluster()
            .review(),
    ]
}
