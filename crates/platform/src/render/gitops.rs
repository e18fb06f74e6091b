// SPDX-License-Identifier: Apache-2.0
//! The tree for Argo CD: one ApplicationSet, and for each cluster its facts and our values.

use serde_json::{Value, json};

use super::{Context, Fleet, yaml};
use crate::file::{Cloud, GitOps, Mode, Tunnel};

/// The values of our chart, under the keys that users of the field's charts know.
pub(crate) fn values(context: &Context<'_>) -> Value {
    let (cluster, addresses) = (context.cluster, context.addresses);
    let mut values = json!({
        "cluster": {"name": cluster.name},
        "kubeProxyReplacement": cluster.features.kube_proxy_replacement,
        "hubble": {"enabled": cluster.features.hubble, "relay": {"enabled": cluster.features.hubble}},
        "operator": {"replicas": 2},
        "cni": {"exclusive": cluster.mode != Mode::Delegated},
    });
    if cluster.features.bgp {
        values["bgpControlPlane"] = json!({"enabled": true});
    }
    let pods = addresses.pods.map(|net| net.to_string());
    let more = match cluster.mode {
        Mode::Eni | Mode::EniPrefix => json!({
            "routingMode": "native",
            "ipv4NativeRoutingCIDR": addresses.network.to_string(),
            "ipam": {"mode": "eni"},
            "eni": {"enabled": true, "awsEnablePrefixDelegation": cluster.mode == Mode::EniPrefix},
            "endpointRoutes": {"enabled": true},
        }),
        Mode::Overlay => json!({
            "routingMode": "tunnel",
            "tunnelProtocol": match cluster.features.tunnel {
                Tunnel::Vxlan => "vxlan",
                Tunnel::Geneve => "geneve",
            },
            "ipam": {"mode": "cluster-pool", "operator": {
                "clusterPoolIPv4PodCIDRList": [pods],
                "clusterPoolIPv4MaskSize": cluster.node_mask,
            }},
        }),
        Mode::Delegated => json!({
            "routingMode": "native",
            "ipv4NativeRoutingCIDR": pods,
            "ipam": {"mode": "delegated-plugin"},
            "endpointRoutes": {"enabled": true},
            "enableIPv4Masquerade": false,
        }),
        Mode::PodCidr => json!({
            "routingMode": "native",
            "ipv4NativeRoutingCIDR": pods,
            "ipam": {"mode": "kubernetes"},
            "autoDirectNodeRoutes": cluster.cloud == Cloud::Machines,
        }),
    };
    if let (Value::Object(values), Value::Object(more)) = (&mut values, more) {
        values.extend(more);
    }
    if cluster.cloud == Cloud::Gcp {
        // The only writable directory of binaries on Container-Optimized OS.
        values["cni"]["binPath"] = json!("/home/kubernetes/bin");
    }
    if let (Cloud::Machines, Some((host, port))) = (
        cluster.cloud,
        cluster
            .endpoint
            .as_deref()
            .and_then(|endpoint| endpoint.rsplit_once(':')),
    ) {
        values["k8sServiceHost"] = json!(host);
        values["k8sServicePort"] = json!(port.parse::<u16>().unwrap_or(6443));
    }
    values
}

/// The ApplicationSet and the files of each cluster.
pub(crate) fn files(fleet: &Fleet<'_>, gitops: &GitOps) -> Vec<(String, String)> {
    let mut files = vec![(
        "gitops/applicationset.yaml".to_owned(),
        yaml(&application_set(fleet, gitops)),
    )];
    for context in fleet.contexts() {
        let directory = format!("gitops/clusters/{}", context.cluster.name);
        files.push((format!("{directory}/cluster.yaml"), yaml(&facts(&context))));
    }
    files
}

fn facts(context: &Context<'_>) -> Value {
    json!({
        "cluster": context.cluster.name,
        "cloud": context.cluster.cloud.to_string(),
        "region": context.cluster.region,
        "mode": context.cluster.mode.to_string(),
    })
}

/// A cluster's API address is known to Argo CD, which has it in its secret, and to nobody before it is made: the chart
/// gets it from there. Pods in the host's network have no other way to the API before services work.
fn application_set(fleet: &Fleet<'_>, gitops: &GitOps) -> Value {
    let platform = &fleet.platform.name;
    let directory = "gitops/clusters/{{ .cluster }}";
    json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "ApplicationSet",
        "metadata": {"name": format!("{platform}-thalweg"), "namespace": "argocd"},
        "spec": {
            "goTemplate": true,
            "goTemplateOptions": ["missingkey=error"],
            "generators": [{"matrix": {"generators": [
                {"git": {
                    "repoURL": gitops.repository,
                    "revision": gitops.revision,
                    "files": [{"path": "gitops/clusters/*/cluster.yaml"}],
                }},
                {"clusters": {"selector": {"matchLabels": {
                    "thalweg.io/platform": platform,
                    "thalweg.io/cluster": "{{ .cluster }}",
                }}}},
            ]}}],
            // One cluster after the other is for a person to decide: nothing is synchronised by itself.
            "strategy": {"type": "AllAtOnce"},
            "template": {
                "metadata": {"name": "thalweg-{{ .cluster }}"},
                "spec": {
                    "project": "default",
                    "destination": {"server": "{{ .server }}", "namespace": "kube-system"},
                    "sources": [
                        {
                            "repoURL": gitops.chart_repository,
                            "chart": "thalweg",
                            "targetRevision": gitops.chart_version,
                            "helm": {
                                "releaseName": "thalweg",
                                "valueFiles": [format!("$values/{directory}/values.yaml")],
                                "parameters": [
                                    {"name": "k8sServiceHost", "value": "{{ (urlParse .server).hostname }}"},
                                    {
                                        "name": "k8sServicePort",
                                        "value": "{{ (urlParse .server).host | splitList \":\" | rest | join \"\" | default \"443\" }}",
                                    },
                                ],
                            },
                        },
                        {"repoURL": gitops.repository, "targetRevision": gitops.revision, "ref": "values"},
                    ],
                    "syncPolicy": {"syncOptions": ["ServerSideApply=true"]},
                },
            },
        },
    })
}
